//! The tables, version by version: opening an older store runs the missing steps. Never changes a step that was released.

/// Version of the schema; `PRAGMA user_version` of the file.
pub(super) const VERSION: i64 = 9;

/// Step `n` leads from version `n` to `n + 1`. Steps that were released are never changed.
pub(super) const STEPS: [&str; 9] = [
    "
CREATE TABLE urls (position INTEGER PRIMARY KEY, url TEXT NOT NULL) STRICT;
CREATE TABLE nodes (
    name TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    record TEXT NOT NULL,
    added_at INTEGER NOT NULL
) STRICT;
CREATE TABLE payloads (
    id BLOB PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    token_hash BLOB NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('once', 'each-boot')),
    composed INTEGER NOT NULL,
    expiry INTEGER NOT NULL,
    spent_at INTEGER,
    spent_by TEXT,
    void_at INTEGER
) STRICT;
CREATE INDEX payloads_of_node ON payloads (node);
CREATE TABLE certificates (
    serial BLOB PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    payload BLOB NOT NULL REFERENCES payloads (id),
    spki_hash BLOB NOT NULL,
    key_code TEXT NOT NULL,
    der BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL
) STRICT;
CREATE INDEX certificates_of_key ON certificates (spki_hash);
CREATE INDEX certificates_of_node ON certificates (node);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    node TEXT,
    peer TEXT,
    detail TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_keeps_text BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
",
    "
ALTER TABLE certificates ADD COLUMN renews BLOB REFERENCES certificates (serial);
ALTER TABLE certificates ADD COLUMN seen_at INTEGER;
",
    "
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    spki_hash BLOB NOT NULL,
    key_code TEXT NOT NULL,
    why TEXT NOT NULL,
    peer TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    verdict TEXT CHECK (verdict IN ('approved', 'denied')),
    UNIQUE (node, spki_hash)
) STRICT;
",
    "
ALTER TABLE certificates ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE certificates ADD COLUMN revoked_at INTEGER;
ALTER TABLE certificates ADD COLUMN reason INTEGER;
ALTER TABLE certificates ADD COLUMN alarmed_at INTEGER;
ALTER TABLE certificates ADD COLUMN approved INTEGER NOT NULL DEFAULT 0;
CREATE INDEX certificates_revoked ON certificates (issuer, not_after) WHERE revoked_at IS NOT NULL;
CREATE INDEX certificates_of_payload ON certificates (payload, issued_at);
CREATE TABLE crls (issuer TEXT PRIMARY KEY, number INTEGER NOT NULL, made_at INTEGER NOT NULL, der BLOB) STRICT;
",
    // audit: the user who decided, and the budget of the line. certificates: the address. requests: the payload.
    "
ALTER TABLE audit ADD COLUMN actor TEXT;
ALTER TABLE audit ADD COLUMN budget TEXT;
CREATE INDEX audit_of_budget ON audit (budget, at, peer) WHERE budget IS NOT NULL;
CREATE TABLE unwritten (budget TEXT PRIMARY KEY, count INTEGER NOT NULL, since INTEGER NOT NULL) STRICT;
ALTER TABLE certificates ADD COLUMN peer TEXT;
CREATE INDEX certificates_renewed ON certificates (node, issued_at) WHERE renews IS NOT NULL;
ALTER TABLE payloads ADD COLUMN denied_at INTEGER;
ALTER TABLE requests ADD COLUMN payload BLOB REFERENCES payloads (id);
",
    super::claims::STEP,
    super::entitlements::STEP,
    super::callers::STEP,
    super::bundles::tables::STEP,
];
