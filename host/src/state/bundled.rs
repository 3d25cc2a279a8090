//! What the store knows of a node's bundles and its payload has to say. Makes the node's bundle key when it is first needed. Makes no
//! bundle.

use imprint::time::Timestamp;

use super::Error;
use crate::bundle_key::held_key;
use crate::compose::Bundles;
use crate::record::Record;
use crate::record::bundle::KeySource;
use crate::store::{Changes, Store};

/// As [`within`], in a transaction of its own if there is anything to know.
pub(super) fn of(store: &mut Store, record: &Record, now: Timestamp) -> Result<Bundles, Error> {
    if record.bundle.is_none() {
        return Ok(Bundles::default());
    }
    let changes = store.changes()?;
    let bundles = within(&changes, record, now)?;
    changes.commit()?;
    Ok(bundles)
}

/// The key of the node's bundles, if this host holds it, and the counter of the newest version.
pub(super) fn within(changes: &Changes<'_>, record: &Record, now: Timestamp) -> Result<Bundles, Error> {
    let Some(rule) = &record.bundle else { return Ok(Bundles::default()) };
    let node = record.name.as_str();
    let identity = match rule.key {
        KeySource::Payload => Some(held_key(changes, node, now).map_err(|error| Error::BundleKey(Box::new(error)))?),
        KeySource::Image | KeySource::Stick => None,
    };
    // A version that was removed counts, too: what came before it is old.
    let least = changes.newest_bundle(node)?.and_then(|row| row.counter).unwrap_or_default();
    Ok(Bundles { identity, least })
}
