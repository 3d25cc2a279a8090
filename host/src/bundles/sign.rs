//! Signs versions anew that another key has signed: the same content, the next counter. Needs the age file alone, so that it works for
//! bundles that this host cannot read. Never changes a version that there is.

use imprint::time::Timestamp;

use super::again::{again, is_signed_today};
use super::decide::{decided, known, same_key, version};
use super::error::BundleError;
use super::terms;
use crate::ca::StateError;
use crate::state::{self, State};
use crate::store::BundleRow;

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
