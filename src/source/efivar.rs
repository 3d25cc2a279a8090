//! The payload in an EFI variable of our own vendor GUID. Root of every system that ever ran on this machine can have written
//! it, so it is read only where it was named. Decodes no payload.

use std::io;
use std::path::Path;

use super::{Found, Origin, SourceError, file};
use crate::medium::{EFI_VARIABLE, Medium};
use crate::secret::Secret;

/// The variable, as efivarfs names its file.
pub const NAME: &str = EFI_VARIABLE;
/// Where efivarfs is mounted.
const FOLDER: &str = "sys/firmware/efi/efivars";

/// The variable. efivarfs puts four bytes of attributes in front of its value (Documentation/filesystems/efivarfs.rst).
pub fn find(root: &Path) -> Result<Option<Found>, SourceError> {
    let path = root.join(FOLDER).join(NAME);
    match path.symlink_metadata() {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(SourceError::Read { path, source }),
    }
    let bytes = file::read(&path)?;
    let value = bytes.expose().get(4..).unwrap_or_default().to_vec();
    let origin = Origin::Medium { medium: Medium::EfiVariable, place: NAME.to_owned() };
    Ok(Some(Found { origin, bytes: Secret::new(value), cut: false }))
}
