//! Why there is no bundle key, with messages that name the remedy. Decides nothing.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{INSTALLED, PATH};
use crate::age::{KeyTextError, Recipient};
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
    /// The key of the image is another one than the payload names.
    OtherInImage {
        /// The file.
        path: PathBuf,
        /// The public key of the key in it.
        has: Recipient,
        /// The one that the payload names.
        wants: Recipient,
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
    /// The key of the only medium is another one than the payload names.
    OtherStick {
        /// The medium.
        place: Printable,
        /// The public key of the key on it.
        has: Recipient,
        /// The one that the payload names.
        wants: Recipient,
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
            BundleKeyError::OtherInImage { path, has, wants } => write!(
                f,
                "the bundle key {} is that of {has}, and this node's is that of {wants}; build the image with the node's key, or \
                 correct bundle_recipient in its record and make a new payload",
                Printable::path(path)
            ),
            BundleKeyError::NoStick(without) => {
                f.write_str("no medium with a bundle key")?;
                if !without.is_empty() {
                    write!(f, " ({without})")?;
                }
                write!(f, "; plug in the stick with the label IMPRINT-KEY and the file {PATH}")
            }
            BundleKeyError::Stick { place, why } => {
                write!(f, "no bundle key in {PATH} on {place}: {why}; plug it in again, or write the file again")
            }
            BundleKeyError::OtherStick { place, has, wants } => write!(
                f,
                "the bundle key on {place} is that of {has}, and this node's is that of {wants}; pull it, and plug in the node's own \
                 stick; if the node has a new key, write its bundle_recipient into the record and make a new payload"
            ),
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
