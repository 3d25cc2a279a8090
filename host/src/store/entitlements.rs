//! Entitlements of nodes as rows, so that a request need not parse the node's record. A list of names is a JSON array, so
//! that one row holds an entitlement. SQL only; decides nothing.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use imprint::payload::{Attribute, CertificateNames, KeyType, NodeName, Subject, SubjectAttribute};
use rusqlite::types::Type;
use rusqlite::{Row, params};
use serde_json::Value;

use super::rows::{NODE, node_row};
use super::{Books, Changes, NodeRow, StoreError};
use crate::ca::Usage;
use crate::record::Entitlement;

impl Books {
    /// A node's entitlement. `None`: there is no such node, or no version of this program could read its record.
    pub fn entitlement(&self, node: &str) -> Result<Option<Entitlement>, StoreError> {
        let sql =
            "SELECT node, subject, dns, ips, uris, emails, key, validity, usages FROM entitlements WHERE node = ?1";
        self.one(sql, [node], entitlement)
    }

    /// Nodes that have no entitlement stored, because an older imprint-host added them, in the order in which they were
    /// added.
    pub fn unentitled(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.many(&format!("{NODE} WHERE entitled = 0 ORDER BY added_at, rowid"), [], node_row)
    }
}

impl Changes<'_> {
    /// Stores a node's entitlement.
    pub fn entitle(&self, to: &Entitlement) -> Result<(), StoreError> {
        let Entitlement { name, names, key, validity, usages } = to;
        let subject = names.subject.0.iter().map(|part| [part.attribute().short_name(), part.value()]);
        let sql = "INSERT OR REPLACE INTO entitlements (node, subject, dns, ips, uris, emails, key, validity, usages)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let values = params![
            name.as_str(),
            json(subject),
            json(names.dns.iter().map(|name| name.as_str())),
            json(names.ips.iter().map(IpAddr::to_string)),
            json(names.uris.iter().map(|uri| uri.as_str())),
            json(names.emails.iter().map(|email| email.as_str())),
            key.to_string(),
            i64::try_from(validity.as_secs()).unwrap_or(i64::MAX),
            json(usages.iter().map(|usage| usage.name())),
        ];
        self.run(sql, values)?;
        self.run("UPDATE nodes SET entitled = 1 WHERE name = ?1", [name.as_str()])
    }
}

fn json(items: impl Iterator<Item = impl Into<Value>>) -> String {
    Value::from_iter(items).to_string()
}

fn entitlement(row: &Row<'_>) -> rusqlite::Result<Entitlement> {
    let (key, validity): (String, i64) = (row.get(6)?, row.get(7)?);
    Ok(Entitlement {
        name: NodeName::try_from(row.get::<_, String>(0)?.as_str()).map_err(|error| unreadable(0, error))?,
        names: CertificateNames {
            subject: Subject(list(row, 1, |[kind, value]: [String; 2]| {
                let kind = named(&Attribute::ALL, &kind)?;
                Ok(SubjectAttribute::new(kind, &value)?)
            })?),
            dns: list(row, 2, |text: String| Ok(text.as_str().try_into()?))?,
            ips: list(row, 3, |ip: IpAddr| Ok(ip))?,
            uris: list(row, 4, |text: String| Ok(text.as_str().try_into()?))?,
            emails: list(row, 5, |text: String| Ok(text.as_str().try_into()?))?,
        },
        key: named(&KeyType::ALL, &key).map_err(|error| unreadable(6, error))?,
        validity: Duration::from_secs(
            validity.try_into().map_err(|_| rusqlite::Error::IntegralValueOutOfRange(7, validity))?,
        ),
        usages: list(row, 8, |text: String| named(&Usage::ALL, &text))?,
    })
}

type Unread = Box<dyn Error + Send + Sync>;

fn list<J: serde::de::DeserializeOwned, T>(
    row: &Row<'_>,
    column: usize,
    read: impl Fn(J) -> Result<T, Unread>,
) -> rusqlite::Result<Vec<T>> {
    let items: Vec<J> =
        serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| unreadable(column, error))?;
    items.into_iter().map(|item| read(item).map_err(|error| unreadable(column, error))).collect()
}

fn named<T: Copy>(all: &[(T, &str)], name: &str) -> Result<T, Unread> {
    let found = all.iter().find(|(_, known)| *known == name);
    found.map(|(item, _)| *item).ok_or_else(|| format!("\"{}\" is not known", imprint::shown::printable(name)).into())
}

fn unreadable(column: usize, error: impl Into<Unread>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

/// The table of entitlements: a step of [`super::schema::STEPS`]. `state` fills in the rows, because it can read records. A
/// trigger deletes a row when its record changes.
pub(super) const STEP: &str = "
CREATE TABLE entitlements (
    node TEXT PRIMARY KEY NOT NULL REFERENCES nodes (name),
    subject TEXT NOT NULL CHECK (json_valid(subject)),
    dns TEXT NOT NULL CHECK (json_valid(dns)),
    ips TEXT NOT NULL CHECK (json_valid(ips)),
    uris TEXT NOT NULL CHECK (json_valid(uris)),
    emails TEXT NOT NULL CHECK (json_valid(emails)),
    key TEXT NOT NULL,
    validity INTEGER NOT NULL CHECK (validity > 0),
    usages TEXT NOT NULL CHECK (json_valid(usages))
) STRICT, WITHOUT ROWID;
ALTER TABLE nodes ADD COLUMN entitled INTEGER NOT NULL DEFAULT 0;
CREATE INDEX nodes_unentitled ON nodes (name) WHERE entitled = 0;
CREATE TRIGGER nodes_record AFTER UPDATE OF record ON nodes BEGIN
    DELETE FROM entitlements WHERE node = NEW.name;
    UPDATE nodes SET entitled = 0 WHERE name = NEW.name;
END;
";
