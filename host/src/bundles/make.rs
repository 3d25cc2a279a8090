//! Makes a version of a node's bundle here: of files that an administrator gives, or of an age file that was encrypted elsewhere.
//! Never changes a version that there is.

use std::collections::BTreeSet;

use imprint::age::{self, Recipient};
use imprint::bundle::{self, Bundle, BundleError as Fault};
use imprint::digest::sha256;
use imprint::payload::NodeName;
use imprint::time::Timestamp;

use super::again::is_signed_today;
use super::content::Content;
use super::decide::decided;
use super::error::{BadUpload, BundleError};
use super::upload::{MAX_UPLOAD, audit, opened};
use super::{Key, Terms, ToSign, next_counter, signed, terms};
use crate::enrol::Desk;
use crate::state::State;
use crate::store::{BundleRow, BundleState, NewBundle, Signed};

/// What a version is made of.
pub enum Source {
    /// Files and units.
    Content(Content),
    /// An age file that was encrypted elsewhere.
    Age(Vec<u8>),
}

/// How far above the newest version [`make_above`] goes at most: a number that was mistyped is not to use up all counters.
pub const MAX_STEP: u64 = 1_000_000;

/// A version that was made.
pub struct Made {
    /// The version.
    pub row: BundleRow,
    /// The newest version has this content already; nothing was made.
    pub unchanged: bool,
}

/// Makes and signs the next version of a node's bundle. `recipients`: who can open it, beside the node.
pub fn make(
    state: &mut State,
    node: &str,
    source: Source,
    recipients: &[Recipient],
    now: Timestamp,
) -> Result<Made, BundleError> {
    decided(state, now, |desk, by| {
        let counter = next_counter(desk.changes, node)?;
        make_one(desk, by, (node, counter), source, recipients)
    })
}

/// As [`make`], but always makes a version, and its counter is higher than `above`: for a state directory that does not know all
/// counters that it has given out, because a backup was put in its place.
pub fn make_above(
    state: &mut State,
    node: &str,
    source: Source,
    recipients: &[Recipient],
    above: u64,
    now: Timestamp,
) -> Result<Made, BundleError> {
    decided(state, now, |desk, by| {
        let newest = next_counter(desk.changes, node)?.saturating_sub(1);
        let name = || node.to_owned();
        if above <= newest {
            return Err(BundleError::NotAbove { node: name(), above, newest });
        }
        if above.saturating_sub(newest) > MAX_STEP {
            return Err(BundleError::TooFar { node: name(), above, newest, most: MAX_STEP });
        }
        make_one(desk, by, (node, above.saturating_add(1)), source, recipients)
    })
}

/// As [`make`], for many nodes: all of them or none.
pub fn make_all(state: &mut State, sources: Vec<(String, Source)>, now: Timestamp) -> Result<(), BundleError> {
    decided(state, now, |desk, by| {
        sources.into_iter().try_for_each(|(node, source)| {
            let counter = next_counter(desk.changes, &node)?;
            make_one(desk, by, (&node, counter), source, &[]).map(|_| ())
        })
    })
}

