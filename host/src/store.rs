//! The store: nodes, payloads, certificates and the audit log in one SQLite file. SQL only; decisions are made in
//! `enrol` and `compose`, inside the transactions that this file hands out.

mod error;

pub use error::StoreError;

use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imprint::payload::{EstUrl, PayloadId, TokenMode};
use imprint::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

/// Version of the schema; `PRAGMA user_version` of the file.
const VERSION: i64 = 3;

/// Step `n` leads from version `n` to `n + 1`. Steps that were released are never changed.
const STEPS: [&str; 3] = [
    "
CREATE TABLE urls (position INTEGER PRIMARY KEY, url TEXT NOT NULL) STRICT;
CREATE TABLE nodes (
    name TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    record TEXT NOT NULL,
    added_at INTEGER NOT NULL
) STRICT;
CREATE TABLE payloads (
    id BLOB PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    token_hash BLOB NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('once', 'each-boot')),
    composed INTEGER NOT NULL,
    expiry INTEGER NOT NULL,
    spent_at INTEGER,
    spent_by TEXT,
    void_at INTEGER
) STRICT;
CREATE INDEX payloads_of_node ON payloads (node);
CREATE TABLE certificates (
    serial BLOB PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    payload BLOB NOT NULL REFERENCES payloads (id),
    spki_hash BLOB NOT NULL,
    key_code TEXT NOT NULL,
    der BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL
) STRICT;
CREATE INDEX certificates_of_key ON certificates (spki_hash);
CREATE INDEX certificates_of_node ON certificates (node);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    node TEXT,
    peer TEXT,
    detail TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_keeps_text BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
",
    "
ALTER TABLE certificates ADD COLUMN renews BLOB REFERENCES certificates (serial);
ALTER TABLE certificates ADD COLUMN seen_at INTEGER;
",
    "
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    spki_hash BLOB NOT NULL,
    key_code TEXT NOT NULL,
    why TEXT NOT NULL,
    peer TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    verdict TEXT CHECK (verdict IN ('approved', 'denied')),
    UNIQUE (node, spki_hash)
) STRICT;
",
];

/// An open store.
pub struct Store {
    connection: Connection,
    path: PathBuf,
    strangers: Cell<Strangers>,
}

/// Changes that happen together or not at all. Dropped without `commit`, nothing happened.
pub struct Changes<'s> {
    transaction: Transaction<'s>,
    path: &'s Path,
    strangers: &'s Cell<Strangers>,
}

/// Lines of the audit log about people who have proven nothing, in the current hour.
#[derive(Clone, Copy)]
struct Strangers {
    since: Timestamp,
    lines: u32,
}

/// So many lines an hour are enough to see that something is going on; anybody who can connect can cause them, and the
/// log is never shortened.
const STRANGERS: u32 = 100;
const HOUR: Duration = Duration::from_secs(3600);

/// A node's record as it was given.
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// The file that it came from, for messages.
    pub file: String,
    /// TOML.
    pub record: String,
}

/// A payload that was made.
pub struct PayloadRow {
    /// Its id.
    pub id: PayloadId,
    /// For which node.
    pub node: String,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// How often the token may be used.
    pub mode: TokenMode,
    /// When it was made.
    pub composed: Timestamp,
    /// Until when it is good.
    pub expiry: Timestamp,
    /// When and by which key its token was used.
    pub spent: Option<(Timestamp, String)>,
    /// When another payload took its place.
    pub void_at: Option<Timestamp>,
}

/// A certificate that was issued.
pub struct CertificateRow {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// For which node.
    pub node: String,
    /// With which payload's token.
    pub payload: PayloadId,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_hash: [u8; 32],
    /// The code of its key.
    pub key_code: String,
    /// DER.
    pub der: Vec<u8>,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
    /// Serial number of the one that it took the place of; `None`: a token was used for it.
    pub renews: Option<Vec<u8>>,
    /// When a client first proved that it has it, in a TLS handshake.
    pub seen_at: Option<Timestamp>,
}

/// A request that an administrator decides about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestRow {
    /// For which node.
    pub node: String,
    /// SHA-256 of the SubjectPublicKeyInfo of its key.
    pub spki_hash: [u8; 32],
    /// The code of its key.
    pub key_code: String,
    /// Why it was not signed at once, for people.
    pub why: String,
    /// Address that it came from last.
    pub peer: String,
    /// When it came first.
    pub first_at: Timestamp,
    /// When it came last.
    pub last_at: Timestamp,
    /// What was decided.
    pub verdict: Option<Verdict>,
}

