//! What a node that asks gets: its current version, or how it stands with the bundle that it has sent. Changes nothing.

use imprint::bundle::answer::{Stand, Standing};
use imprint::hex;

use crate::bundle_key;
use crate::enrol::{Desk, EnrolError};
use crate::record::Record;
use crate::store::{Books, BundleRow, BundleState, StoreError};

/// A version with so many bytes or fewer comes with its bytes at once.
const SMALL: u64 = 64 * 1024;

/// What a node gets.
pub enum Look {
    /// A version.
    Version(Version),
    /// There is none to be had; why.
    Stands(Standing),
}

/// A version that can be had.
pub struct Version {
    /// Its number in the store.
    pub id: i64,
    /// Its counter.
    pub counter: u64,
    /// SHA-256 of the age file.
    pub sha256: [u8; 32],
    /// Length with the signed statement, in bytes.
    pub length: u64,
    /// The signed statement and the age file, if they are small.
    pub bytes: Option<Vec<u8>>,
}

/// How it stands with this bundle.
pub(super) fn standing(row: &BundleRow, next: u64) -> Standing {
    let BundleRow { node, code, tag, counter, .. } = row;
    let (stand, who) = match row.state {
        BundleState::Pending => {
            let who = format!(
                "ask an administrator to look at it (imprint-host bundle diff {node}), and to run: imprint-host bundle deny {node} \
                 {code}, or approve {node} {code}"
            );
            (Stand::Pending, Some(who))
        }
        BundleState::Approved => (Stand::Approved, None),
        BundleState::Denied => {
            (Stand::Denied, Some(format!("ask an administrator to run: imprint-host bundle renew {node}")))
        }
        BundleState::Removed => (Stand::Removed, None),
    };
    let tag = tag.as_ref().map(|tag| hex::encode(tag));
    Standing { tag, code: Some(code.clone()), counter: *counter, who, ..Standing::new(stand, next) }
}

/// What a node gets that asks for its bundle; with a tag, how it stands with the bundle that it has sent.
pub fn look(desk: &Desk<'_>, node: &str, tag: Option<&[u8; 32]>) -> Result<Look, EnrolError> {
    let books: &Books = desk.changes;
    let newest = books.newest_bundle(node)?;
    let next = newest.as_ref().and_then(|row| row.counter).unwrap_or_default().saturating_add(1);
    let current = match newest.as_ref().filter(|row| row.state == BundleState::Approved) {
        None => None,
        Some(_) => current(desk, node)?,
    };
    let is_removed = newest.as_ref().is_some_and(|row| row.state == BundleState::Removed);
    let bare = |stand| Ok(Look::Stands(Standing::new(stand, next)));
    let Some(tag) = tag else {
        if books.renewal(node)?.is_some() {
            return bare(Stand::Renew);
        }
        if let Some(row) = &current {
            return Ok(version(books, row)?);
        }
        if let Some(row) = books.pending_bundle(node)? {
            return Ok(Look::Stands(standing(&row, next)));
        }
        if is_removed {
            return bare(Stand::Removed);
        }
        if newest.is_some() {
            return bare(Stand::None);
        }
        // Denied is what a node hears that has nothing else. After `renew` it may try again, and the row has no tag.
        let last = books.bundles(node)?.pop().filter(|row| row.tag.is_some());
        return Ok(Look::Stands(last.map_or(Standing::new(Stand::None, next), |row| standing(&row, next))));
    };
    let Some(row) = books.bundle_of_tag(node, tag)? else { return bare(Stand::None) };
    match current {
        // A version that came later counts, too: the node need not wait any more.
        Some(current) if row.state == BundleState::Approved || current.id >= row.id => Ok(version(books, &current)?),
        // It was a version, and the newest one was removed.
        None if row.state == BundleState::Approved && is_removed => bare(Stand::Removed),
        // Or the record names another key now.
        None if row.state == BundleState::Approved => bare(Stand::None),
        _ => Ok(Look::Stands(standing(&row, next))),
    }
}

/// How it stands with all bundles of a node: what waits, and the version that is current beside it.
pub fn stands(desk: &Desk<'_>, node: &str) -> Result<Standing, EnrolError> {
    let books: &Books = desk.changes;
    let newest = books.newest_bundle(node)?;
    let next = newest.and_then(|row| row.counter).unwrap_or_default().saturating_add(1);
    let version = current(desk, node)?;
    let current = version.as_ref().and_then(|row| row.counter);
    let stands = match (books.pending_bundle(node)?, version) {
        (Some(waits), _) => standing(&waits, next),
        (None, Some(version)) if books.renewal(node)?.is_none() => standing(&version, next),
        _ => match look(desk, node, None)? {
            Look::Stands(stands) => stands,
            // There is none, as is seen above, or the node is to make another one.
            Look::Version(_) => Standing::new(Stand::None, next),
        },
    };
    Ok(Standing { current, ..stands })
}

/// The version that the node gets, if it can open it.
pub(super) fn current(desk: &Desk<'_>, node: &str) -> Result<Option<BundleRow>, EnrolError> {
    let Some(row) = desk.changes.node(node)? else { return Ok(None) };
    Ok(bundle_key::current(desk.changes, &Record::of_store(&row.file, &row.record, desk.urls)?)?)
}

fn version(books: &Books, row: &BundleRow) -> Result<Look, StoreError> {
    let length = row.length.saturating_add(row.seal_length);
    let bytes = if length <= SMALL { bytes_of(books, row.id)? } else { None };
    let counter = row.counter.unwrap_or_default();
    Ok(Look::Version(Version { id: row.id, counter, sha256: row.sha256, length, bytes }))
}

/// A version as a node gets it: the signed statement, and the age file behind it. `None`: it was removed.
pub fn bytes_of(books: &Books, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let joined = |(mut seal, age): (Vec<u8>, Vec<u8>)| {
        seal.reserve_exact(age.len());
        seal.extend_from_slice(&age);
        seal
    };
    Ok(books.bundle_bytes(id)?.filter(|(seal, _)| !seal.is_empty()).map(joined))
}
