//! The tables of bundles: their keys, versions, reports of nodes, and what programs are still to be told.

/// A step of `schema::STEPS`.
pub(in crate::store) const STEP: &str = "
-- The key of a node whose bundles this host can read: an X25519 identity.
CREATE TABLE bundle_keys (
    node TEXT PRIMARY KEY NOT NULL REFERENCES nodes (name),
    identity BLOB NOT NULL CHECK (length(identity) = 32),
    recipient TEXT NOT NULL,
    made_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Rows are never deleted, so that no counter is used twice. counter, seal: from the approval on. age: until the bundle is denied
-- or removed. tag: denied ones lose it when the administrator asks the node for another bundle.
CREATE TABLE bundles (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    node TEXT NOT NULL REFERENCES nodes (name),
    counter INTEGER CHECK (counter > 0),
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'removed')),
    tag BLOB CHECK (length(tag) = 32),
    key TEXT NOT NULL,
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    code TEXT NOT NULL,
    length INTEGER NOT NULL CHECK (length > 0),
    age BLOB CHECK (age IS NULL OR length(age) = length),
    seal BLOB,
    made_at INTEGER NOT NULL,
    made_by TEXT NOT NULL,
    peer TEXT,
    decided_at INTEGER,
    decided_by TEXT,
    content_of INTEGER REFERENCES bundles (id),
    CHECK ((counter IS NOT NULL) = (state IN ('approved', 'removed'))),
    CHECK ((age IS NOT NULL) = (state IN ('pending', 'approved'))),
    CHECK ((seal IS NOT NULL) = (state = 'approved')),
    CHECK ((decided_at IS NULL) = (state = 'pending'))
) STRICT;
CREATE UNIQUE INDEX bundles_pending ON bundles (node) WHERE state = 'pending';
CREATE UNIQUE INDEX bundles_of_node ON bundles (node, counter);
CREATE INDEX bundles_of_tag ON bundles (node, tag);
CREATE INDEX bundles_uploaded ON bundles (node, made_at) WHERE peer IS NOT NULL;
CREATE TRIGGER bundles_stay BEFORE DELETE ON bundles BEGIN SELECT RAISE(ABORT, 'a counter is never used twice'); END;
CREATE TABLE renewals (
    node TEXT PRIMARY KEY NOT NULL REFERENCES nodes (name),
    asked_at INTEGER NOT NULL,
    asked_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE available (
    node TEXT PRIMARY KEY NOT NULL REFERENCES nodes (name),
    counter INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('available', 'failed')),
    detail TEXT,
    at INTEGER NOT NULL,
    certificate BLOB NOT NULL CHECK (length(certificate) = 32),
    paced_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What programs are told, for each of them by itself. A row goes once the program has it.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL CHECK (target IN ('hook', 'webhook')),
    node TEXT NOT NULL,
    event TEXT NOT NULL CHECK (json_valid(event)),
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_in_order ON outbox (target, node, id);
CREATE INDEX outbox_by_target ON outbox (target, id);
";
