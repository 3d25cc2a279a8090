//! A sealed bundle that is taken apart has a statement that is encoded to the same bytes. Without the key of a signer nothing opens
//! but what the signer has signed, which a seed is.
#![cfg_attr(fuzzing, no_main)]

use base64ct::{Base64, Encoding};
use imprint::age::Identity;
use imprint::bundle::answer::{Report, Standing};
use imprint::bundle::statement::{Sealed, Statement};
use imprint::bundle::{self, Expect};
use imprint::payload::NodeName;
use imprint::payload::signed::{Algorithm, Signer};

const GOOD: &[u8] = include_bytes!("../../tests/data/bundle.sealed");
const IDENTITY: &str = include_str!("../../tests/data/bundle-identity");
const SIGNERS: &str = include_str!("../../tests/data/site-signers");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let spki = |line: &str| Base64::decode_vec(line.split(' ').nth(2).unwrap()).unwrap();
    let algorithms = [Algorithm::Es256, Algorithm::EdDsa];
    let signers = SIGNERS.lines().zip(algorithms).map(|(line, algorithm)| Signer::new(algorithm, &spki(line)).unwrap());
    let signers: Vec<Signer> = signers.collect();
    match Sealed::split(bytes) {
        Ok(sealed) => assert_eq!(Statement::decode(&sealed.statement().encode()).as_ref(), Ok(sealed.statement())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(statement) = Statement::decode(bytes) {
        assert_eq!(statement.encode(), bytes);
    }
    let node = NodeName::try_from("node1").unwrap();
    let expect = Expect { node: &node, least: 1, signers: &signers };
    let opened = bundle::open(bytes, &expect, &Identity::parse(IDENTITY).unwrap());
    assert!(opened.is_err() || bytes == GOOD);
    for answer in [Standing::read(bytes).map(drop), Report::read(bytes).map(drop)] {
        if let Err(error) = answer {
            assert!(!error.to_string().is_empty());
        }
    }
});
