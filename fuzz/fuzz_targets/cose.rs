//! A signed payload that is taken apart is put together to the same bytes. With signers in the site pin, nothing is
//! decoded but what these signers have signed, which the seeds are.
#![cfg_attr(fuzzing, no_main)]

use imprint::payload::signed::{self, Signed, is_signed};
use imprint::secret::Secret;
use imprint::site::SitePin;
use imprint::source::{self, Found, Origin, Unusable};

const SIGNERS: &[u8] = include_bytes!("../../tests/data/site-signers");
const GOOD: [&[u8]; 2] = [
    include_bytes!("../../tests/data/payload-signed-p256.cbor"),
    include_bytes!("../../tests/data/payload-signed-ed25519.cbor"),
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Signed::decode(bytes) {
        Ok(parts) => {
            let again = signed::encode(parts.algorithm, parts.kid, parts.payload, parts.signature);
            assert!(is_signed(bytes) && again.as_slice() == bytes);
        }
        Err(error) => assert!(error.offset <= bytes.len() && !error.to_string().is_empty()),
    }
    let found = Found { origin: Origin::File("x".into()), bytes: Secret::new(bytes.to_vec()), cut: false, fresh: None };
    let pin = SitePin::parse(SIGNERS).unwrap();
    assert!(source::decode(&found, Some(&pin), None).is_err() || GOOD.contains(&bytes));
    match source::decode(&found, None, None) {
        Err(Unusable::Signature(error)) => panic!("nobody asked for a signature: {error}"),
        Err(Unusable::Payload(error)) => assert!(error.offset <= bytes.len()),
        Ok(_) | Err(Unusable::Source(_)) => {}
    }
    // Each line of a site pin is accepted, or the error names it.
    if let Err(error) = SitePin::parse(bytes) {
        assert!(!error.to_string().is_empty());
    }
});
