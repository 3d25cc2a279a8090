//! A test CA: makes certificates of any shape, valid or not, and PKCS#7 messages around them. Writes no files.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use imprint::identity::key_type;
use imprint::payload::KeyType;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SignatureAlgorithm,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

/// First and last second of a validity.
pub type Validity = (u64, u64);

/// A CA that signs any certificate.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    /// A root CA.
    pub fn new(name: &str, validity: Validity) -> Ca {
        Ca::of(ca_params(name, validity), KeyPair::generate().unwrap())
    }

    /// A root CA with these parameters.
    pub fn of(params: CertificateParams, key: KeyPair) -> Ca {
        Ca { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// A CA below this one, with these parameters.
    pub fn below(&self, params: CertificateParams, key: KeyPair) -> Ca {
        Ca { issuer: CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap() }
    }

    /// A CA below this one.
    pub fn intermediate(&self, name: &str, validity: Validity) -> Ca {
        self.below(ca_params(name, validity), KeyPair::generate().unwrap())
    }

    /// The CA's certificate, DER.
    pub fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// A certificate for a key, given as SubjectPublicKeyInfo.
    pub fn issue(&self, leaf: &Leaf, spki: &[u8]) -> Vec<u8> {
        leaf.params().signed_by(&PublicKey::of(spki), &self.issuer).unwrap().der().to_vec()
    }

    /// Configuration of a TLS server with a new key. Its chain is the leaf and this CA's certificate.
    pub fn server(&self, leaf: &Leaf, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        self.asking_server(leaf, versions, WebPkiClientVerifier::no_client_auth())
    }

    /// Verifies client certificates of this CA. `must`: the client has to show one.
    pub fn verifier(&self, must: bool) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.der())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if must { builder.build().unwrap() } else { builder.allow_unauthenticated().build().unwrap() }
    }

    /// A TLS server that asks for a certificate of the client.
    pub fn asking_server(
        &self,
        leaf: &Leaf,
        versions: &[&'static SupportedProtocolVersion],
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let leaf = self.issue(leaf, &key.subject_public_key_info());
        tls_server(vec![leaf, self.der()], key.serialize_der(), versions, clients)
    }
}

/// A TLS server with this chain, leaf first, and the leaf's key, PKCS#8.
pub fn tls_server(
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
    versions: &[&'static SupportedProtocolVersion],
    clients: Arc<dyn ClientCertVerifier>,
) -> Arc<ServerConfig> {
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let key = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::try_from(key).unwrap()).unwrap();
    // Not `with_single_cert`: it refuses odd certificates that a real server may show.
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    Arc::new(builder.with_client_cert_verifier(clients).with_cert_resolver(Arc::new(resolver)))
}

/// Parameters of a CA certificate.
pub fn ca_params(name: &str, validity: Validity) -> CertificateParams {
    let mut params =
        Leaf { cn: name.to_owned(), names: Vec::new(), validity, usages: Vec::new(), ca: true, critical: Vec::new() }
            .params();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Parameters of a leaf certificate.
#[derive(Clone)]
pub struct Leaf {
    /// Common name.
    pub cn: String,
    /// Subject alternative names.
    pub names: Vec<SanType>,
    /// First and last second of its validity.
    pub validity: Validity,
    /// Extended key usages.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// CA:TRUE.
    pub ca: bool,
    /// OIDs of critical extensions that no program knows.
    pub critical: Vec<&'static [u64]>,
}

impl Leaf {
    /// A server certificate for an address.
    pub fn server(address: IpAddr, validity: Validity) -> Leaf {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Leaf {
            cn: "est server".to_owned(),
            names: vec![SanType::IpAddress(address)],
            validity,
            usages,
            ca: false,
            critical: Vec::new(),
        }
    }

    /// A node's certificate.
    pub fn node(cn: &str, dns: &[&str], validity: Validity) -> Leaf {
        let names = dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Leaf { cn: cn.to_owned(), names, validity, usages, ca: false, critical: Vec::new() }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let at = |secs| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs);
        (params.not_before, params.not_after) = (at(self.validity.0), at(self.validity.1));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.cn.as_str());
        params.subject_alt_names = self.names.clone();
        params.extended_key_usages = self.usages.clone();
        params.is_ca = if self.ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.use_authority_key_identifier_extension = true;
        for oid in &self.critical {
            // NULL
            let mut extension = CustomExtension::from_oid_content(oid, vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        }
        params
    }
}

/// rcgen's type of the key, and the BIT STRING of its SubjectPublicKeyInfo.
struct PublicKey(&'static SignatureAlgorithm, Vec<u8>);

impl PublicKey {
    fn of(spki: &[u8]) -> PublicKey {
        let (algorithm, length) = match key_type(spki).expect("a key that a record can name") {
            KeyType::P256 => (&rcgen::PKCS_ECDSA_P256_SHA256, 65),
            KeyType::P384 => (&rcgen::PKCS_ECDSA_P384_SHA384, 97),
            KeyType::Ed25519 => (&rcgen::PKCS_ED25519, 32),
            // Length of a SEQUENCE of modulus and 65537, DER.
            KeyType::Rsa2048 => (&rcgen::PKCS_RSA_SHA256, 270),
            KeyType::Rsa3072 => (&rcgen::PKCS_RSA_SHA256, 398),
        };
        PublicKey(algorithm, spki[spki.len() - length..].to_vec())
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.1
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0
    }
}

/// The SubjectPublicKeyInfo of a PKCS#10 request. Checks the request's signature.
pub fn spki_of_csr(csr: &[u8]) -> Vec<u8> {
    imprint_host::csr::Csr::parse(csr).expect("a CSR").spki().to_vec()
}

/// A certs-only message (RFC 5652 §5) with the certificates in this order, even if DER would sort them differently.
pub fn certs_only(certificates: &[Vec<u8>]) -> Vec<u8> {
    let data = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
    let (data, set) = (tlv(0x30, &data), tlv(0xa0, &certificates.concat()));
    let signed: [&[u8]; 4] = [&[2, 1, 1, 0x31, 0], &data, &set, &[0x31, 0]];
    let signed_data = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    tlv(0x30, &[signed_data.as_slice(), &tlv(0xa0, &tlv(0x30, &signed.concat()))].concat())
}

/// The same message as Bouncy Castle writes it: indefinite lengths (X.690 §8.1.3.6) down to the certificates.
pub fn certs_only_ber(certificates: &[Vec<u8>]) -> Vec<u8> {
    let open = |tag: u8, value: &[u8]| [&[tag, 0x80], value, &[0, 0]].concat();
    let data = open(0x30, &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]);
    let set = open(0xa0, &certificates.concat());
    let signed = open(0x30, &[&[2, 1, 1, 0x31, 0], data.as_slice(), &set, &[0x31, 0]].concat());
    let id = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    open(0x30, &[id.as_slice(), &open(0xa0, &signed)].concat())
}

fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    let head = match length {
        [0, short] if short < 0x80 => vec![tag, short],
        [0, short] => vec![tag, 0x81, short],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [head, value.to_vec()].concat()
}
