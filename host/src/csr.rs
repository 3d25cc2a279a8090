//! Decodes a CSR (PKCS#10, RFC 2986), checks its signature, and compares it with a record. Signs nothing.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use der::asn1::{Any, Ia5StringRef, PrintableStringRef, SetOfVec, Utf8StringRef};
use der::oid::ObjectIdentifier;
use der::{Decode, Encode, Tag, Tagged};
use imprint::digest::sha256;
use imprint::identity::{OID_EXTENSION_REQUEST, OID_SUBJECT_ALT_NAME, attribute_oid, key_type};
use imprint::key_code::KeyCode;
use imprint::payload::{Attribute, CertificateNames, KeyType};
pub(crate) use imprint::shown::printable as shown;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, ExtensionReq};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");

/// A CSR whose signature proves that its sender has the key.
pub struct Csr {
    der: Vec<u8>,
    spki: Vec<u8>,
    key: KeyType,
    subject: Vec<(ObjectIdentifier, String)>,
    alternatives: Vec<String>,
}

impl fmt::Debug for Csr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Csr of key {}", self.code())
    }
}

/// Why a CSR is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CsrError {
    /// Not a CSR in DER.
    #[error("not a CSR in DER: {0}")]
    NotDer(String),
    /// A key or signature algorithm that no record can ask for.
    #[error("CSR with {0}; want p256, p384, ed25519, rsa2048 or rsa3072 with its usual signature")]
    KeyKind(String),
    /// The signature is not by the key in it.
    #[error("the CSR is not signed by the key in it")]
    Signature,
    /// An attribute other than extensionRequest.
    #[error("CSR with attribute {0}; only names may be asked for")]
    Attribute(String),
    /// An extension other than subjectAltName.
    #[error("CSR asks for extension {0}; only subjectAltName may be asked for")]
    Extension(String),
    /// A subject that cannot be compared.
    #[error("CSR with a subject that is not a list of single plain attributes")]
    SubjectForm,
    /// Another subject than the record's.
    #[error("subject in the CSR is {}, in the record {}", shown(.have), shown(.want))]
    Subject {
        /// The record's.
        want: String,
        /// The CSR's.
        have: String,
    },
    /// Other subject alternative names than the record's.
    #[error("{}", differ(.missing, .extra))]
    Alternatives {
        /// In the record and not in the CSR.
        missing: Vec<String>,
        /// In the CSR and not in the record.
        extra: Vec<String>,
    },
    /// Another key type than the record's.
    #[error("key in the CSR is {have}, in the record {want}")]
    Key {
        /// The record's.
        want: KeyType,
        /// The CSR's.
        have: KeyType,
    },
}

impl Csr {
    /// Decodes and checks the signature.
    pub fn parse(der: &[u8]) -> Result<Csr, CsrError> {
        let not_der = |error: der::Error| CsrError::NotDer(error.to_string());
        let request = CertReq::from_der(der).map_err(not_der)?;
        // The signature covers the bytes. A request that encodes to other bytes is not DER, and two readers could read it
        // differently.
        if request.to_der().map_err(not_der)? != der {
            return Err(CsrError::NotDer("not in distinguished encoding".to_owned()));
        }
        let spki = request.info.public_key.to_der().map_err(not_der)?;
        let key = key_type(&spki).map_err(CsrError::KeyKind)?;
        verify(&request, key)?;
        let mut subject = Vec::new();
        for rdn in &request.info.subject.0 {
            let [part] = rdn.0.as_slice() else { return Err(CsrError::SubjectForm) };
            subject.push((part.oid, string(&part.value).ok_or(CsrError::SubjectForm)?));
        }
        Ok(Csr { der: der.to_vec(), spki, key, subject, alternatives: alternatives(&request)? })
    }

    /// PKCS#10, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn spki_hash(&self) -> [u8; 32] {
        sha256(&self.spki)
    }

    /// The code of the CSR's key.
    pub fn code(&self) -> KeyCode {
        KeyCode::of(&self.spki)
    }

    /// Checks that the CSR has exactly these names and this key type. Subject attributes are compared in order, by type and
    /// value; the ASN.1 string type does not matter. The order of alternative names does not matter, nor does letter case
    /// in DNS names.
    pub fn matches(&self, names: &CertificateNames, key: KeyType) -> Result<(), CsrError> {
        let want: Vec<_> =
            names.subject.0.iter().map(|part| (attribute_oid(part.attribute()), part.value().to_owned())).collect();
        if self.subject != want {
            let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
            return Err(CsrError::Subject { want: none(names.subject.to_string()), have: none(self.subject_text()) });
        }
        let mut want: Vec<String> = Vec::new();
        want.extend(names.dns.iter().map(|name| format!("dns:{}", name.as_str().to_ascii_lowercase())));
        want.extend(names.ips.iter().map(|ip| format!("ip:{ip}")));
        want.extend(names.uris.iter().map(|uri| format!("uri:{uri}")));
        want.extend(names.emails.iter().map(|email| format!("email:{email}")));
        want.sort();
        if self.alternatives != want {
            let only = |a: &[String], b: &[String]| a.iter().filter(|name| !b.contains(name)).cloned().collect();
            let (missing, extra) = (only(&want, &self.alternatives), only(&self.alternatives, &want));
            return Err(CsrError::Alternatives { missing, extra });
        }
        if self.key != key {
            return Err(CsrError::Key { want: key, have: self.key });
        }
        Ok(())
    }

    fn subject_text(&self) -> String {
        let known = |oid: &ObjectIdentifier| {
            let found = Attribute::ALL.iter().find(|(attribute, _)| attribute_oid(*attribute) == *oid);
            found.map_or_else(|| oid.to_string(), |(_, name)| (*name).to_owned())
        };
        self.subject.iter().map(|(oid, value)| format!("{}={value}", known(oid))).collect::<Vec<_>>().join(", ")
    }
}

