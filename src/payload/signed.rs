//! The signed form of a payload: COSE_Sign1 (RFC 9052 §4.2) in one shape only, which `docs/payload.cddl` shows; and the
//! public keys that verify its signature. The statement of a bundle has the same shape. Every other shape and every other encoding is an error that names the item
//! and its offset. Never decides whose signature counts: `site` does. Only [`unwrapped`] decodes the payload inside.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use super::cbor::{DecodeError, Problem};
pub use super::form::is_signed;
use super::items::{Reader, at, put_bytes};
use super::{MAX_LEN, Payload};
use crate::digest::sha256;
use crate::hex;

/// What a signature covers besides the payload, so that it is good for nothing else: `external_aad` of RFC 9052 §4.3.
pub const AAD: &[u8] = b"imprint payload 1";

/// The same for a payload that was signed for a node that asked: with the SHA-256 of its HELLO, and its challenge.
pub fn aad(asked: Option<(&[u8; 32], &[u8; 16])>) -> Vec<u8> {
    let mut aad = AAD.to_vec();
    if let Some((hello, challenge)) = asked {
        aad.extend(hello);
        aad.extend(challenge);
    }
    aad
}

/// The most bytes that the signed form adds to a payload: the signature, its headers, and the heads of all items.
pub const OVERHEAD: usize = PREFIX.len() + PROTECTED_LEN + 1 + 5 + 2 + SIGNATURE_LEN;

/// The algorithms of signatures (RFC 9053 §2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// ES256: ECDSA with SHA-256, on P-256 only. The signature is r and s, 32 bytes each.
    Es256,
    /// EdDSA, with Ed25519 only.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm, and the word for its keys in a site pin.
    pub const ALL: [(Algorithm, &str); 2] = [(Algorithm::Es256, "p256"), (Algorithm::EdDsa, "ed25519")];

    /// The word for its keys in a site pin: `p256` or `ed25519`.
    pub fn word(self) -> &'static str {
        match self {
            Algorithm::Es256 => "p256",
            Algorithm::EdDsa => "ed25519",
        }
    }

    /// The number of the algorithm, -7 or -8, in CBOR.
    fn encoded(self) -> u8 {
        match self {
            Algorithm::Es256 => 0x26,
            Algorithm::EdDsa => 0x27,
        }
    }

    /// The bytes before the public key in a SubjectPublicKeyInfo (RFC 5480 §2, RFC 8410 §4). A point on P-256 is
    /// uncompressed.
    fn spki_prefix(self) -> &'static [u8] {
        match self {
            Algorithm::Es256 => b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\0",
            Algorithm::EdDsa => b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\0",
        }
    }
}

/// The identifier of a signer's key: the first 8 bytes of SHA-256 of its SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kid(pub [u8; KID_LEN]);

/// As 16 hexadecimal digits.
impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// The public key of a signer.
#[derive(Clone, PartialEq, Eq)]
pub struct Signer {
    algorithm: Algorithm,
    spki: Vec<u8>,
    kid: Kid,
}

/// Why bytes are not the public key of a signer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// Not a SubjectPublicKeyInfo of this algorithm.
    Spki(Algorithm),
    /// The bytes are not a point on the curve.
    Point(Algorithm),
}

impl Signer {
    /// Takes a SubjectPublicKeyInfo in DER. The key has to be one of this algorithm.
    pub fn new(algorithm: Algorithm, spki: &[u8]) -> Result<Signer, KeyError> {
        let signer = Signer { algorithm, spki: spki.to_vec(), kid: kid(spki) };
        signer.key()?;
        Ok(signer)
    }

    /// Takes a SubjectPublicKeyInfo in DER, of either algorithm.
    pub fn of_spki(spki: &[u8]) -> Result<Signer, KeyError> {
        let is_eddsa = spki.starts_with(Algorithm::EdDsa.spki_prefix());
        Signer::new(if is_eddsa { Algorithm::EdDsa } else { Algorithm::Es256 }, spki)
    }

    /// Takes the public key alone: an uncompressed point on P-256 (65 bytes), or an Ed25519 key (32 bytes).
    pub fn of_point(algorithm: Algorithm, point: &[u8]) -> Result<Signer, KeyError> {
        Signer::new(algorithm, &[algorithm.spki_prefix(), point].concat())
    }

