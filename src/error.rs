//! One variant and one published exit code for each stage. Prints nothing; `main` prints the chain once.

use std::fmt;

use crate::apply::clock::ClockError;
use crate::apply::entropy::EntropyError;
use crate::apply::network::NetworkError;
use crate::checkin::CheckinError;
use crate::handover::HandoverError;
use crate::identity::IdentityError;
use crate::options::OptionsError;
use crate::payload::DecodeError;
use crate::plan::PlanError;
use crate::source::SourceError;

/// What stopped the boot, by stage.
#[derive(Debug)]
pub enum Error {
    /// The kernel command line.
    Options(OptionsError),
    /// Finding the payload.
    Source(SourceError),
    /// Decoding it.
    Payload(DecodeError),
    /// Deciding what to do with it.
    Plan(PlanError),
    /// Setting the clock.
    Clock(ClockError),
    /// Seeding the kernel's random pool.
    Entropy(EntropyError),
    /// Configuring the network.
    Network(NetworkError),
    /// Making key and CSR.
    Identity(IdentityError),
    /// Having it signed.
    Checkin(CheckinError),
    /// Handing it over.
    Handover(HandoverError),
}

impl Error {
    /// Stage name, as status.json has it, and exit code.
    pub fn stage(&self) -> (&'static str, u8) {
        match self {
            Error::Options(_) => ("options", 10),
            Error::Source(_) => ("source", 11),
            Error::Payload(_) => ("payload", 12),
            Error::Plan(_) => ("plan", 13),
            Error::Clock(_) => ("clock", 14),
            Error::Entropy(_) => ("entropy", 15),
            Error::Network(_) => ("network", 16),
            Error::Identity(_) => ("identity", 17),
            Error::Checkin(_) => ("check-in", 18),
            Error::Handover(_) => ("hand-over", 19),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stage().0)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match self {
            Error::Options(e) => e,
            Error::Source(e) => e,
            Error::Payload(e) => e,
            Error::Plan(e) => e,
            Error::Clock(e) => e,
            Error::Entropy(e) => e,
            Error::Network(e) => e,
            Error::Identity(e) => e,
            Error::Checkin(e) => e,
            Error::Handover(e) => e,
        })
    }
}

/// The error and everything that caused it, outermost first, joined by `: `.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

macro_rules! from {
    ($($variant:ident($inner:ty)),*) => {$(
        impl From<$inner> for Error {
            fn from(error: $inner) -> Error {
                Error::$variant(error)
            }
        }
    )*};
}
from!(
    Options(OptionsError),
    Source(SourceError),
    Payload(DecodeError),
    Plan(PlanError),
    Clock(ClockError),
    Entropy(EntropyError),
    Network(NetworkError),
    Identity(IdentityError),
    Checkin(CheckinError),
    Handover(HandoverError)
);
