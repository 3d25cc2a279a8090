//! The age v1 format (C2SP, age-encryption.org/v1), as far as bundles need it: X25519 recipients and the encrypted stream, in
//! memory. `age` and `rage` open what is written here. Stanzas of other kinds are skipped. Never reads or writes a file, and
//! knows no passphrases, plugins or armour.

mod bech32;
mod header;
mod key;
mod stream;

use std::fmt;

use aws_lc_rs::{digest, hkdf};
use zeroize::Zeroizing;

use header::Header;
pub use header::{HeaderError, MAX_HEADER, MAX_STANZAS};
pub use key::{Identity, KeyTextError, Recipient};

/// Why a file cannot be opened, or made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgeError {
    /// The bytes do not begin as an age file does.
    NotAge,
    /// It is an age file in ASCII armour.
    Armour,
    /// A line of the header, counted from 1, breaks this rule.
    Header {
        /// The line.
        line: usize,
        /// The rule.
        fault: HeaderError,
    },
    /// It was encrypted for other keys.
    OtherKey {
        /// How many X25519 stanzas it has.
        stanzas: usize,
    },
    /// The key fits, but the header's authentication code does not.
    Mac,
    /// The stream ends before its nonce does.
    NoNonce,
    /// The stream ends at the end of a chunk, without a last one.
    NoLastChunk,
    /// The last chunk is empty and not the only one.
    EmptyLastChunk,
    /// A chunk, counted from 1, is damaged or cut short, or something follows the last chunk.
    Chunk(usize),
    /// A file is made for 1 to [`MAX_STANZAS`] recipients.
    Recipients(usize),
    /// A public key is a point of low order, which gives the same secret, all zeros, to everybody.
    LowOrder,
    /// The cryptographic library has failed.
    Library,
}

impl fmt::Display for AgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgeError::NotAge => f.write_str("not an age file, version 1; encrypt it with imprint-host, age or rage"),
            AgeError::Armour => f.write_str("an age file in ASCII armour; make it without --armor"),
            AgeError::Header { line, fault } => write!(f, "age header, line {line}: {fault}"),
            AgeError::OtherKey { stanzas } => {
                write!(f, "encrypted for other keys ({stanzas} X25519 stanzas); make it for this node's key")
            }
            AgeError::Mac => f.write_str("the age header was changed after it was made; fetch or make it again"),
            AgeError::NoNonce => f.write_str("the age file ends before its nonce does; fetch it again"),
            AgeError::NoLastChunk => f.write_str("the age file ends without its last chunk; fetch it again"),
            AgeError::EmptyLastChunk => f.write_str("the last chunk of the age file is empty; make it again"),
            AgeError::Chunk(number) => {
                write!(f, "chunk {number} of the age file is damaged or cut short; fetch it again")
            }
            AgeError::Recipients(count) => write!(f, "{count} recipients, want 1 to {MAX_STANZAS}"),
            AgeError::LowOrder => {
                f.write_str("a public key is a point of low order, and keeps no secret; use another key")
            }
            AgeError::Library => f.write_str("the cryptographic library failed; the system may have no random numbers"),
        }
    }
}

impl std::error::Error for AgeError {}

/// Encrypts for these recipients, with new random keys. Each of them alone can decrypt.
pub fn encrypt(plain: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, AgeError> {
    encrypt_with(plain, recipients, &mut random)
}

/// Encrypts for this identity alone, and so that the same text has the same bytes each time: what is random otherwise comes from the
/// identity and the text (HKDF-SHA256 with the text's SHA-256 as salt). No two texts have the same keys and nonces, and whoever does
/// not have the identity learns no more than that two files have the same text.
pub fn encrypt_for_self(plain: &[u8], identity: &Identity, info: &[u8]) -> Result<Vec<u8>, AgeError> {
    let mut drawn = 0u8;
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, digest::digest(&digest::SHA256, plain).as_ref());
    let secret = secret.extract(identity.expose());
    encrypt_with(plain, &[identity.recipient()], &mut |bytes| {
        drawn = drawn.saturating_add(1);
        let infos = [info, std::slice::from_ref(&drawn)];
        let filled = secret.expand(&infos, Length(bytes.len())).and_then(|output| output.fill(bytes));
        filled.map_err(|_| AgeError::Library)
    })
}

