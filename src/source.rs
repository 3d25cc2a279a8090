//! Finding the payload: ordered sources, the first that is present wins, a broken one stops the boot. Bytes only;
//! nothing here knows what a payload says, but [`decode`], which refuses what its source may not bring.

pub mod cmdline;
pub mod file;
pub mod unpacked;
pub mod config_drive;
pub mod reader;
pub mod answer;
pub mod serial;
pub mod medium;
pub mod volume;
pub mod iso9660;
pub mod fat;
pub mod fat_error;
pub mod marks;
pub mod udevd;
mod typed;
mod hint;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::dialogue::{Dialogue, Told};
use crate::line::seal::SealError;
use crate::options::{CMDLINE_MAX, Options, SourceName};
use crate::payload::{DecodeError, Enrolment, Form, MAX_LEN, Payload, TokenMode};
use crate::port::PortError;
use crate::secret::Secret;
use crate::shown::Printable;
use crate::time::{Deadline, since_boot};
use config_drive::Other;
pub use hint::awaited;
use hint::remedy;
use serial::Heard;

/// Where a payload came from, for the console, status.json and the User-Agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// `imprint.payload=` on the kernel command line.
    Cmdline,
    /// A file in the initramfs.
    Initramfs(PathBuf),
    /// A volume on a whole disk or optical drive.
    ConfigDrive {
        /// Kernel name of the block device: `sr0`.
        device: String,
        /// Volume label as it stands on the medium.
        label: String,
        /// Named by `imprint.source=config-drive…`, so removable USB media are allowed.
        named: bool,
    },
    /// A serial line.
    Line {
        /// `ttyS0`
        name: String,
        /// It was sealed for this node, in a conversation that goes on.
        sealed: bool,
    },
    /// A file named on our own command line (`check`, `plan`, `enroll`).
    File(PathBuf),
}

