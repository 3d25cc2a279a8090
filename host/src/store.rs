//! The store: nodes, payloads, certificates and the audit log in one SQLite file. SQL only; decisions are made in
//! `enrol` and `compose`, inside the transactions that this file hands out.

mod budget;
mod changes;
mod claims;
mod error;
mod lists;
mod rows;
mod schema;

use budget::Tally;
pub use budget::{Budget, NotWritten};
pub use changes::Changes;
pub use claims::Holder;
pub use error::StoreError;
pub use rows::{AuditRow, CertificateRow, CrlRow, Event, NodeRow, PayloadRow, RequestRow, Verdict, mode_name};
use rows::{
    CERTIFICATE, PAYLOAD, REQUEST, REQUEST_LIFE, certificate_row, millis, node_row, payload_row, request_row, timestamp,
};
use schema::{STEPS, VERSION};

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imprint::payload::EstUrl;
use imprint::time::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::ca;

/// Whoever writes waits for so long for others who do.
const BUSY: Duration = Duration::from_secs(10);

/// An open store.
pub struct Store {
    connection: Connection,
    path: PathBuf,
    unwritten: Tally,
    actor: Option<String>,
}

impl Store {
    /// Makes the file; `init` alone does.
    pub fn create(path: &Path, urls: &[EstUrl], now: Timestamp) -> Result<Store, StoreError> {
        // SQLite gives its other files the mode of this one, which it would make readable by all.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let given = file.and_then(|_| ca::given_away(path));
        given.map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
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
        Store::connect_within(path, BUSY)
    }

    /// `patience`: how long the lock of those who write is waited for.
    fn connect_within(path: &Path, patience: Duration) -> Result<Store, StoreError> {
        let at = |source| StoreError::Sqlite { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(at)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Without it, SQLite plans a statement anew for each new value that is compared.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(at)?;
        connection.busy_timeout(patience).map_err(at)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(at)?;
        // WAL: readers do not wait for the writer. FULL: a certificate that was sent has reached the disk.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(at)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(at)?;
        // What has to be sorted is small, and a disk that is full must not stop a revocation.
        connection.pragma_update(None, "temp_store", "MEMORY").map_err(at)?;
        bring_up_to_date(path, &mut connection)?;
        Ok(Store { connection, path: path.to_owned(), unwritten: Tally::default(), actor: None })
    }

    /// Who runs the command, for the audit log.
    pub fn run_by(&mut self, actor: String) {
        self.actor = Some(actor);
    }

    /// Copies it, as it is at one moment, into a file that is not there yet. Nobody has to stop for that.
    pub fn back_up(&self, to: &Path) -> Result<(), StoreError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        let file = file.and_then(|file| ca::given_away(to).map(|()| file));
        let file = file.map_err(|source| StoreError::Create { path: to.to_owned(), source })?;
        self.check(self.connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map(|_| ()))?;
        file.sync_all().map_err(|source| StoreError::Create { path: to.to_owned(), source })
    }

    /// Begins changes. Others wait until they are committed or dropped.
    pub fn changes(&mut self) -> Result<Changes<'_>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let (path, unwritten, actor) = (self.path.as_path(), &self.unwritten, self.actor.as_deref());
        match transaction {
            Ok(transaction) => Ok(Changes { transaction, path, unwritten, actor }),
            Err(source) => Err(StoreError::Sqlite { path: path.to_owned(), source }),
        }
    }

    /// Reads, all as it is at one moment. Nobody waits for it, and it waits for nobody.
    pub fn reading<T, E: From<StoreError>>(&self, read: impl FnOnce(&Store) -> Result<T, E>) -> Result<T, E> {
        // Rolled back when it is dropped: nothing was changed.
        let _moment = self.check(self.connection.unchecked_transaction())?;
        read(self)
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

    /// The certificates of a node that are valid and not revoked, oldest first.
    pub fn live_certificates(&self, node: &str, now: Timestamp) -> Result<Vec<CertificateRow>, StoreError> {
        let sql = format!("{CERTIFICATE} WHERE node = ?1 AND not_after > ?2 AND revoked_at IS NULL ORDER BY rowid");
        let rows = self.connection.prepare_cached(&sql);
        self.check(rows.and_then(|mut found| found.query_map(params![node, millis(now)], certificate_row)?.collect()))
    }

    /// The requests for a node that nobody has decided about, oldest first.
    pub fn waiting(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        Ok(self.open_requests(node, now)?.into_iter().filter(|row| row.verdict.is_none()).collect())
    }

    /// The requests for a node that were not denied, oldest first: those that wait, and one that was approved and has not
    /// come for its certificate.
    pub fn open_requests(&self, node: &str, now: Timestamp) -> Result<Vec<RequestRow>, StoreError> {
        let sql = format!("{REQUEST} WHERE node = ?1 AND verdict IS NOT 'denied' AND last_at > ?2 ORDER BY id");
        let since = millis(now.minus(REQUEST_LIFE));
        let rows = self.connection.prepare_cached(&sql);
        self.check(rows.and_then(|mut found| found.query_map(params![node, since], request_row)?.collect()))
    }

    /// The newest lines of the audit log, oldest first.
    pub fn log(&self, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let sql = format!(
            "SELECT at, event, node, peer, detail, actor FROM (SELECT * FROM audit ORDER BY id DESC LIMIT {limit}) ORDER BY id"
        );
        self.all(&sql, |row| {
            Ok(AuditRow {
                at: timestamp(row, 0)?,
                event: row.get(1)?,
                node: row.get(2)?,
                peer: row.get(3)?,
                detail: row.get(4)?,
                actor: row.get(5)?,
            })
        })
    }

    fn all<T>(&self, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, StoreError> {
        let rows =
            self.connection.prepare_cached(sql).and_then(|mut statement| statement.query_map([], read)?.collect());
        self.check(rows)
    }

    fn check<T>(&self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }
}

/// Only a store that is older waits for the lock of those who write; whoever only reads waits for nobody.
fn bring_up_to_date(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    let at = |source| StoreError::Sqlite { path: path.to_owned(), source };
    let version_of = |connection: &Connection| {
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(at)?;
        if version > VERSION { Err(StoreError::Newer { path: path.to_owned(), version }) } else { Ok(version) }
    };
    if version_of(connection)? == VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(at)?;
    // Somebody else may have done it meanwhile.
    let version = version_of(&transaction)?;
    for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(step).map_err(at)?;
    }
    transaction.pragma_update(None, "user_version", VERSION).map_err(at)?;
    transaction.commit().map_err(at)
}

#[cfg(test)]
mod tests;
