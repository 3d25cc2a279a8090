//! Finds other file systems on a medium, by their magic numbers, and partition tables. If a volume shares the medium
//! with one of them, the volume may be a remnant of an older use of the medium. Nobody vouches for the bytes. Never
//! writes, and never decides whether a volume is used.

use std::io::{Read, Seek, SeekFrom};

use super::medium::VolumeError;
use super::partition::{self, Table, TableError, read};
use super::volume::Volume;

/// A partition table without a partition for this volume, or another file system. `None` if the medium has nothing but
/// the volume.
pub fn beside(device: &mut (impl Read + Seek), volume: &Volume) -> Result<Option<&'static str>, VolumeError> {
    let start = match volume {
        Volume::Iso9660(_) => ISO_DESCRIPTOR,
        Volume::Fat(_) => 0,
    };
    // An MBR entry that protects a GPT claims nothing if there is no GPT.
    let table = partition::table(device)?.filter(|table| table.fault != Some(TableError::NoGpt));
    if let Some(table) = table
        && !table.holds(start)
    {
        return Ok(Some(table.name));
    }
    mark(device)
}

/// The partition table or file system of a medium that has no volume in a supported format. `None`: it has neither.
pub fn instead(device: &mut (impl Read + Seek), table: Option<&Table>) -> Result<Option<&'static str>, VolumeError> {
    if let Some(table) = table {
        return Ok(Some(table.name));
    }
    match mark(device)? {
        None => {
            let ends = md_at_the_end(size(device)?).map(|offset| (offset, MD, MEMBER));
            marked(device, ALONE.iter().copied().chain(ends))
        }
        name => Ok(name),
    }
}

/// A file system or container that uses the whole medium, and that is not the content itself.
pub fn mark(device: &mut (impl Read + Seek)) -> Result<Option<&'static str>, VolumeError> {
    if let Some(name) = marked(device, MARKS.iter().copied())? {
        return Ok(Some(name));
    }
    for offset in md_at_the_end(size(device)?) {
        let mut block = [0; 136];
        if read(device, offset, &mut block)? && block.starts_with(MD) && !is_mirror(&block) {
            return Ok(Some(MEMBER));
        }
    }
    Ok(None)
}

fn size(device: &mut (impl Read + Seek)) -> Result<u64, VolumeError> {
    device.seek(SeekFrom::End(0)).map_err(|source| VolumeError::Read { offset: 0, source })
}

const MEMBER: &str = "a member of a RAID (md)";

/// Whether md's superblock at the end of a device says that the device holds, from its first byte, what the whole array holds:
/// the array is a mirror (RAID 1). include/uapi/linux/raid/md_p.h, mdp_superblock_1 and mdp_super_t.
fn is_mirror(block: &[u8; 136]) -> bool {
    let word = |at: usize| block.get(at..at + 4);
    let (one, zero) = ([1, 0, 0, 0], [0; 8]);
    match word(4) {
        // Version 1.0 is little-endian: `level` at byte 72, `data_offset` at byte 128.
        Some(&[1, 0, 0, 0]) => word(72) == Some(&one[..]) && block.get(128..) == Some(&zero[..]),
        // Version 0.90 has the order of the machine that wrote it: `level` at byte 28. It has no offset.
        Some(&[0, 0, 0, 0]) => word(28) == Some(&one[..]),
        _ => false,
    }
}

/// The name of the first mark that is there: offset in bytes, magic number of at most eight bytes, name.
pub fn marked(
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

/// File systems that an optical disc may have beside ISO 9660, with the same files. They do not show an older use.
const ALONE: &[(u64, &[u8], &str)] = &[
    (32_769, b"BEA01", "a UDF file system"), // ECMA-167, 2/9.2; a disc with ISO 9660, too, has CD001 here
    (1024, b"H+\x00\x04", "an HFS+ file system"), // fs/hfsplus/hfsplus_raw.h, HFSPLUS_VOLHEAD_SIG, HFSPLUS_MIN_VERSION
    (1024, b"HX\x00\x05", "an HFSX file system"), // HFSPLUS_VOLHEAD_SIGX, HFSPLUS_CURRENT_VERSION
];

/// The first descriptor of ISO 9660, in sectors of 512 bytes (ECMA-119 §6.2.1).
const ISO_DESCRIPTOR: u64 = 64;
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

    /// A mirror of disks stopped the boot: each half looked like a config drive that had become a member of a RAID. What is on
    /// a half of a mirror is what is on the mirror. On members of other arrays it is not.
    #[test]
    fn half_of_a_mirror_is_what_the_mirror_is() {
        let number = u32::to_le_bytes;
        // Version 1.0 in the last 8 KiB, version 0.90 in the last 64 KiB.
        let new = |level: u32, start: u8| (8192, 1, 72, level, start);
        let old = |level: u32| (65_536, 0, 28, level, 0);
        for ((behind, major, at, level, start), is_claim) in [
            (new(1, 0), false),
            (old(1), false),
            (new(1, 8), true),
            (new(0, 0), true),
            (new(5, 0), true),
            (new(u32::MAX, 0), true),
            (old(0), true),
            (old(10), true),
            ((8192, 2, 72, 1, 0), true),
        ] {
            let mut medium = vec![0; 1 << 20];
            let block = (1 << 20) - behind;
            medium[block..block + 4].copy_from_slice(MD);
            medium[block + 4..block + 8].copy_from_slice(&number(major));
            medium[block + at..block + at + 4].copy_from_slice(&number(level));
            medium[block + 128] = start;
            let device = &mut std::io::Cursor::new(&medium);
            let want = Some(MEMBER).filter(|_| is_claim);
            assert_eq!(mark(device).unwrap(), want, "{behind} {level} {start}");
            assert_eq!(instead(device, None).unwrap(), Some(MEMBER), "a medium without a volume is called what it is");
        }
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
            assert_eq!(instead(&mut std::io::Cursor::new(&medium), None).unwrap(), Some(name));
            // Discs for several systems have these file systems beside ISO 9660.
            let beside = mark(&mut std::io::Cursor::new(&medium)).unwrap();
            assert_eq!(beside.is_none(), ["UDF", "HFS"].iter().any(|kind| name.contains(kind)), "{name}");
        }
        assert!(instead(&mut std::io::Cursor::new(vec![0; 70_000]), None).unwrap().is_none());
    }
}
