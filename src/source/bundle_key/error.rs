//! Why there is no bundle key, with messages that name the remedy. Decides nothing.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{INSTALLED, PATH};
use crate::age::KeyTextError;
use crate::shown::Printable;

/// Why there is no bundle key.
#[derive(Debug)]
pub enum BundleKeyError {
    /// The image should have one.
    NotInImage,
    /// The file of the image holds no key.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: KeyTextError,
    },
    /// The file of the image cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// There is no medium with a key. With the drives and media that came near it.
    NoStick(String),
    /// The only medium with the file has no key in it that can be read.
    Stick {
        /// The medium.
        place: Printable,
        /// What is wrong with it.
        why: String,
    },
    /// Two media have the file.
    TwoSticks {
        /// One.
        first: Printable,
        /// The other.
        second: Printable,
    },
    /// Nobody has pulled the medium.
    Stays(Printable),
    /// Devices cannot be waited for.
    Watch(io::Error),
}

impl fmt::Display for BundleKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BundleKeyError::NotInImage => write!(
                f,
                "no bundle key in this image: there is neither /{PATH} nor /{INSTALLED}; build the image with the node's key, or \
                 write another bundle_key into its record"
            ),
            BundleKeyError::File { path, why } => write!(f, "bundle key {}: {why}", Printable::path(path)),
            BundleKeyError::Read { path, .. } => write!(f, "reading the bundle key {}", Printable::path(path)),
            BundleKeyError::NoStick(without) => {
                f.write_str("no medium with a bundle key")?;
                if !without.is_empty() {
                    write!(f, " ({without})")?;
                }
                write!(f, "; plug in the stick with the label IMPRINT-KEY and the file {PATH}")
            }
            BundleKeyError::Stick { place, why } => write!(f, "no bundle key in {PATH} on {place}: {why}"),
            BundleKeyError::TwoSticks { first, second } => {
                write!(f, "two media have a bundle key, {first} and {second}; pull the one that is not this node's")
            }
            BundleKeyError::Stays(place) => {
                write!(f, "the medium with the bundle key, {place}, was not pulled in time; pull it, and boot again")
            }
            BundleKeyError::Watch(_) => f.write_str("waiting for media with a bundle key (uevent socket)"),
        }
    }
}

impl std::error::Error for BundleKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BundleKeyError::Read { source, .. } | BundleKeyError::Watch(source) => Some(source),
            _ => None,
        }
    }
}
