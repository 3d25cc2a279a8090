//! Finds partition tables and other file systems on a medium, by their magic numbers. If a volume shares the medium
//! with one of them, the volume may be a remnant of an older use of the medium. Nobody vouches for the bytes. Never
//! writes, and never decides whether a volume is used.

use std::io::{Read, Seek, SeekFrom};

use super::medium::{VolumeError, is_end, read_at};
use super::volume::Volume;

/// A partition table without a partition for this volume, or another file system. `None` if the medium has nothing but
/// the volume.
pub fn beside(device: &mut (impl Read + Seek), volume: &Volume) -> Result<Option<&'static str>, VolumeError> {
    let start = match volume {
        Volume::Iso9660(_) => ISO_DESCRIPTOR,
        Volume::Fat(_) => 0,
    };
    if let Some(table) = table(device)?
        && !table.partitions.iter().any(|partition| partition.holds(start))
    {
        return Ok(Some(table.name));
    }
    mark(device)
}

/// For a medium without a volume in a supported format: its partition table or file system, and its partitions.
pub fn instead(device: &mut (impl Read + Seek)) -> Result<Option<(&'static str, Vec<Partition>)>, VolumeError> {
    if let Some(Table { name, partitions }) = table(device)? {
        return Ok(Some((name, partitions)));
    }
    let name = match mark(device)? {
        None => marked(device, ALONE.iter().copied())?,
        name => name,
    };
    Ok(name.map(|name| (name, Vec::new())))
}

/// A file system or container that uses the whole medium.
fn mark(device: &mut (impl Read + Seek)) -> Result<Option<&'static str>, VolumeError> {
    let size = device.seek(SeekFrom::End(0)).map_err(|source| VolumeError::Read { offset: 0, source })?;
    let raid = md_at_the_end(size).map(|offset| (offset, MD, "a member of a RAID (md)"));
    marked(device, MARKS.iter().copied().chain(raid))
}

