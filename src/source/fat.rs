//! FAT12, FAT16 and FAT32 volumes on a whole device (no partitions): label, and one small file by its path. Nobody
//! vouches for the bytes; [`super::volume`] says why they are read in userspace. Never writes, and never follows the
//! medium's data beyond fixed limits. "fatgen103" is Microsoft's "FAT32 File System Specification", version 1.03.

mod directory;

use std::collections::BTreeSet;
use std::io::{Read, Seek};

pub use super::fat_error::FatError;

use directory::{Entry, LongName, More, entries_in};

use super::medium::{VolumeError, bounded, in_file, is_end, read_at, until_nul};
use crate::secret::Secret;

/// The part of the boot sector that is used, in bytes. Sectors may be longer.
const BOOT_LEN: usize = 512;
/// The length of a directory entry in bytes (fatgen103, "FAT Directory Structure").
const ENTRY_LEN: usize = 32;
/// A directory has at most 65536 entries (fs/fat/fat.h, FAT_MAX_DIR_SIZE).
const MAX_DIRECTORY: u64 = 65_536 * 32;
/// A volume with fewer clusters than this is FAT12 (fatgen103, "FAT Type Determination").
const MAX_FAT12: u32 = 4085;
/// A FAT16 volume has fewer clusters than this.
const MAX_FAT16: u32 = 65_525;
/// The upper four bits of a FAT32 entry are reserved, and the last numbers mean bad cluster and end of chain.
const MAX_FAT32: u32 = 0x0fff_fff6;

/// fatgen103, "FAT Directory Structure", DIR_Attr
const VOLUME_ID: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

/// A volume whose boot sector has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    labels: [String; 1],
    /// Parsed again for each file, so that a damaged volume can still be opened for its label.
    boot: Box<[u8; BOOT_LEN]>,
}

impl Volume {
    /// `None` if the device has no FAT volume: it is too short or has another format. A damaged boot sector with a FAT
    /// label still gives a volume with that label; [`Volume::file`] then fails.
    pub fn open(device: &mut (impl Read + Seek)) -> Result<Option<Volume>, VolumeError> {
        let mut boot = [0; BOOT_LEN];
        match read_at(device, 0, &mut boot) {
            Err(error) if is_end(&error) => return Ok(None),
            read => read?,
        }
        // fatgen103, "Boot Sector and BPB": BS_jmpBoot and the signature. NTFS, exFAT and master boot records have
        // them, too, but no valid BPB.
        let marked = matches!(boot, [0xeb, _, 0x90, ..] | [0xe9, ..]) && boot.ends_with(&[0x55, 0xaa]);
        let layout = Layout::parse(&boot).ok().filter(|_| marked);
        let said = boot_label(&boot);
        if layout.is_none() && said.is_none() {
            return Ok(None);
        }
        // Operating systems show and change the label in the root directory (fatgen103, ATTR_VOLUME_ID); the copy in
        // the boot sector is often older. If the directory cannot be read, the copy is used.
        let entry = layout.and_then(|layout| layout.label(device).ok().flatten());
        Ok(Some(Volume { labels: [entry.or(said).unwrap_or_default()], boot: Box::new(boot) }))
    }

    /// The only label, without trailing blanks.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The content of the file at `path`; names are compared without regard to case. `None` if there is no such file.
    pub fn file(
        &self,
        device: &mut (impl Read + Seek),
        path: &[&str],
        max: usize,
    ) -> Result<Option<Secret>, VolumeError> {
        let layout = Layout::parse(&self.boot)?;
        let mut folder = layout.root;
        let mut found = None;
        for (depth, name) in path.iter().enumerate() {
            let directory = depth + 1 < path.len();
            let Some(entry) = layout.lookup(device, folder, name, directory)? else { return Ok(None) };
            folder = Folder::Chain { cluster: entry.cluster, offset: entry.offset };
            found = Some(entry);
        }
        let Some(entry) = found else { return Ok(None) };
        bounded(entry.len, path, max, |len| layout.beginning(device, &entry, len).map(|(bytes, _)| bytes))?;
        layout.content(device, &entry).map(Some).map_err(|error| in_file(path, error))
    }
}

