//! Takes the certificates out of PKCS#7 certs-only messages (RFC 5652 §5, RFC 7030 §4.1.3), byte for byte. Never checks
//! a certificate, not even that it is one.

use base64ct::{Base64, Base64Unpadded, Encoding};

use super::EstError;

/// The most certificates that are taken from one answer.
pub const MAX_CERTIFICATES: usize = 32;

/// The certificates of a certs-only message, in all forms that servers send: base64 in lines of any length, or raw
/// bytes; DER, or BER with indefinite lengths, as Bouncy Castle writes it; or certificates without a message around
/// them. Content-Transfer-Encoding is ignored (RFC 8951 §3).
pub fn certs_only(body: &[u8]) -> Result<Vec<Vec<u8>>, EstError> {
    let decoded: Vec<Vec<u8>> = match body.first() {
        _ if body.trim_ascii().is_empty() => return Err(EstError::NotCertsOnly("it is empty".into())),
        // A SEQUENCE. Base64 text begins with this byte, '0', only for bytes that begin with 0xd0 to 0xd3.
        Some(0x30) => vec![body.to_vec()],
        _ => pieces(body).into_iter().map(base64).collect::<Option<_>>().ok_or(EstError::NotBase64)?,
    };
    let mut certificates: Vec<Vec<u8>> = Vec::new();
    for der in &decoded {
        let found =
            if is_certificate(der) { vec![der.as_slice()] } else { signed_data(der).map_err(not_certs_only)? };
        certificates.extend(found.into_iter().map(<[u8]>::to_vec));
    }
    match certificates.len() {
        1..=MAX_CERTIFICATES => Ok(certificates),
        count => Err(EstError::Count(count)),
    }
}

fn not_certs_only(why: &str) -> EstError {
    EstError::NotCertsOnly(why.into())
}

/// Whether this is a certificate without a message around it, which some servers send: a certificate's first element is
/// a SEQUENCE, a message's is an OBJECT IDENTIFIER. Bytes behind the certificate are ignored here: its decoder
/// refuses them.
fn is_certificate(der: &[u8]) -> bool {
    Element::read(der, 0).is_ok_and(|whole| whole.tag == SEQUENCE && whole.value.first() == Some(&SEQUENCE))
}

/// The text between the BEGIN and END lines of a PEM file (RFC 7468), one piece for each pair. Servers built around
/// openssl's commands send PEM. Any other body is one piece.
fn pieces(body: &[u8]) -> Vec<&[u8]> {
    let Some(text) = std::str::from_utf8(body).ok().filter(|text| text.contains("-----BEGIN ")) else {
        return vec![body];
    };
    let parts = text.split("-----BEGIN ").skip(1);
    // A part without an END line stays as it is. It is not base64, so it is refused.
    parts.map(|part| inside_of(part).unwrap_or(part.as_bytes())).collect()
}

fn inside_of(part: &str) -> Option<&[u8]> {
    let (_, text) = part.split_once('\n')?;
    Some(text.split_once("-----END ")?.0.as_bytes())
}

/// Base64 with any white space in it, padded or not.
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let dense: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let dense = std::str::from_utf8(&dense).ok()?;
    Base64::decode_vec(dense).or_else(|_| Base64Unpadded::decode_vec(dense)).ok()
}

