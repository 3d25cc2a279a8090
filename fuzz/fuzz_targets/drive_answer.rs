//! What a reader sends that a medium has taken over.
#![cfg_attr(fuzzing, no_main)]

use imprint::payload::MAX_LEN;
use imprint::source::answer::{Answer, Looked, MAX_ANSWER, MAX_PARTS, MAX_PAYLOADS, Part};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(answer) = Answer::decode(bytes) else { return };
    if let Answer::Medium(medium) = &answer {
        assert!(medium.parts.len() <= MAX_PARTS);
        assert!(medium.parts.iter().map(Part::payloads).sum::<usize>() <= MAX_PAYLOADS);
        for part in &medium.parts {
            assert!(part.volumes.len() <= 2);
            for volume in &part.volumes {
                assert!(volume.labels.len() <= 2);
                let too_long = |looked: &Looked| matches!(looked, Looked::Found(file) if file.expose().len() > MAX_LEN);
                assert!(!volume.files.iter().any(|(_, looked)| too_long(looked)));
            }
        }
    }
    let again = answer.encode();
    assert!(again.expose().len() <= MAX_ANSWER && again.expose() == bytes);
});
