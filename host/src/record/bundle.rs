//! The keys of a record about the node's bundle: where its key is, who approves, and whom to encrypt for. Makes no bundle.

use imprint::age::Recipient;

use super::fields::{RecordError, Table};
use super::one_of;

/// What a record says about the node's bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BundleRule {
    /// Where the node has the key of its bundle from.
    pub key: KeySource,
    /// Who approves a bundle that the node sends.
    pub approve: Approval,
    /// Whom to encrypt for, if this host does not hold the key.
    pub recipient: Option<Recipient>,
    /// The stick with the key has to be pulled before the boot goes on.
    pub pull: bool,
}

/// Where a node has the key of its bundle from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeySource {
    /// From its payload. This host holds the key.
    Payload,
    /// From its image.
    Image,
    /// From a stick.
    Stick,
}

/// Who approves a bundle that a node sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Approval {
    /// An administrator.
    Admin,
    /// Nobody has to.
    Auto,
}

impl KeySource {
    /// Every source and its word.
    pub const ALL: [(KeySource, &str); 3] =
        [(KeySource::Payload, "payload"), (KeySource::Image, "image"), (KeySource::Stick, "stick")];
}

impl Approval {
    /// Each and its word.
    pub const ALL: [(Approval, &str); 2] = [(Approval::Admin, "admin"), (Approval::Auto, "auto")];
}

/// Reads the keys. `None`: the node has no bundle.
pub(super) fn rule(table: &mut Table<'_>) -> Result<Option<BundleRule>, RecordError> {
    let key = table.take("bundle_key").map(|value| one_of(&value, &KeySource::ALL)).transpose()?;
    let approve = table.take("bundle_approve");
    let recipient = table.take("bundle_recipient");
    let pull = table.take("bundle_pull");
    let Some(key) = key else {
        return match approve.or(recipient).or(pull) {
            Some(other) => {
                Err(other.error("has no meaning without bundle_key; add bundle_key = \"payload\", or leave it out"))
            }
            None => Ok(None),
        };
    };
    if let Some(recipient) = recipient.as_ref().filter(|_| key == KeySource::Payload) {
        return Err(recipient.error("the key of the payload is made here, so its recipient is known; leave it out"));
    }
    if let Some(pull) = pull.as_ref().filter(|_| key != KeySource::Stick) {
        return Err(pull.error("only a stick can be pulled; write bundle_key = \"stick\", or leave it out"));
    }
    let approve = approve.map_or(Ok(Approval::Admin), |value| one_of(&value, &Approval::ALL))?;
    let recipient = recipient.map(|value| Recipient::parse(value.string()?).map_err(|error| value.error(error)));
    let pull = pull.map_or(Ok(false), |value| value.bool())?;
    Ok(Some(BundleRule { key, approve, recipient: recipient.transpose()?, pull }))
}
