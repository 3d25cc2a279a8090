//! What an administrator decides about bundles: approve, deny, roll back, remove, ask for another one or not. A version is signed when
//! it is decided. Never changes a version that there is.

use imprint::time::Timestamp;

use super::again::{again, is_signed_today};
use super::error::BundleError;
use super::upload::{audit, opened};
use super::{Key, ToSign, next_counter, signed, terms};
use crate::code::plain;
use crate::crash;
use crate::enrol::Desk;
use crate::state::State;
use crate::store::{BundleRow, BundleState, Signed};

/// Makes one decision in a transaction of its own. The argument beside the desk is who decides.
pub(super) fn decided<T>(
    state: &mut State,
    now: Timestamp,
    decide: impl FnOnce(&Desk<'_>, &str) -> Result<T, BundleError>,
) -> Result<T, BundleError> {
    let State { ca, store, urls } = state;
    let changes = store.changes()?;
    let by = changes.actor().unwrap_or("imprint-host").to_owned();
    let done = decide(&Desk { changes: &changes, ca, urls, now }, &by)?;
    crash::point("bundle decided");
    changes.commit()?;
    crash::point("bundle booked");
    Ok(done)
}

/// Looks at the store in one transaction, and changes nothing.
pub fn see<T>(
    state: &mut State,
    now: Timestamp,
    look: impl FnOnce(&Desk<'_>) -> Result<T, BundleError>,
) -> Result<T, BundleError> {
    let State { ca, store, urls } = state;
    // Rolled back on drop.
    let changes = store.changes()?;
    look(&Desk { changes: &changes, ca, urls, now })
}

/// Makes the bundle of a node that waits the node's next version. `code`: what people have compared.
pub fn approve(state: &mut State, node: &str, code: &str, now: Timestamp) -> Result<BundleRow, BundleError> {
    decided(state, now, |desk, by| {
        let terms = terms(desk, node)?;
        let row = waiting(desk, node, code)?;
        same_key(&row, &terms.key, &format!("the bundle {}", row.code))?;
        let counter = next_counter(desk.changes, node)?;
        if let Some(key) = terms.key.held() {
            readable(desk, &row, key, &format!("the bundle {}", row.code))?;
        }
        let what = ToSign { node, counter, approver: by, sha256: row.sha256, length: row.length };
        let seal = signed(desk.ca, &what, now)?;
        desk.changes.approve_bundle(row.id, &Signed { counter, seal: &seal, by }, now)?;
        audit(desk, node, row.peer.as_deref(), "bundle approved", &format!("{}: version {counter}", row.code))?;
        Ok(BundleRow { counter: Some(counter), state: BundleState::Approved, ..row })
    })
}

/// The bundle that waits, if it has this code.
fn waiting(desk: &Desk<'_>, node: &str, code: &str) -> Result<BundleRow, BundleError> {
    let pending = desk.changes.pending_bundle(node)?;
    if let Some(row) = pending.as_ref().filter(|row| plain(&row.code) == plain(code)) {
        return Ok(row.clone());
    }
    let node = node.to_owned();
    let known = desk.changes.bundles(&node)?.into_iter().rev().find(|row| plain(&row.code) == plain(code));
    Err(match (known, pending) {
        (Some(BundleRow { state: BundleState::Denied, code, decided_at, decided_by, .. }), _) => {
            let (at, by) = (decided_at.unwrap_or(desk.now), decided_by.unwrap_or_default());
            BundleError::DeniedBefore { node, code, at, by }
        }
        (Some(BundleRow { counter: Some(counter), code, .. }), _) => {
            BundleError::ApprovedBefore { node, code, counter }
        }
        (_, Some(pending)) => BundleError::OtherCode { node, code: code.to_owned(), waiting: pending.code },
        (_, None) => BundleError::NothingWaits(node),
    })
}

/// Denies the bundle of a node that waits. The same one is refused from then on. `code`: nobody denies another one than he has
/// looked at.
pub fn deny(state: &mut State, node: &str, code: &str, now: Timestamp) -> Result<BundleRow, BundleError> {
    decided(state, now, |desk, by| {
        known(desk, node)?;
        let row = waiting(desk, node, code)?;
        desk.changes.deny_bundle(row.id, by, now)?;
        audit(desk, node, row.peer.as_deref(), "bundle denied", &row.code)?;
        Ok(BundleRow { state: BundleState::Denied, ..row })
    })
}

/// Makes a new version with the content of an old one; of the current one only if another key signs now.
pub fn rollback(state: &mut State, node: &str, counter: u64, now: Timestamp) -> Result<BundleRow, BundleError> {
    decided(state, now, |desk, by| {
        let terms = terms(desk, node)?;
        let row = version(desk, node, counter)?;
        let is_newest = desk.changes.newest_bundle(node)?.is_some_and(|newest| newest.id == row.id);
        if is_newest && is_signed_today(desk, &row)? {
            return Err(BundleError::Current { node: node.to_owned(), counter });
        }
        let what = format!("version {counter}");
        same_key(&row, &terms.key, &what)?;
        if let Some(key) = terms.key.held() {
            readable(desk, &row, key, &what)?;
        }
        let row = again(desk, by, row, "has the content of")?;
        // The administrator has decided what the node gets.
        desk.changes.bundle_renewed(node)?;
        Ok(row)
    })
}

/// Removes the content of a version. A node whose newest version was removed gets none, until there is another.
pub fn remove(state: &mut State, node: &str, counter: u64, now: Timestamp) -> Result<BundleRow, BundleError> {
    decided(state, now, |desk, _| {
        known(desk, node)?;
        let row = version(desk, node, counter)?;
        desk.changes.remove_bundle(row.id)?;
        audit(desk, node, None, "bundle", &format!("{}: version {counter} removed", row.code))?;
        Ok(BundleRow { state: BundleState::Removed, ..row })
    })
}

/// Tells a node to make another bundle, although there may be one. Refused while one waits.
pub fn renew(state: &mut State, node: &str, now: Timestamp) -> Result<(), BundleError> {
    decided(state, now, |desk, by| {
        terms(desk, node)?;
        if let Some(row) = desk.changes.pending_bundle(node)? {
            return Err(BundleError::Waits { node: node.to_owned(), code: row.code });
        }
        desk.changes.renew_bundle(node, by, now)?;
        audit(desk, node, None, "bundle", "the node is to make another one")?;
        Ok(())
    })
}

/// Takes back [`renew`].
pub fn keep(state: &mut State, node: &str, now: Timestamp) -> Result<(), BundleError> {
    decided(state, now, |desk, _| {
        known(desk, node)?;
        if desk.changes.renewal(node)?.is_none() {
            return Err(BundleError::NotAsked(node.to_owned()));
        }
        desk.changes.bundle_renewed(node)?;
        audit(desk, node, None, "bundle", "the node need not make another one")?;
        Ok(())
    })
}

pub(super) fn known(desk: &Desk<'_>, node: &str) -> Result<(), BundleError> {
    let row = desk.changes.node(node)?;
    row.map(|_| ()).ok_or_else(|| BundleError::NoSuchNode(node.to_owned()))
}

/// A version that has its content.
pub(super) fn version(desk: &Desk<'_>, node: &str, counter: u64) -> Result<BundleRow, BundleError> {
    let node = node.to_owned();
    match desk.changes.bundle(&node, counter)? {
        None => Err(BundleError::NoSuchVersion { node, counter }),
        Some(row) if row.state == BundleState::Removed => Err(BundleError::Removed { node, counter }),
        Some(row) => Ok(row),
    }
}

/// An error if the node has another key now than when the bundle was made.
pub(super) fn same_key(row: &BundleRow, key: &Key, what: &str) -> Result<(), BundleError> {
    let is = key.shown();
    if key.opens(row) {
        return Ok(());
    }
    Err(BundleError::KeyChanged { node: row.node.clone(), what: what.to_owned(), was: row.key.clone(), is })
}

/// An error if the node could not open the bundle.
fn readable(desk: &Desk<'_>, row: &BundleRow, key: &imprint::age::Identity, what: &str) -> Result<(), BundleError> {
    let Some((_, age)) = desk.changes.bundle_bytes(row.id)? else { return Ok(()) };
    let unreadable =
        |source| BundleError::Unreadable { node: row.node.clone(), what: what.to_owned(), source: Box::new(source) };
    opened(&age, key).map(|_| ()).map_err(unreadable)
}
