//! Hides hashes of passwords in what people are shown: exactly what crypt(5) makes, as a field of its own, and nothing else, so that
//! nobody hides a command in the shape of one. Changes nothing.

use imprint::digest::sha256;
use imprint::hex;

/// Longer than every hash: a yescrypt one with the longest parameters and salt.
const LONGEST: usize = 192;
/// How many bytes of the digest are shown: so many that nobody finds two hashes that look the same.
const SHOWN: usize = 16;

/// Masks hashes of passwords. Equal ones look equal and others differ, so that a change is seen. The salt is hidden, too: with it and
/// the digest anybody could try passwords.
pub(super) fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut begins = true;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        begins = before.chars().next_back().map_or(begins, begins_field);
        let length = if begins { hash(from) } else { None };
        let (word, after) = from.split_at_checked(length.unwrap_or(1)).unwrap_or((from, ""));
        if length.is_some() {
            let digest = hex::encode(sha256(word.as_bytes()).get(..SHOWN).unwrap_or_default());
            out.push_str(&format!("[hash of a password, {digest}]"));
        } else {
            out.push_str(word);
        }
        (rest, begins) = (after, false);
    }
    out.push_str(rest);
    out
}

/// Whether a text has a hash that [`masked`] hides.
pub(super) fn hides(text: &str) -> bool {
    masked(text) != text
}

fn begins_field(before: char) -> bool {
    matches!(before, '\n' | '\r' | ' ' | '\t' | ':' | '=' | '"' | '\'')
}

fn ends_field(after: char) -> bool {
    matches!(after, '\n' | '\r' | ' ' | '\t' | ':' | '"' | '\'')
}

/// The length of the hash that the text begins with, if that is all of its first field.
fn hash(text: &str) -> Option<usize> {
    let shape = ["$6$", "$5$", "$y$", "$gy$", "$7$", "$2b$", "$2y$"].into_iter().find(|id| text.starts_with(id))?;
    let (length, after) = match text.char_indices().take(LONGEST.saturating_add(1)).find(|(_, c)| ends_field(*c)) {
        Some((at, _)) => (at, true),
        None => (text.len(), false),
    };
    let word = text.get(..length).filter(|word| after || word.len() <= LONGEST)?;
    let parts: Vec<&str> = word.strip_prefix(shape)?.split('$').collect();
    let is = match (shape, parts.as_slice()) {
        ("$6$", [salt, hash]) => is_of(salt, 1, 16) && is_of(hash, 86, 86),
        ("$6$", [rounds, salt, hash]) => are_rounds(rounds) && is_of(salt, 1, 16) && is_of(hash, 86, 86),
        ("$5$", [salt, hash]) => is_of(salt, 1, 16) && is_of(hash, 43, 43),
        ("$5$", [rounds, salt, hash]) => are_rounds(rounds) && is_of(salt, 1, 16) && is_of(hash, 43, 43),
        // The longest parameters that crypt(3) writes: a flavour and seven numbers.
        ("$y$" | "$gy$", [parameters, salt, hash]) => {
            is_of(parameters, 1, 43) && is_of(salt, 0, 86) && is_of(hash, 43, 43)
        }
        // Eleven characters of parameters, and the salt directly after them.
        ("$7$", [salt, hash]) => is_of(salt, 11, 97) && is_of(hash, 43, 43),
        ("$2b$" | "$2y$", [cost, rest]) => {
            cost.len() == 2 && cost.bytes().all(|b| b.is_ascii_digit()) && is_of(rest, 53, 53)
        }
        _ => false,
    };
    is.then_some(length)
}

/// Whether this has so many characters of crypt's own base64.
fn is_of(part: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/'))
}

