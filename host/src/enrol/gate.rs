//! The gate: the only place that signs certificates for nodes that ask, by first enrolment, renewal or line. Callers have
//! checked the token or the client certificate. The gate checks, in this order: the record, the CSR, the CSR's key, what
//! the token or certificate is valid for, and how many certificates it got this hour. Then it decides which older
//! certificates end. Never checks a token or a signature itself.

use std::time::Duration;

use imprint::payload::TokenMode;
use imprint::time::Timestamp;

use super::{Answer, Because, Desk, Notes, Refusal, Stop, approval};
use crate::ca;
use crate::csr::Csr;
use crate::origin;
use crate::record::{Entitlement, names_a_server};
use crate::store::{CertificateRow, PayloadRow};
use crate::x509::CrlReason;

/// A certificate younger than this that no client has shown may be lost: power may have failed between signature and
/// hand-over to the next boot stage.
const LOST: Duration = Duration::from_secs(15 * 60);

/// The most certificates an hour for one payload's token. A node in a boot loop is broken, or is an attacker.
const OF_PAYLOAD: usize = 20;
/// The most renewals an hour from the address that the certificate was sent to: a node that crashes after each signature
/// tries again.
const OF_HOME: usize = 10;
/// The most renewals an hour from all other addresses together. The limits are separate, so that a thief of the certificate
/// cannot use up the node's renewals.
const OF_OTHERS: usize = 10;
/// The most renewals an hour from one other address. This leaves some for a node whose address has changed.
const OF_ADDRESS: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);

/// The proof that the requester has shown.
pub(super) enum Shown<'a> {
    /// The token of a valid payload of the node.
    Token(&'a PayloadRow),
    /// A valid certificate of the node, with proof of its key.
    Certificate(&'a CertificateRow),
}

/// A request at the gate.
pub(super) struct Visit<'a> {
    pub(super) node: &'a Entitlement,
    pub(super) csr: &'a Csr,
    /// The certificates of the CSR's key, newest first, also those that have expired.
    pub(super) of_key: &'a [CertificateRow],
    pub(super) shown: Shown<'a>,
    pub(super) peer: &'a str,
}

/// What the gate has decided to do.
enum Plan<'a> {
    /// Sign a certificate, and end these.
    Sign { because: Because<'a>, end: Vec<CertificateRow> },
    /// Sign nothing, and answer this.
    Say(Answer),
}

/// Decides about a request, and stores the decision.
pub(super) fn pass(desk: &Desk<'_>, visit: &Visit<'_>, notes: &mut Notes) -> Result<Answer, Stop> {
    let Visit { node, csr, shown, peer, .. } = visit;
    if let Shown::Certificate(row) = shown
        && !ca::is_for(&row.der, &node.names)
    {
        return Err(Refusal::Changed.into());
    }
    csr.matches(&node.names, node.key)?;
    if let Some(name) = names_a_server(&node.names, desk.urls) {
        return Err(Refusal::ServerName(name).into());
    }
    key_is_free(desk, visit, notes)?;
    let plan = match shown {
        Shown::Token(payload) => by_token(desk, visit, payload)?,
        Shown::Certificate(row) => by_certificate(desk, visit, row, notes)?,
    };
    let (because, end) = match plan {
        Plan::Sign { because, end } => (because, end),
        Plan::Say(answer) => return Ok(answer),
    };
    for last in &end {
        desk.supersede(last, csr, peer)?;
    }
    let payload = match shown {
        Shown::Token(payload) => {
            desk.changes.spend(payload.id, &csr.code().to_string(), desk.now)?;
            desk.changes.served(payload.id, node.name.as_str(), desk.now)?;
            payload.id
        }
        Shown::Certificate(row) => row.payload,
    };
    notes.signed = true;
    desk.issue(node, csr, payload, because, peer)
}

