//! How many lines of the audit log somebody may cause who gets nothing for it. The log only grows, and a disk that it has
//! filled refuses everybody. What is beyond the budget is counted and not written. The lines themselves are what is
//! counted, so that a second process and a restart change nothing. Decides about no certificate.

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

/// Who causes a line. What they have shown bounds how many there are of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Budget {
    /// Somebody who has shown nothing that is good now. All of them share one budget.
    Stranger,
    /// The token of a payload that is good.
    Payload(PayloadId),
    /// A certificate of this node that is valid. They share one: who has one gets others by it.
    Certificate(String),
    /// A certificate that was revoked, or its key, which is an alarm. All of them share one budget: whoever has many of
    /// them is a stranger nevertheless.
    Alarm,
}

/// So many lines an hour are enough to see that something is going on. With [`ALARMS`] they are a hundred.
const STRANGERS: usize = 90;
/// So many of those are from one address, which leaves room for what others do.
const OF_ADDRESS: usize = 30;
/// So many alarms an hour about what was revoked. The log of the server and its metric have all of them.
const ALARMS: usize = 10;
/// A node that is refused again and again is refused for the same reason.
const OF_ONE: usize = 10;
const HOUR: Duration = Duration::from_secs(3600);
/// What was not written is noted in the store so often at most: noting it is a write, too.
const NOTED: Duration = Duration::from_secs(60);
/// More budgets than this are not counted one by one between two notes.
const KEPT: usize = 1024;

/// Lines that were not written and are not in the store yet.
#[derive(Default)]
pub(super) struct Unwritten {
    counts: HashMap<String, NotWritten>,
    noted: Option<Timestamp>,
}

/// Lines that were not written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotWritten {
    /// How many.
    pub count: u64,
    /// Since when.
    pub since: Timestamp,
}

impl Budget {
    fn name(&self) -> String {
        match self {
            Budget::Stranger => "stranger".to_owned(),
            Budget::Payload(id) => format!("payload {id}"),
            Budget::Certificate(node) => format!("certificate of {node}"),
            Budget::Alarm => "alarm".to_owned(),
        }
    }

    fn lines(&self) -> usize {
        match self {
            Budget::Stranger => STRANGERS,
            Budget::Payload(_) | Budget::Certificate(_) => OF_ONE,
            Budget::Alarm => ALARMS,
        }
    }

    fn lines_of_address(&self) -> usize {
        match self {
            Budget::Stranger => OF_ADDRESS,
            _ => self.lines(),
        }
    }
}

impl Changes<'_> {
    /// Adds a line to the audit log, or counts it if the last hour has had enough of them. Whether it was added.
    pub fn audit_within(&self, budget: &Budget, event: &Event<'_>, now: Timestamp) -> Result<bool, StoreError> {
        let name = budget.name();
        // A clock that was ahead is set right: what it dated is of no hour.
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

    /// Counts a line. If these changes are dropped, it is counted nevertheless: the number is for people.
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

    /// What was not written, for the line that says so.
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
    /// What strangers have caused that no line of the log tells yet, to the last minute.
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
