//! Bundles and their keys as rows. SQL only; decides nothing.

mod outbox;
pub(super) mod tables;

pub use outbox::{Told, Waiting};

use imprint::secret::Secret;
use imprint::time::Timestamp;
use rusqlite::{Row, params};

use super::rows::{millis, optional_timestamp, timestamp, unreadable};
use super::{Books, Changes, StoreError};

/// The key of a node whose bundles this host can read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BundleKeyRow {
    /// An X25519 identity, 32 bytes.
    pub identity: Secret,
    /// Its recipient, `age1…`.
    pub recipient: String,
    /// When it was made.
    pub made_at: Timestamp,
}

/// What has become of a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BundleState {
    /// The node has made it, and an administrator decides.
    Pending,
    /// It is a version, and is signed.
    Approved,
    /// An administrator has denied it. Its content is gone.
    Denied,
    /// It was a version. Its content is gone.
    Removed,
}

impl BundleState {
    const ALL: [(BundleState, &str); 4] = [
        (BundleState::Pending, "pending"),
        (BundleState::Approved, "approved"),
        (BundleState::Denied, "denied"),
        (BundleState::Removed, "removed"),
    ];

    /// The word for people and programs.
    pub fn word(self) -> &'static str {
        BundleState::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

/// A bundle, without its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BundleRow {
    /// Its number in the store.
    pub id: i64,
    /// The node.
    pub node: String,
    /// Its version; `None`: it was never approved.
    pub counter: Option<u64>,
    /// What has become of it.
    pub state: BundleState,
    /// By which the same upload is known.
    pub tag: Option<[u8; 32]>,
    /// For which key it is encrypted.
    pub key: String,
    /// SHA-256 of the age file.
    pub sha256: [u8; 32],
    /// The code that people compare.
    pub code: String,
    /// Length of the age file in bytes.
    pub length: u64,
    /// Length of the signed statement in bytes; 0: there is none.
    pub seal_length: u64,
    /// When it came, or was made here.
    pub made_at: Timestamp,
    /// `node`, or the administrator who has made it.
    pub made_by: String,
    /// The address that it came from; `None`: it was made here.
    pub peer: Option<String>,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// Who decided.
    pub decided_by: Option<String>,
    /// The version whose content this one has again.
    pub content_of: Option<u64>,
}

/// The signed statement of a bundle, and its age file.
pub type BundleBytes = (Vec<u8>, Vec<u8>);

/// A bundle that is to be stored.
pub struct NewBundle<'a> {
    /// The node.
    pub node: &'a str,
    /// By which the same upload is known.
    pub tag: Option<[u8; 32]>,
    /// For which key it is encrypted.
    pub key: &'a str,
    /// SHA-256 of the age file.
    pub sha256: [u8; 32],
    /// The code that people compare.
    pub code: &'a str,
    /// The age file.
    pub age: &'a [u8],
    /// `node`, or the administrator.
    pub made_by: &'a str,
    /// The address that it came from.
    pub peer: Option<&'a str>,
    /// The row in the store whose content it has.
    pub content_of: Option<i64>,
}

/// A decision that makes a bundle a version of its node.
pub struct Signed<'a> {
    /// The version.
    pub counter: u64,
    /// The signed statement.
    pub seal: &'a [u8],
    /// Who decided.
    pub by: &'a str,
}

/// What a node has reported last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AvailableRow {
    /// The version that it has applied.
    pub counter: u64,
    /// SHA-256 of its age file.
    pub sha256: [u8; 32],
    /// Whether the node is available; false: it has failed.
    pub available: bool,
    /// What the node says.
    pub detail: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The certificate that it has shown: another one at each boot. SHA-256.
    pub certificate: [u8; 32],
    /// Reports of the node have used up its time until then.
    pub paced_until: Timestamp,
}

const BUNDLE: &str = "SELECT id, node, counter, state, tag, key, sha256, code, length, length(seal), made_at, made_by, peer, \
                      decided_at, decided_by, (SELECT counter FROM bundles of WHERE of.id = bundles.content_of) FROM bundles";

impl Books {
    /// The key of a node whose bundles this host can read, if there is one.
    pub fn bundle_key(&self, node: &str) -> Result<Option<BundleKeyRow>, StoreError> {
        let sql = "SELECT identity, recipient, made_at FROM bundle_keys WHERE node = ?1";
        self.one(sql, [node], |row| {
            let identity = Secret::new(row.get(0)?);
            Ok(BundleKeyRow { identity, recipient: row.get(1)?, made_at: timestamp(row, 2)? })
        })
    }

