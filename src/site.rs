//! The site pin: the CAs and the signers that an image accepts payloads of. It is the file `/imprint/site` of the image, so
//! whoever made the image vouches for it. This module decides whose signature counts. It never reads what is signed, and
//! never compares CAs, which is the work of `plan`.

mod narrow;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};

use crate::hex;
use crate::payload::signed::{Algorithm, KeyError, Kid, Signed, Signer};

/// The CAs and the signers of a site; at least one of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SitePin {
    /// SHA-256 of each CA certificate. Empty: any CA, if a signer vouches for it.
    pub cas: Vec<[u8; 32]>,
    /// Signers. Not empty: each payload needs a signature by one of them.
    pub signers: Vec<Signer>,
}

/// Why the site pin cannot be used.
#[derive(Debug)]
pub enum PinError {
    /// The file is there and cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// A line that is neither a digest nor a signer.
    Line {
        /// Line number, from 1.
        line: usize,
    },
    /// A line that names a signer, and has no such key.
    Signer {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with the key. `None`: it is not base64.
        why: Option<KeyError>,
    },
    /// The file names nothing.
    Empty,
}

/// Whose signature a payload has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignedBy {
    /// The payload is not signed, and need not be.
    Nobody,
    /// The payload names this key. The image names no signer, so the signature was not verified.
    Unverified(Kid),
    /// The image names this signer, and the signature was verified.
    Signer(Kid),
}

/// Why a payload is not accepted in an image that names signers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignatureError {
    /// The payload has no signature.
    Missing {
        /// The signers that the image names.
        signers: Kids,
    },
    /// The payload is signed with a key that the image does not name.
    Unknown {
        /// The key that the payload names.
        kid: Kid,
        /// The signers that the image names.
        signers: Kids,
    },
    /// The payload names a signer of the image, and the signature is not by that signer.
    Wrong {
        /// The key that the payload names.
        kid: Kid,
    },
}

/// Key ids, for an error message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kids(pub Vec<Kid>);

/// The file of the site pin below the root.
pub const PATH: &str = "imprint/site";

/// The same file on a system that runs, where image builders take it from.
pub const INSTALLED: &str = "etc/imprint/site";

