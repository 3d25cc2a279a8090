//! Reads partition tables: the GUID partition table (GPT, UEFI Specification 2.10, §5.3), with sectors of 512 and of 4096 bytes, and
//! the master boot record (MBR) with its logical partitions. Everybody who ever wrote to the disk vouches for its
//! table, so no number in it is trusted before it is checked. Never writes, never reads what is in a partition, and never decides
//! whether a partition is used.

mod error;

use std::io::{Read, Seek, SeekFrom};

pub use error::TableError;

use super::medium::{VolumeError, is_end, read_at};
use crate::checksum::crc32;
use crate::hex;
use crate::order;

/// The type of a partition that holds a payload: [`crate::medium::PARTITION_TYPE`], as it stands on the disk (the first
/// three fields are little-endian: UEFI Specification 2.10, appendix A).
const OUR_TYPE: [u8; 16] = on_disk(crate::medium::PARTITION_TYPE);
/// The type of a partition for swap space of Linux, in a GPT (UAPI.2, Discoverable Partitions Specification) and in an MBR.
const SWAP_TYPE: [u8; 16] = on_disk("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");
const SWAP_KIND: u8 = 0x82;
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
    /// From 1. Unused entries of the table count, too, as in the kernel's names. Logical partitions begin at 5.
    pub number: u32,
    start: u64,
    end: u64,
    /// An extended partition: it holds logical partitions and nothing else.
    extended: bool,
    /// The name in a GPT; empty in an MBR.
    pub name: String,
    /// What `root=PARTUUID=` names: the GUID of its entry, or the number of the disk in its MBR and its own.
    pub unique: String,
    ours: bool,
    swap: bool,
}

impl Table {
    /// The partitions that hold something of their own: all but extended ones.
    pub fn holding(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter(|partition| !partition.extended)
    }

    /// Whether a partition contains a volume that has the whole medium. Images that boot from a disk and from an optical
    /// disc ("isohybrid") have a partition that contains the volume from its beginning or from its first descriptor.
    /// `start`: in sectors of 512 bytes.
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

    /// Whether its type says that it is for swap space.
    pub fn is_swap(&self) -> bool {
        self.swap
    }

    fn holds(&self, start: u64) -> bool {
        !self.extended && self.start <= start && self.start != FIRST_TRACK && start < self.end
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
    let Logical { partitions: inner, fault } = logical(device, &partitions)?;
    let fault = misplaced(&partitions, 0, bytes / 512).or(fault);
    let mut partitions = [partitions, inner].concat();
    // block/partitions/msdos.c, set_info
    let disk = u32::from_le_bytes(sector.get(440..444).and_then(|four| four.try_into().ok()).unwrap_or_default());
    partitions.iter_mut().for_each(|one| one.unique = format!("{disk:08x}-{:02x}", one.number));
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
    for (entry, number) in entries(sector).into_iter().flatten().zip(1..) {
        mbr.protects |= entry.kind == GPT_PROTECTIVE;
        if entry.sectors > 0 && entry.kind != GPT_PROTECTIVE {
            mbr.partitions.push(entry.partition(number, 0));
        }
    }
    mbr
}

/// An entry of a master boot record, or of a sector of the same form that describes a logical partition.
struct Entry {
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    /// `base`: the sector that the entry counts from.
    fn partition(&self, number: u32, base: u64) -> Partition {
        let start = base.saturating_add(self.start);
        let (end, extended) = (start.saturating_add(self.sectors), self.is_extended());
        let swap = self.kind == SWAP_KIND;
        Partition { number, start, end, extended, name: String::new(), unique: String::new(), ours: false, swap }
    }

