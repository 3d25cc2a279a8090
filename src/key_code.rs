//! The code of a public key, for people to compare. Never makes a key.

use std::fmt;

use crate::digest::sha256;

/// The first 80 bits of SHA-256(SubjectPublicKeyInfo). An administrator compares the code on the node's console with
/// the server's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyCode([u8; 10]);

impl KeyCode {
    /// The code of a SubjectPublicKeyInfo in DER.
    pub fn of(spki: &[u8]) -> KeyCode {
        let mut code = [0; 10];
        for (to, from) in code.iter_mut().zip(sha256(spki)) {
            *to = from;
        }
        KeyCode(code)
    }
}

/// Four groups of four Crockford base32 characters: `7K3M-Q0ZT-N4V8-XW1C`.
impl fmt::Display for KeyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let bits = self.0.iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
        for position in 0..16u32 {
            if position % 4 == 0 && position != 0 {
                f.write_str("-")?;
            }
            let digit = usize::try_from(bits >> (75 - 5 * position) & 31).unwrap_or_default();
            let symbol = ALPHABET.get(digit).copied().unwrap_or(b'?');
            write!(f, "{}", char::from(symbol))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change it: the console and the server would show different codes.
    #[test]
    fn frozen_key_code() {
        // python3: the first 10 bytes of hashlib.sha256(b"abc") as 16 digits of Crockford base32
        assert_eq!(KeyCode::of(b"abc").to_string(), "Q9W1-DFWF-077Y-MGA1");
    }
}
