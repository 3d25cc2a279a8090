//! Takes a MIME message (RFC 2045, RFC 2046) apart, as cloud-init does: nested multiparts, and the transfer encodings.
//! Whoever wrote the message vouches for it, so its depth and its number of parts are limited. Knows nothing of
//! payloads. Never allocates much more than the message is long.

use base64ct::{Base64Unpadded, Encoding};
use zeroize::Zeroizing;

use crate::order;

/// How deep multiparts may be nested, and how many parts there may be. Beyond that, parts are passed over.
const MAX_DEPTH: usize = 8;
const MAX_PARTS: usize = 256;

/// How much of a message was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    /// The bytes are not a MIME message.
    NoMime,
    /// Every part.
    Whole,
    /// Not the parts beyond the limits.
    Some,
}

/// Calls `each` with the decoded content of every part that is not a multipart.
pub(super) fn each_part(bytes: &[u8], each: &mut dyn FnMut(&[u8])) -> Read {
    // A line of this form stands before a message in a mailbox, and in some templates for user data.
    let bytes = match bytes.strip_prefix(b"From ") {
        Some(rest) => {
            rest.iter().position(|byte| *byte == b'\n').and_then(|end| rest.get(end + 1..)).unwrap_or_default()
        }
        None => bytes,
    };
    let Some(message) = Entity::parse(bytes).filter(|message| message.is_mime) else { return Read::NoMime };
    let mut left = MAX_PARTS;
    if message.parts(MAX_DEPTH, &mut left, each) { Read::Whole } else { Read::Some }
}

/// A header and a body.
struct Entity<'a> {
    /// A header field says that this is MIME.
    is_mime: bool,
    /// The boundary of a multipart, without the dashes before it. `None`: this is not a multipart.
    boundary: Option<Vec<u8>>,
    encoding: Encoded,
    body: &'a [u8],
}

/// RFC 2045 §6
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoded {
    Not,
    Base64,
    QuotedPrintable,
}

impl Entity<'_> {
    /// Reads the header. `None`: a line of it is not a header field.
    fn parse(bytes: &[u8]) -> Option<Entity<'_>> {
        let mut entity = Entity { is_mime: false, boundary: None, encoding: Encoded::Not, body: &[] };
        let mut rest = bytes;
        let mut field: Vec<u8> = Vec::new();
        loop {
            let (line, after) = split_line(rest);
            let continues = line.starts_with(b" ") || line.starts_with(b"\t");
            if !continues {
                entity.take(&field)?;
                field.clear();
            }
            if line.trim_ascii().is_empty() {
                entity.body = after;
                return Some(entity);
            }
            field.extend_from_slice(line);
            rest = after;
        }
    }

    /// Takes a header field, unfolded.
    fn take(&mut self, field: &[u8]) -> Option<()> {
        if field.is_empty() {
            return Some(());
        }
        let at = field.iter().position(|byte| *byte == b':')?;
        let (name, value) = (field.get(..at)?, field.get(at + 1..)?.trim_ascii());
        // RFC 5322 §2.2: printable characters except blank and colon.
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"mime-version") {
            self.is_mime = true;
        } else if name.eq_ignore_ascii_case(b"content-type") {
            self.is_mime = true;
            let multipart = value.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/"));
            self.boundary = if multipart { boundary(value) } else { None };
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            self.encoding = match value {
                value if value.eq_ignore_ascii_case(b"base64") => Encoded::Base64,
                value if value.eq_ignore_ascii_case(b"quoted-printable") => Encoded::QuotedPrintable,
                _ => Encoded::Not,
            };
        }
        Some(())
    }

    /// Returns whether all of them were read.
    fn parts(&self, depth: usize, left: &mut usize, each: &mut dyn FnMut(&[u8])) -> bool {
        let Some(boundary) = &self.boundary else {
            let Some(fewer) = left.checked_sub(1) else { return false };
            *left = fewer;
            match self.encoding {
                Encoded::Not => each(self.body),
                Encoded::Base64 => each(&base64(self.body)),
                Encoded::QuotedPrintable => each(&quoted_printable(self.body)),
            }
            return true;
        };
        if depth == 0 {
            return false;
        }
        let mut whole = true;
        let (mut rest, mut start) = (self.body, None);
        // RFC 2046 §5.1.1: text before the first delimiter and behind the last is not a part.
        while !rest.is_empty() && whole {
            let at = self.body.len() - rest.len();
            let (line, after) = split_line(rest);
            rest = after;
            let end = match delimiter(line, boundary) {
                None if rest.is_empty() => self.body.len(),
                None => continue,
                Some(_) => at,
            };
            if let Some(bytes) = start.and_then(|start| self.body.get(start..end)) {
                // RFC 2046 §5.1 wants a blank line before a part without a header. Readers of messages do not insist on
                // it.
                let all = Entity { is_mime: false, boundary: None, encoding: Encoded::Not, body: bytes };
                whole &= Entity::parse(bytes).unwrap_or(all).parts(depth - 1, left, each);
            }
            start = Some(self.body.len() - rest.len());
            if delimiter(line, boundary) == Some(true) {
                break;
            }
        }
        whole
    }
}

/// Whether this delimiter ends the multipart. `None`: the line is not a delimiter of this multipart.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    match line.strip_prefix(b"--")?.strip_prefix(boundary)?.trim_ascii_end() {
        [] => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// The parameter `boundary` of a content type (RFC 2045 §5.1), also in pieces or with its characters encoded (RFC 2231
