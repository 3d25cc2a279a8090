//! Changes to the store, in one transaction: SQL only.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use imprint::payload::PayloadId;
use imprint::shown::line;
use imprint::time::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

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
    pub(super) strangers: &'s Cell<Strangers>,
}

/// Lines of the audit log about people who have proven nothing, in the current hour.
#[derive(Clone, Copy)]
pub(super) struct Strangers {
    pub(super) since: Timestamp,
    pub(super) lines: u32,
}

/// So many lines an hour are enough to see that something is going on; anybody who can connect can cause them, and the
/// log is never shortened.
const STRANGERS: u32 = 100;
const HOUR: Duration = Duration::from_secs(3600);

impl Changes<'_> {
    /// Makes them last.
    pub fn commit(self) -> Result<(), StoreError> {
        let path = self.path;
        self.transaction.commit().map_err(|source| StoreError::Sqlite { path: path.to_owned(), source })
    }

    /// Adds a line to the audit log: one line, whatever its words came from.
    pub fn audit(&self, event: &Event<'_>, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit (at, event, node, peer, detail) VALUES (?1, ?2, ?3, ?4, ?5)";
        let (node, peer) = (event.node.map(line), event.peer.map(line));
        self.run(sql, params![millis(now), event.event, node, peer, line(event.detail)])
    }

    /// Adds a line about somebody who has proven nothing, unless the hour has had enough of those.
    pub fn audit_stranger(&self, event: &Event<'_>, now: Timestamp) -> Result<(), StoreError> {
        let mut hour = self.strangers.get();
        // Also when the clock goes back.
        if now < hour.since || now >= hour.since.plus(HOUR) {
            hour = Strangers { since: now, lines: 0 };
        }
        hour.lines = hour.lines.saturating_add(1);
        self.strangers.set(hour);
        let detail = "more strangers are refused within the hour; the server's own log names each";
        match hour.lines.checked_sub(STRANGERS) {
            None | Some(0) => self.audit(event, now),
            Some(1) => self.audit(&Event { event: event.event, node: None, peer: None, detail }, now),
            Some(_) => Ok(()),
        }
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

    /// Voids the payloads of a node whose token was not used. How many there were.
    pub fn void_unspent(&self, node: &str, now: Timestamp) -> Result<usize, StoreError> {
        let sql = "UPDATE payloads SET void_at = ?2
                   WHERE node = ?1 AND void_at IS NULL AND expiry > ?2 AND (spent_at IS NULL OR mode = 'each-boot')";
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

    /// Adds a certificate.
    pub fn add_certificate(&self, row: &CertificateRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO certificates
                   (serial, node, payload, spki_hash, key_code, der, issued_at, not_after, renews, issuer, approved)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let (payload, spki_hash) = (row.payload.0.as_slice(), row.spki_hash.as_slice());
        let (issued_at, not_after) = (millis(row.issued_at), millis(row.not_after));
        let CertificateRow { serial, node, key_code, der, renews, issuer, approved, .. } = row;
        self.run(
            sql,
            params![serial, node, payload, spki_hash, key_code, der, issued_at, not_after, renews, issuer, approved],
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

    /// When the certificates of a payload were signed after `since`, oldest first.
    pub fn signed_since(&self, payload: PayloadId, since: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
        let sql = "SELECT issued_at FROM certificates WHERE payload = ?1 AND issued_at > ?2 ORDER BY issued_at";
        self.many(sql, params![payload.0.as_slice(), millis(since)], |row| timestamp(row, 0))
    }

    /// Revokes a certificate; the first time counts.
    pub fn revoke(&self, row: &CertificateRow, reason: CrlReason, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificates SET revoked_at = ?2, reason = ?3 WHERE serial = ?1 AND revoked_at IS NULL";
        self.run(sql, params![row.serial, millis(now), reason_code(reason)])
    }

    /// Notes that a revoked certificate is in use. Whether that is news.
    pub fn alarmed(&self, serial: &[u8], now: Timestamp) -> Result<bool, StoreError> {
        let sql = "UPDATE certificates SET alarmed_at = ?2 WHERE serial = ?1 AND alarmed_at IS NULL";
        Ok(self.check(self.transaction.execute(sql, params![serial, millis(now)]))? > 0)
    }

    /// Notes that a list of revoked certificates was made. The list itself is not kept: it can be made again.
    pub fn put_crl(&self, issuer: &str, row: &CrlRow) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO crls (issuer, number, made_at) VALUES (?1, ?2, ?3)";
        let number = i64::try_from(row.number).unwrap_or(i64::MAX);
        self.run(sql, params![issuer, number, millis(row.made_at)])
    }

    /// The newest certificate of a node.
    pub fn latest_certificate(&self, node: &str) -> Result<Option<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE node = ?1 ORDER BY rowid DESC LIMIT 1");
        self.one(&sql, [node], certificate_row)
    }

    /// Notes that a client has proven that it has this certificate; the first time counts.
    pub fn seen(&self, serial: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificates SET seen_at = ?2 WHERE serial = ?1 AND seen_at IS NULL";
        self.run(sql, params![serial, millis(now)])
    }

    /// The certificates of a key that have not expired, newest first.
    pub fn certificates_of(&self, spki_hash: &[u8; 32], now: Timestamp) -> Result<Vec<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE spki_hash = ?1 AND not_after > ?2 ORDER BY rowid DESC");
        self.many(&sql, params![spki_hash.as_slice(), millis(now)], certificate_row)
    }

    /// The requests for a node, oldest first, without those that nobody has made for a day.
    pub fn requests(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        self.run("DELETE FROM requests WHERE last_at <= ?1", params![millis(now.minus(REQUEST_LIFE))])?;
        let sql = format!("{REQUEST} WHERE node = ?1 ORDER BY id");
        self.many(&sql, [node], request_row)
    }

    /// Notes that a request came, for the first time or again.
    pub fn put_request(&self, row: &RequestRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO requests (node, spki_hash, key_code, why, peer, first_at, last_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (node, spki_hash) DO UPDATE SET peer = ?5, last_at = ?7";
        let RequestRow { node, spki_hash, key_code, why, peer, first_at, last_at, .. } = row;
        self.run(sql, params![node, spki_hash.as_slice(), key_code, why, peer, millis(*first_at), millis(*last_at)])
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

    pub(super) fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
        let done = self.transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(values));
        self.check(done.map(|_| ()))
    }

    fn one<T>(
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
