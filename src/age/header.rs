//! The header of an age file: its stanzas, and the code that authenticates them. Never decrypts anything.

use std::fmt;

use aws_lc_rs::hmac;
use base64ct::{Base64Unpadded, Encoding};

use super::key::WRAPPED_LEN;
use super::{AgeError, FileKey, derive};

/// The first line.
pub(super) const MAGIC: &[u8] = b"age-encryption.org/v1\n";
/// A stanza as [`put_stanza`] writes it: `-> X25519 `, 43 characters and a line end, twice.
pub(super) const STANZA_LEN: usize = 10 + 2 * (DIGITS + 1);
/// The last line: `--- `, 43 characters and a line end.
pub(super) const END_LEN: usize = 4 + DIGITS + 1;
/// How many characters of base64 32 bytes are.
const DIGITS: usize = 43;

/// The longest header, in bytes.
pub const MAX_HEADER: usize = 16 * 1024;
/// The most stanzas, of all kinds together.
pub const MAX_STANZAS: usize = 32;

/// The rule that a line of a header breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The header is not complete in its first [`MAX_HEADER`] bytes.
    TooLong,
    /// The file ends in the header.
    Cut,
    /// More stanzas than [`MAX_STANZAS`].
    TooManyStanzas,
    /// Neither a stanza nor the last line.
    Line,
    /// The header has no stanza at all.
    NoStanza,
    /// A stanza's words are empty, or have characters that are not printable ASCII.
    Words,
    /// A line of a stanza's body is longer than 64 characters, or the line after a full one is missing.
    Body,
    /// Not base64, or not in its one form: without padding, with zeros in the bits that are not used.
    Base64,
    /// An X25519 stanza has other words than one public key of 32 bytes.
    Share,
    /// The body of an X25519 stanza has not 32 bytes.
    BodyLength,
    /// An scrypt stanza is not alone.
    Scrypt,
    /// The last line is not `--- ` and 32 bytes in base64.
    Code,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::TooLong => write!(f, "the header is longer than {MAX_HEADER} bytes"),
            HeaderError::Cut => f.write_str("the file ends here; fetch it again"),
            HeaderError::TooManyStanzas => {
                write!(f, "more than {MAX_STANZAS} stanzas; encrypt it for fewer recipients")
            }
            HeaderError::Line => f.write_str("neither a stanza (-> …) nor the last line (--- …)"),
            HeaderError::NoStanza => f.write_str("no stanza before the last line"),
            HeaderError::Words => f.write_str("the words of a stanza are printable ASCII with one space between"),
            HeaderError::Body => {
                f.write_str("the body of a stanza has lines of 64 characters and ends with a shorter one")
            }
            HeaderError::Base64 => f.write_str("not base64 without padding and with unused bits of zero"),
            HeaderError::Share => f.write_str("an X25519 stanza has one more word, a public key of 32 bytes"),
            HeaderError::BodyLength => f.write_str("the body of an X25519 stanza has 32 bytes"),
            HeaderError::Scrypt => f.write_str("a stanza for a passphrase (scrypt) stands alone"),
            HeaderError::Code => f.write_str("the last line is --- and a code of 32 bytes"),
        }
    }
}

/// A header that is well-formed. Whether it is authentic is not known yet.
pub(super) struct Header<'a> {
    shares: Vec<([u8; 32], [u8; WRAPPED_LEN])>,
    /// What the code covers: everything up to and including `---`.
    covered: &'a [u8],
    code: [u8; 32],
    /// What follows the header.
    pub(super) rest: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn read(file: &'a [u8]) -> Result<Header<'a>, AgeError> {
        if file.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----") {
            return Err(AgeError::Armour);
        }
        if !file.starts_with(MAGIC) {
            // The beginning of the first line, and nothing else: cut short.
            let cut = !file.is_empty() && MAGIC.starts_with(file);
            return Err(if cut { AgeError::Header { line: 1, fault: HeaderError::Cut } } else { AgeError::NotAge });
        }
        let mut lines = Lines { file, at: 0, number: 0 };
        lines.next()?;
        let (mut shares, mut count, mut passphrases) = (Vec::new(), 0usize, 0usize);
        loop {
            let begin = lines.at;
            let line = lines.next()?;
            if let Some(words) = line.strip_prefix(b"-> ") {
                count += 1;
                if count > MAX_STANZAS {
                    return Err(lines.fault(HeaderError::TooManyStanzas));
                }
                passphrases += usize::from(stanza(words, &mut lines, &mut shares)?);
                if passphrases > 0 && count > 1 {
                    return Err(lines.fault(HeaderError::Scrypt));
                }
            } else if let Some(code) = line.strip_prefix(b"---") {
                if count == 0 {
                    return Err(lines.fault(HeaderError::NoStanza));
                }
                let code = code.strip_prefix(b" ").and_then(fixed).ok_or_else(|| lines.fault(HeaderError::Code))?;
                let covered = file.get(..begin + 3).unwrap_or_default();
                return Ok(Header { shares, covered, code, rest: file.get(lines.at..).unwrap_or_default() });
            } else {
                return Err(lines.fault(HeaderError::Line));
            }
        }
    }

    /// The ephemeral share and the wrapped key of each X25519 stanza.
    pub(super) fn shares(&self) -> impl Iterator<Item = (&[u8; 32], &[u8; WRAPPED_LEN])> {
        self.shares.iter().map(|(share, body)| (share, body))
    }

    /// Whether somebody who has the file's key has made this header.
    pub(super) fn is_made_with(&self, file_key: &FileKey) -> Result<bool, AgeError> {
        Ok(hmac::verify(&code_key(file_key)?, self.covered, &self.code).is_ok())
    }
}

