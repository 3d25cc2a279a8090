//! Finds the payload. The sources have an order: the first source that has a payload is used, and a broken source
//! before it stops the boot. Only [`decode`] reads the payload: it refuses items that its source may not carry. Nothing
//! here ever acts on a payload.

pub mod cmdline;
pub mod file;
pub mod credential;
pub mod efivar;
pub mod root_file;
pub mod unpacked;
pub mod config_drive;
pub mod reader;
pub mod answer;
pub mod admission_key;
pub mod serial;
pub mod medium;
pub mod volume;
pub mod iso9660;
pub mod fat;
pub mod fat_error;
pub mod marks;
pub mod partition;
pub mod user_data;
pub mod udevd;
mod typed;
mod decode;
mod error;
mod hint;

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::confidential::Confidential;
use crate::dialogue::{Dialogue, Told};
pub use crate::line::Fresh;
use crate::medium::{Medium, Readers};
use crate::options::{Options, SourceName};
use crate::payload::{Enrolment, InterfaceName, Payload, TokenMode};
use crate::secret::Secret;
use crate::shown::Printable;
use crate::time::{Deadline, since_boot};
use config_drive::Other;
pub use credential::content::CredentialError;
pub use decode::{Unusable, decode, judge};
pub use efivar::EfiVarError;
pub use error::{Said, SourceError};
pub use hint::awaited;
use hint::remedy;
pub use root_file::RootFileError;
use serial::Heard;

/// Where a payload came from, for the console, status.json and the User-Agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Something that holds a payload.
    Medium {
        /// What it is, and with that what it may carry.
        medium: Medium,
        /// Where on this machine: `sr0 (IMPRINT)`, `/imprint/payload`; empty where the medium says it all.
        place: String,
    },
    /// A serial line.
    Line {
        /// `ttyS0`
        name: String,
        /// The payload was sealed for the line key of this run.
        sealed: bool,
    },
    /// A file that was named on the agent's command line (`check`, `plan`, `enroll`).
    File(PathBuf),
}

impl Origin {
    /// The kind of source, without names that identify this machine: for the User-Agent.
    pub fn kind(&self) -> &'static str {
        match self {
            Origin::Medium { medium, .. } => medium.row().kind,
            Origin::Line { .. } => "line",
            Origin::File(_) => "file",
        }
    }

    /// Whether it is a line that the node called at over a network, and needs its links.
    pub fn is_called(&self) -> bool {
        matches!(self, Origin::Line { name, .. } if name.starts_with("tcp:") || name.starts_with("ether:"))
    }

    /// The link whose Ethernet frames it came in.
    pub fn link(&self) -> Option<InterfaceName> {
        let Origin::Line { name, .. } = self else { return None };
        let link = name.strip_prefix("ether:")?.split(' ').next()?;
        InterfaceName::try_from(link).ok()
    }

    /// Whether every process of the node can read what it holds.
    fn is_open(&self) -> bool {
        matches!(self, Origin::Medium { medium, .. } if medium.row().readers == Readers::Everybody)
    }
}

/// A payload, not yet decoded.
#[derive(Debug)]
pub struct Found {
    /// Where it came from.
    pub origin: Origin,
    /// At most `payload::MAX_LEN` bytes.
    pub bytes: Secret,
    /// The end of the bytes may be missing: the kernel command line was full.
    pub cut: bool,
    /// It came on a line, and has to be signed for this node and this challenge.
    pub fresh: Option<Fresh>,
}

