//! Builds and signs certificates and CRLs, field by field. No files, no policy. rcgen's keys sign, but rcgen does not build
//! the certificates: its distinguished names hold each attribute type once, and `DC=example, DC=org` has one twice.

use std::time::Duration;

use der::asn1::{BitString, GeneralizedTime, OctetString, Uint, UtcTime};
use der::oid::{AssociatedOid, ObjectIdentifier};
use der::{DateTime, Decode, Encode};
use imprint::digest::sha256;
use imprint::time::Timestamp;
use rcgen::{KeyPair, SigningKey};
use x509_cert::Version;
use x509_cert::certificate::{Certificate, TbsCertificate};
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
pub use x509_cert::ext::pkix::CrlReason;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlNumber};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

/// ecdsa-with-SHA256, RFC 5758 §3.2.
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// The content of a certificate without issuer and signature.
pub struct Body {
    /// Positive, at most 20 bytes.
    pub serial: Vec<u8>,
    /// The certificate's subject.
    pub subject: Name,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// First second of its validity.
    pub not_before: Timestamp,
    /// Last second of its validity.
    pub not_after: Timestamp,
    /// Encoded in this order.
    pub extensions: Vec<Extension>,
}

/// Why a certificate or CRL cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum X509Error {
    /// A field cannot be encoded.
    #[error("encoding a certificate")]
    Encode(#[from] der::Error),
    /// The crypto library did not sign.
    #[error("signing a certificate")]
    Sign(#[source] rcgen::Error),
    /// The system has no random numbers.
    #[error("the system gave no random numbers")]
    Random,
}

/// Signs with a P-256 key. The answer is DER.
pub fn sign(body: Body, issuer: &Name, key: &KeyPair) -> Result<Vec<u8>, X509Error> {
    // RFC 5758 §3.2: the parameters are absent.
    let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None };
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&body.serial)?,
        signature: algorithm.clone(),
        issuer: issuer.clone(),
        validity: Validity { not_before: time(body.not_before)?, not_after: time(body.not_after)? },
        subject: body.subject,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(&body.spki)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(body.extensions),
    };
    let signature = key.sign(&tbs_certificate.to_der()?).map_err(X509Error::Sign)?;
    let signature = BitString::from_bytes(&signature)?;
    Ok(Certificate { tbs_certificate, signature_algorithm: algorithm, signature }.to_der()?)
}

/// A certificate that was revoked.
pub struct Revoked {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// When it was revoked.
    pub at: Timestamp,
    /// Why it was revoked.
    pub reason: CrlReason,
}

/// Signs a CRL (RFC 5280 §5) with a P-256 key. `issuer` is name and key identifier. The answer is DER.
pub fn sign_crl(
    number: u64,
    revoked: &[Revoked],
    (this_update, next_update): (Timestamp, Timestamp),
    (issuer, key_id): (&Name, &OctetString),
    key: &KeyPair,
) -> Result<Vec<u8>, X509Error> {
    let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None };
    let entry = |revoked: &Revoked| {
        Ok(RevokedCert {
            serial_number: SerialNumber::new(&revoked.serial)?,
            revocation_date: time(revoked.at)?,
            // RFC 5280 §5.3.1: leave the reason out rather than write "unspecified".
            crl_entry_extensions: match revoked.reason {
                CrlReason::Unspecified => None,
                reason => Some(vec![extension(false, &reason)?]),
            },
        })
    };
    let revoked = revoked.iter().map(entry).collect::<Result<Vec<_>, X509Error>>()?;
    let authority = AuthorityKeyIdentifier { key_identifier: Some(key_id.clone()), ..Default::default() };
    let number = CrlNumber(Uint::new(&number.to_be_bytes())?);
    let tbs_cert_list = TbsCertList {
        version: Version::V2,
        signature: algorithm.clone(),
        issuer: issuer.clone(),
        this_update: time(this_update)?,
        next_update: Some(time(next_update)?),
        // RFC 5280 §5.1.2.6: absent when there are none.
        revoked_certificates: (!revoked.is_empty()).then_some(revoked),
        crl_extensions: Some(vec![extension(false, &authority)?, extension(false, &number)?]),
    };
    let signature = BitString::from_bytes(&key.sign(&tbs_cert_list.to_der()?).map_err(X509Error::Sign)?)?;
    Ok(CertificateList { tbs_cert_list, signature_algorithm: algorithm, signature }.to_der()?)
}

/// One extension.
pub fn extension<T: Encode + AssociatedOid>(critical: bool, value: &T) -> Result<Extension, X509Error> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// The leftmost 160 bits of SHA-256 of the key's bits (RFC 7093 §2, method 1).
pub fn key_id(spki: &[u8]) -> Result<OctetString, X509Error> {
    let spki = SubjectPublicKeyInfoOwned::from_der(spki)?;
    let digest = sha256(spki.subject_public_key.raw_bytes());
    Ok(OctetString::new(digest.first_chunk::<20>().map_or(&digest[..], |first| &first[..]))?)
}

/// Random bytes from the kernel by way of the crypto library.
pub fn random<const N: usize>() -> Result<[u8; N], X509Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| X509Error::Random)?;
    Ok(bytes)
}

/// A random serial number: positive, and never with a leading zero byte (RFC 5280 §4.1.2.2).
pub fn serial<const N: usize>() -> Result<Vec<u8>, X509Error> {
    let mut bytes = random::<N>()?.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(bytes)
}

/// RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050 on.
fn time(at: Timestamp) -> Result<Time, X509Error> {
    let at = DateTime::from_unix_duration(Duration::from_secs(at.as_secs()))?;
    Ok(if at.year() < 2050 {
        Time::UtcTime(UtcTime::from_date_time(at)?)
    } else {
        Time::GeneralTime(GeneralizedTime::from_date_time(at))
    })
}

/// When a certificate is valid.
pub fn validity(certificate: &Certificate) -> (Timestamp, Timestamp) {
    let at = |time: Time| Timestamp::from_secs(time.to_unix_duration().as_secs());
    let validity = &certificate.tbs_certificate.validity;
    (at(validity.not_before), at(validity.not_after))
}
