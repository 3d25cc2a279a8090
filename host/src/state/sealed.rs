//! By which key the current bundles of nodes are signed. Signs nothing, and changes nothing.

use imprint::payload::EstUrl;
use imprint::payload::signed::{Kid, Signed};

use crate::bundle_key;
use crate::record::Record;
use crate::store::{Books, BundleRow, StoreError};

/// The key that has signed a version.
pub(crate) fn signer_of(books: &Books, row: &BundleRow) -> Result<Option<Kid>, StoreError> {
    let seal = books.seal(row.id)?;
    Ok(seal.and_then(|seal| Signed::split(&seal).ok().map(|(signed, _)| signed.kid)))
}

/// The nodes that have a current version, and who has signed it. Versions for another key than a record names now are none. A record
/// that is not understood may be replaced by one that names this key.
pub(crate) fn signed_bundles(books: &Books, urls: &[EstUrl]) -> Result<Vec<(String, Option<Kid>)>, StoreError> {
    let mut all = Vec::new();
    for row in books.newest_bundles()? {
        let Some(node) = books.node(&row.node)? else { continue };
        let counts = match Record::of_store(&node.file, &node.record, urls) {
            Ok(record) => bundle_key::current(books, &record)?.is_some(),
            Err(_) => true,
        };
        if counts {
            all.push((node.name, signer_of(books, &row)?));
        }
    }
    Ok(all)
}
