//! Admission keys: a node proves to a host that it has one, in an object of its own kind (docs/line-protocol.md, "Admission
//! keys"). The proof is bound to the node's HELLO and to the host's nonce, so nobody can put another line key beside it, or
//! bring it to another conversation. A proof shows that somebody has the key, and nothing else. Pure: never reads a file, and
//! never decides who is let in.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};

use super::frame::{Hello, Nonce, VERSION};
use crate::digest::sha256;
use crate::pem;

/// Bytes of an Ed25519 public key (RFC 8032 §5.1.5).
pub const PUBLIC_LEN: usize = 32;
/// Bytes of an Ed25519 signature (RFC 8032 §5.1.6).
const SIGNATURE_LEN: usize = 64;
/// The most bytes that a file with a key has. OpenSSL writes 119.
pub const MAX_FILE: usize = 4096;

/// The most keys that a node proves in one conversation, and that a host keeps.
pub const MOST_KEYS: usize = 16;

/// A private key of a node, from a stick or from the image.
pub struct AdmissionKey {
    pair: Ed25519KeyPair,
    public: [u8; PUBLIC_LEN],
}

/// A proof that came over a line. Nothing of it is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    public: [u8; PUBLIC_LEN],
    signature: [u8; SIGNATURE_LEN],
}

/// Why a file holds no admission key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyFileError {
    /// No block `PRIVATE KEY`, or more than one.
    Blocks(usize),
    /// A block with this label, and none `PRIVATE KEY`.
    Other(&'static str),
    /// A block that does not end, or is not base64, or the file is not text.
    Text,
    /// It is longer than a file with a key is.
    TooLong,
    /// The block holds another kind of key.
    NotEd25519,
}

impl AdmissionKey {
    /// Reads a key as `openssl genpkey -algorithm ed25519` and `imprint-host key make` write it: PKCS#8 (RFC 8410 §7) in PEM.
    pub fn parse(file: &[u8]) -> Result<AdmissionKey, KeyFileError> {
        if file.len() > MAX_FILE {
            return Err(KeyFileError::TooLong);
        }
        let text = std::str::from_utf8(file).map_err(|_| KeyFileError::Text)?;
        let blocks = pem::decode("PRIVATE KEY", text).ok_or(KeyFileError::Text)?;
        let der = match blocks.as_slice() {
            [der] => der,
            [] => return Err(other(text).map_or(KeyFileError::Blocks(0), KeyFileError::Other)),
            several => return Err(KeyFileError::Blocks(several.len())),
        };
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyFileError::NotEd25519)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyFileError::NotEd25519)?;
        Ok(AdmissionKey { pair, public })
    }

    /// Whether a file is meant to have a private key: text with a block of such a label.
    pub fn is_meant(file: &[u8]) -> bool {
        let text = std::str::from_utf8(file).unwrap_or_default();
        text.contains("-----BEGIN PRIVATE KEY-----") || other(text).is_some()
    }

    /// The public key, as a host knows it.
    pub fn public(&self) -> [u8; PUBLIC_LEN] {
        self.public
    }

    /// The object that proves to the host with this nonce that the node with this HELLO has the key.
    pub fn prove(&self, hello: &Hello, host: Nonce) -> Vec<u8> {
        let signature = self.pair.sign(&text(hello, host));
        [&self.public[..], signature.as_ref()].concat()
    }
}

impl Proof {
    /// Takes the object apart. `None`: it has another length.
    pub fn decode(object: &[u8]) -> Option<Proof> {
        let (public, rest) = object.split_first_chunk()?;
        Some(Proof { public: *public, signature: rest.try_into().ok()? })
    }

    /// The key that is proven, if the signature is by it, over this HELLO, and for the host with this nonce.
    pub fn key(&self, hello: &Hello, host: Nonce) -> Option<[u8; PUBLIC_LEN]> {
        let key = ParsedPublicKey::new(&ED25519, self.public).ok()?;
        key.verify_sig(&text(hello, host), &self.signature).ok().map(|()| self.public)
    }
}

/// The label under which the file has something else than a key in PKCS#8 without a password.
fn other(text: &str) -> Option<&'static str> {
    OTHERS.into_iter().find(|label| text.contains(&format!("-----BEGIN {label}-----")))
}

/// What openssl and ssh-keygen write besides.
const OTHERS: [&str; 5] = [ENCRYPTED, "OPENSSH PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "PUBLIC KEY"];
/// RFC 7468 §11.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// What is signed.
fn text(hello: &Hello, host: Nonce) -> Vec<u8> {
    let mut text = b"imprint admission".to_vec();
    text.push(VERSION);
    text.extend(sha256(&hello.message()));
    text.extend(host.0);
    text
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyFileError::Blocks(0) => f.write_str("it has no block \"PRIVATE KEY\""),
            KeyFileError::Blocks(count) => write!(f, "it has {count} blocks \"PRIVATE KEY\", and one is wanted"),
            KeyFileError::Other(ENCRYPTED) => {
                f.write_str("its key has a password, and a machine that boots has nobody to type it")
            }
            KeyFileError::Other(label) => write!(f, "it has a block \"{label}\", and one \"PRIVATE KEY\" is wanted"),
            KeyFileError::TooLong => write!(f, "it has more than {MAX_FILE} bytes"),
            KeyFileError::Text => f.write_str("it is not PEM"),
            KeyFileError::NotEd25519 => f.write_str("its key is not an Ed25519 key in PKCS#8 without a password"),
        }?;
        f.write_str("; make a key with imprint-host key make, or openssl genpkey -algorithm ed25519")
    }
}

