//! Makes the node's key and its CSR. Never uses the network and never writes a file. The private key leaves only by
//! value: as PEM for the hand-over, or as DER for a payload.

mod answer;
mod given;
mod key;
pub(crate) mod verify;

use std::fmt;

use der::asn1::{BitString, Ia5String, OctetString, PrintableString, SetOfVec, Utf8StringRef};
use der::oid::ObjectIdentifier;
use der::{Any, Decode, Encode, Tag, Tagged};
use rcgen::{PublicKeyData, SigningKey};
use x509_cert::attr::{Attribute as CsrAttribute, AttributeTypeAndValue};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use zeroize::Zeroizing;

pub use answer::AnswerError;
pub use given::Given;
pub use key::key_type;

use crate::certificate::Certificate;
use crate::key_code::KeyCode;
use crate::payload::{Attribute, CertificateNames, DnsName, Email, KeyType, Subject, SubjectAttribute, Uri};
use crate::plan::SubjectPlan;
use crate::pool::Seeded;
use crate::secret::Secret;
use crate::tls::ClientCertificate;
use key::PrivateKey;

/// subjectAltName, RFC 5280 §4.2.1.6.
pub const OID_SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// extensionRequest, RFC 2985 §5.4.2.
pub const OID_EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");

/// A private key and the CSR for it.
pub struct Identity {
    key: PrivateKey,
    spki: Vec<u8>,
    csr: Vec<u8>,
    names: CertificateNames,
}

/// Why there is no key, CSR or usable certificate of the payload.
#[derive(Debug)]
pub enum IdentityError {
    /// The crypto library failed to make a key.
    Key(KeyType, rcgen::Error),
    /// The private key cannot be read, or is of an unsupported type.
    PrivateKey(String),
    /// The private key and the certificate do not belong together.
    OtherKey {
        /// The code of the private key.
        ours: KeyCode,
        /// The code of the key in the certificate.
        theirs: KeyCode,
    },
    /// The certificate in the payload is refused.
    Given(AnswerError),
    /// The certificate to renew has a name that no payload can ask for, so no CSR can repeat it.
    Certificate(String),
    /// The CSR or a part of it cannot be encoded.
    Names(der::Error),
    /// The crypto library failed to sign the CSR.
    Sign(rcgen::Error),
}

impl Identity {
    /// Makes a key and a CSR that holds exactly the names of the plan. `Seeded` proves that the entropy pool is ready.
    pub fn generate(subject: &SubjectPlan, _: &Seeded) -> Result<Identity, IdentityError> {
        let key = PrivateKey::generate(subject.key).map_err(|error| IdentityError::Key(subject.key, error))?;
        Identity::with_key(key, subject.names.clone())
    }

    /// Makes a new key, and a CSR with exactly the names of this certificate, byte for byte (RFC 7030 §4.2.2).
    pub fn renewing(certificate: &Certificate, key: KeyType, _: &Seeded) -> Result<Identity, IdentityError> {
        let key = PrivateKey::generate(key).map_err(|error| IdentityError::Key(key, error))?;
        Identity::like(key, certificate)
    }

    /// Makes a CSR with exactly the names of this certificate for the certificate's own key, in PKCS#8.
    pub fn keeping(certificate: &Certificate, pkcs8: &[u8]) -> Result<Identity, IdentityError> {
        let key = PrivateKey::read(pkcs8).map_err(IdentityError::PrivateKey)?;
        let ours = key.pair.subject_public_key_info();
        let theirs = certificate.tbs_certificate.subject_public_key_info.to_der().map_err(IdentityError::Names)?;
        if ours != theirs {
            return Err(IdentityError::OtherKey { ours: KeyCode::of(&ours), theirs: KeyCode::of(&theirs) });
        }
        Identity::like(key, certificate)
    }

