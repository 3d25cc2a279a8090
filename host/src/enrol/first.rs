//! A node's first certificate: the token of its payload, used once or at each boot.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use imprint::digest::sha256;
use imprint::line::seal;
use imprint::payload::TokenMode;
use imprint::time::Timestamp;

use super::{Alarm, Answer, Because, Credentials, Decision, Desk, EnrolError, Proof, Refusal, Request, Stop, approval};
use crate::ca;
use crate::csr::{Csr, shown};
use crate::record::{Record, names_a_server};
use crate::store::{CertificateRow, PayloadRow};

/// A certificate that nobody has shown within this time of its signature may never have reached the node's next boot
/// stage: power may have failed between signature and hand-over.
pub(super) const LOST: Duration = Duration::from_secs(15 * 60);

/// So many certificates an hour one payload brings. A node that boots again and again is broken, and may be anybody.
const SIGNATURES: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);

/// Decides about a first certificate, and books it.
pub fn simple_enroll(desk: &Desk<'_>, request: &Request<'_>) -> Result<Decision, EnrolError> {
    let node = request.credentials.map(|credentials| shown(&credentials.name));
    let mut alarm = None;
    let decided = decide(desk, request, &mut alarm);
    let mut decision = desk.decision(decided, node.as_deref(), request.peer, "enrolled")?;
    decision.alarm = alarm;
    Ok(decision)
}

fn decide(desk: &Desk<'_>, request: &Request<'_>, alarm: &mut Option<Alarm>) -> Result<Answer, Stop> {
    let Desk { changes, urls, now, .. } = *desk;
    let csr = Csr::parse(request.csr)?;
    let asked = request.credentials.map(|credentials| credentials.name.as_str());
    let of_key = changes.certificates_of(&csr.spki_hash(), now)?;
    if let Some(answer) = stored(desk, &csr, asked, &of_key)? {
        return Ok(answer);
    }
    let Some(credentials) = request.credentials else { return Ok(Answer::Unauthorized) };
    let Some(row) = changes.node(&credentials.name)? else {
        return Err(Refusal::Unknown { node_exists: false }.into());
    };
    let record = Record::of_store(&row.file, &row.record, urls)?;
    // The token first: nobody without it learns what the record says.
    let payload = payload_of(desk, &row.name, credentials, request.csr)?;
    csr.matches(&record.names, record.key)?;
    if let Some(name) = names_a_server(&record.names, urls) {
        return Err(Refusal::ServerName(name).into());
    }
    if let Some(revoked) = of_key.iter().find(|certificate| certificate.node == row.name)
        && let Some((at, reason)) = revoked.revoked
    {
        *alarm = desk.in_use(revoked, request.peer)?;
        return Err(Refusal::Revoked { at, reason }.into());
    }
    let mut because = Because::Token;
    if payload.spent.is_some()
        && let Some(after) = too_often(desk, &payload)?
    {
        let detail = format!("{SIGNATURES} certificates within an hour for payload {}; the next one later", payload.id);
        return Ok(Answer::Later { after, detail });
    }
    match (payload.mode, &payload.spent) {
        (_, None) => {}
        // Nothing of the last boot is left.
        (TokenMode::EachBoot, Some(_)) => {
            for last in changes.live_certificates(&row.name, now)? {
                desk.supersede(&last, &csr, request.peer)?;
            }
        }
        (TokenMode::Once, Some((at, key_code))) => match changes.latest_of_payload(payload.id)? {
            Some(last) if is_lost(&last, now) && !approval::is_denied(changes, &row.name, &csr, now)? => {
                desk.supersede(&last, &csr, request.peer)?;
            }
            _ => {
                let why = format!("token already used by key {key_code} at {at}");
                match approval::asked(changes, &row.name, &csr, &why, request.peer, now)? {
                    approval::Standing::Approved => because = Because::Approved,
                    approval::Standing::Pending { first } => {
                        let detail = format!("key {}: {why}", csr.code());
                        return Ok(Answer::Pending { detail, first });
                    }
                }
            }
        },
    }
    changes.spend(payload.id, &csr.code().to_string(), now)?;
    desk.issue(&record, &csr, payload.id, because)
}

/// Nobody has shown it, and it was signed a short while ago. A clock that was set back makes nothing lost; neither is
/// one lost whose key an administrator has compared.
pub(super) fn is_lost(last: &CertificateRow, now: Timestamp) -> bool {
    let young = last.issued_at <= now && now < last.issued_at.plus(LOST);
    young && last.seen_at.is_none() && last.revoked.is_none() && !last.approved
}

/// How long until this payload may bring another certificate; `None`: now.
fn too_often(desk: &Desk<'_>, payload: &PayloadRow) -> Result<Option<Duration>, Stop> {
    let mut signed = desk.changes.signed_since(payload.id, desk.now.minus(HOUR))?;
    // A clock that was ahead is set right: what it dated has no hour of its own.
    signed.retain(|at| *at <= desk.now);
    let Some(oldest) = signed.len().checked_sub(SIGNATURES).and_then(|index| signed.get(index)) else {
        return Ok(None);
    };
    Ok(Some(oldest.plus(HOUR).since(desk.now).clamp(Duration::from_secs(1), HOUR)))
}

/// The same key with the same names has its certificate already: it is sent again, without signature or token, so
/// that an answer that was lost costs nothing. Whoever asks has proven that it has the key.
fn stored(desk: &Desk<'_>, csr: &Csr, asked: Option<&str>, of_key: &[CertificateRow]) -> Result<Option<Answer>, Stop> {
    for row in of_key {
        if asked.is_some_and(|name| name != row.node) || row.revoked.is_some() {
            continue;
        }
        let Some(node) = desk.changes.node(&row.node)? else { continue };
        let record = Record::of_store(&node.file, &node.record, desk.urls)?;
        if csr.matches(&record.names, record.key).is_ok() && ca::is_for(&row.der, &record.names) {
            let detail = format!("{} key {}, same certificate again", record.names, row.key_code);
            return Ok(Some(Answer::Issued { der: row.der.clone(), detail }));
        }
    }
    Ok(None)
}

/// The payload whose token this is, if it may be used now.
pub(super) fn payload_of(
    desk: &Desk<'_>,
    node: &str,
    credentials: &Credentials,
    csr: &[u8],
) -> Result<PayloadRow, Stop> {
    let payloads = desk.changes.payloads(node)?;
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
    if desk.now >= payload.expiry {
        return Err(Refusal::Expired { expiry: payload.expiry, now: desk.now }.into());
    }
    Ok(payload)
}
