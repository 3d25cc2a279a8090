//! A node's first certificate: checks the token of a payload, then asks `gate`. Signs nothing itself.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use imprint::digest::sha256;
use imprint::line::seal;

use super::gate::{self, Shown, Visit};
use super::{Answer, Credentials, Decision, Desk, EnrolError, Notes, Proof, Refusal, Request, Stop};
use crate::ca;
use crate::csr::{Csr, CsrError, shown};
use crate::record::{Entitlement, names_a_server};
use crate::store::{Budget, CertificateRow, PayloadRow};

/// Decides about a first certificate, and stores the decision.
pub fn simple_enroll(desk: &Desk<'_>, request: &Request<'_>) -> Result<Decision, EnrolError> {
    let node = request.credentials.map(|credentials| shown(&credentials.name));
    let mut notes = Notes::default();
    let decided = decide(desk, request, &mut notes);
    desk.decision(decided, node.as_deref(), request.peer, "enrolled", notes)
}

fn decide(desk: &Desk<'_>, request: &Request<'_>, notes: &mut Notes) -> Result<Answer, Stop> {
    let csr = request.csr.map_err(CsrError::clone)?;
    let asked = request.credentials.map(|credentials| credentials.name.as_str());
    let of_key = desk.changes.certificates_of(&csr.spki_hash())?;
    if let Some(answer) = stored(desk, csr, asked, &of_key)? {
        return Ok(answer);
    }
    let Some(credentials) = request.credentials else { return Ok(Answer::Unauthorized) };
    // The token first: without it, a refusal must not reveal the record.
    let payload = payload_of(desk, credentials, csr.der())?;
    notes.budget = Budget::Payload(payload.id);
    let Some(node) = desk.entitlement(&payload.node)? else {
        return Err(Refusal::Unknown { node_exists: false }.into());
    };
    let visit = Visit { node: &node, csr, of_key: &of_key, shown: Shown::Token(&payload), peer: request.peer };
    gate::pass(desk, &visit, notes)
}

/// If this key has a certificate with these names already, sends the same certificate again, so that a lost answer costs no
/// signature and no token. The requester may be anybody who has seen the CSR; the certificate is useless without the key.
fn stored(desk: &Desk<'_>, csr: &Csr, asked: Option<&str>, of_key: &[CertificateRow]) -> Result<Option<Answer>, Stop> {
    for row in of_key {
        if asked.is_some_and(|name| name != row.node) || row.revoked.is_some() || row.not_after <= desk.now {
            continue;
        }
        let Some(Entitlement { names, key, .. }) = desk.entitlement(&row.node)? else { continue };
        let is_a_server = names_a_server(&names, desk.urls).is_some();
        if !is_a_server && csr.matches(&names, key).is_ok() && ca::is_for(&row.der, &names) {
            let detail = format!("{names} key {}, same certificate again", row.key_code);
            return Ok(Some(Answer::Issued { der: row.der.clone(), detail }));
        }
    }
    Ok(None)
}

/// The node's payload with this token, if it is valid now.
pub(super) fn payload_of(desk: &Desk<'_>, credentials: &Credentials, csr: &[u8]) -> Result<PayloadRow, Stop> {
    let payloads = desk.changes.payloads(&credentials.name)?;
    let found = match &credentials.proof {
        Proof::Token(token) => {
            let hash = sha256(token.expose());
            payloads.iter().position(|row| verify_slices_are_equal(&row.token_hash, &hash).is_ok())
        }
        Proof::Line { tag, hello } => payloads.iter().position(|row| seal::is_proof(tag, &row.token_hash, hello, csr)),
    };
    // Newest first. A payload voids earlier ones at the time of its own composition; a payload that was voided at any other
    // time was revoked.
    let voids = |at| payloads.iter().take(found.unwrap_or_default()).any(|newer| newer.composed == at);
    let replaced = found.and_then(|found| payloads.get(found)?.void_at).is_some_and(voids);
    let Some(payload) = found.and_then(|found| payloads.into_iter().nth(found)) else {
        let node_exists = desk.changes.node(&credentials.name)?.is_some();
        return Err(Refusal::Unknown { node_exists }.into());
    };
    if let Some(at) = payload.void_at {
        return Err(if replaced { Refusal::Void(at) } else { Refusal::Withdrawn(at) }.into());
    }
    if desk.now >= payload.expiry {
        return Err(Refusal::Expired { expiry: payload.expiry, now: desk.now }.into());
    }
    Ok(payload)
}
