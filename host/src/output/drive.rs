//! Writes a drive in place: opens it exclusively, looks for contents, compares sizes, writes, and reads back. Never makes
//! or shortens a file.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use imprint::shown::printable;
use imprint::source::volume::Volume;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use zeroize::Zeroizing;

use super::{OutputError, io_error, same};

/// Bytes at either end of a drive that are searched for contents, and zeroed where the image does not reach. File systems
/// and partition tables are at the start; the copy of a GPT and some RAID formats are at the end.
const EDGE: u64 = 1024 * 1024;

/// An open drive. While it is open, nobody else can mount or claim it.
pub struct Drive {
    file: File,
    path: PathBuf,
    len: u64,
    holds: Option<String>,
}

impl Drive {
    /// Opens the drive exclusively, and looks for contents.
    pub(super) fn open(path: &Path, looked_at: &Metadata) -> Result<Drive, OutputError> {
        // The block device's folder in sysfs. It says whether the drive is read-only: root can open such a drive for
        // writing.
        let (major, minor) = (nix::sys::stat::major(looked_at.rdev()), nix::sys::stat::minor(looked_at.rdev()));
        let about = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        if about.join("partition").exists() {
            return Err(OutputError::Partition(path.to_owned()));
        }
        if fs::read(about.join("ro")).is_ok_and(|text| text.starts_with(b"1")) {
            return Err(OutputError::ReadOnly(path.to_owned()));
        }
        // open(2): without O_CREAT, O_EXCL on a block device fails with EBUSY if the system uses it.
        let file = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_EXCL.bits()).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => OutputError::InUse(path.to_owned()),
            _ => io_error("opening", path)(error),
        })?;
        let mut file = same(path, looked_at, file)?;
        let (len, holds) = look(&mut file).map_err(io_error("reading", path))?;
        Ok(Drive { file, path: path.to_owned(), len, holds })
    }

    /// What the drive holds; `None`: it is empty.
    pub fn holds(&self) -> Option<&str> {
        self.holds.as_deref()
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    pub(super) fn has_room(&self, image: &[u8]) -> Result<(), OutputError> {
        let needs = u64::try_from(image.len()).unwrap_or(u64::MAX);
        let (path, has) = (self.path.clone(), self.len);
        if needs <= has { Ok(()) } else { Err(OutputError::TooSmall { path, has, needs }) }
    }

    /// Writes the image to the start, and zeros to the rest of both ends: remains of another file system or partition table
    /// would compete with the image. Then reads everything back from the drive itself.
    pub(super) fn write(mut self, image: &[u8]) -> Result<(), OutputError> {
        self.has_room(image)?;
        let edge = usize::try_from(self.len.min(EDGE)).unwrap_or_default();
        let mut front = Zeroizing::new(vec![0; image.len().max(edge)]);
        front.iter_mut().zip(image).for_each(|(to, from)| *to = *from);
        let end = u64::try_from(front.len()).unwrap_or(u64::MAX);
        let back_at = self.len.saturating_sub(EDGE).max(end);
        let back = vec![0; usize::try_from(self.len.saturating_sub(back_at)).unwrap_or_default()];
        // The end first: on a drive that is smaller than it claims, writes to the end wrap around to the start. Then
        // comparing the start finds the difference.
        let parts = [(back_at, back.as_slice()), (0, front.as_slice())];
        for (at, bytes) in parts {
            let written = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.write_all(bytes));
            written.map_err(io_error("writing", &self.path))?;
        }
        self.file.sync_all().map_err(io_error("writing", &self.path))?;
        // Drop the page cache, so that reading back reads the drive.
        let dropped = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        dropped.map_err(|error| io_error("reading back", &self.path)(error.into()))?;
        for (at, bytes) in parts {
            let mut found = Zeroizing::new(vec![0; bytes.len()]);
            let read = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.read_exact(&mut found));
            read.map_err(io_error("reading back", &self.path))?;
            if let Some(index) = found.iter().zip(bytes).position(|(found, want)| found != want) {
                let at = at.saturating_add(u64::try_from(index).unwrap_or_default());
                return Err(OutputError::Differs { path: self.path, at });
            }
        }
        Ok(())
    }
}

