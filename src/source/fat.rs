//! FAT12, FAT16 and FAT32 volumes on whole disks (Microsoft, FAT: General Overview of On-Disk Format 1.03, "fatgen"):
//! label, and one small file by its path, long names included. No partitions; reads one FAT and never writes.

use std::io::{Read, Seek};

use super::volume::{Damage, Extent, MAX_DIRECTORY, VolumeError, bounded, is_end, read_at};
use crate::secret::Secret;

/// A volume whose boot sector has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    label: String,
    layout: Result<Layout, Damage>,
}

/// What the boot sector says of the volume's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    kind: Kind,
    /// In bytes, as all that follows but counts.
    cluster: u32,
    fat: u64,
    root: Directory,
    /// Where cluster 2 begins.
    data: u64,
    /// How many clusters there are.
    clusters: u32,
}

/// fatgen, "FAT type determination": by the count of clusters and by nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Directory {
    /// The root of FAT12 and FAT16.
    Fixed { offset: u64, len: u32 },
    /// A chain that begins with this cluster.
    Chain(u32),
}

const SECTOR: usize = 512;
/// Bytes of a directory entry.
const ENTRY: usize = 32;
const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
/// What marks a part of a long name, under this mask.
const LONG: u8 = 0x0f;
const LONG_MASK: u8 = 0x3f;
/// The label of who gave none.
const NO_NAME: &str = "NO NAME";

impl Volume {
    /// `None` when the device holds no FAT volume, because it is too short or has another format, partitions among them.
    pub fn open(device: &mut (impl Read + Seek)) -> Result<Option<Volume>, VolumeError> {
        let mut sector = [0; SECTOR];
        match read_at(device, 0, &mut sector) {
            Err(error) if is_end(&error) => return Ok(None),
            read => read?,
        }
        if !is_fat(&sector) {
            return Ok(None);
        }
        let layout = Layout::parse(&sector);
        // fatgen, "Volume label": the root's entry is what counts; the boot sector's copy may be older.
        let boot = label_of_boot_sector(&sector, &layout);
        let root = match &layout {
            Ok(layout) => layout.entries(device, layout.root).ok().and_then(|entries| label_of_root(&entries)),
            Err(_) => None,
        };
        Ok(Some(Volume { label: root.unwrap_or(boot), layout }))
    }

    /// Trailing blanks removed.
    pub fn labels(&self) -> &[String] {
        std::slice::from_ref(&self.label)
    }

    /// The content of the file at `path`, compared without regard to case. `None` when there is none.
    pub fn file(
        &self,
        device: &mut (impl Read + Seek),
        path: &[&str],
        max: usize,
    ) -> Result<Option<Secret>, VolumeError> {
        let layout = self.layout?;
        let mut directory = layout.root;
        let mut found = None;
        for (depth, name) in path.iter().enumerate() {
            let entry = lookup(&layout.entries(device, directory)?, name, depth + 1 < path.len())?;
            let Some(entry) = entry else { return Ok(None) };
            directory = Directory::Chain(entry.extent.at);
            found = Some(entry.extent);
        }
        let Some(extent) = found else { return Ok(None) };
        bounded(extent, path, max)?;
        layout.chain(device, extent.at, Some(extent.len)).map(|bytes| Some(Secret::new(bytes)))
    }
}

/// fatgen, "Boot sector and BPB". What a master boot record, NTFS and exFAT have in these places is none of it.
fn is_fat(sector: &[u8; SECTOR]) -> bool {
    let jump = matches!(sector, [0xeb, _, 0x90, ..] | [0xe9, ..]);
    let signature = sector.get(510..) == Some(&[0x55, 0xaa]);
    let bytes = matches!(number::<2>(sector, 11), 512 | 1024 | 2048 | 4096);
    let cluster = sector.get(13).is_some_and(|count| count.is_power_of_two());
    let fats = matches!(sector.get(16), Some(1 | 2));
    let media = matches!(sector.get(21), Some(0xf0 | 0xf8..));
    jump && signature && bytes && cluster && number::<2>(sector, 14) > 0 && fats && media
}

