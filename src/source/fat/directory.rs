//! Directory entries of FAT, with their long names (fatgen103, "FAT Directory Structure"). Nobody vouches for the
//! bytes. Reads the sectors of a directory, and never follows a cluster number in them.

use std::io::{Read, Seek};

use super::super::medium::{VolumeError, read_at};
use super::{ENTRY_LEN, byte, label_of, le16, le32, shown};

const LONG_NAME: u8 = 0x0f;
const LONG_NAME_MASK: u8 = 0x3f;

/// A directory entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The long name, or the short name if the entry has no long one.
    pub(super) name: String,
    pub(super) short: String,
    /// The name read as a volume label: without the dot.
    pub(super) label: String,
    pub(super) attributes: u8,
    /// The first cluster.
    pub(super) cluster: u32,
    /// In bytes; 0 for directories.
    pub(super) len: u32,
    /// Where the entry stands, in bytes from the start of the device.
    pub(super) offset: u64,
}

/// Whether the directory may have entries after this part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum More {
    Maybe,
    No,
}

/// Calls `each` with every entry in a range of bytes. Reads 512 bytes at a time. The caller has bounded `len`.
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
                // fatgen103, DIR_Name[0]: 0 means that this entry and all entries after it are free.
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

/// The entries of a long name. They stand before the short name, last part first (fatgen103, "FAT Long Directory
/// Entries"). If parts are missing or the checksum does not match the short name, the long name is ignored.
#[derive(Default)]
pub(super) struct LongName {
    /// The parts that were read, in UCS-2. `None` if there are none or some are missing.
    units: Option<Vec<u16>>,
    /// The number of the part that was read last.
    part: u8,
    /// The checksum of the short name.
    checksum: u8,
}

impl LongName {
    fn add(&mut self, raw: &[u8]) {
        let order = byte(raw, 0);
        let (first, part, checksum) = (order & 0x40 != 0, order & 0x3f, byte(raw, 13));
        // A name has at most 255 units, and 13 units fit into each of 20 parts.
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
