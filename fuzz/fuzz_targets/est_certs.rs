//! A certs-only PKCS#7 message, base64 or DER, and what is read of the certificates in it for people and for the check.
#![cfg_attr(fuzzing, no_main)]

use imprint::certificate::CertificateFacts;
use imprint::payload::CaCertificate;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = std::str::from_utf8(bytes).map(imprint::est::date);
    for certificate in imprint::est::certs_only(bytes).unwrap_or_default() {
        assert!(certificate.len() <= bytes.len());
        let _ = CertificateFacts::of(&certificate);
        let _ = CaCertificate::new(certificate);
    }
});
