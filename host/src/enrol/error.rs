//! Why a request gets no certificate, and why it gets no answer, in words.

use std::fmt;

use imprint::time::Timestamp;

use super::revocation::reason_name;
use crate::ca::StateError;
use crate::csr::CsrError;
use crate::record::RecordError;
use crate::store::StoreError;
use crate::x509::CrlReason;

/// Why not. Its text goes to the node's console, so it tells no more than the sender knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The CSR itself.
    Csr(CsrError),
    /// No such node, or a token that was never made for it: which one only the log says.
    Unknown {
        /// For the log.
        node_exists: bool,
    },
    /// Another payload has taken the place of this one.
    Void(Timestamp),
    /// An administrator revoked it with the node's certificates.
    Withdrawn(Timestamp),
    /// The payload has expired.
    Expired {
        /// When.
        expiry: Timestamp,
        /// The server's clock.
        now: Timestamp,
    },
    /// An administrator denied it.
    Denied,
    /// The certificate of this key was revoked; a key gets no other one.
    Revoked {
        /// When.
        at: Timestamp,
        /// Why.
        reason: CrlReason,
    },
    /// The key has a valid certificate of another node.
    KeyOfAnother {
        /// For the log.
        node: String,
    },
    /// The record asks for the EST server's own name.
    ServerName(String),
    /// A renewal without a certificate.
    NoCertificate,
    /// A certificate that was not issued here, or whose node is gone.
    NotOurs,
    /// A certificate that another one has taken the place of.
    Superseded {
        /// Code of that one's key.
        key_code: String,
        /// When.
        at: Timestamp,
    },
    /// A certificate for other names or another type of key than the record has now.
    Changed,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum EnrolError {
    /// The store.
    Store(StoreError),
    /// The CA.
    Ca(StateError),
    /// The record in the store is not understood any more.
    Record(RecordError),
}

impl Refusal {
    /// Whether name and token are none that belong together.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Refusal::Unknown { .. })
    }
}

/// Why a decision ended early.
pub(super) enum Stop {
    Refused(Refusal),
    Failed(EnrolError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl From<CsrError> for Stop {
    fn from(error: CsrError) -> Stop {
        Stop::Refused(Refusal::Csr(error))
    }
}

macro_rules! from {
    ($($variant:ident($inner:ty)),*) => {$(
        impl From<$inner> for EnrolError {
            fn from(error: $inner) -> EnrolError {
                EnrolError::$variant(error)
            }
        }
        impl From<$inner> for Stop {
            fn from(error: $inner) -> Stop {
                Stop::Failed(EnrolError::$variant(error))
            }
        }
    )*};
}
from!(Store(StoreError), Ca(StateError), Record(RecordError));

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Csr(error) => error.fmt(f),
            Refusal::Unknown { .. } => {
                write!(f, "no payload was made with this name and token; make one with imprint-host payload")
            }
            Refusal::Void(at) => write!(f, "another payload took the place of this one at {at}; use that one"),
            Refusal::Withdrawn(at) => {
                write!(f, "an administrator revoked this payload at {at}; make another with imprint-host payload")
            }
            Refusal::Expired { expiry, now } => {
                write!(f, "payload expired at {expiry}, it is {now}; make another with imprint-host payload")
            }
            Refusal::Denied => write!(f, "an administrator denied this key; make another payload"),
            Refusal::Revoked { at, reason: CrlReason::Superseded } => write!(
                f,
                "another key took the place of this one at {at}: another machine may have the same payload; compare the \
                 codes of the keys, then make another payload"
            ),
            Refusal::Revoked { at, reason } => write!(
                f,
                "the certificate of this key was revoked at {at} ({}); a key gets no other one, enrol with a new payload",
                reason_name(*reason)
            ),
            Refusal::KeyOfAnother { .. } => {
                write!(f, "the key in the CSR has a certificate of another node; make a key of this node's own")
            }
            Refusal::ServerName(name) => write!(f, "{name} is the EST server's own name; change the node's record"),
            Refusal::NoCertificate => {
                write!(f, "a renewal needs the certificate that is to be renewed, as TLS client certificate")
            }
            Refusal::NotOurs => {
                write!(f, "this server does not know the certificate, or its node is gone; enrol with a new payload")
            }
            Refusal::Superseded { key_code, at } => write!(
                f,
                "key {key_code} took the place of this certificate's at {at}, and either the node never got that answer \
                 or its key was stolen; enrol with a new payload"
            ),
            Refusal::Changed => {
                write!(f, "the node's record has other names now than the certificate; enrol with a new payload")
            }
        }
    }
}

impl fmt::Display for EnrolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnrolError::Store(error) => error.fmt(f),
            EnrolError::Ca(error) => error.fmt(f),
            EnrolError::Record(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EnrolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EnrolError::Store(error) => error.source(),
            EnrolError::Ca(error) => error.source(),
            EnrolError::Record(error) => error.source(),
        }
    }
}
