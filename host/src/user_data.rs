//! Writes a payload as text for the user data of a cloud instance: base64 in armour, alone or as a part of a MIME multipart
//! (RFC 2046 §5.1). Pure: bytes to bytes.

use base64ct::{Base64, Encoding};
use imprint::medium::ARMOUR;
use zeroize::Zeroizing;

/// The most bytes of user data that OpenStack takes: 65535 characters, in base64 (nova, `MAX_USERDATA_SIZE`).
pub const OPENSTACK_MAX: usize = 65_535 / 4 * 3;

/// Characters of a line (RFC 2045 §6.8).
const COLUMNS: usize = 76;

/// A text that is never a line of base64 or of armour.
const BOUNDARY: &str = "imprint-payload";

/// The payload in armour: a line that begins it, base64 in lines, and a line that ends it. Wiped on drop, as the
/// payload is secret.
pub fn armour(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = Zeroizing::new(Base64::encode_string(payload));
    let lines = text.len().div_ceil(COLUMNS);
    // Allocated once: a vector that grows leaves copies of secrets in memory.
    let mut out = Zeroizing::new(Vec::with_capacity(text.len().saturating_add(lines).saturating_add(100)));
    out.extend_from_slice(format!("-----BEGIN {ARMOUR}-----\n").as_bytes());
    for line in text.as_bytes().chunks(COLUMNS) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {ARMOUR}-----\n").as_bytes());
    out
}

/// A multipart with the armour as its one part. The same payload gives the same bytes.
pub fn multipart(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let armour = armour(payload);
    let head = format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n\
         --{BOUNDARY}\nContent-Type: application/x-imprint-payload\nContent-Transfer-Encoding: 7bit\n\n"
    );
    let tail = format!("\n--{BOUNDARY}--\n");
    let length = [head.len(), armour.len(), tail.len()].iter().sum();
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    for part in [head.as_bytes(), armour.as_slice(), tail.as_bytes()] {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change it: clouds hold such texts.
    #[test]
    fn frozen() {
        let armoured = "-----BEGIN IMPRINT PAYLOAD-----\ncGF5bG9hZA==\n-----END IMPRINT PAYLOAD-----\n";
        assert_eq!(armour(b"payload")[..], *armoured.as_bytes());
        let message = format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"imprint-payload\"\n\n--imprint-payload\n\
             Content-Type: application/x-imprint-payload\nContent-Transfer-Encoding: 7bit\n\n{armoured}\n\
             --imprint-payload--\n"
        );
        assert_eq!(multipart(b"payload")[..], *message.as_bytes());
    }

    /// Lengths around the end of a line, and none.
    #[test]
    fn lines_have_76_columns() {
        for length in [0, 56, 57, 58, 114, 65_536] {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let text = String::from_utf8(armour(&bytes).to_vec()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let [_, body @ .., _] = lines.as_slice() else { panic!("{text}") };
            assert_eq!(body.len(), Base64::encode_string(&bytes).len().div_ceil(76));
            assert!(body.iter().rev().skip(1).all(|line| line.len() == 76), "{text}");
            assert_eq!(Base64::decode_vec(&body.concat()).unwrap(), bytes);
        }
    }
}
