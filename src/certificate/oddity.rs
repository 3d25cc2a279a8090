//! Says in words what keeps this program from using a certificate that failed verification. Looks for well-known faults
//! only, and decides nothing.

use std::fmt;

use der::oid::ObjectIdentifier;
use der::{Decode, Encode, SliceReader};
use rustls::crypto::aws_lc_rs;
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::{Certificate, nearly_same_text, same_text};
use crate::shown::Printable;

/// What keeps a certificate from being used, and which certificate it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Oddity {
    /// The certificate's signature algorithm is not accepted.
    Signature {
        /// Its subject.
        whose: Printable,
        /// The algorithm.
        algorithm: Printable,
    },
    /// The certificate's key is not accepted.
    Key {
        /// Its subject.
        whose: Printable,
        /// The kind of key.
        key: Printable,
    },
    /// The certificate has critical extensions that this program does not process.
    Critical {
        /// Its subject.
        whose: Printable,
        /// The extensions.
        extensions: Vec<Printable>,
    },
    /// The certificate is of a CA, and has name constraints of a kind that this program does not process.
    Constraints {
        /// Its subject.
        whose: Printable,
    },
    /// The certificate's issuer reads like the CA's name, but is another kind of string.
    Issuer {
        /// Its subject.
        whose: Printable,
        /// The issuer.
        issuer: Printable,
    },
}

impl Oddity {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Oddity::Signature { .. } => "have it issued again, signed with SHA-256 or better",
            Oddity::Key { .. } => "use a key of P-256, P-384, P-521, Ed25519 or RSA with 2048 to 8192 bits",
            Oddity::Critical { .. } => {
                "have the certificate issued without these extensions, or with them not critical"
            }
            Oddity::Constraints { .. } => {
                "give the payload a CA without name constraints, or with constraints of DNS names and addresses alone"
            }
            Oddity::Issuer { .. } => {
                "have it issued again, with the issuer's name encoded byte by byte as in that CA's certificate"
            }
        }
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::Signature { whose, algorithm } => {
                write!(f, "\"{whose}\" is signed with {algorithm}, which is not accepted")
            }
            Oddity::Key { whose, key } => write!(f, "the key of \"{whose}\" is {key}, which is not accepted"),
            Oddity::Critical { whose, extensions } => write!(
                f,
                "\"{whose}\" has critical extensions that this program does not process: {}",
                extensions.iter().map(Printable::as_str).collect::<Vec<_>>().join(", ")
            ),
            Oddity::Constraints { whose } => write!(
                f,
                "the CA \"{whose}\" has name constraints of a kind that this program does not process, directory names for \
                 example"
            ),
            Oddity::Issuer { whose, issuer } => write!(
                f,
                "the issuer of \"{whose}\" is \"{issuer}\", which reads like the name of that CA, but is another kind of \
                 string or differs in case or blanks"
            ),
        }
    }
}

/// The most certificates of a path that are looked at.
const MAX_PATH: usize = 10;

/// What keeps a certificate on the path from the first certificate of `chain` to `ca` from being used. Names are
/// compared as text. `None`: nothing is known, or the issuer names do not lead to `ca`, and that is the fault.
pub(crate) fn oddity<'a>(chain: impl Iterator<Item = &'a [u8]>, ca: &[u8]) -> Option<Oddity> {
    let ca = Certificate::from_der(ca).ok()?;
    let all: Vec<Certificate> = chain.filter_map(|der| Certificate::from_der(der).ok()).collect();
    let mut path = vec![all.first()?];
    while let Some(last) = path.last() {
        let issuer = &last.tbs_certificate.issuer;
        if nearly_same_text(issuer, &ca.tbs_certificate.subject) {
            path.push(&ca);
            break;
        }
        let next = all.iter().find(|other| nearly_same_text(issuer, &other.tbs_certificate.subject))?;
        if path.contains(&next) || path.len() >= MAX_PATH {
            return None;
        }
        path.push(next);
    }
    let anchor = path.len().saturating_sub(1);
    path.iter()
        .enumerate()
        .find_map(|(at, certificate)| {
            let issuer = path.get(at.saturating_add(1));
            // The CA is trusted, so only its key and its name constraints can be odd.
            let own = if at == anchor { None } else { of_its_own(certificate) };
            own.or_else(|| of_its_key(certificate))
                .or_else(|| of_its_issuer(certificate, issuer, anchor == at.saturating_add(1)))
        })
        .or_else(|| path.iter().skip(1).find_map(|ca| of_its_constraints(ca)))
}

