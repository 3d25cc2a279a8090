//! Recognises inputs that are not payloads: a payload in another form such as base64, or a file that was given by
//! mistake. The error can then name the form and the remedy. Never decodes more than the first few bytes.

use std::fmt;

use base64ct::{Base64Unpadded, Encoding};

use crate::base85;
use crate::checksum::crc32;

/// The kind of an input that is not a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A payload in base64 or base64url.
    Base64,
    /// `imprint.payload=…`
    CmdlineWord,
    /// A payload in hexadecimal digits.
    Hex,
    /// A whole kernel command line, with `imprint.payload=…` in it.
    Cmdline,
    /// Lines for `imprint console`.
    Pasted,
    /// Text in UTF-16.
    Utf16,
    /// Text in UTF-8 that begins with a byte order mark.
    ByteOrderMark,
    /// Nothing but zeros.
    Zeros,
    /// Configuration for cloud-init.
    CloudConfig,
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
        if bytes.iter().all(|byte| *byte == 0) {
            return Some(Form::Zeros);
        }
        if is_utf16(bytes) {
            return Some(Form::Utf16);
        }
        // The Unicode Standard, §23.8: the mark in UTF-8.
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Some(Form::ByteOrderMark);
        }
        Form::of_text(std::str::from_utf8(bytes).ok()?)
    }

    /// The same of the beginning of something longer, where neither a line nor a character need be whole.
    pub fn of_beginning(bytes: &[u8]) -> Option<Form> {
        let whole_lines = || bytes.iter().rposition(|byte| *byte == b'\n').and_then(|end| bytes.get(..end));
        Form::of(bytes).or_else(|| Form::of(whole_lines()?))
    }

    /// What it is, for people: `a gzip file`.
    pub fn name(self) -> String {
        let name = match self {
            Form::Base64 => "a payload in base64",
            Form::CmdlineWord => "the word for a kernel command line",
            Form::Cmdline => "a whole kernel command line",
            Form::Utf16 => "text in UTF-16, as PowerShell's > writes it",
            Form::ByteOrderMark => "text that begins with a byte order mark, as Windows editors write it",
            Form::Zeros => "a file of zeros",
            Form::CloudConfig => "configuration for cloud-init",
            Form::Hex => "a payload in hexadecimal digits",
            Form::Pasted => "lines for a terminal",
            Form::Pem => "a PEM file, a certificate or a key",
            Form::Der => "a DER file, a certificate or a key",
            Form::Compressed(program) => return format!("a {program} file"),
            Form::Cpio => "a cpio archive",
            Form::Iso9660 => "an ISO 9660 image",
            Form::Fat => "a FAT image",
            Form::Record => "a node's record",
        };
        name.to_owned()
    }

    fn of_text(text: &str) -> Option<Form> {
        if text.trim_start().starts_with("imprint.payload=") {
            return Some(Form::CmdlineWord);
        }
        if text.split_ascii_whitespace().any(|word| word.trim_matches('"').starts_with("imprint.payload=")) {
            return Some(Form::Cmdline);
        }
        if text.lines().any(|line| line.starts_with("-----BEGIN ")) {
            return Some(Form::Pem);
        }
        // One is enough: others may have been damaged.
        if text.lines().any(|line| is_frame(line.trim())) {
            return Some(Form::Pasted);
        }
        // cloud-init, "User-data formats": the first line names the format.
        if text.lines().next().is_some_and(|line| line.trim_end() == "#cloud-config") {
            return Some(Form::CloudConfig);
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

/// UTF-16 of either byte order, with its mark (The Unicode Standard, §23.8), or ASCII characters in it without one.
fn is_utf16(bytes: &[u8]) -> bool {
    let ascii = |one: usize| {
        let pairs = bytes.as_chunks::<2>().0;
        pairs.len() >= 4
            && pairs
                .iter()
                .take(16)
                .all(|pair| pair.get(one).is_some_and(u8::is_ascii) && pair.get(1 - one) == Some(&0))
    };
    bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || ascii(0) || ascii(1)
}

/// Whether a line is a frame of a text payload: docs/line-protocol.md, "Frames". Its CRC covers the side and, outside
/// any conversation, sixteen zeros.
fn is_frame(line: &str) -> bool {
    let Some(bytes) = line.strip_prefix('#').and_then(|digits| base85::decode(digits.as_bytes())) else { return false };
    let Some((message, crc)) = bytes.split_last_chunk::<4>() else { return false };
    let of = |side: &[u8]| !([side, &[0; 16], message].into_iter().fold(u32::MAX, crc32));
    !message.is_empty() && [b"H", b"N"].iter().any(|side| of(*side).to_be_bytes() == *crc)
}

/// RFC 8949 §3.1: a map of at most 23 pairs. Every payload is such a map.
fn is_map(byte: u8) -> bool {
    matches!(byte, 0xa0..=0xb7)
}

/// Whether the bytes are a map whose first pair is the version, 1, or a signed payload.
fn begins_as_payload(bytes: &[u8]) -> bool {
    matches!(bytes, [map, 0, 1, ..] if is_map(*map)) || bytes.starts_with(&[0xd2, 0x84, 0x4d])
}

/// Whether bytes look like a COSE message: they begin with a tag, or with the array of a message without its tag. A
/// payload without a signature is a map.
pub fn is_signed(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x84 | 0xc0..=0xdf))
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
        let remedy = match self {
            Form::Base64 => "decode it with base64 -d",
            Form::CmdlineWord => "append it to the kernel command line",
            Form::Cmdline => "boot the machine with it: its word imprint.payload= is the payload",
            Form::Utf16 | Form::ByteOrderMark => "let imprint-host write the file itself with -o",
            Form::Zeros => "copy it again",
            Form::CloudConfig => "give the payload a file of its own",
            Form::Hex => "decode it with xxd -r -p",
            Form::Pasted => "paste them to imprint console",
            Form::Pem | Form::Der => "give the payload that contains it",
            Form::Compressed(_) => "unpack it first",
            Form::Cpio => "let the boot loader append it to the initramfs",
            Form::Iso9660 => "attach it as an optical drive",
            Form::Fat => "attach it as a disk",
            Form::Record => "give it to imprint-host node add",
        };
        write!(f, "{}; {remedy}", self.name())
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
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let (host, node) = (crate::line::frame::Side::Host, crate::line::frame::Side::Node);
        let frame = |bytes: &[u8], side| crate::line::frame::seal_message(bytes, side, None);
        let frames = [frame(b"\x06\x01piece", host), frame(b"\x06\x02", node)].concat();
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
            (frames.clone(), Form::Pasted),
            ([&frames, &b"#damaged\r\n"[..]].concat(), Form::Pasted),
            (b"#cloud-config\n".to_vec(), Form::CloudConfig),
            (b"#cloud-config\nhostname: node1\n".to_vec(), Form::CloudConfig),
            (format!("console=ttyS0 imprint.payload={base64} quiet\n").into_bytes(), Form::Cmdline),
            (vec![0; 4096], Form::Zeros),
            (vec![0; 3], Form::Zeros),
            (utf16(&format!("\u{feff}{base64}\r\n"), u16::to_le_bytes), Form::Utf16),
            (utf16(&format!("\u{feff}{base64}\r\n"), u16::to_be_bytes), Form::Utf16),
            (utf16(&hex, u16::to_le_bytes), Form::Utf16),
            (utf16(&hex, u16::to_be_bytes), Form::Utf16),
            (format!("\u{feff}{base64}\r\n").into_bytes(), Form::ByteOrderMark),
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
            b"#one-word-of-the-alphabet\n#0123456789\n",
            b"#!/bin/sh\n",
            b"a\0\0\0",
            b"qwAC and so on",
            b"ab0002",
            b"abcdef0123456789",
            b"qwAB, and something that is no base64",
        ] {
            assert_eq!(Form::of(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    /// What is longer than a payload is not read to its end.
    #[test]
    fn the_beginning_is_enough() {
        let long = [TYPICAL, &[7; 100_000]].concat();
        let hex = crate::hex::encode(&long);
        let frame = crate::line::frame::seal_message(b"\x06\x01piece", crate::line::frame::Side::Host, None);
        let frames = frame.repeat(10_000);
        let record = format!("# {}\nname = \"node1\"\n# {}", "é".repeat(100), "é".repeat(60_000));
        let mut iso = vec![0; 400_000];
        iso[32_769..32_774].copy_from_slice(b"CD001");
        for (bytes, form) in [
            (Base64Unpadded::encode_string(&long).into_bytes(), Form::Base64),
            (hex.into_bytes(), Form::Hex),
            (frames, Form::Pasted),
            (record.into_bytes(), Form::Record),
            (iso, Form::Iso9660),
        ] {
            for length in 33 * 1024 - 30..33 * 1024 {
                assert_eq!(Form::of_beginning(&bytes[..length]), Some(form), "{form:?} to {length}");
            }
        }
        assert_eq!(Form::of_beginning(&long[..33 * 1024]), None, "a payload with too much behind it");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100), text in "[qwAB0-9a-f#\\n ]{0,20}") {
            for bytes in [&bytes, text.as_bytes()] {
                let _ = Form::of(bytes);
                let _ = Form::of_beginning(bytes);
            }
        }
    }
}
