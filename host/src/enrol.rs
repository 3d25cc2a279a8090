//! Who gets a certificate. A CSR is signed when key proof, subject, every name, key type and token equal what was
//! injected; anything else is refused with its reason. `gate` alone signs. One transaction for the token and the certificate.

mod approval;
mod attributes;
mod error;
mod first;
mod gate;
mod renewal;
mod revocation;

use std::time::Duration;

pub use approval::{Decided, approve, deny};
pub use attributes::key_wanted;
pub use error::{EnrolError, Refusal};
pub use first::simple_enroll;
pub use renewal::simple_reenroll;
pub use revocation::{RevokeError, reason_name, revoke, shown_in_a_handshake};

use error::Stop;
use imprint::line::Hello;
use imprint::payload::{EstUrl, PayloadId};
use imprint::secret::Secret;
use imprint::time::Timestamp;

use crate::ca::{Ca, Leaf};
use crate::csr::{Csr, CsrError};
use crate::record::{Entitlement, Record};
use crate::store::{Budget, CertificateRow, Changes, Event};

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
    /// The CSR, or why it is none.
    pub csr: Result<&'a Csr, &'a CsrError>,
    /// `None`: none were sent.
    pub credentials: Option<&'a Credentials>,
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
    /// Not now: too many certificates for this payload or this node, or too many keys that wait.
    Later {
        /// Ask again after this.
        after: Duration,
        /// Why, for the log and the console.
        detail: String,
    },
    /// Credentials are wanted.
    Unauthorized,
    /// No.
    Refused(Refusal),
}

/// Where decisions are made: changes to the store that become lasting together, and what signs.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// Everything that is decided goes here.
    pub changes: &'a Changes<'a>,
    /// What signs.
    pub ca: &'a Ca,
    /// EST bases of the site.
    pub urls: &'a [EstUrl],
    /// What time it is.
    pub now: Timestamp,
}

/// What was decided and booked. It is the answer once the changes last.
#[derive(Debug)]
pub struct Decision {
    /// For whoever asked.
    pub answer: Answer,
    /// Word of the audit log.
    pub event: &'static str,
    node: Option<String>,
    peer: String,
    detail: String,
    /// What somebody has to look at.
    pub alarm: Option<Alarm>,
}

/// What became known while it was decided.
struct Notes {
    /// Who causes the line of the audit log, by what was shown.
    budget: Budget,
    /// Whether a certificate was signed. Otherwise it is no news.
    signed: bool,
    alarm: Option<Alarm>,
}

impl Default for Notes {
    fn default() -> Notes {
        Notes { budget: Budget::Stranger, signed: false, alarm: None }
    }
}

/// A certificate or its key is in use where it should not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// The node.
    pub node: String,
    /// Where it was used.
    pub peer: String,
    /// What is the matter.
    pub detail: String,
}

impl Alarm {
    /// For the server's own log, once the changes last.
    pub fn tell(&self) {
        tracing::error!("alarm {} from {}: {}", self.node, self.peer, self.detail);
    }
}

impl Decision {
    /// For the server's own log, once the changes last.
    pub fn tell(&self) {
        let Decision { event, peer, detail, .. } = self;
        let node = self.node.as_deref().unwrap_or("-");
        if let Some(alarm) = &self.alarm {
            alarm.tell();
        }
        match &self.answer {
            // A node that waits asks every few seconds: that is no news.
            Answer::Pending { first: false, .. } => {}
            // Somebody should look.
            Answer::Pending { .. }
            | Answer::Refused(Refusal::Superseded { .. } | Refusal::Revoked { .. } | Refusal::KeyOfAnother { .. }) => {
                tracing::warn!("{event} {node} from {peer}: {detail}");
            }
            _ => tracing::info!("{event} {node} from {peer}: {detail}"),
        }
    }
}

/// Why a certificate is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Because<'a> {
    /// The token was right.
    Token,
    /// It was right and used before, and an administrator has approved the key.
    Approved,
    /// It takes the place of the one with this serial number.
    Renews(&'a [u8]),
}

impl Desk<'_> {
    /// Books what was decided.
    fn decision(
        &self,
        decided: Result<Answer, Stop>,
        node: Option<&str>,
        peer: &str,
        signed: &'static str,
        notes: Notes,
    ) -> Result<Decision, EnrolError> {
        let answer = match decided {
            Ok(answer) => answer,
            Err(Stop::Refused(refusal)) => Answer::Refused(refusal),
            Err(Stop::Failed(error)) => return Err(error),
        };
        let (event, detail) = match &answer {
            Answer::Issued { detail, .. } => (signed, detail.clone()),
            Answer::Pending { detail, .. } => ("pending", detail.clone()),
            Answer::Later { detail, .. } => ("later", detail.clone()),
            Answer::Unauthorized => ("refused", "no credentials".to_owned()),
            Answer::Refused(Refusal::Unknown { node_exists: false }) => ("refused", "no such node".to_owned()),
            Answer::Refused(Refusal::Unknown { node_exists: true }) => ("refused", "wrong token".to_owned()),
            Answer::Refused(Refusal::KeyOfAnother { node }) => {
                ("refused", format!("the key in the CSR has a certificate of {node}"))
            }
            Answer::Refused(refusal) if signed == "renewed" => ("refused", format!("renewal: {refusal}")),
            Answer::Refused(refusal) => ("refused", refusal.to_string()),
        };
        let row = Event { event, node, peer: Some(peer), detail: &detail };
        match &answer {
            Answer::Pending { first: false, .. } => {}
            // There are so many of those as can be signed.
            _ if notes.signed => self.changes.audit(&row, self.now)?,
            _ => {
                self.changes.audit_within(&notes.budget, &row, self.now)?;
            }
        }
        let (node, peer) = (node.map(str::to_owned), peer.to_owned());
        Ok(Decision { answer, event, node, peer, detail, alarm: notes.alarm })
    }

    /// What a node is entitled to; `None`: there is no such node.
    fn entitlement(&self, node: &str) -> Result<Option<Entitlement>, Stop> {
        if let Some(found) = self.changes.entitlement(node)? {
            return Ok(Some(found));
        }
        // Only a record that was not understood when the store was opened entitles to nothing: that is what is said here.
        let Some(row) = self.changes.node(node)? else { return Ok(None) };
        Ok(Some(Record::of_store(&row.file, &row.record, self.urls)?.entitlement()))
    }

    /// Signs and books it.
    fn issue(
        &self,
        to: &Entitlement,
        csr: &Csr,
        payload: PayloadId,
        because: Because<'_>,
        peer: &str,
    ) -> Result<Answer, Stop> {
        let Entitlement { name, names, validity, usages, .. } = to;
        let leaf = Leaf { names, spki: csr.spki(), validity: *validity, usages, urls: self.urls };
        let issued = self.ca.issue(&leaf, self.now)?;
        let key_code = csr.code().to_string();
        let detail = format!("{names} key {key_code}, until {}", issued.not_after);
        self.changes.add_certificate(&CertificateRow {
            serial: issued.serial,
            node: name.to_string(),
            payload,
            spki_hash: csr.spki_hash(),
            key_code,
            der: issued.der.clone(),
            issued_at: self.now,
            not_after: issued.not_after,
            renews: match because {
                Because::Renews(serial) => Some(serial.to_vec()),
                Because::Token | Because::Approved => None,
            },
            seen_at: None,
            issuer: self.ca.current().id(),
            approved: because == Because::Approved,
            revoked: None,
            peer: Some(peer.to_owned()),
        })?;
        Ok(Answer::Issued { der: issued.der, detail })
    }
}
