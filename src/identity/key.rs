//! Makes private keys of every supported type, and reads them from PKCS#8. Never signs anything.

use aws_lc_rs::signature::Ed25519KeyPair;
use der::asn1::{AnyRef, UintRef};
use der::oid::ObjectIdentifier;
use der::{Any, Decode, Reader, SliceReader};
use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SignatureAlgorithm};
use rustls::pki_types::PrivatePkcs8KeyDer;
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

use crate::payload::KeyType;

/// id-ecPublicKey, RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp256r1, RFC 5480 §2.1.1.1.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// secp384r1, RFC 5480 §2.1.1.1.
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// id-Ed25519, RFC 8410 §3; it names the key and the signature.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// rsaEncryption, RFC 8017 appendix A.1.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A private key and its type. rcgen keeps the bytes of the key, too, and wipes them only because of `Zeroizing`.
pub(super) struct PrivateKey {
    pub(super) pair: Zeroizing<KeyPair>,
    pub(super) kind: KeyType,
}

impl PrivateKey {
    pub(super) fn generate(kind: KeyType) -> Result<PrivateKey, rcgen::Error> {
        let pair = match kind {
            KeyType::P256 | KeyType::P384 => KeyPair::generate_for(algorithm(kind)),
            KeyType::Ed25519 => {
                // rcgen would write PKCS#8 version 2 (RFC 5958), which OpenSSL before 3.2 does not read.
                let rng = aws_lc_rs::rand::SystemRandom::new();
                let made = Ed25519KeyPair::generate_pkcs8v1(&rng);
                let made = made.map_err(|_| rcgen::Error::RingUnspecified)?;
                pair(made.as_ref(), kind)
            }
            KeyType::Rsa2048 => KeyPair::generate_rsa_for(algorithm(kind), RsaKeySize::_2048),
            KeyType::Rsa3072 => KeyPair::generate_rsa_for(algorithm(kind), RsaKeySize::_3072),
        };
        Ok(PrivateKey { pair: Zeroizing::new(pair?), kind })
    }

    /// Reads a private key from PKCS#8 (RFC 5958), not encrypted. The error says what is wrong with the key.
    pub(super) fn read(pkcs8: &[u8]) -> Result<PrivateKey, String> {
        let unreadable = |error: der::Error| format!("not PKCS#8 in DER, or encrypted: {error}");
        // PrivateKeyInfo ::= SEQUENCE { version INTEGER, privateKeyAlgorithm AlgorithmIdentifier, … }
        let mut reader = SliceReader::new(pkcs8).map_err(unreadable)?;
        let body = AnyRef::decode(&mut reader).map_err(unreadable)?;
        let mut body = SliceReader::new(body.value()).map_err(unreadable)?;
        u8::decode(&mut body).map_err(unreadable)?;
        let identifier = AlgorithmIdentifierRef::decode(&mut body).map_err(unreadable)?;
        let curve = identifier.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let kind = match (identifier.oid, curve) {
            (EC_PUBLIC_KEY, Some(P256)) => KeyType::P256,
            (EC_PUBLIC_KEY, Some(P384)) => KeyType::P384,
            (ED25519, _) => KeyType::Ed25519,
            // `key_type` below tells the size; the crypto library refuses smaller keys.
            (RSA, _) => KeyType::Rsa2048,
            (EC_PUBLIC_KEY, Some(curve)) => return Err(format!("an unsupported elliptic curve, {curve}")),
            (oid, _) => return Err(format!("an unsupported algorithm, {oid}")),
        };
        let pair = pair(pkcs8, kind).map_err(|error| match error {
            // rcgen's own message says "rejected by ring", whichever library refused the key.
            rcgen::Error::RingKeyRejected(why) => format!("{kind} key that the crypto library refuses ({why})"),
            other => other.to_string(),
        })?;
        let pair = Zeroizing::new(pair);
        let spki = pair.subject_public_key_info();
        Ok(PrivateKey { kind: key_type(&spki)?, pair })
    }
}

