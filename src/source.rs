//! Finds the payload. The sources have an order: the first source that has a payload is used, and a broken source
//! before it stops the boot. Only [`decode`] reads the payload: it refuses items that its source may not carry. Nothing
//! here ever acts on a payload.

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
        label: Printable,
        /// `imprint.source=config-drive…` named it, so USB media are allowed.
        named: bool,
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
    /// The end of the bytes may be missing: the kernel command line was full.
    pub cut: bool,
}

/// Why a source gave no payload.
#[derive(Debug)]
pub enum SourceError {
    /// A file of the kernel, the initramfs or the operator cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The file is longer than a payload can be; its form, if the form is known.
    TooLong(PathBuf, Option<Form>),
    /// `imprint.payload=` contains another form than a payload in base64url.
    Form(Form),
    /// The value of `imprint.payload=` is not base64url.
    Base64 {
        /// The number of characters.
        length: usize,
        /// Position, from 1, of the first character outside the alphabet. `None`: all characters are valid, but their
        /// number is not.
        position: Option<usize>,
    },
    /// The kernel command line has its greatest length, and the payload at its end is not complete.
    CmdlineCut,
    /// The payload contains an item that its source may not carry.
    Forbidden {
        /// `a private key`
        item: &'static str,
        /// The place where others can read the item.
        place: &'static str,
    },
    /// The agent cannot wait for devices.
    Watch(io::Error),
    /// A volume with the label IMPRINT or a label that the operator named cannot be read.
    Broken {
        /// Kernel name of the block device.
        device: String,
        /// Volume label.
        label: Printable,
        /// The error of the process that read the drive.
        source: Said,
    },
    /// The medium has a volume that would be used, and a second volume, file system or partition table beside it.
    Claims {
        /// Kernel name of the block device.
        device: String,
        /// `an ISO 9660 volume "IMPRINT"`
        first: Printable,
        /// `a partition table (GPT)`
        second: Printable,
    },
    /// A volume with the label IMPRINT or a label that the operator named has no payload.
    NoFile {
        /// Kernel name of the block device.
        device: String,
        /// Volume label.
        label: Printable,
    },
    /// Two media have a payload.
    Several {
        /// Device and label of one.
        first: String,
        /// Device and label of the other.
        second: String,
    },
    /// A payload is required, and no source has one.
    Nothing {
        /// The sources that were searched, and the result of each.
        looked: String,
        /// Where the operator can bring a payload, according to the options.
        remedy: String,
    },
    /// A serial line that was named cannot be used.
    Port(PortError),
    /// The random pool was not ready, so the node could not make its line key. Payloads on a line are sealed for that
    /// key.
    NoKey,
    /// Making the line key failed.
    Key(SealError),
    /// Standard input of `imprint console` is not a terminal.
    NoTerminal,
    /// A line of `/imprint/site` is not a digest.
    SitePin {
        /// Line number, from 1.
        line: usize,
    },
    /// `/imprint/site` names no CA.
    EmptySitePin,
}

/// The error message of a drive's reader. It was a [`medium::VolumeError`] there; the pipe carries only its text.
#[derive(Debug)]
pub struct Said(pub Printable);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Said {}

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

/// Finds the payload. If there is no payload and none is required, returns the sources that were searched, as a text.
/// `dialogue`: the lines. The dialogue has listened to them from the start; a payload from a line is used when no
/// source before the lines has one. `reader`: the program that reads drives ([`reader::PROGRAM`]).
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
    // The first source that is present now. The command line and the initramfs do not change, so the answer is final.
    // Drives and lines before this source are searched for a limited time; sources after it are not searched.
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

/// Whether listening is useless: a source before every line in the order is present.
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

/// The sources to search, in order.
fn order(options: &Options) -> &[SourceName] {
    const DEFAULT: [SourceName; 4] =
        [SourceName::Cmdline, SourceName::File, SourceName::ConfigDrive(None), SourceName::Virtio];
    if options.sources.is_empty() { &DEFAULT } else { &options.sources }
}

/// Why the bytes of a source cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// The source may not carry an item of the payload, or the source cut the payload short.
    Source(SourceError),
    /// The bytes are not a payload.
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

/// Decodes the payload, and refuses items that its source may not carry.
pub fn decode(found: &Found) -> Result<Payload, Unusable> {
    let payload = match Payload::decode(found.bytes.expose()) {
        Err(_) if found.cut => return Err(SourceError::CmdlineCut.into()),
        decoded => decoded?,
    };
    permitted(&found.origin, &payload)?;
    Ok(payload)
}

/// Refuses a private key or an each-boot token from a source that others can read. Every user of the node can read
/// /proc/cmdline, and the logs of the node and of the boot server keep it (design §5).
pub fn permitted(origin: &Origin, payload: &Payload) -> Result<(), SourceError> {
    let place = match origin {
        Origin::Cmdline => "on the kernel command line, which everybody on the node can read,",
        // Console servers log the bytes of a serial line.
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

/// Reads a small file under `root`. Bytes that are not UTF-8 become replacement characters.
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
                    Some(form) => write!(f, "it is {form}, or use the output of imprint-host payload NODE --as cbor"),
                    None => f.write_str("give the payload itself, in CBOR"),
                }
            }
            SourceError::Form(form) => write!(
                f,
                "imprint.payload= on the kernel command line is not base64url: it is {form}, or use the output of \
                 imprint-host payload NODE --as cmdline"
            ),
            SourceError::Base64 { length, position: Some(position) } => write!(
                f,
                "imprint.payload= on the kernel command line is not base64url: character {position} of {length} is not \
                 one of A-Z a-z 0-9 - _; copy the output of imprint-host payload NODE --as cmdline"
            ),
            SourceError::Base64 { length, position: None } => write!(
                f,
                "imprint.payload= on the kernel command line is incomplete: {length} characters of base64url end \
                 within a byte; copy it again"
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
                write!(f, "standard input is not a terminal; run imprint console by hand, on the console of the node")
            }
            SourceError::Broken { device, label, .. } => write!(f, "volume \"{label}\" on {device}"),
            SourceError::Claims { device, first, second } => write!(
                f,
                "{device} has {first} and {second}, one of which is left from an earlier use; save the data that you \
                 need, clear the drive with wipefs -a /dev/{device}, and write the config drive again"
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