/// `draw` fills what must not be the same for two texts.
fn encrypt_with(
    plain: &[u8],
    recipients: &[Recipient],
    draw: &mut dyn FnMut(&mut [u8]) -> Result<(), AgeError>,
) -> Result<Vec<u8>, AgeError> {
    if !(1..=MAX_STANZAS).contains(&recipients.len()) {
        return Err(AgeError::Recipients(recipients.len()));
    }
    let mut file_key = FileKey::default();
    draw(&mut *file_key)?;
    let mut nonce = [0; NONCE_LEN];
    draw(&mut nonce)?;
    let mut file = Vec::with_capacity(encrypted_len(plain.len(), recipients.len()));
    file.extend_from_slice(header::MAGIC);
    for recipient in recipients {
        let mut ephemeral = Zeroizing::new([0; 32]);
        draw(&mut *ephemeral)?;
        let (share, body) = key::wrap(&file_key, recipient, &ephemeral)?;
        header::put_stanza(&mut file, &share, &body);
    }
    header::put_end(&mut file, &file_key)?;
    file.extend_from_slice(&nonce);
    stream::encrypt(plain, &payload_key(&file_key, &nonce)?, &mut file)?;
    Ok(file)
}

/// Decrypts with this identity.
pub fn decrypt(file: &[u8], identity: &Identity) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let header = Header::read(file)?;
    let mut file_key = None;
    for (share, body) in header.shares() {
        // Every stanza is looked at: one with a point of low order makes the whole file a bad one.
        file_key = key::unwrap(share, body, identity)?.or(file_key);
    }
    let file_key = file_key.ok_or_else(|| AgeError::OtherKey { stanzas: header.shares().count() })?;
    if !header.is_made_with(&file_key)? {
        return Err(AgeError::Mac);
    }
    let (nonce, rest) = header.rest.split_first_chunk::<NONCE_LEN>().ok_or(AgeError::NoNonce)?;
    stream::decrypt(rest, &payload_key(&file_key, nonce)?)
}

/// Checks what can be checked without a key: the header is well-formed and has an X25519 stanza, and the length of what follows is
/// that of a stream.
pub fn check(file: &[u8]) -> Result<(), AgeError> {
    let header = Header::read(file)?;
    if header.shares().next().is_none() {
        return Err(AgeError::OtherKey { stanzas: 0 });
    }
    let stream = header.rest.get(NONCE_LEN..).ok_or(AgeError::NoNonce)?;
    stream::check_len(stream.len())
}

/// Whether the bytes begin as an age file does, of any version and in binary form.
pub fn looks_like(bytes: &[u8]) -> bool {
    bytes.starts_with(b"age-encryption.org/")
}

/// How many bytes a text of this length has when it is encrypted for so many recipients.
pub const fn encrypted_len(plain: usize, recipients: usize) -> usize {
    let header = header::MAGIC.len() + recipients * header::STANZA_LEN + header::END_LEN;
    let chunks = if plain == 0 { 1 } else { plain.div_ceil(stream::CHUNK) };
    header + NONCE_LEN + plain + chunks * stream::TAG_LEN
}

/// The key of one file, from which all its other keys come.
type FileKey = Zeroizing<[u8; 16]>;
const NONCE_LEN: usize = 16;

fn payload_key(file_key: &FileKey, nonce: &[u8; NONCE_LEN]) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    derive(&**file_key, nonce, b"payload")
}

/// How many bytes HKDF is to make.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256 (RFC 5869), 32 bytes.
fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    let mut key = Zeroizing::new([0; 32]);
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let filled = secret.expand(&[info], hkdf::HKDF_SHA256).and_then(|output| output.fill(&mut *key));
    filled.map(|()| key).map_err(|_| AgeError::Library)
}

fn random(bytes: &mut [u8]) -> Result<(), AgeError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| AgeError::Library)
}

#[cfg(test)]
mod tests;