/// `rounds=N`
fn are_rounds(part: &str) -> bool {
    let number = part.strip_prefix("rounds=").unwrap_or_default();
    (1..=9).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes() -> Vec<String> {
        let (long, short, bcrypt) = ("aB3./".repeat(18), "aB3./".repeat(9), "aB3./".repeat(11));
        let (long, short, bcrypt) = (&long[..86], &short[..43], &bcrypt[..53]);
        vec![
            format!("$6$abcdefgh${long}"),
            format!("$6$rounds=500000$0123456789./abCD${long}"),
            format!("$5$a${short}"),
            format!("$5$rounds=1000$abcdefgh${short}"),
            format!("$y$j9T$F5Jx5fExrKuPp53xLKQ..1${short}"),
            format!("$gy$jCT${}${short}", "x".repeat(86)),
            format!("$7$CU..../....{}${short}", "y".repeat(22)),
            format!("$2b$12${bcrypt}"),
            format!("$2y$05${bcrypt}"),
        ]
    }

    /// The attack: a command in a new file that looks like a hash of a password, so that the administrator who approves it does not see
    /// what it is.
    #[test]
    fn what_only_begins_like_a_hash_is_shown_in_full() {
        let mut plain = vec![
            "* * * * * root $1$Z/opt/x/reverse-shell.evil-example.com=4444\n".to_owned(),
            "* * * * * root $5$Z/opt/x/reverse-shell.evil-example.com=4444\n".to_owned(),
            "PATH=$HOME/bin:$PATH\n".to_owned(),
            "$1 $2\n".to_owned(),
            "costs $5$\n".to_owned(),
            "$".to_owned(),
            "$y$".to_owned(),
        ];
        for hash in hashes() {
            // One character more, fewer, of another alphabet, or within a longer word.
            let fewer = hash.strip_suffix(|_| true).unwrap_or_default();
            plain.extend([
                format!("x {hash}x\n"),
                format!("x {fewer}\n"),
                format!("x {fewer}_\n"),
                format!("x {hash}=x\n"),
                format!("x {hash}$x\n"),
                format!("x {hash};reboot\n"),
                format!("x{hash}\n"),
                format!("/bin/sh;{hash}\n"),
                format!("\u{e4}{hash}"),
            ]);
        }
        let hash = &hashes()[0];
        plain.push(hash.replace("abcdefgh", "abcdefghabcdefghi"));
        plain.push(hash.replace("abcdefgh", ""));
        plain.push(hash.replace("abcdefgh", "abc-efgh"));
        plain.push(hash.replace("abcdefgh", "rounds=0100$abcdefgh"));
        plain.push(hash.replace("abcdefgh", "rounds=1234567890$abcdefgh"));
        plain.push(hash.replace("$6$", "$9$"));
        for plain in plain {
            assert_eq!(masked(&plain), plain);
        }
    }

    /// The attack: a hash whose digest begins as that of the old one, so that the administrator sees no change of root's password.
    #[test]
    fn so_much_of_the_digest_is_shown_that_nobody_finds_two_that_look_the_same() {
        let mut seen = std::collections::BTreeSet::new();
        for hash in hashes() {
            for text in [
                hash.clone(),
                format!("root:{hash}:1::"),
                format!("pass={hash}\r\n"),
                format!("\n{hash}\n"),
                format!("a: '{hash}'"),
                format!("\u{e4} \"{hash}\" {hash}"),
            ] {
                let shown = masked(&text);
                let digest = &hex::encode(&sha256(hash.as_bytes()))[..32];
                assert_eq!(shown, text.replace(&hash, &format!("[hash of a password, {digest}]")));
                assert!(hides(&text));
                seen.insert(digest.to_owned());
            }
        }
        assert_eq!(seen.len(), hashes().len());
    }

    /// A text of one character after the other that begins a hash is not read again for each of them.
    #[test]
    fn a_long_text_is_read_once() {
        for text in ["$6$", "$", ":$6$a", "=$y$\n"] {
            let text = text.repeat(100_000);
            assert_eq!(masked(&text), text);
        }
    }
}