/// A little-endian number of up to four bytes; 0 where there is none.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<N>);
    bytes.map_or(0, |bytes| bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

impl Layout {
    fn parse(sector: &[u8; SECTOR]) -> Result<Layout, Damage> {
        let sector_len = number::<2>(sector, 11);
        let per_cluster = number::<1>(sector, 13);
        let reserved = number::<2>(sector, 14);
        let fats = number::<1>(sector, 16);
        let root_len = number::<2>(sector, 17).saturating_mul(32);
        let either = |short: u32, long: u32| if short != 0 { short } else { long };
        let total = either(number::<2>(sector, 19), number::<4>(sector, 32));
        let fat_len = either(number::<2>(sector, 22), number::<4>(sector, 36));
        let root_sectors = root_len.div_ceil(sector_len);
        let bytes = |sectors: u64| sectors.saturating_mul(sector_len.into());
        let first_data = u64::from(reserved) + u64::from(fats) * u64::from(fat_len) + u64::from(root_sectors);
        let damage = |offset, what| Damage { offset, what };
        let data_sectors = u64::from(total).checked_sub(first_data).ok_or(damage(32, "total count of sectors"))?;
        let clusters = u32::try_from(data_sectors / u64::from(per_cluster)).unwrap_or(u32::MAX);
        let (kind, entry_bits) = match clusters {
            0 => return Err(damage(32, "total count of sectors")),
            1..4085 => (Kind::Fat12, 12),
            4085..65525 => (Kind::Fat16, 16),
            65525..0x0fff_fff5 => (Kind::Fat32, 32),
            _ => return Err(damage(32, "total count of sectors")),
        };
        // Every cluster has its entry, and there are two before them.
        let entries = bytes(fat_len.into()).saturating_mul(8) / entry_bits;
        if entries < u64::from(clusters) + 2 {
            return Err(damage(22, "count of sectors of a FAT"));
        }
        let root = match kind {
            Kind::Fat32 => Directory::Chain(number::<4>(sector, 44)),
            _ if root_len == 0 => return Err(damage(17, "count of root directory entries")),
            _ => {
                let before = u64::from(reserved) + u64::from(fats) * u64::from(fat_len);
                Directory::Fixed { offset: bytes(before), len: root_len }
            }
        };
        let cluster = per_cluster.saturating_mul(sector_len);
        Ok(Layout { kind, cluster, fat: bytes(reserved.into()), root, data: bytes(first_data), clusters })
    }

    /// The content of a directory.
    fn entries(&self, device: &mut (impl Read + Seek), directory: Directory) -> Result<Vec<u8>, VolumeError> {
        match directory {
            Directory::Chain(first) => self.chain(device, first, None),
            Directory::Fixed { offset, len } => {
                let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
                read_at(device, offset, &mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// What a chain of clusters holds: so many bytes, which the caller has bounded, or all of a directory.
    fn chain(&self, device: &mut (impl Read + Seek), first: u32, len: Option<u32>) -> Result<Vec<u8>, VolumeError> {
        let limit = len.unwrap_or(MAX_DIRECTORY);
        let mut bytes = Vec::new();
        let mut cluster = first;
        let mut left = limit;
        while left > 0 {
            let offset = self.offset(cluster)?;
            let part = left.min(self.cluster);
            let start = bytes.len();
            bytes.resize(start.saturating_add(usize::try_from(part).unwrap_or(0)), 0);
            read_at(device, offset, bytes.get_mut(start..).unwrap_or_default())?;
            left -= part;
            if left == 0 && len.is_some() {
                break;
            }
            match self.next(device, cluster)? {
                Some(next) => cluster = next,
                None if len.is_none() => return Ok(bytes),
                None => return Err(Damage { offset, what: "chain of clusters that ends before the file" }.into()),
            }
            if left == 0 {
                // Or the chain goes in a circle.
                return Err(Damage { offset, what: "directory of more than 1 MiB" }.into());
            }
        }
        Ok(bytes)
    }

    fn offset(&self, cluster: u32) -> Result<u64, VolumeError> {
        match cluster.checked_sub(2) {
            Some(number) if number < self.clusters => {
                Ok(self.data.saturating_add(u64::from(number).saturating_mul(self.cluster.into())))
            }
            _ => Err(Damage { offset: self.fat, what: "number of a cluster" }.into()),
        }
    }

    /// The cluster after a valid one; `None` at the end of the chain. fatgen, "FAT entry".
    fn next(&self, device: &mut (impl Read + Seek), cluster: u32) -> Result<Option<u32>, VolumeError> {
        let at = u64::from(cluster);
        let (offset, width) = match self.kind {
            Kind::Fat12 => (at + at / 2, 2),
            Kind::Fat16 => (at * 2, 2),
            Kind::Fat32 => (at * 4, 4),
        };
        let offset = self.fat.saturating_add(offset);
        let mut entry = [0; 4];
        read_at(device, offset, entry.get_mut(..width).unwrap_or_default())?;
        let entry = u32::from_le_bytes(entry);
        let (next, end) = match self.kind {
            Kind::Fat12 => (if cluster & 1 == 0 { entry & 0xfff } else { entry >> 4 }, 0xff8),
            Kind::Fat16 => (entry, 0xfff8),
            Kind::Fat32 => (entry & 0x0fff_ffff, 0x0fff_fff8),
        };
        match next {
            next if next >= end => Ok(None),
            next if (2..self.clusters.saturating_add(2)).contains(&next) => Ok(Some(next)),
            _ => Err(Damage { offset, what: "entry of the FAT" }.into()),
        }
    }
}

/// What a directory says of a file or a directory.
struct Entry {
    name: String,
    extent: Extent,
}

/// The entry of that name, file or directory as wanted.
fn lookup(entries: &[u8], name: &str, directory: bool) -> Result<Option<Entry>, VolumeError> {
    let mut found: Option<Entry> = None;
    let mut long = LongName::default();
    for entry in entries.as_chunks::<ENTRY>().0 {
        let attributes = entry[11];
        match entry[0] {
            0 => break,
            0xe5 => long = LongName::default(),
            _ if attributes & LONG_MASK == LONG => long.part(entry),
            _ => {
                let long = std::mem::take(&mut long).of(entry);
                if attributes & ATTRIBUTE_VOLUME != 0 || (attributes & ATTRIBUTE_DIRECTORY != 0) != directory {
                    continue;
                }
                let short = short_name(entry);
                let is = |candidate: &str| candidate.eq_ignore_ascii_case(name);
                if !(is(&short) || long.as_deref().is_some_and(is)) {
                    continue;
                }
                let at = number::<2>(entry, 26) | number::<2>(entry, 20) << 16;
                let name = long.unwrap_or(short);
                if let Some(first) = found {
                    return Err(VolumeError::Twice { first: first.name, second: name });
                }
                found = Some(Entry { name, extent: Extent { at, len: number::<4>(entry, 28) } });
            }
        }
    }
    Ok(found)
}

/// fatgen, "Long directory entries": the parts stand before the short entry, the last one first.
#[derive(Default)]
struct LongName {
    /// As it will be, filled from behind.
    units: Vec<u16>,
    /// The part that has to come next, from behind; 0: none, the name is whole.
    expected: u8,
    checksum: u8,
}

impl LongName {
    fn part(&mut self, entry: &[u8; ENTRY]) {
        let (order, last) = (entry[0] & 0x1f, entry[0] & 0x40 != 0);
        if last && order != 0 {
            *self = LongName { units: Vec::new(), expected: order, checksum: entry[13] };
        }
        if order == 0 || order != self.expected || entry[13] != self.checksum {
            *self = LongName::default();
            return;
        }
        let units = [1..11, 14..26, 28..32]
            .into_iter()
            .flat_map(|range| entry.get(range).unwrap_or_default().as_chunks::<2>().0);
        let units = units.copied().map(u16::from_le_bytes).take_while(|unit| *unit != 0);
        self.units = units.chain(std::mem::take(&mut self.units)).collect();
        self.expected = order - 1;
    }

    /// The name, if it is whole and belongs to this short entry.
    fn of(self, entry: &[u8; ENTRY]) -> Option<String> {
        let sum = entry.iter().take(11).fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let whole = !self.units.is_empty() && self.expected == 0 && self.checksum == sum;
        whole.then(|| String::from_utf16_lossy(&self.units).escape_default().to_string())
    }
}

fn short_name(entry: &[u8; ENTRY]) -> String {
    let (base, rest) = entry.split_at(8);
    let extension = rest.get(..3).unwrap_or_default();
    let (base, extension) = (base.trim_ascii_end(), extension.trim_ascii_end());
    let dot: &[u8] = if extension.is_empty() { b"" } else { b"." };
    [base, dot, extension].concat().escape_ascii().to_string()
}

fn label_of_root(entries: &[u8]) -> Option<String> {
    let used = entries.as_chunks::<ENTRY>().0.iter().take_while(|entry| entry[0] != 0);
    let is_label =
        |entry: &&[u8; ENTRY]| entry[0] != 0xe5 && entry[11] & LONG_MASK != LONG && entry[11] & ATTRIBUTE_VOLUME != 0;
    let entry = used.filter(|entry| entry[0] != 0xe5).find(is_label)?;
    Some(label(entry.get(..11)?))
}

/// fatgen, "Extended BPB": at the end of it, behind its signature.
fn label_of_boot_sector(sector: &[u8; SECTOR], layout: &Result<Layout, Damage>) -> String {
    let fat32 = match layout {
        Ok(layout) => layout.kind == Kind::Fat32,
        Err(_) => number::<2>(sector, 22) == 0,
    };
    let at = if fat32 { 71 } else { 43 };
    let there = sector.get(at - 5) == Some(&0x29);
    let label = label(sector.get(at..at + 11).filter(|_| there).unwrap_or_default());
    if label == NO_NAME { String::new() } else { label }
}

fn label(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests;
