//! Decodes the content of a credential: a payload as it is, or as text. Text is for places that cannot hold bytes, such
//! as a command line. Whoever put the credential there vouches for it. Pure, bytes to bytes: never decodes the payload
//! itself.

use std::fmt;

use base64ct::{Base64Unpadded, Encoding};
use zeroize::Zeroizing;

use crate::medium::ARMOUR;
use crate::payload::{Form, MAX_LEN};
use crate::secret::Secret;
use crate::site::PinFile;

/// The most bytes of a credential that are read: a payload of the greatest length in base64 with line breaks and armour.
pub const MAX_TEXT: usize = 96 * 1024;

/// Why a credential holds no payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CredentialError {
    /// The credential has no bytes.
    Empty,
    /// The text contains a NUL.
    Nul {
        /// Position of the NUL, from 1.
        position: usize,
    },
    /// The text is not base64.
    Base64 {
        /// Position, from 1, of the first character outside the alphabet. `None`: all characters are valid, but their
        /// number is not.
        position: Option<usize>,
    },
    /// The text begins with the armour line, and the line that ends the armour is missing.
    ArmourEnd,
    /// Other text stands behind the line that ends the armour.
    ArmourBehind,
    /// The text is base64 of bytes that are not a payload.
    NoPayload,
    /// The credential is longer than a payload can be.
    Length,
    /// The credential is longer than a site pin can be.
    PinLength(PinFile),
    /// A line of a site pin cannot be read.
    PinLine {
        /// Its number, from 1. `None`: it has no line.
        line: Option<usize>,
        /// The site pin that it was to narrow.
        file: PinFile,
    },
    /// A site pin, and that of the image, leave nothing in common.
    PinApart(PinFile),
}

/// Takes the payload out of a credential: the bytes of a payload, or base64 text. The text may have the standard or the
/// URL alphabet, padding or none, white space anywhere, and the armour. Bytes in no such form are returned as they are,
/// because the decoder of payloads names the other forms.
pub fn payload(bytes: Secret) -> Result<Secret, CredentialError> {
    let all = bytes.expose();
    match all.first() {
        None => return Err(CredentialError::Empty),
        // A payload begins with a byte that is not ASCII. Text that can be decoded begins with one that is.
        Some(first) if !first.is_ascii() && all.len() > MAX_LEN => return Err(CredentialError::Length),
        Some(first) if !first.is_ascii() => return Ok(bytes),
        Some(_) => {}
    }
    let armoured = armoured(all)?;
    if all.len() <= MAX_LEN && armoured.is_none() && Form::of(all).is_some_and(|form| form != Form::Base64) {
        return Ok(bytes);
    }
    if let Some(at) = all.iter().position(|byte| *byte == 0) {
        return Err(CredentialError::Nul { position: at.saturating_add(1) });
    }
    let in_base64 = armoured.is_some() || Form::of(all) == Some(Form::Base64) || begins_as_base64(all);
    if !in_base64 && !all.iter().all(|byte| is_base64(*byte) || *byte == b'=') {
        return if all.len() <= MAX_LEN { Ok(bytes) } else { Err(CredentialError::Length) };
    }
    // Positions count from the beginning of the credential, so what `armoured` cut off comes first.
    let begin = armoured.map_or(0, |(begin, _)| begin);
    let decoded = base64(armoured.map_or(all, |(_, body)| body)).map_err(|error| moved(error, begin))?;
    match begins_as_payload(decoded.expose()) {
        true if decoded.expose().len() > MAX_LEN => Err(CredentialError::Length),
        true => Ok(decoded),
        false => Err(CredentialError::NoPayload),
    }
}