/// The same for one certificate's key alone.
pub(crate) fn odd_key(der: &[u8]) -> Option<Oddity> {
    of_its_key(&Certificate::from_der(der).ok()?)
}

fn subject(certificate: &Certificate) -> Printable {
    Printable::of(&certificate.tbs_certificate.subject.to_string())
}

fn of_its_own(certificate: &Certificate) -> Option<Oddity> {
    let whose = || subject(certificate);
    let oid = certificate.signature_algorithm.oid;
    let encoded = oid.to_der().unwrap_or_default();
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    if !algorithms.all.iter().any(|known| known.signature_alg_id().starts_with(&encoded)) {
        return Some(Oddity::Signature { whose: whose(), algorithm: named(oid, &SIGNATURES) });
    }
    let extensions: Vec<Printable> = certificate
        .tbs_certificate
        .extensions
        .iter()
        .flatten()
        .filter(|extension| extension.critical && !PROCESSED.contains(&extension.extn_id))
        .map(|extension| named(extension.extn_id, &EXTENSIONS))
        .collect();
    (!extensions.is_empty()).then(|| Oddity::Critical { whose: whose(), extensions })
}

fn of_its_key(certificate: &Certificate) -> Option<Oddity> {
    let spki = &certificate.tbs_certificate.subject_public_key_info;
    let odd = |key: &str| Some(Oddity::Key { whose: subject(certificate), key: key.into() });
    if spki.algorithm.oid == RSA {
        let bits = modulus_bits(spki)?;
        return if (2048..=8192).contains(&bits) { None } else { odd(&format!("RSA of {bits} bits")) };
    }
    let algorithm = spki.algorithm.to_der().ok()?;
    let value = der::asn1::AnyRef::from_der(&algorithm).ok()?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let known = algorithms.all.iter().any(|known| *known.public_key_alg_id() == *value.value());
    if known { None } else { odd(&format!("of a kind or on a curve that is not known here ({})", spki.algorithm.oid)) }
}

fn modulus_bits(spki: &SubjectPublicKeyInfoOwned) -> Option<usize> {
    // RFC 8017 appendix A.1.1: SEQUENCE of modulus and exponent.
    let key = der::asn1::AnyRef::from_der(spki.subject_public_key.as_bytes()?).ok()?;
    let modulus = der::asn1::UintRef::decode(&mut SliceReader::new(key.value()).ok()?).ok()?;
    let bytes = modulus.as_bytes();
    let leading = usize::try_from(bytes.first()?.leading_zeros()).ok()?;
    bytes.len().checked_mul(8)?.checked_sub(leading)
}

/// A certificate may name the CA itself by any name that reads the same: see `anchors`.
fn of_its_issuer(certificate: &Certificate, issuer: Option<&&Certificate>, is_ca: bool) -> Option<Oddity> {
    let (name, issuer) = (&certificate.tbs_certificate.issuer, &issuer?.tbs_certificate.subject);
    let differ = name != issuer && !(is_ca && same_text(name, issuer));
    differ.then(|| Oddity::Issuer { whose: subject(certificate), issuer: Printable::of(&issuer.to_string()) })
}