fn make_one(
    desk: &Desk<'_>,
    by: &str,
    (node, counter): (&str, u64),
    source: Source,
    recipients: &[Recipient],
) -> Result<Made, BundleError> {
    let now = desk.now;
    let terms = terms(desk, node)?;
    let is_next = counter == next_counter(desk.changes, node)?;
    let (age, tag, key) = match source {
        Source::Content(content) => {
            let Content { units, entries } = content;
            let name = NodeName::try_from(node).map_err(|_| BundleError::NoSuchNode(node.to_owned()))?;
            let bundle = Bundle::new(name, counter, units, entries).map_err(made)?;
            let tag = terms.key.held().map(|key| bundle.tag(key)).transpose().map_err(made)?;
            let openers = openers(node, &terms.key, recipients)?;
            let key = terms.key.shown_with(&openers);
            if is_next && let Some(row) = unchanged(desk, node, tag, &key)? {
                // It was asked for another one, and this is what there is to be.
                desk.changes.bundle_renewed(node)?;
                return Ok(Made { row, unchanged: true });
            }
            (bundle.encrypt(&openers).map_err(made)?, tag, key)
        }
        Source::Age(age) => {
            let tag = foreign(&age, node, counter, &terms)?;
            (age, tag, terms.key.shown())
        }
    };
    let (sha256, code) = (sha256(&age), bundle::code(&age).to_string());
    let length = u64::try_from(age.len()).unwrap_or(u64::MAX);
    let seal = signed(desk.ca, &ToSign { node, counter, approver: by, sha256, length }, now)?;
    let new =
        NewBundle { node, tag, key: &key, sha256, code: &code, age: &age, made_by: by, peer: None, content_of: None };
    desk.changes.add_bundle(&new, Some(&Signed { counter, seal: &seal, by }), now)?;
    desk.changes.bundle_renewed(node)?;
    audit(desk, node, None, "bundle", &format!("{code}, {length} bytes: version {counter}"))?;
    let row = desk.changes.bundle(node, counter)?;
    let row = row.ok_or_else(|| BundleError::NoSuchVersion { node: node.to_owned(), counter })?;
    Ok(Made { row, unchanged: false })
}

fn made(error: Fault) -> BundleError {
    BundleError::Bundle(Box::new(error))
}

/// The newest version, if it has this content for these keys, and the key of today has signed it. Somebody else who can open it is
/// a change that the tag does not show.
fn unchanged(desk: &Desk<'_>, node: &str, tag: Option<[u8; 32]>, key: &str) -> Result<Option<BundleRow>, BundleError> {
    let is_same =
        |row: &BundleRow| tag.is_some() && row.tag == tag && row.state == BundleState::Approved && row.key == key;
    match desk.changes.newest_bundle(node)?.filter(is_same) {
        Some(row) if is_signed_today(desk, &row)? => Ok(Some(row)),
        _ => Ok(None),
    }
}

/// Everybody who can open the bundle: the node comes first, the others in order.
fn openers(node: &str, key: &Key, recipients: &[Recipient]) -> Result<Vec<Recipient>, BundleError> {
    let own = match key {
        Key::Held(identity) => Some(identity.recipient()),
        Key::Elsewhere { recipient, .. } => *recipient,
    };
    let others: BTreeSet<Recipient> = recipients.iter().copied().filter(|one| Some(*one) != own).collect();
    let all: Vec<Recipient> = own.into_iter().chain(others).collect();
    match (all.as_slice(), key) {
        ([], Key::Elsewhere { source, .. }) => {
            Err(BundleError::NoRecipient { node: node.to_owned(), source_of: source })
        }
        _ => Ok(all),
    }
}

/// Checks an age file that was made elsewhere, as far as this host can see into it. The answer: its tag.
fn foreign(file: &[u8], node: &str, counter: u64, terms: &Terms) -> Result<Option<[u8; 32]>, BundleError> {
    let length = u64::try_from(file.len()).unwrap_or(u64::MAX);
    if length > MAX_UPLOAD {
        return Err(made(Fault::TooLong(file.len())));
    }
    age::check(file).map_err(|error| made(Fault::Age(error)))?;
    let Some(key) = terms.key.held() else { return Ok(None) };
    let unreadable = |source| BundleError::Unreadable {
        node: node.to_owned(),
        what: "the age file".to_owned(),
        source: Box::new(source),
    };
    let bundle = opened(file, key).map_err(unreadable)?;
    if bundle.node().as_str() != node {
        let named = bundle.node().to_string();
        return Err(unreadable(BadUpload::OtherNode { named, node: node.to_owned() }));
    }
    if bundle.counter() > counter {
        return Err(unreadable(BadUpload::Counter { counter: bundle.counter(), next: counter }));
    }
    bundle.tag(key).map(Some).map_err(made)
}
