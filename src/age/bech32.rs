//! Bech32 (BIP 173) without its limit of 90 characters, as age writes keys. Never accepts mixed case.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM_LEN: usize = 6;

/// 32 bytes as bech32 in lower case. `prefix` is in lower case.
pub(super) fn encode(prefix: &str, bytes: &[u8; 32]) -> Zeroizing<String> {
    let values = to_values(bytes);
    let check = checksum(prefix, &*values) ^ 1;
    // The capacity is enough for all of it: a buffer that grows would leave a copy of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 1 + values.len() + CHECKSUM_LEN));
    text.push_str(prefix);
    text.push('1');
    let digits = (0..6u32).rev().map(|position| check >> (5 * position) & 31);
    for value in values.iter().map(|value| u32::from(*value)).chain(digits) {
        let digit = usize::try_from(value).ok().and_then(|value| ALPHABET.get(value));
        text.push(char::from(digit.copied().unwrap_or(b'?')));
    }
    text
}

/// The 32 bytes of a text in lower case that `encode` could have written.
pub(super) fn decode(prefix: &str, text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.strip_prefix(prefix)?.strip_prefix('1')?;
    let digits = digits.as_bytes();
    if digits.len() != VALUES + CHECKSUM_LEN {
        return None;
    }
    let mut values = Zeroizing::new([0u8; VALUES + CHECKSUM_LEN]);
    for (value, digit) in values.iter_mut().zip(digits) {
        *value = u8::try_from(ALPHABET.iter().position(|known| known == digit)?).ok()?;
    }
    if polymod(prefix, values.iter().copied()) != 1 {
        return None;
    }
    let mut bytes = Zeroizing::new([0u8; 32]);
    let (mut bits, mut count, mut at) = (0u32, 0u32, 0usize);
    for value in values.iter().take(VALUES) {
        bits = bits << 5 | u32::from(*value);
        count += 5;
        if count >= 8 {
            count -= 8;
            *bytes.get_mut(at)? = u8::try_from(bits >> count & 0xff).ok()?;
            at += 1;
        }
    }
    // The last digit has bits that are not used; they are 0.
    (bits & ((1 << count) - 1) == 0).then_some(bytes)
}

/// How many digits 32 bytes have.
const VALUES: usize = 52;

fn to_values(bytes: &[u8; 32]) -> Zeroizing<[u8; VALUES]> {
    let mut values = Zeroizing::new([0; VALUES]);
    let mut input = bytes.iter();
    let (mut bits, mut count) = (0u32, 0u32);
    for value in values.iter_mut() {
        if count < 5 {
            bits = bits << 8 | u32::from(input.next().copied().unwrap_or(0));
            count += 8;
        }
        count -= 5;
        *value = u8::try_from(bits >> count & 31).unwrap_or_default();
    }
    values
}

fn checksum(prefix: &str, values: &[u8]) -> u32 {
    polymod(prefix, values.iter().copied().chain([0; CHECKSUM_LEN]))
}

/// BIP 173, "Checksum".
fn polymod(prefix: &str, values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    high.chain([0]).chain(low).chain(values).fold(1u32, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR.iter().zip(0..).fold(sum, |sum, (word, bit)| if top >> bit & 1 == 1 { sum ^ word } else { sum })
    })
}
