//! SHA-512-crypt, the hash `$6$` of crypt(5): "Unix crypt using SHA-256 and SHA-512", version 0.6, U. Drepper. The image need not have a
//! program that makes one. Pure: the caller gives the salt.

use aws_lc_rs::digest::{Context, SHA512, SHA512_OUTPUT_LEN, digest};
use zeroize::{Zeroize, Zeroizing};

/// The rounds where a hash does not name any.
const ROUNDS: u32 = 5000;

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The hash of a password. Each byte of the salt gives one of 64 letters.
pub(super) fn sha512_crypt(password: &[u8], salt: &[u8; 16]) -> Zeroizing<String> {
    let salt = salt.map(letter);
    let sum = Zeroizing::new(rounds(password, &salt));
    // Allocated once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(3 + 16 + 1 + 86));
    text.push_str("$6$");
    text.extend(salt.map(char::from));
    text.push('$');
    // The order of the bytes: 21 triples, in which each number is 21 more than the one before, modulo 63, and the last byte.
    let (mut a, mut b, mut c) = (0, 21, 42);
    for _ in 0..21 {
        encode(&sum, [a, b, c], 4, &mut text);
        (a, b, c) = ((b + 1) % 63, (c + 1) % 63, (a + 1) % 63);
    }
    let last = sum.last().copied().unwrap_or_default();
    text.push(char::from(letter(last & 63)));
    text.push(char::from(letter(last >> 6)));
    text
}

fn letter(value: u8) -> u8 {
    ALPHABET.get(usize::from(value & 63)).copied().unwrap_or(b'.')
}

fn encode(sum: &[u8; SHA512_OUTPUT_LEN], places: [usize; 3], letters: u8, text: &mut String) {
    let byte = |place: usize| u32::from(sum.get(place).copied().unwrap_or_default());
    let [a, b, c] = places;
    let mut bits = byte(a) << 16 | byte(b) << 8 | byte(c);
    for _ in 0..letters {
        let [.., low] = bits.to_be_bytes();
        text.push(char::from(letter(low)));
        bits >>= 6;
    }
}

/// Steps 1 to 21. `salt` is the text of the salt.
fn rounds(password: &[u8], salt: &[u8]) -> [u8; SHA512_OUTPUT_LEN] {
    let mut other = sum(&[password, salt, password]);
    let mut first = Context::new(&SHA512);
    first.update(password);
    first.update(salt);
    repeated(&other, password.len(), |piece| first.update(piece));
    let mut length = password.len();
    while length > 0 {
        first.update(if length & 1 == 1 { &other } else { password });
        length >>= 1;
    }
    let mut a = array(first.finish().as_ref());
    let mut context = Context::new(&SHA512);
    password.iter().for_each(|_| context.update(password));
    let mut of_password = Zeroizing::new(Vec::with_capacity(password.len()));
    repeated(&array(context.finish().as_ref()), password.len(), |piece| of_password.extend_from_slice(piece));
    let mut context = Context::new(&SHA512);
    let times = a.first().map_or(16, |byte| usize::from(*byte).saturating_add(16));
    (0..times).for_each(|_| context.update(salt));
    let mut of_salt = Vec::with_capacity(salt.len());
    repeated(&array(context.finish().as_ref()), salt.len(), |piece| of_salt.extend_from_slice(piece));
    for round in 0..ROUNDS {
        let mut context = Context::new(&SHA512);
        let odd = round % 2 == 1;
        context.update(if odd { &of_password } else { &a });
        if round % 3 != 0 {
            context.update(&of_salt);
        }
        if round % 7 != 0 {
            context.update(&of_password);
        }
        context.update(if odd { &a } else { &of_password });
        a = array(context.finish().as_ref());
    }
    other.zeroize();
    a
}

/// The bytes of `sum`, again and again until there are `length`.
fn repeated(sum: &[u8; SHA512_OUTPUT_LEN], mut length: usize, mut take: impl FnMut(&[u8])) {
    while length > 0 {
        let piece = sum.get(..length).unwrap_or(sum);
        take(piece);
        length = length.saturating_sub(piece.len());
    }
}

fn sum(parts: &[&[u8]]) -> [u8; SHA512_OUTPUT_LEN] {
    array(digest(&SHA512, &Zeroizing::new(parts.concat())).as_ref())
}

fn array(bytes: &[u8]) -> [u8; SHA512_OUTPUT_LEN] {
    bytes.try_into().unwrap_or([0; SHA512_OUTPUT_LEN])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn salt(text: &str) -> [u8; 16] {
        let values: Vec<u8> =
            text.bytes().map(|byte| ALPHABET.iter().position(|letter| *letter == byte).unwrap() as u8).collect();
        values.try_into().unwrap()
    }

    /// An independent program, over lengths around each block of the algorithm.
    #[test]
    fn openssl_makes_the_same_hash() {
        for (number, length) in [1, 2, 3, 8, 15, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255].into_iter().enumerate() {
            let password: String = (0..length).map(|n| char::from(b'!' + ((n * 7 + number) % 90) as u8)).collect();
            let text = format!("S.lt/{number:02}abcdefghi");
            let output =
                Command::new("openssl").args(["passwd", "-6", "-salt", &text, "--", &password]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let theirs = String::from_utf8(output.stdout).unwrap();
            assert_eq!(*sha512_crypt(password.as_bytes(), &salt(&text)), theirs.trim_end(), "{length}");
        }
    }

    /// The algorithm's own test has a shorter salt: "$6$saltstring", "Hello world!".
    #[test]
    fn the_hash_of_the_specification() {
        let sum = rounds(b"Hello world!", b"saltstring");
        let mut text = String::new();
        encode(&sum, [0, 21, 42], 4, &mut text);
        encode(&sum, [22, 43, 1], 4, &mut text);
        assert_eq!(text, "svn8UoSV");
    }
}