/// What an administrator decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is signed when it comes again.
    Approved,
    /// It is refused when it comes again.
    Denied,
}

/// A line of the audit log.
pub struct Event<'a> {
    /// `enrolled`, `refused`, …
    pub event: &'a str,
    /// Which node, as far as it is known.
    pub node: Option<&'a str>,
    /// Address of the other end.
    pub peer: Option<&'a str>,
    /// One line for people.
    pub detail: &'a str,
}

/// A line of the audit log, read back.
pub struct AuditRow {
    /// When.
    pub at: Timestamp,
    /// `enrolled`, `refused`, …
    pub event: String,
    /// Which node.
    pub node: Option<String>,
    /// Address of the other end.
    pub peer: Option<String>,
    /// One line for people.
    pub detail: String,
}

impl Store {
    /// Makes the file; `init` alone does.
    pub fn create(path: &Path, urls: &[EstUrl], now: Timestamp) -> Result<Store, StoreError> {
        // SQLite gives its other files the mode of this one, which it would make readable by all.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
        let mut store = Store::connect(path)?;
        let changes = store.changes()?;
        for (position, url) in (0i64..).zip(urls) {
            let sql = "INSERT INTO urls (position, url) VALUES (?1, ?2)";
            changes.run(sql, params![position, url.to_string()])?;
        }
        changes.audit(&Event { event: "init", node: None, peer: None, detail: "new CA" }, now)?;
        changes.commit()?;
        Ok(store)
    }

    /// Opens the file that `create` made.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        if !path.exists() {
            return Err(StoreError::Unfinished { path: path.to_owned(), what: "missing" });
        }
        let store = Store::connect(path)?;
        // `create` writes the URLs and the first line of the log in one step.
        if store.log(1)?.is_empty() {
            return Err(StoreError::Unfinished { path: path.to_owned(), what: "empty" });
        }
        Ok(store)
    }

    fn connect(path: &Path) -> Result<Store, StoreError> {
        let at = |source| StoreError::Sqlite { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(at)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(at)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(at)?;
        // WAL: readers do not wait for the writer. FULL: a certificate that was sent has reached the disk.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(at)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(at)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(at)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(at)?;
        if version > VERSION {
            return Err(StoreError::Newer { path: path.to_owned(), version });
        }
        for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
            transaction.execute_batch(step).map_err(at)?;
        }
        if version < VERSION {
            transaction.pragma_update(None, "user_version", VERSION).map_err(at)?;
        }
        transaction.commit().map_err(at)?;
        let strangers = Cell::new(Strangers { since: Timestamp::from_secs(0), lines: 0 });
        Ok(Store { connection, path: path.to_owned(), strangers })
    }

    /// Begins changes. Others wait until they are committed or dropped.
    pub fn changes(&mut self) -> Result<Changes<'_>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let (path, strangers) = (self.path.as_path(), &self.strangers);
        match transaction {
            Ok(transaction) => Ok(Changes { transaction, path, strangers }),
            Err(source) => Err(StoreError::Sqlite { path: path.to_owned(), source }),
        }
    }

    /// The EST bases that `init` was given.
    pub fn urls(&self) -> Result<Vec<EstUrl>, StoreError> {
        let texts: Vec<String> = self.all("SELECT url FROM urls ORDER BY position", |row| row.get(0))?;
        texts.iter().map(|text| EstUrl::try_from(text.as_str()).map_err(StoreError::Url)).collect()
    }

    /// A node's record.
    pub fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        let sql = "SELECT name, file, record FROM nodes WHERE name = ?1";
        self.check(self.connection.query_row(sql, [name], node_row).optional())
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.all("SELECT name, file, record FROM nodes ORDER BY name", node_row)
    }

    /// The newest certificate and the newest payload of a node.
    pub fn latest(&self, node: &str) -> Result<(Option<CertificateRow>, Option<PayloadRow>), StoreError> {
        let sql = format!("{CERTIFICATE} WHERE node = ?1 ORDER BY rowid DESC LIMIT 1");
        let certificate = self.check(self.connection.query_row(&sql, [node], certificate_row).optional())?;
        let sql = format!("{PAYLOAD} WHERE node = ?1 ORDER BY rowid DESC LIMIT 1");
        let payload = self.check(self.connection.query_row(&sql, [node], payload_row).optional())?;
        Ok((certificate, payload))
    }

    /// The requests for a node that nobody has decided about, oldest first.
    pub fn waiting(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        let sql = format!("{REQUEST} WHERE node = ?1 AND verdict IS NULL AND last_at > ?2 ORDER BY id");
        let since = millis(now.minus(REQUEST_LIFE));
        let rows = self.connection.prepare(&sql);
        self.check(rows.and_then(|mut found| found.query_map(params![node, since], request_row)?.collect()))
    }

    /// The newest lines of the audit log, oldest first.
    pub fn log(&self, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let sql = format!(
            "SELECT at, event, node, peer, detail FROM (SELECT * FROM audit ORDER BY id DESC LIMIT {limit}) ORDER BY id"
        );
        self.all(&sql, |row| {
            Ok(AuditRow {
                at: timestamp(row, 0)?,
                event: row.get(1)?,
                node: row.get(2)?,
                peer: row.get(3)?,
                detail: row.get(4)?,
            })
        })
    }

    fn all<T>(&self, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, StoreError> {
        let rows = self.connection.prepare(sql).and_then(|mut statement| statement.query_map([], read)?.collect());
        self.check(rows)
    }

    fn check<T>(&self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }
}

