//! The key that signs payloads, and the public keys that the images of this site name. A state directory of an earlier
//! version has no such key, and its payloads are not signed. Never decides whose signature a node accepts: the site pin
//! in the node's image does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use imprint::payload::signed::{self, Algorithm, Signer};
use imprint::pem;
use imprint::site::SitePin;
use zeroize::Zeroizing;

use super::files::{Held, io_error, write, write_key};
use super::intermediate::new_key;
use super::{Ca, StateError};

/// A key that signs payloads.
pub struct SigningKey {
    signer: Signer,
    pair: Pair,
}

enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

/// What a signer does at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It signs every payload.
    Signs,
    /// It will sign after the next `signer rotate`. Images may name it before.
    Announced,
    /// It signed before. Images may still name it.
    Listed,
}

impl Standing {
    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Signs => "signs",
            Standing::Announced => "announced",
            Standing::Listed => "listed",
        }
    }
}

impl SigningKey {
    /// The public key.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The signed form of a payload. `aad`: what the signature covers beside it, as [`signed::aad`] says.
    pub fn sign(&self, payload: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let (algorithm, kid) = (self.signer.algorithm(), self.signer.kid());
        let text = signed::to_be_signed(algorithm, kid, aad, payload);
        let signature = match &self.pair {
            Pair::Es256(pair) => pair.sign(&SystemRandom::new(), &text),
            Pair::EdDsa(pair) => pair.try_sign(&text),
        };
        let signature = signature.map_err(|_| StateError::Sign)?;
        let signature = signature.as_ref().try_into().map_err(|_| StateError::Sign)?;
        Ok(signed::encode(algorithm, kid, payload, signature))
    }

    /// Reads one PKCS#8 key in PEM. Text outside the block is ignored. `None`: there is no such file.
    fn read(path: &Path) -> Result<Option<SigningKey>, StateError> {
        let text = match fs::read_to_string(path).map(Zeroizing::new) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("reading", path)(error)),
        };
        let none = || match other_form(&text) {
            Some(what) => StateError::SigningKeyForm(path.to_owned(), what),
            None => StateError::SigningKey(path.to_owned()),
        };
        let blocks = pem::decode("PRIVATE KEY", &text).ok_or_else(none)?;
        let [der] = blocks.as_slice() else { return Err(none()) };
        let key = if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            let signer = Signer::of_point(Algorithm::Es256, pair.public_key().as_ref());
            SigningKey { signer: signer.map_err(|_| none())?, pair: Pair::Es256(pair) }
        } else {
            let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| none())?;
            let signer = Signer::of_point(Algorithm::EdDsa, pair.public_key().as_ref());
            SigningKey { signer: signer.map_err(|_| none())?, pair: Pair::EdDsa(pair) }
        };
        Ok(Some(key))
    }
}

/// What a PEM file holds that is a private key, and not in PKCS#8: RFC 5915, RFC 5958 §3, and the encryption of RFC 1421.
fn other_form(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("\nProc-Type: 4,ENCRYPTED") {
        return Some("an encrypted key");
    }
    text.contains("-----BEGIN EC PRIVATE KEY-----").then_some("a key in another form than PKCS#8")
}

impl Ca {
    /// Reads the key that signs payloads. It is read each time, because another command may have replaced it.
    pub fn signing_key(&self) -> Result<Option<SigningKey>, StateError> {
        SigningKey::read(&self.dir.join(KEY))
    }

    /// Every signer whose payloads may still be on their way, and what it does at present. The one that signs comes
    /// first.
    pub fn signers(&self) -> Result<Vec<(Signer, Standing)>, StateError> {
        let mut signers = Vec::new();
        for (file, standing) in [(KEY, Standing::Signs), (NEXT, Standing::Announced)] {
            let key = SigningKey::read(&self.dir.join(file))?;
            signers.extend(key.map(|key| (key.signer, standing)));
        }
        for signer in listed(&self.dir)? {
            if signers.iter().all(|(known, _)| *known != signer) {
                signers.push((signer, Standing::Listed));
            }
        }
        Ok(signers)
    }

    /// Makes a key, or takes the one in a file. It signs from now on if no other key does, and after the next rotation
    /// if one does.
    pub(crate) fn announce(&self, turn: &Held, key: Option<&Path>) -> Result<Signer, StateError> {
        let first = self.signing_key()?.is_none();
        if let Some(next) = SigningKey::read(&self.dir.join(NEXT))? {
            return Err(StateError::SignerAnnounced(next.signer.kid()));
        }
        put(&self.dir, turn, key, if first { KEY } else { NEXT })
    }

