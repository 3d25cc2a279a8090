//! Finds the credentials `imprint.payload` and `imprint.site`: those that systemd hands out, and those in the places
//! where systemd takes credentials from (firmware tables, QEMU's fw_cfg device, the kernel command line). Whoever put a
//! credential there vouches for it: the hypervisor, the firmware, the boot loader, or the author of a unit. So a
//! credential `imprint.site` can only narrow the site pin of the image. Never opens a device and never decodes a
//! payload.

pub mod content;
pub mod fw_cfg;
pub mod pin;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Found, Origin, SourceError, agreed, differ, file};
use crate::medium::Medium;
use crate::options::{CredentialName, SetCredential};
use crate::secret::Secret;
use crate::shown::Printable;
use crate::smbios;
use content::{CredentialError, MAX_TEXT};

/// The name of the credential that is a payload.
pub const NAME: &str = CredentialName::Payload.as_str();

/// The folders of credentials, and what stands behind the name of a credential there (docs/CREDENTIALS.md and
/// systemd-stub(7) of systemd).
const FOLDERS: [(Medium, &str, &str); 4] = [
    (Medium::SystemCredential, "run/credentials/@system", ""),
    (Medium::BootCredential, ".extra/credentials", ".cred"),
    (Medium::BootCredential, ".extra/global_credentials", ".cred"),
    // The file `raw` has the content (Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg).
    (Medium::FwCfg, "sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials", "/raw"),
];
/// The table of the firmware. Only root can read it.
const TABLE: &str = "sys/firmware/dmi/tables/DMI";
/// The most bytes of the table that are read. Real firmware has a few KiB.
const TABLE_MAX: u64 = 16 << 20;

/// A credential as it was found.
struct Given {
    origin: Origin,
    bytes: Secret,
    /// Whether the bytes are base64 of the credential.
    encoded: bool,
    /// Whether the end may be missing.
    cut: bool,
}

impl Given {
    fn of_file(medium: Medium, path: &Path, bytes: Secret) -> Given {
        Given { origin: origin_of_file(medium, path), bytes, encoded: false, cut: false }
    }

    /// Decodes the credential.
    fn content(self) -> Result<Secret, CredentialError> {
        if self.encoded { content::base64(self.bytes.expose()) } else { Ok(self.bytes) }
    }
}

/// A credential, or why it cannot be read.
type Place = Result<Given, Unread>;

/// A place that cannot be read.
struct Unread {
    /// The credential there. `None`: nothing says that there is one.
    origin: Option<Origin>,
    source: SourceError,
}

/// Finds the payload in any of the places. `unit`: the folder `$CREDENTIALS_DIRECTORY`. `words`: the credentials on the
/// kernel command line.
pub fn find(root: &Path, unit: Option<&Path>, words: &[SetCredential]) -> Result<Option<Found>, SourceError> {
    let mut found: Vec<Found> = Vec::new();
    for given in everywhere(root, unit, words, CredentialName::Payload) {
        let given = given.map_err(|unread| unread.source)?;
        let (origin, cut) = (given.origin.clone(), given.cut);
        let decrypted = found.iter().any(|found| is_of_unit(&found.origin));
        match given.content().and_then(content::payload) {
            Ok(bytes) => found.push(Found { origin, bytes, cut, fresh: None }),
            // This is the encrypted form of the credential that systemd decrypted for the unit. Only systemd-stub puts such a
            // form where it is found here.
            Err(CredentialError::NoPayload) if decrypted && is_of_stub(&origin) => {}
            Err(_) if cut => return Err(SourceError::CmdlineCut),
            Err(source) => return Err(broken(CredentialName::Payload, &origin, source)),
        }
    }
    agreed(found, |found| found).map_err(differ)
}

fn is_of_unit(origin: &Origin) -> bool {
    matches!(origin, Origin::Medium { medium: Medium::UnitCredential, .. })
}

fn is_of_stub(origin: &Origin) -> bool {
    matches!(origin, Origin::Medium { medium: Medium::BootCredential, .. })
}

fn broken(name: CredentialName, origin: &Origin, source: CredentialError) -> SourceError {
    SourceError::Credential { name: name.as_str(), place: Printable::given(&origin.to_string()), source }
}

