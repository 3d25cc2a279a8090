//! Matches a device's MODALIAS with the patterns of modules.alias, as fnmatch(3) does and as the kernel writes them: `*`, `?` and
//! `[0-9]`. Pure, and without recursion.

/// Whether all of `text` matches. `-` and `_` are the same outside of brackets, as in libkmod (alias_normalize): `text` is expected to
/// have `_` only.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // What follows the last `*`, and the text that it has not taken yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        let taken = match pattern.split_first() {
            Some((b'*', rest)) => {
                star = Some((rest, text));
                pattern = rest;
                continue;
            }
            Some(_) => one(pattern, text),
            None if text.is_empty() => return true,
            None => None,
        };
        if let Some(rest) = taken {
            (pattern, text) = rest;
            continue;
        }
        // The last `*` takes a byte more. Earlier ones need not: what stood between them was found as early as it could be.
        let Some((behind, left)) = star else { return false };
        let Some((_, left)) = left.split_first() else { return false };
        star = Some((behind, left));
        (pattern, text) = (behind, left);
    }
}

/// Takes one byte of the text by what the pattern begins with. Returns what is left of both.
fn one<'p, 't>(pattern: &'p [u8], text: &'t [u8]) -> Option<(&'p [u8], &'t [u8])> {
    let (byte, left) = text.split_first()?;
    let (first, rest) = pattern.split_first()?;
    let rest = match first {
        b'?' => rest,
        b'[' => match set(rest, *byte) {
            Some((true, rest)) => rest,
            Some((false, _)) => return None,
            // A bracket that is not closed stands for itself.
            None => Some(rest).filter(|_| *byte == b'[')?,
        },
        b'\\' => {
            let (escaped, rest) = rest.split_first()?;
            Some(rest).filter(|_| same(*escaped, *byte))?
        }
        other => Some(rest).filter(|_| same(*other, *byte))?,
    };
    Some((rest, left))
}

fn same(pattern: u8, byte: u8) -> bool {
    let normal = |byte| if byte == b'-' { b'_' } else { byte };
    normal(pattern) == normal(byte)
}

/// Whether a set has the byte, and what follows the set. `set` begins behind its `[`. `None`: the set is not closed.
fn set(set: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (not, mut rest) = match set.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, set),
    };
    let (mut found, mut first) = (false, true);
    loop {
        let (from, behind) = rest.split_first()?;
        // A `]` at the beginning stands for itself.
        if *from == b']' && !first {
            return Some((found != not, behind));
        }
        first = false;
        rest = match behind {
            [b'-', to, behind @ ..] if *to != b']' => {
                found |= (*from..=*to).contains(&byte);
                behind
            }
            _ => {
                found |= *from == byte;
                behind
            }
        };
    }
}
