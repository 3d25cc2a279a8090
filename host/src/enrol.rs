//! Who gets a certificate. A CSR is signed when key proof, subject, every name, key type and token equal what was
//! injected; anything else is refused with its reason. One transaction for the token and the certificate.

mod approval;
mod renewal;

use std::fmt;

pub use approval::{Decided, approve, deny};
pub use renewal::simple_reenroll;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use imprint::digest::sha256;
use imprint::line::{Hello, seal};
use imprint::payload::{EstUrl, PayloadId, TokenMode};
use imprint::secret::Secret;
use imprint::time::Timestamp;

use crate::ca::{self, Ca, Leaf, StateError};
use crate::csr::{Csr, CsrError, shown};
use crate::record::{Record, RecordError, names_a_server};
use crate::store::{CertificateRow, Changes, Event, PayloadRow, Store, StoreError};

/// HTTP Basic.
pub struct Credentials {
    /// Name of the record.
    pub name: String,
    /// That it may have a certificate.
    pub proof: Proof,
}

/// Why somebody may have a certificate.
pub enum Proof {
    /// The token of a payload.
    Token(Secret),
    /// A line's proof that its node has a payload's token, which is not sent on a line.
    Line {
        /// HMAC over HELLO and CSR.
        tag: [u8; 32],
        /// What the node said of itself.
        hello: Box<Hello>,
    },
}

/// A request for a certificate.
pub struct Request<'a> {
    /// PKCS#10, DER.
    pub csr: &'a [u8],
    /// `None`: none were sent.
    pub credentials: Option<Credentials>,
    /// Address of the other end, for the log.
    pub peer: &'a str,
}

/// What the server answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A certificate, DER.
    Issued {
        /// The certificate.
        der: Vec<u8>,
        /// For the log.
        detail: String,
    },
    /// An administrator has to approve.
    Pending {
        /// Why, and which key, for the log.
        detail: String,
        /// Whether this is the first time that it was asked for.
        first: bool,
    },
    /// Credentials are wanted.
    Unauthorized,
    /// No.
    Refused(Refusal),
}

impl Answer {
    /// Whether it went to somebody who has proven nothing: no token, and no certificate.
    fn is_to_a_stranger(&self) -> bool {
        match self {
            Answer::Issued { .. } | Answer::Pending { .. } => false,
            Answer::Unauthorized => true,
            Answer::Refused(refusal) => match refusal {
                Refusal::Unknown { .. } | Refusal::NoCertificate | Refusal::NotOurs => true,
                // What a CSR asks for is looked at once the token was right, and all else before.
                Refusal::Csr(error) => {
                    !matches!(error, CsrError::Subject { .. } | CsrError::Alternatives { .. } | CsrError::Key { .. })
                }
                _ => false,
            },
        }
    }
}

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
    /// The payload has expired.
    Expired {
        /// When.
        expiry: Timestamp,
        /// The server's clock.
        now: Timestamp,
    },
    /// An administrator denied it.
    Denied,
    /// More keys wait for approval under this name than a node can have.
    TooMany(usize),
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

/// Decides and books it.
pub fn simple_enroll(
    store: &mut Store,
    ca: &Ca,
    urls: &[EstUrl],
    request: &Request<'_>,
    now: Timestamp,
) -> Result<Answer, EnrolError> {
    let changes = store.changes()?;
    let node = request.credentials.as_ref().map(|credentials| shown(&credentials.name));
    let answer = match decide(&changes, ca, urls, request, now) {
        Ok(answer) => answer,
        Err(Stop::Refused(refusal)) => Answer::Refused(refusal),
        Err(Stop::Failed(error)) => return Err(error),
    };
    let (event, detail) = match &answer {
        Answer::Issued { detail, .. } => ("enrolled", detail.clone()),
        Answer::Pending { detail, .. } => ("pending", detail.clone()),
        Answer::Unauthorized => ("refused", "no credentials".to_owned()),
        Answer::Refused(Refusal::Unknown { node_exists: false }) => ("refused", "no such node".to_owned()),
        Answer::Refused(Refusal::Unknown { node_exists: true }) => ("refused", "wrong token".to_owned()),
        Answer::Refused(refusal) => ("refused", refusal.to_string()),
    };
    // A node that waits asks every few seconds: that is no news.
    let again = matches!(answer, Answer::Pending { first: false, .. });
    let event_row = Event { event, node: node.as_deref(), peer: Some(request.peer), detail: &detail };
    match answer.is_to_a_stranger() {
        true => changes.audit_stranger(&event_row, now)?,
        false if again => {}
        false => changes.audit(&event_row, now)?,
    }
    changes.commit()?;
    let node = node.unwrap_or_else(|| "-".to_owned());
    match &answer {
        Answer::Pending { first: false, .. } => {}
        Answer::Pending { .. } => tracing::warn!("{event} {node} from {}: {detail}", request.peer),
        _ => tracing::info!("{event} {node} from {}: {detail}", request.peer),
    }
    Ok(answer)
}

enum Stop {
    Refused(Refusal),
    Failed(EnrolError),
}

