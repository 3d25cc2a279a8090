//! Revocation, by an administrator or because a certificate was replaced; and the alarm when a revoked certificate or key
//! is still in use. Signs nothing.

use der::Decode;
use imprint::time::Timestamp;
use x509_cert::certificate::Certificate;

use super::{Alarm, Desk, EnrolError, Stop, approval};
use crate::code::plain;
use crate::csr::Csr;
use crate::store::{Budget, CertificateRow, Changes, Event, Store, StoreError};
use crate::x509::CrlReason;

/// Notes that a client has proven in a TLS handshake that it has this certificate. Ignores certificates of other CAs.
pub fn shown_in_a_handshake(desk: &Desk<'_>, der: &[u8], peer: &str) -> Result<Option<Alarm>, EnrolError> {
    let Some(row) = certificate(desk.changes, der)? else { return Ok(None) };
    if row.revoked.is_some() {
        return Ok(desk.in_use(&row, peer)?);
    }
    desk.proven(&row, peer)?;
    Ok(None)
}

/// The certificate with these bytes, if it was issued here.
pub(super) fn certificate(changes: &Changes<'_>, der: &[u8]) -> Result<Option<CertificateRow>, StoreError> {
    let Ok(parsed) = Certificate::from_der(der) else { return Ok(None) };
    changes.certificate(parsed.tbs_certificate.serial_number.as_bytes(), der)
}

impl Desk<'_> {
    /// Revokes `last`, because the certificate of `by` replaces it.
    pub(super) fn supersede(&self, last: &CertificateRow, by: &Csr, peer: &str) -> Result<(), Stop> {
        Ok(self.ended(last, &by.code().to_string(), peer)?)
    }

    fn ended(&self, last: &CertificateRow, by: &str, peer: &str) -> Result<(), StoreError> {
        self.changes.revoke(last, CrlReason::Superseded, self.now)?;
        let detail = format!("key {}: replaced by key {by}", last.key_code);
        let event = Event { event: "superseded", node: Some(&last.node), peer: Some(peer), detail: &detail };
        self.changes.audit(&event, self.now)
    }

    /// Notes that a client has proven that it has this certificate. At the first time, the certificate that it renews ends:
    /// the successor has arrived.
    pub(super) fn proven(&self, row: &CertificateRow, peer: &str) -> Result<(), StoreError> {
        self.changes.shown(&row.serial, self.now)?;
        if row.seen_at.is_some() {
            return Ok(());
        }
        self.changes.seen(&row.serial, self.now)?;
        if row.renews.is_none() {
            return Ok(());
        }
        let live = self.changes.live_certificates(&row.node, self.now)?;
        for last in live.iter().take_while(|last| last.serial != row.serial) {
            self.ended(last, &row.key_code, peer)?;
        }
        Ok(())
    }

    /// The alarm for a revoked certificate whose key is still in use. `None` if it is not revoked or the alarm was given
    /// before.
    pub(super) fn in_use(&self, row: &CertificateRow, peer: &str) -> Result<Option<Alarm>, StoreError> {
        let Some((at, reason)) = row.revoked else { return Ok(None) };
        let (code, name) = (&row.key_code, reason_name(reason));
        let valid = if reason == CrlReason::Superseded { self.other_keys(row)? } else { Vec::new() };
        let question = "is there a second machine with its payload or its key?";
        let detail = if valid.is_empty() {
            format!("key {code} is in use, but was revoked at {at} ({name}): {question}")
        } else {
            // A thief who renews a stolen certificate and shows the new one ends the node's own. Then this alarm is about
            // the node, and the key to revoke is the other one.
            let (valid, node) = (valid.join(", "), &row.node);
            format!(
                "key {code} is in use, but was revoked at {at} ({name}), and key {valid} is valid now: {question} compare \
                 the code on the node: if it is {code}, the other machine has key {valid}; then run imprint-host revoke \
                 {node} and make the node another payload"
            )
        };
        // The budget limits these: a client without a valid certificate could show any number of revoked ones.
        self.alarm_within(Some(&Budget::Alarm), row, peer, &detail)
    }

    /// Codes of the node's other keys that have a valid certificate.
    fn other_keys(&self, row: &CertificateRow) -> Result<Vec<String>, StoreError> {
        let mut codes: Vec<String> = Vec::new();
        for live in self.changes.live_certificates(&row.node, self.now)? {
            if live.spki_hash != row.spki_hash && !codes.contains(&live.key_code) {
                codes.push(live.key_code);
            }
        }
        Ok(codes)
    }

    /// An alarm about a valid certificate. No budget: signatures have a limit of their own.
    pub(super) fn alarm(&self, row: &CertificateRow, peer: &str, detail: &str) -> Result<Option<Alarm>, StoreError> {
        self.alarm_within(None, row, peer, detail)
    }

    /// Gives an alarm once for each certificate, until the certificate is revoked or the administrator revokes something of
    /// the node. An alarm that could not be written to the audit log is given again.
    fn alarm_within(
        &self,
        budget: Option<&Budget>,
        row: &CertificateRow,
        peer: &str,
        detail: &str,
    ) -> Result<Option<Alarm>, StoreError> {
        if self.changes.has_alarm(&row.serial)? {
            return Ok(None);
        }
        let event = Event { event: "alarm", node: Some(&row.node), peer: Some(peer), detail };
        let written = match budget {
            Some(budget) => self.changes.audit_within(budget, &event, self.now)?,
            None => {
                self.changes.audit(&event, self.now)?;
                true
            }
        };
        if written {
            self.changes.alarmed(&row.serial, self.now)?;
        }
        Ok(Some(Alarm { node: row.node.clone(), peer: peer.to_owned(), detail: detail.to_owned() }))
    }
}

