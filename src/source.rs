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
pub mod bundle_key;
mod key_file;
pub mod line;
pub mod medium;
pub mod volume;
pub mod iso9660;
pub mod fat;
pub mod fat_error;
pub mod marks;
pub mod partition;
pub mod swap_mark;
pub mod user_data;
pub mod udevd;
mod typed;
mod waiting;
mod decode;
mod error;
mod hint;

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::confidential::Confidential;
use crate::dialogue::{Dialogue, Told};
pub use crate::line::Fresh;
use crate::medium::{Looked, MEDIA, Medium, Readers, Word};
use crate::options::{Options, SourceName};
use crate::payload::{BundleKey, BundleTerms, Enrolment, InterfaceName, Payload, TokenMode};
use crate::secret::Secret;
use crate::shown::Printable;
use crate::time::{Deadline, since_boot};
use config_drive::Other;
pub use credential::content::CredentialError;
pub use decode::{Fits, Unusable, decode, judge};
pub use efivar::EfiVarError;
pub use error::{Said, SourceError};
pub use hint::awaited;
use hint::remedy;
use line::Heard;
pub use root_file::RootFileError;
pub(crate) use waiting::Waiting;

/// Where a payload came from, for the console, status.json and the User-Agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A medium: it holds a payload.
    Medium {
        /// The medium decides what the payload may carry.
        medium: Medium,
        /// Where on this machine: `sr0 (IMPRINT)`, `/imprint/payload`; empty where the medium says it all.
        place: Printable,
    },
    /// A line.
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

    /// Whether whoever runs the virtual machine can write it, and read what it holds. On a line that is so with a seal, too:
    /// whoever carries the line can put its own line key in place of the node's, and shows the console that the code of the
    /// key is compared on.
    pub fn is_of_hypervisor(&self) -> bool {
        match self {
            Origin::Medium { medium, .. } => medium.row().of_hypervisor,
            Origin::Line { .. } => true,
            Origin::File(_) => false,
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

    /// Of two origins, the greater one may carry less: it is open to every process of the node, it needs a site pin in a
    /// confidential machine, or its seed is never credited.
    fn strictness(&self) -> (bool, bool, bool) {
        match self {
            Origin::Medium { medium, .. } => {
                let row = medium.row();
                (row.readers == Readers::Everybody, row.of_hypervisor, !row.credits_seed)
            }
            Origin::Line { .. } | Origin::File(_) => Default::default(),
        }
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
    /// The search goes on for an administrator who has to admit this node.
    Admission(&'a str),
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
    /// Whether the image holds a site pin.
    pub pinned: bool,
    /// The folder `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<&'a Path>,
}

/// A medium that needs no waiting, its place in the order, and what it gave.
pub struct AtOnce {
    index: usize,
    found: Result<Found, SourceError>,
}

/// The first medium in the order that is present and needs no waiting. A medium that is present and cannot be read
/// counts as well.
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
    let order = &order(options, around.pinned)[..];
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
    // A medium that is there at once is not kept waiting for a host that only says that it waits.
    let waiting = dialogue.map(|dialogue| Waiting::new(dialogue, options, at_once.is_none()));
    if !wanted.is_empty() {
        let named = !options.sources.is_empty();
        let has_payload =
            || dialogue.is_some_and(|dialogue| heard.borrow_mut().catch_up(dialogue, &mut **notice.borrow_mut()));
        let until =
            |deadline| waiting.as_ref().map_or(deadline, |waiting| waiting.until(deadline, &mut **notice.borrow_mut()));
        let other = dialogue.map(|dialogue| Other { fd: dialogue.fd(), has_payload: &has_payload, until: &until });
        let (wanted, pinned, program) = (&wanted[..], around.pinned, around.reader);
        let search =
            config_drive::Search { wanted, named, pinned, insist, patience: config_drive::PATIENCE, program, other };
        let mut tell = |told: Notice<'_>| (notice.borrow_mut())(told);
        match config_drive::find(&search, around.root, deadline, &mut tell)? {
            Ok(found) => return Ok(Ok(found)),
            Err(drives) => looked.push(drives),
        }
    }
    if let Some(waiting) = &waiting {
        match line::find(waiting, options, insist, begun, deadline, heard.into_inner(), notice.into_inner())? {
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
    // The default order has the lines behind all media, with and without a pin.
    let first = order(options, true).iter().position(SourceName::is_line);
    present.is_some_and(|present| first.is_none_or(|first| present.index < first))
}

/// The sources to search, in order: those of `imprint.source=`, or the media that are looked at without being named, and then
/// lines.
fn order(options: &Options, pinned: bool) -> Vec<SourceName> {
    if !options.sources.is_empty() {
        return options.sources.clone();
    }
    let counts = |looked| match looked {
        Looked::Always => true,
        Looked::Pinned => pinned,
        Looked::Named => false,
    };
    let mut order: Vec<SourceName> = Vec::new();
    for row in MEDIA.iter().filter(|row| counts(row.looked)) {
        let source = of_word(row.word);
        if !order.contains(&source) {
            order.push(source);
        }
    }
    order.push(SourceName::Virtio);
    order
}

fn of_word(word: Word) -> SourceName {
    match word {
        Word::Cmdline => SourceName::Cmdline,
        Word::File => SourceName::File,
        Word::Credential => SourceName::Credential,
        Word::ConfigDrive => SourceName::ConfigDrive(None),
        Word::Partition => SourceName::Partition,
        Word::EfiVar => SourceName::EfiVar,
        Word::RootFile => SourceName::RootFile,
    }
}

/// The payload of media that have the same rank. If they hold the same bytes, the medium that may carry least counts, and of
/// several such media the first. Different payloads are an error: two media that differ. `found`: the payload of a medium.
fn agreed<T>(media: impl IntoIterator<Item = T>, found: impl Fn(&T) -> &Found) -> Result<Option<T>, (T, T)> {
    let mut least: Option<T> = None;
    for medium in media {
        match least.take() {
            Some(before) if found(&before).bytes != found(&medium).bytes => return Err((before, medium)),
            Some(before) if found(&medium).origin.strictness() <= found(&before).origin.strictness() => {
                least = Some(before)
            }
            _ => least = Some(medium),
        }
    }
    Ok(least)
}

/// The error for two places of one medium, or two media, that hold different payloads.
fn differ((first, second): (Found, Found)) -> SourceError {
    let [first, second] = [&first.origin, &second.origin].map(|origin| Printable::given(&origin.to_string()));
    SourceError::Differ { first, second }
}

/// Refuses a private key or an each-boot token from a source that others can read. Every user of the node can read
/// /proc/cmdline, and the logs of the node and of the boot server keep it (design §5). `machine`: what
/// [`crate::confidential::detect`] says. In a confidential virtual machine, whoever runs it reads what it supplies, and a site
/// pin does not change that.
pub fn permitted(origin: &Origin, payload: &Payload, machine: Option<Confidential>) -> Result<(), SourceError> {
    let Some(item) = lasting_secret(payload) else { return Ok(()) };
    if let Some(machine) = machine
        && origin.is_of_hypervisor()
    {
        return Err(SourceError::ReadByHypervisor { item, origin: origin.clone(), machine });
    }
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
    Err(SourceError::Forbidden { item, place })
}

/// What in a payload must stay secret after its first use. A `once` token need not.
fn lasting_secret(payload: &Payload) -> Option<&'static str> {
    if let Some(BundleTerms { key: BundleKey::Payload(_), .. }) = &payload.bundle {
        return Some("a bundle key");
    }
    match &payload.enrolment {
        Enrolment::Credentials(_) => Some("a private key"),
        Enrolment::Csr(csr) => match csr.token.as_ref().map(|token| token.mode) {
            Some(TokenMode::EachBoot) => Some("an each-boot token"),
            Some(TokenMode::Once) | None => None,
        },
    }
}

/// Refuses a payload in a confidential virtual machine, if the person who runs the machine can have written it. With a
/// site pin, the pin decides about the payload, as on any machine. `machine`: what [`crate::confidential::detect`]
/// says. `pinned`: whether the image holds a site pin.
pub fn admitted(origin: &Origin, pinned: bool, machine: Option<Confidential>) -> Result<(), SourceError> {
    match machine {
        Some(machine) if origin.is_of_hypervisor() && !pinned => {
            Err(SourceError::OfHypervisor { origin: origin.clone(), machine })
        }
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
            Origin::Medium { medium, place } => write!(f, "{} {place}", medium.row().kind),
            Origin::Line { name, sealed: true } => write!(f, "line {name}"),
            Origin::Line { name, sealed: false } => write!(f, "line {name} (not sealed)"),
            Origin::File(path) => write!(f, "file {}", Printable::path(path)),
        }
    }
}

#[cfg(test)]
mod tests;
