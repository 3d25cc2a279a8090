//! Changes to the store, in one transaction: SQL only. What is read for them is in [`Books`].

use std::ops::Deref;

use imprint::payload::PayloadId;
use imprint::shown::line;
use imprint::time::Timestamp;
use rusqlite::{Params, Transaction, params};

use super::budget::Tally;
use super::rows::{REQUEST_LIFE, millis, mode_name, reason_code, verdict_name};
use super::{Books, CertificateRow, CrlRow, Event, NodeRow, PayloadRow, RequestRow, StoreError, Verdict};
use crate::x509::CrlReason;

/// Changes that happen together or not at all. Dropped without `commit`, nothing happened.
pub struct Changes<'s> {
    pub(super) transaction: Transaction<'s>,
    pub(super) books: &'s Books,
    pub(super) unwritten: &'s Tally,
    pub(super) actor: Option<&'s str>,
}

impl Deref for Changes<'_> {
    type Target = Books;

    /// What is read here is read with what was changed.
    fn deref(&self) -> &Books {
        self.books
    }
}

impl Changes<'_> {
    /// Decides about what nodes ask: no administrator decides that, whoever has started the program.
    #[must_use]
    pub fn for_nodes(self) -> Self {
        Changes { actor: None, ..self }
    }

    /// Makes them last.
    pub fn commit(self) -> Result<(), StoreError> {
        self.books.check(self.transaction.commit())
    }

    /// Adds a line to the audit log: one line, whatever its words came from.
    pub fn audit(&self, event: &Event<'_>, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit (at, event, node, peer, detail, actor) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (node, peer) = (event.node.map(line), event.peer.map(line));
        self.run(sql, params![millis(now), event.event, node, peer, line(event.detail), self.actor])
    }

    /// Adds a node, or gives it another record. What the old one entitled it to is gone.
    pub fn put_node(&self, node: &NodeRow, replace: bool, now: Timestamp) -> Result<(), StoreError> {
        if self.node(&node.name)?.is_some() && !replace {
            return Err(StoreError::NodeExists(node.name.clone()));
        }
        let sql = "INSERT INTO nodes (name, file, record, added_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (name) DO UPDATE SET file = ?2, record = ?3";
        self.run(sql, params![node.name, node.file, node.record, millis(now)])
    }

    /// Adds a payload.
    pub fn add_payload(&self, payload: &PayloadRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO payloads (id, node, token_hash, mode, composed, expiry) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (id, hash) = (payload.id.0.as_slice(), payload.token_hash.as_slice());
        let (composed, expiry) = (millis(payload.composed), millis(payload.expiry));
        self.run(sql, params![id, payload.node, hash, mode_name(payload.mode), composed, expiry])
    }

    /// Voids the payloads of a node, used or not: what was used waits for an administrator, who has decided otherwise. How
    /// many there were.
    pub fn void_payloads(&self, node: &str, now: Timestamp) -> Result<usize, StoreError> {
        let sql = "UPDATE payloads SET void_at = ?2 WHERE node = ?1 AND void_at IS NULL AND expiry > ?2";
        self.execute(sql, params![node, millis(now)])
    }

    /// Notes that a token was used.
    pub fn spend(&self, payload: PayloadId, key_code: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE payloads SET spent_at = ?2, spent_by = ?3 WHERE id = ?1";
        self.run(sql, params![payload.0.as_slice(), millis(now), key_code])
    }

    /// Notes that what was asked with a payload was denied.
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

    /// Revokes a certificate; the first time counts. That it is in use is news from then on, whatever was said of it before.
    pub fn revoke(&self, row: &CertificateRow, reason: CrlReason, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificates SET revoked_at = ?2, reason = ?3, alarmed_at = NULL
                   WHERE serial = ?1 AND revoked_at IS NULL";
        self.run(sql, params![row.serial, millis(now), reason_code(reason)])
    }

    /// Notes that the log has an alarm about a certificate.
    pub fn alarmed(&self, serial: &[u8], now: Timestamp) -> Result<(), StoreError> {
        self.run("UPDATE certificates SET alarmed_at = ?2 WHERE serial = ?1", params![serial, millis(now)])
    }

    /// What is found in use of a node's certificates is news again.
    pub fn rearm(&self, node: &str) -> Result<(), StoreError> {
        self.run("UPDATE certificates SET alarmed_at = NULL WHERE node = ?1 AND alarmed_at IS NOT NULL", [node])
    }

    /// Notes that a list of revoked certificates was made. The list itself is not kept: it can be made again.
    pub fn put_crl(&self, issuer: &str, row: &CrlRow) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO crls (issuer, number, made_at) VALUES (?1, ?2, ?3)";
        let number = i64::try_from(row.number).unwrap_or(i64::MAX);
        self.run(sql, params![issuer, number, millis(row.made_at)])
    }

    /// Notes that a client has proven that it has this certificate; the first time counts.
    pub fn seen(&self, serial: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificates SET seen_at = ?2 WHERE serial = ?1 AND seen_at IS NULL";
        self.run(sql, params![serial, millis(now)])
    }

    /// Forgets the requests, of all nodes, that nobody has made for a day.
    pub fn forget_requests(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run("DELETE FROM requests WHERE last_at <= ?1", [millis(now.minus(REQUEST_LIFE))])
    }

    /// Notes that a request came, for the first time or again.
    pub fn put_request(&self, row: &RequestRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO requests (node, spki_hash, key_code, why, peer, first_at, last_at, payload)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                   ON CONFLICT (node, spki_hash) DO UPDATE SET peer = ?5, last_at = ?7, payload = ?8";
        let RequestRow { node, spki_hash, key_code, why, peer, first_at, last_at, payload, .. } = row;
        let (spki_hash, payload) = (spki_hash.as_slice(), payload.as_ref().map(|id| id.0.as_slice()));
        self.run(sql, params![node, spki_hash, key_code, why, peer, millis(*first_at), millis(*last_at), payload])
    }

    /// Notes what was decided about a request.
    pub fn decide(&self, row: &RequestRow, verdict: Verdict) -> Result<(), StoreError> {
        let sql = "UPDATE requests SET verdict = ?3 WHERE node = ?1 AND spki_hash = ?2";
        self.run(sql, params![row.node, row.spki_hash.as_slice(), verdict_name(verdict)])
    }

    /// Removes a request that has had its answer.
    pub fn drop_request(&self, row: &RequestRow) -> Result<(), StoreError> {
        let sql = "DELETE FROM requests WHERE node = ?1 AND spki_hash = ?2";
        self.run(sql, params![row.node, row.spki_hash.as_slice()])
    }

    /// Removes what waits or was approved for a node: another payload has taken the place of the one that it was asked with.
    pub fn drop_requests(&self, node: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM requests WHERE node = ?1 AND verdict IS NOT 'denied'", [node])
    }

    pub(super) fn run(&self, sql: &str, values: impl Params) -> Result<(), StoreError> {
        self.execute(sql, values).map(|_| ())
    }
}
