//! Reads partition tables: the GUID partition table (GPT, UEFI Specification 2.10, §5.3), with sectors of 512 and of
//! 4096 bytes, and the four entries of a master boot record (MBR). Everybody who ever wrote to the disk vouches for its
//! table, so no number in it is trusted before it is checked. Never writes, never reads what is in a partition, and
//! never decides whether a partition is used.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};

use super::medium::{VolumeError, is_end, read_at};
use crate::checksum::crc32;
use crate::order;

/// The type of a partition that holds a payload: [`crate::medium::PARTITION_TYPE`], as it stands on the disk (the first
/// three fields are little-endian: UEFI Specification 2.10, appendix A).
const OUR_TYPE: [u8; 16] = on_disk(crate::medium::PARTITION_TYPE);
/// The name of a partition that holds a payload. Case does not matter.
pub(super) const OUR_NAME: &str = "IMPRINT";

/// A partition table.
#[derive(Debug)]
pub struct Table {
    /// `a partition table (GPT)`
    pub name: &'static str,
    /// The entries that are in use. Of a table with a fault: what can be read of them.
    pub partitions: Vec<Partition>,
    /// The entries of the MBR beside a GPT. They only serve to tell whether a volume on the whole medium is in a
    /// partition.
    beside: Vec<Partition>,
    /// Why the partitions cannot be used. `None`: they can.
    pub fault: Option<TableError>,
}

/// A partition. `start` and `end` are in sectors of 512 bytes; `end` is the first sector after the partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// The number in the table, from 1. Unused entries of the table count, as in the kernel's names.
    pub number: u32,
    start: u64,
    end: u64,
    /// The name in a GPT; empty in an MBR.
    pub name: String,
    ours: bool,
}

/// Why a partition table cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableError {
    /// The MBR has an entry that protects a GPT, and there is no GPT.
    NoGpt,
    /// There is a GPT, and the MBR does not protect it: the disk was partitioned again by a program that knows no GPT.
    Unprotected,
    /// The primary GPT contradicts itself, and there is no valid backup; what is wrong with the primary.
    Header(&'static str),
    /// Primary and backup are both valid and differ.
    Differ,
    /// Two partitions have sectors in common.
    Overlap(u32, u32),
    /// A partition ends before it begins, or goes beyond the sectors that the table is for, or beyond the disk.
    Outside(u32),
    /// A partition of the MBR that the GPT beside it does not have.
    Hybrid(u32),
}

impl Table {
    /// Whether a partition of this table contains a volume that takes up the whole medium. Images that boot from a disk
    /// and from an optical disc ("isohybrid") have a partition that contains the volume from its beginning or from its first
    /// descriptor. `start`: the volume's first descriptor, in sectors of 512 bytes.
    pub fn holds(&self, start: u64) -> bool {
        self.partitions.iter().chain(&self.beside).any(|partition| partition.holds(start))
    }
}

/// Older programs put the first partition after the first track, at this sector. No ISO image has a partition there.
const FIRST_TRACK: u64 = 63;

impl Partition {
    /// Start and length in bytes.
    pub fn place(&self) -> (u64, u64) {
        (self.start.saturating_mul(512), self.end.saturating_sub(self.start).saturating_mul(512))
    }

    /// Whether its type or its name says that it holds a payload.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    fn holds(&self, start: u64) -> bool {
        self.start <= start && self.start != FIRST_TRACK && start < self.end
    }
}

/// Reads the partition table. `None`: there is no GPT, and no MBR with at least one partition.
pub fn table(device: &mut (impl Read + Seek)) -> Result<Option<Table>, VolumeError> {
    let mut sector = [0; 512];
    if !read(device, 0, &mut sector)? {
        return Ok(None);
    }
    let bytes = device.seek(SeekFrom::End(0)).map_err(|source| VolumeError::Read { offset: 0, source })?;
    let Mbr { partitions, protects } = mbr(&sector);
    if let Some(Gpt { partitions: entries, fault }) = gpt(device, bytes, protects)? {
        let extra = || {
            partitions.iter().find(|one| !entries.iter().any(|entry| entry.start == one.start && entry.end == one.end))
        };
        let unprotected = || Some(TableError::Unprotected).filter(|_| !protects);
        let fault = unprotected().or(fault).or_else(|| extra().map(|one| TableError::Hybrid(one.number)));
        return Ok(Some(Table { name: "a partition table (GPT)", partitions: entries, beside: partitions, fault }));
    }
    let fault = misplaced(&partitions, 0, bytes / 512);
    let table = Table { name: "a partition table (MBR)", partitions, beside: Vec::new(), fault };
    Ok(Some(table).filter(|table| !table.partitions.is_empty()))
}

