//! Makes a version with the bytes of another one, signed by the key that signs now; and says whether that key has signed a version.
//! Never changes a version that there is.

use super::error::BundleError;
use super::upload::audit;
use super::{ToSign, next_counter, signed};
use crate::enrol::Desk;
use crate::state;
use crate::store::{BundleRow, NewBundle, Signed};

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