    /// The only algorithm that the key signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key's identifier.
    pub fn kid(&self) -> Kid {
        self.kid
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn key(&self) -> Result<ParsedPublicKey, KeyError> {
        let spki = KeyError::Spki(self.algorithm);
        let key = self.spki.strip_prefix(self.algorithm.spki_prefix()).ok_or(spki)?;
        let parsed = match (self.algorithm, key) {
            (Algorithm::Es256, [4, point @ ..]) if point.len() == 64 => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            }
            (Algorithm::EdDsa, point) if point.len() == 32 => ParsedPublicKey::new(&ED25519, point),
            _ => return Err(spki),
        };
        parsed.map_err(|_| KeyError::Point(self.algorithm))
    }
}

fn kid(spki: &[u8]) -> Kid {
    let [a, b, c, d, e, f, g, h, ..] = sha256(spki);
    Kid([a, b, c, d, e, f, g, h])
}

/// The line of a site pin: `signer p256 BASE64`
impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signer {} {}", self.algorithm.word(), Base64::encode_string(&self.spki))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} {})", self.algorithm.word(), self.kid)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Spki(Algorithm::Es256) => {
                f.write_str("not the SubjectPublicKeyInfo (DER) of a key on P-256 with an uncompressed point")
            }
            KeyError::Spki(Algorithm::EdDsa) => f.write_str("not the SubjectPublicKeyInfo (DER) of an Ed25519 key"),
            KeyError::Point(algorithm) => write!(f, "not a point of the curve of {}", algorithm.word()),
        }
    }
}

impl std::error::Error for KeyError {}

/// The parts of a signed payload. None of them is verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The algorithm that the message names.
    pub algorithm: Algorithm,
    /// The key that the message names.
    pub kid: Kid,
    /// The signed bytes: a payload in the form without a signature.
    pub payload: &'a [u8],
    /// The signature.
    pub signature: &'a [u8; SIGNATURE_LEN],
    /// Offset of the payload from the beginning of the message, in bytes.
    pub offset: usize,
}

impl<'a> Signed<'a> {
    /// Takes a signed payload apart. Verifies nothing and allocates nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Signed<'a>, DecodeError> {
        if bytes.len() > MAX_LEN {
            return Err(at(0, "", Problem::TooLong(bytes.len())));
        }
        match Signed::split(bytes)? {
            (signed, []) => Ok(signed),
            (_, rest) => Err(at(bytes.len().saturating_sub(rest.len()), "", Problem::Trailing(rest.len()))),
        }
    }

    /// Takes apart a message that other bytes may follow, and returns these. It has no limit of its own, for it allocates nothing.
    pub fn split(bytes: &'a [u8]) -> Result<(Signed<'a>, &'a [u8]), DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.head("tag", 6, "tag 18 (COSE_Sign1)")? {
            18 => {}
            other => {
                let why = format!("tag {other}; want tag 18 (COSE_Sign1), with one signature");
                return Err(at(0, "tag", Problem::Value(why)));
            }
        }
        let begin = reader.offset();
        if reader.head("COSE_Sign1", 4, "an array")? != 4 {
            return Err(at(begin, "COSE_Sign1", Problem::Value("not an array of 4 items".to_owned())));
        }
        let protected = reader.string("protected header")?;
        let (algorithm, kid) = header(protected).map_err(|(offset, why)| {
            let begin = reader.offset().saturating_sub(protected.len());
            at(begin.saturating_add(offset), "protected header", Problem::Value(why.to_owned()))
        })?;
        let begin = reader.offset();
        if reader.head("unprotected header", 5, "a map")? != 0 {
            let why =
                "not empty; algorithm and key id are in the protected header, and there is nothing else".to_owned();
            return Err(at(begin, "unprotected header", Problem::Value(why)));
        }
        let payload = reader.string("payload")?;
        let offset = reader.offset().saturating_sub(payload.len());
        let begin = reader.offset();
        let signature = reader.string("signature")?;
        let signature = signature.try_into().map_err(|_| {
            at(begin, "signature", Problem::Value(format!("{} bytes, want {SIGNATURE_LEN}", signature.len())))
        })?;
        Ok((Signed { algorithm, kid, payload, signature, offset }, reader.rest))
    }

    /// Whether this signer made the signature. `aad`: what the signature covers besides the payload, as the function [`aad`] says.
    pub fn is_by(&self, signer: &Signer, aad: &[u8]) -> bool {
        // The signer's key decides the algorithm, and the message has to agree (RFC 9053 §2).
        if self.algorithm != signer.algorithm || self.kid != signer.kid {
            return false;
        }
        let signed = to_be_signed(self.algorithm, self.kid, aad, self.payload);
        signer.key().is_ok_and(|key| key.verify_sig(&signed, self.signature).is_ok())
    }
}