/// CsrAttrs (RFC 7030 §4.5.2), DER: which key and signature a CSR should have. An RSA key's size in bits is an INTEGER, as
/// in the examples of RFC 9908. Has no names: the node has its names from its payload.
pub fn attributes(key: KeyType) -> der::Result<Vec<u8>> {
    let (kind, value, signature) = match key {
        KeyType::P256 => (EC_PUBLIC_KEY, Any::encode_from(&SECP256R1)?, ECDSA_SHA256),
        KeyType::P384 => (EC_PUBLIC_KEY, Any::encode_from(&SECP384R1)?, ECDSA_SHA384),
        KeyType::Rsa2048 => (RSA_ENCRYPTION, Any::encode_from(&2048u16)?, RSA_SHA256),
        KeyType::Rsa3072 => (RSA_ENCRYPTION, Any::encode_from(&3072u16)?, RSA_SHA256),
        // RFC 8410 §3: one identifier for the key and the signature, and neither has parameters.
        KeyType::Ed25519 => return vec![ED25519_KEY].to_der(),
    };
    let attribute = x509_cert::attr::Attribute { oid: kind, values: SetOfVec::try_from(vec![value])? };
    vec![Any::encode_from(&attribute)?, Any::encode_from(&signature)?].to_der()
}

fn verify(request: &CertReq, key: KeyType) -> Result<(), CsrError> {
    let algorithm: &dyn VerificationAlgorithm = match (key, request.algorithm.oid) {
        (KeyType::P256, ECDSA_SHA256) => &ECDSA_P256_SHA256_ASN1,
        (KeyType::P384, ECDSA_SHA384) => &ECDSA_P384_SHA384_ASN1,
        (KeyType::Ed25519, ED25519_KEY) => &ED25519,
        (KeyType::Rsa2048 | KeyType::Rsa3072, RSA_SHA256) => &RSA_PKCS1_2048_8192_SHA256,
        (KeyType::Rsa2048 | KeyType::Rsa3072, RSA_SHA384) => &RSA_PKCS1_2048_8192_SHA384,
        (KeyType::Rsa2048 | KeyType::Rsa3072, RSA_SHA512) => &RSA_PKCS1_2048_8192_SHA512,
        (_, other) => return Err(CsrError::KeyKind(format!("signature algorithm {other} for a {key} key"))),
    };
    let body = request.info.to_der().map_err(|error| CsrError::NotDer(error.to_string()))?;
    let point = request.info.public_key.subject_public_key.as_bytes().ok_or(CsrError::Signature)?;
    // RFC 5480 §2.2: support for compressed points is optional. The uncompressed form is the one that every reader
    // supports.
    if matches!(key, KeyType::P256 | KeyType::P384) && point.first() != Some(&4) {
        return Err(CsrError::KeyKind("an elliptic curve with a compressed point".to_owned()));
    }
    let signature = request.signature.as_bytes().ok_or(CsrError::Signature)?;
    UnparsedPublicKey::new(algorithm, point).verify(&body, signature).map_err(|_| CsrError::Signature)
}

/// A UTF8String, PrintableString or IA5String, the types that RFC 5280 allows here in new certificates.
fn string(value: &Any) -> Option<String> {
    Some(match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str().to_owned(),
        _ => return None,
    })
}

/// All alternative names in the CSR, sorted. Any other extension or attribute is an error.
fn alternatives(request: &CertReq) -> Result<Vec<String>, CsrError> {
    let not_der = |error: der::Error| CsrError::NotDer(error.to_string());
    let mut extensions = Vec::new();
    for attribute in request.info.attributes.iter() {
        if attribute.oid != OID_EXTENSION_REQUEST {
            return Err(CsrError::Attribute(attribute.oid.to_string()));
        }
        for value in attribute.values.iter() {
            let ExtensionReq(asked) = value.decode_as().map_err(not_der)?;
            extensions.extend(asked);
        }
    }
    if let Some(other) = extensions.iter().find(|extension| extension.extn_id != OID_SUBJECT_ALT_NAME) {
        return Err(CsrError::Extension(other.extn_id.to_string()));
    }
    let mut names = Vec::new();
    match extensions.as_slice() {
        [] => {}
        [one] => {
            let SubjectAltName(found) = SubjectAltName::from_der(one.extn_value.as_bytes()).map_err(not_der)?;
            names.extend(found.iter().map(general_name));
        }
        _ => return Err(CsrError::Extension("subjectAltName more than once".to_owned())),
    }
    names.sort();
    Ok(names)
}

