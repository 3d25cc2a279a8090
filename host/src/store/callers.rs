//! Nodes that call at a door, and how each of them stands. SQL only; decides nothing: `state` does, by the rules of
//! `admission`. How a caller stands changes here and nowhere else.
//!
//! A caller is one HELLO: one boot of a node, or somebody who says so.
//!
//! ```text
//!                        let_in                has_payload             served
//!  a call ──▶ WAITS ───────────────▶ LET IN ──────────────▶ HAS PAYLOAD ──────▶ SERVED
//!               ▲  │                   │                         │                │
//!    a call     │  │ deny              │ deny                    │ deny           │ deny
//!               │  └─────▶ DENIED ◀────┴─────────────────────────┴────────────────┘
//!               │             ╎ let_in, by an administrator
//!             ENDED ◀──────── LET IN, HAS PAYLOAD, SERVED
//!                     end: an administrator has revoked the node
//!             ENDED ◀──────── LET IN, HAS PAYLOAD
//!                     record_replaced, if a rule had let it in; served: another line key has the certificate;
//!                     payloads_void: the node has another payload
//!
//!  forgotten: a caller that waits, was denied or has ended, a day after it was heard last; one that is let in, a day after
//!             that (or after it got its payload, or its certificate), however often it calls. One that waits, before that, if
//!             all places are taken.
//! ```
//!
//! - LET IN, HAS PAYLOAD and SERVED are *let in*, as one node and with a level. No rule is asked about them again, so whatever
//!   ends a caller's admission is one of these changes.
//! - Anybody can say a HELLO again that was heard. So a call changes nothing of a caller that is let in or was denied, but
//!   the time when it was heard.
//! - A payload for a caller is noted with its line key. It is good as long as its caller is let in: `deny`, `end`,
//!   `record_replaced` and `served` make the payloads void of those whom they end.
//! - A caller that was let in gets one payload that makes the node's earlier ones void. Whoever makes this one void has decided
//!   later, and the caller has ended.
//! - A caller that has ended does not wait: only when it calls again.

mod tables;

use std::time::Duration;

use imprint::payload::PayloadId;
use imprint::time::Timestamp;
use rusqlite::{Row, params};

pub(super) use tables::STEP;

use super::rows::{json, level, millis, read, timestamp, unreadable};
use super::{Books, Changes, StoreError};
use crate::admission::{Facts, Level, Rival, Said};
use crate::origin;

/// A caller is forgotten after this time.
pub(super) const CALLER_LIFE: Duration = Duration::from_secs(86_400);

/// A node that calls, or has called: one for each HELLO. Two HELLOs are two callers, whatever they say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallerRow {
    /// SHA-256 of its HELLO.
    pub hello: [u8; 32],
    /// Its line key.
    pub key: [u8; 32],
    /// The code of its line key.
    pub code: String,
    /// The nodes that it may be. Exactly one, if it is let in.
    pub nodes: Vec<String>,
    /// What it says of itself.
    pub said: Said,
    /// What the door knows of it.
    pub facts: Facts,
    /// Whose places it takes: where it called from first.
    pub source: String,
    /// Where it called from, for people: last, or when it was decided about.
    pub from: String,
    /// Why it waits, or was denied, for people.
    pub why: String,
    /// When it called first.
    pub first_at: Timestamp,
    /// When it was heard last.
    pub last_at: Timestamp,
    /// How it stands.
    pub standing: Standing,
    /// Since when it stands so.
    pub since: Timestamp,
}

/// How a caller stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing is decided yet.
    Waits,
    /// It is let in, and has no payload yet.
    LetIn(Level),
    /// It is let in, and a payload was made for it.
    HasPayload(Level),
    /// It is let in, and its line key has the node's certificate.
    Served(Level),
    /// An administrator has denied it, or picked another line key.
    Denied,
    /// It was let in, and is not any more.
    Ended,
}

impl Standing {
    /// How it is let in. `None`: it is not.
    pub fn level(self) -> Option<Level> {
        match self {
            Standing::LetIn(level) | Standing::HasPayload(level) | Standing::Served(level) => Some(level),
            Standing::Waits | Standing::Denied | Standing::Ended => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Standing::Waits => "waits",
            Standing::LetIn(_) => "let in",
            Standing::HasPayload(_) => "has payload",
            Standing::Served(_) => "served",
            Standing::Denied => "denied",
            Standing::Ended => "ended",
        }
    }

