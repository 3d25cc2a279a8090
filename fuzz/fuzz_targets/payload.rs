//! Whatever decodes is encoded to the same bytes; whatever does not says where. A certificate and key in it are verified.
#![cfg_attr(fuzzing, no_main)]

use imprint::identity::Given;
use imprint::payload::{Enrolment, Payload};
use imprint::plan::GivenPlan;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Payload::decode(bytes) {
        Ok(payload) => {
            assert_eq!(&*payload.encode(), bytes);
            assert!(!payload.to_string().is_empty());
            let Payload { ca, issuers, composed, .. } = payload;
            if let Enrolment::Credentials(given) = payload.enrolment {
                let _ = Given::verify(&GivenPlan { chain: given.chain, key: given.key, ca, issuers, now: composed });
            }
        }
        Err(error) => assert!(error.offset <= bytes.len() && !error.to_string().is_empty()),
    }
});
