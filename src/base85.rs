//! Bytes to printable characters and back: base 85 with four bytes in five characters, an alphabet of imprint's own,
//! and a short last group. Knows no frames.
//!
//! The alphabet is that of Z85 (ZeroMQ RFC 32) with two changes: `,` for `&`, which is conman's escape character, and
//! `_` for `#`, which begins a frame. The alphabet has no control character, no space and none of " # & ' ; \ ` | ~

/// Digit values in order.
pub const ALPHABET: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?,<>()[]{}@%$_";

/// Marks a byte that is not in the alphabet.
const NONE: u8 = 0xff;

/// The digit that a character stands for, or [`NONE`].
const DIGITS: [u8; 256] = digits();

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)] // evaluated by the compiler
const fn digits() -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut digit = 0;
    while digit < ALPHABET.len() {
        table[ALPHABET[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
}

/// Whether a byte may be part of what [`encode`] writes.
pub fn is_digit(byte: u8) -> bool {
    DIGITS.get(usize::from(byte)).is_some_and(|digit| *digit != NONE)
}

/// How many characters `bytes` bytes become.
pub const fn encoded_len(bytes: usize) -> usize {
    let rest = bytes % 4;
    bytes / 4 * 5 + if rest == 0 { 0 } else { rest + 1 }
}

/// Appends the characters for `bytes`. Each group of four is a big-endian number, most significant digit first; one to
/// three bytes at the end are a number of their own with one digit more than bytes.
pub fn encode(bytes: &[u8], text: &mut Vec<u8>) {
    text.reserve(encoded_len(bytes.len()));
    for group in bytes.chunks(4) {
        let mut value = group.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
        let count = group.len().saturating_add(1);
        let mut digits = [0u8; 5];
        for digit in digits.iter_mut().take(count).rev() {
            let index = usize::try_from(value % 85).unwrap_or_default();
            *digit = ALPHABET.get(index).copied().unwrap_or(b'0');
            value /= 85;
        }
        text.extend(digits.iter().take(count));
    }
}

/// The bytes, if every character is in the alphabet and the text is what [`encode`] writes for them.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len().div_ceil(5).checked_mul(4)?);
    for group in text.chunks(5) {
        let mut value = 0u64;
        for character in group {
            let digit = DIGITS.get(usize::from(*character)).copied().filter(|digit| *digit != NONE)?;
            value = value * 85 + u64::from(digit);
        }
        // A last group of one character is not valid.
        let count = group.len().checked_sub(1).filter(|count| *count > 0)?;
        let value = u32::try_from(value).ok()?;
        let shift = 8 * u32::try_from(4 - count).ok()?;
        if count < 4 && value >> (32 - shift) != 0 {
            return None;
        }
        let aligned = value << shift;
        bytes.extend(aligned.to_be_bytes().iter().take(count));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// If this test fails, do not change it: you have changed version 1 of the line protocol.
    #[test]
    fn frozen_alphabet() {
        let mut text = Vec::new();
        // ZeroMQ RFC 32, "Test case": HelloWorld. Its characters are the same in both alphabets.
        encode(&[0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b], &mut text);
        assert_eq!(text, b"HelloWorld");
        text.clear();
        encode(&[0xff; 7], &mut text);
        assert_eq!(text, b"%nSc0rr90");
        assert_eq!(text.len(), encoded_len(7));
    }

    #[test]
    fn what_encode_does_not_write_is_refused() {
        for text in [&b"a"[..], b"HelloW", b"Hell&", b"Hell#", b"Hel o", b"_____", b"%nSc1", b"__", b"___", b"____"] {
            assert_eq!(decode(text), None, "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(decode(b""), Some(vec![]));
    }

    proptest! {
        #[test]
        fn round_trip(bytes: Vec<u8>) {
            let mut text = Vec::new();
            encode(&bytes, &mut text);
            prop_assert_eq!(text.len(), encoded_len(bytes.len()));
            prop_assert!(text.iter().all(|byte| is_digit(*byte)));
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn one_text_for_each_value(text in "[0-9a-zA-Z_$%@]{0,40}") {
            if let Some(bytes) = decode(text.as_bytes()) {
                let mut again = Vec::new();
                encode(&bytes, &mut again);
                prop_assert_eq!(again, text.as_bytes());
            }
        }
    }
}