/// The site pin of the image, or of the system that runs. `None` without the file.
pub fn pin(root: &Path) -> Result<Option<SitePin>, PinError> {
    for path in [PATH, INSTALLED].map(|path| root.join(path)) {
        match std::fs::read(&path) {
            Ok(bytes) => return SitePin::parse(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(PinError::Read { path, source }),
        }
    }
    Ok(None)
}

impl SitePin {
    /// Reads lines: the SHA-256 of a CA certificate in 64 hexadecimal digits, or `signer p256|ed25519 BASE64` with the key's
    /// SubjectPublicKeyInfo; `#` starts a comment.
    pub fn parse(bytes: &[u8]) -> Result<SitePin, PinError> {
        // A comment may be in any encoding.
        let text = String::from_utf8_lossy(bytes);
        let mut pin = SitePin::default();
        for (number, line) in text.lines().enumerate() {
            let number = number.saturating_add(1);
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_ascii_whitespace().take(4).collect();
            match words.as_slice() {
                [] => {}
                ["signer", word, key] => pin.signers.push(signer(number, word, key)?),
                [digits] => {
                    let digest = hex::decode(digits).and_then(|bytes| bytes.try_into().ok());
                    pin.cas.push(digest.ok_or(PinError::Line { line: number })?);
                }
                _ => return Err(PinError::Line { line: number }),
            }
        }
        if pin == SitePin::default() { Err(PinError::Empty) } else { Ok(pin) }
    }

    /// Whether a payload may have this CA, by the SHA-256 of its certificate.
    pub fn takes(&self, ca: &[u8; 32]) -> bool {
        self.cas.is_empty() || self.cas.contains(ca)
    }

    /// Whether a payload needs a signature.
    pub fn has_signers(&self) -> bool {
        !self.signers.is_empty()
    }
}

fn signer(line: usize, word: &str, key: &str) -> Result<Signer, PinError> {
    let algorithm = Algorithm::ALL.iter().find(|(_, known)| *known == word);
    let (algorithm, _) = algorithm.ok_or(PinError::Line { line })?;
    let spki = Base64::decode_vec(key).map_err(|_| PinError::Signer { line, why: None })?;
    Signer::new(*algorithm, &spki).map_err(|why| PinError::Signer { line, why: Some(why) })
}

/// Decides about the signature of a payload. `signed`: `None` if the payload has no signature. `pin`: that of the image. `aad`:
/// what the signature has to cover beside the payload ([`crate::payload::signed::aad`]). Without a signer in the pin every
/// payload is accepted, and no signature is verified.
pub fn judge(signed: Option<&Signed<'_>>, pin: Option<&SitePin>, aad: &[u8]) -> Result<SignedBy, SignatureError> {
    let signers = pin.map(|pin| pin.signers.as_slice()).unwrap_or_default();
    let kids = || Kids(signers.iter().map(Signer::kid).collect());
    let Some(signed) = signed else {
        return if signers.is_empty() {
            Ok(SignedBy::Nobody)
        } else {
            Err(SignatureError::Missing { signers: kids() })
        };
    };
    let kid = signed.kid;
    if signers.is_empty() {
        return Ok(SignedBy::Unverified(kid));
    }
    let mut named = signers.iter().filter(|signer| signer.kid() == kid).peekable();
    if named.peek().is_none() {
        return Err(SignatureError::Unknown { kid, signers: kids() });
    }
    if named.any(|signer| signed.is_by(signer, aad)) {
        Ok(SignedBy::Signer(kid))
    } else {
        Err(SignatureError::Wrong { kid })
    }
}

impl SignedBy {
    /// The signer whose signature was verified.
    pub fn signer(&self) -> Option<Kid> {
        match self {
            SignedBy::Signer(kid) => Some(*kid),
            SignedBy::Unverified(_) | SignedBy::Nobody => None,
        }
    }
}

/// For a line of its own; empty for a payload without a signature.
impl fmt::Display for SignedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignedBy::Nobody => Ok(()),
            SignedBy::Unverified(kid) => write!(f, "{kid}, not verified: no signer in /imprint/site"),
            SignedBy::Signer(kid) => write!(f, "{kid}, a signer of /imprint/site"),
        }
    }
}

/// `0011223344556677, 8899aabbccddeeff`
impl fmt::Display for Kids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&kids.join(", "))
    }
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinError::Read { path, .. } => write!(f, "reading the site pin {}", path.display()),
            PinError::Line { line } => write!(
                f,
                "/imprint/site line {line}: want the SHA-256 of a CA certificate, 64 hexadecimal digits, or \
                 signer p256 BASE64 or signer ed25519 BASE64, as imprint-host init and imprint-host signer print them"
            ),
            PinError::Signer { line, why: None } => write!(
                f,
                "/imprint/site line {line}: the key of the signer is not in base64; copy the line from imprint-host signer"
            ),
            PinError::Signer { line, why: Some(why) } => write!(
                f,
                "/imprint/site line {line}: the key of the signer is {why}; copy the line from imprint-host signer"
            ),
            PinError::Empty => write!(
                f,
                "/imprint/site names no CA and no signer, so no payload can be accepted; list one, or leave the file out"
            ),
        }
    }
}

impl std::error::Error for PinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PinError::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignatureError::Missing { signers } => write!(
                f,
                "the payload is not signed, and /imprint/site in this image names signers ({signers}); make it again with \
                 imprint-host, without --unsigned, where one of them signs"
            ),
            SignatureError::Unknown { kid, signers } => write!(
                f,
                "the payload is signed by {kid}, and /imprint/site in this image names {signers}; use a payload of this \
                 site, or put the line of that signer (imprint-host signer) into the image"
            ),
            SignatureError::Wrong { kid } => write!(
                f,
                "the signature of the payload is not by {kid}, the signer that it names: payload or signature were changed; \
                 make the payload again, and find out where this one came from"
            ),
        }
    }
}

impl std::error::Error for SignatureError {}

#[cfg(test)]
mod tests;
