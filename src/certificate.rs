//! Reads what a certificate says about itself, for messages and for the choice of a time to verify at. Verifies
//! nothing.

mod anchor;
mod oddity;

use std::fmt;
use std::net::IpAddr;

use der::oid::ObjectIdentifier;
use der::{Decode, Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{CertificateInner, Profile};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::RdnSequence;
use x509_cert::serial_number::SerialNumber;

pub(crate) use anchor::anchors;
pub use oddity::Oddity;
pub(crate) use oddity::{odd_key, oddity, words};

use crate::shown::Printable;
use crate::time::Timestamp;

/// A certificate with a serial number of any length. RFC 5280 §4.1.2.2 allows 20 octets, and some CAs write a whole
/// UUID in letters. Nothing here depends on the serial number.
pub type Certificate = CertificateInner<AnySerial>;

/// See [`Certificate`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnySerial;

impl Profile for AnySerial {
    fn check_serial_number(_: &SerialNumber<AnySerial>) -> der::Result<()> {
        Ok(())
    }
}

/// What a certificate says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFacts {
    /// In the form of RFC 4514.
    pub subject: Printable,
    /// In the form of RFC 4514.
    pub issuer: Printable,
    /// DNS names and addresses.
    pub names: Vec<String>,
    /// First second of its validity.
    pub not_before: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
}

impl CertificateFacts {
    /// `None` when the certificate cannot be read.
    pub fn of(der: &[u8]) -> Option<CertificateFacts> {
        let tbs = Certificate::from_der(der).ok()?.tbs_certificate;
        let names = match tbs.get::<SubjectAltName>() {
            Ok(Some((_, SubjectAltName(names)))) => names.iter().map(shown_name).collect(),
            _ => Vec::new(),
        };
        let at = |time: x509_cert::time::Time| Timestamp::from_secs(time.to_unix_duration().as_secs());
        Some(CertificateFacts {
            subject: Printable::of(&tbs.subject.to_string()),
            issuer: Printable::of(&tbs.issuer.to_string()),
            names,
            not_before: at(tbs.validity.not_before),
            not_after: at(tbs.validity.not_after),
        })
    }
}

/// A subject alternative name as people write it, with its kind: `dns:node1.example.org`. For messages, not for
/// comparison.
pub(crate) fn shown_name(name: &GeneralName) -> String {
    match name {
        GeneralName::DnsName(name) => format!("dns:{}", Printable::of(name.as_str())),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            ip.map_or_else(|_| format!("ip of {} bytes", bytes.len()), |ip| format!("ip:{ip}"))
        }
        GeneralName::UniformResourceIdentifier(uri) => format!("uri:{}", Printable::of(uri.as_str())),
        GeneralName::Rfc822Name(email) => format!("email:{}", Printable::of(email.as_str())),
        GeneralName::DirectoryName(name) => format!("directory:{}", Printable::of(&name.to_string())),
        GeneralName::RegisteredId(id) => format!("id:{id}"),
        GeneralName::OtherName(name) => format!("other:{}", name.type_id),
        GeneralName::EdiPartyName(_) => "edi-party name".to_owned(),
    }
}

/// Whether two names read the same, attribute by attribute. CAs change a UTF8String to a PrintableString and back.
pub(crate) fn same_text(one: &RdnSequence, other: &RdnSequence) -> bool {
    same_parts(one, other, |text| text)
}

/// Like [`same_text`], but upper and lower case are the same, and so are one blank and several (RFC 5280 §7.1). Only for
/// a message that says how two names differ: webpki tells such names apart.
pub(crate) fn nearly_same_text(one: &RdnSequence, other: &RdnSequence) -> bool {
    same_parts(one, other, |text| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" "))
}

fn same_parts(one: &RdnSequence, other: &RdnSequence, fold: fn(String) -> String) -> bool {
    // The text, or else the tag and the bytes.
    type Part = (ObjectIdentifier, Result<String, (Tag, Vec<u8>)>);
    let part = |part: &AttributeTypeAndValue| -> Part {
        let (tag, value) = (part.value.tag(), part.value.value());
        (part.oid, text(tag, value).map(fold).ok_or_else(|| (tag, value.to_vec())))
    };
    let flat =
        |name: &RdnSequence| -> Vec<Vec<Part>> { name.0.iter().map(|rdn| rdn.0.iter().map(part).collect()).collect() };
    flat(one) == flat(other)
}

