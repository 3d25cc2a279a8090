//! PEM (RFC 7468): DER to text with 64-column base64. Shared by hand-over and host tool; it does not read PEM.

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

/// One PEM block, `label` as in RFC 7468 (`CERTIFICATE`, `PRIVATE KEY`). Wiped on drop, since it may hold a key.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(Base64::encode_string(der));
    // The capacity is exact or above, so that growing never leaves a copy of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at_checked(64).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
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
}
