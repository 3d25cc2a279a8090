//! Seals a payload so that only the node that said HELLO can open it, and only in the same conversation: HPKE base mode
//! (RFC 9180) with X25519, HKDF-SHA256 and AES-128-GCM. Also makes and checks the proof in a node's request. A seal
//! never shows who made it; the site pin and the one CA do that.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};

use super::frame::{CHALLENGE_LEN, Challenge, Hello, Kind, Session, TAG_LEN, VERSION};
use crate::digest::sha256;
use crate::pool::Seeded;
use crate::secret::Secret;
use zeroize::Zeroize;

/// How many bytes longer a sealed object is: the encapsulated key and the tag.
pub const SEAL_LEN: usize = ENCAPSULATED + 16;
const ENCAPSULATED: usize = 32;

/// The node's key for one run of its program.
pub struct LineKey {
    public: [u8; 32],
    private: HpkePrivateKey,
}

/// Why something cannot be sealed or opened.
#[derive(Debug)]
pub enum SealError {
    /// The crypto library failed to make a key.
    Key(rustls::Error),
    /// The node's public key is invalid.
    Seal(rustls::Error),
    /// The object was sealed for another node or another conversation, or is damaged.
    Open(rustls::Error),
    /// The object is shorter than a seal.
    Short,
}

impl LineKey {
    /// Makes a key. `Seeded` proves that the entropy pool is ready.
    pub fn generate(_: &Seeded) -> Result<LineKey, SealError> {
        let (public, private) = SUITE.generate_key_pair().map_err(SealError::Key)?;
        let public = public.0.try_into().map_err(|_| SealError::Short)?;
        Ok(LineKey { public, private })
    }

    /// The public key, for HELLO.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Opens an object that [`seal`] sealed for this key.
    pub fn open(
        &self,
        sealed: &[u8],
        hello: &Hello,
        session: Session,
        kind: Kind,
        number: u8,
    ) -> Result<Secret, SealError> {
        let (encapsulated, sealed) = sealed.split_at_checked(ENCAPSULATED).ok_or(SealError::Short)?;
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let info = info(hello, session);
        let opened = SUITE.open(&encapsulated, &info, &[kind.code(), number], sealed, &self.private);
        opened.map(Secret::new).map_err(SealError::Open)
    }
}

/// Seals for the node that said this HELLO. Returns the encapsulated key and the sealed bytes.
pub fn seal(secret: &Secret, hello: &Hello, session: Session, kind: Kind, number: u8) -> Result<Vec<u8>, SealError> {
    let key = HpkePublicKey(hello.key.to_vec());
    let info = info(hello, session);
    let (mut out, sealed) = match SUITE.seal(&info, &[kind.code(), number], secret.expose(), &key) {
        Ok((EncapsulatedSecret(encapsulated), sealed)) => (encapsulated, sealed),
        Err(error) => return Err(SealError::Seal(error)),
    };
    out.extend(sealed);
    Ok(out)
}

/// Binds a seal to the protocol version, the conversation and the HELLO, which both ends know.
fn info(hello: &Hello, session: Session) -> Vec<u8> {
    let mut info = b"imprint line".to_vec();
    info.push(VERSION);
    info.extend(session.node.0);
    info.extend(session.host.0);
    info.extend(sha256(&hello.message()));
    info
}

/// A request: the proof that the node has the payload, and the CSR in DER. The proof is an HMAC over HELLO and CSR; its
/// key is the digest of the token, which the host has stored. The token is not sent, since everything on a line may be
/// recorded.
pub fn request(token: &[u8], hello: &Hello, csr: &[u8]) -> Vec<u8> {
    let tag = hmac::sign(&proof_key(&sha256(token)), &proof(hello, csr));
    [tag.as_ref(), csr].concat()
}

/// Splits a request into its proof and its CSR. [`is_proof`] checks the proof.
pub fn open_request(request: &[u8]) -> Option<(&[u8; 32], &[u8])> {
    request.split_first_chunk()
}

/// Whether the proof of a request fits the digest of the token, the node's HELLO and the CSR.
pub fn is_proof(tag: &[u8; 32], token_hash: &[u8; 32], hello: &Hello, csr: &[u8]) -> bool {
    hmac::verify(&proof_key(token_hash), &proof(hello, csr), tag).is_ok()
}

/// Splits an object of [`Kind::Fresh`] that was opened: the challenge, and the signed payload.
pub fn answer(opened: &Secret) -> Option<(Challenge, Secret)> {
    let (challenge, signed) = opened.expose().split_first_chunk::<CHALLENGE_LEN>()?;
    Some((Challenge(*challenge), Secret::new(signed.to_vec())))
}

/// What a host proves with that it has the payload, when it tells the time: SHA-256 of the token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TimeKey([u8; 32]);

impl TimeKey {
    /// The key of a payload with this token.
    pub fn of(token: &[u8]) -> TimeKey {
        TimeKey(sha256(token))
    }

    /// The same from the digest of the token, which the host has stored.
    pub fn of_hash(token_hash: [u8; 32]) -> TimeKey {
        TimeKey(token_hash)
    }
}

/// Wiped: it proves a request, too.
impl Drop for TimeKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TimeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeKey").finish_non_exhaustive()
    }
}

/// The proof in an answer to the question about the time. `answer`: its number, and the two times in it.
pub fn time_proof(key: &TimeKey, hello: &Hello, session: Session, answer: (u8, u64, u32)) -> [u8; TAG_LEN] {
    let (number, received, held) = answer;
    let mut text = b"imprint line time".to_vec();
    text.push(VERSION);
    text.extend(sha256(&hello.message()));
    text.extend(session.node.0);
    text.extend(session.host.0);
    text.push(number);
    text.extend(received.to_be_bytes());
    text.extend(held.to_be_bytes());
    let mut tag = [0; TAG_LEN];
    let whole = hmac::sign(&proof_key(&key.0), &text);
    tag.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
    tag
}

/// Whether the proof in an answer is that of [`time_proof`].
pub fn is_time_proof(
    tag: &[u8; TAG_LEN],
    key: &TimeKey,
    hello: &Hello,
    session: Session,
    answer: (u8, u64, u32),
) -> bool {
    verify_slices_are_equal(tag, &time_proof(key, hello, session, answer)).is_ok()
}

fn proof_key(token_hash: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token_hash)
}

fn proof(hello: &Hello, csr: &[u8]) -> Vec<u8> {
    let mut text = b"imprint line request".to_vec();
    text.push(VERSION);
    text.extend(sha256(&hello.message()));
    text.extend(csr);
    text
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::Key(_) => "making a key for the line",
            SealError::Seal(_) => "the node's public key is invalid; somebody else may be writing to the line",
            SealError::Open(_) => {
                "the payload was sealed for another node or another conversation; let the host begin again"
            }
            SealError::Short => "the payload is shorter than its seal; let the host begin again",
        })
    }
}

impl std::error::Error for SealError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SealError::Key(error) | SealError::Seal(error) | SealError::Open(error) => Some(error),
            SealError::Short => None,
        }
    }
}

#[cfg(test)]
impl LineKey {
    /// A key that is known beforehand, for tests.
    pub(super) fn given(private: [u8; 32], public: [u8; 32]) -> LineKey {
        LineKey { public, private: HpkePrivateKey::from(private.to_vec()) }
    }
}
