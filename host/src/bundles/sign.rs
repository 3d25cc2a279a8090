//! Signs versions anew that another key has signed: the same content, the next counter. Needs the age file alone, so that it works for
//! bundles that this host cannot read. Never changes a version that there is.

use imprint::time::Timestamp;

use super::decide::{decided, known, same_key, version};
use super::error::BundleError;
use super::upload::audit;
use super::{ToSign, next_counter, signed, terms};
use crate::ca::StateError;
use crate::enrol::Desk;
use crate::state::{self, State};
use crate::store::{BundleRow, NewBundle, Signed};

/// The nodes whose current version another key has signed than the one that signs now.
pub fn unsigned(state: &State) -> Result<Vec<String>, BundleError> {
    let today = state.ca.signing_key()?.ok_or_else(|| StateError::NoSigner(state.ca.dir().to_owned()))?;
    let today = today.signer().kid();
    let signed = state::signed_bundles(&state.store, &state.urls)?;
    Ok(signed.into_iter().filter(|(_, kid)| *kid != Some(today)).map(|(node, _)| node).collect())
}

/// Signs the newest version of a node anew. `None`: the key of today has signed it.
pub fn sign(state: &mut State, node: &str, now: Timestamp) -> Result<Option<BundleRow>, BundleError> {
    decided(state, now, |desk, by| {
        known(desk, node)?;
        let newest = desk.changes.newest_bundle(node)?.and_then(|row| row.counter);
        let counter = newest.ok_or_else(|| BundleError::NoVersion(node.to_owned()))?;
        let row = version(desk, node, counter)?;
        same_key(&row, &terms(desk, node)?.key, &format!("version {counter}"))?;
        if is_signed_today(desk, &row)? {
            return Ok(None);
        }
        // A node that is to make another one is still to make it.
        again(desk, by, row, "is signed anew, with the content of").map(Some)
    })
}

/// Whether the key that signs now has signed this version. Without a key there is nothing to sign anew with.
pub(super) fn is_signed_today(desk: &Desk<'_>, row: &BundleRow) -> Result<bool, BundleError> {
    let Some(today) = desk.ca.signing_key()? else { return Ok(true) };
    Ok(state::signer_of(desk.changes, row)? == Some(today.signer().kid()))
}

/// Makes the next version, with the bytes of this one. `how`: for the audit log.
pub(super) fn again(desk: &Desk<'_>, by: &str, row: BundleRow, how: &str) -> Result<BundleRow, BundleError> {
    let (node, counter) = (row.node.clone(), row.counter.unwrap_or_default());
    let bytes = desk.changes.bundle_bytes(row.id)?;
    let (_, age) = bytes.ok_or_else(|| BundleError::Removed { node: node.clone(), counter })?;
    let next = next_counter(desk.changes, &node)?;
    let what = ToSign { node: &node, counter: next, approver: by, sha256: row.sha256, length: row.length };
    let seal = signed(desk.ca, &what, desk.now)?;
    let new = NewBundle {
        node: &node,
        tag: row.tag,
        key: &row.key,
        sha256: row.sha256,
        code: &row.code,
        age: &age,
        made_by: by,
        peer: None,
        content_of: Some(row.id),
    };
    desk.changes.add_bundle(&new, Some(&Signed { counter: next, seal: &seal, by }), desk.now)?;
    audit(desk, &node, None, "bundle", &format!("{}: version {next} {how} version {counter}", row.code))?;
    let made = desk.changes.bundle(&node, next)?;
    made.ok_or(BundleError::NoSuchVersion { node, counter: next })
}
