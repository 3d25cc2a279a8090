//! The code of a public key, for people to compare; and how to tell such a code in the words of somebody who may want people to
//! take his own for it. Never makes a key.

use std::fmt;

use crate::digest::sha256;

/// The first 80 bits of SHA-256(SubjectPublicKeyInfo). An administrator compares the code on the node's console with
/// the server's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyCode([u8; 10]);

impl KeyCode {
    /// The code of a SubjectPublicKeyInfo in DER.
    pub fn of(spki: &[u8]) -> KeyCode {
        KeyCode::of_digest(&sha256(spki))
    }

    /// The code of something whose SHA-256 this is.
    pub fn of_digest(digest: &[u8; 32]) -> KeyCode {
        let mut code = [0; 10];
        for (to, from) in code.iter_mut().zip(digest) {
            *to = *from;
        }
        KeyCode(code)
    }

    /// Whether a text has a code, plain to see, that is not this one.
    pub fn is_contradicted(&self, text: &str) -> bool {
        let own = self.to_string();
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| is_code(word) && !is_same(word, &own))
    }
}

/// Whether a person could read a code out of this text, whatever its case and groups are, and with O, I or L in place of 0 and 1.
/// Better too often than not: whoever asks shows the text to nobody then.
pub fn may_hold_a_code(text: &str) -> bool {
    let mut run = 0_usize;
    let has_digits_of_one = text.chars().filter(char::is_ascii_alphanumeric).any(|c| {
        run = if is_digit(c) { run.saturating_add(1) } else { 0 };
        run >= LENGTH
    });
    let mut short = 0_usize;
    let has_groups = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).any(|word| {
        short = if word.len() <= GROUP { short.saturating_add(word.len()) } else { 0 };
        let any = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
        let mixed = any(u8::is_ascii_alphabetic) && (any(u8::is_ascii_digit) || !any(u8::is_ascii_lowercase));
        word.len() >= LENGTH || short >= LENGTH || word.len() >= GROUP && mixed
    });
    // Letters of other scripts look like these.
    !text.is_ascii() || has_digits_of_one || has_groups
}

/// Whether a word is a code, in either case, with its groups or without.
fn is_code(word: &str) -> bool {
    let digits = word.chars().filter(|c| *c != '-');
    let grouped = word.split('-').all(|group| group.len() == GROUP);
    // Words of a language, with hyphens between, are in lower case and have no digits.
    (grouped || !word.contains('-'))
        && digits.clone().count() == LENGTH
        && digits.clone().all(is_digit)
        && !digits.clone().all(|c| c.is_ascii_lowercase())
}

fn is_same(one: &str, other: &str) -> bool {
    let digits = |code: &str| -> String { code.chars().filter(|c| *c != '-').collect() };
    digits(one).eq_ignore_ascii_case(&digits(other))
}

fn is_digit(c: char) -> bool {
    u8::try_from(c.to_ascii_uppercase()).is_ok_and(|byte| ALPHABET.contains(&byte))
}

/// Crockford's base32.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// How many digits a code has, and a group of it.
const LENGTH: usize = 16;
const GROUP: usize = 4;

/// Four groups of four Crockford base32 characters: `7K3M-Q0ZT-N4V8-XW1C`.
impl fmt::Display for KeyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

    /// Attack: words of a host that bring a code before the eyes of whoever compares, in any form that a person can read.
    #[test]
    fn a_code_is_seen_in_every_disguise() {
        let own = KeyCode::of(b"abc");
        for (text, contradicts) in [
            ("line key 7K3M-Q0ZT-N4V8-XW1C", true),
            ("7k3m-q0zt-n4v8-xw1c", true),
            ("(7K3MQ0ZTN4V8XW1C)", true),
            ("admit ABCD-EFGH-JKMN-PQRS; thank you", true),
            ("7K3M Q0ZT N4V8 XW1C", false),
            ("7K3M, then Q0ZT, then N4V8, then XW1C", false),
            ("7K3M-QOZT-N4V8-XWIC", false),
            ("ABCD-EFGH-JKMN-PQRS-TVWX", false),
            ("abcd-efgh-jkmn-pqrs", false),
            ("abcd efgh jkmn pqrs", false),
            ("abcdefgh jkmnpqrs", false),
            ("a b c d e f g h j k m n p q r s", false),
            ("a.b.c.d.e.f.g.o.j.k.m.n.p.q.r.s", false),
            ("ends with XW1C", false),
            ("ends with ABCD", false),
            ("\u{423}35R-JC8Q", false),
            ("Q9W1-DFWF-077Y-MGA1", false),
        ] {
            assert!(may_hold_a_code(text), "{text}");
            assert_eq!(own.is_contradicted(text), contradicts, "{text}");
        }
        for text in [
            "",
            "an administrator must decide",
            "a moment, to see who else calls and with what",
            "its image names no signer in /imprint/site, or is of an older release: a door sends signed payloads only",
            "this host does not serve it",
        ] {
            assert!(!may_hold_a_code(text), "{text}");
            assert!(!own.is_contradicted(text), "{text}");
        }
    }
}
