//! Verifies a certificate and key that came with the payload, with the checks that a check-in applies to a server's
//! answer. The names are not compared, because no CSR asked for any. Never makes a key.

use der::{Decode, Encode};
use rcgen::PublicKeyData;

use super::key::PrivateKey;
use super::verify::{Wanted, choose};
use super::{AnswerError, IdentityError, PrivateKeyPem};
use crate::certificate::{Certificate, CertificateFacts};
use crate::key_code::KeyCode;
use crate::payload::KeyType;
use crate::plan::GivenPlan;

/// A certificate and its key, verified.
pub struct Given {
    key: PrivateKey,
    code: KeyCode,
    chain: Vec<Vec<u8>>,
    facts: CertificateFacts,
}

impl Given {
    /// Checks that the key belongs to the leaf and is of a supported type; that the leaf is no CA certificate, is valid
    /// now and is for clients; and that it chains to the payload's CA or a listed issuer.
    pub fn verify(plan: &GivenPlan) -> Result<Given, IdentityError> {
        let key = PrivateKey::read(plan.key.expose()).map_err(IdentityError::PrivateKey)?;
        let spki = key.pair.subject_public_key_info();
        let leaf = plan.chain.first().map(Vec::as_slice).unwrap_or_default();
        let certificate = Certificate::from_der(leaf)
            .map_err(|error| IdentityError::Given(AnswerError::Unreadable(error.to_string())))?;
        let theirs = certificate.tbs_certificate.subject_public_key_info.to_der().map_err(IdentityError::Names)?;
        let code = KeyCode::of(&spki);
        if theirs != spki {
            return Err(IdentityError::OtherKey { ours: code, theirs: KeyCode::of(&theirs) });
        }
        let wanted = Wanted { spki: &spki, names: None, ca: &plan.ca, issuers: &plan.issuers, now: plan.now };
        let (chain, facts) = choose(&plan.chain, &[], &wanted).map_err(IdentityError::Given)?;
        Ok(Given { key, code, chain, facts })
    }

    /// The type of the key.
    pub fn key_type(&self) -> KeyType {
        self.key.kind
    }

    /// The code of the key.
    pub fn code(&self) -> KeyCode {
        self.code
    }

    /// DER, leaf first, each certificate signed by the next, without the root.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Subject, names and validity of the leaf.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }
}

impl From<Given> for PrivateKeyPem {
    fn from(given: Given) -> PrivateKeyPem {
        PrivateKeyPem::of(given.key)
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("code", &self.code).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;
    use crate::payload::CaCertificate;
    use crate::secret::Secret;
    use crate::time::Timestamp;

    /// A certificate for a key, under a root.
    fn plan() -> GivenPlan {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["node1.example".to_owned()]).unwrap().signed_by(&key, &root).unwrap();
        GivenPlan {
            chain: vec![leaf.der().to_vec()],
            key: Secret::new(key.serialize_der()),
            ca: CaCertificate::new(root.der().to_vec()).unwrap(),
            issuers: Vec::new(),
            now: Timestamp::from_secs(1_893_456_000),
        }
    }

    #[test]
    fn every_changed_bit_of_certificate_or_key_is_noticed() {
        let good = plan();
        assert_eq!(Given::verify(&good).unwrap().chain(), good.chain);
        let code = Given::verify(&good).unwrap().code();
        for (at, bit) in (0..good.chain[0].len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bad = good.clone();
            bad.chain[0][at] ^= 1 << bit;
            assert!(Given::verify(&bad).is_err(), "bit {bit} of byte {at} of the certificate");
        }
        let key = good.key.expose();
        for (at, bit) in (0..key.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = key.to_vec();
            changed[at] ^= 1 << bit;
            let bad = GivenPlan { key: Secret::new(changed), ..good.clone() };
            // Outside the private number itself (RFC 5915 §3) some bytes may change without a change of the key.
            match Given::verify(&bad) {
                Ok(given) => {
                    assert!(!(36..68).contains(&at) && given.code() == code, "bit {bit} of byte {at} of the key")
                }
                Err(IdentityError::PrivateKey(_) | IdentityError::OtherKey { .. }) => {}
                Err(other) => panic!("bit {bit} of byte {at} of the key: {other}"),
            }
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_neither(
            key in prop::collection::vec(any::<u8>(), 0..200), leaf in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let good = plan();
            let bad = GivenPlan { chain: vec![leaf], ..good.clone() };
            prop_assert!(Given::verify(&bad).is_err());
            let bad = GivenPlan { key: Secret::new(key), ..good };
            prop_assert!(Given::verify(&bad).is_err());
        }
    }
}