/// The type of the key in a SubjectPublicKeyInfo. An error describes a key of an unsupported type.
pub fn key_type(spki: &[u8]) -> Result<KeyType, String> {
    let spki =
        SubjectPublicKeyInfoOwned::from_der(spki).map_err(|error| format!("a key that cannot be read: {error}"))?;
    let oid = spki.algorithm.oid;
    let curve = || spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    match oid {
        ED25519 => Ok(KeyType::Ed25519),
        EC_PUBLIC_KEY => match curve() {
            Some(P256) => Ok(KeyType::P256),
            Some(P384) => Ok(KeyType::P384),
            Some(other) => Err(format!("an unsupported elliptic curve, {other}")),
            None => Err("an elliptic curve without a name".to_owned()),
        },
        RSA => match spki.subject_public_key.as_bytes().and_then(modulus_bits) {
            Some(2048) => Ok(KeyType::Rsa2048),
            Some(3072) => Ok(KeyType::Rsa3072),
            Some(bits) => Err(format!("RSA with {bits} bits")),
            None => Err("an RSA key that cannot be read".to_owned()),
        },
        oid => Err(format!("an unsupported algorithm, {oid}")),
    }
}

/// RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER } (RFC 8017 appendix A.1.1).
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let bits = reader.sequence(|inner| {
        let modulus = UintRef::decode(inner)?;
        UintRef::decode(inner)?;
        let zeros = modulus.as_bytes().first().map_or(0, |first| first.leading_zeros());
        let bytes = modulus.as_bytes().len();
        Ok(bytes.saturating_mul(8).saturating_sub(usize::try_from(zeros).unwrap_or(0)))
    });
    bits.ok()
}

/// The signatureAlgorithm of a CSR that is signed by a key of this type.
pub(super) fn signature_algorithm(kind: KeyType) -> AlgorithmIdentifierOwned {
    let (oid, parameters) = match kind {
        // RFC 5758 §3.2: ecdsa-with-SHA256 and -SHA384, parameters absent.
        KeyType::P256 => ("1.2.840.10045.4.3.2", None),
        KeyType::P384 => ("1.2.840.10045.4.3.3", None),
        // RFC 8410 §3: parameters absent.
        KeyType::Ed25519 => ("1.3.101.112", None),
        // RFC 8017 appendix A.2.4: sha256WithRSAEncryption, parameters NULL.
        KeyType::Rsa2048 | KeyType::Rsa3072 => ("1.2.840.113549.1.1.11", Some(Any::null())),
    };
    AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap(oid), parameters }
}

fn algorithm(kind: KeyType) -> &'static SignatureAlgorithm {
    match kind {
        KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        KeyType::Ed25519 => &rcgen::PKCS_ED25519,
        KeyType::Rsa2048 | KeyType::Rsa3072 => &rcgen::PKCS_RSA_SHA256,
    }
}

fn pair(pkcs8: &[u8], kind: KeyType) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), algorithm(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_made_and_read_back() {
        for (kind, name) in KeyType::ALL {
            let made = PrivateKey::generate(kind).unwrap();
            let spki = made.pair.subject_public_key_info();
            assert_eq!(key_type(&spki), Ok(kind), "{name}");
            let read = PrivateKey::read(made.pair.serialized_der()).unwrap();
            assert_eq!((read.kind, read.pair.subject_public_key_info()), (kind, spki), "{name}");
        }
    }

    #[test]
    fn what_is_no_key_is_an_error() {
        let der = PrivateKey::generate(KeyType::P256).unwrap().pair.serialize_der();
        for length in 0..der.len() {
            assert!(PrivateKey::read(&der[..length]).is_err(), "{length} bytes");
        }
        // openssl ecparam -name secp521r1: the OID of another curve.
        let other = [&[6, 5][..], &[0x2b, 0x81, 4, 0, 35]].concat();
        let pkcs8 = [&[0x30, 21, 2, 1, 0, 0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1][..], &other].concat();
        assert_eq!(PrivateKey::read(&pkcs8).err().unwrap(), "an unsupported elliptic curve, 1.3.132.0.35");
    }
}