/// Size in bytes, and what the device holds.
fn look(device: &mut (impl Read + Seek)) -> io::Result<(u64, Option<String>)> {
    let len = device.seek(SeekFrom::End(0))?;
    let mut edge = |at: u64| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        device.seek(SeekFrom::Start(at))?;
        device.take(EDGE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (front, back) = (edge(0)?, edge(len.saturating_sub(EDGE))?);
    let is_empty = |with: u8| front.iter().chain(&back).all(|byte| *byte == with);
    // Erased flash memory may read as all ones.
    if is_empty(0) || is_empty(0xff) {
        return Ok((len, None));
    }
    let mut found = names(&front, &back);
    for volume in Volume::all(device).unwrap_or_default() {
        let kind = if matches!(volume, Volume::Iso9660(_)) { "an ISO 9660" } else { "a FAT" };
        let labels: Vec<String> = volume.labels().map(printable).collect();
        found.push(format!("{kind} volume \"{}\"", labels.join("\", \"")));
    }
    // The boot sectors of these file systems end with the mark of a partition table, too.
    if found.iter().any(|name| ["FAT", "NTFS", "BitLocker"].iter().any(|kind| name.contains(kind))) {
        found.retain(|name| name != MBR);
    }
    if found.is_empty() {
        found.push("data of a kind that is not known here".to_owned());
    }
    Ok((len, Some(found.join(" and "))))
}

const MBR: &str = "a partition table (MBR)";

/// Offset in bytes, mark, and description: from libblkid's probes (util-linux 2.38) and the file systems' own headers. The
/// command asks before it overwrites unknown contents, too.
const MARKS: &[(usize, &[u8], &str)] = &[
    (0, b"XFSB", "an XFS file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"\xfc\x4e\x2b\xa9", "a RAID member"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "a RAID member"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (3, b"-FVE-FS-", "a BitLocker volume"),
    (32, b"NXSB", "an APFS container"),
    (0, b"LABELONE", "an LVM physical volume"),
    (512, b"LABELONE", "an LVM physical volume"),
    (1024, b"LABELONE", "an LVM physical volume"),
    (1536, b"LABELONE", "an LVM physical volume"),
    (510, b"\x55\xaa", MBR),
    (512, b"EFI PART", "a partition table (GPT)"),
    (4096, b"EFI PART", "a partition table (GPT)"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (1024, b"H+", "an HFS+ file system"),
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (4096 - 10, b"SWAPSPACE2", "swap space"),
    (16384 - 10, b"SWAPSPACE2", "swap space"),
    (65536 - 10, b"SWAPSPACE2", "swap space"),
    (0x8000, b"JFS1", "a JFS file system"),
    (0x1_0034, b"ReIsEr", "a ReiserFS file system"),
    (0x1_0040, b"_BHRfS_M", "a btrfs file system"),
    (0x2_0000, b"\x0c\xb1\xba\x00\x00\x00\x00\x00", "a ZFS pool member"),
];

/// Descriptions of all marks that were found, each once.
fn names(front: &[u8], back: &[u8]) -> Vec<String> {
    let marked = |(at, mark, _): &&(usize, &[u8], &str)| front.get(*at..).is_some_and(|rest| rest.starts_with(mark));
    let mut names: Vec<String> = Vec::new();
    for (_, _, name) in MARKS.iter().filter(marked) {
        if !names.iter().any(|known| known == name) {
            names.push((*name).to_owned());
        }
    }
    // The header of a GPT's copy is in the last block, of 512 or 4096 bytes (UEFI 2.10 §5.3.1).
    let copy = [512, 4096].iter().filter_map(|block| back.get(back.len().checked_sub(*block)?..));
    if copy.into_iter().any(|block| block.starts_with(b"EFI PART")) && !names.iter().any(|name| name.contains("GPT")) {
        names.push("the copy of a partition table (GPT)".to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const LEN: usize = 4 * 1024 * 1024;

    fn holds(fill: impl FnOnce(&mut [u8])) -> Option<String> {
        let mut bytes = vec![0; LEN];
        fill(&mut bytes);
        let (len, holds) = look(&mut Cursor::new(bytes)).unwrap();
        assert_eq!(len, LEN as u64);
        holds
    }

    #[test]
    fn an_empty_drive_holds_nothing() {
        assert_eq!(holds(|_| ()), None);
        assert_eq!(holds(|bytes| bytes.fill(0xff)), None);
    }

    #[test]
    fn each_mark_is_known_by_its_name() {
        for (at, mark, name) in MARKS {
            let found = holds(|bytes| bytes[*at..*at + mark.len()].copy_from_slice(mark));
            assert_eq!(found.as_deref(), Some(*name), "{at}");
        }
    }

    /// Unknown contents count as contents: they would be lost, too.
    #[test]
    fn what_is_not_known_is_not_nothing() {
        for at in [0, 7, 1_000_000, LEN - 1_000_000, LEN - 1] {
            let found = holds(|bytes| bytes[at] = 1);
            assert_eq!(found.as_deref(), Some("data of a kind that is not known here"), "{at}");
        }
    }

    #[test]
    fn volumes_are_known_by_their_labels() {
        let put = |image: &[u8]| holds(|bytes| bytes[..image.len()].copy_from_slice(image));
        let iso = crate::iso::image(b"payload", imprint::time::Timestamp::from_secs(1_800_000_000)).unwrap();
        assert_eq!(put(&iso).as_deref(), Some("an ISO 9660 volume \"IMPRINT\""));
        let fat = crate::vfat::image(b"payload").unwrap();
        assert_eq!(put(&fat).as_deref(), Some("a FAT volume \"IMPRINT\""));
    }

    #[test]
    fn a_table_whose_copy_alone_is_left() {
        for block in [512, 4096] {
            let found = holds(|bytes| bytes[LEN - block..LEN - block + 8].copy_from_slice(b"EFI PART"));
            assert_eq!(found.as_deref(), Some("the copy of a partition table (GPT)"));
        }
        let both = holds(|bytes| {
            bytes[510..512].copy_from_slice(b"\x55\xaa");
            bytes[512..520].copy_from_slice(b"EFI PART");
        });
        assert_eq!(both.as_deref(), Some("a partition table (MBR) and a partition table (GPT)"));
    }
}
