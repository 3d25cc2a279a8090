//! Tools that the readers of all volume formats share: reading bytes at an offset, extents, and the errors. Nobody
//! vouches for the bytes of a medium. This module never interprets a format.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use super::fat_error::FatError;
use crate::payload::{Form, MAX_LEN};
use crate::secret::Secret;

/// The largest directory of ISO 9660 that is read, in bytes: about 20,000 entries.
pub(super) const MAX_DIRECTORY: u32 = 1024 * 1024;

/// Where a file or directory begins, and how long it is in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// The number of a logical block (ISO 9660) or of a cluster (FAT).
    pub(super) at: u32,
    pub(super) len: u32,
}

/// A structure that contradicts itself, and its offset in bytes from the start of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Damage {
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

/// Why a volume cannot be read.
#[derive(Debug)]
pub enum VolumeError {
    /// Reading from the device failed.
    Read {
        /// In bytes from the start of the device.
        offset: u64,
        /// The error of the kernel.
        source: io::Error,
    },
    /// A structure contradicts itself or leads out of the volume.
    Damaged {
        /// In bytes from the start of the device.
        offset: u64,
        /// Which structure.
        what: &'static str,
    },
    /// A structure of a FAT volume contradicts itself or leads out of the volume.
    Fat(FatError),
    /// The payload file exists, but it cannot be read.
    File {
        /// The path of the file.
        path: String,
        /// The cause.
        source: Box<VolumeError>,
    },
    /// The file is longer than a payload can be.
    TooLong {
        /// The path of the file.
        path: String,
        /// The length of the file in bytes.
        len: u32,
        /// What it is, if that is known.
        form: Option<Form>,
    },
    /// Two names on the volume match the path.
    Twice {
        /// One name, as it stands in the directory.
        first: String,
        /// The other name.
        second: String,
    },
}

impl VolumeError {
    /// Whether the error concerns the payload file itself, and not the directories that lead to it.
    pub fn is_about_the_file(&self) -> bool {
        matches!(self, VolumeError::File { .. } | VolumeError::TooLong { .. } | VolumeError::Twice { .. })
    }
}

impl From<Damage> for VolumeError {
    fn from(Damage { offset, what }: Damage) -> VolumeError {
        VolumeError::Damaged { offset, what }
    }
}

impl From<FatError> for VolumeError {
    fn from(error: FatError) -> VolumeError {
        VolumeError::Fat(error)
    }
}

/// A whole device, or a range of its bytes that is read as if it were a device.
pub struct Window<D> {
    device: D,
    start: u64,
    /// In bytes; `None`: to the end of the device.
    len: Option<u64>,
    at: u64,
}

impl<D: Read + Seek> Window<D> {
    /// All of a device.
    pub fn whole(device: D) -> Window<D> {
        Window { device, start: 0, len: None, at: 0 }
    }

    /// Restricts all further reads to this range of bytes.
    pub(super) fn narrow(&mut self, start: u64, len: u64) {
        (self.start, self.len, self.at) = (start, Some(len), 0);
    }
}

impl<D: Read + Seek> Read for Window<D> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.len.map_or(u64::MAX, |len| len.saturating_sub(self.at));
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let count = self.device.read(bytes.get_mut(..most).unwrap_or_default())?;
        self.at = self.at.saturating_add(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }
}

impl<D: Read + Seek> Seek for Window<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match (to, self.len) {
            (SeekFrom::Start(at), _) => at,
            (SeekFrom::End(0), Some(len)) => len,
            (SeekFrom::End(0), None) => self.device.seek(SeekFrom::End(0))?.saturating_sub(self.start),
            // No reader of a format seeks in another way.
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let place = self.start.checked_add(at).ok_or(io::ErrorKind::InvalidInput)?;
        self.device.seek(SeekFrom::Start(place))?;
        self.at = at;
        Ok(at)
    }
}

/// Marks an error as one of the payload file itself.
pub(super) fn in_file(path: &[&str], error: VolumeError) -> VolumeError {
    VolumeError::File { path: path.join("/"), source: Box::new(error) }
}

/// Refuses a file that is too long for a payload, before memory is allocated for it. `beginning` reads so many bytes of
/// the file, so that the error can name its form.
pub(super) fn bounded(
    len: u32,
    path: &[&str],
    max: usize,
    beginning: impl FnOnce(u32) -> Result<Secret, VolumeError>,
) -> Result<(), VolumeError> {
    if usize::try_from(len).is_ok_and(|len| len <= max) {
        return Ok(());
    }
    // An error of this read is ignored: the error to report is that the file is too long.
    let form = beginning(len.min(BEGINNING)).ok().and_then(|bytes| Form::of_beginning(bytes.expose()));
    Err(VolumeError::TooLong { path: path.join("/"), len, form })
}

/// The most bytes of such a file that are read. The last mark of a known form, that of an ISO 9660 image, ends at byte
/// 32774.
const BEGINNING: u32 = 33 * 1024;

pub(super) fn read_at(device: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> Result<(), VolumeError> {
    // Seeking beyond the end fails on a block device (block/fops.c, blkdev_llseek). On a file it succeeds, and the next
    // read reports the end. Report both in the same way.
    let behind = |error: io::Error| match error.raw_os_error() {
        Some(nix::libc::EINVAL) => io::ErrorKind::UnexpectedEof.into(),
        _ => error,
    };
    let sought = device.seek(SeekFrom::Start(offset)).map_err(behind);
    sought.and_then(|_| device.read_exact(bytes)).map_err(|source| VolumeError::Read { offset, source })
}

/// The text of a field up to its first NUL. The specifications pad text fields with blanks, but some programs pad them
/// with NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether the read went beyond the end of the device: the device is too short for the format.
pub(super) fn is_end(error: &VolumeError) -> bool {
    matches!(error, VolumeError::Read { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof)
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumeError::Read { offset, .. } => write!(f, "reading at byte {offset}"),
            VolumeError::Damaged { offset, what } => {
                write!(f, "{what} at byte {offset} is damaged; write the volume again")
            }
            VolumeError::Fat(error) => error.fmt(f),
            VolumeError::File { path, .. } => write!(f, "reading its file {path}"),
            VolumeError::TooLong { path, len, form } => {
                write!(f, "{path} has {len} bytes, a payload has at most {MAX_LEN}; ")?;
                match form {
                    Some(form) => write!(f, "it is {form}, or use the output of imprint-host payload NODE --as cbor"),
                    None => f.write_str("put a payload there"),
                }
            }
            VolumeError::Twice { first, second } => {
                write!(f, "{first} and {second} are the same path without regard to case; remove one")
            }
        }
    }
}

impl std::error::Error for VolumeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            VolumeError::Read { source, .. } => Some(source),
            VolumeError::File { source, .. } => Some(source),
            _ => None,
        }
    }
}
