//! Headers of age files: an error that names a line, or a header that the identity of the seeds opens. Keys as text are written as
//! they are read.
#![cfg_attr(fuzzing, no_main)]

use imprint::age::{self, AgeError, Identity, Recipient};

const IDENTITY: &str = include_str!("../../tests/data/bundle-identity");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let identity = Identity::parse(IDENTITY).unwrap();
    // Lines cost the fuzzer much; the first one is always the same.
    for file in [bytes.to_vec(), [b"age-encryption.org/v1\n", bytes].concat()] {
        let lines = file.split(|byte| *byte == b'\n').count();
        let checked = age::check(&file);
        match age::decrypt(&file, &identity) {
            Ok(plain) => {
                assert_eq!(checked, Ok(()));
                assert!(plain.len() < file.len());
            }
            Err(AgeError::Header { line, .. }) => assert!((1..=lines).contains(&line) && checked.is_err()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(recipient) = Recipient::parse(&text) {
        assert_eq!(recipient.to_string(), text);
    }
    if let Ok(identity) = Identity::parse(&text) {
        assert!(text.contains(identity.to_text().as_str()));
    }
});
