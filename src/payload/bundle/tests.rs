use proptest::prelude::*;
use serde_cbor::Value;

use super::*;
use crate::payload::cbor::write;
use crate::payload::{MAX_LEN, Payload};

const TYPICAL: &[u8] = include_bytes!("../../../tests/data/payload-typical.cbor");
const BUNDLE: &[u8] = include_bytes!("../../../tests/data/payload-bundle.cbor");
const CREDENTIALS: &[u8] = include_bytes!("../../../tests/data/payload-credentials.cbor");
const SIGNERS: &[u8] = include_bytes!("../../../tests/data/site-signers");

fn identity() -> Identity {
    Identity::from_bytes(&std::array::from_fn(|i| 0x40 + i as u8))
}

fn recipient() -> Recipient {
    identity().recipient()
}

fn stick(pull: bool) -> BundleKey {
    BundleKey::Stick { recipient: recipient(), pull }
}

fn with(terms: BundleTerms) -> Payload {
    Payload { bundle: Some(terms), ..Payload::decode(TYPICAL).unwrap() }
}

/// If this test fails, do not change it: you have changed version 1. The bytes are those of tests/python/payload_peer.py, too.
#[test]
fn frozen_bundle() {
    let payload = Payload::decode(BUNDLE).unwrap();
    assert_eq!(*payload.encode(), BUNDLE);
    assert_eq!(payload.bundle, Some(BundleTerms { key: BundleKey::Payload(identity()), least: 7 }));
    assert_eq!(payload.signers, crate::site::SitePin::parse(SIGNERS).unwrap().signers);
    // Without the two items: the bytes of before.
    assert_eq!(*Payload { signers: vec![], bundle: None, ..payload }.encode(), TYPICAL);
    let public = "04582079a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a";
    for (terms, bytes) in [
        (BundleTerms { key: BundleKey::Image(None), least: 0 }, "11a10001".to_owned()),
        (BundleTerms { key: BundleKey::Image(None), least: 1 << 53 }, "11a20001021b0020000000000000".to_owned()),
        (BundleTerms { key: BundleKey::Image(Some(recipient())), least: 0 }, format!("11a20001{public}")),
        (BundleTerms { key: stick(false), least: 1 }, format!("11a300020201{public}")),
        (BundleTerms { key: stick(true), least: 0 }, format!("11a3000203f5{public}")),
    ] {
        let encoded = with(terms.clone()).encode();
        assert!(encoded.ends_with(&crate::hex::decode(&bytes).unwrap()), "{encoded:02x?}");
        assert_eq!(Payload::decode(&encoded).unwrap().bundle, Some(terms));
    }
}

/// The accident: a reader that skips what it does not understand boots a node without the configuration that it has to have.
#[test]
fn a_reader_that_does_not_know_bundles_refuses_the_payload() {
    // As a reader of before sees the items: keys of 0 and above that it does not know.
    for (key, now) in [(16, 20), (17, 21)] {
        let Ok(Value::Map(mut map)) = serde_cbor::from_slice(BUNDLE) else { panic!("a map") };
        let item = map.remove(&Value::Integer(key)).unwrap();
        map.insert(Value::Integer(now), item);
        let error = Payload::decode(&write(&Value::Map(map), MAX_LEN)).unwrap_err();
        assert_eq!(error.problem, Problem::UnknownKey(now));
    }
}

/// A key on a console, in a log or in a bug report is everybody's.
#[test]
fn what_is_shown_has_no_key() {
    let payload = Payload::decode(BUNDLE).unwrap();
    let shown = payload.to_string();
    assert!(shown.contains("\nbundle     key in the payload (not shown); counter 7 or higher\nsigners    "), "{shown}");
    let debug = format!("{payload:?}");
    for words in [&shown, &debug] {
        let words = words.to_lowercase();
        assert!(!words.contains(&crate::hex::encode(&identity().expose()[..4])), "{words}");
        assert!(!words.contains("64, 65, 66"), "{words}");
    }
    let shown = with(BundleTerms { key: stick(true), least: 0 }).to_string();
    let line =
        format!("\nbundle     key of {} on a medium with the label IMPRINT-KEY, which has to be pulled\n", recipient());
    assert!(shown.contains(&line), "{shown}");
}

/// The error of the typical payload with this item.
fn refused(key: i128, value: Value) -> String {
    changed(TYPICAL, key, value)
}

fn changed(payload: &[u8], key: i128, value: Value) -> String {
    let Ok(Value::Map(mut map)) = serde_cbor::from_slice(payload) else { panic!("a map") };
    map.insert(Value::Integer(key), value);
    Payload::decode(&write(&Value::Map(map), MAX_LEN)).unwrap_err().to_string()
}

fn int(number: i128) -> Value {
    Value::Integer(number)
}

fn map<const N: usize>(entries: [(i128, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (int(key), value)).collect())
}