/// Decodes base64 as systemd and people write it: either alphabet, padding or none, white space anywhere.
pub fn base64(text: &[u8]) -> Result<Secret, CredentialError> {
    let text = text.trim_ascii_end();
    // Padding is at the end only. Of more than two characters of padding, the first ones fail as characters outside the
    // alphabet.
    let text = text.strip_suffix(b"=").unwrap_or(text).trim_ascii_end();
    let text = text.strip_suffix(b"=").unwrap_or(text);
    if let Some(at) = text.iter().position(|byte| !is_base64(*byte)) {
        return Err(CredentialError::Base64 { position: Some(at.saturating_add(1)) });
    }
    if text.len() > MAX_TEXT.saturating_mul(2) {
        return Err(CredentialError::Length);
    }
    // Both buffers have their full size from the start: one that grows would leave copies of a payload behind.
    let mut letters = Zeroizing::new(Vec::with_capacity(text.len()));
    letters.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()).map(|byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte => *byte,
    }));
    let mut bytes = Zeroizing::new(vec![0; letters.len()]);
    let length = Base64Unpadded::decode(&letters, &mut bytes).map(<[u8]>::len);
    bytes.truncate(length.map_err(|_| CredentialError::Base64 { position: None })?);
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}

/// The text between the armour lines, and where it begins. Before and behind the armour there may be blank lines and lines that
/// begin with `#`. `None`: the first other line is not the one that begins the armour. User data has the same armour.
pub fn armoured(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, CredentialError> {
    let (begin, end) = (format!("-----BEGIN {ARMOUR}-----"), format!("-----END {ARMOUR}-----"));
    // Where the text begins, and where it ends.
    let (mut from, mut until) = (None, None);
    let mut at = 0usize;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let next = at.saturating_add(line.len());
        let line = line.trim_ascii();
        match (from, until) {
            (None, _) if is_comment(line) => {}
            (None, _) if line == begin.as_bytes() => from = Some(next),
            (None, _) => return Ok(None),
            (Some(_), None) if line == end.as_bytes() => until = Some(at),
            (Some(_), None) => {}
            (Some(_), Some(_)) if is_comment(line) => {}
            (Some(_), Some(_)) => return Err(CredentialError::ArmourBehind),
        }
        at = next;
    }
    match (from, until) {
        (Some(from), Some(until)) => Ok(bytes.get(from..until).map(|text| (from, text))),
        (Some(_), None) => Err(CredentialError::ArmourEnd),
        (None, _) => Ok(None),
    }
}

/// Whether a line stands for nothing.
pub fn is_comment(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b"#")
}

fn moved(error: CredentialError, by: usize) -> CredentialError {
    match error {
        CredentialError::Base64 { position: Some(at) } => {
            CredentialError::Base64 { position: Some(at.saturating_add(by)) }
        }
        error => error,
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte) || byte.is_ascii_whitespace()
}

/// Whether the first characters decode to the beginning of a payload. The rest may be damaged.
fn begins_as_base64(text: &[u8]) -> bool {
    text.get(..4).is_some_and(|four| base64(four).is_ok_and(|bytes| begins_as_payload(bytes.expose())))
}

/// A map whose first pair is the version, 1; or a signed payload, COSE_Sign1 (RFC 9052 §2: tag 18).
fn begins_as_payload(bytes: &[u8]) -> bool {
    matches!(bytes, [0xa0..=0xb7, 0, 1, ..] | [0xd2, ..])
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialError::Empty => f.write_str("it is empty; give the payload in base64"),
            CredentialError::Nul { position } => {
                write!(f, "byte {position} is a NUL, which text must not contain; give the payload in base64")
            }
            CredentialError::Base64 { position: Some(position) } => {
                write!(f, "character {position} is not base64; copy the text again")
            }
            CredentialError::Base64 { position: None } => {
                f.write_str("its base64 ends within a byte, so some of it is missing; copy the whole text")
            }
            CredentialError::ArmourEnd => {
                write!(f, "it has no line -----END {ARMOUR}-----, so its end is missing; copy the whole text")
            }
            CredentialError::ArmourBehind => {
                write!(f, "other text stands behind its line -----END {ARMOUR}-----; give one payload and nothing else")
            }
            CredentialError::NoPayload => f.write_str(
                "its base64 does not contain a payload; if systemd-creds encrypted it, add \
                 LoadCredentialEncrypted=imprint.payload to imprint.service, so that systemd decrypts it",
            ),
            CredentialError::Length => {
                write!(f, "it has more than {MAX_LEN} bytes, the most that a payload can have; give the payload itself")
            }
            CredentialError::PinLength(file) => {
                write!(
                    f,
                    "it has more than {MAX_TEXT} bytes, the most that a site pin can have; copy lines from {file}"
                )
            }
            CredentialError::PinLine { line: Some(line), file } => {
                write!(f, "line {line} does not name a CA or a signer; copy lines from {file}")
            }
            CredentialError::PinLine { line: None, file } => {
                write!(f, "it names no CA and no signer; copy lines from {file}")
            }
            CredentialError::PinApart(file) => write!(
                f,
                "none of its CAs or none of its signers is in {file}, so every payload would be refused; copy lines from \
                 there, or remove the credential"
            ),
        }
    }
}