    fn like(key: PrivateKey, certificate: &Certificate) -> Result<Identity, IdentityError> {
        let tbs = &certificate.tbs_certificate;
        let names = names_of(certificate).map_err(IdentityError::Certificate)?;
        let alternatives = tbs.extensions.iter().flatten().find(|extension| extension.extn_id == OID_SUBJECT_ALT_NAME);
        Identity::signed(key, names, tbs.subject.clone(), alternatives.cloned())
    }

    fn with_key(key: PrivateKey, names: CertificateNames) -> Result<Identity, IdentityError> {
        let subject = distinguished_name(&names.subject).map_err(IdentityError::Names)?;
        let alternatives = alternative_names(&names).map_err(IdentityError::Names)?;
        Identity::signed(key, names, subject, alternatives)
    }

    fn signed(
        key: PrivateKey,
        names: CertificateNames,
        subject: RdnSequence,
        alternatives: Option<Extension>,
    ) -> Result<Identity, IdentityError> {
        let spki = key.pair.subject_public_key_info();
        let info = request_info(subject, alternatives, &spki).map_err(IdentityError::Names)?;
        let body = info.to_der().map_err(IdentityError::Names)?;
        let signature = key.pair.sign(&body).map_err(IdentityError::Sign)?;
        let request = CertReq {
            info,
            algorithm: key::signature_algorithm(key.kind),
            signature: BitString::from_bytes(&signature).map_err(IdentityError::Names)?,
        };
        let csr = request.to_der().map_err(IdentityError::Names)?;
        Ok(Identity { key, spki, csr, names })
    }

    /// PKCS#10, DER (RFC 2986).
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The key with the certificate that was issued for it, leaf first, to show to a server.
    pub fn client(&self, chain: &[Vec<u8>]) -> Result<ClientCertificate, rustls::Error> {
        ClientCertificate::new(chain, self.key.pair.serialized_der())
    }

    /// SubjectPublicKeyInfo, DER (RFC 5280 §4.1.2.7).
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The names that the CSR asks for.
    pub fn names(&self) -> &CertificateNames {
        &self.names
    }

    /// The type of the key.
    pub fn key_type(&self) -> KeyType {
        self.key.kind
    }

    /// The code of the key.
    pub fn code(&self) -> KeyCode {
        KeyCode::of(&self.spki)
    }
}

/// A private key as PKCS#8 PEM (RFC 5958), for the hand-over. Making one consumes the value that held the key.
pub struct PrivateKeyPem(Zeroizing<String>);

impl PrivateKeyPem {
    fn of(key: PrivateKey) -> PrivateKeyPem {
        PrivateKeyPem(crate::pem::encode("PRIVATE KEY", key.pair.serialized_der()))
    }