impl std::error::Error for KeyFileError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::Versions;
    use super::*;

    /// The private key of RFC 8410 §10.3, in PKCS#8.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";

    fn hello(key: u8) -> Hello {
        Hello {
            heard: None,
            versions: Versions::OURS,
            plain: false,
            fresh: true,
            nonce: Nonce([1; 8]),
            key: [key; 32],
            uuid: None,
            serial: None,
            macs: Vec::new(),
        }
    }

    const HOST: Nonce = Nonce([2; 8]);

    fn proof() -> Vec<u8> {
        AdmissionKey::parse(KEY.as_bytes()).unwrap().prove(&hello(3), HOST)
    }

    /// The key that a host learns from this object.
    fn key(object: &[u8], hello: &Hello, host: Nonce) -> Option<[u8; 32]> {
        Proof::decode(object).and_then(|proof| proof.key(hello, host))
    }

    /// Nodes and hosts of every release agree on these bytes. Do not change this test.
    #[test]
    fn a_proof_byte_for_byte() {
        let want = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        let object = proof();
        assert_eq!(crate::hex::encode(&object[..32]), want);
        assert_eq!(crate::hex::encode(&object[32..]), SIGNATURE);
        assert_eq!(key(&object, &hello(3), HOST).map(|key| crate::hex::encode(&key)).as_deref(), Some(want));
    }

    const SIGNATURE: &str = "4e52b89cec972093129a68c2fff3c2f5925f408e05c82ff95cb853bb0d05b5c6\
                             ccbf0c616a555a1fbbe65db38aae96b59592ebe5fbaa74dd0efcb01c6effee07";

    /// Somebody in the network has a proof of an honest node. It is good for that node's line key, in that conversation.
    #[test]
    fn a_stolen_proof_is_good_for_nobody_else() {
        let object = proof();
        assert_eq!(key(&object, &hello(4), HOST), None);
        assert_eq!(key(&object, &hello(3), Nonce([3; 8])), None);
        let with_serial = Hello { serial: Some("SN".to_owned()), ..hello(3) };
        assert_eq!(key(&object, &with_serial, HOST), None);
        let other = AdmissionKey::parse(
            crate::pem::encode(
                "PRIVATE KEY",
                &[&b"\x30\x2e\x02\x01\0\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..], &[9; 32]].concat(),
            )
            .as_bytes(),
        );
        let mut swapped = object.clone();
        swapped[..32].copy_from_slice(&other.unwrap().public());
        assert_eq!(key(&swapped, &hello(3), HOST), None);
    }

    #[test]
    fn a_file_without_a_key_says_why() {
        let error = |file: &[u8]| AdmissionKey::parse(file).err().unwrap();
        assert_eq!(error(b""), KeyFileError::Blocks(0));
        assert_eq!(error(&[KEY.as_bytes(), KEY.as_bytes()].concat()), KeyFileError::Blocks(2));
        assert_eq!(error(b"\xff"), KeyFileError::Text);
        assert_eq!(error(b"-----BEGIN PRIVATE KEY-----\nMC4C"), KeyFileError::Text);
        assert_eq!(error(b"-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\n"), KeyFileError::NotEd25519);
        for label in OTHERS {
            let file = crate::pem::encode(label, b"x");
            assert_eq!(error(file.as_bytes()), KeyFileError::Other(label));
            assert!(AdmissionKey::is_meant(file.as_bytes()));
        }
        assert!(AdmissionKey::is_meant(KEY.as_bytes()) && !AdmissionKey::is_meant(b"\xd9\xd9\xf7"));
        assert_eq!(
            error(crate::pem::encode(ENCRYPTED, b"x").as_bytes()).to_string(),
            "its key has a password, and a machine that boots has nobody to type it; make a key with imprint-host key make, \
             or openssl genpkey -algorithm ed25519"
        );
        // X25519 in PKCS#8 (RFC 8410 §7): the same form with another name.
        let other = [&b"\x30\x2e\x02\x01\0\x30\x05\x06\x03\x2b\x65\x6e\x04\x22\x04\x20"[..], &[9; 32]].concat();
        assert_eq!(error(crate::pem::encode("PRIVATE KEY", &other).as_bytes()), KeyFileError::NotEd25519);
        // Windows editors write CR LF, and a comment before the block is text outside it.
        let edited = format!("a stick of rack 7\r\n{}", KEY.replace('\n', "\r\n"));
        assert!(AdmissionKey::parse(edited.as_bytes()).is_ok());
    }

    proptest! {
        /// No change of a proof proves anything: RFC 8032 §5.1.7 refuses the other form of the same signature, too.
        #[test]
        fn a_changed_proof_proves_nothing(at in 0..96_usize, bits in 1..=255_u8) {
            let mut object = proof();
            object[at] ^= bits;
            prop_assert_eq!(key(&object, &hello(3), HOST), None);
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..130)) {
            prop_assert_eq!(key(&bytes, &hello(3), HOST), None);
            prop_assert!(AdmissionKey::parse(&bytes).is_err());
        }
    }
}