/// BS_VolLab, if the boot sector has one and is marked as FAT: at byte 43 for FAT12 and FAT16, at byte 71 for FAT32
/// (fatgen103, "Fat12 and Fat16 Structure", "FAT32 Structure").
fn boot_label(boot: &[u8; BOOT_LEN]) -> Option<String> {
    [38, 66].into_iter().find_map(|at| {
        let (signature, rest) = boot.get(at..)?.split_first()?;
        let (label, kind) = rest.get(4..23)?.split_at_checked(11)?;
        (*signature == 0x29 && kind.starts_with(b"FAT")).then(|| match label_of(label) {
            // fatgen103, BS_VolLab: "NO NAME" means that the volume has no label.
            label if label == "NO NAME" => String::new(),
            label => label,
        })
    })
}

/// The layout of the volume according to its boot sector. Offsets and lengths are in bytes and lie within the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    kind: Kind,
    /// The size of a cluster.
    cluster: u64,
    /// Where the FAT that is read starts.
    fat: u64,
    root: Folder,
    /// Where cluster 2 starts.
    data: u64,
    /// The highest cluster number.
    last: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

/// Where a directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Folder {
    /// The root directory of FAT12 and FAT16 has a fixed place.
    Fixed { offset: u64, len: u64 },
    /// All other directories are chains of clusters. `offset`: where the number of the first cluster stands.
    Chain { cluster: u32, offset: u64 },
}

