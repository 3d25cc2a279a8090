//! Data for cloud-init, which anybody who may start an instance can write.
#![cfg_attr(fuzzing, no_main)]

use imprint::payload::MAX_LEN;
use imprint::source::user_data::{Content, user_data, vendor_data};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for content in [user_data(bytes), vendor_data(bytes)] {
        if let Content::Payload(payload) = content {
            assert!(!payload.expose().is_empty() && payload.expose().len() <= MAX_LEN);
            // Base64 is longer than what it holds.
            assert!(payload.expose().len() < bytes.len());
        }
    }
});
