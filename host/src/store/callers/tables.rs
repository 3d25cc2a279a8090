//! The tables of callers, windows and admission keys.

/// A step of `schema::STEPS`.
pub(in crate::store) const STEP: &str = "
CREATE TABLE callers (
    id INTEGER PRIMARY KEY,
    hello BLOB NOT NULL UNIQUE,
    key BLOB NOT NULL,
    code TEXT NOT NULL,
    said TEXT NOT NULL CHECK (json_valid(said)),
    facts TEXT NOT NULL CHECK (json_valid(facts)),
    source TEXT NOT NULL,
    net TEXT NOT NULL,
    peer TEXT NOT NULL,
    why TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waits', 'let in', 'has payload', 'served', 'denied', 'ended')),
    level TEXT CHECK ((level IS NOT NULL) = (state IN ('let in', 'has payload', 'served'))),
    since INTEGER NOT NULL,
    -- Calls do not make it longer that somebody is let in: anybody can say a HELLO again.
    kept_from INTEGER GENERATED ALWAYS AS (CASE WHEN level IS NULL THEN last_at ELSE since END) VIRTUAL
) STRICT;
CREATE INDEX callers_of_code ON callers (code);
CREATE INDEX callers_kept ON callers (kept_from);
CREATE INDEX callers_waiting ON callers (source, last_at) WHERE state = 'waits';
-- How many wait, in all, by source and by network of sources: with 16,384 callers it takes too long to count them for each
-- new one. heard: when one of them was heard last.
CREATE TABLE callers_count (waiting INTEGER NOT NULL) STRICT;
INSERT INTO callers_count VALUES (0);
CREATE TABLE callers_by_source (
    source TEXT PRIMARY KEY NOT NULL,
    net TEXT NOT NULL,
    waiting INTEGER NOT NULL,
    heard INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX callers_fullest ON callers_by_source (net, waiting DESC, heard);
CREATE TABLE callers_by_net (
    net TEXT PRIMARY KEY NOT NULL,
    waiting INTEGER NOT NULL,
    heard INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX callers_fullest_net ON callers_by_net (waiting DESC, heard);
CREATE TRIGGER callers_come AFTER INSERT ON callers WHEN NEW.state = 'waits' BEGIN
    UPDATE callers_count SET waiting = waiting + 1;
    INSERT INTO callers_by_source SELECT NEW.source, NEW.net, 0, 0
    WHERE NOT EXISTS (SELECT 1 FROM callers_by_source WHERE source = NEW.source);
    INSERT INTO callers_by_net SELECT NEW.net, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM callers_by_net WHERE net = NEW.net);
    UPDATE callers_by_source SET waiting = waiting + 1, heard = max(heard, NEW.last_at) WHERE source = NEW.source;
    UPDATE callers_by_net SET waiting = waiting + 1, heard = max(heard, NEW.last_at) WHERE net = NEW.net;
END;
CREATE TRIGGER callers_go AFTER DELETE ON callers WHEN OLD.state = 'waits' BEGIN
    UPDATE callers_count SET waiting = waiting - 1;
    UPDATE callers_by_source SET waiting = waiting - 1 WHERE source = OLD.source;
    UPDATE callers_by_net SET waiting = waiting - 1 WHERE net = OLD.net;
    DELETE FROM callers_by_source WHERE source = OLD.source AND waiting < 1;
    DELETE FROM callers_by_net WHERE net = OLD.net AND waiting < 1;
END;
CREATE TRIGGER callers_change AFTER UPDATE OF state, source, net, last_at ON callers
WHEN 'waits' IN (OLD.state, NEW.state) BEGIN
    UPDATE callers_count SET waiting = waiting + (NEW.state = 'waits') - (OLD.state = 'waits');
    INSERT INTO callers_by_source SELECT NEW.source, NEW.net, 0, 0
    WHERE NOT EXISTS (SELECT 1 FROM callers_by_source WHERE source = NEW.source);
    INSERT INTO callers_by_net SELECT NEW.net, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM callers_by_net WHERE net = NEW.net);
    UPDATE callers_by_source SET waiting = waiting - (OLD.state = 'waits') WHERE source = OLD.source;
    UPDATE callers_by_net SET waiting = waiting - (OLD.state = 'waits') WHERE net = OLD.net;
    UPDATE callers_by_source SET waiting = waiting + 1, heard = max(heard, NEW.last_at)
    WHERE NEW.state = 'waits' AND source = NEW.source;
    UPDATE callers_by_net SET waiting = waiting + 1, heard = max(heard, NEW.last_at)
    WHERE NEW.state = 'waits' AND net = NEW.net;
    DELETE FROM callers_by_source WHERE source IN (OLD.source, NEW.source) AND waiting < 1;
    DELETE FROM callers_by_net WHERE net IN (OLD.net, NEW.net) AND waiting < 1;
END;
-- heard: as callers.last_at, so that the one that was heard last is found among thousands.
CREATE TABLE called_for (
    node TEXT NOT NULL REFERENCES nodes (name),
    caller INTEGER NOT NULL REFERENCES callers (id) ON DELETE CASCADE,
    heard INTEGER NOT NULL,
    PRIMARY KEY (node, caller)
) STRICT, WITHOUT ROWID;
CREATE INDEX called_by ON called_for (caller);
CREATE INDEX called_last ON called_for (node, heard);
CREATE TABLE windows (
    node TEXT PRIMARY KEY NOT NULL REFERENCES nodes (name),
    opened_at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    taken_by BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX windows_until ON windows (until);
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
-- The line key of the caller at a door that it was made for.
ALTER TABLE payloads ADD COLUMN line_key BLOB;
";