    /// The bundle of a node that waits for an administrator.
    pub fn pending_bundle(&self, node: &str) -> Result<Option<BundleRow>, StoreError> {
        self.one(&format!("{BUNDLE} WHERE node = ?1 AND state = 'pending'"), [node], bundle_row)
    }

    /// The newest version of a node, also if it was removed.
    pub fn newest_bundle(&self, node: &str) -> Result<Option<BundleRow>, StoreError> {
        let sql = format!("{BUNDLE} WHERE node = ?1 AND counter IS NOT NULL ORDER BY counter DESC LIMIT 1");
        self.one(&sql, [node], bundle_row)
    }

    /// A version of a node.
    pub fn bundle(&self, node: &str, counter: u64) -> Result<Option<BundleRow>, StoreError> {
        self.one(&format!("{BUNDLE} WHERE node = ?1 AND counter = ?2"), params![node, number(counter)], bundle_row)
    }

    /// The bundle of a node that came last with this tag.
    pub fn bundle_of_tag(&self, node: &str, tag: &[u8; 32]) -> Result<Option<BundleRow>, StoreError> {
        let sql = format!("{BUNDLE} WHERE node = ?1 AND tag = ?2 ORDER BY id DESC LIMIT 1");
        self.one(&sql, params![node, tag.as_slice()], bundle_row)
    }

    /// All bundles of a node, oldest first.
    pub fn bundles(&self, node: &str) -> Result<Vec<BundleRow>, StoreError> {
        self.many(&format!("{BUNDLE} WHERE node = ?1 ORDER BY id"), [node], bundle_row)
    }

    /// When the node sent the bundles that were stored after `since`, oldest first.
    pub fn uploaded_since(&self, node: &str, since: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
        let sql =
            "SELECT made_at FROM bundles WHERE node = ?1 AND made_at > ?2 AND peer IS NOT NULL ORDER BY made_at, id";
        self.many(sql, params![node, millis(since)], |row| timestamp(row, 0))
    }

