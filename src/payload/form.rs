//! Recognises inputs that are not payloads: a payload in another form such as base64, or a file that was given by
//! mistake. The error can then name the form and the remedy. Never decodes more than the first few bytes.

use std::fmt;

use base64ct::{Base64Unpadded, Encoding};

use super::signed::is_signed;

/// The kind of an input that is not a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A payload in base64 or base64url.
    Base64,
    /// `imprint.payload=…`
    CmdlineWord,
    /// A payload in hexadecimal digits.
    Hex,
    /// Lines for `imprint console`.
    Pasted,
    /// Text with a PEM block (RFC 7468).
    Pem,
    /// DER, the encoding of certificates and keys.
    Der,
    /// A compressed file; the name of its format.
    Compressed(&'static str),
    /// A cpio archive.
    Cpio,
    /// An image of an optical disc.
    Iso9660,
    /// An image of a disk.
    Fat,
    /// A node's record, `node.toml`.
    Record,
}

impl Form {
    /// The form of `bytes`. `None` if they begin like a payload, or if their form is not known.
    pub fn of(bytes: &[u8]) -> Option<Form> {
        if bytes.first().is_none_or(|first| is_map(*first)) || is_signed(bytes) {
            return None;
        }
        let marked =
            MARKS.iter().find(|(offset, mark, _)| bytes.get(*offset..).is_some_and(|rest| rest.starts_with(mark)));
        if let Some((_, _, form)) = marked {
            return Some(*form);
        }
        // ITU-T X.690, §8.1: a SEQUENCE whose length field has more than one byte.
        if matches!(bytes, [0x30, 0x81..=0x84, ..]) {
            return Some(Form::Der);
        }
        // fatgen103, "Boot Sector and BPB"
        let kinds = [bytes.get(54..57), bytes.get(82..85)];
        if matches!(bytes, [0xeb, _, 0x90, ..] | [0xe9, ..]) && kinds.contains(&Some(b"FAT")) {
            return Some(Form::Fat);
        }
        Form::of_text(std::str::from_utf8(bytes).ok()?)
    }

