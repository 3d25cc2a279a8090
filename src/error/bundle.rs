//! What keeps a configuration bundle out of the root, or out of use, and what keeps the root away that comes in the same way: one
//! stage with several parts. Prints nothing.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::apply::root::RootError;
use crate::bundle::{BundleError, UnitAction};
use crate::handover::HandoverError;
use crate::netroot::NetrootError;
use crate::retrieval::RetrievalError;
use crate::setup::SetupError;
use crate::shown::Printable;
use crate::stateless::StatelessError;

/// Why a bundle is not in the root, or not in use; or why there is no root of an image.
#[derive(Debug)]
pub enum UseError {
    /// There is no bundle.
    Obtain(Box<StatelessError>),
    /// The dialogue in which one is made.
    Setup(SetupError),
    /// What the check-in left for the root cannot be used.
    Left(HandoverError),
    /// The tar that the check-in left is none.
    Tar(BundleError),
    /// The files cannot be laid over the root.
    Root(RootError),
    /// The bundle is not in the root.
    NotApplied {
        /// Its counter.
        counter: u64,
    },
    /// It was in the root, and is not any more; or it is in neither the root nor the memory.
    Lost {
        /// Its counter.
        counter: u64,
    },
    /// A run has begun anew after a bundle could not be laid over the root, and has brought no other one.
    NoneInstead,
    /// Something in the root hides a file of the bundle.
    Hidden {
        /// The bundle's counter.
        counter: u64,
        /// The path of the file.
        path: Printable,
    },
    /// bundle.json names something that is no unit and verb.
    NoUnit {
        /// The verb.
        verb: String,
        /// The unit.
        unit: String,
    },
    /// bundle.json names no URL.
    Url(Printable),
    /// The configuration server cannot be told.
    Report(RetrievalError),
    /// systemctl cannot be run.
    Systemctl(std::io::Error),
    /// systemctl failed.
    Unit {
        /// What was to be done.
        action: UnitAction,
        /// How systemctl ended.
        status: ExitStatus,
    },
    /// There is no root of an image.
    Netroot(NetrootError),
    /// systemctl did not end.
    Late {
        /// What was to be done.
        action: UnitAction,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl fmt::Display for UseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UseError::Obtain(error) => error.fmt(f),
            UseError::Setup(error) => error.fmt(f),
            UseError::Left(error) => error.fmt(f),
            UseError::Tar(error) => error.fmt(f),
            UseError::Root(error) => error.fmt(f),
            UseError::NotApplied { counter } => {
                write!(f, "bundle number {counter} is not in the root; imprint apply lays it there, in the initramfs: boot again")
            }
            UseError::Lost { counter } => write!(
                f,
                "bundle number {counter} is not in the root, which was mounted anew, and not in the memory any more; run imprint \
                 console, or boot again"
            ),
            UseError::NoneInstead => f.write_str(
                "the bundle before could not be laid over the root, and no other one has come; run imprint console, or boot again",
            ),
            UseError::Hidden { counter, path } => write!(
                f,
                "bundle number {counter} has {path}, and this system does not show it: something is mounted over its place; put the \
                 file elsewhere in the bundle"
            ),
            UseError::NoUnit { verb, unit } => write!(
                f,
                "bundle.json wants {verb:?} for {unit:?}, which this program does not know; it was changed since imprint wrote it, \
                 boot again"
            ),
            UseError::Netroot(error) => error.fmt(f),
            UseError::Url(url) => write!(
                f,
                "bundle.json names {url}, which is no URL of a configuration server; it was changed since imprint wrote it, boot \
                 again"
            ),
            UseError::Report(error) => error.fmt(f),
            UseError::Systemctl(_) => {
                f.write_str("running systemctl, which starts the units of the bundle; this root needs systemd for them")
            }
            UseError::Unit { action, status } => {
                write!(f, "{action}: systemctl ended with {status}; see journalctl -u {}", action.unit)
            }
            UseError::Late { action, waited } => {
                write!(f, "{action}: not done after {} s; see systemctl status {}", waited.as_secs(), action.unit)
            }
        }
    }
}

impl std::error::Error for UseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UseError::Obtain(error) => error.source(),
            UseError::Setup(error) => error.source(),
            UseError::Left(error) => error.source(),
            UseError::Tar(error) => error.source(),
            UseError::Root(error) => error.source(),
            UseError::Report(error) => error.source(),
            UseError::Netroot(error) => error.source(),
            UseError::Systemctl(error) => Some(error),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($variant:ident($inner:ty)),*) => {$(
        impl From<$inner> for UseError {
            fn from(error: $inner) -> UseError {
                UseError::$variant(error)
            }
        }
    )*};
}

from!(Setup(SetupError), Left(HandoverError), Tar(BundleError), Root(RootError), Report(RetrievalError));
