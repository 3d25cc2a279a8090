//! Tests of what payloads say about bundles, as people make payloads: whose key, whose signature, which counter, and where such a
//! payload may not go.

use crate::support::command;

use std::fs;
use std::path::Path;

use command::{TYPICAL, fails, fine, host, record, site};
use imprint::age::{Identity, Recipient};
use imprint::payload::signed::Signer;
use imprint::payload::{BundleKey, BundleTerms, Payload};
use imprint::site::SitePin;
use imprint::time::Timestamp;
use imprint_host::compose::{ComposeError, Medium, Options};
use imprint_host::state::{Error, State};

/// The typical record with these keys.
fn with(keys: &str) -> String {
    TYPICAL.replace("\n[[network]]", &format!("{keys}\n\n[[network]]"))
}

/// The public key of a key that is not on this host.
fn recipient() -> Recipient {
    Identity::from_bytes(&[7; 32]).recipient()
}

fn named() -> String {
    format!("bundle_recipient = \"{}\"", recipient())
}

fn payload(dir: &Path, node: &str) -> Payload {
    Payload::unwrapped(&fine(dir, &["payload", node, "--keep"])).unwrap()
}

fn terms(dir: &Path) -> BundleTerms {
    payload(dir, "node1").bundle.unwrap()
}

fn identity(dir: &Path, node: &str) -> Identity {
    match payload(dir, node).bundle.unwrap().key {
        BundleKey::Payload(identity) => identity,
        key => panic!("{key}"),
    }
}

/// Images of before know no item 16 or 17 and refuse a payload with one: a record without bundles gets none.
#[test]
fn only_a_record_with_bundles_has_them_in_its_payload() {
    let (temp, dir) = site();
    let plain = payload(&dir, "node1");
    assert_eq!((plain.bundle, plain.signers), (None, vec![]));
    for (keys, key) in [
        ("bundle_key = \"image\"", BundleKey::Image(None)),
        ("bundle_key = \"image\"\nRECIPIENT", BundleKey::Image(Some(recipient()))),
        ("bundle_key = \"stick\"\nRECIPIENT", BundleKey::Stick { recipient: recipient(), pull: false }),
        (
            "bundle_key = \"stick\"\nRECIPIENT\nbundle_pull = true",
            BundleKey::Stick { recipient: recipient(), pull: true },
        ),
    ] {
        record(&temp, &dir, &with(&keys.replace("RECIPIENT", &named())));
        assert_eq!(terms(&dir), BundleTerms { key, least: 0 });
    }
    record(&temp, &dir, TYPICAL);
    assert_eq!(payload(&dir, "node1").bundle, None);
}

/// Old versions are encrypted for the key, so it has to stay; and another node's is of no use.
#[test]
fn a_node_keeps_its_own_key() {
    let (temp, dir) = site();
    record(&temp, &dir, &with("bundle_key = \"payload\""));
    let second = "name = \"node2\"\nsubject = [\"CN=node2\"]\nbundle_key = \"payload\"\n[[network]]\nmatch = { any = true }\ndhcp4 = true\n";
    record(&temp, &dir, second);
    let first = identity(&dir, "node1");
    assert_eq!(identity(&dir, "node1"), first);
    assert_ne!(identity(&dir, "node2"), first);
    // While the record says otherwise, and after it.
    record(&temp, &dir, &with("bundle_key = \"image\""));
    assert_eq!(terms(&dir).key, BundleKey::Image(None));
    record(&temp, &dir, &with("bundle_key = \"payload\""));
    assert_eq!(identity(&dir, "node1"), first);
    // Nothing that people see has it, or the store would have to be kept from whoever may see the log.
    let secret = first.to_text();
    for words in [&["log"][..], &["nodes", "--json"], &["log", "--json"]] {
        let shown = String::from_utf8(fine(&dir, words)).unwrap();
        assert!(!shown.contains(&**secret), "{words:?}");
    }
}