    fn of_text(text: &str) -> Option<Form> {
        if text.trim_start().starts_with("imprint.payload=") {
            return Some(Form::CmdlineWord);
        }
        if text.lines().any(|line| line.starts_with("-----BEGIN ")) {
            return Some(Form::Pem);
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
        let is_frame = |line: &str| {
            line.strip_prefix('#')
                .is_some_and(|digits| digits.len() > 8 && digits.bytes().all(|b| b.is_ascii_graphic()))
        };
        if lines.peek().is_some() && lines.all(is_frame) {
            return Some(Form::Pasted);
        }
        if text.lines().any(|line| line.starts_with("[[network]]") || line.starts_with("name =")) {
            return Some(Form::Record);
        }
        let digits = || text.bytes().filter(|byte| !byte.is_ascii_whitespace());
        let first: Vec<u8> = digits().take(6).collect();
        if digits().all(|byte| byte.is_ascii_hexdigit()) {
            let first = crate::hex::decode(std::str::from_utf8(&first).ok()?)?;
            return begins_as_payload(&first).then_some(Form::Hex);
        }
        let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
        let mut three = [0; 3];
        Base64Unpadded::decode(first.get(..4)?, &mut three).ok()?;
        (begins_as_payload(&three) && digits().all(in_alphabet)).then_some(Form::Base64)
    }
}

/// RFC 8949 §3.1: a map of at most 23 pairs. Every payload is such a map.
fn is_map(byte: u8) -> bool {
    matches!(byte, 0xa0..=0xb7)
}

/// Whether the bytes are a map whose first pair is the version, 1, or a signed payload.
fn begins_as_payload(bytes: &[u8]) -> bool {
    matches!(bytes, [map, 0, 1, ..] if is_map(*map)) || bytes.starts_with(&[0xd2, 0x84, 0x4d])
}

/// Offset, bytes at that offset, and the form that they identify.
const MARKS: [(usize, &[u8], Form); 9] = [
    (0, b"\x1f\x8b", Form::Compressed("gzip")),         // RFC 1952 §2.3.1
    (0, b"\xfd7zXZ\0", Form::Compressed("xz")),         // The .xz File Format, §2.1.1.1
    (0, b"\x28\xb5\x2f\xfd", Form::Compressed("zstd")), // RFC 8878 §3.1.1
    (0, b"BZh", Form::Compressed("bzip2")),
    (0, b"PK\x03\x04", Form::Compressed("zip")),
    (0, b"070701", Form::Cpio), // Documentation/driver-api/early-userspace/buffer-format.rst
    (0, b"070702", Form::Cpio),
    (0, b"070707", Form::Cpio),        // cpio's older form in ASCII
    (32_769, b"CD001", Form::Iso9660), // ECMA-119 §8.1
];

/// `a gzip file; unpack it first`: the form, and the remedy.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Form::Base64 => "one in base64; decode it with base64 -d",
            Form::CmdlineWord => "the word for a kernel command line; append it to that",
            Form::Hex => "one in hexadecimal digits; decode it with xxd -r -p",
            Form::Pasted => "lines for a terminal; paste them to imprint console",
            Form::Pem => "a PEM file, a certificate or a key; a payload has that inside",
            Form::Der => "a DER file, a certificate or a key; a payload has that inside",
            Form::Compressed(program) => return write!(f, "a {program} file; unpack it first"),
            Form::Cpio => "a cpio archive; let the boot loader append it to the initramfs",
            Form::Iso9660 => "an ISO 9660 image; attach it as an optical drive",
            Form::Fat => "a FAT image; attach it as a disk",
            Form::Record => "a node's record; give it to imprint-host node add",
        };
        f.write_str(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPICAL: &[u8] = include_bytes!("../../tests/data/payload-typical.cbor");

    #[test]
    fn payloads_in_other_forms() {
        let hex = crate::hex::encode(TYPICAL);
        let base64 = Base64Unpadded::encode_string(TYPICAL);
        let lines = |text: &str| {
            let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
            lines.join("\r\n") + "\n"
        };
        let mut iso = vec![0; 40_000];
        iso[32_769..32_774].copy_from_slice(b"CD001");
        let mut fat = vec![0; 512];
        fat[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        fat[54..59].copy_from_slice(b"FAT12");
        for (bytes, form) in [
            (base64.clone().into_bytes(), Form::Base64),
            (lines(&base64).into_bytes(), Form::Base64),
            (format!("{base64}==\n").into_bytes(), Form::Base64),
            (base64.replace('+', "-").replace('/', "_").into_bytes(), Form::Base64),
            (format!("imprint.payload={base64}").into_bytes(), Form::CmdlineWord),
            (hex.clone().into_bytes(), Form::Hex),
            (lines(&hex.to_uppercase()).into_bytes(), Form::Hex),
            (b"\n#0ae[rH%nSc\n#f2&*wXM(a00\r\n".to_vec(), Form::Pasted),
            (b"subject=CN = x\n-----BEGIN CERTIFICATE-----\n".to_vec(), Form::Pem),
            (b"\x30\x82\x01\x6e\x30".to_vec(), Form::Der),
            (b"\x1f\x8b\x08\0".to_vec(), Form::Compressed("gzip")),
            (b"070701000".to_vec(), Form::Cpio),
            (iso, Form::Iso9660),
            (fat, Form::Fat),
            (b"# a node\nname = \"node1\"\n".to_vec(), Form::Record),
        ] {
            assert_eq!(Form::of(&bytes), Some(form), "{form:?}");
        }
    }

    /// Bytes that begin like a payload are left to the decoder, and so are bytes of no known form.
    #[test]
    fn what_is_left_to_the_decoder() {
        let mut long = TYPICAL.to_vec();
        long.resize(32_769, 0);
        long.extend(b"CD001");
        for bytes in [
            b"",
            &b"\n"[..],
            TYPICAL,
            &long,
            b"hello",
            b"# a remark\n# and another\n",
            b"qwAC and so on",
            b"ab0002",
            b"abcdef0123456789",
            b"qwAB, and something that is no base64",
        ] {
            assert_eq!(Form::of(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100), text in "[qwAB0-9a-f#\\n ]{0,20}") {
            let _ = Form::of(&bytes);
            let _ = Form::of(text.as_bytes());
        }
    }
}
