//! The superblocks of the file systems that a root may have: which one it is, its UUID and its label. Everybody who ever wrote to the
//! disk vouches for these bytes, so they only name a device. Never reads a file of a file system, and never writes.

use std::io::{self, Read, Seek, SeekFrom};

use crate::hex;

/// A file system, as its superblock describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// What mount(2) calls it.
    pub kind: &'static str,
    /// In lower case; empty: it has none.
    pub uuid: String,
    /// Empty: it has none.
    pub label: String,
}

/// A form of superblock: where it begins and its parts within it.
struct Form {
    kind: &'static str,
    start: u64,
    /// Its magic number, and where that is.
    magic: (usize, &'static [u8]),
    uuid: Option<usize>,
    /// Where the label is, and how long it may be.
    label: Option<(usize, usize)>,
}

/// How much of a superblock is read.
const LENGTH: usize = 1024;

const FORMS: [Form; 5] = [
    // fs/ext4/ext4.h, struct ext4_super_block. The driver of ext4 also mounts ext2 and ext3.
    Form { kind: "ext4", start: 1024, magic: (0x38, b"\x53\xef"), uuid: Some(0x68), label: Some((0x78, 16)) },
    // fs/xfs/libxfs/xfs_format.h, struct xfs_dsb
    Form { kind: "xfs", start: 0, magic: (0, b"XFSB"), uuid: Some(32), label: Some((108, 12)) },
    // fs/btrfs/ctree.h, struct btrfs_super_block
    Form { kind: "btrfs", start: 65_536, magic: (0x40, b"_BHRfS_M"), uuid: Some(0x20), label: Some((0x12b, 256)) },
    // fs/erofs/erofs_fs.h, struct erofs_super_block
    Form { kind: "erofs", start: 1024, magic: (0, b"\xe2\xe1\xf5\xe0"), uuid: Some(48), label: Some((64, 16)) },
    // fs/squashfs/squashfs_fs.h, struct squashfs_super_block
    Form { kind: "squashfs", start: 0, magic: (0, b"hsqs"), uuid: None, label: None },
];

/// The kinds that are known.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|form| form.kind)
}

/// The superblock of a device. `None`: it has none that is known.
pub fn read(device: &mut (impl Read + Seek)) -> io::Result<Option<Superblock>> {
    for form in &FORMS {
        let mut block = Vec::with_capacity(LENGTH);
        // A device that is too short for a form has none. Seeking beyond the end of a block device fails (block/fops.c).
        match device.seek(SeekFrom::Start(form.start)) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => continue,
            sought => sought?,
        };
        device.by_ref().take(u64::try_from(LENGTH).unwrap_or(0)).read_to_end(&mut block)?;
        if let Some(found) = form.read(&block) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Form {
    fn read(&self, block: &[u8]) -> Option<Superblock> {
        let part = |at: usize, length: usize| block.get(at..).and_then(|rest| rest.get(..length));
        let (at, magic) = self.magic;
        if part(at, magic.len()) != Some(magic) {
            return None;
        }
        let uuid = self.uuid.and_then(|at| part(at, 16)?.first_chunk::<16>());
        let label = self.label.and_then(|(at, length)| part(at, length)?.split(|byte| *byte == 0).next());
        Some(Superblock {
            kind: self.kind,
            uuid: uuid.filter(|uuid| **uuid != [0; 16]).map(hex::uuid).unwrap_or_default(),
            label: String::from_utf8_lossy(label.unwrap_or_default()).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::process::Command;

    use super::*;

    fn device(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut device = vec![0; 70_000];
        for (at, bytes) in parts {
            device[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        device
    }

    const UUID: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x10\x32\x54\x76\x98\xba\xdc\xfe";
    const TEXT: &str = "01234567-89ab-cdef-1032-547698badcfe";

    #[test]
    fn each_file_system_is_known_by_its_superblock() {
        for (kind, device) in [
            ("ext4", device(&[(1080, b"\x53\xef"), (1024 + 0x68, &UUID), (1024 + 0x78, b"root")])),
            ("xfs", device(&[(0, b"XFSB"), (32, &UUID), (108, b"root")])),
            ("btrfs", device(&[(65_600, b"_BHRfS_M"), (65_536 + 0x20, &UUID), (65_536 + 0x12b, b"root")])),
            ("erofs", device(&[(1024, b"\xe2\xe1\xf5\xe0"), (1072, &UUID), (1088, b"root")])),
        ] {
            let want = Superblock { kind, uuid: TEXT.to_owned(), label: "root".to_owned() };
            assert_eq!(read(&mut Cursor::new(&device)).unwrap(), Some(want));
        }
        let squashfs = read(&mut Cursor::new(device(&[(0, b"hsqs")]))).unwrap().unwrap();
        assert_eq!((squashfs.kind, squashfs.uuid, squashfs.label), ("squashfs", String::new(), String::new()));
        for none in [vec![], vec![0; 100], device(&[]), device(&[(1080, b"\x53")])] {
            assert_eq!(read(&mut Cursor::new(none)).unwrap(), None);
        }
        // A label that fills its field, and one that is no text.
        let full = device(&[(0, b"XFSB"), (108, b"twelve bytes and more")]);
        assert_eq!(read(&mut Cursor::new(full)).unwrap().unwrap().label, "twelve bytes");
        let wrong = device(&[(0, b"XFSB"), (108, b"\xff\x1b[2J")]);
        assert_eq!(read(&mut Cursor::new(wrong)).unwrap().unwrap().label, "\u{fffd}\u{1b}[2J");
    }

    /// What mke2fs itself writes.
    #[test]
    fn a_real_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let made = Command::new("/sbin/mke2fs")
            .args(["-q", "-t", "ext4", "-F", "-L", "imprint-root", "-U", TEXT])
            .arg(&path)
            .status();
        assert!(made.expect("mke2fs of e2fsprogs").success());
        let found = read(&mut std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(found, Some(Superblock { kind: "ext4", uuid: TEXT.to_owned(), label: "imprint-root".to_owned() }));
    }
}
