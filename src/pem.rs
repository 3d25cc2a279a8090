//! PEM (RFC 7468): DER to text with 64-column base64, and back. Hand-over, renewal and the host tool share it. Never
//! reads the DER itself.

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

/// One PEM block, `label` as in RFC 7468 (`CERTIFICATE`, `PRIVATE KEY`). Wiped on drop, since it may hold a key.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(Base64::encode_string(der));
    // The capacity is enough for all of the text: a buffer that grows would leave a copy of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    wrap(&body, &mut text);
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Appends base64 in lines of 64 columns, as RFC 7468 §2 has them and some EST clients and servers want them. A text for
/// secrets has room for all of it beforehand.
pub fn wrap(base64: &str, text: &mut String) {
    let mut rest = base64;
    while !rest.is_empty() {
        let (line, tail) = rest.split_at_checked(64).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
}

/// Every block with this label, in order; text outside the blocks is ignored. `None` if a block does not end or is not
/// base64. Wiped on drop, since it may be a key.
pub fn decode(label: &str, text: &str) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while lines.by_ref().any(|line| line == begin) {
        // The capacity is more than enough: a buffer that grows would leave a copy of a key behind.
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        loop {
            match lines.next()? {
                line if line == end => break,
                line => body.push_str(line),
            }
        }
        blocks.push(Zeroizing::new(Base64::decode_vec(&body).ok()?));
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_64() {
        let text = encode("CERTIFICATE", &[0; 49]);
        assert_eq!(
            text.as_str(),
            format!("-----BEGIN CERTIFICATE-----\n{}\nAA==\n-----END CERTIFICATE-----\n", "A".repeat(64))
        );
    }

    #[test]
    fn reads_what_it_writes() {
        let text = encode("X", &[7; 49]).to_string() + "noise\n" + &encode("Y", b"y") + &encode("X", b"x");
        let blocks: Vec<Vec<u8>> = decode("X", &text).unwrap().iter().map(|block| block.to_vec()).collect();
        assert_eq!(blocks, [vec![7; 49], b"x".to_vec()]);
        assert_eq!(decode("Z", &text), Some(Vec::new()));
        assert_eq!(decode("X", "-----BEGIN X-----\nAA==\n"), None, "without an end");
        assert_eq!(decode("X", "-----BEGIN X-----\n%\n-----END X-----\n"), None, "not base64");
    }
}
