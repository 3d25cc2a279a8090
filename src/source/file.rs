//! Reads a payload from a file: in the initramfs, or named on the agent's command line. Whoever built the initramfs
//! vouches for its file, and the operator for a named file. Other sources read their files with the functions here, and
//! say who vouches. Never reads more bytes than the caller allows, plus one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Found, Origin, SourceError};
use crate::medium::Medium;
use crate::payload::{Form, MAX_LEN};
use crate::secret::Secret;
use crate::shown::Printable;

/// Where the payload is in the initramfs.
pub const PATH: &str = "imprint/payload";

/// Whether anything exists at [`PATH`]. If it cannot be read, it is broken, not absent.
pub fn is_present(root: &Path) -> bool {
    match root.join(PATH).symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

/// The payload in the initramfs.
pub fn initramfs(root: &Path) -> Result<Found, SourceError> {
    let path = root.join(PATH);
    // Reading anything but a regular file, such as a FIFO or /dev/zero, might block or never end.
    let is_file = path
        .metadata()
        .and_then(|meta| if meta.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) });
    is_file.map_err(|source| SourceError::Read { path: path.clone(), source })?;
    let bytes = read(&path)?;
    let origin = Origin::Medium { medium: Medium::Initramfs, place: Printable::path(&path) };
    Ok(Found { origin, bytes, cut: false, fresh: None })
}

/// A payload from a file that was named on the agent's command line.
pub fn named(path: &Path) -> Result<Found, SourceError> {
    Ok(Found { origin: Origin::File(path.to_owned()), bytes: read(path)?, cut: false, fresh: None })
}

/// The content of a file that may contain a payload.
pub(super) fn read(path: &Path) -> Result<Secret, SourceError> {
    read_at_most(path, MAX_LEN)
}

/// The content of a file that may have at most this many bytes.
pub(super) fn read_at_most(path: &Path, most: usize) -> Result<Secret, SourceError> {
    let file = File::open(path).map_err(|source| SourceError::Read { path: path.to_owned(), source })?;
    read_from(file, path, most)
}

/// The content of an open file that may have at most this many bytes. `path` is for errors.
pub(super) fn read_from(file: File, path: &Path, most: usize) -> Result<Secret, SourceError> {
    let failed = |source| SourceError::Read { path: path.to_owned(), source };
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    // The buffer has room for all bytes that `take` allows: a buffer that grows would leave a copy of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most.saturating_add(1)));
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    let bytes = Secret::new(std::mem::take(&mut *bytes));
    if bytes.expose().len() <= most {
        return Ok(bytes);
    }
    Err(SourceError::TooLong(path.to_owned(), Form::of_beginning(bytes.expose())))
}