/// §3 and §4), as Python's email reads it: `boundary*0*=us-ascii''a%20; boundary*1=b`.
fn boundary(value: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut pieces) = (value, Vec::new());
    while let Some((name, word, after)) = parameter(rest) {
        rest = after;
        let Some((name, kind)) = name.split_at_checked(8) else { continue };
        if !name.eq_ignore_ascii_case(b"boundary") {
            continue;
        }
        if kind.is_empty() {
            return Some(word).filter(|word| !word.is_empty());
        }
        let Some((number, encoded)) = piece(kind) else { continue };
        // RFC 2046 §5.1.1: a boundary has 70 characters at most.
        if pieces.len() == 70 {
            return None;
        }
        let word = match (encoded, number) {
            (false, _) => word,
            // What stands before the second quote names a character set and a language.
            (true, 0) => decoded(word.splitn(3, |byte| *byte == b'\'').nth(2)?),
            (true, _) => decoded(&word),
        };
        pieces.push((number, word));
    }
    order::sort(&mut pieces, |one, other| one.0 < other.0);
    let is_whole = pieces.iter().zip(0..).all(|((number, _), want)| *number == want);
    let word: Vec<u8> = pieces.into_iter().flat_map(|(_, word)| word).collect();
    Some(word).filter(|word| is_whole && !word.is_empty())
}

/// The number of a piece, and whether it is encoded: `*`, `*1`, `*1*`.
fn piece(kind: &[u8]) -> Option<(u32, bool)> {
    let kind = std::str::from_utf8(kind.strip_prefix(b"*")?).ok()?;
    match kind.strip_suffix('*') {
        _ if kind.is_empty() => Some((0, true)),
        Some(number) => Some((number.parse().ok()?, true)),
        None => Some((kind.parse().ok()?, false)),
    }
}

/// RFC 2231 §4: `%20`
fn decoded(text: &[u8]) -> Vec<u8> {
    let (mut word, mut rest) = (Vec::new(), text);
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *byte == b'%').and_then(|code| std::str::from_utf8(code).ok());
        let (byte, after) = match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => (byte, after.get(2..).unwrap_or_default()),
            None => (*byte, after),
        };
        word.push(byte);
        rest = after;
    }
    word
}

/// The first parameter behind a semicolon: its name, its value, and what follows.
fn parameter(value: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let mut rest = value;
    loop {
        let at = rest.iter().position(|byte| *byte == b';')?;
        rest = rest.get(at + 1..)?.trim_ascii_start();
        let equals = rest.iter().position(|byte| matches!(byte, b'=' | b';'))?;
        let name = rest.get(..equals)?.trim_ascii();
        rest = rest.get(equals..)?;
        let Some(text) = rest.strip_prefix(b"=").map(<[u8]>::trim_ascii_start) else { continue };
        let mut word = Vec::new();
        let Some(quoted) = text.strip_prefix(b"\"") else {
            let end = text.iter().position(|byte| *byte == b';' || byte.is_ascii_whitespace()).unwrap_or(text.len());
            return Some((name, text.get(..end)?.to_vec(), text.get(end..)?));
        };
        rest = quoted;
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            match byte {
                b'"' => return Some((name, word, rest)),
                b'\\' => {
                    let (byte, after) = rest.split_first()?;
                    word.push(*byte);
                    rest = after;
                }
                byte => word.push(*byte),
            }
        }
    }
}

/// A line without its end, and what follows. A line ends with LF or CRLF.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (line, after) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..).unwrap_or_default()),
        None => (bytes, &[][..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), after)
}

/// Decodes base64. Characters outside the alphabet are ignored (RFC 2045 §6.8). The incomplete end of a part that was
/// cut short is left out.
fn base64(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len()));
    let digits = bytes.iter().take_while(|byte| **byte != b'=');
    text.extend(
        digits.filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).map(|byte| char::from(*byte)),
    );
    let whole = || text.get(..text.len() / 4 * 4).unwrap_or_default();
    let decoded = Base64Unpadded::decode_vec(&text).or_else(|_| Base64Unpadded::decode_vec(whole()));
    Zeroizing::new(decoded.unwrap_or_default())
}

/// Decodes quoted-printable (RFC 2045 §6.7).
fn quoted_printable(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    // One byte more: a last line without an end gets one. A buffer that grows would leave a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(bytes.len().saturating_add(1)));
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        // Programs on the way may have added blanks at the end of a line.
        let line = line.trim_ascii_end();
        let (line, soft) = line.strip_suffix(b"=").map_or((line, false), |line| (line, true));
        let mut left = line;
        while let Some((byte, behind)) = left.split_first() {
            let digit = |at: usize| {
                behind.get(at).and_then(|digit| char::from(*digit).to_digit(16)).and_then(|n| u8::try_from(n).ok())
            };
            left = match (byte, digit(0), digit(1)) {
                (b'=', Some(high), Some(low)) => {
                    text.push(high << 4 | low);
                    behind.get(2..).unwrap_or_default()
                }
                _ => {
                    text.push(*byte);
                    behind
                }
            };
        }
        if !soft {
            text.push(b'\n');
        }
        rest = after;
    }
    text
}
