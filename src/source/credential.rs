//! Credentials named `imprint.payload`, as systemd hands them out. Each is vouched for by whoever gave it to systemd: the
//! hypervisor, the firmware, the boot loader or a unit. Opens no device and decodes no payload.

use std::io;
use std::path::{Path, PathBuf};

use super::{Found, Origin, SourceError, agreed, file};
use crate::medium::Medium;

/// The name of the credential.
pub const NAME: &str = "imprint.payload";

/// The folders of systemd, with the name of the credential in each: docs/CREDENTIALS.md and systemd-stub(7) of systemd.
const FOLDERS: [(Medium, &str, &str); 2] = [
    (Medium::SystemCredential, "run/credentials/@system", "imprint.payload"),
    (Medium::BootCredential, ".extra/credentials", "imprint.payload.cred"),
];

/// The credential, wherever it is. `unit`: `$CREDENTIALS_DIRECTORY`.
pub fn find(root: &Path, unit: Option<&Path>) -> Result<Option<Found>, SourceError> {
    let mut places: Vec<(Medium, PathBuf)> = Vec::new();
    places.extend(unit.map(|folder| (Medium::UnitCredential, folder.join(NAME))));
    places.extend(FOLDERS.iter().map(|(medium, folder, name)| (*medium, root.join(folder).join(name))));
    let mut found = Vec::new();
    for (medium, path) in places {
        match path.metadata() {
            Ok(meta) if meta.is_file() => {
                let bytes = file::read(&path)?;
                found.push(Found {
                    origin: Origin::Medium { medium, place: path.display().to_string() },
                    bytes,
                    cut: false,
                });
            }
            // Anything else might block, or never end.
            Ok(_) => return Err(SourceError::Read { path, source: io::Error::other("no file") }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(source) => return Err(SourceError::Read { path, source }),
        }
    }
    agreed(found)
}
