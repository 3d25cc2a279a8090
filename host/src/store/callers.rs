//! Nodes that call at a door, what was decided about them, open windows, what was said when a node was approved, and admission
//! keys by name. SQL only; decides nothing: `state` does, by the rules of `admission`.

use std::time::Duration;

use imprint::time::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Row, params};

use super::rows::{millis, optional_timestamp, timestamp};
use super::{Books, Changes, StoreError};
use crate::admission::{Facts, Level, Rival, Said, Window};

/// A caller that was not heard for this long is forgotten, whatever was decided about it.
pub(super) const CALLER_LIFE: Duration = Duration::from_secs(86_400);
/// Callers that were let in without an administrator are remembered for this long, and the last one of each node for good.
const RULED_LIFE: Duration = Duration::from_secs(3600);

/// The time of a certificate's last use is stored at most this often.
const SHOWN: Duration = Duration::from_secs(60);

/// A node that calls, or has called: one for each HELLO. Two HELLOs are two callers, whatever they say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallerRow {
    /// SHA-256 of its HELLO.
    pub hello: [u8; 32],
    /// Its line key.
    pub key: [u8; 32],
    /// The code of its line key.
    pub code: String,
    /// The nodes that it may be. Exactly one, if it was let in.
    pub nodes: Vec<String>,
    /// What it says of itself.
    pub said: Said,
    /// What the door knows of it.
    pub facts: Facts,
    /// Whose places it takes.
    pub source: String,
    /// Where it called from last, for people.
    pub from: String,
    /// Why it waits, or was denied, for people.
    pub why: String,
    /// When it called first.
    pub first_at: Timestamp,
    /// When it was heard last.
    pub last_at: Timestamp,
    /// What was decided.
    pub standing: Standing,
    /// When it got its certificate.
    pub served_at: Option<Timestamp>,
}

/// What was decided about a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing yet.
    Waits,
    /// It is let in.
    LetIn(Level),
    /// An administrator has denied it.
    Denied,
}

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

/// An admission key that this host knows by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdmissionKeyRow {
    /// Its name.
    pub name: String,
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// It was made for images: everybody with the image has it.
    pub in_image: bool,
    /// When it was made.
    pub made_at: Timestamp,
}

impl CallerRow {
    /// One line for the audit log about this caller, which was let in.
    pub fn as_let_in(&self, level: Level) -> String {
        let CallerRow { code, said, facts, .. } = self;
        format!("level {level}, line key {code}, says {said}, the door knows {facts}")
    }
}

const CALLER: &str = "SELECT hello, key, code, said, facts, source, peer, why, first_at, last_at, verdict, level, \
                      served_at, (SELECT json_group_array(node) FROM (SELECT node FROM called_for WHERE caller = callers.id \
                      ORDER BY node)) FROM callers";

impl Books {
    /// The caller with this HELLO.
    pub fn caller(&self, hello: &[u8; 32], now: Timestamp) -> Result<Option<CallerRow>, StoreError> {
        let sql = format!("{CALLER} WHERE hello = ?1 AND last_at > ?2");
        self.one(&sql, params![hello.as_slice(), millis(now.minus(CALLER_LIFE))], caller_row)
    }

    /// The callers whose line key has this code, oldest first.
    pub fn callers_of_code(&self, code: &str, now: Timestamp) -> Result<Vec<CallerRow>, StoreError> {
        let sql = format!("{CALLER} WHERE code = ?1 AND last_at > ?2 ORDER BY id");
        self.many(&sql, params![code, millis(now.minus(CALLER_LIFE))], caller_row)
    }

    /// The callers that may be this node, and were not served yet, oldest first.
    pub fn callers_of_node(&self, node: &str, now: Timestamp) -> Result<Vec<CallerRow>, StoreError> {
        let sql = format!(
            "{CALLER} WHERE id IN (SELECT caller FROM called_for WHERE node = ?1) AND served_at IS NULL AND last_at > ?2
             ORDER BY id"
        );
        self.many(&sql, params![node, millis(now.minus(CALLER_LIFE))], caller_row)
    }

    /// All callers that wait, or were let in and are not served yet, oldest first.
    pub fn callers(&self, now: Timestamp) -> Result<Vec<CallerRow>, StoreError> {
        let sql = format!("{CALLER} WHERE verdict IS NOT 'denied' AND served_at IS NULL AND last_at > ?1 ORDER BY id");
        self.many(&sql, [millis(now.minus(CALLER_LIFE))], caller_row)
    }

