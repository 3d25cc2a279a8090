//! Changes to the store, in one transaction: SQL only.

use std::path::Path;

use imprint::payload::PayloadId;
use imprint::shown::line;
use imprint::time::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::budget::Tally;
use super::rows::{
    CERTIFICATE, PAYLOAD, REQUEST, REQUEST_LIFE, certificate_row, millis, mode_name, node_row, payload_row,
    reason_code, request_row, timestamp, verdict_name,
};
use super::{CertificateRow, CrlRow, Event, NodeRow, PayloadRow, RequestRow, StoreError, Verdict};
use crate::x509::CrlReason;

/// Changes that happen together or not at all. Dropped without `commit`, nothing happened.
pub struct Changes<'s> {
    pub(super) transaction: Transaction<'s>,
    pub(super) path: &'s Path,
    pub(super) unwritten: &'s Tally,
    pub(super) actor: Option<&'s str>,
}

impl Changes<'_> {
    /// Decides about what nodes ask: no administrator decides that, whoever has started the program.
    #[must_use]
    pub fn for_nodes(self) -> Self {
        Changes { actor: None, ..self }
    }

    /// Makes them last.
    pub fn commit(self) -> Result<(), StoreError> {
        let path = self.path;
        self.transaction.commit().map_err(|source| StoreError::Sqlite { path: path.to_owned(), source })
    }

    /// Adds a line to the audit log: one line, whatever its words came from.
    pub fn audit(&self, event: &Event<'_>, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit (at, event, node, peer, detail, actor) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (node, peer) = (event.node.map(line), event.peer.map(line));
        self.run(sql, params![millis(now), event.event, node, peer, line(event.detail), self.actor])
    }

    /// Adds a node, or gives it another record.
    pub fn put_node(&self, node: &NodeRow, replace: bool, now: Timestamp) -> Result<(), StoreError> {
        if self.node(&node.name)?.is_some() && !replace {
            return Err(StoreError::NodeExists(node.name.clone()));
        }
        let sql = "INSERT INTO nodes (name, file, record, added_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (name) DO UPDATE SET file = ?2, record = ?3";
        self.run(sql, params![node.name, node.file, node.record, millis(now)])
    }

    /// A node's record, as it is at this moment.
    pub fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        let sql = "SELECT name, file, record FROM nodes WHERE name = ?1";
        self.one(sql, [name], node_row)
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
        self.check(self.transaction.execute(sql, params![node, millis(now)]))
    }

    /// Every payload that was made for a node, newest first.
    pub fn payloads(&self, node: &str) -> Result<Vec<PayloadRow>, StoreError> {
        let sql = format!("{PAYLOAD} WHERE node = ?1 ORDER BY rowid DESC");
        self.many(&sql, [node], payload_row)
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

    /// The certificate with this serial number and exactly these bytes, if it was issued here.
    pub fn certificate(&self, serial: &[u8], der: &[u8]) -> Result<Option<CertificateRow>, StoreError> {
        Ok(self
            .one(&format!("{CERTIFICATE} WHERE serial = ?1"), [serial], certificate_row)?
            .filter(|row| row.der == der))
    }

    /// The newest certificate that a payload's token was used for.
    pub fn latest_of_payload(&self, payload: PayloadId) -> Result<Option<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE payload = ?1 AND renews IS NULL ORDER BY rowid DESC LIMIT 1");
        self.one(&sql, [payload.0.as_slice()], certificate_row)
    }

    /// All certificates of a node, oldest first.
    pub fn certificates(&self, node: &str) -> Result<Vec<CertificateRow>, StoreError> {
        self.many(&format!("{CERTIFICATE} WHERE node = ?1 ORDER BY rowid"), [node], certificate_row)
    }

    /// The certificates of a node that are valid and not revoked, oldest first.
    pub fn live_certificates(&self, node: &str, now: Timestamp) -> Result<Vec<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE node = ?1 AND not_after > ?2 AND revoked_at IS NULL ORDER BY rowid");
        self.many(&sql, params![node, millis(now)], certificate_row)
    }

    /// When certificates were signed for a payload's token after `since`, oldest first.
    pub fn signed_since(&self, payload: PayloadId, since: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
        let sql = "SELECT issued_at FROM certificates WHERE payload = ?1 AND issued_at > ?2 AND renews IS NULL
                   ORDER BY issued_at";
        self.many(sql, params![payload.0.as_slice(), millis(since)], |row| timestamp(row, 0))
    }

    /// When a node's certificates were renewed after `since`, and by which address, oldest first.
    pub fn renewed_since(&self, node: &str, since: Timestamp) -> Result<Vec<(Timestamp, Option<String>)>, StoreError> {
        let sql = "SELECT issued_at, peer FROM certificates WHERE node = ?1 AND issued_at > ?2 AND renews IS NOT NULL
                   ORDER BY issued_at";
        self.many(sql, params![node, millis(since)], |row| Ok((timestamp(row, 0)?, row.get(1)?)))
    }

    /// Revokes a certificate; the first time counts. That it is in use is news from then on, whatever was said of it before.
    pub fn revoke(&self, row: &CertificateRow, reason: CrlReason, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificates SET revoked_at = ?2, reason = ?3, alarmed_at = NULL
                   WHERE serial = ?1 AND revoked_at IS NULL";
        self.run(sql, params![row.serial, millis(now), reason_code(reason)])
    }

    /// Whether the log has an alarm about a certificate.
    pub fn has_alarm(&self, serial: &[u8]) -> Result<bool, StoreError> {
        let sql = "SELECT alarmed_at IS NOT NULL FROM certificates WHERE serial = ?1";
        Ok(self.one(sql, [serial], |row| row.get(0))?.unwrap_or_default())
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

    /// The certificates of a key, of whatever node, newest first: those that have expired or were revoked, too.
    pub fn certificates_of(&self, spki_hash: &[u8; 32]) -> Result<Vec<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE spki_hash = ?1 ORDER BY rowid DESC");
        self.many(&sql, [spki_hash.as_slice()], certificate_row)
    }

    /// The requests for a node, oldest first, without those that nobody has made for a day.
    pub fn requests(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        self.run("DELETE FROM requests WHERE last_at <= ?1", params![millis(now.minus(REQUEST_LIFE))])?;
        let sql = format!("{REQUEST} WHERE node = ?1 ORDER BY id");
        self.many(&sql, [node], request_row)
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

    pub(super) fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
        let done = self.transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(values));
        self.check(done.map(|_| ()))
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let found = self.transaction.prepare_cached(sql);
        self.check(found.and_then(|mut statement| statement.query_row(values, read).optional()))
    }

    pub(super) fn many<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let found = self.transaction.prepare_cached(sql);
        self.check(found.and_then(|mut statement| statement.query_map(values, read)?.collect()))
    }

    fn check<T>(&self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Sqlite { path: self.path.to_owned(), source })
    }
}
