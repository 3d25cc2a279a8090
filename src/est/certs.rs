//! PKCS#7 certs-only messages (RFC 5652 §5, RFC 7030 §4.1.3) to the certificates in them, byte for byte. Checks nothing
//! about a certificate, not even that it is one.

use base64ct::{Base64, Base64Unpadded, Encoding};
use der::asn1::ObjectIdentifier;
use der::{Decode, Header, Reader, SliceReader, Tag, TagNumber};

use super::EstError;

/// The most certificates that are taken from one answer.
pub const MAX_CERTIFICATES: usize = 32;

/// signedData, RFC 5652 §5.1.
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

/// The certificates of a certs-only message as peers send it: base64 in lines of any length, or DER as it is (RFC 8951
/// §2.1 has senders ignore Content-Transfer-Encoding, so it is not looked at).
pub fn certs_only(body: &[u8]) -> Result<Vec<Vec<u8>>, EstError> {
    let decoded;
    let der = match body.first() {
        _ if body.trim_ascii().is_empty() => return Err(EstError::NotCertsOnly("it is empty".to_owned())),
        // A SEQUENCE. In base64 the first character would be '0' only for bytes that begin with 0xd0 to 0xd3.
        Some(0x30) => body,
        _ => {
            decoded = base64(body).ok_or(EstError::NotBase64)?;
            &decoded
        }
    };
    let certificates = signed_data(der).map_err(|error| EstError::NotCertsOnly(error.to_string()))?;
    match certificates.len() {
        1..=MAX_CERTIFICATES => Ok(certificates.into_iter().map(<[u8]>::to_vec).collect()),
        count => Err(EstError::Count(count)),
    }
}

/// Base64 with any white space in it, padded or not.
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let dense: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let dense = std::str::from_utf8(&dense).ok()?;
    Base64::decode_vec(dense).or_else(|_| Base64Unpadded::decode_vec(dense)).ok()
}

/// Walks the message with `der`'s reader. The `cms` crate would decode each certificate and encode it again, which
/// breaks signatures over anything unusual, and refuses a message that holds one certificate twice.
fn signed_data(der: &[u8]) -> der::Result<Vec<&[u8]>> {
    let mut message = SliceReader::new(der)?;
    let mut content_info = inside(&mut message, Tag::Sequence)?;
    let content_type = ObjectIdentifier::decode(&mut content_info)?;
    if content_type != SIGNED_DATA {
        return Err(der::ErrorKind::OidUnknown { oid: content_type }.into());
    }
    let mut explicit = inside(&mut content_info, CERTIFICATES_OR_CONTENT)?;
    let mut signed_data = inside(&mut explicit, Tag::Sequence)?;
    inside(&mut signed_data, Tag::Integer)?; // version
    inside(&mut signed_data, Tag::Set)?; // digestAlgorithms
    inside(&mut signed_data, Tag::Sequence)?; // encapContentInfo
    if signed_data.is_finished() || signed_data.peek_tag()? != CERTIFICATES_OR_CONTENT {
        return Ok(Vec::new());
    }
    let mut set = inside(&mut signed_data, CERTIFICATES_OR_CONTENT)?;
    let mut certificates = Vec::new();
    while !set.is_finished() {
        let is_certificate = set.peek_tag()? == Tag::Sequence;
        let element = set.tlv_bytes()?;
        // RFC 5652 §10.2.2: other choices are attribute certificates and the like.
        if is_certificate {
            certificates.push(element);
        }
    }
    // What follows, CRLs and signers, is empty in a certs-only message and of no use in another.
    Ok(certificates)
}

/// [0], constructed: the content of a ContentInfo, and the certificates of a SignedData.
const CERTIFICATES_OR_CONTENT: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };

/// A reader of the value of the next element, which has this tag.
fn inside<'a>(reader: &mut SliceReader<'a>, tag: Tag) -> der::Result<SliceReader<'a>> {
    let header = Header::decode(reader)?;
    header.tag.assert_eq(tag)?;
    SliceReader::new(reader.read_slice(header.length)?)
}
