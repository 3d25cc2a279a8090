//! The keys of a record about the node's bundle: where its key is, who approves, and whom to encrypt for. Makes no bundle.

use imprint::age::Recipient;

use super::fields::{RecordError, Table};
use super::one_of;
use crate::admission::Admit;

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

/// Takes `bundle_key` and what belongs to it. `None`: the node has no bundle. `admit`: who is let in as this node at a door.
pub(super) fn rule(table: &mut Table<'_>, admit: Admit) -> Result<Option<BundleRule>, RecordError> {
    let given = table.take("bundle_key");
    let key = given.as_ref().map(|value| one_of(value, &KeySource::ALL)).transpose()?;
    let approve = table.take("bundle_approve");
    let recipient = table.take("bundle_recipient");
    let pull = table.take("bundle_pull");
    let Some((key, given)) = key.zip(given) else {
        return match approve.or(recipient).or(pull) {
            Some(other) => {
                Err(other.error("has no meaning without bundle_key; add bundle_key = \"payload\", or leave it out"))
            }
            None => Ok(None),
        };
    };
    if key == KeySource::Payload && matches!(admit, Admit::ApproveOnce | Admit::Known) {
        let why = format!(
            "\"payload\" does not go with admit = \"{}\": a node that is let in for what it says of itself gets no key; write \
             \"image\" or \"stick\", or another admit",
            admit.word()
        );
        return Err(given.error(why));
    }
    if let Some(recipient) = recipient.as_ref().filter(|_| key == KeySource::Payload) {
        return Err(recipient.error("the key of the payload is made here, so its recipient is known; leave it out"));
    }
    if let Some(pull) = pull.as_ref().filter(|_| key != KeySource::Stick) {
        return Err(pull.error("only a stick can be pulled; write bundle_key = \"stick\", or leave it out"));
    }
    let approve = match approve {
        None => Approval::Admin,
        Some(value) => {
            let approve = one_of(&value, &Approval::ALL)?;
            if approve == Approval::Auto && key != KeySource::Payload {
                let why = "\"auto\" needs bundle_key = \"payload\": this host cannot read what is encrypted for another key, and would \
                           sign anything that a stolen certificate sends; leave it out";
                return Err(value.error(why));
            }
            approve
        }
    };
    let recipient = recipient.map(|value| Recipient::parse(value.string()?).map_err(|error| value.error(error)));
    let recipient = recipient.transpose()?;
    let pull = pull.map_or(Ok(false), |value| value.bool())?;
    if key == KeySource::Stick && recipient.is_none() {
        let why = "\"stick\" needs bundle_recipient: anybody can bring a stick, and the node would encrypt its bundle for whoever \
                   did; add bundle_recipient = \"age1…\", which imprint check shows for the stick's imprint/bundle-key";
        return Err(given.error(why));
    }
    Ok(Some(BundleRule { key, approve, recipient, pull }))
}

#[cfg(test)]
mod tests {
    use imprint::age::Identity;

    use super::super::Record;
    use super::*;

    const LEAST: &str = "name = \"node1\"\nsubject = [\"CN=node1\"]\n";

    fn read(text: &str) -> Result<Record, RecordError> {
        Record::of_store("node1.toml", &format!("{LEAST}{text}\n"), &[])
    }

    #[test]
    fn what_a_record_says_about_bundles() {
        assert_eq!(read("").unwrap().bundle, None);
        let rule = |text: &str| read(text).unwrap().bundle.unwrap();
        let plain = BundleRule { key: KeySource::Payload, approve: Approval::Admin, recipient: None, pull: false };
        assert_eq!(rule("bundle_key = \"payload\""), plain);
        assert_eq!(
            rule("bundle_key = \"payload\"\nbundle_approve = \"auto\""),
            BundleRule { approve: Approval::Auto, ..plain }
        );
        let recipient = Identity::from_bytes(&[7; 32]).recipient();
        let text = format!("bundle_key = \"stick\"\nbundle_pull = true\nbundle_recipient = \"{recipient}\"");
        let stick = BundleRule { key: KeySource::Stick, recipient: Some(recipient), pull: true, ..plain };
        assert_eq!(rule(&text), stick);
        // Who is let in for its words may have a key that is not of this host.
        let known = "admit = \"known\"\nbind = { serial = \"S\" }\nbundle_key = \"image\"";
        assert_eq!(rule(known).key, KeySource::Image);
    }