/// Every credential of this name. The one of the unit comes first.
fn everywhere(root: &Path, unit: Option<&Path>, words: &[SetCredential], name: CredentialName) -> Vec<Place> {
    let mut places: Vec<(Medium, PathBuf)> = Vec::new();
    places.extend(unit.map(|folder| (Medium::UnitCredential, folder.join(name.as_str()))));
    let folders = FOLDERS.iter();
    places.extend(
        folders.map(|(medium, folder, end)| (*medium, root.join(folder).join(format!("{}{end}", name.as_str())))),
    );
    let mut found = Vec::new();
    for (medium, path) in places {
        let given = match path.metadata() {
            Ok(meta) if meta.is_file() && medium == Medium::FwCfg && declared(&path) > MAX_TEXT => {
                Err(broken(name, &origin_of_file(medium, &path), CredentialError::Length))
            }
            Ok(meta) if meta.is_file() => file::read_at_most(&path, MAX_TEXT),
            // Anything else might block, or never end.
            Ok(_) => {
                Err(SourceError::Read { path: path.clone(), source: io::Error::other("it is not a regular file") })
            }
            Err(error) if is_absent(&error) => continue,
            Err(source) => Err(SourceError::Read { path: path.clone(), source }),
        };
        found.push(match given {
            Ok(bytes) => Ok(Given::of_file(medium, &path, bytes)),
            Err(source) => Err(Unread { origin: Some(origin_of_file(medium, &path)), source }),
        });
    }
    let origin = |medium, place| Origin::Medium { medium, place };
    match table(root) {
        // Numbers, so that two strings can be told apart. dmidecode shows the strings in this order.
        Ok(table) => found.extend(smbios::oem_strings(&table).zip(1u32..).filter_map(|(string, number)| {
            let (encoded, text) = string_of(string, name)?;
            let origin = origin(Medium::Smbios, Printable::of(&format!("string {number} of type 11")));
            Some(Ok(Given { origin, bytes: Secret::new(text.to_vec()), encoded, cut: false }))
        })),
        Err(source) => found.push(Err(Unread { origin: None, source })),
    }
    for (word, number) in words.iter().zip(1u32..).filter(|(word, _)| word.name == name) {
        let origin = origin(Medium::CmdlineCredential, Printable::of(&format!("word {number}")));
        found.push(Ok(Given { origin, bytes: word.text.clone(), encoded: word.encoded, cut: word.cut }));
    }
    found
}

fn origin_of_file(medium: Medium, path: &Path) -> Origin {
    // fw_cfg has one place for a name, and a long path for it.
    let place = if medium == Medium::FwCfg { Printable::default() } else { Printable::path(path) };
    Origin::Medium { medium, place }
}

/// Where the table of the firmware is broken, for a person. What is behind that place is not read.
pub fn fault(root: &Path) -> Option<String> {
    let at = smbios::broken_at(&table(root).ok()?)?;
    Some(format!("SMBIOS table is broken at byte {at}: what is behind that is not read"))
}

/// The length of a file of fw_cfg, which stands in the file `size` beside it. The kernel gives 4096 bytes a read at most
/// (fs/kernfs/file.c), and for each of them reads the device from the file's first byte on (drivers/firmware/qemu_fw_cfg.c,
/// fw_cfg_read_blob): what is too long is not read at all. 0: not known.
fn declared(raw: &Path) -> usize {
    let mut text = String::new();
    let read = File::open(raw.with_file_name("size")).and_then(|file| file.take(32).read_to_string(&mut text));
    // An error is ignored: what is read is bounded in any case.
    read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or_default()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Reads the table of the firmware. It is empty on a machine without one. Its strings may be secret. Bytes behind
/// [`TABLE_MAX`] do not count.
fn table(root: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let path = root.join(TABLE);
    let mut table = Zeroizing::new(Vec::new());
    let read = File::open(&path).and_then(|file| {
        // The buffer has its full size from the start: one that grows would leave copies behind.
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

/// The text of an SMBIOS string that brings a credential of this name, and whether the text is base64 of the credential
/// (systemd.system-credentials(7)).
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