/// Refuses a key that was revoked for any node, and a key of another node. Otherwise the holder of a revoked key could
/// still have another node's certificate for it.
fn key_is_free(desk: &Desk<'_>, visit: &Visit<'_>, notes: &mut Notes) -> Result<(), Stop> {
    let Visit { node, of_key, peer, .. } = visit;
    if let Some((row, (at, reason))) = spoilt(of_key) {
        notes.alarm = desk.in_use(row, peer)?;
        return Err(Refusal::Revoked { at, reason }.into());
    }
    let is_others =
        |row: &&CertificateRow| row.node != node.name.as_str() && row.revoked.is_none() && row.not_after > desk.now;
    match of_key.iter().find(is_others) {
        Some(row) => Err(Refusal::KeyOfAnother { node: row.node.clone() }.into()),
        None => Ok(()),
    }
}

/// The certificate that shows that a key was revoked. Not one that a newer certificate of the same key and node superseded,
/// even if the newer one has expired: that was a renewal that kept its key.
fn spoilt(of_key: &[CertificateRow]) -> Option<(&CertificateRow, (Timestamp, CrlReason))> {
    let renewed = |(index, row): (usize, &CertificateRow)| {
        // `of_key` is sorted newest first.
        let newer = of_key.get(..index).unwrap_or_default();
        newer.iter().any(|newer| newer.node == row.node)
            && row.revoked.is_some_and(|(_, reason)| reason == CrlReason::Superseded)
    };
    let mut rows = of_key.iter().enumerate().filter(|entry| !renewed(*entry));
    rows.find_map(|(_, row)| row.revoked.map(|revoked| (row, revoked)))
}

fn by_token<'a>(desk: &Desk<'_>, visit: &Visit<'_>, payload: &PayloadRow) -> Result<Plan<'a>, Stop> {
    let Visit { node, csr, peer, .. } = visit;
    let (changes, now) = (desk.changes, desk.now);
    if payload.spent.is_some() {
        let signed = changes.signed_since(payload.id, now.minus(HOUR))?;
        if let Some(after) = wait(&signed, OF_PAYLOAD, now) {
            let id = payload.id;
            let detail = format!("{OF_PAYLOAD} certificates within an hour for payload {id}; try again later");
            return Ok(Plan::Say(Answer::Later { after, detail }));
        }
    }
    let mut end = changes.live_certificates(node.name.as_str(), now)?;
    // Each boot enrols anew: all earlier certificates end, whichever payload they came from.
    if payload.mode == TokenMode::EachBoot {
        return Ok(Plan::Sign { because: Because::Token, end });
    }
    let Some((at, key_code)) = &payload.spent else {
        end.pop();
        return Ok(Plan::Sign { because: Because::Token, end });
    };
    if let Some(last) = changes.latest_of_payload(payload.id)?
        && is_lost(&last, now)
        && !approval::is_denied(changes, node.name.as_str(), csr, now)?
    {
        // The lost certificate ends; one that is in use stays valid beside the new one.
        if end.last().is_some_and(|newest| newest.serial != last.serial) {
            end.pop();
        } else if end.len() > 1 {
            end.remove(end.len().saturating_sub(2));
        }
        return Ok(Plan::Sign { because: Because::Token, end });
    }
    let why = format!("token already used by key {key_code} at {at}");
    match approval::asked(changes, node.name.as_str(), payload, csr, &why, peer, now)? {
        approval::Standing::Approved => {
            end.pop();
            Ok(Plan::Sign { because: Because::Approved, end })
        }
        approval::Standing::Pending { first } => {
            let detail = format!("key {}: {why}", csr.code());
            Ok(Plan::Say(Answer::Pending { detail, first }))
        }
        approval::Standing::Crowded { waiting, after } => {
            let detail = format!(
                "{waiting} other keys wait for approval with this payload; run imprint-host deny for its node, or make \
                 another payload"
            );
            Ok(Plan::Say(Answer::Later { after, detail }))
        }
    }
}

