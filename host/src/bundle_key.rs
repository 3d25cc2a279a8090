//! The key of a node whose bundles this host can read: it goes into the node's payloads. Makes no bundle and no payload.

use imprint::age::{AgeError, Identity};
use imprint::secret::Secret;
use imprint::time::Timestamp;

use crate::store::{BundleKeyRow, Changes, StoreError};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum BundleKeyError {
    /// The stored key is damaged.
    #[error("the bundle key of {0} in the store is damaged; restore a backup")]
    Damaged(String),
    /// No key could be made.
    #[error("making a bundle key")]
    Make(#[source] AgeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The key of a node. It is made when it is first needed, and stays the same.
pub fn held_key(changes: &Changes<'_>, node: &str, now: Timestamp) -> Result<Identity, BundleKeyError> {
    if let Some(row) = changes.bundle_key(node)? {
        let bytes = row.identity.expose().try_into().map_err(|_| BundleKeyError::Damaged(node.to_owned()))?;
        return Ok(Identity::from_bytes(bytes));
    }
    let identity = Identity::generate().map_err(BundleKeyError::Make)?;
    let secret = Secret::new(identity.expose().to_vec());
    let row = BundleKeyRow { identity: secret, recipient: identity.recipient().to_string(), made_at: now };
    changes.put_bundle_key(node, &row)?;
    Ok(identity)
}