/// A name in the form that records use, DNS names in lower case (RFC 5280 §7.2). The kind ends at the first colon, so that
/// names of different kinds are never equal.
fn general_name(name: &GeneralName) -> String {
    match name {
        GeneralName::DnsName(name) => format!("dns:{}", name.as_str().to_ascii_lowercase()),
        GeneralName::UniformResourceIdentifier(uri) => format!("uri:{}", uri.as_str()),
        GeneralName::Rfc822Name(email) => format!("email:{}", email.as_str()),
        GeneralName::IpAddress(bytes) => {
            let (v4, v6) = (<[u8; 4]>::try_from(bytes.as_bytes()), <[u8; 16]>::try_from(bytes.as_bytes()));
            match (v4, v6) {
                (Ok(v4), _) => format!("ip:{}", IpAddr::from(v4)),
                (_, Ok(v6)) => format!("ip:{}", IpAddr::from(v6)),
                _ => format!("ip-of-{}-bytes:", bytes.as_bytes().len()),
            }
        }
        _ => "other:".to_owned(),
    }
}

/// The first five of the wrong names.
fn list(names: &[String]) -> String {
    names.iter().take(5).map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}

fn differ(missing: &[String], extra: &[String]) -> String {
    match (missing, extra) {
        ([], []) => "names in the CSR and in the record are repeated differently".to_owned(),
        (missing, []) => format!("names in the record that the CSR lacks: {}", list(missing)),
        ([], extra) => format!("names in the CSR that the record lacks: {}", list(extra)),
        (missing, extra) => format!("names in the CSR are {}, in the record {}", list(extra), list(missing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=node1 -addext subjectAltName=DNS:a
    const REAL: &str = "3081ea3081910201003010310e300c06035504030c056e6f6465313059301306072a8648ce3d020106082a8648ce3d030107\
        03420004653c62baf65fa8bf15c0e7fc2028b044bfa985e14abc3ef546843daf3881625c632b642de75a967f7cc3ae188276\
        33b0311d4f868e0d0d5f5f2c9b46367e2f8ea01f301d06092a864886f70d01090e3110300e300c0603551d11040530038201\
        61300a06082a8648ce3d0403020348003045022100c0f6df4a5fb6d5b345023a6804920b925bd96d482e85207f9b865c8d1a\
        8e1f7e022079e06cb128eceb8a7e6e276adc933dedaa76bbd1d9c7f6a51c0a08a471910d1d";

    #[test]
    fn a_real_one() {
        let csr = Csr::parse(&imprint::hex::decode(REAL).unwrap()).unwrap();
        assert_eq!(csr.subject_text(), "CN=node1");
        assert_eq!((csr.alternatives.as_slice(), csr.key), (&["dns:a".to_owned()][..], KeyType::P256));
    }

    /// Encoded by hand from RFC 7030 §4.5.2; `openssl asn1parse` shows the same.
    #[test]
    fn what_a_csr_should_have() {
        for (key, want) in [
            (KeyType::P256, "3021301506072a8648ce3d0201310a06082a8648ce3d03010706082a8648ce3d040302"),
            (KeyType::P384, "301e301206072a8648ce3d0201310706052b8104002206082a8648ce3d040303"),
            (KeyType::Ed25519, "300506032b6570"),
            (KeyType::Rsa2048, "301e301106092a864886f70d01010131040202080006092a864886f70d01010b"),
            (KeyType::Rsa3072, "301e301106092a864886f70d010101310402020c0006092a864886f70d01010b"),
        ] {
            assert_eq!(imprint::hex::encode(&attributes(key).unwrap()), want, "{key}");
        }
    }

    /// Every byte changed in turn, and every shorter length: always an error, never a panic and never another CSR.
    #[test]
    fn damaged() {
        let good = imprint::hex::decode(REAL).unwrap();
        for position in 0..good.len() {
            for change in [0x01, 0x20, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[position] ^= change;
                assert!(Csr::parse(&bad).is_err(), "byte {position} xor {change}");
            }
            assert!(matches!(Csr::parse(&good[..position]), Err(CsrError::NotDer(_))), "cut at {position}");
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert!(matches!(Csr::parse(&longer), Err(CsrError::NotDer(_))));
    }

    #[test]
    fn random_bytes() {
        for len in 0..1000 {
            let mut bytes = vec![0; len];
            aws_lc_rs::rand::fill(&mut bytes).unwrap();
            // With a valid first tag, random bytes reach more of the decoder.
            if let Some(first) = bytes.first_mut() {
                *first = 0x30;
            }
            assert!(matches!(Csr::parse(&bytes), Err(CsrError::NotDer(_))));
        }
    }
}