/// The characters of a string in a name. `None`: the value is not a string, or has bytes that its kind of string
/// forbids.
fn text(tag: Tag, value: &[u8]) -> Option<String> {
    match tag {
        Tag::Utf8String => String::from_utf8(value.to_vec()).ok(),
        Tag::PrintableString | Tag::Ia5String => value.is_ascii().then(|| String::from_utf8_lossy(value).into_owned()),
        // T.61 has its own letters above ASCII, but CAs put Latin-1 there: only ASCII is certain.
        Tag::TeletexString => value.is_ascii().then(|| String::from_utf8_lossy(value).into_owned()),
        // ITU-T X.690 §8.23.9: two bytes a character, the higher one first.
        Tag::BmpString => {
            let (pairs, []) = value.as_chunks::<2>() else { return None };
            pairs.iter().map(|pair| char::from_u32(u16::from_be_bytes(*pair).into())).collect()
        }
        _ => None,
    }
}

/// A certificate in words, for messages.
pub fn shown(der: &[u8]) -> String {
    CertificateFacts::of(der).map_or_else(|| "a certificate that cannot be read".to_owned(), |facts| facts.to_string())
}

/// `CN=est.example.org, for dns:est.example.org, from CN=Other CA, valid 2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z`
impl fmt::Display for CertificateFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = if self.subject.is_empty() { "without a subject" } else { self.subject.as_str() };
        write!(f, "{subject}")?;
        if !self.names.is_empty() {
            let more = self.names.len().saturating_sub(5);
            write!(f, ", for {}", self.names.iter().take(5).cloned().collect::<Vec<_>>().join(", "))?;
            if more != 0 {
                write!(f, " and {more} more")?;
            }
        }
        write!(f, ", from {}, valid {} to {}", self.issuer, self.not_before, self.not_after)
    }
}

#[cfg(test)]
mod tests {
    use der::Any;
    use x509_cert::attr::AttributeValue;
    use x509_cert::name::RelativeDistinguishedName;

    use super::*;

    fn name(tag: Tag, bytes: &[u8]) -> RdnSequence {
        let oid = ObjectIdentifier::new_unwrap("2.5.4.3");
        let value: AttributeValue = Any::new(tag, bytes).unwrap();
        let part = AttributeTypeAndValue { oid, value };
        RdnSequence::from(vec![RelativeDistinguishedName::from(der::asn1::SetOfVec::try_from(vec![part]).unwrap())])
    }

    #[test]
    fn names_in_another_kind_of_string_read_the_same() {
        let one = name(Tag::Utf8String, b"Site CA");
        let wide: Vec<u8> = "Site CA".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (tag, bytes) in [
            (Tag::PrintableString, &b"Site CA"[..]),
            (Tag::Ia5String, b"Site CA"),
            (Tag::TeletexString, b"Site CA"),
            (Tag::BmpString, &wide),
        ] {
            assert!(same_text(&one, &name(tag, bytes)), "{tag}");
        }
        // No string, other letters, half a character, half of a surrogate pair, letters that only T.61 has.
        for (tag, bytes) in [
            (Tag::OctetString, &b"Site CA"[..]),
            (Tag::PrintableString, b"Site CB"),
            (Tag::BmpString, &wide[1..]),
            (Tag::BmpString, b"\xd8\x00"),
            (Tag::TeletexString, b"Site C\xc1"),
        ] {
            assert!(!same_text(&one, &name(tag, bytes)) && !nearly_same_text(&one, &name(tag, bytes)), "{tag}");
        }
        // Letter case and blanks: only for messages.
        let other = name(Tag::PrintableString, b" site  ca ");
        assert!(nearly_same_text(&one, &other) && !same_text(&one, &other));
    }
}