    /// The bytes of a bundle: the signed statement, empty before the approval, and the age file. `None`: they are gone.
    pub fn bundle_bytes(&self, id: i64) -> Result<Option<BundleBytes>, StoreError> {
        let sql = "SELECT coalesce(seal, x''), age FROM bundles WHERE id = ?1 AND age IS NOT NULL";
        self.one(sql, [id], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// The signed statement of a version. `None`: there is none.
    pub fn seal(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        self.one("SELECT seal FROM bundles WHERE id = ?1 AND seal IS NOT NULL", [id], |row| row.get(0))
    }

    /// The newest versions of all nodes that have their content.
    pub fn newest_bundles(&self) -> Result<Vec<BundleRow>, StoreError> {
        let sql = format!(
            "{BUNDLE} WHERE state = 'approved'
             AND counter = (SELECT max(counter) FROM bundles newest WHERE newest.node = bundles.node) ORDER BY node"
        );
        self.many(&sql, [], bundle_row)
    }

    /// When an administrator asked the node for another bundle.
    pub fn renewal(&self, node: &str) -> Result<Option<Timestamp>, StoreError> {
        self.one("SELECT asked_at FROM renewals WHERE node = ?1", [node], |row| timestamp(row, 0))
    }

    /// What a node has reported last.
    pub fn available(&self, node: &str) -> Result<Option<AvailableRow>, StoreError> {
        let sql = "SELECT counter, sha256, state, detail, at, certificate, paced_until FROM available WHERE node = ?1";
        self.one(sql, [node], |row| {
            Ok(AvailableRow {
                counter: counter(row, 0)?.unwrap_or_default(),
                sha256: row.get(1)?,
                available: row.get::<_, String>(2)? == "available",
                detail: row.get(3)?,
                at: timestamp(row, 4)?,
                certificate: row.get(5)?,
                paced_until: timestamp(row, 6)?,
            })
        })
    }

    /// How many bundles wait, and how many nodes have reported that they are available.
    pub fn count_bundles(&self) -> Result<(i64, i64), StoreError> {
        let sql = "SELECT (SELECT count(*) FROM bundles INDEXED BY bundles_pending WHERE state = 'pending'),
                   (SELECT count(*) FROM available WHERE state = 'available')";
        Ok(self.one(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?.unwrap_or_default())
    }
}

impl Changes<'_> {
    /// Stores the key of a node, unless it has one.
    pub fn put_bundle_key(&self, node: &str, row: &BundleKeyRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO bundle_keys (node, identity, recipient, made_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO NOTHING";
        self.run(sql, params![node, row.identity.expose(), row.recipient, millis(row.made_at)])
    }

    /// Stores a bundle that waits, or with `signed` a version. The answer: its number in the store.
    pub fn add_bundle(
        &self,
        new: &NewBundle<'_>,
        signed: Option<&Signed<'_>>,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let sql =
            "INSERT INTO bundles (node, state, tag, key, sha256, code, length, age, made_at, made_by, peer, content_of,
                   counter, seal, decided_at, decided_by)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
        let NewBundle { node, tag, key, sha256, code, age, made_by, peer, content_of } = new;
        let state = if signed.is_some() { BundleState::Approved } else { BundleState::Pending }.word();
        let (tag, length) = (tag.as_ref().map(<[u8; 32]>::as_slice), i64::try_from(age.len()).unwrap_or(i64::MAX));
        let (count, seal) = (signed.map(|signed| number(signed.counter)), signed.map(|signed| signed.seal));
        let (at, by) = (signed.map(|_| millis(now)), signed.map(|signed| signed.by));
        self.run(
            sql,
            params![
                node,
                state,
                tag,
                key,
                sha256.as_slice(),
                code,
                length,
                age,
                millis(now),
                made_by,
                peer,
                content_of,
                count,
                seal,
                at,
                by
            ],
        )?;
        Ok(self.transaction.last_insert_rowid())
    }

    /// Makes a bundle that waits a version.
    pub fn approve_bundle(&self, id: i64, signed: &Signed<'_>, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE bundles SET state = 'approved', counter = ?2, seal = ?3, decided_by = ?4, decided_at = ?5
                   WHERE id = ?1 AND state = 'pending'";
        self.run(sql, params![id, number(signed.counter), signed.seal, signed.by, millis(now)])
    }

    /// Denies a bundle that waits. Its content is gone.
    pub fn deny_bundle(&self, id: i64, by: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE bundles SET state = 'denied', age = NULL, decided_by = ?2, decided_at = ?3
                   WHERE id = ?1 AND state = 'pending'";
        self.run(sql, params![id, by, millis(now)])
    }

    /// Removes the content of a version. Its counter stays used.
    pub fn remove_bundle(&self, id: i64) -> Result<(), StoreError> {
        let sql = "UPDATE bundles SET state = 'removed', age = NULL, seal = NULL WHERE id = ?1 AND state = 'approved'";
        self.run(sql, [id])
    }

    /// Notes that a node is to make another bundle. What was denied before may be sent again.
    pub fn renew_bundle(&self, node: &str, by: &str, now: Timestamp) -> Result<(), StoreError> {
        self.run("UPDATE bundles SET tag = NULL WHERE node = ?1 AND state = 'denied' AND tag IS NOT NULL", [node])?;
        let sql = "INSERT OR REPLACE INTO renewals (node, asked_at, asked_by) VALUES (?1, ?2, ?3)";
        self.run(sql, params![node, millis(now), by])
    }

    /// Forgets that a node is to make another bundle.
    pub fn bundle_renewed(&self, node: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM renewals WHERE node = ?1", [node])
    }

    /// Stores what a node reports.
    pub fn put_available(&self, node: &str, row: &AvailableRow) -> Result<(), StoreError> {
        let sql =
            "INSERT OR REPLACE INTO available (node, counter, sha256, state, detail, at, certificate, paced_until)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let AvailableRow { counter, sha256, available, detail, at, certificate, paced_until } = row;
        let state = if *available { "available" } else { "failed" };
        let (counter, sha256, certificate) = (number(*counter), sha256.as_slice(), certificate.as_slice());
        self.run(sql, params![node, counter, sha256, state, detail, millis(*at), certificate, millis(*paced_until)])
    }
}

/// Counters have 53 bits.
fn number(counter: u64) -> i64 {
    i64::try_from(counter).unwrap_or(i64::MAX)
}

fn counter(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let value: Option<i64> = row.get(column)?;
    value
        .map(|value| u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value)))
        .transpose()
}

fn bundle_row(row: &Row<'_>) -> rusqlite::Result<BundleRow> {
    let word: String = row.get(3)?;
    let state = BundleState::ALL.iter().find(|(_, known)| *known == word).map(|(state, _)| *state);
    Ok(BundleRow {
        id: row.get(0)?,
        node: row.get(1)?,
        counter: counter(row, 2)?,
        state: state.ok_or_else(|| unreadable(3, format!("the state {word} is not known").into()))?,
        tag: row.get(4)?,
        key: row.get(5)?,
        sha256: row.get(6)?,
        code: row.get(7)?,
        length: counter(row, 8)?.unwrap_or_default(),
        seal_length: counter(row, 9)?.unwrap_or_default(),
        made_at: timestamp(row, 10)?,
        made_by: row.get(11)?,
        peer: row.get(12)?,
        decided_at: optional_timestamp(row, 13)?,
        decided_by: row.get(14)?,
        content_of: counter(row, 15)?,
    })
}