/// webpki processes constraints of DNS names and addresses. With a constraint of another kind it refuses every name of
/// that kind, and each certificate has a directory name: its subject.
fn of_its_constraints(ca: &Certificate) -> Option<Oddity> {
    let (_, NameConstraints { permitted_subtrees, excluded_subtrees }) = ca.tbs_certificate.get().ok()??;
    let mut bases = permitted_subtrees.iter().chain(&excluded_subtrees).flatten().map(|subtree| &subtree.base);
    let processed = |base: &GeneralName| matches!(base, GeneralName::DnsName(_) | GeneralName::IpAddress(_));
    (!bases.all(processed)).then(|| Oddity::Constraints { whose: subject(ca) })
}

fn named(oid: ObjectIdentifier, names: &[(ObjectIdentifier, &str)]) -> Printable {
    let name = names
        .iter()
        .find(|(known, _)| *known == oid)
        .map_or_else(|| oid.to_string(), |(_, name)| format!("{name} ({oid})"));
    Printable::of(&name)
}

/// RFC 8017 appendix C.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Algorithms that CAs still sign with and that are not accepted, and their names.
const SIGNATURES: [(ObjectIdentifier, &str); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"), "MD5 and RSA"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"), "SHA-1 and RSA"),
    (ObjectIdentifier::new_unwrap("1.2.840.10040.4.3"), "SHA-1 and DSA"),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"), "SHA-1 and ECDSA"),
];

/// Extensions that webpki processes: keyUsage, subjectAltName, basicConstraints, nameConstraints,
/// cRLDistributionPoints, extKeyUsage.
const PROCESSED: [ObjectIdentifier; 6] = [
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.17"),
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.30"),
    ObjectIdentifier::new_unwrap("2.5.29.31"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
];

/// Other extensions that may be critical (RFC 5280 §4.2), and their names.
const EXTENSIONS: [(ObjectIdentifier, &str); 4] = [
    (ObjectIdentifier::new_unwrap("2.5.29.32"), "certificatePolicies"),
    (ObjectIdentifier::new_unwrap("2.5.29.33"), "policyMappings"),
    (ObjectIdentifier::new_unwrap("2.5.29.36"), "policyConstraints"),
    (ObjectIdentifier::new_unwrap("2.5.29.54"), "inhibitAnyPolicy"),
];

/// webpki's errors in the words of this program. Callers that know both sides describe errors of validity, name and
/// purpose in more detail.
pub(crate) fn words(error: &webpki::Error) -> &'static str {
    use webpki::Error;
    match error {
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => "it is not in distinguished encoding (DER)",
        Error::CaUsedAsEndEntity => "it is one of a CA (basicConstraints CA:TRUE)",
        Error::EndEntityUsedAsCa => "its issuer is not a CA (basicConstraints without CA:TRUE)",
        Error::CertExpired { .. } => "it, or a certificate between it and the CA, has expired",
        Error::CertNotValidYet { .. } => "it, or a certificate between it and the CA, is not valid yet",
        Error::InvalidCertValidity => "its validity ends before it begins",
        Error::UnknownIssuer => "the certificate of its issuer is missing",
        Error::InvalidSignatureForPublicKey => "it is not signed with its issuer's key",
        Error::NameConstraintViolation => "a CA above it may not certify its names (name constraints)",
        Error::PathLenConstraintViolated => "there are more CAs above it than one of them allows (pathLenConstraint)",
        Error::RequiredEkuNotFoundContext(_) => "it, or a CA above it, is for other purposes (extended key usage)",
        Error::EmptyEkuExtension => "its extended key usage is empty",
        Error::SignatureAlgorithmMismatch => "it names two algorithms for its one signature",
        Error::UnsupportedCertVersion => "it is not of version 3",
        Error::UnsupportedCriticalExtension => "it has a critical extension that this program does not process",
        Error::UnsupportedSignatureAlgorithmContext(_) | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "its signature algorithm is not accepted"
        }
        Error::MaximumPathDepthExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumSignatureChecksExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => "there are too many certificates or constraints above it",
        Error::ExtensionValueInvalid | Error::MalformedExtensions => "one of its extensions is malformed",
        Error::MalformedNameConstraint | Error::InvalidNetworkMaskConstraint => "a CA's name constraints are malformed",
        _ => "it breaks a rule of RFC 5280",
    }
}