struct Mbr {
    partitions: Vec<Partition>,
    /// Whether it has an entry that keeps programs without knowledge of GPT away.
    protects: bool,
}

/// UEFI Specification 2.10, §5.2.3
const GPT_PROTECTIVE: u8 = 0xee;

/// The partitions of a master boot record. There are none if the bytes of the table are code, as in most FAT boot
/// sectors.
fn mbr(sector: &[u8; 512]) -> Mbr {
    let mut mbr = Mbr { partitions: Vec::new(), protects: false };
    let Some((entries, [0x55, 0xaa])) = sector.get(446..).and_then(|rest| rest.split_at_checked(64)) else {
        return mbr;
    };
    let entries: &[[u8; 16]] = entries.as_chunks().0;
    // block/partitions/msdos.c, msdos_partition: with a boot indicator that is neither 0 nor 0x80 this is not a
    // partition table.
    if entries.iter().any(|[indicator, ..]| indicator & 0x7f != 0) {
        return mbr;
    }
    for (entry, number) in entries.iter().zip(1..) {
        let [_, _, _, _, kind, _, _, _, a, b, c, d, e, f, g, h] = *entry;
        let (start, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        mbr.protects |= kind == GPT_PROTECTIVE;
        if length > 0 && kind != GPT_PROTECTIVE {
            let (start, end) = (u64::from(start), u64::from(start) + u64::from(length));
            mbr.partitions.push(Partition { number, start, end, name: String::new(), ours: false });
        }
    }
    mbr
}

struct Gpt {
    partitions: Vec<Partition>,
    fault: Option<TableError>,
}

/// Reads the GPT. `None`: there is none. If the MBR does not protect the GPT, only the primary counts, and only for
/// messages: a disk that was partitioned anew may have an old backup at its end.
fn gpt(device: &mut (impl Read + Seek), bytes: u64, protects: bool) -> Result<Option<Gpt>, VolumeError> {
    let mut broken = None;
    for size in [512, 4096] {
        match header(device, size, 1, bytes / size)? {
            None => {}
            Some((header, None)) => {
                let backup = header.other > 1 && protects;
                let backup = if backup { self::header(device, size, header.other, bytes / size)? } else { None };
                let differs =
                    |(backup, fault): &(Header, Option<_>)| fault.is_none() && backup.content() != header.content();
                let partitions = header.partitions(device)?;
                let fault = Some(TableError::Differ).filter(|_| backup.as_ref().is_some_and(differs));
                return Ok(Some(Gpt { fault: fault.or_else(|| header.misplaced(&partitions)), partitions }));
            }
            Some((header, Some(why))) => broken = broken.or(Some((header, why))),
        }
    }
    // UEFI Specification 2.10, §5.3.2: where the primary is invalid, the backup in the last sector is looked for.
    for size in [512, 4096].into_iter().filter(|_| protects) {
        let last = (bytes / size).saturating_sub(1);
        if let Some((header, None)) = header(device, size, last, bytes / size)? {
            let partitions = header.partitions(device)?;
            return Ok(Some(Gpt { fault: header.misplaced(&partitions), partitions }));
        }
    }
    Ok(match broken {
        Some((header, why)) => {
            Some(Gpt { partitions: header.partitions(device)?, fault: Some(TableError::Header(why)) })
        }
        None => protects.then(|| Gpt { partitions: Vec::new(), fault: Some(TableError::NoGpt) }),
    })
}

/// The parts of a GPT's header that are used. Numbers of sectors are in sectors of `size` bytes.
struct Header {
    size: u64,
    /// The sector of the other header.
    other: u64,
    first: u64,
    last: u64,
    disk: [u8; 16],
    at: u64,
    count: u64,
    step: u64,
    checksum: u32,
}

/// The length of the header in bytes, and of an entry (UEFI Specification 2.10, §5.3.2, §5.3.3).
const HEADER: u32 = 92;
const ENTRY: u64 = 128;
/// The most bytes of entries that are read. Every partitioning program makes room for 128 entries, which is 16 KiB.
const MAX_ENTRIES: u64 = 256 * 1024;
/// How many entries of a damaged table are read.
const DAMAGED_ENTRIES: u64 = 128;

/// The header in this sector, and what is wrong with it. `None` if there is no header.
fn header(
    device: &mut (impl Read + Seek),
    size: u64,
    sector: u64,
    sectors: u64,
) -> Result<Option<(Header, Option<&'static str>)>, VolumeError> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    if !read(device, sector.saturating_mul(size), &mut bytes)? || !bytes.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let number = |at: usize| little(bytes.get(at..at + 8));
    let half =
        |at: usize| u32::from_le_bytes(bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).unwrap_or_default());
    let header = Header {
        size,
        other: number(32),
        first: number(40),
        last: number(48),
        disk: bytes.get(56..72).and_then(|id| id.try_into().ok()).unwrap_or_default(),
        at: number(72),
        count: half(80).into(),
        step: half(84).into(),
        checksum: half(88),
    };
    let (length, checksum) = (half(12), half(16));
    let fits = length >= HEADER && u64::from(length) <= size;
    let covered = bytes.get(..usize::try_from(length).unwrap_or(0)).filter(|_| fits).unwrap_or_default();
    let sum = [covered.get(..16), Some(&[0; 4]), covered.get(20..)].into_iter().flatten().fold(u32::MAX, crc32);
    let why = if half(8) != 0x0001_0000 {
        Some("its revision is not 1.0")
    } else if !fits {
        Some("the length of its header is impossible")
    } else if !sum != checksum {
        Some("the checksum of its header is wrong")
    } else if number(24) != sector {
        Some("its header says that it is for another sector")
    } else if header.first > header.last || header.last >= sectors {
        Some("it is for a larger disk")
    } else if !header.step.is_power_of_two() || !(ENTRY..=4096).contains(&header.step) {
        Some("the size of its entries is impossible")
    } else if header.count == 0 || header.count.saturating_mul(header.step) > MAX_ENTRIES {
        Some("the number of its entries is impossible")
    } else {
        match header.entries(device)? {
            Some(entries) if !crc32(u32::MAX, &entries) == header.checksum => None,
            Some(_) => Some("the checksum of its entries is wrong"),
            None => Some("its entries are beyond the end of the disk"),
        }
    };
    Ok(Some((header, why)))
}

