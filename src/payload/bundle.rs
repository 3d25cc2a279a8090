//! What a payload says about the node's configuration bundle: where the key comes from that opens it, which counter is the
//! least, and who signs it. The wire format of these items. Never reads a bundle and never looks for a key.

use std::collections::BTreeMap;

use serde_cbor::Value;
use zeroize::Zeroizing;

use super::cbor::{DecodeError, Extension, Item, Problem};
use super::signed::Signer;
use crate::age::{Identity, Recipient};

/// The largest counter of a bundle, 2^53: every number up to it is exact in JSON, too.
pub const MAX_COUNTER: u64 = 1 << 53;

/// The node takes its configuration from a bundle. Without a bundle that fits, it does not boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BundleTerms {
    /// Where the key comes from that opens the bundle.
    pub key: BundleKey,
    /// A bundle with a lower counter is an old one, and refused. 0: every counter counts.
    pub least: u64,
}

/// Where the key comes from that opens the node's bundles. A key that a TPM holds would be a further variant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BundleKey {
    /// It is in the payload. The host has it, too.
    Payload(Identity),
    /// It is a file of the image. With its public key, the one in the file has to be that.
    Image(Option<Recipient>),
    /// It is a file on a medium with the label IMPRINT-KEY.
    Stick {
        /// The public key. Anybody can bring a medium with that label, and would read what is encrypted for a key of his own.
        recipient: Recipient,
        /// Wait until the medium is gone before the boot goes on.
        pull: bool,
    },
}

impl BundleKey {
    /// The number of the source on the wire.
    fn number(&self) -> u64 {
        match self {
            BundleKey::Payload(_) => 0,
            BundleKey::Image(_) => 1,
            BundleKey::Stick { .. } => 2,
        }
    }
}

/// For people; never shows the key.
impl std::fmt::Display for BundleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BundleKey::Payload(_) => f.write_str("in the payload (not shown)"),
            BundleKey::Image(None) => f.write_str("in the image"),
            BundleKey::Image(Some(recipient)) => write!(f, "of {recipient} in the image"),
            BundleKey::Stick { recipient, pull } => {
                write!(f, "of {recipient} on a medium with the label IMPRINT-KEY")?;
                if *pull { f.write_str(", which has to be pulled") } else { Ok(()) }
            }
        }
    }
}

pub(super) fn terms(item: Item<'_>, ext: &mut Vec<Extension>) -> Result<BundleTerms, DecodeError> {
    let mut fields = item.map()?;
    let source_item = fields.need(0, "source")?;
    let source = source_item.uint()?;
    let identity = fields.take(1, "identity");
    let least = match fields.take(2, "least") {
        Some(item) => match item.uint()? {
            least @ 1..=MAX_COUNTER => least,
            other => {
                let why = format!("{other}, want 1 to {MAX_COUNTER} (for every counter, leave the key out)");
                return Err(item.place.error(Problem::Value(why)));
            }
        },
        None => 0,
    };
    let pull_place = fields.place.clone();
    let pull = fields.flag(3, "pull")?;
    let recipient = fields.take(4, "recipient");
    if let Some(item) = recipient.as_ref().filter(|_| source == 0) {
        let why = "a recipient, and a key that is in the payload; leave the recipient out".to_owned();
        return Err(item.place.error(Problem::Value(why)));
    }
    let recipient = recipient.map(public).transpose()?;
    let key = match (source, identity) {
        (0, Some(item)) => BundleKey::Payload(Identity::from_bytes(&Zeroizing::new(item.fixed()?))),
        (0, None) => return Err(fields.place.error(Problem::Missing("identity"))),
        (1 | 2, Some(item)) => {
            let why = "an identity, and a source that is not the payload; leave one out".to_owned();
            return Err(item.place.error(Problem::Value(why)));
        }
        (1, None) => BundleKey::Image(recipient),
        (2, None) => {
            let recipient = recipient.ok_or_else(|| fields.place.error(Problem::Missing("recipient")))?;
            BundleKey::Stick { recipient, pull }
        }
        (other, _) => {
            let why = format!("{other}, want 0 (payload), 1 (image) or 2 (stick)");
            return Err(source_item.place.error(Problem::Value(why)));
        }
    };
    if pull && source != 2 {
        let why = "pull, and a key that is on no stick; leave pull out".to_owned();
        return Err(pull_place.error(Problem::Value(why)));
    }
    fields.finish(ext)?;
    Ok(BundleTerms { key, least })
}

pub(super) fn terms_value(terms: &BundleTerms) -> Value {
    let mut map = BTreeMap::from([(0, uint(terms.key.number()))]);
    match &terms.key {
        BundleKey::Payload(identity) => drop(map.insert(1, Value::Bytes(identity.expose().to_vec()))),
        BundleKey::Image(recipient) => map.extend(recipient.as_ref().map(|recipient| (4, written(recipient)))),
        BundleKey::Stick { recipient, pull } => {
            map.extend(pull.then_some((3, Value::Bool(true))));
            map.insert(4, written(recipient));
        }
    }
    if terms.least > 0 {
        map.insert(2, uint(terms.least));
    }
    Value::Map(map.into_iter().map(|(key, value)| (Value::Integer(key), value)).collect())
}

/// The public key of an identity.
fn public(item: Item<'_>) -> Result<Recipient, DecodeError> {
    let place = item.place.clone();
    Recipient::from_bytes(item.fixed()?).map_err(|error| place.error(Problem::Value(error.to_string())))
}

fn written(recipient: &Recipient) -> Value {
    Value::Bytes(recipient.as_bytes().to_vec())
}

fn uint(number: u64) -> Value {
    Value::Integer(i128::from(number))
}

/// The public key of a signer: its SubjectPublicKeyInfo, which says the algorithm.
pub(super) fn signer(item: Item<'_>) -> Result<Signer, DecodeError> {
    let place = item.place.clone();
    let spki = item.bytes()?;
    Signer::of_spki(&spki).map_err(|error| place.error(Problem::Value(error.to_string())))
}

#[cfg(test)]
mod tests;
