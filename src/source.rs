//! Finding the payload: ordered sources, the first that is present wins, a broken one stops the boot. Bytes only;
//! nothing here knows what a payload says.

pub mod config_drive;
pub mod iso9660;
pub mod uevent;

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::options::{Options, SourceName};
use crate::payload::MAX_LEN;
use crate::secret::Secret;
use crate::time::Deadline;

/// Where a payload came from, for the console, status.json and the User-Agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A volume on a whole disk or optical drive.
    ConfigDrive {
        /// Kernel name of the block device: `sr0`.
        device: String,
        /// Volume label as it stands on the medium.
        label: String,
        /// Named by `imprint.source=config-drive…`, so removable USB media are allowed.
        named: bool,
    },
    /// A file named on our own command line (`check`, `plan`, `enroll`).
    File(PathBuf),
}

impl Origin {
    /// The kind of source, without what names this machine: for the User-Agent.
    pub fn kind(&self) -> &'static str {
        match self {
            Origin::ConfigDrive { .. } => "config-drive",
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
    /// A file that was named is longer than a payload can be.
    TooLong(PathBuf),
    /// Devices cannot be waited for.
    Watch(io::Error),
    /// A volume with our label, or the one that was named, cannot be read.
    Broken {
        /// Kernel name of the block device.
        device: String,
        /// Volume label.
        label: String,
        /// Why not.
        source: config_drive::VolumeError,
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
    },
    /// `/imprint/site` is no list of digests.
    SitePin {
        /// Line number, from 1.
        line: usize,
    },
    /// `/imprint/site` names no CA at all.
    EmptySitePin,
}

/// Finds the payload. `None`: there is none, and none was asked for. `notice` gets a line for the console when a wait
/// becomes a long one.
pub fn find(
    options: &Options,
    root: &Path,
    pinned: bool,
    deadline: Deadline,
    notice: &mut dyn FnMut(&str),
) -> Result<Option<Found>, SourceError> {
    let labels: Vec<Option<&str>> =
        options.sources.iter().map(|SourceName::ConfigDrive(label)| label.as_deref()).collect();
    let search = config_drive::Search { labels: &labels, pinned, insist: options.insists() };
    match config_drive::find(&search, root, deadline, notice)? {
        Ok(found) => Ok(Some(found)),
        Err(looked) if search.insist => Err(SourceError::Nothing { looked }),
        Err(_) => Ok(None),
    }
}

/// A payload from a file that was named on our own command line.
pub fn file(path: &Path) -> Result<Found, SourceError> {
    let failed = |source| SourceError::Read { path: path.to_owned(), source };
    let limit = u64::try_from(MAX_LEN).unwrap_or(u64::MAX).saturating_add(1);
    // The capacity is above the limit, so that growing never leaves a copy behind.
    let mut bytes = Vec::with_capacity(MAX_LEN.saturating_add(1));
    std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
    let bytes = Secret::new(bytes);
    if bytes.expose().len() > MAX_LEN {
        return Err(SourceError::TooLong(path.to_owned()));
    }
    Ok(Found { origin: Origin::File(path.to_owned()), bytes })
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
            Origin::ConfigDrive { device, label, .. } => write!(f, "config-drive {device} ({label})"),
            Origin::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Read { path, .. } => write!(f, "reading {}", path.display()),
            SourceError::TooLong(path) => write!(
                f,
                "{} has more than {MAX_LEN} bytes, the most that a payload can have; name the payload itself, in CBOR",
                path.display()
            ),
            SourceError::Watch(_) => write!(f, "waiting for devices (uevent socket)"),
            SourceError::Broken { device, label, .. } => write!(f, "volume \"{label}\" on {device}"),
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
            SourceError::Nothing { looked } => write!(
                f,
                "no payload found ({looked}); attach a config drive labelled IMPRINT, or boot with imprint=auto to go \
                 on without"
            ),
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
            _ => None,
        }
    }
}