    /// Each case is appended to a minimal record, so that its first line is line 3.
    #[test]
    fn an_error_names_file_line_and_key() {
        let secret = Identity::from_bytes(&[7; 32]).to_text();
        let secret = format!("bundle_key = \"image\"\nbundle_recipient = \"{}\"", *secret);
        let cases = [
            ("bundle_key = \"tpm\"", "node1.toml:3: bundle_key: \"tpm\" is not one of payload, image, stick"),
            ("bundle_key = true", "node1.toml:3: bundle_key: want a string, not boolean"),
            (
                "bundle_approve = \"auto\"",
                "node1.toml:3: bundle_approve: has no meaning without bundle_key; add bundle_key = \"payload\", or leave it out",
            ),
            (
                "bundle_pull = true",
                "node1.toml:3: bundle_pull: has no meaning without bundle_key; add bundle_key = \"payload\", or leave it out",
            ),
            (
                "bundle_key = \"image\"\nbundle_pull = true",
                "node1.toml:4: bundle_pull: only a stick can be pulled; write bundle_key = \"stick\", or leave it out",
            ),
            (
                "bundle_key = \"stick\"\nbundle_pull = \"yes\"",
                "node1.toml:4: bundle_pull: want true or false, not string",
            ),
            // Any stick would do, also that of a stranger.
            (
                "bundle_key = \"stick\"\nbundle_pull = true",
                "node1.toml:3: bundle_key: \"stick\" needs bundle_recipient: anybody can bring a stick, and the node would encrypt \
                 its bundle for whoever did; add bundle_recipient = \"age1…\", which imprint check shows for the stick's \
                 imprint/bundle-key",
            ),
            // A certificate alone must not decide what the node gets.
            (
                "bundle_key = \"image\"\nbundle_approve = \"auto\"",
                "node1.toml:4: bundle_approve: \"auto\" needs bundle_key = \"payload\": this host cannot read what is encrypted for \
                 another key, and would sign anything that a stolen certificate sends; leave it out",
            ),
            (
                "bundle_key = \"payload\"\nbundle_approve = \"me\"",
                "node1.toml:4: bundle_approve: \"me\" is not one of admin, auto",
            ),
            (
                "bundle_key = \"payload\"\nbundle_recipient = \"age1\"",
                "node1.toml:4: bundle_recipient: the key of the payload is made here, so its recipient is known; leave it out",
            ),
            (
                "bundle_key = \"image\"\nbundle_recipient = \"age1\"",
                "node1.toml:4: bundle_recipient: not an age recipient; want age1 and 58 characters, as age-keygen -y writes them",
            ),
            // The secret is not in the message.
            (
                &secret,
                "node1.toml:4: bundle_recipient: this is an identity, a secret key; want its recipient, which age-keygen -y \
                 prints",
            ),
            (
                "admit = \"known\"\nbind = { serial = \"S\" }\nbundle_key = \"payload\"",
                "node1.toml:5: bundle_key: \"payload\" does not go with admit = \"known\": a node that is let in for what it says \
                 of itself gets no key; write \"image\" or \"stick\", or another admit",
            ),
            (
                "admit = \"approve-once\"\nclaims_suffice = true\nbundle_key = \"payload\"",
                "node1.toml:5: bundle_key: \"payload\" does not go with admit = \"approve-once\": a node that is let in for what \
                 it says of itself gets no key; write \"image\" or \"stick\", or another admit",
            ),
            ("bundle_keys = \"image\"", "node1.toml:3: bundle_keys: unknown key; did you mean bundle_key?"),
        ];
        for (text, want) in cases {
            assert_eq!(read(text).unwrap_err().to_string(), want, "{text}");
        }
    }
}
