//! What somebody may still need on a partition: every file system, RAID and container whose mark is known. For `imprint swap prepare`, which
//! refuses such a partition. Never writes. The boot does not need these: it asks for the marker, and for nothing else in the margins.

use std::io::{Read, Seek};

use crate::source::marks;
use crate::source::medium::VolumeError;
use crate::source::partition;
use crate::source::volume::Volume;

/// The name of what is on a partition of so many bytes. `None`: nothing that is known.
pub(super) fn sign(device: &mut (impl Read + Seek), bytes: u64) -> Result<Option<&'static str>, VolumeError> {
    let end = |behind: u64| bytes.saturating_sub(behind);
    let at_the_end = [
        (end(512), &b"\xde\x11\xde\x11"[..], "a member of a RAID (DDF)"), // SNIA DDF 2.0, §4.2.1
        (end(1024), b"Intel Ra", "a member of a RAID (Intel)"),           // mdadm, super-intel.c, MPB_SIGNATURE
    ];
    // LUKS2 On-Disk Format, §2.1: where the second header may be.
    let second = (14..=22).map(|power| (1u64 << power, &b"SKUL\xba\xbe"[..], "an encrypted volume (LUKS)"));
    if let Some(name) = marks::marked(device, SIGNS.iter().copied().chain(second).chain(at_the_end))? {
        return Ok(Some(name));
    }
    match Volume::all(device)?.first() {
        Some(Volume::Iso9660(_)) => return Ok(Some("an ISO 9660 file system")),
        Some(Volume::Fat(_)) => return Ok(Some("a FAT file system")),
        None => {}
    }
    let table = partition::table(device)?;
    marks::instead(device, table.as_ref())
}

/// Marks that [`marks`] does not have, since what has them is never mistaken for a config drive. From libblkid/src/superblocks, where no
/// other place is named.
const SIGNS: &[(u64, &[u8], &str)] = &[
    (4086, b"S1SUSPEN", "a system that was suspended to disk"),
    (4086, b"S2SUSPEN", "a system that was suspended to disk"),
    (4086, b"ULSUSPEN", "a system that was suspended to disk"),
    (4086, b"LINHIB00", "a system that was suspended to disk"),
    (3, b"-FVE-FS-", "an encrypted volume (BitLocker)"),
    (32, b"NXSB", "an APFS container"),
    (16_384, b"\x01\x01\0\0\0\0\0\0", "a member of a ZFS pool"), // openzfs, nvpair.c: the list in the label, in XDR
    (4120, b"\xc6\x85\x73\xf6", "a bcache or bcachefs device"),
    (512, b"!Stra0ti", "a member of a Stratis pool"),
    (0, b"bluestor", "a device of Ceph"),
    (32_768, b"JFS1", "a JFS file system"),
    (65_588, b"ReIsEr", "a ReiserFS file system"),
    (8244, b"ReIsEr", "a ReiserFS file system"),
    (65_536, b"ReIsEr4", "a Reiser4 file system"),
    (65_536, b"\x01\x16\x19\x70", "a GFS2 file system"),
    (1024, b"OCFSV2", "an OCFS2 file system"),
    (2048, b"OCFSV2", "an OCFS2 file system"),
    (4096, b"OCFSV2", "an OCFS2 file system"),
    (8192, b"OCFSV2", "an OCFS2 file system"),
    (1030, b"\x34\x34", "a NILFS2 file system"),
    (9564, b"\x54\x19\x01\0", "a UFS file system"),
    (66_908, b"\x19\x01\x54\x19", "a UFS file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (0, b"\x45\x3d\xcd\x28", "a cramfs file system"),
    (1024, b"\xf5\xfc\x01\xa5", "a VxFS file system"),
    (1024, b"BD", "an HFS file system"),
    (1_048_576, b"\x0d\xd0\x01\xc0", "a volume of VMware"),
    (2_097_152, b"\x5e\xf1\xab\x2f", "a VMFS file system"),
];

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::process::Command;

    use super::*;

    fn of(bytes: &[u8]) -> Option<&'static str> {
        sign(&mut Cursor::new(bytes), bytes.len() as u64).unwrap()
    }

    /// What the programs of others have made is seen.
    #[test]
    fn file_systems_made_by_others_are_known() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("partition");
        let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        for (words, name) in [
            (&["mke2fs", "-q", "-t", "ext4", "-F"][..], "an ext file system"),
            (&["mkfs.vfat"], "a FAT file system"),
            (&["mkswap"], "swap space"),
        ] {
            std::fs::File::create(&path).unwrap().set_len(32 << 20).unwrap();
            let done = Command::new(words[0]).args(&words[1..]).arg(&path).env("PATH", &search).output();
            let done = done.unwrap_or_else(|error| panic!("{}: {error}: run scripts/install-needs test", words[0]));
            assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(of(&std::fs::read(&path).unwrap()), Some(name), "{words:?}");
        }
    }

    #[test]
    fn marks_at_their_places() {
        assert_eq!(of(&vec![0; 4 << 20]), None);
        for (offset, mark, name) in SIGNS {
            let mut bytes = vec![0; 4 << 20];
            bytes[*offset as usize..][..mark.len()].copy_from_slice(mark);
            assert_eq!(of(&bytes), Some(*name), "{offset}");
        }
        let mut second = vec![0; 5 << 20];
        second[4 << 20..][..6].copy_from_slice(b"SKUL\xba\xbe");
        assert_eq!(of(&second), Some("an encrypted volume (LUKS)"));
        let mut ddf = vec![0; 4 << 20];
        ddf[(4 << 20) - 512..][..4].copy_from_slice(b"\xde\x11\xde\x11");
        assert_eq!(of(&ddf), Some("a member of a RAID (DDF)"));
        // A disk inside a partition, as virtual machines have them.
        let mut table = vec![0; 4 << 20];
        table[510..512].copy_from_slice(&[0x55, 0xaa]);
        table[450] = 0x83;
        table[454..462].copy_from_slice(&[8, 0, 0, 0, 8, 0, 0, 0]);
        assert_eq!(of(&table), Some("a partition table (MBR)"));
    }
}
