//! What programs are still to be told, in order for each node. SQL only; tells nobody.

use imprint::time::Timestamp;
use rusqlite::params;

use crate::store::rows::millis;
use crate::store::{Books, Changes, StoreError};

/// A program that is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Told {
    /// The command of `--hook`.
    Hook,
    /// The URL of `--webhook`.
    Webhook,
}

impl Told {
    /// The word in the store, and for people.
    pub fn word(self) -> &'static str {
        match self {
            Told::Hook => "hook",
            Told::Webhook => "webhook",
        }
    }
}

/// An event that a program is still to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Its number: later events have greater ones.
    pub id: i64,
    /// JSON, without the number.
    pub event: String,
}

const LAST: &str = "SELECT coalesce(max(id), ?2) FROM outbox WHERE target = ?1 AND id > ?2";
// Without the hint SQLite may read all events of the program, in the order of nodes.
const NODES: &str = "SELECT node FROM outbox INDEXED BY outbox_by_target WHERE target = ?1 AND id > ?2 AND id <= ?3
                     GROUP BY node ORDER BY min(id)";

impl Books {
    /// The next event of a node for a program.
    pub fn next_event(&self, told: Told, node: &str) -> Result<Option<Waiting>, StoreError> {
        let sql = "SELECT id, event FROM outbox WHERE target = ?1 AND node = ?2 ORDER BY id LIMIT 1";
        self.one(sql, params![told.word(), node], |row| Ok(Waiting { id: row.get(0)?, event: row.get(1)? }))
    }

    /// The nodes with events for a program that were stored after the event `since`, and the number of the last one.
    pub fn nodes_with_events(&self, told: Told, since: i64) -> Result<(Vec<String>, i64), StoreError> {
        let last = self.one(LAST, params![told.word(), since], |row| row.get(0))?.unwrap_or(since);
        Ok((self.many(NODES, params![told.word(), since, last], |row| row.get(0))?, last))
    }
}

impl Changes<'_> {
    /// Notes an event for a program. Of a node's events the newest `most` are kept.
    pub fn add_event(&self, told: Told, node: &str, event: &str, most: u32, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO outbox (target, node, event, at) VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, params![told.word(), node, event, millis(now)])?;
        let sql = "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE target = ?1 AND node = ?2
                   ORDER BY id DESC LIMIT -1 OFFSET ?3)";
        self.run(sql, params![told.word(), node, most])
    }

    /// Forgets an event: the program has it.
    pub fn event_told(&self, id: i64) -> Result<(), StoreError> {
        self.run("DELETE FROM outbox WHERE id = ?1", [id])
    }
}

#[cfg(test)]
mod tests {
    use imprint::payload::EstUrl;

    use super::*;
    use crate::store::Store;

    /// The accident: an engine is away, a hundred thousand events wait for it, and each look for new ones reads all of them.
    #[test]
    fn a_look_reads_new_events_only() {
        let dir = tempfile::tempdir().unwrap();
        let url = EstUrl::try_from("https://est.example.org/.well-known/est").unwrap();
        let store = Store::create(&dir.path().join("imprint.db"), &[url], Timestamp::from_secs(1)).unwrap();
        for (sql, range) in [(LAST, "(target=? AND id>?)"), (NODES, "(target=? AND id>? AND id<?)")] {
            let mut plan = store.connection().prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let count = plan.parameter_count();
            let rows = plan.query_map(rusqlite::params_from_iter((0..count).map(|_| "0")), |row| row.get(3)).unwrap();
            let steps: Vec<String> = rows.collect::<Result<_, _>>().unwrap();
            assert!(steps[0].contains(range), "{steps:?}");
        }
    }
}