    /// block/partitions/msdos.c, is_extended_partition
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// The four entries of such a sector. `None` if it is none.
fn entries(sector: &[u8; 512]) -> Option<[Entry; 4]> {
    let Some((entries, [0x55, 0xaa])) = sector.get(446..).and_then(|rest| rest.split_at_checked(64)) else {
        return None;
    };
    let entries: &[[u8; 16]; 4] = entries.as_chunks().0.first_chunk()?;
    // block/partitions/msdos.c, msdos_partition: a boot indicator that is neither 0 nor 0x80 is no partition table.
    if entries.iter().any(|[indicator, ..]| indicator & 0x7f != 0) {
        return None;
    }
    Some(entries.map(|[_, _, _, _, kind, _, _, _, a, b, c, d, e, f, g, h]| Entry {
        kind,
        start: u32::from_le_bytes([a, b, c, d]).into(),
        sectors: u32::from_le_bytes([e, f, g, h]).into(),
    }))
}

/// How many sectors of one disk that describe logical partitions are read. Linux reads no more partitions of a disk than 256.
pub const MAX_LINKS: usize = 128;

struct Logical {
    partitions: Vec<Partition>,
    fault: Option<TableError>,
}

/// The logical partitions: those in extended ones. Numbers are given as Linux does (block/partitions/msdos.c,
/// parse_extended). Of a chain with a fault: what was read of it.
fn logical(device: &mut (impl Read + Seek), primary: &[Partition]) -> Result<Logical, VolumeError> {
    let (mut logical, mut links) = (Logical { partitions: Vec::new(), fault: None }, Vec::new());
    for extended in primary.iter().filter(|one| one.extended) {
        let first = logical.partitions.len();
        let broken = chain(device, extended, &mut links, &mut logical.partitions)?;
        let here = logical.partitions.get(first..).unwrap_or_default();
        let fault = broken.map(|why| TableError::Chain(extended.number, why));
        // The first sector of an extended partition is its table.
        let fault = fault.or_else(|| misplaced(here, extended.start.saturating_add(1), extended.end));
        logical.fault = logical.fault.or(fault);
    }
    Ok(logical)
}

/// Reads the chain of one extended partition: each sector describes a logical partition and says where the next sector is.
/// Returns why the chain cannot be followed to its end. `links`: the sectors of all chains that were read.
fn chain(
    device: &mut (impl Read + Seek),
    extended: &Partition,
    links: &mut Vec<u64>,
    partitions: &mut Vec<Partition>,
) -> Result<Option<&'static str>, VolumeError> {
    let (mut at, mut sectors) = (extended.start, extended.end.saturating_sub(extended.start));
    loop {
        if links.contains(&at) {
            return Ok(Some("a link leads back to an earlier one"));
        }
        if links.len() == MAX_LINKS {
            return Ok(Some("it has more than 128 links"));
        }
        let mut sector = [0; 512];
        let there = read(device, at.saturating_mul(512), &mut sector)?;
        let Some(entries) = entries(&sector).filter(|_| there) else {
            // Nothing was ever in an extended partition without a table.
            return Ok(Some("a link leads to something else").filter(|_| at != extended.start));
        };
        links.push(at);
        let data = entries.iter().enumerate().filter(|(_, one)| one.sectors > 0 && !one.is_extended());
        // parse_extended: the last two entries have no use, and may be anything.
        let fits = |one: &Entry| one.start > 0 && one.start.saturating_add(one.sectors) <= sectors;
        for (_, entry) in data.filter(|(index, one)| *index < 2 || fits(one)) {
            // The four primary partitions have the first numbers, used or not.
            let number = u32::try_from(partitions.len()).unwrap_or(u32::MAX).saturating_add(5);
            partitions.push(entry.partition(number, at));
        }
        let Some(link) = entries.iter().find(|one| one.sectors > 0 && one.is_extended()) else { return Ok(None) };
        (at, sectors) = (extended.start.saturating_add(link.start), link.sectors);
        if at >= extended.end {
            return Ok(Some("a link leads out of it"));
        }
    }
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
        Some("its header belongs in another sector")
    } else if header.first > header.last || header.last >= sectors {
        Some("it was made for a larger disk")
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
                extended: false,
                ours: kind == OUR_TYPE || name.eq_ignore_ascii_case(OUR_NAME),
                swap: kind == SWAP_TYPE,
                name,
                unique: entry.get(16..32).and_then(|guid| guid.first_chunk()).map(as_text).unwrap_or_default(),
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

/// The text of a GUID as it stands on a disk, whose first three fields are little-endian.
fn as_text(guid: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *guid;
    let [i, j, k, l, m, n, o, p] = rest;
    hex::uuid(&[d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
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

#[cfg(test)]
pub(super) mod tests;
