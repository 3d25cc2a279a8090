//! Reads from the store. Each query is here once, or in the file of its table. Changes nothing.

use std::path::{Path, PathBuf};

use imprint::payload::{EstUrl, PayloadId};
use imprint::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::rows::{
    CERTIFICATE, NODE, PAYLOAD, REQUEST, REQUEST_LIFE, audit_row, certificate_row, millis, node_row, payload_row,
    request_row, timestamp,
};
use super::{AuditRow, CertificateRow, NodeRow, PayloadRow, RequestRow, StoreError, Verdict};

/// The store, for reading. Inside a transaction or [`super::Store::reading`], all reads see one snapshot.
pub struct Books {
    connection: Connection,
    path: PathBuf,
}

impl Books {
    pub(super) fn new(connection: Connection, path: &Path) -> Books {
        Books { connection, path: path.to_owned() }
    }

    /// The EST bases that `init` was given.
    pub fn urls(&self) -> Result<Vec<EstUrl>, StoreError> {
        let texts: Vec<String> = self.many("SELECT url FROM urls ORDER BY position", [], |row| row.get(0))?;
        texts.iter().map(|text| EstUrl::try_from(text.as_str()).map_err(StoreError::Url)).collect()
    }

    /// A node's record.
    pub fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        self.one(&format!("{NODE} WHERE name = ?1"), [name], node_row)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.many(&format!("{NODE} ORDER BY name"), [], node_row)
    }

    /// A number that changes when another connection has changed the store (sqlite.org/pragma.html#pragma_data_version).
    pub fn data_version(&self) -> Result<i64, StoreError> {
        Ok(self.one("PRAGMA data_version", [], |row| row.get(0))?.unwrap_or_default())
    }

    /// The newest certificate and the newest payload of a node.
    pub fn latest(&self, node: &str) -> Result<(Option<CertificateRow>, Option<PayloadRow>), StoreError> {
        let certificate = format!("{CERTIFICATE} WHERE node = ?1 ORDER BY rowid DESC LIMIT 1");
        let payload = format!("{PAYLOAD} WHERE node = ?1 ORDER BY rowid DESC LIMIT 1");
        Ok((self.one(&certificate, [node], certificate_row)?, self.one(&payload, [node], payload_row)?))
    }

    /// Every payload that was made for a node, newest first.
    pub fn payloads(&self, node: &str) -> Result<Vec<PayloadRow>, StoreError> {
        self.many(&format!("{PAYLOAD} WHERE node = ?1 ORDER BY rowid DESC"), [node], payload_row)
    }

    /// The certificate with this serial number and exactly these bytes, if it was issued here.
    pub fn certificate(&self, serial: &[u8], der: &[u8]) -> Result<Option<CertificateRow>, StoreError> {
        let found = self.one(&format!("{CERTIFICATE} WHERE serial = ?1"), [serial], certificate_row)?;
        Ok(found.filter(|row| row.der == der))
    }

    /// The newest certificate that was signed for a payload's token.
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

    /// All certificates of a key, of any node, newest first; expired and revoked ones, too.
    pub fn certificates_of(&self, spki_hash: &[u8; 32]) -> Result<Vec<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE spki_hash = ?1 ORDER BY rowid DESC");
        self.many(&sql, [spki_hash.as_slice()], certificate_row)
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

    /// Whether the log has an alarm about a certificate.
    pub fn has_alarm(&self, serial: &[u8]) -> Result<bool, StoreError> {
        let sql = "SELECT alarmed_at IS NOT NULL FROM certificates WHERE serial = ?1";
        Ok(self.one(sql, [serial], |row| row.get(0))?.unwrap_or_default())
    }

    /// The requests for a node that were made or repeated within the last day, oldest first.
    pub fn requests(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        let sql = format!("{REQUEST} WHERE node = ?1 AND last_at > ?2 ORDER BY id");
        self.many(&sql, params![node, millis(now.minus(REQUEST_LIFE))], request_row)
    }

    /// The [`Books::requests`] that were not denied: they wait, or were approved and not signed yet.
    pub fn open_requests(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        let mut requests = self.requests(node, now)?;
        requests.retain(|row| row.verdict != Some(Verdict::Denied));
        Ok(requests)
    }

    /// The [`Books::requests`] without a verdict.
    pub fn waiting(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        let mut requests = self.requests(node, now)?;
        requests.retain(|row| row.verdict.is_none());
        Ok(requests)
    }

    /// The newest lines of the audit log, oldest first.
    pub fn log(&self, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let newest = "SELECT * FROM audit ORDER BY id DESC LIMIT ?1";
        let sql = format!("SELECT at, event, node, peer, detail, actor FROM ({newest}) ORDER BY id");
        self.many(&sql, [limit], audit_row)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let found = self.connection.prepare_cached(sql);
        self.check(found.and_then(|mut statement| statement.query_row(values, read).optional()))
    }

    pub(super) fn many<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let found = self.connection.prepare_cached(sql);
        self.check(found.and_then(|mut statement| statement.query_map(values, read)?.collect()))
    }

    /// Runs a statement. The answer: how many rows it changed.
    pub(super) fn execute(&self, sql: &str, values: impl Params) -> Result<usize, StoreError> {
        let done = self.connection.prepare_cached(sql);
        self.check(done.and_then(|mut statement| statement.execute(values)))
    }

    pub(super) fn check<T>(&self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }
}
