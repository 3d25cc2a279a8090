//! A cache of verified signatures. A signature's validity does not depend on the time. So when the same chain is
//! verified for another time, its signatures need not be verified again. Each connection has its own cache. The cache
//! keeps digests, and never a key.

use std::sync::{Mutex, PoisonError};

use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

use crate::digest::sha256;

/// The size of the cache: enough for the signatures of a chain, also if several anchors are tried.
const MOST: usize = 32;

/// SHA-256 over algorithm, key, message and signature, for each signature that was verified.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<Vec<[u8; 32]>>);

/// One of webpki's algorithms, with the cache in front of it.
#[derive(Debug)]
pub(super) struct Remembering<'a> {
    pub(super) algorithm: &'static dyn SignatureVerificationAlgorithm,
    pub(super) good: &'a Remembered,
}

impl SignatureVerificationAlgorithm for Remembering<'_> {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let (key_kind, kind) = (self.algorithm.public_key_alg_id(), self.algorithm.signature_alg_id());
        let mut all = Vec::with_capacity(1024);
        // Each part with its length, so that different lists of parts never give the same bytes.
        for part in [key_kind.as_ref(), kind.as_ref(), public_key, message, signature] {
            all.extend_from_slice(&part.len().to_be_bytes());
            all.extend_from_slice(part);
        }
        let digest = sha256(&all);
        let known = |good: &Remembered| good.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest);
        if known(self.good) {
            return Ok(());
        }
        self.algorithm.verify_signature(public_key, message, signature)?;
        let mut good = self.good.0.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() < MOST {
            good.push(digest);
        }
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls::pki_types::alg_id;

    use super::*;

    /// Counts its calls. A signature is valid if it is the message in reverse.
    #[derive(Debug)]
    struct Turned(AtomicUsize);

    impl SignatureVerificationAlgorithm for Turned {
        fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let good = key == b"key" && message.iter().rev().eq(signature);
            good.then_some(()).ok_or(InvalidSignature)
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    #[test]
    fn a_good_signature_is_looked_at_once_and_a_bad_one_each_time() {
        static TURNED: Turned = Turned(AtomicUsize::new(0));
        let good = Remembered::default();
        let remembering = Remembering { algorithm: &TURNED, good: &good };
        let asked = || TURNED.0.load(Ordering::SeqCst);
        remembering.verify_signature(b"key", b"abc", b"cba").unwrap();
        remembering.verify_signature(b"key", b"abc", b"cba").unwrap();
        assert_eq!(asked(), 1);
        // A change in any part gives another digest, also if the concatenated parts are the same.
        for (at, (key, message, signature)) in [
            (&b"key"[..], &b"abc"[..], &b"cbb"[..]),
            (b"kez", b"abc", b"cba"),
            (b"key", b"abd", b"cba"),
            (b"keya", b"bc", b"cba"),
            (b"key", b"abcc", b"ba"),
            (b"key", b"abc", b"cbb"),
        ]
        .into_iter()
        .enumerate()
        {
            assert!(remembering.verify_signature(key, message, signature).is_err());
            assert_eq!(asked(), at + 2);
        }
        // Another connection has its own cache.
        let other = Remembered::default();
        Remembering { algorithm: &TURNED, good: &other }.verify_signature(b"key", b"abc", b"cba").unwrap();
        assert_eq!(asked(), 8);
    }
}