/// Renews the node's newest certificate; or the one before it, as long as the newest may be lost. All others end, so that
/// at most two are valid.
fn by_certificate<'a>(
    desk: &Desk<'_>,
    visit: &Visit<'_>,
    row: &'a CertificateRow,
    notes: &mut Notes,
) -> Result<Plan<'a>, Stop> {
    let Visit { node, csr, peer, .. } = visit;
    let (changes, now) = (desk.changes, desk.now);
    let mut end = changes.live_certificates(node.name.as_str(), now)?;
    // The certificate ended after the handshake.
    let Some(latest) = end.last() else { return Err(Refusal::NotOurs.into()) };
    if latest.serial != row.serial {
        let successor = latest.renews.as_ref() == Some(&row.serial) && latest.seen_at.is_none();
        // The same request again: send the same answer, without a new signature.
        if successor && latest.spki_hash == csr.spki_hash() {
            let detail = format!("{} key {}, same certificate again", node.name, latest.key_code);
            return Ok(Plan::Say(Answer::Issued { der: latest.der.clone(), detail }));
        }
        let lost = successor && is_lost(latest, now);
        // Two keys have renewed the same certificate: power failed, or it was stolen. The server cannot tell which.
        let detail = format!(
            "key {} asks for another certificate with that of key {}, for which key {} got one at {}: {}; either the \
             node lost that answer, or one of them is somebody else's: compare the code on the node, and revoke the \
             other key with imprint-host revoke {} --key CODE; if that key is not the node's, the certificate of key {} \
             is stolen, too: make the node another payload and then revoke that key",
            csr.code(),
            row.key_code,
            latest.key_code,
            latest.issued_at,
            if lost { "the new key replaces that one" } else { "refused" },
            node.name,
            row.key_code
        );
        notes.alarm = desk.alarm(row, peer, &detail)?;
        if !lost {
            return Err(Refusal::Superseded { key_code: latest.key_code.clone(), at: latest.issued_at }.into());
        }
    }
    if let Some(answer) = renewed_too_often(desk, node.name.as_str(), row, peer)? {
        return Ok(Plan::Say(answer));
    }
    end.retain(|other| other.serial != row.serial);
    Ok(Plan::Sign { because: Because::Renews(&row.serial), end })
}

/// Whether the limits of renewals refuse this one. The address that the certificate was sent to has a limit of its own, so
/// that a thief cannot use up the node's renewals.
fn renewed_too_often(desk: &Desk<'_>, node: &str, row: &CertificateRow, peer: &str) -> Result<Option<Answer>, Stop> {
    let (home, here) = (row.peer.as_deref().map(origin::of), origin::of(peer));
    let renewed = desk.changes.renewed_since(node, desk.now.minus(HOUR))?;
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for (at, peer) in renewed {
        let from = peer.as_deref().map(origin::of);
        if from.as_deref() == Some(&here) {
            own.push(at);
        }
        if from.is_none() || from != home {
            others.push(at);
        }
    }
    let after = if home.as_deref() == Some(&here) {
        wait(&own, OF_HOME, desk.now)
    } else {
        wait(&own, OF_ADDRESS, desk.now).max(wait(&others, OF_OTHERS, desk.now))
    };
    let detail = format!("certificates of {node} were renewed too often within an hour; try again later");
    Ok(after.map(|after| Answer::Later { after, detail }))
}

/// Whether a certificate may be lost: it was signed a short while ago and no client has shown it. Never if the clock was
/// set back since, and never if an administrator approved its key.
fn is_lost(last: &CertificateRow, now: Timestamp) -> bool {
    let young = last.issued_at <= now && now < last.issued_at.plus(LOST);
    young && last.seen_at.is_none() && last.revoked.is_none() && !last.approved
}

/// How long until another certificate may be signed. `signed`: times of signature within the last hour, oldest first.
/// `None`: now.
fn wait(signed: &[Timestamp], most: usize, now: Timestamp) -> Option<Duration> {
    // Times in the future are from before the clock was set back: they do not count.
    let signed: Vec<&Timestamp> = signed.iter().filter(|at| **at <= now).collect();
    let oldest = signed.get(signed.len().checked_sub(most)?)?;
    Some(oldest.plus(HOUR).since(now).clamp(Duration::from_secs(1), HOUR))
}
