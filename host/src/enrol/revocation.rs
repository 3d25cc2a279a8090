//! Revocation: by an administrator, or because another certificate took the place of one; and the alarm when what
//! was revoked is still in use.

use der::Decode;
use imprint::time::Timestamp;
use x509_cert::certificate::Certificate;

use super::{Alarm, Desk, EnrolError, Stop, approval};
use crate::csr::Csr;
use crate::store::{Budget, CertificateRow, Changes, Event, Store, StoreError};
use crate::x509::CrlReason;

/// Notes that a client has proven in a handshake that it has this certificate. One that was not issued here is no news.
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
    /// `by` takes the place of `last`, which is revoked.
    pub(super) fn supersede(&self, last: &CertificateRow, by: &Csr, peer: &str) -> Result<(), Stop> {
        Ok(self.ended(last, &by.code().to_string(), peer)?)
    }

    fn ended(&self, last: &CertificateRow, by: &str, peer: &str) -> Result<(), StoreError> {
        self.changes.revoke(last, CrlReason::Superseded, self.now)?;
        let detail = format!("key {}: replaced by key {by}", last.key_code);
        let event = Event { event: "superseded", node: Some(&last.node), peer: Some(peer), detail: &detail };
        self.changes.audit(&event, self.now)
    }

    /// A client has proven that it has this certificate. The first time, the one that it renews ends: its successor has
    /// arrived.
    pub(super) fn proven(&self, row: &CertificateRow, peer: &str) -> Result<(), StoreError> {
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

    /// A revoked certificate, or its key, is still in use. What there is to say about it, the first time.
    pub(super) fn in_use(&self, row: &CertificateRow, peer: &str) -> Result<Option<Alarm>, StoreError> {
        let Some((at, reason)) = row.revoked else { return Ok(None) };
        let (code, name) = (&row.key_code, reason_name(reason));
        let valid = if reason == CrlReason::Superseded { self.other_keys(row)? } else { Vec::new() };
        let question = "is there a second machine with its payload or its key?";
        let detail = if valid.is_empty() {
            format!("key {code} is in use, but was revoked at {at} ({name}): {question}")
        } else {
            // A stolen certificate that was renewed and shown ends the node's own: then it is the node that is heard of
            // here, and the key to revoke is the other one.
            let (valid, node) = (valid.join(", "), &row.node);
            format!(
                "key {code} is in use, but was revoked at {at} ({name}), and key {valid} is valid now: {question} compare \
                 the code on the node: if it is {code}, the other machine has key {valid}; then run imprint-host revoke \
                 {node} and make the node another payload"
            )
        };
        // Whoever shows it has nothing that is good now, and may have any number of them.
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

    /// Somebody has to look at a certificate that is valid. There are so many of those as can be signed.
    pub(super) fn alarm(&self, row: &CertificateRow, peer: &str, detail: &str) -> Result<Option<Alarm>, StoreError> {
        self.alarm_within(None, row, peer, detail)
    }

    /// Said once for each certificate, until it is revoked or an administrator has revoked something of the node's. What is
    /// not in the audit log yet is news until it is.
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

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The node has no certificate that is valid, or none of that key.
    #[error("{}", nothing(.node, .code.as_deref(), .valid))]
    Nothing {
        /// The node.
        node: String,
        /// The code that was given; `None`: any.
        code: Option<String>,
        /// Codes of the keys whose certificates are valid.
        valid: Vec<String>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Revokes the certificates of a node: those of one key, or all, and then its payloads are void, too. What waits or was
/// approved and not collected is denied with it: this decision is the later one.
pub fn revoke(
    store: &mut Store,
    node: &str,
    code: Option<&str>,
    reason: CrlReason,
    now: Timestamp,
) -> Result<(Vec<CertificateRow>, usize), RevokeError> {
    let changes = store.changes()?;
    let live = changes.live_certificates(node, now)?;
    let is_meant =
        |row: &CertificateRow| code.is_none_or(|code| approval::plain(code) == approval::plain(&row.key_code));
    let (meant, others): (Vec<_>, Vec<_>) = live.into_iter().partition(is_meant);
    let void = if code.is_none() { changes.void_payloads(node, now)? } else { 0 };
    let denied = approval::deny_of_key(&changes, node, code, now)?;
    if meant.is_empty() && void == 0 && denied == 0 {
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
    // Whoever has decided has seen the alarms. A stolen certificate whose other key was revoked can be used again.
    changes.rearm(node)?;
    changes.commit()?;
    Ok((meant, void))
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