    /// Another line key that calls as this node, was not denied, not served, and was heard after `since`. One is enough to
    /// know, and there may be thousands: the one that came first.
    pub fn rivals(&self, node: &str, key: &[u8; 32], since: Timestamp) -> Result<Vec<Rival>, StoreError> {
        let sql = "SELECT code, peer, last_at, verdict IS NOT NULL FROM called_for JOIN callers ON callers.id = caller
                   WHERE node = ?1 AND key <> ?2 AND verdict IS NOT 'denied' AND served_at IS NULL AND last_at > ?3
                   ORDER BY caller LIMIT 1";
        self.many(sql, params![node, key.as_slice(), millis(since)], |row| {
            Ok(Rival { code: row.get(0)?, from: row.get(1)?, heard: timestamp(row, 2)?, let_in: row.get(3)? })
        })
    }

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

    /// When a valid certificate of a node was shown last.
    pub fn shown_last(&self, node: &str, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT max(shown_at) FROM certificates WHERE node = ?1 AND not_after > ?2 AND revoked_at IS NULL";
        Ok(self.one(sql, params![node, millis(now)], |row| optional_timestamp(row, 0))?.flatten())
    }

    /// When an administrator ended the node's identity, if the node has no certificate since.
    pub fn ended_at(&self, node: &str) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT ended_at FROM nodes WHERE name = ?1 AND NOT EXISTS
                   (SELECT 1 FROM certificates WHERE node = ?1 AND revoked_at IS NULL AND issued_at >= ended_at)";
        Ok(self.one(sql, [node], |row| optional_timestamp(row, 0))?.flatten())
    }

    /// How many callers wait.
    pub fn callers_waiting(&self) -> Result<usize, StoreError> {
        let sql = "SELECT waiting FROM callers_count";
        let count: Option<i64> = self.one(sql, [], |row| row.get(0))?;
        Ok(count.and_then(|count| count.try_into().ok()).unwrap_or_default())
    }

    /// The admission key with this name.
    pub fn admission_key(&self, name: &str) -> Result<Option<AdmissionKeyRow>, StoreError> {
        self.one("SELECT name, public, in_image, made_at FROM admission_keys WHERE name = ?1", [name], key_row)
    }

    /// The admission key with this public key.
    pub fn admission_key_of(&self, public: &[u8; 32]) -> Result<Option<AdmissionKeyRow>, StoreError> {
        let sql = "SELECT name, public, in_image, made_at FROM admission_keys WHERE public = ?1";
        self.one(sql, [public.as_slice()], key_row)
    }

    /// All admission keys, by name.
    pub fn admission_keys(&self) -> Result<Vec<AdmissionKeyRow>, StoreError> {
        self.many("SELECT name, public, in_image, made_at FROM admission_keys ORDER BY name", [], key_row)
    }
}

