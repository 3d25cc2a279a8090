//! Changes to the store, in one transaction. SQL only; decides nothing. Queries that read are in [`Books`].

use std::ops::Deref;

use imprint::payload::PayloadId;
use imprint::shown::line;
use imprint::time::Timestamp;
use rusqlite::{Params, Transaction, params};

use super::budget::Tally;
use super::rows::{REQUEST_LIFE, millis, mode_name, reason_code, verdict_name};
use super::{Books, CertificateRow, CrlRow, Event, NodeRow, PayloadRow, RequestRow, StoreError, Verdict};
use crate::x509::CrlReason;

/// A transaction: all its changes happen, or none. Dropping it without `commit` rolls it back.
pub struct Changes<'s> {
    pub(super) transaction: Transaction<'s>,
    pub(super) books: &'s Books,
    pub(super) unwritten: &'s Tally,
    pub(super) actor: Option<&'s str>,
    /// How many rows this connection had changed before.
    pub(super) before: u64,
}

impl Deref for Changes<'_> {
    type Target = Books;

    /// Reads inside the transaction see its changes.
    fn deref(&self) -> &Books {
        self.books
    }
}

impl Changes<'_> {
    /// For decisions about requests of nodes: the audit log names no administrator, whoever has started the program.
    #[must_use]
    pub fn for_nodes(self) -> Self {
        Changes { actor: None, ..self }
    }

    /// Whether this transaction has changed anything yet.
    pub fn writes(&self) -> bool {
        self.transaction.total_changes() > self.before
    }

    /// The administrator who runs the command, as the audit log names him.
    pub fn actor(&self) -> Option<&str> {
        self.actor
    }

    /// Commits the changes. They are on the disk afterwards.
    pub fn commit(self) -> Result<(), StoreError> {
        self.books.check(self.transaction.commit())
    }

    /// Adds a line to the audit log. Line breaks and control characters in its values are escaped.
    pub fn audit(&self, event: &Event<'_>, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit (at, event, node, peer, detail, actor) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (node, peer) = (event.node.map(line), event.peer.map(line));
        self.run(sql, params![millis(now), event.event, node, peer, line(event.detail), self.actor])
    }

    /// Adds a node, or replaces its record. The entitlement of the old record is removed.
    pub fn put_node(&self, node: &NodeRow, replace: bool, now: Timestamp) -> Result<(), StoreError> {
        let before = self.node(&node.name)?;
        if before.is_some() && !replace {
            return Err(StoreError::NodeExists(node.name.clone()));
        }
        let sql = "INSERT INTO nodes (name, file, record, added_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (name) DO UPDATE SET file = ?2, record = ?3";
        self.run(sql, params![node.name, node.file, node.record, millis(now)])?;
        match before {
            Some(before) if before.record != node.record => self.record_replaced(&node.name, now),
            _ => Ok(()),
        }
    }

    /// Adds a payload.
    pub fn add_payload(&self, payload: &PayloadRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO payloads (id, node, token_hash, mode, composed, expiry) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (id, hash) = (payload.id.0.as_slice(), payload.token_hash.as_slice());
        let (composed, expiry) = (millis(payload.composed), millis(payload.expiry));
        self.run(sql, params![id, payload.node, hash, mode_name(payload.mode), composed, expiry])
    }

    /// Voids the node's payloads that have not expired. Used ones, too: with them an administrator could still approve
    /// another key. A caller at a door whose payload was among them has ended. The answer: how many.
    pub fn void_payloads(&self, node: &str, now: Timestamp) -> Result<usize, StoreError> {
        let sql = "UPDATE payloads SET void_at = ?2 WHERE node = ?1 AND void_at IS NULL AND expiry > ?2";
        let count = self.execute(sql, params![node, millis(now)])?;
        self.payloads_void(node, now)?;
        Ok(count)
    }

    /// Notes that a token was used.
    pub fn spend(&self, payload: PayloadId, key_code: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE payloads SET spent_at = ?2, spent_by = ?3 WHERE id = ?1";
        self.run(sql, params![payload.0.as_slice(), millis(now), key_code])
    }

    /// Notes that a request with this payload was denied.
    pub fn deny_payload(&self, payload: PayloadId, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE payloads SET denied_at = ?2 WHERE id = ?1";
        self.run(sql, params![payload.0.as_slice(), millis(now)])
    }

    /// Adds a certificate.
    pub fn add_certificate(&self, row: &CertificateRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO certificates
                   (serial, node, payload, spki_hash, key_code, der, issued_at, not_after, renews, issuer, approved, peer)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        let (payload, spki_hash) = (row.payload.0.as_slice(), row.spki_hash.as_slice());
        let (issued_at, not_after) = (millis(row.issued_at), millis(row.not_after));
        let CertificateRow { serial, node, key_code, der, renews, issuer, approved, peer, .. } = row;
        self.run(
            sql,
            params![
                serial, node, payload, spki_hash, key_code, der, issued_at, not_after, renews, issuer, approved, peer
            ],
        )
    }

    /// Revokes a certificate, if it is not revoked. Resets its alarm, so that further use gives a new one.
    pub fn revoke(&self, row: &CertificateRow, reason: CrlReason, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificates SET revoked_at = ?2, reason = ?3, alarmed_at = NULL
                   WHERE serial = ?1 AND revoked_at IS NULL";
        self.run(sql, params![row.serial, millis(now), reason_code(reason)])
    }

    /// Notes that the log has an alarm about a certificate.
    pub fn alarmed(&self, serial: &[u8], now: Timestamp) -> Result<(), StoreError> {
        self.run("UPDATE certificates SET alarmed_at = ?2 WHERE serial = ?1", params![serial, millis(now)])
    }

    /// Resets the alarms of all certificates of a node, so that further use gives new ones.
    pub fn rearm(&self, node: &str) -> Result<(), StoreError> {
        self.run("UPDATE certificates SET alarmed_at = NULL WHERE node = ?1 AND alarmed_at IS NOT NULL", [node])
    }

    /// Notes number and time of a CRL. The CRL itself is not stored: it can be made again.
    pub fn put_crl(&self, issuer: &str, row: &CrlRow) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO crls (issuer, number, made_at) VALUES (?1, ?2, ?3)";
        let number = i64::try_from(row.number).unwrap_or(i64::MAX);
        self.run(sql, params![issuer, number, millis(row.made_at)])
    }

    /// Notes the first time that a client has proven that it has this certificate.
    pub fn seen(&self, serial: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificates SET seen_at = ?2 WHERE serial = ?1 AND seen_at IS NULL";
        self.run(sql, params![serial, millis(now)])
    }

    /// Deletes requests of all nodes that were not repeated for a day.
    pub fn forget_requests(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run("DELETE FROM requests WHERE last_at <= ?1", [millis(now.minus(REQUEST_LIFE))])
    }

    /// Stores a request, or updates it if it was made before.
    pub fn put_request(&self, row: &RequestRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO requests (node, spki_hash, key_code, why, peer, first_at, last_at, payload)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                   ON CONFLICT (node, spki_hash) DO UPDATE SET peer = ?5, last_at = ?7, payload = ?8";
        let RequestRow { node, spki_hash, key_code, why, peer, first_at, last_at, payload, .. } = row;
        let (spki_hash, payload) = (spki_hash.as_slice(), payload.as_ref().map(|id| id.0.as_slice()));
        self.run(sql, params![node, spki_hash, key_code, why, peer, millis(*first_at), millis(*last_at), payload])
    }

    /// Stores the verdict about a request.
    pub fn decide(&self, row: &RequestRow, verdict: Verdict) -> Result<(), StoreError> {
        let sql = "UPDATE requests SET verdict = ?3 WHERE node = ?1 AND spki_hash = ?2";
        self.run(sql, params![row.node, row.spki_hash.as_slice(), verdict_name(verdict)])
    }

    /// Deletes a request whose certificate was signed.
    pub fn drop_request(&self, row: &RequestRow) -> Result<(), StoreError> {
        let sql = "DELETE FROM requests WHERE node = ?1 AND spki_hash = ?2";
        self.run(sql, params![row.node, row.spki_hash.as_slice()])
    }

    /// Deletes the requests of a node that wait or were approved: a new payload has replaced the one that they were made
    /// with.
    pub fn drop_requests(&self, node: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM requests WHERE node = ?1 AND verdict IS NOT 'denied'", [node])
    }

    pub(super) fn run(&self, sql: &str, values: impl Params) -> Result<(), StoreError> {
        self.execute(sql, values).map(|_| ())
    }
}
