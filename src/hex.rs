//! Hexadecimal to and from bytes, for digests, MAC addresses and UUIDs in messages. Never used for secrets.

/// `0a1b2c`
pub fn encode(bytes: &[u8]) -> String {
    separated(bytes, "")
}

/// `0a:1b:2c`, with any separator.
pub fn separated(bytes: &[u8], separator: &str) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(separator)
}

/// 8-4-4-4-12, as sysfs prints a UUID (RFC 9562 §4).
pub fn uuid(bytes: &[u8; 16]) -> String {
    let text = encode(bytes);
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| text.get(range).unwrap_or_default());
    groups.join("-")
}

/// Takes digits of either case; `None` for an odd number of digits or any other character.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        assert_eq!(encode(&[0, 0x9f, 0xff]), "009fff");
        assert_eq!(separated(&[0x52, 0x54, 0], ":"), "52:54:00");
        assert_eq!(decode("009FfF"), Some(vec![0, 0x9f, 0xff]));
        for bad in ["0", "0g", "+1", "é1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