impl Changes<'_> {
    /// Stores a caller, or what has changed about it.
    pub fn put_caller(&self, row: &CallerRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO callers
                   (hello, key, code, said, facts, source, peer, why, first_at, last_at, verdict, level, served_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
                   ON CONFLICT (hello) DO UPDATE SET said = ?4, facts = ?5, source = ?6, peer = ?7, why = ?8, last_at = ?10,
                   verdict = ?11, level = ?12, served_at = ?13";
        let CallerRow { hello, key, code, nodes, said, facts, source, from, why, .. } = row;
        let (verdict, level) = match row.standing {
            Standing::Waits => (None, None),
            Standing::LetIn(level) => (Some("admitted"), Some(level.word())),
            Standing::Denied => (Some("denied"), None),
        };
        let (first_at, last_at, served_at) = (millis(row.first_at), millis(row.last_at), row.served_at.map(millis));
        let (hello, key, said, facts) = (hello.as_slice(), key.as_slice(), json(said), json(facts));
        self.run(
            sql,
            params![hello, key, code, said, facts, source, from, why, first_at, last_at, verdict, level, served_at],
        )?;
        self.run("DELETE FROM called_for WHERE caller = (SELECT id FROM callers WHERE hello = ?1)", [hello])?;
        for node in nodes {
            let sql = "INSERT INTO called_for (caller, node) SELECT id, ?2 FROM callers WHERE hello = ?1";
            self.run(sql, params![hello, node])?;
        }
        Ok(())
    }

    /// Deletes callers that were not heard for a day.
    pub fn forget_callers(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run("DELETE FROM callers WHERE last_at <= ?1", [millis(now.minus(CALLER_LIFE))])
    }

    /// Deletes the caller that waits and was heard longest ago, of the source of which most wait. Never another source's.
    pub fn crowd_out(&self) -> Result<(), StoreError> {
        let sql = "DELETE FROM callers WHERE id = (SELECT id FROM callers WHERE verdict IS NULL AND source = (
                   SELECT source FROM callers_by_source ORDER BY waiting DESC LIMIT 1) ORDER BY last_at LIMIT 1)";
        self.run(sql, [])
    }

    /// Notes that a caller was let in as a node. With a window: that it was used.
    pub fn let_in(&self, row: &CallerRow, node: &str, level: Level, now: Timestamp) -> Result<(), StoreError> {
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

    /// Notes that the caller with this HELLO has a certificate as this node. A window that it came through is closed.
    pub fn served(&self, hello: &[u8; 32], node: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE callers SET served_at = ?2 WHERE hello = ?1 AND served_at IS NULL";
        self.run(sql, params![hello.as_slice(), millis(now)])?;
        self.run("DELETE FROM windows WHERE node = ?1 AND taken_by = ?2", params![node, hello.as_slice()])
    }

    /// Notes that the node has a certificate that it did not ask for on a line: whoever was let in as the node is served.
    pub fn served_elsewhere(&self, node: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE callers SET served_at = ?2 WHERE verdict = 'admitted' AND served_at IS NULL
                   AND id IN (SELECT caller FROM called_for WHERE node = ?1)";
        self.run(sql, params![node, millis(now)])?;
        self.run("DELETE FROM windows WHERE node = ?1 AND taken_by IS NOT NULL", [node])
    }

    /// Ends that callers are let in as this node: takes back who was, closes its window, forgets what was said when it was
    /// approved, and notes that from now on an administrator has to begin.
    pub fn end_admissions(&self, node: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE callers SET verdict = NULL, level = NULL, served_at = NULL WHERE verdict = 'admitted'
                   AND id IN (SELECT caller FROM called_for WHERE node = ?1)";
        self.run(sql, [node])?;
        self.close_window(node)?;
        self.run("DELETE FROM said WHERE node = ?1", [node])?;
        self.run("UPDATE nodes SET ended_at = ?2 WHERE name = ?1", params![node, millis(now)])
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

    /// Stores an admission key by its name. False: there is another key of this name, or this key has another name.
    pub fn put_admission_key(&self, row: &AdmissionKeyRow) -> Result<bool, StoreError> {
        let sql = "INSERT INTO admission_keys (name, public, in_image, made_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO NOTHING";
        let values = params![row.name, row.public.as_slice(), row.in_image, millis(row.made_at)];
        Ok(self.execute(sql, values)? == 1)
    }

    /// Forgets an admission key. False: there is none of this name.
    pub fn drop_admission_key(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.execute("DELETE FROM admission_keys WHERE name = ?1", [name])? == 1)
    }
}

fn caller_row(row: &Row<'_>) -> rusqlite::Result<CallerRow> {
    let verdict: Option<String> = row.get(10)?;
    Ok(CallerRow {
        hello: row.get(0)?,
        key: row.get(1)?,
        code: row.get(2)?,
        said: read(row, 3)?,
        facts: read(row, 4)?,
        source: row.get(5)?,
        from: row.get(6)?,
        why: row.get(7)?,
        first_at: timestamp(row, 8)?,
        last_at: timestamp(row, 9)?,
        standing: match verdict.as_deref() {
            None => Standing::Waits,
            Some("admitted") => Standing::LetIn(level(row, 11)?),
            Some(_) => Standing::Denied,
        },
        served_at: optional_timestamp(row, 12)?,
        nodes: read(row, 13)?,
    })
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<AdmissionKeyRow> {
    let (name, public, in_image) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(AdmissionKeyRow { name, public, in_image, made_at: timestamp(row, 3)? })
}

fn level(row: &Row<'_>, column: usize) -> rusqlite::Result<Level> {
    let word: String = row.get(column)?;
    Level::of(&word).ok_or_else(|| unreadable(column, format!("the level {word} is not known").into()))
}

fn read<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| unreadable(column, error.into()))
}

fn unreadable(column: usize, error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
}

