//! The site pin: the CAs and the signers whose payloads an image accepts. It is the file `/imprint/site` of the image,
//! so the person who made the image vouches for it. This module decides whose signature counts. Never reads a signed
//! payload, and never compares CAs: `plan` does.

mod narrow;

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use nix::unistd::geteuid;

use crate::hex;
use crate::payload::signed::{Algorithm, KeyError, Kid, Signed, Signer};

/// The CAs and the signers of a site. There is at least one CA or signer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SitePin {
    /// SHA-256 of each CA certificate. If there are none, any CA counts that a signer vouches for.
    pub cas: Vec<[u8; 32]>,
    /// If there are any, each payload needs a signature by one of them.
    pub signers: Vec<Signer>,
    /// Where they are listed.
    pub file: PinFile,
}

/// The file of a site pin, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PinFile {
    /// [`PATH`]
    #[default]
    Image,
    /// [`INSTALLED`]
    System,
}

/// Why the site pin cannot be used.
#[derive(Debug)]
pub enum PinError {
    /// The file exists and cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The text of the file cannot be used.
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PinTextError,
    },
    /// The file on a system that runs, or its folder, belongs to another user than root and the one that imprint runs as.
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// The user.
        user: u32,
    },
    /// Other users can write to the file on a system that runs, or to its folder.
    Mode {
        /// The file or folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Why a text is no site pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinTextError {
    /// A line that is neither a digest nor a signer.
    Line {
        /// Line number, from 1.
        line: usize,
    },
    /// A line names a signer and has no valid key.
    Signer {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with the key. `None`: it is not base64.
        why: Option<KeyError>,
    },
    /// The file names no CA and no signer.
    Empty,
}

/// Whose signature a payload has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignedBy {
    /// The payload has no signature, and needs none.
    Nobody,
    /// The payload names this key. The image names no signer, so nobody verified the signature.
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
        /// Where it names them.
        file: PinFile,
    },
    /// The payload is signed with a key that the image does not name.
    Unknown {
        /// The key that the payload names.
        kid: Kid,
        /// The signers that the image names.
        signers: Kids,
        /// Where it names them.
        file: PinFile,
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

/// The path of the site pin in an image, below the root.
pub const PATH: &str = "imprint/site";

/// The path of the site pin on a running system, below the root. Image builders copy it from there.
pub const INSTALLED: &str = "etc/imprint/site";

/// Reads the site pin of the image, or of the running system. `None`: neither has the file.
pub fn pin(root: &Path) -> Result<Option<SitePin>, PinError> {
    // An archive of the initramfs may have been made by any user, whose number then stands in it.
    for (path, place) in [(PATH, PinFile::Image), (INSTALLED, PinFile::System)] {
        let path = root.join(path);
        let failed = |source| PinError::Read { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(failed(source)),
        };
        if place == PinFile::System {
            // What was opened is judged; then nobody can put another file in its place.
            is_safe(&path, &file.metadata().map_err(failed)?)?;
            let folder = path.parent().unwrap_or(root);
            is_safe(folder, &folder.metadata().map_err(failed)?)?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let pin = SitePin::parse(&bytes).map_err(|source| PinError::Text { path, source })?;
        return Ok(Some(SitePin { file: place, ..pin }));
    }
    Ok(None)
}

/// Whether root vouches for a file or folder: nobody else could write to it. Everybody may read a site pin.
fn is_safe(path: &Path, found: &Metadata) -> Result<(), PinError> {
    let (path, user, mode) = (path.to_owned(), found.uid(), found.mode() & 0o7777);
    if user != 0 && user != geteuid().as_raw() {
        return Err(PinError::Owner { path, user });
    }
    if mode & 0o022 != 0 { Err(PinError::Mode { path, mode }) } else { Ok(()) }
}

impl SitePin {
    /// Reads lines: the SHA-256 of a CA certificate in 64 hexadecimal digits, or `signer p256|ed25519 BASE64` with the key's
    /// SubjectPublicKeyInfo; `#` starts a comment.
    pub fn parse(bytes: &[u8]) -> Result<SitePin, PinTextError> {
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
                    pin.cas.push(digest.ok_or(PinTextError::Line { line: number })?);
                }
                _ => return Err(PinTextError::Line { line: number }),
            }
        }
        if pin == SitePin::default() { Err(PinTextError::Empty) } else { Ok(pin) }
    }

    /// Whether a payload may have this CA, by the SHA-256 of its certificate.
    pub fn takes(&self, ca: &[u8; 32]) -> bool {
        self.cas.is_empty() || self.cas.contains(ca)
    }

    /// Whether each payload needs a signature.
    pub fn has_signers(&self) -> bool {
        !self.signers.is_empty()
    }
}

