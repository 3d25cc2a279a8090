//! The JSON that commands answer with under `--json`, a type for each command. It is published: an item may be added,
//! none may change. Never holds a secret, and prints nothing.

use serde::Serialize;

/// `init`
#[derive(Serialize)]
pub(super) struct Made<'a> {
    pub(super) dir: String,
    pub(super) subject: &'a str,
    /// Of the root certificate.
    pub(super) sha256: String,
    /// Length of the root certificate.
    pub(super) bytes: usize,
}

/// `node add`
#[derive(Serialize)]
pub(super) struct Added<'a> {
    pub(super) added: Vec<&'a str>,
    pub(super) warnings: Vec<Warned<'a>>,
}

/// One warning of `node add`.
#[derive(Serialize)]
pub(super) struct Warned<'a> {
    pub(super) about: &'a str,
    pub(super) node: &'a str,
    pub(super) other: Option<&'a str>,
    pub(super) message: String,
}

/// `payload`, if it wrote a file.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    pub(super) node: &'a str,
    pub(super) file: String,
    pub(super) bytes: usize,
    /// The payload's identifier.
    pub(super) id: String,
    pub(super) expiry: String,
    /// How many earlier payloads it made void.
    pub(super) voided: usize,
    /// Key codes of the certificates that it revoked.
    pub(super) superseded: &'a [String],
}

/// `show`
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    pub(super) dir: String,
    pub(super) urls: Vec<String>,
    pub(super) pin: String,
    pub(super) ca: ShownCa<'a>,
    pub(super) intermediate: Intermediate,
    /// Whether the root's key is in the directory.
    pub(super) root_key: bool,
}

/// The root certificate in `show`.
#[derive(Serialize)]
pub(super) struct ShownCa<'a> {
    pub(super) subject: &'a str,
    pub(super) not_before: String,
    pub(super) not_after: String,
}

/// The intermediate in `show`.
#[derive(Serialize)]
pub(super) struct Intermediate {
    pub(super) id: String,
    pub(super) not_after: String,
}

/// `approve`
#[derive(Serialize)]
pub(super) struct Approved<'a> {
    pub(super) node: &'a str,
    /// The key's code.
    pub(super) approved: &'a str,
}

/// `deny`
#[derive(Serialize)]
pub(super) struct Denied<'a> {
    pub(super) node: &'a str,
    /// The keys' codes.
    pub(super) denied: &'a [&'a str],
}

/// `revoke`
#[derive(Serialize)]
pub(super) struct Revoked<'a> {
    pub(super) node: &'a str,
    /// The keys' codes.
    pub(super) revoked: &'a [&'a str],
    pub(super) payloads_void: usize,
}

/// `ca rotate`
#[derive(Serialize)]
pub(super) struct Rotated<'a> {
    /// The new one's identifier.
    pub(super) intermediate: &'a str,
    pub(super) not_after: String,
}

/// `backup`
#[derive(Serialize)]
pub(super) struct Copied<'a> {
    pub(super) backup: &'a str,
}

/// `load`
#[derive(Serialize)]
pub(super) struct Stormed<'a> {
    pub(super) nodes: usize,
    pub(super) enrolled: usize,
    pub(super) doubled: usize,
    pub(super) retries: u64,
    pub(super) busy: u64,
    pub(super) memory: u64,
    pub(super) failure: Option<&'a str>,
    pub(super) half_ms: u64,
    pub(super) p99_ms: u64,
    pub(super) last_ms: u64,
}
