//! The signers of tests: those that `tests/data/site-signers` names. Everybody knows their keys.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use imprint::payload::signed::{self, AAD, Algorithm, Signer};
use imprint::pem;

/// The lines of a site pin that name both signers, P-256 first.
pub const LINES: &str = include_str!("../data/site-signers");

/// A key that signs payloads.
pub enum Key {
    /// ES256
    P256(EcdsaKeyPair),
    /// EdDSA
    Ed25519(Ed25519KeyPair),
}

impl Key {
    /// The key of the first line.
    pub fn p256() -> Key {
        let der = der(include_str!("../data/signer-p256.pem"));
        Key::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap())
    }

    /// The key of the second line.
    pub fn ed25519() -> Key {
        Key::Ed25519(Ed25519KeyPair::from_pkcs8(&der(include_str!("../data/signer-ed25519.pem"))).unwrap())
    }

    /// A key that no pin names.
    pub fn stranger() -> Key {
        Key::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// Its public key.
    pub fn signer(&self) -> Signer {
        match self {
            Key::P256(pair) => Signer::of_point(Algorithm::Es256, pair.public_key().as_ref()),
            Key::Ed25519(pair) => Signer::of_point(Algorithm::EdDsa, pair.public_key().as_ref()),
        }
        .unwrap()
    }

    /// The signed form of a payload.
    pub fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let signer = self.signer();
        self.sign_as(&signer, AAD, payload)
    }

    /// Signs with this key, and names the key id and the algorithm of another signer, or signs for another purpose
    /// (`aad`).
    pub fn sign_as(&self, signer: &Signer, aad: &[u8], payload: &[u8]) -> Vec<u8> {
        let text = signed::to_be_signed(signer.algorithm(), signer.kid(), aad, payload);
        let signature = match self {
            Key::P256(pair) => pair.sign(&SystemRandom::new(), &text).unwrap(),
            Key::Ed25519(pair) => pair.sign(&text),
        };
        let signature = signature.as_ref().try_into().unwrap();
        signed::encode(signer.algorithm(), signer.kid(), payload, signature).to_vec()
    }
}

/// Writes a site pin into a root.
pub fn pin(root: &Path, text: &str) {
    std::fs::create_dir_all(root.join("imprint")).unwrap();
    std::fs::write(root.join("imprint/site"), text).unwrap();
}

fn der(text: &str) -> Vec<u8> {
    pem::decode("PRIVATE KEY", text).unwrap().remove(0).to_vec()
}
