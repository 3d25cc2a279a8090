//! Admission keys: a file that somebody calls a key, and an object that somebody calls a proof. There is one proof of a key for a
//! HELLO and a host's nonce, and no other object counts as one.
#![cfg_attr(fuzzing, no_main)]

use imprint::line::admission::{AdmissionKey, Proof};
use imprint::line::frame::Hello;
use imprint::line::{Nonce, Versions};

const HOST: Nonce = Nonce([2; 8]);

/// The key of the corpus.
const KEY: &[u8] = include_bytes!("../corpus/admission/key");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce: Nonce([1; 8]),
        key: [3; 32],
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    if let Ok(key) = AdmissionKey::parse(bytes) {
        let proof = Proof::decode(&key.prove(&hello, HOST)).expect("its own object");
        assert_eq!(proof.key(&hello, HOST), Some(key.public()));
    }
    let key = AdmissionKey::parse(KEY).expect("the key of the corpus");
    if let Some(proof) = Proof::decode(bytes)
        && proof.key(&hello, HOST) == Some(key.public())
    {
        assert_eq!(bytes, key.prove(&hello, HOST));
    }
});
