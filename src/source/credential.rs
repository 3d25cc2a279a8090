//! Credentials named `imprint.payload` and `imprint.site`, as systemd hands them out, and where systemd takes them from:
//! firmware tables, QEMU's fw_cfg device and the kernel command line. Each is vouched for by whoever put it there: the
//! hypervisor, the firmware, the boot loader, or the author of a unit. So a credential `imprint.site` can only narrow the
//! site pin of the image. Opens no device and decodes no payload.

pub mod content;
pub mod fw_cfg;
pub mod pin;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Found, Origin, SourceError, agreed, file};
use crate::medium::Medium;
use crate::options::{CredentialName, SetCredential};
use crate::secret::Secret;
use crate::smbios;
use content::{CredentialError, MAX_TEXT};

/// The name of the credential that is a payload.
pub const NAME: &str = CredentialName::Payload.as_str();

/// The folders of systemd, and what stands behind the name of a credential there: docs/CREDENTIALS.md and systemd-stub(7) of
/// systemd.
const FOLDERS: [(Medium, &str, &str); 4] = [
    (Medium::SystemCredential, "run/credentials/@system", ""),
    (Medium::BootCredential, ".extra/credentials", ".cred"),
    (Medium::BootCredential, ".extra/global_credentials", ".cred"),
    // Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg: the file `raw` is the content.
    (Medium::FwCfg, "sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials", "/raw"),
];
/// The table of the firmware, which only root can read.
const TABLE: &str = "sys/firmware/dmi/tables/DMI";
/// How much of the table is read. What real firmware has is a few KiB.
const TABLE_MAX: u64 = 16 << 20;

/// A credential as it was given.
struct Given {
    origin: Origin,
    bytes: Secret,
    /// The bytes are base64 of the credential.
    encoded: bool,
    /// The end may be missing.
    cut: bool,
}

impl Given {
    fn of_file(medium: Medium, path: &Path, bytes: Secret) -> Given {
        // fw_cfg has one place for a name, and a long path for it.
        let place = if medium == Medium::FwCfg { String::new() } else { path.display().to_string() };
        let origin = Origin::Medium { medium, place };
        Given { origin, bytes, encoded: false, cut: false }
    }

    /// The credential itself.
    fn content(self) -> Result<Secret, CredentialError> {
        if self.encoded { content::base64(self.bytes.expose()) } else { Ok(self.bytes) }
    }
}

/// The payload, wherever it is. `unit`: `$CREDENTIALS_DIRECTORY`. `words`: those of the kernel command line.
pub fn find(root: &Path, unit: Option<&Path>, words: &[SetCredential]) -> Result<Option<Found>, SourceError> {
    let mut found: Vec<Found> = Vec::new();
    for given in everywhere(root, unit, words, CredentialName::Payload)? {
        let (origin, cut) = (given.origin.clone(), given.cut);
        let decrypted = found.iter().any(|found| is_of_unit(&found.origin));
        match given.content().and_then(content::payload) {
            Ok(bytes) => found.push(Found { origin, bytes, cut, fresh: None }),
            // This is the encrypted form of the credential that systemd decrypted for the unit.
            Err(CredentialError::NoPayload) if decrypted => {}
            Err(_) if cut => return Err(SourceError::CmdlineCut),
            Err(source) => return Err(broken(CredentialName::Payload, &origin, source)),
        }
    }
    agreed(found)
}

fn is_of_unit(origin: &Origin) -> bool {
    matches!(origin, Origin::Medium { medium: Medium::UnitCredential, .. })
}

fn broken(name: CredentialName, origin: &Origin, source: CredentialError) -> SourceError {
    SourceError::Credential { name: name.as_str(), place: origin.to_string(), source }
}

/// Every credential of this name. The one of the unit comes first.
fn everywhere(
    root: &Path,
    unit: Option<&Path>,
    words: &[SetCredential],
    name: CredentialName,
) -> Result<Vec<Given>, SourceError> {
    let mut places: Vec<(Medium, PathBuf)> = Vec::new();
    places.extend(unit.map(|folder| (Medium::UnitCredential, folder.join(name.as_str()))));
    let folders = FOLDERS.iter();
    places.extend(
        folders.map(|(medium, folder, end)| (*medium, root.join(folder).join(format!("{}{end}", name.as_str())))),
    );
    let mut found = Vec::new();
    for (medium, path) in places {
        match path.metadata() {
            Ok(meta) if meta.is_file() => {
                // One read of the whole: each read of fw_cfg begins at its first byte again.
                let bytes = file::read_at_most(&path, MAX_TEXT)?;
                found.push(Given::of_file(medium, &path, bytes));
            }
            // Anything else might block, or never end.
            Ok(_) => return Err(SourceError::Read { path, source: io::Error::other("no file") }),
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(SourceError::Read { path, source }),
        }
    }
    let origin = |medium| Origin::Medium { medium, place: String::new() };
    let table = table(root)?;
    for (encoded, text) in smbios::oem_strings(&table).filter_map(|string| string_of(string, name)) {
        let bytes = Secret::new(text.to_vec());
        found.push(Given { origin: origin(Medium::Smbios), bytes, encoded, cut: false });
    }
    for word in words.iter().filter(|word| word.name == name) {
        let (bytes, encoded, cut) = (word.text.clone(), word.encoded, word.cut);
        found.push(Given { origin: origin(Medium::CmdlineCredential), bytes, encoded, cut });
    }
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The table of the firmware; empty on a machine without one. Its strings may be secret. What is behind [`TABLE_MAX`] does
/// not count.
fn table(root: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let path = root.join(TABLE);
    let mut table = Zeroizing::new(Vec::new());
    let read = File::open(&path).and_then(|file| {
        // The buffer has its full size from the start: a buffer that grows would leave copies behind.
        let length = file.metadata()?.len().min(TABLE_MAX);
        table.reserve(usize::try_from(length).unwrap_or_default().saturating_add(1));
        file.take(TABLE_MAX).read_to_end(&mut table)
    });
    match read {
        Ok(_) => Ok(table),
        Err(error) if is_absent(&error) => Ok(table),
        Err(source) => Err(SourceError::Read { path, source }),
    }
}

/// The text of an SMBIOS string that is a credential of this name, and whether the text is base64 of it. The names of the
/// strings are systemd's: smbios(7) has no say, systemd.system-credentials(7) does.
fn string_of(string: &[u8], name: CredentialName) -> Option<(bool, &[u8])> {
    let rest = string.strip_prefix(b"io.systemd.credential")?;
    let (encoded, rest) = match rest.strip_prefix(b".binary:") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix(b":")?),
    };
    Some((encoded, rest.strip_prefix(name.as_str().as_bytes())?.strip_prefix(b"=")?))
}

#[cfg(test)]
mod tests;