/// The attack: an old bundle that somebody kept is sent again. A payload refuses all versions before the newest one.
#[test]
fn the_least_counter_is_that_of_the_newest_version() {
    let (temp, dir) = site();
    record(&temp, &dir, &with("bundle_key = \"payload\""));
    let from = temp.path().join("from");
    fs::create_dir_all(from.join("etc")).unwrap();
    for counter in 1..=3 {
        fs::write(from.join("etc/motd"), format!("{counter}\n")).unwrap();
        let made = host(&dir, &["bundle", "make", "node1", "--from", from.to_str().unwrap()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert_eq!(terms(&dir).least, counter);
    }
    // What was removed is not made good again by that.
    let removed = host(&dir, &["bundle", "remove", "node1", "3"]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert_eq!(terms(&dir).least, 3);
}

/// A bundle may have been signed by the key before, or be signed by the next one.
#[test]
fn every_signer_of_the_host_is_named() {
    let (temp, dir) = site();
    record(&temp, &dir, &with("bundle_key = \"image\""));
    let named = || -> Vec<Signer> { SitePin::parse(&fine(&dir, &["signer"])).unwrap().signers };
    assert_eq!(payload(&dir, "node1").signers, named());
    for words in [&["signer", "rotate"][..], &["signer", "rotate", "--announce"]] {
        assert!(host(&dir, words).status.success());
        let signers = payload(&dir, "node1").signers;
        assert_eq!(signers, named());
    }
    assert_eq!(named().len(), 3);
    let unsigned = Payload::decode(&fine(&dir, &["payload", "node1", "--unsigned"])).unwrap();
    assert_eq!(unsigned.signers, named(), "an image that is too old for signed payloads still verifies bundles");
}

/// The accident: a node gets a payload whose bundles nobody can sign, and stops at each boot.
#[test]
fn without_a_signer_no_payload_with_bundles_is_made() {
    let (temp, dir) = site();
    record(&temp, &dir, &with("bundle_key = \"image\""));
    fs::remove_file(dir.join("signer.key")).unwrap();
    let words = "imprint-host: the record of node1 has bundle_key, and this host has no signer, so it can sign no bundle; make one: \
                 imprint-host signer new\n";
    assert_eq!(fails(&dir, &["payload", "node1"]), (1, words.to_owned()));
    record(&temp, &dir, TYPICAL);
    fine(&dir, &["payload", "node1"]);
}

#[test]
fn a_bundle_needs_a_server() {
    let (temp, dir) = site();
    record(&temp, &dir, &with("bundle_key = \"image\""));
    let words = "imprint-host: the record of node1 has bundle_key, and a bundle comes from the server that gives the node its \
                 certificate; leave out --credentials, or bundle_key\n";
    assert_eq!(fails(&dir, &["payload", "node1", "--credentials"]), (1, words.to_owned()));
}

/// The attack: everybody on the node reads the key of its bundles, and with it every bundle that was ever made for the node.
#[test]
fn a_payload_with_a_key_goes_where_a_private_key_goes() {
    let (temp, dir) = site();
    for (key, refused) in [("payload", true), ("image", false), ("stick", false)] {
        let named = if key == "stick" { named() } else { String::new() };
        record(&temp, &dir, &with(&format!("bundle_key = \"{key}\"\n{named}")));
        for form in ["text", "cmdline", "efivar", "user-data", "multipart"] {
            let output = host(&dir, &["payload", "node1", "--as", form]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.success(), !refused, "{key} {form}: {said}");
            assert_eq!(said.contains(" holds a bundle key; "), refused, "{key} {form}: {said}");
        }
        for form in ["cbor", "cpio", "iso", "vfat", "gpt", "smbios"] {
            let output = host(&dir, &["payload", "node1", "--as", form]);
            assert!(output.status.success(), "{key} {form}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    // A line is logged as a console is, if it has no seal.
    for (medium, want) in [(Medium::PlainLine, false), (Medium::Line, true)] {
        record(&temp, &dir, &with("bundle_key = \"payload\""));
        let options = Options { medium, ..Options::default() };
        let made = State::open(&dir).unwrap().payload("node1", &options, Timestamp::system());
        match made {
            Ok(_) => assert!(want),
            Err(Error::Compose(ComposeError::Forbidden(error))) => {
                let words =
                    "the payload on a serial line, where it is not sealed and may be logged, holds a bundle key; ";
                assert!(!want && error.to_string().starts_with(words), "{error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
