//! What a peer may send as a CSR: an error or a request that is what it seems, and can be compared and named.
#![cfg_attr(fuzzing, no_main)]

use imprint::payload::{CertificateNames, KeyType};
use imprint_host::csr::Csr;
use imprint_host::est;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let der = est::csr(bytes).unwrap_or_default();
    for bytes in [bytes, &der] {
        match Csr::parse(bytes) {
            Ok(csr) => {
                assert!(!csr.spki().is_empty() && csr.code().to_string().len() == 19);
                if let Err(error) = csr.matches(&CertificateNames::default(), KeyType::P256) {
                    assert!(error.to_string().chars().all(|c| !c.is_control()));
                }
            }
            Err(error) => assert!(error.to_string().len() < 2000),
        }
    }
});