/// Walks the message without a library. The `cms` crate decodes each certificate and encodes it again, which breaks the
/// signature of an unusual one, and refuses a message that holds one certificate twice. The `der` crate takes no
/// indefinite lengths, which Bouncy Castle writes.
fn signed_data(message: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let (content_info, _) = inside(message, SEQUENCE, "expected a SEQUENCE (ContentInfo)")?;
    let (content_type, rest) = inside(content_info, OBJECT_IDENTIFIER, "expected an OBJECT IDENTIFIER (contentType)")?;
    if content_type != SIGNED_DATA {
        return Err("contentType is not signedData");
    }
    let (explicit, _) = inside(rest, CONTEXT_0, "expected [0] (the content)")?;
    let (signed_data, _) = inside(explicit, SEQUENCE, "expected a SEQUENCE (SignedData)")?;
    let (_, rest) = inside(signed_data, INTEGER, "expected an INTEGER (version)")?;
    let (_, rest) = inside(rest, SET, "expected a SET (digestAlgorithms)")?;
    let (_, rest) = inside(rest, SEQUENCE, "expected a SEQUENCE (encapContentInfo)")?;
    if rest.first() != Some(&CONTEXT_0) {
        return Ok(Vec::new());
    }
    let (mut set, _) = inside(rest, CONTEXT_0, "expected [0] (the certificates)")?;
    let mut certificates = Vec::new();
    while !set.is_empty() {
        let element = Element::read(set, 0)?;
        // RFC 5652 §10.2.2: other choices are attribute certificates and the like.
        if element.tag == SEQUENCE {
            certificates.push(element.whole);
        }
        set = element.rest;
    }
    // CRLs and signers follow. They are empty in a certs-only message, and of no use in any other.
    Ok(certificates)
}

/// signedData, RFC 5652 §5.1: the value of the OBJECT IDENTIFIER 1.2.840.113549.1.7.2.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];

// Identifier octets (X.690 §8.1.2).
const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// [0], constructed: the content of a ContentInfo, and the certificates of a SignedData.
const CONTEXT_0: u8 = 0xa0;

/// The value of the first element, which must have this tag, and the bytes behind the element.
fn inside<'a>(bytes: &'a [u8], tag: u8, want: &'static str) -> Result<(&'a [u8], &'a [u8]), &'static str> {
    let element = Element::read(bytes, 0)?;
    if element.tag == tag { Ok((element.value, element.rest)) } else { Err(want) }
}

/// One element in BER (X.690 §8.1), with a tag of one byte.
struct Element<'a> {
    tag: u8,
    value: &'a [u8],
    whole: &'a [u8],
    rest: &'a [u8],
}

/// The most elements of indefinite length inside one another. A message has 5. Its certificates are DER and have none.
const MAX_DEPTH: usize = 8;

impl<'a> Element<'a> {
    fn read(bytes: &'a [u8], depth: usize) -> Result<Element<'a>, &'static str> {
        const SHORT: &str = "it is cut short";
        let (&[tag, first], rest) = bytes.split_first_chunk().ok_or(SHORT)?;
        let (value, rest) = match first {
            0x80 => return Element::until_end_of_contents(bytes, tag, rest, depth),
            0..0x80 => rest.split_at_checked(usize::from(first)).ok_or(SHORT)?,
            _ => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(SHORT)?;
                let length = length.iter().try_fold(0usize, |all, byte| {
                    all.checked_mul(256).and_then(|all| all.checked_add(usize::from(*byte)))
                });
                rest.split_at_checked(length.ok_or(SHORT)?).ok_or(SHORT)?
            }
        };
        let whole = bytes.get(..bytes.len().saturating_sub(rest.len())).unwrap_or_default();
        Ok(Element { tag, value, whole, rest })
    }

    /// X.690 §8.1.3.6: the contents end with an element of two zero bytes.
    fn until_end_of_contents(
        bytes: &'a [u8],
        tag: u8,
        contents: &'a [u8],
        depth: usize,
    ) -> Result<Element<'a>, &'static str> {
        if depth >= MAX_DEPTH {
            return Err("elements of indefinite length are nested too deep");
        }
        let mut at = contents;
        loop {
            if let Some(rest) = at.strip_prefix(&[0, 0]) {
                let value = contents.get(..contents.len().saturating_sub(at.len())).unwrap_or_default();
                let whole = bytes.get(..bytes.len().saturating_sub(rest.len())).unwrap_or_default();
                return Ok(Element { tag, value, whole, rest });
            }
            at = Element::read(at, depth + 1)?.rest;
        }
    }
}
