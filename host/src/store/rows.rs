//! The rows of the tables as structs, and their conversion from and to SQL values. Runs no query.

use std::time::Duration;

use imprint::payload::{PayloadId, TokenMode};
use imprint::time::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;

use crate::admission::Level;
use crate::x509::CrlReason;

/// A node and the text of its record.
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// The file that it came from, for messages.
    pub file: String,
    /// The record's text, TOML.
    pub record: String,
}

/// A payload that was made.
pub struct PayloadRow {
    /// Its id.
    pub id: PayloadId,
    /// The node that it is for.
    pub node: String,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// How often the token may be used.
    pub mode: TokenMode,
    /// When it was made.
    pub composed: Timestamp,
    /// End of its validity.
    pub expiry: Timestamp,
    /// When and by which key its token was used.
    pub spent: Option<(Timestamp, String)>,
    /// When another payload replaced it, or an administrator revoked it.
    pub void_at: Option<Timestamp>,
    /// When an administrator last denied a request with it.
    pub denied_at: Option<Timestamp>,
}

/// A certificate that was issued.
pub struct CertificateRow {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// The node that it is for.
    pub node: String,
    /// The payload that it came from; for a renewal, the payload of the first certificate in the chain.
    pub payload: PayloadId,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_hash: [u8; 32],
    /// The code of its key.
    pub key_code: String,
    /// DER.
    pub der: Vec<u8>,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
    /// Serial number of the certificate that it renews; `None`: it was signed for a token or came in a payload.
    pub renews: Option<Vec<u8>>,
    /// When a client first proved in a TLS handshake that it has this certificate.
    pub seen_at: Option<Timestamp>,
    /// Key identifier of the intermediate that signed it, in hexadecimal digits.
    pub issuer: String,
    /// Whether an administrator has approved its key.
    pub approved: bool,
    /// When and why it was revoked.
    pub revoked: Option<(Timestamp, CrlReason)>,
    /// Address that it was sent to; `None`: it was made here, or by an older program.
    pub peer: Option<String>,
}

/// A CRL that was made.
pub struct CrlRow {
    /// The CRL's number, one more than the number before.
    pub number: u64,
    /// When it was made.
    pub made_at: Timestamp,
}

/// A request that an administrator decides about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestRow {
    /// The node that it is for.
    pub node: String,
    /// The payload whose token was shown; `None`: an older imprint-host stored the request.
    pub payload: Option<PayloadId>,
    /// SHA-256 of the SubjectPublicKeyInfo of its key.
    pub spki_hash: [u8; 32],
    /// The code of its key.
    pub key_code: String,
    /// Why it was not signed at once, for people.
    pub why: String,
    /// Address of its last arrival.
    pub peer: String,
    /// Time of its first arrival.
    pub first_at: Timestamp,
    /// Time of its last arrival.
    pub last_at: Timestamp,
    /// The administrator's decision; `None`: not decided yet.
    pub verdict: Option<Verdict>,
}

/// An administrator's decision about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The request is signed when it comes again.
    Approved,
    /// The request is refused when it comes again.
    Denied,
}

/// A line of the audit log.
pub struct Event<'a> {
    /// `enrolled`, `refused`, …
    pub event: &'a str,
    /// The node, if it is known.
    pub node: Option<&'a str>,
    /// Address of the other end.
    pub peer: Option<&'a str>,
    /// One line for people.
    pub detail: &'a str,
}

/// A line of the audit log, read back.
pub struct AuditRow {
    /// Time of the event.
    pub at: Timestamp,
    /// `enrolled`, `refused`, …
    pub event: String,
    /// The node, if it was known.
    pub node: Option<String>,
    /// Address of the requester, also for a decision of an administrator.
    pub peer: Option<String>,
    /// The user who ran the command; `None`: the program itself decided, by the record.
    pub actor: Option<String>,
    /// One line for people.
    pub detail: String,
}

// "Newest" means added last (rowid): the clock may have been set back.
pub(super) const PAYLOAD: &str =
    "SELECT id, node, token_hash, mode, composed, expiry, spent_at, spent_by, void_at, denied_at FROM payloads";
pub(super) const CERTIFICATE: &str = "SELECT serial, node, payload, spki_hash, key_code, der, issued_at, not_after, \
                                      renews, seen_at, issuer, revoked_at, reason, approved, peer FROM certificates";

pub(super) const REQUEST: &str =
    "SELECT node, spki_hash, key_code, why, peer, first_at, last_at, verdict, payload FROM requests";

/// A waiting node repeats its request every few seconds. A request that was not repeated for this long is deleted.
pub(super) const REQUEST_LIFE: Duration = Duration::from_secs(86_400);

