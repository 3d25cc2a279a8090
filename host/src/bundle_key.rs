//! The key of a node's bundles: the one that this host holds and puts into the node's payloads, and whether a bundle was made for the
//! key that a node has now. Makes no bundle and no payload.

use imprint::age::{AgeError, Identity};
use imprint::secret::Secret;
use imprint::time::Timestamp;

use crate::record::Record;
use crate::record::bundle::KeySource;
use crate::store::{Books, BundleKeyRow, BundleRow, BundleState, Changes, StoreError};

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

/// The key that a record names, in words: `payload age1…`, `stick`. `None`: the record has no bundles.
pub fn key_of(books: &Books, record: &Record) -> Result<Option<String>, StoreError> {
    let Some(rule) = &record.bundle else { return Ok(None) };
    let recipient = match rule.key {
        KeySource::Payload => books.bundle_key(record.name.as_str())?.map(|row| row.recipient),
        KeySource::Image | KeySource::Stick => rule.recipient.map(|recipient| recipient.to_string()),
    };
    let source = KeySource::ALL.iter().find(|(source, _)| *source == rule.key).map_or("", |(_, word)| word);
    Ok(Some(in_words(source, recipient)))
}

/// Where a key is, and who can open what is encrypted: `image age1…`.
pub fn in_words(source: &str, recipients: impl IntoIterator<Item = String>) -> String {
    recipients.into_iter().fold(source.to_owned(), |words, recipient| format!("{words} {recipient}"))
}

/// Whether a node with the key `now` can open what was made for the keys `then`, both [`in_words`]. Where the recipient of one of
/// them is not known, the place of the key has to be the same.
pub fn opens(now: &str, then: &str) -> bool {
    let parts = |words: &'_ str| -> (String, Vec<String>) {
        let mut words = words.split(' ').map(str::to_owned);
        (words.next().unwrap_or_default(), words.collect())
    };
    let ((source, own), (source_then, recipients)) = (parts(now), parts(then));
    match own.first() {
        Some(own) if !recipients.is_empty() => recipients.contains(own),
        // The key of a payload is always known, once there is one.
        None if source == "payload" => false,
        _ => source == source_then,
    }
}

/// The newest version of a node, if the node can open it. One for another key than the record names now counts as none.
pub fn current(books: &Books, record: &Record) -> Result<Option<BundleRow>, StoreError> {
    let newest = books.newest_bundle(record.name.as_str())?.filter(|row| row.state == BundleState::Approved);
    let (Some(row), Some(key)) = (newest, key_of(books, record)?) else { return Ok(None) };
    Ok(opens(&key, &row.key).then_some(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The accident: a record names the key of a bundle only later, or from another place, and the same key counts as another one;
    /// or another key as the same.
    #[test]
    fn who_can_open_what() {
        let rows = [
            ("payload age1a", "payload age1a", true),
            ("payload age1a", "payload age1a age1b", true),
            ("payload age1a", "payload age1b", false),
            ("payload", "payload age1a", false),
            ("payload age1a", "image", false),
            ("payload age1a", "image age1a", true),
            ("image age1a", "stick age1a", true),
            ("image age1a", "image age1b age1a", true),
            ("image age1a", "image age1b", false),
            ("image age1a", "image", true),
            ("image", "image age1a", true),
            ("image", "stick", false),
            ("stick", "payload age1a", false),
        ];
        for (now, then, want) in rows {
            assert_eq!(opens(now, then), want, "{now}, {then}");
        }
    }
}
