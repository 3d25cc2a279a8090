//! The payload in a file of the real root, where whoever deployed the image wrote it. Whoever can write to /etc vouches for it.
//! Decodes no payload.

use std::io;
use std::path::Path;

use super::{Found, Origin, SourceError, file};
use crate::medium::Medium;

/// Where it is.
pub const PATH: &str = "etc/imprint/payload";

/// The file.
pub fn find(root: &Path) -> Result<Option<Found>, SourceError> {
    let path = root.join(PATH);
    match path.symlink_metadata() {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(SourceError::Read { path, source: io::Error::other("no regular file") }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(SourceError::Read { path, source }),
    }
    let bytes = file::read(&path)?;
    let origin = Origin::Medium { medium: Medium::RootFile, place: path.display().to_string() };
    Ok(Some(Found { origin, bytes, cut: false }))
}