impl Changes<'_> {
    /// Makes them last.
    pub fn commit(self) -> Result<(), StoreError> {
        let path = self.path;
        self.transaction.commit().map_err(|source| StoreError::Sqlite { path: path.to_owned(), source })
    }

    /// Adds a line to the audit log.
    pub fn audit(&self, event: &Event<'_>, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit (at, event, node, peer, detail) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.run(sql, params![millis(now), event.event, event.node, event.peer, event.detail])
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
        let known = self.transaction.query_row("SELECT 1 FROM nodes WHERE name = ?1", [&node.name], |_| Ok(()));
        if self.check(known.optional())?.is_some() && !replace {
            return Err(StoreError::NodeExists(node.name.clone()));
        }
        let sql = "INSERT INTO nodes (name, file, record, added_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (name) DO UPDATE SET file = ?2, record = ?3";
        self.run(sql, params![node.name, node.file, node.record, millis(now)])
    }

    /// A node's record, as it is at this moment.
    pub fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        let sql = "SELECT name, file, record FROM nodes WHERE name = ?1";
        self.check(self.transaction.query_row(sql, [name], node_row).optional())
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
        let rows = self.transaction.prepare(&sql).and_then(|mut found| found.query_map([node], payload_row)?.collect());
        self.check(rows)
    }

    /// Notes that a token was used.
    pub fn spend(&self, payload: PayloadId, key_code: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE payloads SET spent_at = ?2, spent_by = ?3 WHERE id = ?1";
        self.run(sql, params![payload.0.as_slice(), millis(now), key_code])
    }

    /// Adds a certificate.
    pub fn add_certificate(&self, row: &CertificateRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO certificates
                   (serial, node, payload, spki_hash, key_code, der, issued_at, not_after, renews, seen_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let (payload, spki_hash) = (row.payload.0.as_slice(), row.spki_hash.as_slice());
        let (issued_at, not_after, seen_at) = (millis(row.issued_at), millis(row.not_after), row.seen_at.map(millis));
        let CertificateRow { serial, node, key_code, der, renews, .. } = row;
        self.run(sql, params![serial, node, payload, spki_hash, key_code, der, issued_at, not_after, renews, seen_at])
    }

    /// The certificate with exactly these bytes, if it was issued here.
    pub fn certificate(&self, der: &[u8]) -> Result<Option<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE der = ?1");
        self.check(self.transaction.query_row(&sql, [der], certificate_row).optional())
    }

    /// The newest certificate of a node.
    pub fn latest_certificate(&self, node: &str) -> Result<Option<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE node = ?1 ORDER BY rowid DESC LIMIT 1");
        self.check(self.transaction.query_row(&sql, [node], certificate_row).optional())
    }

    /// Notes that a client has proven that it has this certificate; the first time counts.
    pub fn seen(&self, serial: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificates SET seen_at = ?2 WHERE serial = ?1 AND seen_at IS NULL";
        self.run(sql, params![serial, millis(now)])
    }

    /// The certificates of a key that are valid, newest first.
    pub fn certificates_of(&self, spki_hash: &[u8; 32], now: Timestamp) -> Result<Vec<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE spki_hash = ?1 AND not_after > ?2 ORDER BY rowid DESC");
        let rows = self.transaction.prepare(&sql).and_then(|mut found| {
            found.query_map(params![spki_hash.as_slice(), millis(now)], certificate_row)?.collect()
        });
        self.check(rows)
    }

    /// The requests for a node, oldest first, without those that nobody has made for a day.
    pub fn requests(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        self.run("DELETE FROM requests WHERE last_at <= ?1", params![millis(now.minus(REQUEST_LIFE))])?;
        let sql = format!("{REQUEST} WHERE node = ?1 ORDER BY id");
        let rows = self.transaction.prepare(&sql).and_then(|mut found| found.query_map([node], request_row)?.collect());
        self.check(rows)
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

    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
        self.check(self.transaction.execute(sql, values).map(|_| ()))
    }

    fn check<T>(&self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Sqlite { path: self.path.to_owned(), source })
    }
}

