//! What readers of all formats need: bytes at a place of a medium, where something lies on it, and why it cannot be read. Knows
//! no format.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use super::fat_error::FatError;
use crate::payload::{Form, MAX_LEN};
use crate::secret::Secret;

/// Directories on the way to the file: some 20,000 entries.
pub(super) const MAX_DIRECTORY: u32 = 1024 * 1024;

/// Where a file or directory begins, and how long it is in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// In logical blocks (ISO 9660) or as a cluster (FAT).
    pub(super) at: u32,
    pub(super) len: u32,
}

/// A structure that contradicts itself, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Damage {
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

/// Why a volume cannot be read.
#[derive(Debug)]
pub enum VolumeError {
    /// The device does not give its bytes.
    Read {
        /// In bytes from its start.
        offset: u64,
        /// What the kernel says.
        source: io::Error,
    },
    /// A structure contradicts itself or leads out of the volume.
    Damaged {
        /// In bytes from the start of the device.
        offset: u64,
        /// Which structure.
        what: &'static str,
    },
    /// The same on a FAT volume.
    Fat(FatError),
    /// The file that was looked for is there, and cannot be read.
    File {
        /// Its path.
        path: String,
        /// Why not.
        source: Box<VolumeError>,
    },
    /// The file is longer than a payload can be.
    TooLong {
        /// Its path.
        path: String,
        /// Its length in bytes.
        len: u32,
        /// What it is, if that is known.
        form: Option<Form>,
    },
    /// Two names on the volume match the path.
    Twice {
        /// One, as it stands in the directory.
        first: String,
        /// The other.
        second: String,
    },
}

impl VolumeError {
    /// Whether it is about the file that was looked for, and not about the way to it.
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

/// A whole device, or a run of its bytes that is read as if it were one.
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

    /// This run of bytes, once all that is read next.
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
            // No reader of a format asks for another.
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let place = self.start.checked_add(at).ok_or(io::ErrorKind::InvalidInput)?;
        self.device.seek(SeekFrom::Start(place))?;
        self.at = at;
        Ok(at)
    }
}

/// What went wrong in the file itself, not on the way to it.
pub(super) fn in_file(path: &[&str], error: VolumeError) -> VolumeError {
    VolumeError::File { path: path.join("/"), source: Box::new(error) }
}

/// Refuses a file that no payload can be, before memory is asked for. `beginning` reads so many bytes of it, to see what it
/// is.
pub(super) fn bounded(
    len: u32,
    path: &[&str],
    max: usize,
    beginning: impl FnOnce(u32) -> Result<Secret, VolumeError>,
) -> Result<(), VolumeError> {
    if usize::try_from(len).is_ok_and(|len| len <= max) {
        return Ok(());
    }
    // That it cannot be read is less than that it is too long: the latter is the error to report.
    let form = beginning(len.min(BEGINNING)).ok().and_then(|bytes| Form::of_beginning(bytes.expose()));
    Err(VolumeError::TooLong { path: path.join("/"), len, form })
}

/// The mark of an ISO 9660 image, the last of those that are looked for, ends at byte 32774.
const BEGINNING: u32 = 33 * 1024;

pub(super) fn read_at(device: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> Result<(), VolumeError> {
    // A place behind the end of a block device is refused (block/fops.c, blkdev_llseek), where that of a file only reads as
    // its end.
    let behind = |error: io::Error| match error.raw_os_error() {
        Some(nix::libc::EINVAL) => io::ErrorKind::UnexpectedEof.into(),
        _ => error,
    };
    let sought = device.seek(SeekFrom::Start(offset)).map_err(behind);
    sought.and_then(|_| device.read_exact(bytes)).map_err(|source| VolumeError::Read { offset, source })
}

/// A field of text as far as a C program reads it. Fields are padded with blanks by their specifications, and with NUL by
/// programs that do not keep to those.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether the device ended before what was to be read: it is too short for that format.
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
            VolumeError::File { path, .. } => write!(f, "its file {path}"),
            VolumeError::TooLong { path, len, form } => {
                write!(f, "{path} has {len} bytes, a payload has at most {MAX_LEN}; ")?;
                match form {
                    Some(form) => write!(f, "it is {form}, or take what --as cbor writes"),
                    None => f.write_str("write the right file"),
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
