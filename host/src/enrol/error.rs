//! Why a request is refused, and why deciding it failed: errors and their messages. Decides nothing.

use imprint::time::Timestamp;

use super::revocation::reason_name;
use crate::ca::StateError;
use crate::csr::CsrError;
use crate::record::RecordError;
use crate::store::StoreError;
use crate::x509::CrlReason;

/// Why a request is refused. The text goes to the node's console, so it must tell the sender nothing new.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The CSR is invalid or differs from the record.
    #[error("{0}")]
    Csr(CsrError),
    /// No such node, or a token that was never made for it. Only the log says which of the two.
    #[error("no payload was made with this name and token; make one with imprint-host payload")]
    Unknown {
        /// Only for the log.
        node_exists: bool,
    },
    /// Another payload has taken the place of this one.
    #[error("this payload was replaced by a newer one at {0}; use the newer payload")]
    Void(Timestamp),
    /// An administrator revoked this payload together with the node's certificates.
    #[error("an administrator revoked this payload at {0}; make another with imprint-host payload")]
    Withdrawn(Timestamp),
    /// The payload has expired.
    #[error("payload expired at {expiry}, it is {now}; make another with imprint-host payload")]
    Expired {
        /// When it expired.
        expiry: Timestamp,
        /// The server's clock.
        now: Timestamp,
    },
    /// An administrator denied this key.
    #[error("an administrator denied this key; make another payload")]
    Denied,
    /// The certificate of this key was revoked. A revoked key never gets another certificate.
    #[error("{}", revoked(*.at, *.reason))]
    Revoked {
        /// When it was revoked.
        at: Timestamp,
        /// Why it was revoked.
        reason: CrlReason,
    },
    /// The key has a certificate of another node that is still valid.
    #[error("the key in the CSR has a certificate of another node; make a key of this node's own")]
    KeyOfAnother {
        /// Only for the log.
        node: String,
    },
    /// The record asks for the EST server's own name.
    #[error("{0} is the EST server's own name; change the node's record")]
    ServerName(String),
    /// A renewal without a certificate.
    #[error("a renewal must show the certificate to renew as the TLS client certificate")]
    NoCertificate,
    /// A certificate that was not issued here, or whose node is gone.
    #[error("this server does not know the certificate, or its node is gone; enrol with a new payload")]
    NotOurs,
    /// The client certificate was replaced by another one.
    #[error(
        "this certificate was replaced at {at} by one of key {key_code}: either the answer to the node was lost, or \
         the node's key was stolen; enrol with a new payload"
    )]
    Superseded {
        /// Code of the other certificate's key.
        key_code: String,
        /// When it was replaced.
        at: Timestamp,
    },
    /// The client certificate has other names or another type of key than the record has now.
    #[error(
        "the node's record (names or key type) has changed since this certificate was issued; enrol with a new payload"
    )]
    Changed,
}

/// Why a request could not be decided.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The CA failed.
    #[error(transparent)]
    Ca(#[from] StateError),
    /// This version cannot read the stored record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Refusal {
    /// Whether the request had a name and token that do not belong together.
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
        impl From<$inner> for Stop {
            fn from(error: $inner) -> Stop {
                Stop::Failed(EnrolError::$variant(error))
            }
        }
    )*};
}
from!(Store(StoreError), Ca(StateError), Record(RecordError));

fn revoked(at: Timestamp, reason: CrlReason) -> String {
    match reason {
        CrlReason::Superseded => format!(
            "this key's certificate was replaced at {at} by one of another key: a second machine may use the same \
             payload; compare the codes of the keys, then make another payload"
        ),
        reason => format!(
            "the certificate of this key was revoked at {at} ({}); a revoked key never gets another certificate, enrol \
             with a new payload",
            reason_name(reason)
        ),
    }
}
