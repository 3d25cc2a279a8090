//! Directory entries of FAT, with their long names (fatgen103, "FAT Directory Structure"). Reads sectors of a directory;
//! follows nothing that they say.

use std::io::{Read, Seek};

use super::super::medium::{VolumeError, read_at};
use super::{ENTRY_LEN, byte, label_of, le16, le32, shown};

const LONG_NAME: u8 = 0x0f;
const LONG_NAME_MASK: u8 = 0x3f;

/// A directory entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The long name, or the short one where there is no other.
    pub(super) name: String,
    pub(super) short: String,
    /// The name as a volume label: without the dot.
    pub(super) label: String,
    pub(super) attributes: u8,
    /// The first cluster.
    pub(super) cluster: u32,
    /// In bytes; 0 for directories.
    pub(super) len: u32,
    /// Where the entry stands.
    pub(super) offset: u64,
}

/// Whether a directory goes on behind this part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum More {
    Maybe,
    No,
}

/// The entries in a run of bytes, read one sector at a time. `len` has been bounded by the caller.
pub(super) fn entries_in(
    device: &mut (impl Read + Seek),
    start: u64,
    len: u64,
    long: &mut LongName,
    each: &mut dyn FnMut(Entry) -> Result<(), VolumeError>,
) -> Result<More, VolumeError> {
    let mut done = 0;
    while done < len {
        let mut sector = [0; 512];
        let size = usize::try_from(len - done).unwrap_or(512).min(512);
        let Some(part) = sector.get_mut(..size) else { break };
        read_at(device, start + done, part)?;
        for (raw, number) in part.chunks_exact(ENTRY_LEN).zip(0..) {
            let offset = start + done + number * 32;
            let attributes = byte(raw, 11);
            match (byte(raw, 0), attributes & LONG_NAME_MASK) {
                // fatgen103, DIR_Name[0]: free, and so is everything behind it.
                (0, _) => return Ok(More::No),
                (0xe5, _) => *long = LongName::default(),
                (_, LONG_NAME) => long.add(raw),
                _ => each(Entry::parse(raw, std::mem::take(long), offset))?,
            }
        }
        done += 512;
    }
    Ok(More::Maybe)
}

impl Entry {
    fn parse(raw: &[u8], long: LongName, offset: u64) -> Entry {
        let name = raw.get(..11).unwrap_or_default();
        let (stem, extension) = (shown(name.get(..8).unwrap_or_default()), shown(name.get(8..).unwrap_or_default()));
        let short = if extension.is_empty() { stem } else { format!("{stem}.{extension}") };
        Entry {
            name: long.finish(name).unwrap_or_else(|| short.clone()),
            short,
            label: label_of(name),
            attributes: byte(raw, 11),
            cluster: u32::from(le16(raw, 20)) << 16 | u32::from(le16(raw, 26)),
            len: le32(raw, 28),
            offset,
        }
    }
}

/// The entries of a long name, which stand in front of the short one, last part first (fatgen103, "FAT Long Directory
/// Entries"). A set that is not whole, or belongs to another short name, is none: the short name then counts alone.
#[derive(Default)]
pub(super) struct LongName {
    /// UCS-2, the parts that were seen; `None`: no set, or one that is not whole.
    units: Option<Vec<u16>>,
    /// Number of the part that was seen last.
    part: u8,
    /// Of the short name that it belongs to.
    checksum: u8,
}

impl LongName {
    fn add(&mut self, raw: &[u8]) {
        let order = byte(raw, 0);
        let (first, part, checksum) = (order & 0x40 != 0, order & 0x3f, byte(raw, 13));
        // 20 parts of 13 hold the 255 units that a name may have.
        let follows = !first && checksum == self.checksum && Some(part) == self.part.checked_sub(1);
        if !(1..=20).contains(&part) || !first && !follows {
            *self = LongName::default();
            return;
        }
        let behind = if first { Some(Vec::new()) } else { self.units.take() };
        self.units = behind.map(|behind| {
            let fields = [raw.get(1..11), raw.get(14..26), raw.get(28..32)];
            let bytes = fields.into_iter().flatten().flat_map(|field| field.chunks_exact(2));
            let mut units: Vec<u16> = bytes.map(|pair| le16(pair, 0)).collect();
            units.extend(behind);
            units
        });
        (self.part, self.checksum) = (part, checksum);
    }

    fn finish(self, short: &[u8]) -> Option<String> {
        // fatgen103, "ChkSum"
        let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let units = self.units.filter(|_| self.part == 1 && sum == self.checksum)?;
        let units: Vec<u16> = units.into_iter().take_while(|unit| *unit != 0).collect();
        Some(String::from_utf16_lossy(&units).escape_debug().to_string())
    }
}