#[test]
fn every_item_is_checked_by_name_and_place() {
    let bytes = |len: usize| Value::Bytes(vec![7; len]);
    let off_curve = [&SPKI[..], &[4], &[1; 64]].concat();
    for (error, want) in [
        (refused(17, int(1)), "byte 583, bundle: want a map"),
        (refused(17, map([])), "byte 583, bundle: source is missing"),
        (refused(17, map([(0, int(3))])), "byte 585, bundle.source: 3, want 0 (payload), 1 (image) or 2 (stick)"),
        (refused(17, map([(0, int(0))])), "byte 583, bundle: identity is missing"),
        (refused(17, map([(0, int(0)), (1, bytes(31))])), "byte 587, bundle.identity: 31 bytes, want 32"),
        (
            refused(17, map([(0, int(1)), (1, bytes(32))])),
            "byte 587, bundle.identity: an identity, and a source that is not the payload; leave one out",
        ),
        (
            refused(17, map([(0, int(2)), (1, bytes(32))])),
            "byte 587, bundle.identity: an identity, and a source that is not the payload; leave one out",
        ),
        (
            refused(17, map([(0, int(1)), (2, int(0))])),
            "byte 587, bundle.least: 0, want 1 to 9007199254740992 (for every counter, leave the key out)",
        ),
        (
            refused(17, map([(0, int(1)), (2, int((1 << 53) + 1))])),
            "byte 587, bundle.least: 9007199254740993, want 1 to 9007199254740992 (for every counter, leave the key out)",
        ),
        (
            refused(17, map([(0, int(2)), (3, Value::Bool(false))])),
            "byte 587, bundle.pull: false; leave the key out instead",
        ),
        (
            refused(17, map([(0, int(1)), (3, Value::Bool(true))])),
            "byte 583, bundle: pull, and a key that is on no stick; leave pull out",
        ),
        (refused(17, map([(0, int(2))])), "byte 583, bundle: recipient is missing"),
        (refused(17, map([(0, int(1)), (4, bytes(31))])), "byte 587, bundle.recipient: 31 bytes, want 32"),
        (
            refused(17, map([(0, int(2)), (4, Value::Bytes(vec![0; 32]))])),
            "byte 587, bundle.recipient: this recipient is a point of low order, and keeps no secret; use another key",
        ),
        (
            refused(17, map([(0, int(0)), (1, bytes(32)), (4, bytes(32))])),
            "byte 622, bundle.recipient: a recipient, and a key that is in the payload; leave the recipient out",
        ),
        (
            refused(17, map([(0, int(1)), (5, int(0))])),
            "byte 587, bundle.?: unknown critical key 5; the payload is newer than this program, update the image",
        ),
        (refused(16, Value::Array(vec![])), "byte 583, signers: an empty array; leave the key out instead"),
        (
            refused(16, Value::Array(vec![bytes(5)])),
            "byte 584, signers[0]: not the SubjectPublicKeyInfo (DER) of a key on P-256 with an uncompressed point",
        ),
        (
            refused(16, Value::Array(vec![Value::Bytes(off_curve)])),
            "byte 584, signers[0]: not a point of the curve of p256",
        ),
    ] {
        assert_eq!(error, want);
    }
    let error = changed(CREDENTIALS, 17, map([(0, int(1))]));
    let want = "bundle: credentials and bundle exclude each other; remove one: a bundle comes from the server that gives the node \
                its certificate";
    assert!(error.ends_with(want), "{error}");
}

/// The SubjectPublicKeyInfo of a key on P-256, up to its point.
const SPKI: &[u8; 26] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\0";

/// What a later host may say about a bundle, and this reader need not know.
#[test]
fn items_below_zero_are_kept_and_ignored() {
    let Ok(Value::Map(mut payload)) = serde_cbor::from_slice(TYPICAL) else { panic!("a map") };
    payload.insert(int(17), map([(0, int(1)), (-3, int(9))]));
    let bytes = write(&Value::Map(payload), MAX_LEN);
    let read = Payload::decode(&bytes).unwrap();
    assert_eq!(read.bundle, Some(BundleTerms { key: BundleKey::Image(None), least: 0 }));
    assert_eq!(read.encode(), bytes);
    assert!(read.to_string().contains("\nignored    key -3 in bundle\n"), "{read}");
}

fn keys() -> impl Strategy<Value = BundleKey> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(|bytes| BundleKey::Payload(Identity::from_bytes(&bytes))),
        any::<Option<[u8; 32]>>()
            .prop_map(|bytes| BundleKey::Image(bytes.map(|bytes| Identity::from_bytes(&bytes).recipient()))),
        any::<(bool, [u8; 32])>()
            .prop_map(|(pull, bytes)| BundleKey::Stick { recipient: Identity::from_bytes(&bytes).recipient(), pull }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_written_is_read(key in keys(), least in 0..=MAX_COUNTER, count in 0usize..3) {
        let signers = crate::site::SitePin::parse(SIGNERS).unwrap().signers.into_iter().take(count).collect();
        let payload = Payload { signers, ..with(BundleTerms { key, least }) };
        let bytes = payload.encode();
        let read = Payload::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &payload);
        prop_assert_eq!(read.encode(), bytes);
    }

    /// Damaged bytes that are accepted are written to the same bytes again.
    #[test]
    fn damaged_payloads_are_refused_or_are_payloads(at in 582..BUNDLE.len(), byte: u8) {
        let mut bytes = BUNDLE.to_vec();
        bytes[at] = byte;
        match Payload::decode(&bytes) {
            Ok(payload) => prop_assert_eq!(&*payload.encode(), &bytes),
            Err(error) => prop_assert!(error.offset <= bytes.len()),
        }
    }
}