impl Header {
    /// What primary and backup have in common: the number of the disk, and the entries by their checksum.
    fn content(&self) -> ([u8; 16], u32, u64, u64) {
        (self.disk, self.checksum, self.count, self.step)
    }

    /// All entries, in one piece. The caller has bounded their length. `None` if they are beyond the end of the disk.
    fn entries(&self, device: &mut (impl Read + Seek)) -> Result<Option<Vec<u8>>, VolumeError> {
        let mut entries = vec![0; usize::try_from(self.count.saturating_mul(self.step)).unwrap_or(0)];
        Ok(read(device, self.at.saturating_mul(self.size), &mut entries)?.then_some(entries))
    }

    /// The partitions, one entry at a time: the header may be damaged, and the entries lie beyond the end of the disk.
    fn partitions(&self, device: &mut (impl Read + Seek)) -> Result<Vec<Partition>, VolumeError> {
        let most = (MAX_ENTRIES / self.step.max(ENTRY)).max(DAMAGED_ENTRIES);
        let mut partitions = Vec::new();
        for (index, number) in (0..self.count.min(most)).zip(1..) {
            let mut entry = [0; 128];
            let offset = self.at.saturating_mul(self.size).saturating_add(index.saturating_mul(self.step));
            if !read(device, offset, &mut entry)? {
                break;
            }
            let kind = entry.first_chunk::<16>().copied().unwrap_or_default();
            if kind == [0; 16] {
                continue;
            }
            let sectors = self.size / 512;
            let (first, last) = (little(entry.get(32..40)), little(entry.get(40..48)));
            let units: &[[u8; 2]] = entry.get(56..).unwrap_or_default().as_chunks().0;
            let units: Vec<u16> = units.iter().copied().map(u16::from_le_bytes).take_while(|unit| *unit != 0).collect();
            let name = String::from_utf16_lossy(&units);
            partitions.push(Partition {
                number,
                start: first.saturating_mul(sectors),
                end: last.saturating_add(1).saturating_mul(sectors),
                ours: kind == OUR_TYPE || name.eq_ignore_ascii_case(OUR_NAME),
                name,
            });
        }
        Ok(partitions)
    }