fn decide(
    changes: &Changes<'_>,
    ca: &Ca,
    urls: &[EstUrl],
    request: &Request<'_>,
    now: Timestamp,
) -> Result<Answer, Stop> {
    let csr = Csr::parse(request.csr)?;
    let asked = request.credentials.as_ref().map(|credentials| credentials.name.as_str());
    if let Some(answer) = stored(changes, ca, urls, &csr, asked, now)? {
        return Ok(answer);
    }
    let Some(credentials) = &request.credentials else { return Ok(Answer::Unauthorized) };
    let Some(row) = changes.node(&credentials.name)? else {
        return Err(Refusal::Unknown { node_exists: false }.into());
    };
    let record = Record::compile(&row.file, &row.record, ca.root(), urls)?;
    // The token first: nobody without it learns what the record says.
    let payload = payload_of(changes, &row.name, credentials, request.csr, now)?;
    csr.matches(&record.names, record.key)?;
    if let Some(name) = names_a_server(&record.names, urls) {
        return Err(Refusal::ServerName(name).into());
    }
    if let (TokenMode::Once, Some((at, key_code))) = (payload.mode, &payload.spent) {
        let why = format!("token already used by key {key_code} at {at}");
        match approval::asked(changes, &row.name, &csr, &why, request.peer, now)? {
            approval::Standing::Approved => {}
            approval::Standing::Pending { first } => {
                let detail = format!("key {}: {why}", csr.code());
                return Ok(Answer::Pending { detail, first });
            }
        }
    }
    changes.spend(payload.id, &csr.code().to_string(), now)?;
    issue(changes, ca, &record, &csr, payload.id, None, now)
}

/// Signs and books it. `renews` is the serial number of the certificate whose place it takes.
fn issue(
    changes: &Changes<'_>,
    ca: &Ca,
    record: &Record,
    csr: &Csr,
    payload: PayloadId,
    renews: Option<Vec<u8>>,
    now: Timestamp,
) -> Result<Answer, Stop> {
    let leaf = Leaf { names: &record.names, spki: csr.spki(), validity: record.validity, usages: &record.usages };
    let issued = ca.issue(&leaf, now)?;
    let key_code = csr.code().to_string();
    let detail = format!("{} key {key_code}, until {}", record.names, issued.not_after);
    changes.add_certificate(&CertificateRow {
        serial: issued.serial,
        node: record.name.to_string(),
        payload,
        spki_hash: csr.spki_hash(),
        key_code,
        der: issued.der.clone(),
        issued_at: now,
        not_after: issued.not_after,
        renews,
        seen_at: None,
    })?;
    Ok(Answer::Issued { der: issued.der, detail })
}

/// The same key with the same names has its certificate already: it is sent again, without signature or token, so
/// that an answer that was lost costs nothing. Whoever asks has proven that it has the key.
fn stored(
    changes: &Changes<'_>,
    ca: &Ca,
    urls: &[EstUrl],
    csr: &Csr,
    asked: Option<&str>,
    now: Timestamp,
) -> Result<Option<Answer>, Stop> {
    for row in changes.certificates_of(&csr.spki_hash(), now)? {
        if asked.is_some_and(|name| name != row.node) {
            continue;
        }
        let Some(node) = changes.node(&row.node)? else { continue };
        let record = Record::compile(&node.file, &node.record, ca.root(), urls)?;
        if csr.matches(&record.names, record.key).is_ok() && ca::is_for(&row.der, &record.names) {
            let detail = format!("{} key {}, same certificate again", record.names, row.key_code);
            return Ok(Some(Answer::Issued { der: row.der, detail }));
        }
    }
    Ok(None)
}

/// The payload whose token this is, if it may be used now.
fn payload_of(
    changes: &Changes<'_>,
    node: &str,
    credentials: &Credentials,
    csr: &[u8],
    now: Timestamp,
) -> Result<PayloadRow, Stop> {
    let payloads = changes.payloads(node)?;
    let found = match &credentials.proof {
        Proof::Token(token) => {
            let hash = sha256(token.expose());
            payloads.into_iter().find(|row| verify_slices_are_equal(&row.token_hash, &hash).is_ok())
        }
        Proof::Line { tag, hello } => payloads.into_iter().find(|row| seal::is_proof(tag, &row.token_hash, hello, csr)),
    };
    let Some(payload) = found else { return Err(Refusal::Unknown { node_exists: true }.into()) };
    if let Some(at) = payload.void_at {
        return Err(Refusal::Void(at).into());
    }
    if now >= payload.expiry {
        return Err(Refusal::Expired { expiry: payload.expiry, now }.into());
    }
    Ok(payload)
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
            Refusal::Expired { expiry, now } => {
                write!(f, "payload expired at {expiry}, it is {now}; make another with imprint-host payload")
            }
            Refusal::Denied => write!(f, "an administrator denied this key; make another payload"),
            Refusal::TooMany(count) => write!(
                f,
                "{count} other keys wait for approval under this name; run imprint-host deny for it, and try again"
            ),
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