impl std::error::Error for CredentialError {}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Base64UrlUnpadded};

    use super::*;

    const TYPICAL: &[u8] = include_bytes!("../../../tests/data/payload-typical.cbor");

    fn taken(bytes: &[u8]) -> Result<Vec<u8>, CredentialError> {
        payload(Secret::new(bytes.to_vec())).map(|found| found.expose().to_vec())
    }

    fn wrapped(text: &str, columns: usize, end: &str) -> String {
        let lines: Vec<&str> = text.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).unwrap()).collect();
        lines.join(end)
    }

    fn in_armour(text: &str, end: &str) -> String {
        format!("-----BEGIN {ARMOUR}-----{end}{}{end}-----END {ARMOUR}-----{end}", wrapped(text, 64, end))
    }

    #[test]
    fn every_form_of_a_payload() {
        let base64 = Base64::encode_string(TYPICAL);
        for text in [
            base64.clone(),
            format!("{base64}\n"),
            base64.trim_end_matches('=').to_owned(),
            Base64UrlUnpadded::encode_string(TYPICAL),
            wrapped(&base64, 76, "\n") + "\n",
            wrapped(&base64, 64, "\r\n"),
            wrapped(&base64, 5, " "),
            in_armour(&base64, "\n"),
            in_armour(&base64, "\r\n"),
            format!("\n\n{}\n\n", in_armour(&base64, "\n")),
            format!("# node1\n{}# until tomorrow\n", in_armour(&base64, "\n")),
            in_armour(&base64, "\n").trim_end().to_owned(),
        ] {
            assert_eq!(taken(text.as_bytes()).as_deref(), Ok(TYPICAL), "{text}");
        }
        assert_eq!(taken(TYPICAL).as_deref(), Ok(TYPICAL));
        // One, two and no characters of padding.
        for length in [64, 65, 66] {
            let bytes = &TYPICAL[..length];
            assert_eq!(taken(Base64::encode_string(bytes).as_bytes()).as_deref(), Ok(bytes));
        }
        // Tag 18, array of four: a signed payload.
        assert_eq!(taken(b"0oRDoQEm").as_deref(), Ok(&b"\xd2\x84\x43\xa1\x01\x26"[..]));
    }

    #[test]
    fn what_is_damaged_is_said_to_be_so() {
        let base64 = Base64::encode_string(TYPICAL);
        let damaged = |at: usize, byte: u8| {
            let mut text = base64.clone().into_bytes();
            text[at] = byte;
            taken(&text).unwrap_err()
        };
        assert_eq!(damaged(100, b'*'), CredentialError::Base64 { position: Some(101) });
        assert_eq!(damaged(100, b'='), CredentialError::Base64 { position: Some(101) });
        assert_eq!(damaged(100, 0), CredentialError::Nul { position: 101 });
        let letters = base64.trim_end_matches('=');
        let cut = &letters[..letters.len() / 4 * 4 - 3];
        assert_eq!(taken(cut.as_bytes()), Err(CredentialError::Base64 { position: None }));
        assert_eq!(taken(b""), Err(CredentialError::Empty));
        // The decoder of payloads has a message of its own for zeros.
        assert_eq!(taken(b"\0").as_deref(), Ok(&b"\0"[..]));
        let armour = in_armour(&base64, "\n");
        assert_eq!(taken(&armour.as_bytes()[..armour.len() - 5]), Err(CredentialError::ArmourEnd));
        let begin = format!("-----BEGIN {ARMOUR}-----").len();
        let odd = armour.replacen('\n', "\n!", 1);
        assert_eq!(taken(odd.as_bytes()), Err(CredentialError::Base64 { position: Some(begin + 2) }));
        // Two payloads in one credential, where the first was once taken: the second may be the one that was meant.
        for behind in [armour.as_str(), "QUJD", "\0", "-----END IMPRINT PAYLOAD-----"] {
            assert_eq!(taken(format!("{armour}{behind}").as_bytes()), Err(CredentialError::ArmourBehind), "{behind}");
        }
        let on_a_line = armour.replace("-----END", "QUJD-----END");
        assert_eq!(taken(on_a_line.as_bytes()), Err(CredentialError::ArmourEnd), "the line has to stand alone");
        for long in [vec![b'A'; 1 << 20], vec![b'!'; MAX_LEN + 1], vec![0xa1; MAX_LEN + 1]] {
            assert_eq!(taken(&long), Err(CredentialError::Length));
        }
        let long = [&[0xa1, 0, 1][..], &[0; MAX_LEN]].concat();
        assert_eq!(taken(Base64::encode_string(&long).as_bytes()), Err(CredentialError::Length));
        let most = &long[..MAX_LEN];
        assert_eq!(taken(wrapped(&Base64::encode_string(most), 64, "\r\n").as_bytes()).as_deref(), Ok(most));
    }

    /// `systemd-creds encrypt --name=imprint.payload --with-key=tpm2-absent` of systemd 252: the first 16 bytes of its
    /// output are the id of the kind of key. Some other ids begin like a map of CBOR: af 49.
    #[test]
    fn what_is_encrypted_is_no_payload() {
        for id in [
            *b"\x05\x84\x69\xda\xf6\xf5\x43\x24\x80\x05\x49\xda\x0f\x8e\xa2\xfb",
            *b"\xaf\x49\x50\xa8\x49\x13\x4e\xb1\xa7\x38\x46\x30\x4f\xf3\x0c\x05",
        ] {
            let text = wrapped(&Base64::encode_string(&[&id[..], &[7; 80]].concat()), 69, "\n");
            assert_eq!(taken(text.as_bytes()), Err(CredentialError::NoPayload));
        }
    }

    /// The decoder of payloads names these forms, and says what to do.
    #[test]
    fn other_forms_are_left_to_the_decoder() {
        let hex = crate::hex::encode(TYPICAL);
        for bytes in [
            hex.as_bytes(),
            b"\x30\x82\x01\x00",
            b"\x1f\x8b\x08\0",
            b"imprint.payload=rwABAVA",
            b"-----BEGIN CERTIFICATE-----\n",
            b"# a node\nname = \"node1\"\n",
            b"hello, world",
            b"\xff\0",
        ] {
            assert_eq!(taken(bytes).as_deref(), Ok(bytes), "{}", bytes.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100), text in "[-A-Z= \n\0*]{0,60}") {
            let _ = taken(&bytes);
            let _ = taken(text.as_bytes());
        }

        #[test]
        fn any_payload_in_base64(rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), columns in 1usize..90) {
            let bytes = [&[0xa1, 0, 1][..], &rest].concat();
            let text = wrapped(&Base64::encode_string(&bytes), columns, "\n");
            proptest::prop_assert_eq!(taken(text.as_bytes()), Ok(bytes));
        }
    }
}
