//! The encrypted stream of an age file: STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) with ChaCha20-Poly1305 in chunks of
//! 64 KiB, in memory. Never gives out a part of what it could not verify to the end.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::AgeError;

/// How many bytes of the text a chunk has; the last one has fewer or as many.
pub(super) const CHUNK: usize = 64 * 1024;
pub(super) const TAG_LEN: usize = 16;

/// Appends the chunks. The caller has made room for them.
pub(super) fn encrypt(plain: &[u8], key: &Zeroizing<[u8; 32]>, file: &mut Vec<u8>) -> Result<(), AgeError> {
    let key = cipher(key)?;
    let mut counter = 0u64;
    let mut rest = plain;
    loop {
        let (chunk, behind) = rest.split_at_checked(CHUNK).unwrap_or((rest, &[]));
        let begin = file.len();
        file.extend_from_slice(chunk);
        let text = file.get_mut(begin..).unwrap_or_default();
        match key.seal_in_place_separate_tag(nonce(counter, behind.is_empty()), Aad::empty(), text) {
            Ok(tag) => file.extend_from_slice(tag.as_ref()),
            Err(_) => {
                text.zeroize();
                return Err(AgeError::Library);
            }
        }
        if behind.is_empty() {
            return Ok(());
        }
        rest = behind;
        counter = counter.saturating_add(1);
    }
}

/// Decrypts all chunks.
pub(super) fn decrypt(stream: &[u8], key: &Zeroizing<[u8; 32]>) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    check_len(stream.len())?;
    let key = cipher(key)?;
    // It has room for all of it: a buffer that grows would leave a copy of a secret behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(stream.len()));
    let (mut counter, mut number, mut rest) = (0u64, 1usize, stream);
    loop {
        let (chunk, behind) = rest.split_at_checked(CHUNK + TAG_LEN).unwrap_or((rest, &[]));
        let begin = plain.len();
        plain.extend_from_slice(chunk);
        let text = plain.get_mut(begin..).unwrap_or_default();
        key.open_in_place(nonce(counter, behind.is_empty()), Aad::empty(), text)
            .map_err(|_| AgeError::Chunk(number))?;
        plain.truncate((begin + chunk.len()).saturating_sub(TAG_LEN));
        if behind.is_empty() {
            return Ok(plain);
        }
        rest = behind;
        counter = counter.saturating_add(1);
        number = number.saturating_add(1);
    }
}

/// Checks that a stream may have this length.
pub(super) fn check_len(length: usize) -> Result<(), AgeError> {
    let (whole, last) = (length / (CHUNK + TAG_LEN), length % (CHUNK + TAG_LEN));
    match last {
        0 if whole == 0 => Err(AgeError::NoLastChunk),
        0 => Ok(()),
        // An empty last chunk is right only where the whole text is empty.
        TAG_LEN if whole > 0 => Err(AgeError::EmptyLastChunk),
        1..TAG_LEN => Err(AgeError::Chunk(whole.saturating_add(1))),
        _ => Ok(()),
    }
}

fn cipher(key: &Zeroizing<[u8; 32]>) -> Result<LessSafeKey, AgeError> {
    UnboundKey::new(&CHACHA20_POLY1305, &**key).map(LessSafeKey::new).map_err(|_| AgeError::Library)
}

/// Eleven bytes of counter, and one that says whether this is the last chunk.
fn nonce(counter: u64, is_last: bool) -> Nonce {
    let [a, b, c, d, e, f, g, h] = counter.to_be_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, a, b, c, d, e, f, g, h, u8::from(is_last)])
}
