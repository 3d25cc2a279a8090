//! Decides who gets a certificate. A CSR is signed when key proof, subject, every name, key type and token equal the
//! injected ones; any other CSR is refused with a reason. Only `gate` signs. Token and certificate are stored in one
//! transaction. Never opens a connection or a file.

mod approval;
mod attributes;
mod client;
mod error;
mod first;
mod gate;
mod renewal;
mod revocation;

use std::time::Duration;

pub use approval::{Decided, approve, deny};
pub use attributes::key_wanted;
pub use client::{Client, client};
pub use error::{EnrolError, Refusal};
pub use first::simple_enroll;
pub use renewal::simple_reenroll;
pub use revocation::{RevokeError, Revoked, reason_name, revoke, shown_in_a_handshake};

use error::Stop;
use imprint::line::Hello;
use imprint::payload::{EstUrl, PayloadId};
use imprint::secret::Secret;
use imprint::time::Timestamp;

use crate::ca::{Ca, Leaf};
use crate::csr::{Csr, CsrError};
use crate::record::{Entitlement, Record};
use crate::store::{Budget, CertificateRow, Changes, Event};

/// Credentials of a request, from HTTP Basic or from a line.
pub struct Credentials {
    /// Name of the record.
    pub name: String,
    /// The proof that the node may have a certificate.
    pub proof: Proof,
}

/// Proof that the requester may have a certificate.
pub enum Proof {
    /// The token of a payload.
    Token(Secret),
    /// From a line: proof that the node has a payload's token. The token itself is never sent on a line.
    Line {
        /// HMAC over HELLO and CSR.
        tag: [u8; 32],
        /// The node's HELLO: claims about itself.
        hello: Box<Hello>,
    },
}

/// A request for a certificate.
pub struct Request<'a> {
    /// The CSR, or why it is not valid.
    pub csr: Result<&'a Csr, &'a CsrError>,
    /// `None`: the request had no credentials.
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
        /// Text for the log.
        detail: String,
    },
    /// An administrator has to approve the request.
    Pending {
        /// Why, and which key, for the log.
        detail: String,
        /// Whether this is the request's first arrival.
        first: bool,
    },
    /// Not now: too many certificates for this payload or this node, or too many keys that wait.
    Later {
        /// Ask again after this time.
        after: Duration,
        /// Why, for the log and the console.
        detail: String,
    },
    /// The request needs credentials.
    Unauthorized,
    /// No certificate.
    Refused(Refusal),
}

/// What a decision works with: one transaction of the store, the CA, and the time.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// The transaction that every decision is stored in.
    pub changes: &'a Changes<'a>,
    /// The CA that signs.
    pub ca: &'a Ca,
    /// EST bases of the site.
    pub urls: &'a [EstUrl],
    /// The current time.
    pub now: Timestamp,
}

/// A decision that is stored in the transaction. Send the answer only after the commit.
#[derive(Debug)]
pub struct Decision {
    /// The answer to the requester.
    pub answer: Answer,
    /// The event's name in the audit log.
    pub event: &'static str,
    node: Option<String>,
    peer: String,
    detail: String,
    /// An alarm for the administrator.
    pub alarm: Option<Alarm>,
}

/// Facts that are collected during a decision.
struct Notes {
    /// The budget that a line in the audit log is charged to: depends on the proof that was shown.
    budget: Budget,
    /// Whether a certificate was signed.
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
    /// The address that used it.
    pub peer: String,
    /// What happened and what to do.
    pub detail: String,
}

impl Alarm {
    /// Writes to the server's own log. Call it after the commit.
    pub fn tell(&self) {
        tracing::error!("alarm {} from {}: {}", self.node, self.peer, self.detail);
    }
}

impl Decision {
    /// Writes to the server's own log. Call it after the commit.
    pub fn tell(&self) {
        let Decision { event, peer, detail, .. } = self;
        let node = self.node.as_deref().unwrap_or("-");
        if let Some(alarm) = &self.alarm {
            alarm.tell();
        }
        match &self.answer {
            // A waiting node asks every few seconds: only the first request is logged.
            Answer::Pending { first: false, .. } => {}
            // An administrator should look at these.
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
    /// The token was right but used before, and an administrator has approved the key.
    Approved,
    /// The new certificate replaces the one with this serial number.
    Renews(&'a [u8]),
}

impl Desk<'_> {
    /// Stores the decision in the audit log.
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
            // Signatures have a limit of their own, so these lines need no budget.
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
        // No entitlement is stored for a record that this version could not read when it opened the store. Reading the
        // record again gives the error to report.
        let Some(row) = self.changes.node(node)? else { return Ok(None) };
        Ok(Some(Record::of_store(&row.file, &row.record, self.urls)?.entitlement()))
    }

    /// Signs a certificate and stores it.
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