impl fmt::Debug for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Payload {
    /// Reads a payload in either form. It never verifies a signature: it is for programs that look at a payload of
    /// their own.
    pub fn unwrapped(bytes: &[u8]) -> Result<Payload, DecodeError> {
        if !is_signed(bytes) {
            return Payload::decode(bytes);
        }
        let signed = Signed::decode(bytes)?;
        // Offsets in errors count from the beginning of `bytes`.
        Payload::decode(signed.payload)
            .map_err(|error| DecodeError { offset: error.offset.saturating_add(signed.offset), ..error })
    }
}

/// Makes the signed form of a payload.
pub fn encode(algorithm: Algorithm, kid: Kid, payload: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Zeroizing<Vec<u8>> {
    // The buffer has its full size from the start: one that grows would leave a copy of a token behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(payload.len().saturating_add(OVERHEAD)));
    bytes.extend_from_slice(&PREFIX);
    bytes.extend_from_slice(&protected(algorithm, kid));
    bytes.push(0xa0);
    put_bytes(&mut bytes, payload);
    put_bytes(&mut bytes, signature);
    bytes
}

/// The bytes that are signed: `["Signature1", protected, external_aad, payload]` (RFC 9052 §4.4).
pub fn to_be_signed(algorithm: Algorithm, kid: Kid, aad: &[u8], payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let room = payload.len().saturating_add(aad.len()).saturating_add(SIGNATURE1.len() + 1 + PROTECTED_LEN + 10);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    bytes.extend_from_slice(SIGNATURE1);
    for string in [&protected(algorithm, kid), aad, payload] {
        put_bytes(&mut bytes, string);
    }
    bytes
}

/// Length of a signature of either algorithm.
pub const SIGNATURE_LEN: usize = 64;
const KID_LEN: usize = 8;
/// `{1: algorithm, 4: key id}`
const PROTECTED_LEN: usize = 5 + KID_LEN;
/// Tag 18, an array of 4, and the head of the protected header.
const PREFIX: [u8; 3] = [0xd2, 0x84, 0x4d];
/// An array of 4, and the text.
const SIGNATURE1: &[u8] = b"\x84\x6aSignature1";

fn protected(algorithm: Algorithm, Kid([a, b, c, d, e, f, g, h]): Kid) -> [u8; PROTECTED_LEN] {
    [0xa2, 1, algorithm.encoded(), 4, 0x48, a, b, c, d, e, f, g, h]
}

/// Reads the protected header. The error is the offset of the fault in the header, and the fault.
fn header(bytes: &[u8]) -> Result<(Algorithm, Kid), (usize, &'static str)> {
    const SHAPE: &str = "not the map {1: algorithm, 4: key id of 8 bytes} in 13 bytes";
    let algorithm = match bytes {
        [0xa2, 1, algorithm, ..] => Algorithm::ALL.iter().find(|(known, _)| known.encoded() == *algorithm),
        _ => return Err((0, SHAPE)),
    };
    let (algorithm, _) = algorithm.ok_or((2, "an algorithm that is not -7 (ES256) or -8 (EdDSA)"))?;
    match bytes.get(3..).and_then(<[u8]>::split_first_chunk) {
        Some(([4, 0x48], kid)) => Ok((*algorithm, Kid(kid.try_into().map_err(|_| (3, SHAPE))?))),
        _ => Err((3, SHAPE)),
    }
}

#[cfg(test)]
mod tests;