    fn of(word: &str, level: Option<Level>) -> Option<Standing> {
        match (word, level) {
            ("waits", None) => Some(Standing::Waits),
            ("let in", Some(level)) => Some(Standing::LetIn(level)),
            ("has payload", Some(level)) => Some(Standing::HasPayload(level)),
            ("served", Some(level)) => Some(Standing::Served(level)),
            ("denied", None) => Some(Standing::Denied),
            ("ended", None) => Some(Standing::Ended),
            _ => None,
        }
    }
}

impl CallerRow {
    /// One line for the audit log about this caller, which was let in.
    pub fn as_let_in(&self, level: Level) -> String {
        let CallerRow { code, said, facts, .. } = self;
        format!("level {level}, line key {code}, says {said}, the door knows {facts}")
    }
}

const CALLER: &str = "SELECT hello, key, code, said, facts, source, peer, why, first_at, last_at, state, level, since, \
                      (SELECT json_group_array(node) FROM (SELECT node FROM called_for WHERE caller = callers.id \
                      ORDER BY node)) FROM callers";
/// Callers that somebody still has to do with: they wait, or were let in and have no certificate yet.
const OPEN: &str = "state IN ('waits', 'let in', 'has payload')";
/// Callers that are let in and have no certificate yet.
const UNSERVED: &str = "state IN ('let in', 'has payload')";
const LET_IN: &str = "level IS NOT NULL";

impl Books {
    /// The caller with this HELLO.
    pub fn caller(&self, hello: &[u8; 32], now: Timestamp) -> Result<Option<CallerRow>, StoreError> {
        let sql = format!("{CALLER} WHERE hello = ?1 AND kept_from > ?2");
        self.one(&sql, params![hello.as_slice(), oldest(now)], caller_row)
    }

    /// The callers whose line key has this code, oldest first.
    pub fn callers_of_code(&self, code: &str, now: Timestamp) -> Result<Vec<CallerRow>, StoreError> {
        let sql = format!("{CALLER} WHERE code = ?1 AND kept_from > ?2 ORDER BY id");
        self.many(&sql, params![code, oldest(now)], caller_row)
    }

    /// The callers that wait and may be this node, or were let in as it and have no certificate yet, oldest first.
    pub fn callers_of_node(&self, node: &str, now: Timestamp) -> Result<Vec<CallerRow>, StoreError> {
        let sql = format!(
            "{CALLER} WHERE id IN (SELECT caller FROM called_for WHERE node = ?1) AND {OPEN} AND kept_from > ?2 ORDER BY id"
        );
        self.many(&sql, params![node, oldest(now)], caller_row)
    }

    /// All callers that wait, or were let in and have no certificate yet, oldest first.
    pub fn callers(&self, now: Timestamp) -> Result<Vec<CallerRow>, StoreError> {
        self.many(&format!("{CALLER} WHERE {OPEN} AND kept_from > ?1 ORDER BY id"), [oldest(now)], caller_row)
    }

    /// The other line key that calls as this node, or is let in as it without a certificate, and was heard last; if that was
    /// after `since`. One is enough to know, and there may be thousands.
    pub fn rivals(&self, node: &str, key: &[u8; 32], since: Timestamp) -> Result<Vec<Rival>, StoreError> {
        let sql = format!(
            "SELECT code, peer, last_at, {LET_IN} FROM called_for JOIN callers ON callers.id = caller
             WHERE node = ?1 AND heard > ?3 AND key <> ?2 AND {OPEN} ORDER BY heard DESC LIMIT 1"
        );
        self.many(&sql, params![node, key.as_slice(), millis(since)], |row| {
            Ok(Rival { code: row.get(0)?, from: row.get(1)?, heard: timestamp(row, 2)?, let_in: row.get(3)? })
        })
    }

    /// How many callers wait.
    pub fn callers_waiting(&self) -> Result<usize, StoreError> {
        let count: Option<i64> = self.one("SELECT waiting FROM callers_count", [], |row| row.get(0))?;
        Ok(count.and_then(|count| count.try_into().ok()).unwrap_or_default())
    }

    /// Whether a payload was made for this line key as this node, and is neither void nor expired.
    pub fn has_good_payload(&self, node: &str, key: &[u8; 32], now: Timestamp) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM payloads WHERE node = ?1 AND line_key = ?2 AND void_at IS NULL AND expiry > ?3";
        Ok(self.one(sql, params![node, key.as_slice(), millis(now)], |_| Ok(()))?.is_some())
    }
}

