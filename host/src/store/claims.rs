//! The claims of records (names, bindings, addresses) as rows. SQL only; decides nothing. A unique index allows each claim
//! once; claims that another record has, too, are marked as shared and exempt.

use rusqlite::params;

use super::rows::{NODE, node_row};
use super::{Books, Changes, NodeRow, StoreError};
use crate::record::claims::Claim;

/// Another node that has a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The node.
    pub node: String,
    /// The file that its record came from.
    pub file: String,
    /// The claim as that node's record spells it.
    pub shown: String,
}

impl Books {
    /// Nodes whose claims were never stored, in the order in which they were added.
    pub fn unclaimed(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.many(&format!("{NODE} WHERE claimed = 0 ORDER BY added_at, rowid"), [], node_row)
    }

    /// Kind and value of all claims of a node.
    pub fn claimed(&self, node: &str) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "SELECT kind, value FROM claims WHERE node = ?1 ORDER BY id";
        self.many(sql, [node], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Other nodes that have this claim, in the order in which they got it.
    pub fn holders(&self, claim: &Claim, node: &str) -> Result<Vec<Holder>, StoreError> {
        let sql = "SELECT claims.node, nodes.file, claims.shown FROM claims JOIN nodes ON nodes.name = claims.node
                   WHERE kind = ?1 AND value = ?2 AND node <> ?3 ORDER BY claims.id";
        let read = |row: &rusqlite::Row<'_>| Ok(Holder { node: row.get(0)?, file: row.get(1)?, shown: row.get(2)? });
        self.many(sql, params![claim.kind.word(), claim.value, node], read)
    }
}

impl Changes<'_> {
    /// Deletes all claims of a node. A claim that other nodes share passes to the first of them.
    pub fn release(&self, node: &str) -> Result<(), StoreError> {
        let sql = "SELECT kind, value FROM claims WHERE node = ?1 AND shared = 0";
        let own: Vec<(String, String)> = self.many(sql, [node], |row| Ok((row.get(0)?, row.get(1)?)))?;
        self.run("DELETE FROM claims WHERE node = ?1", [node])?;
        for (kind, value) in own {
            let sql = "UPDATE claims SET shared = 0
                       WHERE id = (SELECT min(id) FROM claims WHERE kind = ?1 AND value = ?2)";
            self.run(sql, params![kind, value])?;
        }
        Ok(())
    }

    /// Stores a claim of a node. `shared`: another node has it, too, and that is allowed.
    pub fn claim(&self, node: &str, claim: &Claim, shared: bool) -> Result<(), StoreError> {
        let sql = "INSERT INTO claims (node, kind, value, shown, shared) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.run(sql, params![node, claim.kind.word(), claim.value, claim.shown, shared])
    }

    /// Notes that all claims of a node are stored.
    pub fn all_claimed(&self, node: &str) -> Result<(), StoreError> {
        self.run("UPDATE nodes SET claimed = 1 WHERE name = ?1", [node])
    }
}

/// The table of claims: a step of [`super::schema::STEPS`].
pub(super) const STEP: &str = "
CREATE TABLE claims (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    shown TEXT NOT NULL,
    shared INTEGER NOT NULL CHECK (shared IN (0, 1)),
    UNIQUE (node, kind, value)
) STRICT;
CREATE UNIQUE INDEX claims_once ON claims (kind, value) WHERE shared = 0;
CREATE INDEX claims_of_value ON claims (kind, value);
ALTER TABLE nodes ADD COLUMN claimed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX nodes_unclaimed ON nodes (name) WHERE claimed = 0;
";
