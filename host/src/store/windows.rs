//! What the rules ask about a node, beside who calls as it: its window, what was said when it was approved, how it was let in
//! before, whose records name what a caller says, and when its certificate was in use. SQL only; decides nothing.

use std::time::Duration;

use imprint::time::Timestamp;
use rusqlite::params;

use super::rows::{json, level, millis, optional_timestamp, read, timestamp};
use super::{Books, CallerRow, Changes, StoreError};
use crate::admission::{Level, Said, Window};

/// Callers that were let in without an administrator are remembered for this long, and the last one of each node for good.
const RULED_LIFE: Duration = Duration::from_secs(3600);
/// The time of a certificate's last use is stored at most this often.
const SHOWN: Duration = Duration::from_secs(60);

/// How a node was let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdmissionRow {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub level: Level,
    /// The code of the line key.
    pub code: String,
    /// Where it called from.
    pub from: String,
}

impl Books {
    /// Nodes whose records have this claim, or for a serial number that was cut: one that begins so.
    pub fn claimants(&self, kind: &str, value: &str, cut: bool) -> Result<Vec<String>, StoreError> {
        let sql = if cut {
            "SELECT DISTINCT node FROM claims WHERE kind = ?1 AND value >= ?2 AND substr(value, 1, length(?2)) = ?2
             ORDER BY value, id LIMIT 16"
        } else {
            "SELECT node FROM claims WHERE kind = ?1 AND value = ?2 ORDER BY id LIMIT 16"
        };
        self.many(sql, params![kind, value], |row| row.get(0))
    }

    /// Nodes that said exactly this when an administrator let them in.
    pub fn who_said(&self, said: &Said) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT node FROM said WHERE said = ?1 ORDER BY node LIMIT 16";
        self.many(sql, [json(said)], |row| row.get(0))
    }

    /// What a node said when an administrator let it in last.
    pub fn said(&self, node: &str) -> Result<Option<Said>, StoreError> {
        self.one("SELECT said FROM said WHERE node = ?1", [node], |row| read(row, 0))
    }

    /// The window that was opened for a node last.
    pub fn window(&self, node: &str) -> Result<Option<Window>, StoreError> {
        let sql = "SELECT opened_at, until, taken_by FROM windows WHERE node = ?1";
        self.one(sql, [node], |row| {
            Ok(Window { opened: timestamp(row, 0)?, until: timestamp(row, 1)?, taken: row.get(2)? })
        })
    }

    /// How the node was let in last.
    pub fn admission(&self, node: &str) -> Result<Option<AdmissionRow>, StoreError> {
        let sql = "SELECT at, level, code, peer FROM admissions WHERE node = ?1 ORDER BY id DESC LIMIT 1";
        self.one(sql, [node], |row| {
            Ok(AdmissionRow { at: timestamp(row, 0)?, level: level(row, 1)?, code: row.get(2)?, from: row.get(3)? })
        })
    }

    /// When callers were let in as this node after `since` without an administrator, oldest first.
    pub fn ruled_since(&self, node: &str, since: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
        let sql = "SELECT at FROM admissions WHERE node = ?1 AND at > ?2 AND level <> 'approved' ORDER BY at";
        self.many(sql, params![node, millis(since)], |row| timestamp(row, 0))
    }

    /// When a valid certificate of a node was issued or shown last. One that came in a payload counts when it is shown: the
    /// payload may lie in a drawer.
    pub fn in_use_last(&self, node: &str, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT nullif(max(max(CASE WHEN peer IS NULL AND renews IS NULL THEN 0 ELSE issued_at END,
                   coalesce(shown_at, 0))), 0) FROM certificates
                   WHERE node = ?1 AND not_after > ?2 AND revoked_at IS NULL";
        Ok(self.one(sql, params![node, millis(now)], |row| optional_timestamp(row, 0))?.flatten())
    }

    /// When an administrator ended the node's identity, if the node has no certificate since.
    pub fn ended_at(&self, node: &str) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT ended_at FROM nodes WHERE name = ?1 AND NOT EXISTS
                   (SELECT 1 FROM certificates WHERE node = ?1 AND revoked_at IS NULL AND issued_at >= ended_at)";
        Ok(self.one(sql, [node], |row| optional_timestamp(row, 0))?.flatten())
    }
}

impl Changes<'_> {
    /// Notes that a caller was let in as a node. With a window: that it was used.
    pub(super) fn note_admission(
        &self,
        row: &CallerRow,
        node: &str,
        level: Level,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO admissions (node, at, level, code, peer) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.run(sql, params![node, millis(now), level.word(), row.code, row.from])?;
        let sql = "DELETE FROM admissions WHERE node = ?1 AND at <= ?2
                   AND id < (SELECT max(id) FROM admissions WHERE node = ?1)";
        self.run(sql, params![node, millis(now.minus(RULED_LIFE))])?;
        if level == Level::Armed {
            let sql = "UPDATE windows SET taken_by = ?2 WHERE node = ?1";
            self.run(sql, params![node, row.hello.as_slice()])?;
        }
        Ok(())
    }

    /// An administrator lets callers in as this node again.
    pub fn begin_admissions(&self, node: &str) -> Result<(), StoreError> {
        self.run("UPDATE nodes SET ended_at = NULL WHERE name = ?1 AND ended_at IS NOT NULL", [node])
    }

    /// Stores what a node said when an administrator let it in.
    pub fn put_said(&self, node: &str, said: &Said, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO said (node, said, at) VALUES (?1, ?2, ?3)";
        self.run(sql, params![node, json(said), millis(now)])
    }

    /// Forgets what a node said.
    pub(super) fn forget_said(&self, node: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM said WHERE node = ?1", [node])
    }

    /// Opens a window for a node; an earlier one is closed.
    pub fn open_window(&self, node: &str, opened: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO windows (node, opened_at, until) VALUES (?1, ?2, ?3)";
        self.run(sql, params![node, millis(opened), millis(until)])
    }

    /// Closes the window of a node.
    pub fn close_window(&self, node: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM windows WHERE node = ?1", [node])
    }

    /// Notes that a certificate was shown.
    pub fn shown(&self, serial: &[u8], now: Timestamp) -> Result<(), StoreError> {
        // Not at every handshake: each is a write.
        let sql = "UPDATE certificates SET shown_at = ?2 WHERE serial = ?1
                   AND (shown_at IS NULL OR shown_at <= ?3 OR shown_at > ?2)";
        self.run(sql, params![serial, millis(now), millis(now.minus(SHOWN))])
    }
}
