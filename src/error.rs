//! The errors of a boot: one variant and one published exit code for each stage. Prints nothing; `main` prints the
//! chain once.

mod bundle;

use std::fmt;

pub use bundle::UseError;

use crate::apply::clock::ClockError;
use crate::apply::network::NetworkError;
use crate::checkin::{AskError, CheckinError};
use crate::facts::FactsError;
use crate::handover::HandoverError;
use crate::identity::IdentityError;
use crate::netroot::NetrootError;
use crate::options::OptionsError;
use crate::payload::DecodeError;
use crate::plan::PlanError;
use crate::pool::EntropyError;
use crate::retrieval::RetrievalError;
use crate::setup::SetupError;
use crate::site::PinError;
use crate::source::{SourceError, Unusable};
use crate::stateless::StatelessError;
use crate::swap::SwapError;

/// What stopped the boot, by stage.
#[derive(Debug)]
pub enum Error {
    /// Reading the kernel command line.
    Options(OptionsError),
    /// Finding the payload.
    Source(SourceError),
    /// Decoding the payload.
    Payload(DecodeError),
    /// Deciding what to do with the payload.
    Plan(PlanError),
    /// Setting the clock.
    Clock(ClockError),
    /// Seeding the kernel's random pool.
    Entropy(EntropyError),
    /// Configuring the network.
    Network(NetworkError),
    /// Making key and CSR.
    Identity(IdentityError),
    /// Having the CSR signed.
    Checkin(CheckinError),
    /// Handing the result over to the next stage.
    Handover(HandoverError),
    /// Having the node's configuration bundle, in its root and in use; or the root itself, as an image.
    Bundle(UseError),
}

impl Error {
    /// The stage's name, as status.json has it, and its exit code.
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
            Error::Bundle(_) => ("bundle", 20),
        }
    }
}

/// The stage, for the console. A root has its own word there: the node need not have a bundle.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Bundle(UseError::Netroot(_)) => "root",
            error => error.stage().0,
        })
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
            Error::Bundle(e) => e,
        })
    }
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
impl From<Unusable> for Error {
    fn from(error: Unusable) -> Error {
        match error {
            Unusable::Source(error) => error.into(),
            Unusable::Payload(error) => error.into(),
            Unusable::Signature(error) => PlanError::Signature(error).into(),
        }
    }
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
    Handover(HandoverError),
    Bundle(UseError)
);

/// A clock or network failure during the check-in counts as one of the clock or network stage.
impl From<CheckinError> for Error {
    fn from(error: CheckinError) -> Error {
        match error {
            CheckinError::Ask(AskError::Clock(error)) => Error::Clock(error),
            CheckinError::Ask(AskError::Network(error)) => Error::Network(error),
            error => Error::Checkin(error),
        }
    }
}

/// A failure to keep the network meanwhile counts as one of the network stage.
impl From<StatelessError> for Error {
    fn from(error: StatelessError) -> Error {
        match error {
            StatelessError::Ask(error) | StatelessError::Retrieval(RetrievalError::Ask(error)) => {
                CheckinError::Ask(error).into()
            }
            error => Error::Bundle(UseError::Obtain(Box::new(error))),
        }
    }
}

/// Swap space is handed over to the real root, as certificate and key are.
impl From<SwapError> for Error {
    fn from(error: SwapError) -> Error {
        Error::Handover(HandoverError::Swap(error))
    }
}

/// The image of a root is fetched, verified and mounted as a bundle is, with the same identity and from the same kind of server.
impl From<NetrootError> for Error {
    fn from(error: NetrootError) -> Error {
        Error::Bundle(UseError::Netroot(error))
    }
}

impl From<SetupError> for Error {
    fn from(error: SetupError) -> Error {
        UseError::Setup(error).into()
    }
}

/// A site pin that cannot be used is a failure of the source stage: no payload can be judged.
impl From<PinError> for Error {
    fn from(error: PinError) -> Error {
        Error::Source(SourceError::Pin(error))
    }
}

/// A failure to list the links is a failure of the network stage.
impl From<FactsError> for Error {
    fn from(error: FactsError) -> Error {
        Error::Network(NetworkError::Facts(error))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::bundle::answer::Stand;
    use crate::payload::Problem;
    use crate::site::PinTextError;
    use crate::time::Timestamp;

    /// If this test fails, do not change it: units and scripts go by these numbers.
    #[test]
    fn frozen_stages_and_exit_codes() {
        let clock = || ClockError::System { to: Timestamp::from_secs(0), source: io::Error::other("x") };
        let facts = || FactsError::Udev(io::Error::other("x"));
        let payload = DecodeError { offset: 0, place: String::new(), problem: Problem::Truncated };
        let no_link = PlanError::NoSuchLink { want: String::new(), have: String::new() };
        let write = HandoverError::Write { path: "x".into(), source: io::Error::other("x") };
        let entropy = EntropyError::Pool(io::Error::other("x"));
        for (error, stage, code) in [
            (Error::from(OptionsError::Twice("imprint=")), "options", 10),
            (PinError::Text { path: "x".into(), source: PinTextError::Empty }.into(), "source", 11),
            (payload.into(), "payload", 12),
            (no_link.into(), "plan", 13),
            (clock().into(), "clock", 14),
            (CheckinError::Ask(AskError::Clock(clock())).into(), "clock", 14),
            (entropy.into(), "entropy", 15),
            (facts().into(), "network", 16),
            (IdentityError::Names(der::ErrorKind::Failed.into()).into(), "identity", 17),
            (CheckinError::Failed { attempts: vec![] }.into(), "check-in", 18),
            (write.into(), "hand-over", 19),
            (UseError::NotApplied { counter: 7 }.into(), "bundle", 20),
            (StatelessError::Withdrawn(Stand::Renew).into(), "bundle", 20),
            (StatelessError::Ask(AskError::Network(NetworkError::Facts(facts()))).into(), "network", 16),
            (SetupError::NoConsole.into(), "bundle", 20),
            (SwapError::None.into(), "hand-over", 19),
            (NetrootError::Fetch(RetrievalError::Failed { attempts: vec![] }).into(), "bundle", 20),
        ] {
            assert_eq!(error.stage(), (stage, code));
        }
    }

    /// The accident: somebody looks for a bundle that the node does not have.
    #[test]
    fn a_root_that_is_not_there_is_no_bundle_at_the_console() {
        let error: Error = NetrootError::Fetch(RetrievalError::Failed { attempts: vec![] }).into();
        assert_eq!(error.to_string(), "root");
        assert_eq!(Error::from(UseError::NoneInstead).to_string(), "bundle");
    }
}