    /// The text, for the hand-over to write.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The private key as PKCS#8 DER, for a payload that carries the key. Consumes the identity.
impl From<Identity> for Secret {
    fn from(identity: Identity) -> Secret {
        Secret::new(identity.key.pair.serialize_der())
    }
}

impl From<Identity> for PrivateKeyPem {
    fn from(identity: Identity) -> PrivateKeyPem {
        PrivateKeyPem::of(identity.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("code", &self.code()).finish_non_exhaustive()
    }
}

/// The CertificationRequestInfo for these names and this key (RFC 2986 §4.1). It has an extensionRequest attribute only
/// if there is a subject alternative name.
fn request_info(subject: RdnSequence, alternatives: Option<Extension>, spki: &[u8]) -> der::Result<CertReqInfo> {
    let mut attributes = SetOfVec::new();
    if let Some(extension) = alternatives {
        let mut values = SetOfVec::new();
        values.insert(Any::encode_from(&ExtensionReq(vec![extension]))?)?;
        attributes.insert(CsrAttribute { oid: OID_EXTENSION_REQUEST, values })?;
    }
    let public_key = SubjectPublicKeyInfoOwned::from_der(spki)?;
    Ok(CertReqInfo { version: Version::V1, subject, public_key, attributes })
}

/// The subjectAltName extension; `None` if there is no alternative name.
fn alternative_names(names: &CertificateNames) -> der::Result<Option<Extension>> {
    let alternatives = general_names(names)?;
    if alternatives.is_empty() {
        return Ok(None);
    }
    Ok(Some(Extension {
        extn_id: OID_SUBJECT_ALT_NAME,
        // RFC 5280 §4.2.1.6: critical if the subject is empty.
        critical: names.subject.0.is_empty(),
        extn_value: OctetString::new(SubjectAltName(alternatives).to_der()?)?,
    }))
}

/// The names in a certificate. An error names the first one that a payload cannot contain.
pub fn names_of(certificate: &Certificate) -> Result<CertificateNames, String> {
    let tbs = &certificate.tbs_certificate;
    let mut names = CertificateNames::default();
    for rdn in &tbs.subject.0 {
        let [part] = rdn.0.as_slice() else { return Err(format!("the subject's {rdn}")) };
        let known = Attribute::ALL.iter().find(|(attribute, _)| attribute_oid(*attribute) == part.oid);
        let value = known.and_then(|(attribute, _)| SubjectAttribute::new(*attribute, &text_of(&part.value)?).ok());
        names.subject.0.push(value.ok_or_else(|| format!("the subject's {rdn}"))?);
    }
    let found = tbs.get::<SubjectAltName>().map_err(|error| format!("its subjectAltName: {error}"))?;
    for name in found.map(|(_, SubjectAltName(found))| found).unwrap_or_default() {
        let taken = match &name {
            GeneralName::DnsName(name) => DnsName::try_from(name.as_str()).map(|name| names.dns.push(name)).is_ok(),
            GeneralName::UniformResourceIdentifier(uri) => {
                Uri::try_from(uri.as_str()).map(|uri| names.uris.push(uri)).is_ok()
            }
            GeneralName::Rfc822Name(email) => {
                Email::try_from(email.as_str()).map(|email| names.emails.push(email)).is_ok()
            }
            GeneralName::IpAddress(bytes) => match (bytes.as_bytes().try_into(), bytes.as_bytes().try_into()) {
                (Ok::<[u8; 4], _>(v4), _) => {
                    names.ips.push(v4.into());
                    true
                }
                (_, Ok::<[u8; 16], _>(v6)) => {
                    names.ips.push(v6.into());
                    true
                }
                _ => false,
            },
            _ => false,
        };
        if !taken {
            return Err(format!("the name {}", crate::certificate::shown_name(&name)));
        }
    }
    Ok(names)
}

/// The text of a value of a string type that RFC 5280 §4.1.2.4 lets new certificates use, or that DC has (RFC 4519
/// §2.4).
fn text_of(value: &Any) -> Option<String> {
    let text = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String);
    text.then(|| std::str::from_utf8(value.value()).ok().map(str::to_owned))?
}

/// The subject in DER order: each attribute an RDN of its own.
pub fn distinguished_name(subject: &Subject) -> der::Result<RdnSequence> {
    let mut sequence = Vec::with_capacity(subject.0.len());
    for part in &subject.0 {
        let (oid, value) = (attribute_oid(part.attribute()), part.value());
        // RFC 5280 appendix A.1: C and serialNumber are PrintableStrings, DC an IA5String; the rest is UTF-8.
        let value = match part.attribute() {
            Attribute::Country | Attribute::SerialNumber => Any::encode_from(&PrintableString::new(value)?)?,
            Attribute::DomainComponent => Any::encode_from(&Ia5String::new(value)?)?,
            _ => Any::encode_from(&Utf8StringRef::new(value)?)?,
        };
        let mut set = SetOfVec::new();
        set.insert(AttributeTypeAndValue { oid, value })?;
        sequence.push(RelativeDistinguishedName(set));
    }
    Ok(RdnSequence(sequence))
}

/// The object identifier of an attribute type.
pub fn attribute_oid(attribute: Attribute) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(match attribute {
        Attribute::CommonName => "2.5.4.3",
        Attribute::Organization => "2.5.4.10",
        Attribute::OrganizationalUnit => "2.5.4.11",
        Attribute::Country => "2.5.4.6",
        Attribute::State => "2.5.4.8",
        Attribute::Locality => "2.5.4.7",
        Attribute::SerialNumber => "2.5.4.5",
        Attribute::DomainComponent => "0.9.2342.19200300.100.1.25",
    })
}