fn signer(line: usize, word: &str, key: &str) -> Result<Signer, PinTextError> {
    let algorithm = Algorithm::ALL.iter().find(|(_, known)| *known == word);
    let (algorithm, _) = algorithm.ok_or(PinTextError::Line { line })?;
    let spki = Base64::decode_vec(key).map_err(|_| PinTextError::Signer { line, why: None })?;
    Signer::new(*algorithm, &spki).map_err(|why| PinTextError::Signer { line, why: Some(why) })
}

/// Decides about the signature of a payload. `signed`: `None` if the payload has no signature. `pin`: the image's. `aad`:
/// what the signature has to cover besides the payload ([`crate::payload::signed::aad`]). If the pin names no signer, every payload is accepted and no signature is verified.
pub fn judge(signed: Option<&Signed<'_>>, pin: Option<&SitePin>, aad: &[u8]) -> Result<SignedBy, SignatureError> {
    let signers = pin.map(|pin| pin.signers.as_slice()).unwrap_or_default();
    let kids = || Kids(signers.iter().map(Signer::kid).collect());
    let file = pin.map(|pin| pin.file).unwrap_or_default();
    let Some(signed) = signed else {
        return if signers.is_empty() {
            Ok(SignedBy::Nobody)
        } else {
            Err(SignatureError::Missing { signers: kids(), file })
        };
    };
    let kid = signed.kid;
    if signers.is_empty() {
        return Ok(SignedBy::Unverified(kid));
    }
    let mut named = signers.iter().filter(|signer| signer.kid() == kid).peekable();
    if named.peek().is_none() {
        return Err(SignatureError::Unknown { kid, signers: kids(), file });
    }
    if named.any(|signer| signed.is_by(signer, aad)) {
        Ok(SignedBy::Signer(kid))
    } else {
        Err(SignatureError::Wrong { kid })
    }
}

impl SignedBy {
    /// The signer, if its signature was verified.
    pub fn signer(&self) -> Option<Kid> {
        match self {
            SignedBy::Signer(kid) => Some(*kid),
            SignedBy::Unverified(_) | SignedBy::Nobody => None,
        }
    }
}

/// One line of text; empty for a payload without a signature.
impl fmt::Display for SignedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignedBy::Nobody => Ok(()),
            SignedBy::Unverified(kid) => write!(f, "{kid}, not verified: there is no signer in a site pin"),
            SignedBy::Signer(kid) => write!(f, "{kid}, a signer of the site pin"),
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

/// `/imprint/site in this image`
impl fmt::Display for PinFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinFile::Image => write!(f, "/{PATH} in this image"),
            PinFile::System => write!(f, "/{INSTALLED} on this system"),
        }
    }
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinError::Read { path, .. } => write!(f, "reading the site pin {}", path.display()),
            PinError::Text { path, .. } => write!(f, "site pin {}", path.display()),
            PinError::Owner { path, user } => {
                let path = path.display();
                write!(
                    f,
                    "{path} belongs to user {user}, so root does not vouch for the site pin; if it is the right one, run chown \
                     root {path}"
                )
            }
            PinError::Mode { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "{path} has mode {mode:04o}, so others may have changed the site pin; compare it, and run chmod go-w {path}"
                )
            }
        }
    }
}

impl fmt::Display for PinTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinTextError::Line { line } => write!(
                f,
                "line {line} is wrong; it must be the SHA-256 of a CA certificate (64 hexadecimal digits), or signer p256 \
                 BASE64, or signer ed25519 BASE64; copy the lines that imprint-host init and imprint-host signer print"
            ),
            PinTextError::Signer { line, why: None } => {
                write!(f, "the key in line {line} is not base64; copy the line that imprint-host signer prints")
            }
            PinTextError::Signer { line, why: Some(why) } => {
                write!(f, "the key in line {line} is {why}; copy the line that imprint-host signer prints")
            }
            PinTextError::Empty => f.write_str(
                "it names no CA and no signer, so every payload would be refused; list a CA or a signer, or remove the file",
            ),
        }
    }
}

impl std::error::Error for PinTextError {}

impl std::error::Error for PinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PinError::Read { source, .. } => Some(source),
            PinError::Text { source, .. } => Some(source),
            PinError::Owner { .. } | PinError::Mode { .. } => None,
        }
    }
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignatureError::Missing { signers, file } => write!(
                f,
                "the payload is not signed, and {file} names signers ({signers}); make the payload again with the \
                 imprint-host that has the key of one of them, without --unsigned"
            ),
            SignatureError::Unknown { kid, signers, file } => write!(
                f,
                "the payload is signed by {kid}, and {file} names only {signers}; use a payload of this site, or add the \
                 line of that signer (imprint-host signer) to the site pin"
            ),
            SignatureError::Wrong { kid } => write!(
                f,
                "the payload names the signer {kid}, and the signature does not fit: somebody or something changed the \
                 payload; find out where it came from, and make it again"
            ),
        }
    }
}

impl std::error::Error for SignatureError {}

#[cfg(test)]
mod tests;
