//! What a reader sends that a medium has taken over.
#![no_main]

use imprint::payload::MAX_LEN;
use imprint::source::answer::{Answer, Looked, MAX_ANSWER};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(answer) = Answer::decode(bytes) else { return };
    if let Answer::Medium(medium) = &answer {
        assert!(medium.volumes.len() <= 2);
        for volume in &medium.volumes {
            assert!(volume.labels.len() <= 2);
            assert!(!matches!(&volume.file, Looked::Found(file) if file.expose().len() > MAX_LEN));
        }
    }
    let again = answer.encode();
    assert!(again.expose().len() <= MAX_ANSWER && again.expose() == bytes);
});