/// The subject alternative names in the order dNSName, iPAddress, uniformResourceIdentifier, rfc822Name.
pub fn general_names(names: &CertificateNames) -> der::Result<Vec<GeneralName>> {
    let mut all = Vec::new();
    for name in &names.dns {
        all.push(GeneralName::DnsName(Ia5String::new(name.as_str())?));
    }
    for ip in &names.ips {
        let bytes = match ip {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        all.push(GeneralName::IpAddress(OctetString::new(bytes)?));
    }
    for uri in &names.uris {
        all.push(GeneralName::UniformResourceIdentifier(Ia5String::new(uri.as_str())?));
    }
    for email in &names.emails {
        all.push(GeneralName::Rfc822Name(Ia5String::new(email.as_str())?));
    }
    Ok(all)
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Key(kind, _) => write!(f, "making a {kind} key"),
            IdentityError::PrivateKey(what) => {
                write!(
                    f,
                    "the private key cannot be used: {what}; give a p256, p384, ed25519, rsa2048 or rsa3072 key in \
                     PKCS#8"
                )
            }
            IdentityError::OtherKey { ours, theirs } => {
                write!(f, "the private key (code {ours}) does not belong to the certificate (key code {theirs})")
            }
            IdentityError::Given(_) => {
                write!(f, "the certificate in the payload cannot be used; make a payload with another certificate")
            }
            IdentityError::Certificate(what) => {
                write!(f, "{what} in the certificate cannot be repeated in a CSR of imprint; enrol with a new payload")
            }
            IdentityError::Names(_) => write!(f, "encoding the CSR"),
            IdentityError::Sign(_) => write!(f, "signing the CSR"),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            IdentityError::Key(_, error) | IdentityError::Sign(error) => Some(error),
            IdentityError::Names(error) => Some(error),
            IdentityError::Given(error) => Some(error),
            IdentityError::PrivateKey(_) | IdentityError::OtherKey { .. } | IdentityError::Certificate(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(names: CertificateNames) -> Identity {
        identity_of(names, KeyType::P256)
    }

    fn identity_of(names: CertificateNames, key: KeyType) -> Identity {
        let seeded = Seeded::ready(crate::time::Deadline::after(std::time::Duration::from_secs(5))).unwrap();
        Identity::generate(&SubjectPlan { names, key }, &seeded).unwrap()
    }

    fn common_name(name: &str) -> Subject {
        Subject(vec![SubjectAttribute::new(Attribute::CommonName, name).unwrap()])
    }

    #[test]
    fn a_csr_holds_exactly_the_names_of_the_plan() {
        let names = CertificateNames {
            subject: common_name("node1"),
            dns: vec![DnsName::try_from("node1.example.org").unwrap()],
            ips: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
            uris: vec![Uri::try_from("spiffe://example.org/node1").unwrap()],
            emails: vec![Email::try_from("node1@example.org").unwrap()],
        };
        let identity = identity(names.clone());
        let request = CertReq::from_der(identity.csr()).unwrap();
        assert_eq!(request.info.subject.to_string(), "CN=node1");
        assert_eq!(request.info.public_key.to_der().unwrap(), identity.spki());
        assert_eq!(request.info.attributes.len(), 1);
        let attribute = request.info.attributes.get(0).unwrap();
        assert_eq!(attribute.oid, OID_EXTENSION_REQUEST);
        let ExtensionReq(extensions) = attribute.values.get(0).unwrap().decode_as().unwrap();
        let [san] = extensions.as_slice() else { panic!("one extension") };
        assert!(!san.critical);
        let SubjectAltName(found) = SubjectAltName::from_der(san.extn_value.as_bytes()).unwrap();
        assert_eq!(found, general_names(&names).unwrap());
    }

    #[test]
    fn the_signature_proves_possession_of_the_key() {
        let identity = identity(CertificateNames { subject: common_name("node1"), ..Default::default() });
        let request = CertReq::from_der(identity.csr()).unwrap();
        let key = request.info.public_key.subject_public_key.as_bytes().unwrap();
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, key)
            .verify(&request.info.to_der().unwrap(), request.signature.as_bytes().unwrap())
            .unwrap();
        assert!(request.info.attributes.is_empty(), "no names, no request for an extension");
    }

    /// RFC 5280 §4.2.1.6
    #[test]
    fn without_a_subject_the_alternative_name_is_critical() {
        let dns = vec![DnsName::try_from("node1.example.org").unwrap()];
        let identity = identity(CertificateNames { dns, ..Default::default() });
        let request = CertReq::from_der(identity.csr()).unwrap();
        assert!(request.info.subject.0.is_empty());
        let values = &request.info.attributes.get(0).unwrap().values;
        let ExtensionReq(extensions) = values.get(0).unwrap().decode_as().unwrap();
        assert!(extensions[0].critical);
    }

    /// openssl checks both: the CSR proves possession of the key, and the key is valid.
    #[test]
    fn every_type_of_key_and_its_csr_are_what_openssl_takes() {
        let directory = tempfile::tempdir().unwrap();
        let (csr, key) = (directory.path().join("csr"), directory.path().join("key"));
        let openssl = |arguments: &str, file: &std::path::Path| {
            let output = std::process::Command::new("openssl")
                .args(arguments.split(' '))
                .arg("-in")
                .arg(file)
                .output()
                .expect("openssl: apt-get install openssl");
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(output.status.success(), "openssl {arguments}: {text}");
            text
        };
        for (kind, name) in KeyType::ALL {
            let identity = identity_of(CertificateNames { subject: common_name(name), ..Default::default() }, kind);
            let spki = identity.spki().to_vec();
            assert_eq!(identity.key_type(), kind);
            std::fs::write(&csr, identity.csr()).unwrap();
            std::fs::write(&key, PrivateKeyPem::from(identity).expose()).unwrap();
            let text = openssl("req -inform DER -verify -noout -text", &csr);
            let (bits, signature) = match kind {
                KeyType::P256 => ("(256 bit)", "ecdsa-with-SHA256"),
                KeyType::P384 => ("(384 bit)", "ecdsa-with-SHA384"),
                KeyType::Ed25519 => ("ED25519 Public-Key:", "ED25519"),
                KeyType::Rsa2048 => ("(2048 bit)", "sha256WithRSAEncryption"),
                KeyType::Rsa3072 => ("(3072 bit)", "sha256WithRSAEncryption"),
            };
            assert!(text.contains(&format!("Subject: CN = {name}\n")), "{name}: {text}");
            assert!(text.contains(bits), "{name}: {text}");
            assert!(text.contains(&format!("Signature Algorithm: {signature}\n")), "{name}: {text}");
            assert!(text.contains("verify OK"), "{name}: {text}");
            let text = openssl("pkey -check -noout", &key);
            assert!(text.contains("Key is valid"), "{name}: {text}");
            let public = openssl("pkey -pubout", &key);
            let public: String = public.lines().filter(|line| !line.starts_with('-')).collect();
            assert_eq!(<base64ct::Base64 as base64ct::Encoding>::decode_vec(&public).unwrap(), spki, "{name}");
        }
    }
}