/// Structs of texts and numbers always convert to JSON, with their fields in one order.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The tables of callers: a step of [`super::schema::STEPS`]. When a record is replaced, nobody stays let in by the old one but
/// whom an administrator has let in.
pub(super) const STEP: &str = "
CREATE TABLE callers (
    id INTEGER PRIMARY KEY,
    hello BLOB NOT NULL UNIQUE,
    key BLOB NOT NULL,
    code TEXT NOT NULL,
    said TEXT NOT NULL CHECK (json_valid(said)),
    facts TEXT NOT NULL CHECK (json_valid(facts)),
    source TEXT NOT NULL,
    peer TEXT NOT NULL,
    why TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    verdict TEXT CHECK (verdict IN ('admitted', 'denied')),
    level TEXT CHECK ((level IS NOT NULL) = (verdict IS 'admitted')),
    served_at INTEGER
) STRICT;
CREATE INDEX callers_of_code ON callers (code);
CREATE INDEX callers_heard ON callers (last_at);
CREATE INDEX callers_waiting ON callers (source, last_at) WHERE verdict IS NULL;
-- How many wait, in all and by source: with 16,384 callers it takes too long to count them for each new one.
CREATE TABLE callers_count (waiting INTEGER NOT NULL) STRICT;
INSERT INTO callers_count VALUES (0);
CREATE TABLE callers_by_source (source TEXT PRIMARY KEY NOT NULL, waiting INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX callers_fullest ON callers_by_source (waiting);
CREATE TRIGGER callers_come AFTER INSERT ON callers WHEN NEW.verdict IS NULL BEGIN
    UPDATE callers_count SET waiting = waiting + 1;
    INSERT INTO callers_by_source SELECT NEW.source, 0
    WHERE NOT EXISTS (SELECT 1 FROM callers_by_source WHERE source = NEW.source);
    UPDATE callers_by_source SET waiting = waiting + 1 WHERE source = NEW.source;
END;
CREATE TRIGGER callers_go AFTER DELETE ON callers WHEN OLD.verdict IS NULL BEGIN
    UPDATE callers_count SET waiting = waiting - 1;
    UPDATE callers_by_source SET waiting = waiting - 1 WHERE source = OLD.source;
    DELETE FROM callers_by_source WHERE source = OLD.source AND waiting < 1;
END;
CREATE TRIGGER callers_change AFTER UPDATE OF verdict, source ON callers
WHEN (OLD.verdict IS NULL, OLD.source) IS NOT (NEW.verdict IS NULL, NEW.source) BEGIN
    UPDATE callers_count SET waiting = waiting + (NEW.verdict IS NULL) - (OLD.verdict IS NULL);
    INSERT INTO callers_by_source SELECT NEW.source, 0
    WHERE NOT EXISTS (SELECT 1 FROM callers_by_source WHERE source = NEW.source);
    UPDATE callers_by_source SET waiting = waiting - (OLD.verdict IS NULL) WHERE source = OLD.source;
    UPDATE callers_by_source SET waiting = waiting + (NEW.verdict IS NULL) WHERE source = NEW.source;
    DELETE FROM callers_by_source WHERE source IN (OLD.source, NEW.source) AND waiting < 1;
END;
CREATE TABLE called_for (
    node TEXT NOT NULL REFERENCES nodes (name),
    caller INTEGER NOT NULL REFERENCES callers (id) ON DELETE CASCADE,
    PRIMARY KEY (node, caller)
) STRICT, WITHOUT ROWID;
CREATE INDEX called_by ON called_for (caller);
CREATE TABLE windows (
    node TEXT PRIMARY KEY NOT NULL REFERENCES nodes (name),
    opened_at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    taken_by BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE said (
    node TEXT PRIMARY KEY NOT NULL REFERENCES nodes (name),
    said TEXT NOT NULL CHECK (json_valid(said)),
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX said_by ON said (said);
CREATE TABLE admissions (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    at INTEGER NOT NULL,
    level TEXT NOT NULL,
    code TEXT NOT NULL,
    peer TEXT NOT NULL
) STRICT;
CREATE INDEX admissions_of_node ON admissions (node, id);
CREATE TABLE admission_keys (
    name TEXT PRIMARY KEY NOT NULL,
    public BLOB NOT NULL UNIQUE,
    in_image INTEGER NOT NULL CHECK (in_image IN (0, 1)),
    made_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE certificates ADD COLUMN shown_at INTEGER;
ALTER TABLE nodes ADD COLUMN ended_at INTEGER;
CREATE TRIGGER nodes_rule AFTER UPDATE OF record ON nodes BEGIN
    UPDATE callers SET verdict = NULL, level = NULL, served_at = NULL WHERE verdict = 'admitted' AND level <> 'approved'
    AND id IN (SELECT caller FROM called_for WHERE node = NEW.name);
END;
";
