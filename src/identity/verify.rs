//! Checks that a certificate is the one that was asked for. Pure: takes certificates, the requirements and the time,
//! and returns the chain or the first difference. Never reads a clock or a file.

use std::time::Duration;

use der::{Decode, Encode};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, RequiredEkuNotFoundContext};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};
use x509_cert::name::RdnSequence;

use super::AnswerError;
use crate::certificate::{Certificate, CertificateFacts, anchors as anchors_of, oddity, same_text, shown_name, words};
use crate::identity;
use crate::key_code::KeyCode;
use crate::payload::{CaCertificate, CertificateNames};
use crate::time::Timestamp;
use crate::tls::{SKEW, moments};

/// The requirements for a certificate.
pub(crate) struct Wanted<'a> {
    /// SubjectPublicKeyInfo of our key.
    pub(crate) spki: &'a [u8],
    /// The names that the certificate must have, and no others; `None`: any names.
    pub(crate) names: Option<&'a CertificateNames>,
    /// The trust anchor that the certificate must chain to.
    pub(crate) ca: &'a CaCertificate,
    /// SHA-256 of the further trust anchors that are allowed.
    pub(crate) issuers: &'a [[u8; 32]],
    /// The time by the clock.
    pub(crate) now: Timestamp,
}

/// Finds the certificate for our key at any position (peers put it first or last), and verifies it. Returns the chain
/// leaf first, without the root.
pub(crate) fn choose(
    answer: &[Vec<u8>],
    known_cas: &[Vec<u8>],
    wanted: &Wanted<'_>,
) -> Result<(Vec<Vec<u8>>, CertificateFacts), AnswerError> {
    let mut have = Vec::new();
    let mut first_error = None;
    for der in answer {
        let certificate = match Certificate::from_der(der) {
            Ok(certificate) => certificate,
            Err(error) => {
                have.push(format!("one that cannot be read ({error})"));
                continue;
            }
        };
        let spki = certificate.tbs_certificate.subject_public_key_info.to_der().unwrap_or_default();
        if spki != wanted.spki {
            let facts = CertificateFacts::of(der);
            let subject = facts.map_or_else(Default::default, |facts| facts.subject);
            have.push(format!("\"{subject}\" with key {}", KeyCode::of(&spki)));
            continue;
        }
        let others: Vec<&[u8]> =
            answer.iter().chain(known_cas).map(Vec::as_slice).filter(|other| *other != der.as_slice()).collect();
        match verify(der, &certificate, &others, wanted) {
            Ok(verified) => return Ok(verified),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or(AnswerError::OtherKey { ours: KeyCode::of(wanted.spki), have }))
}

fn verify(
    der: &[u8],
    certificate: &Certificate,
    others: &[&[u8]],
    wanted: &Wanted<'_>,
) -> Result<(Vec<Vec<u8>>, CertificateFacts), AnswerError> {
    let unreadable = |what: &str, error: der::Error| AnswerError::Unreadable(format!("{what}: {error}"));
    let tbs = &certificate.tbs_certificate;
    let facts = CertificateFacts::of(der).ok_or_else(|| AnswerError::Unreadable("its validity".to_owned()))?;
    if let Some(asked) = wanted.names {
        same_subject(&tbs.subject, asked)?;
        let names = tbs.get::<SubjectAltName>().map_err(|error| unreadable("subjectAltName", error))?;
        same_names(&names.map_or_else(Vec::new, |(_, SubjectAltName(names))| names), asked)?;
    }
    if tbs
        .get::<BasicConstraints>()
        .map_err(|error| unreadable("basicConstraints", error))?
        .is_some_and(|(_, constraints)| constraints.ca)
    {
        return Err(AnswerError::IsCa);
    }
    if facts.not_before > wanted.now.plus(SKEW) || facts.not_after <= wanted.now {
        let (not_before, not_after, now) = (facts.not_before, facts.not_after, wanted.now);
        return Err(AnswerError::Validity { not_before, not_after, now });
    }
    if let Some((_, ExtendedKeyUsage(usages))) =
        tbs.get::<ExtendedKeyUsage>().map_err(|error| unreadable("extendedKeyUsage", error))?
        && !usages.iter().any(|usage| PURPOSES.contains(&usage.as_bytes()))
    {
        return Err(AnswerError::Purpose(usages.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    Ok((path(der, &facts, others, wanted)?, facts))
}

/// Compares attribute by attribute, type and text. A CA may change the kind of string, for example UTF8String to
/// PrintableString, but not the text.
fn same_subject(subject: &RdnSequence, names: &CertificateNames) -> Result<(), AnswerError> {
    let asked = identity::distinguished_name(&names.subject)
        .map_err(|error| AnswerError::Unreadable(format!("the subject that was asked for: {error}")))?;
    if same_text(subject, &asked) {
        return Ok(());
    }
    // Both subjects are shown in the form of RFC 4514, so that a person can compare them.
    Err(AnswerError::Subject { asked: asked.to_string(), have: crate::shown::printable(&subject.to_string()) })
}

/// Compares the names, in any order.
fn same_names(have: &[GeneralName], names: &CertificateNames) -> Result<(), AnswerError> {
    let asked = identity::general_names(names)
        .map_err(|error| AnswerError::Unreadable(format!("the names that were asked for: {error}")))?;
    let listed = |names: &[GeneralName]| match names {
        [] => "none".to_owned(),
        names => names.iter().map(shown_name).collect::<Vec<_>>().join(" "),
    };
    let among = |name: &GeneralName, names: &[GeneralName]| names.iter().any(|other| same_name(name, other));
    if let Some(name) = asked.iter().find(|name| !among(name, have)) {
        return Err(AnswerError::NameMissing { name: shown_name(name), have: listed(have) });
    }
    if let Some(name) = have.iter().find(|name| !among(name, &asked)) {
        return Err(AnswerError::NameAdded { name: shown_name(name), asked: listed(&asked) });
    }
    Ok(())
}

/// RFC 5280 §7.2, §7.4 and §7.5: letter case does not matter in a DNS name, nor in the host of an e-mail address or a URI.
fn same_name(one: &GeneralName, other: &GeneralName) -> bool {
    match (one, other) {
        (GeneralName::DnsName(one), GeneralName::DnsName(other)) => one.as_str().eq_ignore_ascii_case(other.as_str()),
        (GeneralName::Rfc822Name(one), GeneralName::Rfc822Name(other)) => {
            match (one.as_str().rsplit_once('@'), other.as_str().rsplit_once('@')) {
                (Some((one, one_host)), Some((other, other_host))) => {
                    one == other && one_host.eq_ignore_ascii_case(other_host)
                }
                _ => one == other,
            }
        }
        (GeneralName::UniformResourceIdentifier(one), GeneralName::UniformResourceIdentifier(other)) => {
            let (one, other) = (scheme_and_host(one.as_str()), scheme_and_host(other.as_str()));
            one.0.eq_ignore_ascii_case(other.0) && one.1 == other.1
        }
        _ => one == other,
    }
}

/// Splits a URI into `https://node1.example` and the rest.
fn scheme_and_host(uri: &str) -> (&str, &str) {
    let length = match uri.split_once("://") {
        None => uri.find(':').unwrap_or(0),
        Some((scheme, rest)) => {
            let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            scheme.len().saturating_add(3).saturating_add(host)
        }
    };
    uri.split_at_checked(length).unwrap_or(("", uri))
}

/// Finds the path to the CA of the payload or to a listed issuer.
fn path(
    der: &[u8],
    facts: &CertificateFacts,
    others: &[&[u8]],
    wanted: &Wanted<'_>,
) -> Result<Vec<Vec<u8>>, AnswerError> {
    let (now, latest) = (wanted.now, wanted.now.plus(SKEW));
    let mut anchors: Vec<CaCertificate> = Vec::new();
    for other in others {
        if wanted.issuers.contains(&crate::digest::sha256(other))
            && !anchors.iter().any(|anchor| anchor.der() == *other)
            && let Ok(ca) = CaCertificate::new(other.to_vec())
        {
            anchors.push(ca);
        }
    }
    let known = anchors.len();
    anchors.insert(0, wanted.ca.clone());
    // webpki does not check the validity of a trust anchor.
    anchors.retain(|ca| ca.not_before() <= latest && ca.not_after() > now);
    let chain = || std::iter::once(der).chain(others.iter().copied());
    let leaf = CertificateDer::from(der);
    let intermediates: Vec<CertificateDer<'_>> = others.iter().map(|der| CertificateDer::from(*der)).collect();
    let fail = |why: &'static str| AnswerError::Chain {
        issuer: facts.issuer.to_string(),
        ca: wanted.ca.subject().to_string(),
        issuers: (wanted.issuers.len(), known),
        why,
    };
    let odd = || anchors.iter().find_map(|ca| oddity(chain(), ca.der())).map(AnswerError::Odd);
    let end_entity = EndEntityCert::try_from(&leaf).map_err(|error| odd().unwrap_or_else(|| fail(words(&error))))?;
    // The same algorithms as for TLS: webpki's own list would link more of them into the binary.
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let mut last = fail("no CA is valid now");
    // First by the CA's name as the CA has it, which is nearly always enough; then by each name in the chain that has
    // the same text in another kind of string.
    for by in [0, usize::MAX] {
        let named = |ca: &CaCertificate| anchors_of(ca.der(), chain().take(by)).unwrap_or_default();
        let trusted: Vec<(TrustAnchor<'static>, &CaCertificate)> =
            anchors.iter().flat_map(|ca| named(ca).into_iter().map(move |anchor| (anchor, ca))).collect();
        for moment in moments(now, latest, &leaf, &intermediates) {
            for (anchor, ca) in &trusted {
                let verified = end_entity.verify_for_usage(
                    algorithms.all,
                    std::slice::from_ref(anchor),
                    &intermediates,
                    UnixTime::since_unix_epoch(Duration::from_secs(moment.as_secs())),
                    ForClients,
                    None,
                    None,
                );
                match verified {
                    Ok(verified) => {
                        let mut chain = vec![der.to_vec()];
                        chain.extend(verified.intermediate_certificates().map(|cert| cert.der().to_vec()));
                        // A listed issuer that is not a root is added to the chain: a verifier may know only the root
                        // above it.
                        if ca.der() != wanted.ca.der() && !self_issued(ca.der()) {
                            chain.push(ca.der().to_vec());
                        }
                        return Ok(chain);
                    }
                    Err(error) => last = fail(words(&error)),
                }
            }
        }
    }
    Err(odd().unwrap_or(last))
}

fn self_issued(der: &[u8]) -> bool {
    Certificate::from_der(der).is_ok_and(|ca| ca.tbs_certificate.subject == ca.tbs_certificate.issuer)
}

/// clientAuth and anyExtendedKeyUsage (RFC 5280 §4.2.1.12), as values of an OBJECT IDENTIFIER.
const PURPOSES: [&[u8]; 2] = [&[0x2b, 6, 1, 5, 5, 7, 3, 2], &[0x55, 0x1d, 0x25, 0]];

/// Accepts a path if each certificate has no extended key usage, or one of [`PURPOSES`].
struct ForClients;

impl ExtendedKeyUsageValidator for ForClients {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?;
            if PURPOSES.iter().any(|oid| purpose == KeyPurposeId::new(oid)) {
                return Ok(());
            }
            present.push(purpose.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = webpki::KeyUsage::client_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints as Constraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData,
    };

    use super::*;
    use crate::payload::{Attribute, DnsName, Subject, SubjectAttribute};

    /// A root's certificate, a leaf for `node1` under it, and the leaf's key.
    fn certificates() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(Constraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Root");
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node1.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "node1");
        let leaf = params.signed_by(&key, &root).unwrap();
        (root.der().to_vec(), leaf.der().to_vec(), key.subject_public_key_info())
    }

    fn names() -> CertificateNames {
        CertificateNames {
            subject: Subject(vec![SubjectAttribute::new(Attribute::CommonName, "node1").unwrap()]),
            dns: vec![DnsName::try_from("node1.example").unwrap()],
            ..CertificateNames::default()
        }
    }

    #[test]
    fn every_changed_bit_of_a_certificate_is_noticed() {
        let (root, leaf, spki) = certificates();
        let (ca, names) = (CaCertificate::new(root.clone()).unwrap(), names());
        let now = Timestamp::from_secs(1_893_456_000);
        let wanted = Wanted { spki: &spki, names: Some(&names), ca: &ca, issuers: &[], now };
        let (chain, _) = choose(&[root.clone(), leaf.clone()], &[], &wanted).unwrap();
        assert_eq!(chain, std::slice::from_ref(&leaf));
        for at in 0..leaf.len() {
            for bit in 0..8 {
                let mut bad = leaf.clone();
                bad[at] ^= 1 << bit;
                assert!(choose(&[bad], std::slice::from_ref(&root), &wanted).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_subject_may_change_its_kind_of_string_but_not_its_text() {
        let utf8 = identity::distinguished_name(&names().subject).unwrap();
        let mut der = utf8.to_der().unwrap();
        // The tag of the value, before its length and "node1", is changed from UTF8String to PrintableString, then to
        // OCTET STRING.
        let at = der.len() - 7;
        assert_eq!(der[at], 0x0c);
        der[at] = 0x13;
        same_subject(&RdnSequence::from_der(&der).unwrap(), &names()).unwrap();
        der[at] = 0x04;
        assert!(matches!(
            same_subject(&RdnSequence::from_der(&der).unwrap(), &names()),
            Err(AnswerError::Subject { .. })
        ));
    }

    #[test]
    fn letter_case_counts_where_it_does() {
        let dns = |text: &str| GeneralName::DnsName(der::asn1::Ia5String::new(text).unwrap());
        let email = |text: &str| GeneralName::Rfc822Name(der::asn1::Ia5String::new(text).unwrap());
        let uri = |text: &str| GeneralName::UniformResourceIdentifier(der::asn1::Ia5String::new(text).unwrap());
        for (one, other, same) in [
            (dns("node1.example"), dns("NODE1.Example"), true),
            (dns("node1.example"), dns("node2.example"), false),
            (email("a@node1.example"), email("a@NODE1.example"), true),
            (email("a@node1.example"), email("A@node1.example"), false),
            (uri("https://node1.example/a"), uri("HTTPS://Node1.example/a"), true),
            (uri("https://node1.example/a"), uri("https://node1.example/A"), false),
            (uri("https://node1.example?a"), uri("https://node1.example?A"), false),
            (uri("urn:x"), uri("urn:X"), false),
            (dns("node1.example"), uri("node1.example"), false),
        ] {
            assert_eq!(same_name(&one, &other), same, "{one:?} {other:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_certificate(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (root, _, spki) = certificates();
            let (ca, names) = (CaCertificate::new(root).unwrap(), names());
            let now = Timestamp::from_secs(1_893_456_000);
            let wanted = Wanted { spki: &spki, names: Some(&names), ca: &ca, issuers: &[], now };
            prop_assert!(choose(std::slice::from_ref(&bytes), std::slice::from_ref(&bytes), &wanted).is_err());
        }
    }
}