/// Reads the words and the body of a stanza. Returns whether it is one for a passphrase.
fn stanza(
    words: &[u8],
    lines: &mut Lines<'_>,
    shares: &mut Vec<([u8; 32], [u8; WRAPPED_LEN])>,
) -> Result<bool, AgeError> {
    let mut words = words.split(|byte| *byte == b' ');
    if words.clone().any(|word| word.is_empty() || !word.iter().all(u8::is_ascii_graphic)) {
        return Err(lines.fault(HeaderError::Words));
    }
    let kind = words.next().unwrap_or_default();
    let share = match (kind, words.next(), words.next()) {
        (b"X25519", Some(share), None) => Some(fixed(share).ok_or_else(|| lines.fault(HeaderError::Share))?),
        (b"X25519", _, _) => return Err(lines.fault(HeaderError::Share)),
        _ => None,
    };
    // The whole lines of a body are multiples of 3 bytes: each line is base64 by itself.
    let mut body = Vec::new();
    loop {
        let line = lines.next()?;
        if line.len() > 64 || line.starts_with(b"-") {
            return Err(lines.fault(HeaderError::Body));
        }
        let text = std::str::from_utf8(line).map_err(|_| lines.fault(HeaderError::Base64))?;
        body.extend(Base64Unpadded::decode_vec(text).map_err(|_| lines.fault(HeaderError::Base64))?);
        if line.len() < 64 {
            break;
        }
    }
    if let Some(share) = share {
        let body = body.as_slice().try_into().map_err(|_| lines.fault(HeaderError::BodyLength))?;
        shares.push((share, body));
    }
    Ok(kind == b"scrypt")
}

/// 32 bytes in base64.
fn fixed(digits: &[u8]) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(digits).ok()?;
    let mut bytes = [0; 32];
    (text.len() == DIGITS).then_some(())?;
    // base64ct refuses padding, and bits that are not used and not 0.
    let length = Base64Unpadded::decode(text, &mut bytes).ok()?.len();
    (length == 32).then_some(bytes)
}

/// The lines of a header.
struct Lines<'a> {
    file: &'a [u8],
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a [u8], AgeError> {
        self.number += 1;
        let rest = self.file.get(self.at..).unwrap_or_default();
        let room = MAX_HEADER.saturating_sub(self.at);
        let Some(length) = rest.iter().take(room).position(|byte| *byte == b'\n') else {
            return Err(self.fault(if rest.len() >= room { HeaderError::TooLong } else { HeaderError::Cut }));
        };
        self.at += length + 1;
        Ok(rest.get(..length).unwrap_or_default())
    }

    fn fault(&self, fault: HeaderError) -> AgeError {
        AgeError::Header { line: self.number, fault }
    }
}

/// Appends an X25519 stanza.
pub(super) fn put_stanza(file: &mut Vec<u8>, share: &[u8; 32], body: &[u8; WRAPPED_LEN]) {
    file.extend_from_slice(b"-> X25519 ");
    for part in [share, body] {
        file.extend_from_slice(Base64Unpadded::encode_string(part).as_bytes());
        file.push(b'\n');
    }
}

/// Appends the last line of the header that the file consists of so far.
pub(super) fn put_end(file: &mut Vec<u8>, file_key: &FileKey) -> Result<(), AgeError> {
    file.extend_from_slice(b"---");
    let code = hmac::sign(&code_key(file_key)?, file);
    file.push(b' ');
    file.extend_from_slice(Base64Unpadded::encode_string(code.as_ref()).as_bytes());
    file.push(b'\n');
    Ok(())
}

fn code_key(file_key: &FileKey) -> Result<hmac::Key, AgeError> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*derive(&**file_key, &[], b"header")?))
}