/// Why `revoke` failed.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The node has no valid certificate, or no valid certificate of this key.
    #[error("{}", nothing(.node, .code.as_deref(), .valid))]
    Nothing {
        /// The node.
        node: String,
        /// The code that was given; `None`: any key.
        code: Option<String>,
        /// Codes of the keys whose certificates are valid.
        valid: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an administrator has revoked.
#[derive(Default)]
pub struct Revoked {
    /// The certificates.
    pub certificates: Vec<CertificateRow>,
    /// How many payloads became void.
    pub payloads: usize,
    /// Codes of line keys that were let in as the node at a door and had no certificate yet.
    pub callers: Vec<String>,
}

/// Revokes the certificates of one key of a node, or all its certificates; with all of them its payloads become void, and nobody
/// stays let in as the node at a door. Open requests are denied as well: the later decision counts.
pub fn revoke(
    store: &mut Store,
    node: &str,
    code: Option<&str>,
    reason: CrlReason,
    now: Timestamp,
) -> Result<Revoked, RevokeError> {
    let changes = store.changes()?;
    let live = changes.live_certificates(node, now)?;
    let is_meant = |row: &CertificateRow| code.is_none_or(|code| plain(code) == plain(&row.key_code));
    let (meant, others): (Vec<_>, Vec<_>) = live.into_iter().partition(is_meant);
    let callers = if others.is_empty() { let_in(&changes, node, now)? } else { Vec::new() };
    let void = if code.is_none() { changes.void_payloads(node, now)? } else { 0 };
    let denied = approval::deny_of_key(&changes, node, code, now)?;
    let ends_callers = code.is_none() && !callers.is_empty();
    if meant.is_empty() && void == 0 && denied == 0 && !ends_callers {
        let valid = others.into_iter().map(|row| row.key_code).collect();
        return Err(RevokeError::Nothing { node: node.to_owned(), code: code.map(str::to_owned), valid });
    }
    for row in &meant {
        changes.revoke(row, reason, now)?;
        let detail = format!("key {}, valid until {}: {}", row.key_code, row.not_after, reason_name(reason));
        changes.audit(&Event { event: "revoked", node: Some(node), peer: None, detail: &detail }, now)?;
    }
    if void > 0 {
        let detail = format!("{void} payloads void: {}", reason_name(reason));
        changes.audit(&Event { event: "revoked", node: Some(node), peer: None, detail: &detail }, now)?;
    }
    if others.is_empty() {
        // At a door, no rule gives back what an administrator has taken.
        changes.end(node, now)?;
    }
    if !callers.is_empty() {
        let detail = format!("line key {} is not let in any more", callers.join(", "));
        changes.audit(&Event { event: "revoked", node: Some(node), peer: None, detail: &detail }, now)?;
    }
    // The administrator has seen the alarms and decided, so later use gives a new alarm.
    changes.rearm(node)?;
    changes.commit()?;
    Ok(Revoked { certificates: meant, payloads: void, callers })
}

/// Codes of line keys that are let in as the node and have no certificate yet. A rule lets one in for each boot, so there are
/// few.
fn let_in(changes: &Changes<'_>, node: &str, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let mut callers = changes.callers_of_node(node, now)?;
    callers.retain(|row| row.standing.level().is_some());
    let mut codes: Vec<String> = callers.into_iter().map(|row| row.code).collect();
    codes.sort();
    codes.dedup();
    Ok(codes)
}

/// The name of a reason (RFC 5280 §5.3.1).
pub fn reason_name(reason: CrlReason) -> &'static str {
    match reason {
        CrlReason::KeyCompromise => "keyCompromise",
        CrlReason::AffiliationChanged => "affiliationChanged",
        CrlReason::Superseded => "superseded",
        CrlReason::CessationOfOperation => "cessationOfOperation",
        _ => "unspecified",
    }
}

fn nothing(node: &str, code: Option<&str>, valid: &[String]) -> String {
    match code {
        Some(code) if !valid.is_empty() => {
            format!("{node} has no valid certificate of key {code}; it has those of {}", valid.join(", "))
        }
        _ => format!("{node} has no valid certificate; imprint-host nodes lists what each node has"),
    }
}