impl Changes<'_> {
    /// Stores a caller that waits, or when one was heard that stands as before.
    pub fn put_caller(&self, row: &CallerRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO callers
                   (hello, key, code, said, facts, source, net, peer, why, first_at, last_at, state, level, since)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
                   ON CONFLICT (hello) DO UPDATE SET said = ?4, facts = ?5, source = ?6, net = ?7, peer = ?8, why = ?9,
                   last_at = ?11, state = ?12, level = ?13, since = ?14";
        let CallerRow { hello, key, code, nodes, said, facts, source, from, why, standing, .. } = row;
        let (hello, key, said, facts) = (hello.as_slice(), key.as_slice(), json(said), json(facts));
        let (first_at, last_at, since) = (millis(row.first_at), millis(row.last_at), millis(row.since));
        let (net, state, level) = (origin::wide(source), standing.word(), standing.level().map(Level::word));
        self.run(
            sql,
            params![hello, key, code, said, facts, source, net, from, why, first_at, last_at, state, level, since],
        )?;
        self.run("DELETE FROM called_for WHERE caller = (SELECT id FROM callers WHERE hello = ?1)", [hello])?;
        for node in nodes {
            let sql = "INSERT INTO called_for (caller, node, heard) SELECT id, ?2, ?3 FROM callers WHERE hello = ?1";
            self.run(sql, params![hello, node, last_at])?;
        }
        Ok(())
    }

    /// Lets the callers of one line key in as a node.
    pub fn let_in(&self, rows: &[CallerRow], node: &str, level: Level, now: Timestamp) -> Result<(), StoreError> {
        for row in rows {
            let (nodes, standing) = (vec![node.to_owned()], Standing::LetIn(level));
            self.put_caller(&CallerRow { nodes, standing, since: now, ..row.clone() })?;
        }
        match rows.first() {
            Some(first) => self.note_admission(first, node, level, now),
            None => Ok(()),
        }
    }

    /// Notes that this payload was made for a line key that is let in as the node.
    pub fn has_payload(&self, payload: PayloadId, key: &[u8; 32], now: Timestamp) -> Result<(), StoreError> {
        let (payload, key) = (payload.0.as_slice(), key.as_slice());
        self.run("UPDATE payloads SET line_key = ?2 WHERE id = ?1", params![payload, key])?;
        let sql = "UPDATE callers SET state = 'has payload', since = ?3 WHERE key = ?2 AND state = 'let in'
                   AND id IN (SELECT caller FROM called_for WHERE node = (SELECT node FROM payloads WHERE id = ?1))";
        self.run(sql, params![payload, key, millis(now)])
    }

    /// The node has a certificate for the token of this payload: the payload's line key is served, every other one has ended,
    /// and the node's window is closed.
    pub fn served(&self, payload: PayloadId, node: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE callers SET state = 'served', since = ?3 WHERE {UNSERVED}
             AND id IN (SELECT caller FROM called_for WHERE node = ?1)
             AND key = (SELECT line_key FROM payloads WHERE id = ?2)"
        );
        self.run(&sql, params![node, payload.0.as_slice(), millis(now)])?;
        self.end_those(node, UNSERVED, now)?;
        self.close_window(node)
    }

    /// An administrator denies a caller.
    pub fn deny(&self, row: &CallerRow, now: Timestamp) -> Result<(), StoreError> {
        if row.standing.level().is_some() {
            for node in &row.nodes {
                self.withdraw_those(node, "SELECT ?3", params![node, millis(now), row.key.as_slice()])?;
            }
        }
        self.put_caller(&CallerRow { standing: Standing::Denied, since: now, ..row.clone() })
    }

    /// An administrator revokes the node: whoever is let in as it has ended, its window is closed, what was said when it was
    /// approved is forgotten, and from now on an administrator has to begin.
    pub fn end(&self, node: &str, now: Timestamp) -> Result<(), StoreError> {
        self.end_those(node, LET_IN, now)?;
        self.close_window(node)?;
        self.forget_said(node)?;
        self.run("UPDATE nodes SET ended_at = ?2 WHERE name = ?1", params![node, millis(now)])
    }

    /// The node has another record. Nobody stays let in by the old one but whom an administrator has let in, and nobody gets
    /// what was made from it.
    pub(super) fn record_replaced(&self, node: &str, now: Timestamp) -> Result<(), StoreError> {
        self.end_those(node, &format!("{UNSERVED} AND level <> 'approved'"), now)?;
        let keys = "SELECT key FROM callers JOIN called_for ON caller = id WHERE node = ?1 AND state = 'has payload'";
        self.withdraw_those(node, keys, params![node, millis(now)])?;
        let sql = "UPDATE callers SET state = 'let in' WHERE state = 'has payload'
                   AND id IN (SELECT caller FROM called_for WHERE node = ?1)";
        self.run(sql, [node])?;
        self.close_window(node)
    }

    /// Payloads of the node have become void: a caller whose payload was among them has ended.
    pub(super) fn payloads_void(&self, node: &str, now: Timestamp) -> Result<(), StoreError> {
        let without = "state = 'has payload' AND NOT EXISTS (SELECT 1 FROM payloads WHERE payloads.node = ?1
                       AND line_key = callers.key AND void_at IS NULL)";
        self.end_those(node, without, now)
    }

    /// Deletes callers that are forgotten, and windows that have closed.
    pub fn forget_callers(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run("DELETE FROM callers WHERE kept_from <= ?1", [oldest(now)])?;
        self.run("DELETE FROM windows WHERE until <= ?1", [millis(now)])
    }

    /// Deletes the caller that waits and was heard longest ago, of the source of which most wait, in the network of which most
    /// wait. Of several with as many: that of which nobody was heard for the longest time.
    pub fn crowd_out(&self) -> Result<(), StoreError> {
        let sql = "DELETE FROM callers WHERE id = (SELECT id FROM callers WHERE state = 'waits' AND source = (
                   SELECT source FROM callers_by_source WHERE net = (
                   SELECT net FROM callers_by_net ORDER BY waiting DESC, heard LIMIT 1)
                   ORDER BY waiting DESC, heard LIMIT 1) ORDER BY last_at LIMIT 1)";
        self.run(sql, [])
    }

    /// Ends callers that are let in as this node, and makes their payloads void. `which`: a condition about a row of callers.
    fn end_those(&self, node: &str, which: &str, now: Timestamp) -> Result<(), StoreError> {
        // Most nodes never call at a door.
        if self.one("SELECT 1 FROM called_for WHERE node = ?1", [node], |_| Ok(()))?.is_none() {
            return Ok(());
        }
        let keys = format!("SELECT key FROM callers JOIN called_for ON caller = id WHERE node = ?1 AND {which}");
        self.withdraw_those(node, &keys, params![node, millis(now)])?;
        let sql = format!(
            "UPDATE callers SET state = 'ended', level = NULL, since = ?2
             WHERE {which} AND id IN (SELECT caller FROM called_for WHERE node = ?1)"
        );
        self.run(&sql, params![node, millis(now)])
    }

    /// Makes payloads of the node void that were made for these line keys, and drops the requests that were made with them.
    /// `values`: the node, the time, and those of `keys`.
    fn withdraw_those(&self, node: &str, keys: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), StoreError> {
        let made = format!(
            "SELECT id FROM payloads WHERE node = ?1 AND void_at IS NULL AND expiry > ?2 AND line_key IN ({keys})"
        );
        let open: bool = self.one(&made, values, |_| Ok(()))?.is_some();
        if !open {
            return Ok(());
        }
        let sql = format!("UPDATE payloads SET void_at = ?2 WHERE id IN ({made})");
        self.run(&sql, values)?;
        let sql = "DELETE FROM requests WHERE node = ?1 AND verdict IS NOT 'denied'
                   AND payload IN (SELECT id FROM payloads WHERE node = ?1 AND line_key IS NOT NULL AND void_at IS NOT NULL)";
        self.run(sql, [node])
    }
}

/// Callers from before this time are forgotten.
fn oldest(now: Timestamp) -> i64 {
    millis(now.minus(CALLER_LIFE))
}

fn caller_row(row: &Row<'_>) -> rusqlite::Result<CallerRow> {
    let word: String = row.get(10)?;
    let level = row.get::<_, Option<String>>(11)?.map(|_| level(row, 11)).transpose()?;
    let standing = Standing::of(&word, level);
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
        standing: standing.ok_or_else(|| unreadable(10, format!("a caller that \"{word}\" is not known").into()))?,
        since: timestamp(row, 12)?,
        nodes: read(row, 13)?,
    })
}