impl Layout {
    /// fatgen103, "Boot Sector and BPB" and "FAT Type Determination"
    fn parse(boot: &[u8; BOOT_LEN]) -> Result<Layout, FatError> {
        let sector_size = le16(boot, 11);
        if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
            return Err(FatError::SectorSize { value: sector_size });
        }
        let sector = u64::from(sector_size);
        let per_cluster = byte(boot, 13);
        if !per_cluster.is_power_of_two() {
            return Err(FatError::ClusterSize { value: per_cluster });
        }
        let reserved = u64::from(le16(boot, 14));
        if reserved == 0 {
            return Err(FatError::NoReservedSectors);
        }
        let fats = byte(boot, 16);
        if fats == 0 {
            return Err(FatError::NoFats);
        }
        let media = byte(boot, 21);
        if !matches!(media, 0xf0 | 0xf8..) {
            return Err(FatError::Media { value: media });
        }
        let total = match le16(boot, 19) {
            0 => le32(boot, 32),
            total => u32::from(total),
        };
        // Like Linux (fs/fat/inode.c, fat_fill_super), take FAT32 from this field: some programs make FAT32 volumes
        // with fewer clusters than fatgen103 requires.
        let (fat_sectors, large) = match le16(boot, 22) {
            0 => (le32(boot, 36), true),
            sectors => (u32::from(sectors), false),
        };
        if fat_sectors == 0 {
            return Err(FatError::NoFatSize);
        }
        let root_len = if large { 0 } else { u64::from(le16(boot, 17)) * 32 };
        let root_at = reserved + u64::from(fats) * u64::from(fat_sectors);
        let tables = root_at + root_len.div_ceil(sector);
        let clusters = u64::from(total).saturating_sub(tables) / u64::from(per_cluster);
        if clusters == 0 {
            return Err(FatError::TooFewSectors { total, tables });
        }
        let most = if large { MAX_FAT32 } else { MAX_FAT16 - 1 };
        let too_many = || FatError::TooManyClusters { clusters, most };
        let count = u32::try_from(clusters).ok().filter(|count| *count <= most).ok_or_else(too_many)?;
        let (kind, bits) = match large {
            true => (Kind::Fat32, 32),
            false if count < MAX_FAT12 => (Kind::Fat12, 12),
            false => (Kind::Fat16, 16),
        };
        if u64::from(fat_sectors) * sector * 8 < (clusters + 2) * bits {
            return Err(FatError::FatTooShort { sectors: fat_sectors, clusters: count });
        }
        let mut active = 0;
        let mut root = Folder::Fixed { offset: root_at * sector, len: root_len };
        if large {
            let version = le16(boot, 42);
            if version != 0 {
                return Err(FatError::Version { value: version });
            }
            // BPB_ExtFlags: if bit 7 is set, only the FAT whose number is in bits 0 to 3 is up to date.
            let flags = byte(boot, 40);
            active = if flags & 0x80 == 0 { 0 } else { flags & 0x0f };
            if active >= fats {
                return Err(FatError::ActiveFat { number: active, fats });
            }
            root = Folder::Chain { cluster: le32(boot, 44), offset: 44 };
        }
        Ok(Layout {
            kind,
            cluster: u64::from(per_cluster) * sector,
            fat: (reserved + u64::from(active) * u64::from(fat_sectors)) * sector,
            root,
            data: tables * sector,
            last: count + 1,
        })
    }

    /// Where a cluster starts. The caller has checked its number.
    fn place(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster.saturating_sub(2)) * self.cluster
    }

    /// The content of a file. The caller has bounded its length.
    fn content(&self, device: &mut (impl Read + Seek), entry: &Entry) -> Result<Secret, VolumeError> {
        let Entry { len, offset, .. } = *entry;
        match self.beginning(device, entry, len)? {
            (_, Some((cluster, _))) => Err(FatError::ChainTooLong { offset, len, cluster }.into()),
            (bytes, None) => Ok(bytes),
        }
    }

    /// So many bytes of a file, and the cluster behind them.
    fn beginning(
        &self,
        device: &mut (impl Read + Seek),
        entry: &Entry,
        len: u32,
    ) -> Result<(Secret, Option<(u32, u64)>), VolumeError> {
        let Entry { offset, cluster, .. } = *entry;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let mut chain = Chain::new(self, cluster, offset);
        // fatgen103, DIR_FstClusLO: an empty file has no cluster.
        if cluster == 0 {
            chain.next = None;
        }
        let unit = usize::try_from(self.cluster).unwrap_or(usize::MAX);
        let mut have = 0;
        for part in bytes.chunks_mut(unit) {
            let Some(cluster) = chain.advance(device)? else {
                return Err(FatError::ChainTooShort { offset, len, have }.into());
            };
            read_at(device, self.place(cluster), part)?;
            have += self.cluster;
        }
        Ok((Secret::new(bytes), chain.next))
    }

    /// The label's entry in the root directory.
    fn label(&self, device: &mut (impl Read + Seek)) -> Result<Option<String>, VolumeError> {
        let mut label = None;
        self.entries(device, self.root, &mut |entry| {
            if entry.attributes & (VOLUME_ID | DIRECTORY) == VOLUME_ID && label.is_none() {
                label = Some(entry.label);
            }
            Ok(())
        })?;
        Ok(label)
    }

    fn lookup(
        &self,
        device: &mut (impl Read + Seek),
        folder: Folder,
        name: &str,
        want_directory: bool,
    ) -> Result<Option<Entry>, VolumeError> {
        let mut found: Option<Entry> = None;
        self.entries(device, folder, &mut |mut entry| {
            if self.kind != Kind::Fat32 {
                // Only FAT32 uses DIR_FstClusHI; OS/2 stores something else there (fs/fat/fat.h, fat_get_start).
                entry.cluster &= 0xffff;
            }
            let directory = entry.attributes & DIRECTORY != 0;
            let named = entry.name.eq_ignore_ascii_case(name) || entry.short.eq_ignore_ascii_case(name);
            if entry.attributes & VOLUME_ID != 0 || directory != want_directory || !named {
                return Ok(());
            }
            match &found {
                Some(first) => Err(VolumeError::Twice { first: first.name.clone(), second: entry.name }),
                None => {
                    found = Some(entry);
                    Ok(())
                }
            }
        })?;
        Ok(found)
    }

    /// Calls `each` with every entry in use, with its long name if it has one.
    fn entries(
        &self,
        device: &mut (impl Read + Seek),
        folder: Folder,
        each: &mut dyn FnMut(Entry) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let mut long = LongName::default();
        match folder {
            Folder::Fixed { offset, len } => drop(entries_in(device, offset, len, &mut long, each)?),
            Folder::Chain { cluster, offset } => {
                let mut chain = Chain::new(self, cluster, offset);
                let mut have = 0;
                while let Some(next) = chain.advance(device)? {
                    if have >= MAX_DIRECTORY {
                        return Err(FatError::DirectoryTooLong { cluster }.into());
                    }
                    have += self.cluster;
                    if entries_in(device, self.place(next), self.cluster, &mut long, each)? == More::No {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The FAT's entry for this cluster, and where that entry stands (fatgen103, "FAT Data Structure").
    fn after(&self, device: &mut (impl Read + Seek), cluster: u32) -> Result<(Link, u64), VolumeError> {
        let number = u64::from(cluster);
        let at = match self.kind {
            Kind::Fat12 => number + number / 2,
            Kind::Fat16 => number * 2,
            Kind::Fat32 => number * 4,
        };
        let offset = self.fat + at;
        let (value, bad) = match self.kind {
            Kind::Fat12 => {
                let mut pair = [0; 2];
                read_at(device, offset, &mut pair)?;
                let pair = u16::from_le_bytes(pair);
                (u32::from(if cluster.is_multiple_of(2) { pair & 0x0fff } else { pair >> 4 }), 0xff7)
            }
            Kind::Fat16 => {
                let mut pair = [0; 2];
                read_at(device, offset, &mut pair)?;
                (u32::from(u16::from_le_bytes(pair)), 0xfff7)
            }
            Kind::Fat32 => {
                let mut four = [0; 4];
                read_at(device, offset, &mut four)?;
                (u32::from_le_bytes(four) & 0x0fff_ffff, 0x0fff_fff7)
            }
        };
        let link = match value {
            0 => Link::Free,
            value if value == bad => Link::Bad,
            value if value > bad => Link::End,
            value => Link::Next(value),
        };
        Ok((link, offset))
    }
}

/// An entry of the FAT.
enum Link {
    Free,
    Next(u32),
    Bad,
    End,
}

/// Walks a chain of clusters. Checks every number before it is used, and refuses a loop.
struct Chain<'a> {
    layout: &'a Layout,
    /// The next cluster, and where its number stands.
    next: Option<(u32, u64)>,
    seen: BTreeSet<u32>,
}

impl Chain<'_> {
    fn new(layout: &Layout, first: u32, offset: u64) -> Chain<'_> {
        Chain { layout, next: Some((first, offset)), seen: BTreeSet::new() }
    }

    fn advance(&mut self, device: &mut (impl Read + Seek)) -> Result<Option<u32>, VolumeError> {
        let Some((cluster, offset)) = self.next else { return Ok(None) };
        let last = self.layout.last;
        if cluster < 2 || cluster > last {
            return Err(FatError::ClusterNumber { offset, cluster, last }.into());
        }
        if !self.seen.insert(cluster) {
            return Err(FatError::Loop { offset, cluster }.into());
        }
        self.next = match self.layout.after(device, cluster)? {
            (Link::Next(next), offset) => Some((next, offset)),
            (Link::End, _) => None,
            (Link::Free, offset) => return Err(FatError::FreeCluster { offset, cluster }.into()),
            (Link::Bad, offset) => return Err(FatError::BadCluster { offset, after: cluster }.into()),
        };
        Ok(Some(cluster))
    }
}

/// Text in an unknown OEM code page: ASCII, all other bytes as escapes, without trailing blanks.
fn shown(bytes: &[u8]) -> String {
    bytes.trim_ascii_end().escape_ascii().to_string()
}

/// A volume label. It is padded with blanks, or with NUL by some programs (busybox mkdosfs), so it ends at the first
/// NUL.
fn label_of(bytes: &[u8]) -> String {
    shown(until_nul(bytes))
}

/// The byte at `at`. Returns 0 beyond the end; no caller reads there.
fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([byte(bytes, at), byte(bytes, at + 1)])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

#[cfg(test)]
mod tests;