impl Origin {
    /// The kind of source, without what names this machine: for the User-Agent.
    pub fn kind(&self) -> &'static str {
        match self {
            Origin::Cmdline => "cmdline",
            Origin::Initramfs(_) => "initramfs",
            Origin::ConfigDrive { .. } => "config-drive",
            Origin::Line { .. } => "line",
            Origin::File(_) => "file",
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
    /// The source knows that the end may be missing.
    pub cut: bool,
}

/// Why there are no bytes, where there should be some.
#[derive(Debug)]
pub enum SourceError {
    /// A file of the kernel, or one that was named, cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that was named is longer than a payload can be, and what it is, if that is known.
    TooLong(PathBuf, Option<Form>),
    /// `imprint.payload=` holds a payload in another form than base64url.
    Form(Form),
    /// What `imprint.payload=` says is no base64url.
    Base64 {
        /// How many characters there are.
        length: usize,
        /// The first that is none of its alphabet, from 1; `None`: the last one stands for half a byte.
        position: Option<usize>,
    },
    /// The command line is as long as the kernel lets one be, and the payload at its end is not whole.
    CmdlineCut,
    /// The payload holds what its source may not bring.
    Forbidden {
        /// `a private key`
        item: &'static str,
        /// Where it stands for everybody to read.
        place: &'static str,
    },
    /// Devices cannot be waited for.
    Watch(io::Error),
    /// A volume with our label, or the one that was named, cannot be read.
    Broken {
        /// Kernel name of the block device.
        device: String,
        /// Volume label.
        label: String,
        /// Why not.
        source: Said,
    },
    /// Two things claim the same medium, and one of them would be used.
    Claims {
        /// Kernel name of the block device.
        device: String,
        /// `an ISO 9660 volume "IMPRINT"`
        first: String,
        /// `a partition table (GPT)`
        second: String,
    },
    /// A volume with our label, or the one that was named, holds no payload.
    NoFile {
        /// Kernel name of the block device.
        device: String,
        /// Volume label.
        label: String,
    },
    /// Two media hold a payload.
    Several {
        /// Device and label of one.
        first: String,
        /// Device and label of the other.
        second: String,
    },
    /// A payload is required, and there is none.
    Nothing {
        /// What was looked at.
        looked: String,
        /// Where one could be brought, by what was asked for.
        remedy: String,
    },
    /// A serial line that was named cannot be used.
    Port(PortError),
    /// The random pool was not ready, so the node could not make the key that payloads on a line are sealed with.
    NoKey,
    /// That key could not be made.
    Key(SealError),
    /// `imprint console` without a terminal.
    NoTerminal,
    /// `/imprint/site` is no list of digests.
    SitePin {
        /// Line number, from 1.
        line: usize,
    },
    /// `/imprint/site` names no CA at all.
    EmptySitePin,
}

/// What a drive's reader said of a medium: a [`medium::VolumeError`] in words, as only bytes come from there.
#[derive(Debug)]
pub struct Said(pub Printable);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Said {}

/// What is said on the way.
pub enum Notice<'a> {
    /// A wait becomes a long one. What has been looked at.
    Waiting(&'a str),
    /// Something happened on a line.
    Line(&'a Told),
    /// A drive does not answer, or something else about drives that a person should know.
    Drive(&'a str),
    /// This drive has not answered when the search ended.
    Left(&'a str),
}

/// Finds the payload; where there is none and none was asked for, says what was looked at. `dialogue`: the lines, which
/// have been heard from the start, and whose payload is used when nothing before them in the order has one. `reader`: the
/// program that reads drives ([`reader::PROGRAM`]).
pub fn find(
    options: &Options,
    root: &Path,
    reader: &Path,
    pinned: bool,
    dialogue: Option<&Dialogue>,
    deadline: Deadline,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Result<Found, String>, SourceError> {
    let begun = since_boot();
    let order = order(options);
    // What is there at once, or never. Drives and lines before it are looked at first, but not waited for; those behind
    // it, not at all.
    let present = order.iter().position(|source| match source {
        SourceName::Cmdline => options.payload.is_some(),
        SourceName::File => file::is_present(root),
        SourceName::ConfigDrive(_) | SourceName::Virtio | SourceName::Serial { .. } => false,
    });
    let (before, at_once) = order.split_at(present.unwrap_or(order.len()));
    let insist = options.insists() && at_once.is_empty();
    let mut labels = Vec::new();
    let mut looked = Vec::new();
    let mut lines = false;
    for source in before {
        match source {
            SourceName::Cmdline => looked.push("nothing on the command line".to_owned()),
            SourceName::File => looked.push(format!("no file /{}", file::PATH)),
            SourceName::ConfigDrive(label) => labels.push(label.as_deref()),
            SourceName::Virtio | SourceName::Serial { .. } => lines = true,
        }
    }
    let dialogue = dialogue.filter(|_| lines || options.sources.is_empty());
    let (heard, notice) = (RefCell::new(Heard::default()), RefCell::new(notice));
    if !labels.is_empty() {
        let named = !options.sources.is_empty();
        let labels = if named { labels.as_slice() } else { &[] };
        let has_payload =
            || dialogue.is_some_and(|dialogue| heard.borrow_mut().catch_up(dialogue, &mut **notice.borrow_mut()));
        let other = dialogue.map(|dialogue| Other { fd: dialogue.fd(), has_payload: &has_payload });
        let patience = config_drive::PATIENCE;
        let search = config_drive::Search { labels, pinned, insist, patience, program: reader, other };
        let mut tell = |told: Notice<'_>| (notice.borrow_mut())(told);
        match config_drive::find(&search, root, deadline, &mut tell)? {
            Ok(found) => return Ok(Ok(found)),
            Err(drives) => looked.push(drives),
        }
    }
    if let Some(dialogue) = dialogue {
        match serial::find(dialogue, insist, begun, deadline, heard.into_inner(), notice.into_inner())? {
            Ok(found) => return Ok(Ok(found)),
            Err(lines) => looked.push(lines),
        }
    } else if lines && looked.is_empty() {
        looked.push("no serial line".to_owned());
    }
    if at_once.is_empty() && before.contains(&SourceName::File) {
        looked.extend(unpacked::fault(root));
    }
    match (at_once.first(), &options.payload) {
        (Some(SourceName::Cmdline), Some(payload)) => cmdline::find(payload).map(Ok),
        (Some(SourceName::File), _) => file::initramfs(root).map(Ok),
        _ if options.insists() => Err(SourceError::Nothing { looked: looked.join("; "), remedy: remedy(options) }),
        _ => Ok(Err(looked.join("; "))),
    }
}

/// Whether there is no use in listening: what comes before every line in the order is there.
fn needs_no_line(options: &Options, root: &Path) -> bool {
    let before =
        order(options).iter().take_while(|source| !matches!(source, SourceName::Virtio | SourceName::Serial { .. }));
    let mut before = before.map(|source| match source {
        SourceName::Cmdline => options.payload.is_some(),
        SourceName::File => file::is_present(root),
        _ => false,
    });
    before.any(|present| present)
}

/// Where to look, in order.
fn order(options: &Options) -> &[SourceName] {
    const DEFAULT: [SourceName; 4] =
        [SourceName::Cmdline, SourceName::File, SourceName::ConfigDrive(None), SourceName::Virtio];
    if options.sources.is_empty() { &DEFAULT } else { &options.sources }
}

/// Why what was found is of no use.
#[derive(Debug)]
pub enum Unusable {
    /// Its source may not bring it, or cut it short.
    Source(SourceError),
    /// It is no payload.
    Payload(DecodeError),
}

impl From<SourceError> for Unusable {
    fn from(error: SourceError) -> Unusable {
        Unusable::Source(error)
    }
}

impl From<DecodeError> for Unusable {
    fn from(error: DecodeError) -> Unusable {
        Unusable::Payload(error)
    }
}

/// What was found, decoded, and nothing in it that its source may not bring.
pub fn decode(found: &Found) -> Result<Payload, Unusable> {
    let payload = match Payload::decode(found.bytes.expose()) {
        Err(_) if found.cut => return Err(SourceError::CmdlineCut.into()),
        decoded => decoded?,
    };
    permitted(&found.origin, &payload)?;
    Ok(payload)
}

/// A private key or a token that stays good is refused where everybody can read it: /proc/cmdline is open to every user
/// of the node, and its boot log and that of the boot server keep it (design §5).
pub fn permitted(origin: &Origin, payload: &Payload) -> Result<(), SourceError> {
    let place = match origin {
        Origin::Cmdline => "on the kernel command line, which everybody on the node can read,",
        // Console servers keep what they carry.
        Origin::Line { sealed: false, .. } => "on a serial line, where it is not sealed and may be logged,",
        Origin::Line { sealed: true, .. } | Origin::Initramfs(_) | Origin::ConfigDrive { .. } | Origin::File(_) => {
            return Ok(());
        }
    };
    match &payload.enrolment {
        Enrolment::Credentials(_) => Err(SourceError::Forbidden { item: "a private key", place }),
        Enrolment::Csr(csr) => match csr.token.as_ref().map(|token| token.mode) {
            Some(TokenMode::EachBoot) => Err(SourceError::Forbidden { item: "an each-boot token", place }),
            Some(TokenMode::Once) | None => Ok(()),
        },
    }
}

/// Reads a small file under `root`; bytes that are no UTF-8 become replacement characters.
pub fn text(root: &Path, path: &str) -> Result<String, SourceError> {
    let path = root.join(path);
    let bytes = std::fs::read(&path).map_err(|source| SourceError::Read { path, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Cmdline => f.write_str("cmdline"),
            Origin::Initramfs(path) => write!(f, "initramfs {}", Printable::path(path)),
            Origin::ConfigDrive { device, label, .. } => write!(f, "config-drive {device} ({label})"),
            Origin::Line { name, sealed: true } => write!(f, "line {name}"),
            Origin::Line { name, sealed: false } => write!(f, "line {name} (not sealed)"),
            Origin::File(path) => write!(f, "file {}", Printable::path(path)),
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Read { path, .. } => write!(f, "reading {}", path.display()),
            SourceError::TooLong(path, form) => {
                write!(f, "{} has more than {MAX_LEN} bytes, the most that a payload can have; ", path.display())?;
                match form {
                    Some(form) => write!(f, "it is {form}, or take what --as cbor writes"),
                    None => f.write_str("give the payload itself, in CBOR"),
                }
            }
            SourceError::Form(form) => write!(
                f,
                "imprint.payload= on the kernel command line holds no base64url but {form}, or take what --as cmdline \
                 writes"
            ),
            SourceError::Base64 { length, position: Some(position) } => write!(
                f,
                "imprint.payload= on the kernel command line is no base64url: character {position} of {length} is none \
                 of A-Z a-z 0-9 - _; give it as imprint-host payload NODE --as cmdline prints it"
            ),
            SourceError::Base64 { length, position: None } => write!(
                f,
                "imprint.payload= on the kernel command line is no base64url: its {length} characters end within a \
                 byte, so some are missing; copy it again"
            ),
            SourceError::CmdlineCut => write!(
                f,
                "the kernel command line is full with {CMDLINE_MAX} bytes, and the end of imprint.payload= is missing; \
                 remove other words, or bring the payload in the initramfs or on a config drive (imprint-host payload \
                 NODE --as cpio or --as iso)"
            ),
            SourceError::Forbidden { item, place } => write!(
                f,
                "the payload {place} holds {item}; bring it in the initramfs or on a config drive (imprint-host payload \
                 NODE --as cpio or --as iso)"
            ),
            SourceError::Watch(_) => write!(f, "waiting for devices (uevent socket)"),
            SourceError::Port(error) => error.fmt(f),
            SourceError::NoKey => write!(
                f,
                "the kernel's random pool was not ready, so there is no key for a sealed payload; give the machine a \
                 virtio-rng device"
            ),
            SourceError::Key(error) => error.fmt(f),
            SourceError::NoTerminal => {
                write!(f, "standard input is no terminal; run imprint console by hand, on the console of the node")
            }
            SourceError::Broken { device, label, .. } => write!(f, "volume \"{label}\" on {device}"),
            SourceError::Claims { device, first, second } => write!(
                f,
                "{device} has {first} and {second}, one of which is left of an older use; save what is of use, clear the \
                 drive with wipefs -a /dev/{device}, and write the config drive again"
            ),
            SourceError::NoFile { device, label } => write!(
                f,
                "volume \"{label}\" on {device} has no file imprint/payload; write it with imprint-host payload NODE \
                 --as iso"
            ),
            SourceError::Several { first, second } => write!(
                f,
                "two payloads: on {first} and on {second}; remove one, or give them different labels and name one with \
                 imprint.source=config-drive:LABEL"
            ),
            SourceError::Nothing { looked, remedy } => write!(f, "no payload found ({looked}); {remedy}"),
            SourceError::SitePin { line } => {
                write!(f, "/imprint/site line {line}: want the SHA-256 of a CA certificate, 64 hexadecimal digits")
            }
            SourceError::EmptySitePin => {
                write!(f, "/imprint/site names no CA, so no payload can be accepted; list one, or leave the file out")
            }
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SourceError::Read { source, .. } | SourceError::Watch(source) => Some(source),
            SourceError::Broken { source, .. } => Some(source),
            SourceError::Port(error) => error.source(),
            SourceError::Key(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