// The newest row is the one that was added last: clocks go back.
const PAYLOAD: &str = "SELECT id, node, token_hash, mode, composed, expiry, spent_at, spent_by, void_at FROM payloads";
const CERTIFICATE: &str =
    "SELECT serial, node, payload, spki_hash, key_code, der, issued_at, not_after, renews, seen_at FROM certificates";

const REQUEST: &str = "SELECT node, spki_hash, key_code, why, peer, first_at, last_at, verdict FROM requests";

/// A node that waits asks again every few seconds. A request that nobody has made for this long is forgotten.
const REQUEST_LIFE: Duration = Duration::from_secs(86_400);

fn request_row(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let verdict: Option<String> = row.get(7)?;
    Ok(RequestRow {
        node: row.get(0)?,
        spki_hash: row.get(1)?,
        key_code: row.get(2)?,
        why: row.get(3)?,
        peer: row.get(4)?,
        first_at: timestamp(row, 5)?,
        last_at: timestamp(row, 6)?,
        verdict: verdict.map(|name| if name == "approved" { Verdict::Approved } else { Verdict::Denied }),
    })
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approved => "approved",
        Verdict::Denied => "denied",
    }
}

fn node_row(row: &Row<'_>) -> rusqlite::Result<NodeRow> {
    Ok(NodeRow { name: row.get(0)?, file: row.get(1)?, record: row.get(2)? })
}

fn payload_row(row: &Row<'_>) -> rusqlite::Result<PayloadRow> {
    let mode: String = row.get(3)?;
    let spent_at = optional_timestamp(row, 6)?;
    let spent_by: Option<String> = row.get(7)?;
    Ok(PayloadRow {
        id: PayloadId(row.get(0)?),
        node: row.get(1)?,
        token_hash: row.get(2)?,
        mode: if mode == "each-boot" { TokenMode::EachBoot } else { TokenMode::Once },
        composed: timestamp(row, 4)?,
        expiry: timestamp(row, 5)?,
        spent: spent_at.map(|at| (at, spent_by.unwrap_or_default())),
        void_at: optional_timestamp(row, 8)?,
    })
}

fn certificate_row(row: &Row<'_>) -> rusqlite::Result<CertificateRow> {
    Ok(CertificateRow {
        serial: row.get(0)?,
        node: row.get(1)?,
        payload: PayloadId(row.get(2)?),
        spki_hash: row.get(3)?,
        key_code: row.get(4)?,
        der: row.get(5)?,
        issued_at: timestamp(row, 6)?,
        not_after: timestamp(row, 7)?,
        renews: row.get(8)?,
        seen_at: optional_timestamp(row, 9)?,
    })
}

/// `once` or `each-boot`.
pub fn mode_name(mode: TokenMode) -> &'static str {
    match mode {
        TokenMode::Once => "once",
        TokenMode::EachBoot => "each-boot",
    }
}

/// SQLite's integers are signed; a [`Timestamp`] is far below their end.
fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let value: i64 = row.get(column)?;
    let at = u64::try_from(value).ok().and_then(Timestamp::from_millis);
    at.ok_or(rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn optional_timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    match row.get::<_, Option<i64>>(column)? {
        Some(_) => timestamp(row, column).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
