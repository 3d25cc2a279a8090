//! The store: nodes, payloads, certificates and the audit log in one SQLite file. SQL only; it never decides: `enrol` and
//! `compose` do, inside the transactions that this module hands out. All queries that read are methods of [`Books`], for
//! readers and for transactions alike.

mod admission_keys;
mod books;
mod budget;
mod bundles;
mod callers;
mod changes;
mod claims;
mod entitlements;
mod error;
mod lists;
mod rows;
mod schema;
mod windows;

pub use admission_keys::AdmissionKeyRow;
pub use books::Books;
use budget::Tally;
pub use budget::{Budget, NotWritten};
pub use bundles::{AvailableRow, BundleBytes, BundleKeyRow, BundleRow, BundleState, NewBundle, Signed, Told, Waiting};
pub use callers::{CallerRow, Standing};
pub use changes::Changes;
pub use claims::Holder;
pub use error::StoreError;
pub use rows::{AuditRow, CertificateRow, CrlRow, Event, NodeRow, PayloadRow, RequestRow, Verdict, mode_name};
use schema::{STEPS, VERSION};
pub use windows::AdmissionRow;

use std::fs::OpenOptions;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use imprint::payload::EstUrl;
use imprint::time::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::ca;

/// How long a writer waits for another writer's lock.
const BUSY: Duration = Duration::from_secs(10);

/// An open store.
pub struct Store {
    books: Books,
    unwritten: Tally,
    actor: Option<String>,
}

impl Store {
    /// Makes the file. Only `init` calls this.
    pub fn create(path: &Path, urls: &[EstUrl], now: Timestamp) -> Result<Store, StoreError> {
        // 0600 from the start: SQLite itself would make the file world-readable, and it copies the mode to its other files.
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
        // `create` writes the URLs and the first line of the log in one transaction.
        if store.log(1)?.is_empty() {
            return Err(StoreError::Unfinished { path: path.to_owned(), what: "empty" });
        }
        Ok(store)
    }

    fn connect(path: &Path) -> Result<Store, StoreError> {
        Store::connect_within(path, BUSY)
    }

    /// `patience`: how long to wait for another writer's lock.
    fn connect_within(path: &Path, patience: Duration) -> Result<Store, StoreError> {
        let at = |source| StoreError::Sqlite { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(at)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Without this, SQLite may prepare a statement again for each new value that is bound.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(at)?;
        connection.busy_timeout(patience).map_err(at)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(at)?;
        // WAL: readers do not wait for the writer. FULL: a certificate that was sent has reached the disk.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(at)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(at)?;
        // What was removed or denied is overwritten: it may be readable with a key that leaks later.
        connection.pragma_update(None, "secure_delete", true).map_err(at)?;
        // Sort in memory: results are small, and a revocation must work on a full disk.
        connection.pragma_update(None, "temp_store", "MEMORY").map_err(at)?;
        bring_up_to_date(path, &mut connection)?;
        Ok(Store { books: Books::new(connection, path), unwritten: Tally::default(), actor: None })
    }

    /// Sets who runs the command, for the audit log.
    pub fn run_by(&mut self, actor: String) {
        self.actor = Some(actor);
    }

    /// Copies a snapshot of the store into a new file. Readers and writers can go on meanwhile.
    pub fn back_up(&self, to: &Path) -> Result<(), StoreError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        let file = file.and_then(|file| ca::given_away(to).map(|()| file));
        let file = file.map_err(|source| StoreError::Create { path: to.to_owned(), source })?;
        self.books.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
        file.sync_all().map_err(|source| StoreError::Create { path: to.to_owned(), source })
    }

    /// Begins a transaction. Other writers wait until it is committed or dropped.
    pub fn changes(&mut self) -> Result<Changes<'_>, StoreError> {
        let Store { books, unwritten, actor } = self;
        // Unchecked: `&mut self` already allows only one transaction at a time.
        let transaction = Transaction::new_unchecked(books.connection(), TransactionBehavior::Immediate);
        let transaction = books.check(transaction)?;
        let before = transaction.total_changes();
        Ok(Changes { transaction, books, unwritten, actor: actor.as_deref(), before })
    }

    /// Runs reads on one snapshot. Reads and writes do not wait for each other.
    pub fn reading<T, E: From<StoreError>>(&self, read: impl FnOnce(&Store) -> Result<T, E>) -> Result<T, E> {
        // Rolled back on drop, which is right: it only reads.
        let _moment = self.books.check(self.books.connection().unchecked_transaction())?;
        read(self)
    }
}

impl Deref for Store {
    type Target = Books;

    fn deref(&self) -> &Books {
        &self.books
    }
}

/// Takes the writers' lock only if the schema is older, so that readers need not wait.
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
    // Another process may have updated the schema meanwhile.
    let version = version_of(&transaction)?;
    for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(step).map_err(at)?;
    }
    transaction.pragma_update(None, "user_version", VERSION).map_err(at)?;
    transaction.commit().map_err(at)
}

#[cfg(test)]
mod tests;
