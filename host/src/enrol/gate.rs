//! The one gate: a first enrolment, a renewal and a request over a line get a certificate here or not at all. Who asks has
//! shown a token or a certificate by then. What is looked at, in this order: the record, the CSR, the CSR's key, what the
//! token or the certificate is good for, and how often it brought one; then what ends with it.

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

/// A certificate that nobody has shown within this time of its signature may never have reached the node's next boot
/// stage: power may have failed between signature and hand-over.
const LOST: Duration = Duration::from_secs(15 * 60);

/// So many certificates an hour the token of one payload brings. A node that boots again and again is broken, and may be
/// anybody.
const OF_PAYLOAD: usize = 20;
/// So many renewals an hour the address gets that the certificate was sent to: a node that crashes after each signature
/// tries again.
const OF_HOME: usize = 10;
/// So many all other addresses get together. The one that the certificate was sent to has its own, whatever others do who
/// have the same certificate.
const OF_OTHERS: usize = 10;
/// So many of those one address gets, which leaves turns for a node that is not where its certificate was sent to.
const OF_ADDRESS: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);

/// What somebody has shown.
pub(super) enum Shown<'a> {
    /// The token of a payload of the node that is good.
    Token(&'a PayloadRow),
    /// A certificate of the node that is valid, and its key.
    Certificate(&'a CertificateRow),
}

/// Who asks, and for what.
pub(super) struct Visit<'a> {
    pub(super) node: &'a Entitlement,
    pub(super) csr: &'a Csr,
    /// The certificates of the CSR's key, newest first, also those that have expired.
    pub(super) of_key: &'a [CertificateRow],
    pub(super) shown: Shown<'a>,
    pub(super) peer: &'a str,
}

/// What is to happen.
enum Plan<'a> {
    /// A certificate is signed, and these end.
    Sign { because: Because<'a>, end: Vec<CertificateRow> },
    /// Nothing is.
    Say(Answer),
}

/// Decides, and books it.
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
            payload.id
        }
        Shown::Certificate(row) => row.payload,
    };
    notes.signed = true;
    desk.issue(node, csr, payload, because, peer)
}

/// A key that was revoked is revoked everywhere, and a key is one node's. Otherwise revoking it for one node would leave
/// whoever has it a certificate of another.
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

/// What shows that a key was revoked. A certificate that gave way to a newer one of the same key and node does not, also
/// once that one has expired: it was renewed with its key.
fn spoilt(of_key: &[CertificateRow]) -> Option<(&CertificateRow, (Timestamp, CrlReason))> {
    let renewed = |(index, row): (usize, &CertificateRow)| {
        // Newest first.
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
    // Nothing of the last boot is left, whichever payload it had.
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
        // What got lost ends, and one that is in use stays beside the new one.
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

/// The newest certificate of a node is renewed, and the one before it as long as its successor may have got lost. Of all
/// others nothing stays: two are valid at most.
fn by_certificate<'a>(
    desk: &Desk<'_>,
    visit: &Visit<'_>,
    row: &'a CertificateRow,
    notes: &mut Notes,
) -> Result<Plan<'a>, Stop> {
    let Visit { node, csr, peer, .. } = visit;
    let (changes, now) = (desk.changes, desk.now);
    let mut end = changes.live_certificates(node.name.as_str(), now)?;
    // It ended since the handshake.
    let Some(latest) = end.last() else { return Err(Refusal::NotOurs.into()) };
    if latest.serial != row.serial {
        let successor = latest.renews.as_ref() == Some(&row.serial) && latest.seen_at.is_none();
        // The same request again: its answer again, with no signature.
        if successor && latest.spki_hash == csr.spki_hash() {
            let detail = format!("{} key {}, same certificate again", node.name, latest.key_code);
            return Ok(Plan::Say(Answer::Issued { der: latest.der.clone(), detail }));
        }
        let lost = successor && is_lost(latest, now);
        // Two keys with one certificate: power may have failed, or it was stolen. Who it is cannot be seen from here.
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

/// Whoever has stolen a certificate must not be able to take the node's turn: the address that the certificate was sent to
/// has turns of its own.
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

/// Nobody has shown it, and it was signed a short while ago. A clock that was set back makes nothing lost; neither is
/// one lost whose key an administrator has compared.
fn is_lost(last: &CertificateRow, now: Timestamp) -> bool {
    let young = last.issued_at <= now && now < last.issued_at.plus(LOST);
    young && last.seen_at.is_none() && last.revoked.is_none() && !last.approved
}

/// How long until there may be another one, when these were there within the hour, oldest first; `None`: now.
fn wait(signed: &[Timestamp], most: usize, now: Timestamp) -> Option<Duration> {
    // A clock that was ahead is set right: what it dated has no hour of its own.
    let signed: Vec<&Timestamp> = signed.iter().filter(|at| **at <= now).collect();
    let oldest = signed.get(signed.len().checked_sub(most)?)?;
    Some(oldest.plus(HOUR).since(now).clamp(Duration::from_secs(1), HOUR))
}
