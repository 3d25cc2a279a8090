//! Limits how many lines of the audit log refused requests may cause. The log only grows, and a full disk refuses every
//! node. Lines beyond the budget are counted and not written. A budget is used up by the lines in the log itself, so it
//! holds over restarts and for several processes together. Decides nothing about certificates.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use imprint::payload::PayloadId;
use imprint::shown::line;
use imprint::time::Timestamp;
use rusqlite::params;

use super::rows::{millis, timestamp};
use super::{Books, Changes, Event, StoreError};
use crate::origin;

/// The budget that a line is charged to. It depends on the proof that the requester has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Budget {
    /// Requesters without a valid proof. All of them share one budget.
    Stranger,
    /// Requesters with the token of a valid payload: a budget for each payload.
    Payload(PayloadId),
    /// Requesters with a valid certificate of this node. All its certificates share one budget, because one gets others by
    /// renewal.
    Certificate(String),
    /// Nodes that call at a door and were not let in. All of them share one budget.
    Caller,
    /// Alarms about revoked certificates and keys. All of them share one budget, because a revoked certificate is
    /// not a valid proof.
    Alarm,
}

/// Lines an hour for all requesters without a proof, and as many for all callers: enough to notice an attack. 100 together with [`ALARMS`].
const STRANGERS: usize = 90;
/// Lines an hour of those from one address. The rest is left for other addresses.
const OF_ADDRESS: usize = 30;
/// Alarms an hour about revoked certificates. The server's own log and its metric have all of them.
const ALARMS: usize = 10;
/// Lines an hour for one payload or one node's certificates: repeated refusals have the same reason.
const OF_ONE: usize = 10;
const HOUR: Duration = Duration::from_secs(3600);
/// Counts of unwritten lines are stored at most this often, because storing them is a write, too.
const NOTED: Duration = Duration::from_secs(60);
/// The most budgets whose lines are counted between two writes of the counts. Lines of further budgets are not counted.
const KEPT: usize = 1024;

/// Counts of unwritten lines that are not stored yet.
#[derive(Default)]
pub(super) struct Unwritten {
    counts: HashMap<String, NotWritten>,
    noted: Option<Timestamp>,
}

/// A count of unwritten lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotWritten {
    /// How many lines.
    pub count: u64,
    /// Time of the first one.
    pub since: Timestamp,
}

impl Budget {
    fn name(&self) -> String {
        match self {
            Budget::Stranger => "stranger".to_owned(),
            Budget::Payload(id) => format!("payload {id}"),
            Budget::Certificate(node) => format!("certificate of {node}"),
            Budget::Caller => "caller".to_owned(),
            Budget::Alarm => "alarm".to_owned(),
        }
    }

    fn lines(&self) -> usize {
        match self {
            Budget::Stranger | Budget::Caller => STRANGERS,
            Budget::Payload(_) | Budget::Certificate(_) => OF_ONE,
            Budget::Alarm => ALARMS,
        }
    }

    fn lines_of_address(&self) -> usize {
        match self {
            Budget::Stranger | Budget::Caller => OF_ADDRESS,
            _ => self.lines(),
        }
    }
}

impl Changes<'_> {
    /// Adds a line to the audit log, or counts it if the budget of the last hour is used up. True: the line was added.
    pub fn audit_within(&self, budget: &Budget, event: &Event<'_>, now: Timestamp) -> Result<bool, StoreError> {
        let name = budget.name();
        // Times in the future are from before the clock was set back: they do not count.
        let sql = "SELECT peer FROM audit WHERE budget = ?1 AND at > ?2 AND at <= ?3";
        let since = millis(now.minus(HOUR));
        let written: Vec<Option<String>> = self.many(sql, params![name, since, millis(now)], |row| row.get(0))?;
        let from = event.peer.map(origin::of);
        let same = written.iter().filter(|peer| peer.as_deref().map(origin::of) == from).count();
        let own = budget.lines_of_address();
        if written.len() >= budget.lines() || same >= own {
            self.not_written(name, now)?;
            return Ok(false);
        }
        let mut detail = event.detail.to_owned();
        if let Some(NotWritten { count, since }) = self.taken_up(&name)? {
            detail.push_str(&format!(" ({count} more since {since} were counted and not written)"));
        }
        if written.len().saturating_add(1) == budget.lines() || same.saturating_add(1) == own {
            detail.push_str("; more of this within the hour is counted and not written");
        }
        let sql = "INSERT INTO audit (at, event, node, peer, detail, budget) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (node, peer) = (event.node.map(line), event.peer.map(line));
        self.run(sql, params![millis(now), event.event, node, peer, line(&detail), name])?;
        Ok(true)
    }

    /// Counts a line. The count stays even if the transaction is rolled back; it only informs people.
    fn not_written(&self, name: String, now: Timestamp) -> Result<(), StoreError> {
        let mut unwritten = self.unwritten.borrow_mut();
        if unwritten.counts.len() < KEPT || unwritten.counts.contains_key(&name) {
            let kept = unwritten.counts.entry(name).or_insert(NotWritten { count: 0, since: now });
            kept.count = kept.count.saturating_add(1);
        }
        if unwritten.noted.is_some_and(|at| at <= now && now < at.plus(NOTED)) {
            return Ok(());
        }
        unwritten.noted = Some(now);
        for (name, NotWritten { count, since }) in unwritten.counts.drain() {
            let sql = "INSERT INTO unwritten (budget, count, since) VALUES (?1, ?2, ?3)
                       ON CONFLICT (budget) DO UPDATE SET count = count + ?2";
            self.run(sql, params![name, i64::try_from(count).unwrap_or(i64::MAX), millis(since)])?;
        }
        Ok(())
    }

    /// Takes the count of a budget's unwritten lines, for the next line, which reports it.
    fn taken_up(&self, name: &str) -> Result<Option<NotWritten>, StoreError> {
        let kept = self.unwritten.borrow_mut().counts.remove(name);
        let row = |row: &rusqlite::Row<'_>| {
            let count: i64 = row.get(0)?;
            Ok(NotWritten { count: u64::try_from(count).unwrap_or_default(), since: timestamp(row, 1)? })
        };
        let found = self.one("SELECT count, since FROM unwritten WHERE budget = ?1", [name], row)?;
        let Some(NotWritten { count, since }) = found else { return Ok(kept) };
        self.run("DELETE FROM unwritten WHERE budget = ?1", [name])?;
        Ok(Some(NotWritten { count: count.saturating_add(kept.map_or(0, |kept| kept.count)), since }))
    }
}

impl Books {
    /// The count of unwritten lines that no line of the log reports yet. Up to a minute old.
    pub fn not_written(&self) -> Result<Option<NotWritten>, StoreError> {
        let row = |row: &rusqlite::Row<'_>| {
            let count: Option<i64> = row.get(0)?;
            let Some(count) = count else { return Ok(None) };
            Ok(Some(NotWritten { count: u64::try_from(count).unwrap_or_default(), since: timestamp(row, 1)? }))
        };
        Ok(self.one("SELECT sum(count), min(since) FROM unwritten", [], row)?.flatten())
    }
}

pub(super) type Tally = RefCell<Unwritten>;