/// The name of the first mark that is there.
fn marked(
    device: &mut (impl Read + Seek),
    marks: impl Iterator<Item = (u64, &'static [u8], &'static str)>,
) -> Result<Option<&'static str>, VolumeError> {
    for (offset, mark, name) in marks {
        let mut found = [0; 8];
        let found = found.get_mut(..mark.len()).unwrap_or_default();
        if read(device, offset, found)? && found == mark {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// include/uapi/linux/raid/md_p.h, MD_SB_MAGIC
const MD: &[u8] = b"\xfc\x4e\x2b\xa9";

/// The offsets of the magic numbers of md's versions 1.0 and 0.90 on a device of this size (drivers/md/md.c,
/// super_1_load; md_p.h, MD_NEW_SIZE_SECTORS).
fn md_at_the_end(size: u64) -> [u64; 2] {
    let sectors = size / 512;
    [sectors.saturating_sub(16) / 8 * 8, (sectors / 128 * 128).saturating_sub(128)].map(|sector| sector * 512)
}

/// Offset in bytes, magic number and name of file systems and containers that use a whole disk.
const MARKS: &[(u64, &[u8], &str)] = &[
    (0, b"XFSB", "an XFS file system"),                 // xfs_format.h, XFS_SB_MAGIC
    (0, b"hsqs", "a SquashFS file system"),             // include/uapi/linux/magic.h, SQUASHFS_MAGIC, little-endian
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"), // LUKS2 On-Disk Format, §2.1
    (3, b"NTFS    ", "an NTFS file system"),            // fs/ntfs3/ntfs.h, NTFS_BOOT, system_id
    (3, b"EXFAT   ", "an exFAT file system"),           // exFAT file system specification, §3.1.2
    (0, b"LABELONE", "a physical volume of LVM"),       // lvm2, lib/label/label.h: in one of four sectors
    (512, b"LABELONE", "a physical volume of LVM"),
    (1024, b"LABELONE", "a physical volume of LVM"),
    (1536, b"LABELONE", "a physical volume of LVM"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"), // include/linux/f2fs_fs.h, F2FS_SUPER_MAGIC
    (1080, b"\x53\xef", "an ext file system"),          // fs/ext4/ext4.h, EXT4_SUPER_MAGIC, s_magic at 0x38 of 1024
    (4086, b"SWAPSPAC", "swap space"),                  // include/linux/swap.h, at the end of a page of 4 KiB,
    (16_374, b"SWAPSPAC", "swap space"),                // of 16
    (65_526, b"SWAPSPAC", "swap space"),                // and of 64
    (0, MD, "a member of a RAID (md)"),                 // version 1.1
    (4096, MD, "a member of a RAID (md)"),              // version 1.2
    (65_600, b"_BHRfS_M", "a btrfs file system"),       // include/uapi/linux/btrfs_tree.h, BTRFS_MAGIC
];

/// File systems that an optical disc may have beside ISO 9660, of the same files: no sign of an older use.
const ALONE: &[(u64, &[u8], &str)] = &[
    (32_769, b"BEA01", "a UDF file system"), // ECMA-167, 2/9.2; a disc with ISO 9660, too, has CD001 here
    (1024, b"H+\x00\x04", "an HFS+ file system"), // fs/hfsplus/hfsplus_raw.h, HFSPLUS_VOLHEAD_SIG, HFSPLUS_MIN_VERSION
    (1024, b"HX\x00\x05", "an HFSX file system"), // HFSPLUS_VOLHEAD_SIGX, HFSPLUS_CURRENT_VERSION
];

/// The first descriptor of ISO 9660, in sectors of 512 bytes (ECMA-119 §6.2.1).
const ISO_DESCRIPTOR: u64 = 64;
/// Older programs put the first partition after the first track, at this sector. No ISO image has a partition there.
const FIRST_TRACK: u64 = 63;

struct Table {
    name: &'static str,
    partitions: Vec<Partition>,
}

/// A partition. `start` and `end` are in sectors of 512 bytes; `end` is the first sector after the partition.
pub struct Partition {
    /// From 1. Unused entries of the table count, too, as in the kernel's names.
    pub number: u32,
    start: u64,
    end: u64,
}

impl Partition {
    /// Start and length in bytes.
    pub fn place(&self) -> (u64, u64) {
        (self.start.saturating_mul(512), self.end.saturating_sub(self.start).saturating_mul(512))
    }

    /// Whether the partition contains the volume. Images that boot from a disk and from an optical disc ("isohybrid")
    /// have a partition that contains the volume from its beginning or from its first descriptor.
    fn holds(&self, start: u64) -> bool {
        self.start <= start && self.start != FIRST_TRACK && start < self.end
    }
}

/// A GPT, or a master boot record with at least one partition.
fn table(device: &mut (impl Read + Seek)) -> Result<Option<Table>, VolumeError> {
    let mut sector = [0; 512];
    if !read(device, 0, &mut sector)? {
        return Ok(None);
    }
    let older = mbr(&sector);
    for size in [512, 4096] {
        if let Some(mut partitions) = gpt(device, size)? {
            // `mbr` leaves out the partition of type 0xee, which only protects the GPT. Hybrid images have further
            // partitions there, and those count.
            partitions.extend(older);
            return Ok(Some(Table { name: "a partition table (GPT)", partitions }));
        }
    }
    let partitions = older;
    let table = Table { name: "a partition table (MBR)", partitions };
    Ok(Some(table).filter(|table| !table.partitions.is_empty()))
}

/// The partitions of a master boot record. Empty if the bytes of the table are code, as in most FAT boot sectors.
fn mbr(sector: &[u8; 512]) -> Vec<Partition> {
    let Some((entries, [0x55, 0xaa])) = sector.get(446..).and_then(|rest| rest.split_at_checked(64)) else {
        return Vec::new();
    };
    let entries: &[[u8; 16]] = entries.as_chunks().0;
    // block/partitions/msdos.c, msdos_partition: a boot indicator that is neither 0 nor 0x80 is no partition table.
    if entries.iter().any(|[indicator, ..]| indicator & 0x7f != 0) {
        return Vec::new();
    }
    let partitions = entries.iter().zip(1..).filter_map(|(entry, number)| {
        let [_, _, _, _, kind, _, _, _, a, b, c, d, e, f, g, h] = *entry;
        let (start, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let used = length > 0 && kind != GPT_PROTECTIVE;
        used.then(|| Partition { number, start: start.into(), end: u64::from(start) + u64::from(length) })
    });
    partitions.collect()
}

/// UEFI Specification 2.10, §5.2.3
const GPT_PROTECTIVE: u8 = 0xee;
/// How many entries are read. Every partitioning program makes room for this many.
const GPT_ENTRIES: u32 = 128;

/// The partitions of a GUID partition table on a disk with sectors of `size` bytes (UEFI Specification 2.10, §5.3).
fn gpt(device: &mut (impl Read + Seek), size: u64) -> Result<Option<Vec<Partition>>, VolumeError> {
    let mut header = [0; 96];
    if !read(device, size, &mut header)? || !header.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let number = |bytes: Option<&[u8]>| bytes.unwrap_or_default().iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    let (at, step) = (number(header.get(72..80)), number(header.get(84..88)));
    let count = number(header.get(80..84)).min(GPT_ENTRIES.into());
    let mut partitions = Vec::new();
    for (index, ordinal) in (0..count).zip(1..) {
        let mut entry = [0; 48];
        let offset = at.saturating_mul(size).saturating_add(index.saturating_mul(step));
        // The offset of the entries may lie beyond the end of the device. The table counts nevertheless.
        if !read(device, offset, &mut entry)? {
            break;
        }
        if entry.starts_with(&[0; 16]) {
            continue;
        }
        let sectors = size / 512;
        let (first, last) = (number(entry.get(32..40)), number(entry.get(40..48)));
        let end = last.saturating_add(1).saturating_mul(sectors);
        partitions.push(Partition { number: ordinal, start: first.saturating_mul(sectors), end });
    }
    Ok(Some(partitions))
}

/// Reads all of `bytes`. False if the device ends before that.
fn read(device: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> Result<bool, VolumeError> {
    match read_at(device, offset, bytes) {
        Err(error) if is_end(&error) => Ok(false),
        read => read.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offsets at which mdadm wrote them on a disk of 4 MiB (mdadm --create --metadata=0.90 and 1.0).
    #[test]
    fn marks_of_md_at_the_end() {
        assert_eq!(md_at_the_end(4 << 20), [(4 << 20) - 8192, (4 << 20) - 65536]);
        assert_eq!(md_at_the_end((4 << 20) + 512), [(4 << 20) - 8192, (4 << 20) - 65536]);
        assert_eq!(md_at_the_end(100), [0, 0]);
    }

    /// A medium that holds one of these has no payload: the message says what it holds.
    #[test]
    fn a_file_system_in_place_of_a_volume_is_named() {
        for (offset, bytes, name) in [
            (0, &b"hsqs"[..], "a SquashFS file system"),
            (32_769, b"BEA01\x01", "a UDF file system"),
            (1024, b"H+\x00\x04", "an HFS+ file system"),
            (1024, b"HX\x00\x05", "an HFSX file system"),
            (0, b"XFSB", "an XFS file system"),
        ] {
            let mut medium = vec![0; 70_000];
            medium[offset..offset + bytes.len()].copy_from_slice(bytes);
            let found = instead(&mut std::io::Cursor::new(&medium)).unwrap();
            assert_eq!(found.map(|(name, partitions)| (name, partitions.len())), Some((name, 0)));
            // Discs for several systems have these file systems beside ISO 9660.
            let beside = mark(&mut std::io::Cursor::new(&medium)).unwrap();
            assert_eq!(beside.is_none(), ["UDF", "HFS"].iter().any(|kind| name.contains(kind)), "{name}");
        }
        assert!(instead(&mut std::io::Cursor::new(vec![0; 70_000])).unwrap().is_none());
    }
}
