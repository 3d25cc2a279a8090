//! Whatever decodes is encoded to the same bytes; whatever does not says where.
#![no_main]

use imprint::payload::Payload;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Payload::decode(bytes) {
        Ok(payload) => {
            assert_eq!(&*payload.encode(), bytes);
            assert!(!payload.to_string().is_empty());
        }
        Err(error) => assert!(error.offset <= bytes.len() && !error.to_string().is_empty()),
    }
});
