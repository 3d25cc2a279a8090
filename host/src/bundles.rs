//! Bundles, the configuration of nodes: what a node gets, what becomes of a bundle that it sends, and what an administrator
//! decides. Each decision is made here once, for `serve` and the commands alike, in one transaction with its line in the audit
//! log. Never opens a connection, and prints nothing.

mod again;
mod content;
mod decide;
mod error;
mod events;
mod make;
mod masked;
mod reading;
mod report;
mod sign;
mod standing;
mod upload;

use imprint::age::{Identity, Recipient};
use imprint::bundle::statement::{AAD, Approver, Statement};
use imprint::payload::NodeName;
use imprint::shown::printable_up_to;
use imprint::time::Timestamp;

pub use content::{Content, ContentError, read_file};
pub use decide::{approve, deny, keep, remove, renew, rollback, see};
pub use error::{BadUpload, BundleError};
pub use events::numbered;
pub use make::{MAX_STEP, Made, Source, make, make_above, make_all};
pub use reading::{Difference, Read, Which, differences, named, newest_two, read, waiting};
pub use report::{From as Reporter, Reported, report};
pub use sign::{sign, unsigned};
pub use standing::{Look, Version, bytes_of, look, stands};
pub use upload::{Checked, MAX_UPLOAD, May, Put, Reader, Upload, check, may_upload, put};

use crate::bundle_key::{self, in_words};
pub use crate::bundle_key::{BundleKeyError, held_key};
use crate::ca::{Ca, StateError};
use crate::enrol::Desk;
use crate::record::Record;
use crate::record::bundle::{Approval, KeySource};
use crate::state::State;
use crate::store::{Books, BundleRow, StoreError};

/// The rules of a node's record about its bundles, and the key that they are encrypted for.
pub struct Terms {
    /// Where the node has its key from, and the key if this host holds it.
    pub key: Key,
    /// Whether bundles that the node sends become versions without an administrator.
    pub auto: bool,
}

/// The key that a node's bundles are encrypted for.
pub enum Key {
    /// It is in the node's payload, and this host holds it: it can read the bundles.
    Held(Identity),
    /// It is in the image or on a stick. This host cannot read the bundles.
    Elsewhere {
        /// `image` or `stick`
        source: &'static str,
        /// Its recipient, if the record names it.
        recipient: Option<Recipient>,
    },
}

impl Key {
    /// The identity, if this host holds it.
    pub fn held(&self) -> Option<&Identity> {
        match self {
            Key::Held(identity) => Some(identity),
            Key::Elsewhere { .. } => None,
        }
    }

    /// The key in one word or two, for people and to notice that it has changed: `payload age1…`, `image`.
    pub fn shown(&self) -> String {
        match self {
            Key::Held(identity) => in_words("payload", [identity.recipient().to_string()]),
            Key::Elsewhere { source, recipient } => in_words(source, recipient.map(|recipient| recipient.to_string())),
        }
    }

    /// The same, with everybody who can open a bundle.
    fn shown_with(&self, openers: &[Recipient]) -> String {
        let source = match self {
            Key::Held(_) => "payload",
            Key::Elsewhere { source, .. } => source,
        };
        in_words(source, openers.iter().map(ToString::to_string))
    }

    /// Whether the node can open this bundle.
    fn opens(&self, row: &BundleRow) -> bool {
        bundle_key::opens(&self.shown(), &row.key)
    }
}

/// The terms of a node. An error if there is no such node, or its record has no bundles.
pub fn terms(desk: &Desk<'_>, node: &str) -> Result<Terms, BundleError> {
    let row = desk.changes.node(node)?.ok_or_else(|| BundleError::NoSuchNode(node.to_owned()))?;
    let record = Record::of_store(&row.file, &row.record, desk.urls)?;
    let rule = record.bundle.ok_or_else(|| BundleError::NoBundles(node.to_owned()))?;
    let elsewhere = |source| Key::Elsewhere { source, recipient: rule.recipient };
    let key = match rule.key {
        KeySource::Payload => Key::Held(held_key(desk.changes, node, desk.now)?),
        KeySource::Image => elsewhere("image"),
        KeySource::Stick => elsewhere("stick"),
    };
    Ok(Terms { key, auto: rule.approve == Approval::Auto })
}

/// The settings in a node's record, as what a bundle is made of.
pub fn of_record(state: &State, node: &str) -> Result<Content, BundleError> {
    let settings = state.record(node)?.set;
    if settings.is_empty() {
        return Err(BundleError::NoContent);
    }
    Ok(Content::of_settings(&settings)?)
}

/// The counter of the node's next version. Counters of removed versions are not used again.
pub fn next_counter(books: &Books, node: &str) -> Result<u64, StoreError> {
    Ok(books.newest_bundle(node)?.and_then(|row| row.counter).unwrap_or_default().saturating_add(1))
}

/// What a signature is about.
struct ToSign<'a> {
    node: &'a str,
    counter: u64,
    approver: &'a str,
    sha256: [u8; 32],
    length: u64,
}

/// The signed statement that makes a bundle a version.
fn signed(ca: &Ca, what: &ToSign<'_>, now: Timestamp) -> Result<Vec<u8>, BundleError> {
    let key = ca.signing_key()?.ok_or_else(|| StateError::NoSigner(ca.dir().to_owned()))?;
    let statement = Statement {
        node: NodeName::try_from(what.node).map_err(|_| BundleError::NoSuchNode(what.node.to_owned()))?,
        counter: what.counter,
        signed: now,
        approver: approver(what.approver)?,
        sha256: what.sha256,
        length: what.length,
    };
    Ok(key.sign(&statement.encode(), AAD)?.to_vec())
}

/// A name that a statement can have.
fn approver(name: &str) -> Result<Approver, BundleError> {
    let short: String = printable_up_to(name, 60).chars().take(64).collect();
    let named = Approver::try_from(short.as_str()).or_else(|_| Approver::try_from("imprint-host"));
    named.map_err(|_| BundleError::NoSuchNode(name.to_owned()))
}
