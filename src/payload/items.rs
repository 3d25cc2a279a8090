//! Reads CBOR items one after the other, without allocation: heads in their shortest form, byte and text strings, numbers. For
//! messages with one fixed shape: the signed form, and the statement of a bundle. Knows neither.

use super::cbor::{self, DecodeError, Problem};

/// Reads items one after the other.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// What has not been read.
    pub(crate) rest: &'a [u8],
}

/// An error at this offset, in this item.
pub(crate) fn at(offset: usize, place: &str, problem: Problem) -> DecodeError {
    DecodeError { offset, place: place.to_owned(), problem }
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of these bytes.
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, rest: bytes }
    }

    /// How many bytes were read.
    pub(crate) fn offset(&self) -> usize {
        self.bytes.len().saturating_sub(self.rest.len())
    }

    /// Reads the head of an item of this major type. Returns its argument, which has to be in its shortest form.
    pub(crate) fn head(&mut self, place: &str, major: u8, want: &'static str) -> Result<u64, DecodeError> {
        let offset = self.offset();
        let first = *self.rest.first().ok_or_else(|| at(offset, place, Problem::Truncated))?;
        if first >> 5 != major {
            return Err(at(offset, place, Problem::Kind(want)));
        }
        let info = first & 0x1f;
        if info > 27 {
            return Err(at(
                offset,
                place,
                Problem::NotDeterministic("indefinite length, or a number that does not exist"),
            ));
        }
        let (_, argument, rest) = cbor::head(self.rest).ok_or_else(|| at(offset, place, Problem::Truncated))?;
        let shortest = match argument {
            0..=23 => 0..=23,
            24..=0xff => 24..=24,
            0x100..=0xffff => 25..=25,
            0x1_0000..=0xffff_ffff => 26..=26,
            _ => 27..=27,
        };
        if !shortest.contains(&info) {
            return Err(at(offset, place, Problem::NotDeterministic(cbor::NOT_SHORTEST)));
        }
        self.rest = rest;
        Ok(argument)
    }

    /// Reads a byte string.
    pub(crate) fn string(&mut self, place: &str) -> Result<&'a [u8], DecodeError> {
        let length = self.head(place, BYTES, "a byte string")?;
        self.take(place, length)
    }

    /// Reads a text string.
    pub(crate) fn text(&mut self, place: &str) -> Result<&'a str, DecodeError> {
        let length = self.head(place, TEXT, "a text string")?;
        let offset = self.offset();
        let text = std::str::from_utf8(self.take(place, length)?);
        text.map_err(|_| at(offset, place, Problem::Value("not UTF-8".to_owned())))
    }

    /// Reads an unsigned integer.
    pub(crate) fn uint(&mut self, place: &str) -> Result<u64, DecodeError> {
        self.head(place, UINT, "an unsigned integer")
    }

    fn take(&mut self, place: &str, length: u64) -> Result<&'a [u8], DecodeError> {
        let offset = self.offset();
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (string, rest) = split.ok_or_else(|| at(offset, place, Problem::Truncated))?;
        self.rest = rest;
        Ok(string)
    }
}

/// Major type of an unsigned integer (RFC 8949 §3.1).
pub(crate) const UINT: u8 = 0;
/// Major type of a byte string.
pub(crate) const BYTES: u8 = 2;
/// Major type of a text string.
pub(crate) const TEXT: u8 = 3;
/// Major type of a map.
pub(crate) const MAP: u8 = 5;

/// Appends the head of an item of this major type, in its shortest form.
pub(crate) fn put_head(bytes: &mut Vec<u8>, major: u8, argument: u64) {
    let [a, b, c, d, e, f, g, h] = argument.to_be_bytes();
    let major = major << 5;
    match argument {
        0..=23 => bytes.push(major | h),
        24..=0xff => bytes.extend([major | 24, h]),
        0x100..=0xffff => bytes.extend([major | 25, g, h]),
        0x1_0000..=0xffff_ffff => bytes.extend([major | 26, e, f, g, h]),
        _ => bytes.extend([major | 27, a, b, c, d, e, f, g, h]),
    }
}

/// Appends a byte string.
pub(crate) fn put_bytes(bytes: &mut Vec<u8>, string: &[u8]) {
    put_head(bytes, BYTES, u64::try_from(string.len()).unwrap_or(u64::MAX));
    bytes.extend_from_slice(string);
}