    fn misplaced(&self, partitions: &[Partition]) -> Option<TableError> {
        let sectors = self.size / 512;
        misplaced(partitions, self.first.saturating_mul(sectors), self.last.saturating_add(1).saturating_mul(sectors))
    }
}

/// The first partition that is not within these sectors, or the first two that have sectors in common.
fn misplaced(partitions: &[Partition], first: u64, end: u64) -> Option<TableError> {
    let fits = |one: &&Partition| first <= one.start && one.start < one.end && one.end <= end;
    if let Some(outside) = partitions.iter().find(|one| !fits(one)) {
        return Some(TableError::Outside(outside.number));
    }
    let mut sorted: Vec<&Partition> = partitions.iter().collect();
    order::sort(&mut sorted, |one, other| one.start < other.start);
    let overlap = sorted.iter().zip(sorted.iter().skip(1)).find(|(one, next)| next.start < one.end);
    overlap.map(|(one, next)| TableError::Overlap(one.number.min(next.number), one.number.max(next.number)))
}

fn little(bytes: Option<&[u8]>) -> u64 {
    bytes.unwrap_or_default().iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Reads all of `bytes` at this offset. False: the device ends before that.
pub(super) fn read(device: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> Result<bool, VolumeError> {
    match read_at(device, offset, bytes) {
        Err(error) if is_end(&error) => Ok(false),
        read => read.map(|()| true),
    }
}

/// A GUID as it stands on a disk, from its text of 36 characters.
#[allow(clippy::indexing_slicing)] // evaluated by the compiler
const fn on_disk(text: &str) -> [u8; 16] {
    const ORDER: [usize; 16] = [6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34];
    const fn digit(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit | 0x20) - b'a' + 10,
        }
    }
    let text = text.as_bytes();
    let mut guid = [0; 16];
    let mut index = 0;
    while index < 16 {
        let at = ORDER[index];
        guid[index] = digit(text[at]) << 4 | digit(text[at + 1]);
        index += 1;
    }
    guid
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::NoGpt => f.write_str(
                "the MBR says that the disk has a GPT, but there is no GPT; name another source with imprint.source= to boot without it, or \
                 partition the disk again, which erases it",
            ),
            TableError::Unprotected => f.write_str(
                "the disk has a GPT, but its MBR does not protect it; gdisk asks which of the two counts (2: GPT), and sgdisk -z removes \
                 the GPT and keeps the MBR; neither erases a partition",
            ),
            TableError::Header(why) => write!(
                f,
                "the GPT is damaged and has no valid backup: {why}; repair it with gdisk (r), or name another imprint.source=; \
                 partitioning anew erases the disk"
            ),
            TableError::Differ => f.write_str(
                "the primary and the backup GPT are both valid, but differ; sgdisk -e DEVICE keeps the primary and writes the \
                 backup anew",
            ),
            TableError::Overlap(first, second) => write!(
                f,
                "partitions {first} and {second} overlap; name another source with imprint.source= to boot without them, or \
                 partition the disk again, which erases it"
            ),
            TableError::Outside(number) => write!(
                f,
                "partition {number} goes beyond the disk or the limits of its table; name another source with imprint.source= to boot without it, or \
                 partition the disk again, which erases it"
            ),
            TableError::Hybrid(number) => write!(
                f,
                "partition {number} of the MBR is not in the GPT (a hybrid MBR); the MBR needs a protective entry and \
                 no other: gdisk DEVICE makes it so (x, n, w)"
            ),
        }
    }
}

impl std::error::Error for TableError {}

#[cfg(test)]
pub(super) mod tests;