/// A message for the console during the search.
pub enum Notice<'a> {
    /// The search waits for a payload that must come. The sources that were searched so far.
    Waiting(&'a str),
    /// Something happened on a line.
    Line(&'a Told),
    /// A drive does not answer, or another message about drives.
    Drive(&'a str),
    /// This drive had not answered when the search ended.
    Left(&'a str),
}

/// Where the media are, and what decides which of them count.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The root that all files of the kernel and of the image are under.
    pub root: &'a Path,
    /// The program that reads drives ([`reader::PROGRAM`]).
    pub reader: &'a Path,
    /// The image holds a site pin.
    pub pinned: bool,
    /// `$CREDENTIALS_DIRECTORY`
    pub credentials: Option<&'a Path>,
}

/// A medium that needs no waiting, its place in the order, and what it gave.
pub struct AtOnce {
    index: usize,
    found: Result<Found, SourceError>,
}

/// The first medium in the order that is present and needs no waiting. A medium that is present and cannot be read counts.
pub fn at_once(options: &Options, around: &Surroundings<'_>) -> Option<AtOnce> {
    let root = around.root;
    order(options, around.pinned).iter().enumerate().find_map(|(index, source)| {
        let found = match source {
            SourceName::Cmdline => options.payload.as_ref().map(cmdline::find),
            SourceName::File => file::is_present(root).then(|| file::initramfs(root)),
            SourceName::Credential => credential::find(root, around.credentials, &options.credentials).transpose(),
            SourceName::EfiVar => efivar::find(root).transpose(),
            SourceName::RootFile => root_file::find(root).transpose(),
            SourceName::ConfigDrive(_) | SourceName::Partition => None,
            SourceName::Virtio
            | SourceName::Serial { .. }
            | SourceName::Tcp { .. }
            | SourceName::Door
            | SourceName::Vsock(_)
            | SourceName::Ether(_) => None,
        };
        found.map(|found| AtOnce { index, found })
    })
}

/// Finds the payload. If there is no payload and none is required, returns the sources that were searched, as a text.
/// `at_once`: the medium that [`at_once`] found. `dialogue`: the lines. The dialogue has listened to them from the start; a
/// payload from a line is used when no medium before the lines has one.
pub fn find(
    options: &Options,
    around: &Surroundings<'_>,
    at_once: Option<AtOnce>,
    dialogue: Option<&Dialogue>,
    deadline: Deadline,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Result<Found, String>, SourceError> {
    let begun = since_boot();
    let order = order(options, around.pinned);
    // Drives and lines before the medium that is there at once are searched without a long wait; sources after it are not
    // searched.
    let before = at_once.as_ref().and_then(|present| order.get(..present.index)).unwrap_or(order);
    let insist = options.insists() && at_once.is_none();
    let mut wanted = Vec::new();
    let mut looked = Vec::new();
    let mut lines = false;
    for source in before {
        match source {
            SourceName::Cmdline => looked.push("nothing on the command line".to_owned()),
            SourceName::File => looked.push(format!("no file /{}", file::PATH)),
            SourceName::Credential => {
                looked.push(format!("no credential {}", credential::NAME));
                if credential::fw_cfg::unread(around.root) {
                    looked.push("QEMU's fw_cfg cannot be read without the module qemu_fw_cfg".to_owned());
                }
            }
            SourceName::EfiVar => looked.push(format!("no EFI variable {}", efivar::NAME)),
            SourceName::RootFile => looked.push(format!("no file /{}", root_file::PATH)),
            SourceName::ConfigDrive(label) => wanted.push(config_drive::Wanted::Label(label.as_deref())),
            SourceName::Partition => wanted.push(config_drive::Wanted::Partition),
            SourceName::Virtio
            | SourceName::Serial { .. }
            | SourceName::Tcp { .. }
            | SourceName::Door
            | SourceName::Vsock(_)
            | SourceName::Ether(_) => lines = true,
        }
    }
    let dialogue = dialogue.filter(|_| lines || options.sources.is_empty());
    let (heard, notice) = (RefCell::new(Heard::default()), RefCell::new(notice));
    if !wanted.is_empty() {
        let named = !options.sources.is_empty();
        let has_payload =
            || dialogue.is_some_and(|dialogue| heard.borrow_mut().catch_up(dialogue, &mut **notice.borrow_mut()));
        let other = dialogue.map(|dialogue| Other { fd: dialogue.fd(), has_payload: &has_payload });
        let (wanted, pinned, program) = (&wanted[..], around.pinned, around.reader);
        let search =
            config_drive::Search { wanted, named, pinned, insist, patience: config_drive::PATIENCE, program, other };
        let mut tell = |told: Notice<'_>| (notice.borrow_mut())(told);
        match config_drive::find(&search, around.root, deadline, &mut tell)? {
            Ok(found) => return Ok(Ok(found)),
            Err(drives) => looked.push(drives),
        }
    }
    if let Some(dialogue) = dialogue {
        match serial::find(dialogue, options, insist, begun, deadline, heard.into_inner(), notice.into_inner())? {
            Ok(found) => return Ok(Ok(found)),
            Err(lines) => looked.push(lines),
        }
    } else if lines && looked.is_empty() {
        looked.push("no serial line".to_owned());
    }
    if at_once.is_none() && before.contains(&SourceName::File) {
        looked.extend(unpacked::fault(around.root));
    }
    match at_once {
        Some(present) => present.found.map(Ok),
        None if options.insists() => Err(SourceError::Nothing { looked: looked.join("; "), remedy: remedy(options) }),
        None => Ok(Err(looked.join("; "))),
    }
}

/// Whether listening is useless: a medium before every line in the order is present.
fn needs_no_line(options: &Options, present: Option<&AtOnce>) -> bool {
    // Where a line stands in the default order does not depend on the pin: behind all media.
    let first = order(options, true).iter().position(SourceName::is_line);
    present.is_some_and(|present| first.is_none_or(|first| present.index < first))
}

/// The sources to search, in order. Partitions are searched in an image with a site pin, or when they are named.
fn order(options: &Options, pinned: bool) -> &[SourceName] {
    const PINNED: [SourceName; 6] = [
        SourceName::Cmdline,
        SourceName::File,
        SourceName::Credential,
        SourceName::ConfigDrive(None),
        SourceName::Partition,
        SourceName::Virtio,
    ];
    const DEFAULT: [SourceName; 5] = [
        SourceName::Cmdline,
        SourceName::File,
        SourceName::Credential,
        SourceName::ConfigDrive(None),
        SourceName::Virtio,
    ];
    match (options.sources.is_empty(), pinned) {
        (false, _) => &options.sources,
        (true, true) => &PINNED,
        (true, false) => &DEFAULT,
    }
}

/// The payload of media that have the same rank. Different payloads are an error. If several media hold the same bytes, the
/// one that every process can read counts, because its rules are the strictest.
fn agreed(found: Vec<Found>) -> Result<Option<Found>, SourceError> {
    let mut found = found.into_iter();
    let Some(mut first) = found.next() else { return Ok(None) };
    for other in found {
        if other.bytes != first.bytes {
            let (first, second) = (first.origin.to_string(), other.origin.to_string());
            return Err(SourceError::Differ { first, second });
        }
        if other.origin.is_open() {
            first = other;
        }
    }
    Ok(Some(first))
}

/// Refuses a private key or an each-boot token from a source that others can read. Every user of the node can read
/// /proc/cmdline, and the logs of the node and of the boot server keep it (design §5).
pub fn permitted(origin: &Origin, payload: &Payload) -> Result<(), SourceError> {
    let place = match origin {
        Origin::Medium { medium: Medium::Cmdline | Medium::CmdlineCredential, .. } => {
            "on the kernel command line, which everybody on the node can read,"
        }
        Origin::Medium { medium: Medium::EfiVariable, .. } => {
            "in an EFI variable, which everybody on the node can read,"
        }
        Origin::Medium { medium, .. } if medium.row().readers == Readers::Everybody => {
            "in user data or vendor data, which the metadata service of a cloud gives to everybody on the node,"
        }
        // Console servers log the bytes of a serial line.
        Origin::Line { sealed: false, .. } => "on a serial line, where it is not sealed and may be logged,",
        Origin::Line { sealed: true, .. } | Origin::Medium { .. } | Origin::File(_) => return Ok(()),
    };
    match &payload.enrolment {
        Enrolment::Credentials(_) => Err(SourceError::Forbidden { item: "a private key", place }),
        Enrolment::Csr(csr) => match csr.token.as_ref().map(|token| token.mode) {
            Some(TokenMode::EachBoot) => Err(SourceError::Forbidden { item: "an each-boot token", place }),
            Some(TokenMode::Once) | None => Ok(()),
        },
    }
}

/// Refuses, in a confidential virtual machine, a payload that whoever runs the machine can have written. With a site pin the
/// payload is judged by that, as everywhere. `machine`: what [`crate::confidential::detect`] says. `pinned`: the image holds a
/// site pin.
pub fn admitted(origin: &Origin, pinned: bool, machine: Option<Confidential>) -> Result<(), SourceError> {
    let of_hypervisor = match origin {
        Origin::Medium { medium, .. } => medium.row().of_hypervisor,
        Origin::Line { .. } => true,
        Origin::File(_) => false,
    };
    match machine {
        Some(machine) if of_hypervisor && !pinned => Err(SourceError::OfHypervisor { origin: origin.clone(), machine }),
        _ => Ok(()),
    }
}

/// Reads a small file under `root`. Bytes that are not UTF-8 become replacement characters.
pub fn text(root: &Path, path: &str) -> Result<String, SourceError> {
    let path = root.join(path);
    let bytes = std::fs::read(&path).map_err(|source| SourceError::Read { path, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Medium { medium, place } if place.is_empty() => f.write_str(medium.row().kind),
            Origin::Medium { medium, place } => write!(f, "{} {}", medium.row().kind, Printable::of(place)),
            Origin::Line { name, sealed: true } => write!(f, "line {name}"),
            Origin::Line { name, sealed: false } => write!(f, "line {name} (not sealed)"),
            Origin::File(path) => write!(f, "file {}", Printable::path(path)),
        }
    }
}

#[cfg(test)]
mod tests;