pub(super) fn request_row(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let verdict: Option<String> = row.get(7)?;
    Ok(RequestRow {
        node: row.get(0)?,
        spki_hash: row.get(1)?,
        key_code: row.get(2)?,
        why: row.get(3)?,
        peer: row.get(4)?,
        first_at: timestamp(row, 5)?,
        last_at: timestamp(row, 6)?,
        payload: row.get::<_, Option<[u8; 16]>>(8)?.map(PayloadId),
        verdict: verdict.map(|name| if name == "approved" { Verdict::Approved } else { Verdict::Denied }),
    })
}

pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approved => "approved",
        Verdict::Denied => "denied",
    }
}

/// The columns that [`node_row`] reads.
pub(super) const NODE: &str = "SELECT name, file, record FROM nodes";

pub(super) fn node_row(row: &Row<'_>) -> rusqlite::Result<NodeRow> {
    Ok(NodeRow { name: row.get(0)?, file: row.get(1)?, record: row.get(2)? })
}

pub(super) fn audit_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        at: timestamp(row, 0)?,
        event: row.get(1)?,
        node: row.get(2)?,
        peer: row.get(3)?,
        detail: row.get(4)?,
        actor: row.get(5)?,
    })
}

pub(super) fn payload_row(row: &Row<'_>) -> rusqlite::Result<PayloadRow> {
    let mode: String = row.get(3)?;
    let spent_at = optional_timestamp(row, 6)?;
    let spent_by: Option<String> = row.get(7)?;
    Ok(PayloadRow {
        id: PayloadId(row.get(0)?),
        node: row.get(1)?,
        token_hash: row.get(2)?,
        mode: if mode == "each-boot" { TokenMode::EachBoot } else { TokenMode::Once },
        composed: timestamp(row, 4)?,
        expiry: timestamp(row, 5)?,
        spent: spent_at.map(|at| (at, spent_by.unwrap_or_default())),
        void_at: optional_timestamp(row, 8)?,
        denied_at: optional_timestamp(row, 9)?,
    })
}

pub(super) fn certificate_row(row: &Row<'_>) -> rusqlite::Result<CertificateRow> {
    Ok(CertificateRow {
        serial: row.get(0)?,
        node: row.get(1)?,
        payload: PayloadId(row.get(2)?),
        spki_hash: row.get(3)?,
        key_code: row.get(4)?,
        der: row.get(5)?,
        issued_at: timestamp(row, 6)?,
        not_after: timestamp(row, 7)?,
        renews: row.get(8)?,
        seen_at: optional_timestamp(row, 9)?,
        issuer: row.get(10)?,
        approved: row.get(13)?,
        peer: row.get(14)?,
        revoked: optional_timestamp(row, 11)?.zip(row.get::<_, Option<i64>>(12)?.map(reason)),
    })
}

/// Every reason that this program gives, with its number (RFC 5280 §5.3.1).
const REASONS: [(CrlReason, i64); 5] = [
    (CrlReason::Unspecified, 0),
    (CrlReason::KeyCompromise, 1),
    (CrlReason::AffiliationChanged, 3),
    (CrlReason::Superseded, 4),
    (CrlReason::CessationOfOperation, 5),
];

pub(super) fn reason_code(reason: CrlReason) -> i64 {
    REASONS.iter().find(|(known, _)| *known == reason).map_or(0, |(_, code)| *code)
}

pub(super) fn reason(code: i64) -> CrlReason {
    REASONS.iter().find(|(_, known)| *known == code).map_or(CrlReason::Unspecified, |(reason, _)| *reason)
}

/// `once` or `each-boot`.
pub fn mode_name(mode: TokenMode) -> &'static str {
    match mode {
        TokenMode::Once => "once",
        TokenMode::EachBoot => "each-boot",
    }
}

/// Milliseconds, as the store has times. SQLite's integers are signed 64 bits; every [`Timestamp`] fits.
pub(super) fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let value: i64 = row.get(column)?;
    let at = u64::try_from(value).ok().and_then(Timestamp::from_millis);
    at.ok_or(rusqlite::Error::IntegralValueOutOfRange(column, value))
}

pub(super) fn optional_timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    match row.get::<_, Option<i64>>(column)? {
        Some(_) => timestamp(row, column).map(Some),
        None => Ok(None),
    }
}

pub(super) fn level(row: &Row<'_>, column: usize) -> rusqlite::Result<Level> {
    let word: String = row.get(column)?;
    Level::of(&word).ok_or_else(|| unreadable(column, format!("the level {word} is not known").into()))
}

/// A value that is stored as JSON.
pub(super) fn read<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| unreadable(column, error.into()))
}

pub(super) fn unreadable(column: usize, error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
}

/// Structs of texts and numbers always convert to JSON, with their fields in one order.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