    /// Replaces the key that signs. The announced key signs from now on; without one, a new key, or the key in a file.
    /// The previous key stays listed.
    pub(crate) fn rotate_signer(&self, turn: &Held, key: Option<&Path>) -> Result<Signer, StateError> {
        let before = self.signing_key()?.ok_or_else(|| StateError::NoSigner(self.dir.clone()))?;
        let next = SigningKey::read(&self.dir.join(NEXT))?;
        if let (Some(next), Some(_)) = (&next, key) {
            return Err(StateError::SignerAnnounced(next.signer.kid()));
        }
        let mut all = listed(&self.dir)?;
        if !all.contains(&before.signer) {
            all.push(before.signer);
        }
        // The list is written first, so that no later failure can lose a line that images need.
        write_list(&self.dir, turn, &all)?;
        let Some(next) = next else { return put(&self.dir, turn, key, KEY) };
        let (from, to) = (self.dir.join(NEXT), self.dir.join(KEY));
        fs::rename(&from, &to).map_err(io_error("renaming", &from))?;
        Ok(next.signer)
    }

    /// Takes a signer off the list. The signer that signs stays.
    pub(crate) fn retire_signer(&self, turn: &Held, kid: &str) -> Result<Signer, StateError> {
        let signers = self.signers()?;
        let found = signers.iter().find(|(signer, _)| signer.kid().to_string() == kid);
        let (signer, standing) = found.ok_or_else(|| StateError::UnknownSigner(kid.to_owned()))?;
        match standing {
            Standing::Signs => return Err(StateError::SignerSigns(signer.kid())),
            Standing::Announced => {
                let path = self.dir.join(NEXT);
                fs::remove_file(&path).map_err(io_error("removing", &path))?;
            }
            Standing::Listed => {}
        }
        let rest: Vec<Signer> = listed(&self.dir)?.into_iter().filter(|listed| listed != signer).collect();
        write_list(&self.dir, turn, &rest)?;
        Ok(signer.clone())
    }
}

/// The files of signers in a state directory, for a backup. Each of them may be missing.
pub(super) const FILES: [&str; 3] = [KEY, NEXT, LIST];

/// The key that signs.
const KEY: &str = "signer.key";
/// The announced key, which signs after the next rotation.
const NEXT: &str = "signer-next.key";
/// The lines of a site pin for keys that signed before.
const LIST: &str = "signers";

/// Puts a new key, or a copy of the key in a file, in this place.
pub(super) fn put(dir: &Path, _turn: &Held, from: Option<&Path>, name: &str) -> Result<Signer, StateError> {
    let to = dir.join(name);
    match from {
        None => {
            let key = new_key()?;
            write_key(&to, &key)?;
        }
        Some(from) => {
            // The file is read as a key first, so that a file without a key is not put there.
            let missing = || io_error("reading", from)(io::ErrorKind::NotFound.into());
            let given = SigningKey::read(from)?.ok_or_else(missing)?;
            let now = SigningKey::read(&dir.join(KEY))?;
            if now.is_some_and(|now| now.signer == given.signer) {
                return Err(StateError::SignerThere(given.signer.kid()));
            }
            let text = fs::read(from).map(Zeroizing::new).map_err(io_error("reading", from))?;
            write(&to, 0o600, &text)?;
        }
    }
    let made = SigningKey::read(&to)?;
    made.map(|key| key.signer).ok_or(StateError::SigningKey(to))
}

/// The key of a new state.
pub(super) fn first(dir: &Path, turn: &Held) -> Result<Signer, StateError> {
    put(dir, turn, None, KEY)
}

fn listed(dir: &Path) -> Result<Vec<Signer>, StateError> {
    let path = dir.join(LIST);
    let text = match fs::read(&path) {
        Ok(text) if text.is_empty() => return Ok(Vec::new()),
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("reading", &path)(error)),
    };
    let broken = |path: PathBuf| StateError::File { path, why: "it is not a list of signers".to_owned() };
    Ok(SitePin::parse(&text).map_err(|_| broken(path))?.signers)
}

fn write_list(dir: &Path, _turn: &Held, signers: &[Signer]) -> Result<(), StateError> {
    let text: String = signers.iter().map(|signer| format!("{signer} # {}\n", signer.kid())).collect();
    write(&dir.join(LIST), 0o644, text.as_bytes())
}
