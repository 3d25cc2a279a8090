//! The bootstrap payload, version 1: the host's instructions to one node. Every value of these types is validated;
//! later code takes the types and never the text or bytes that they were read from. The wire format is
//! `docs/payload.cddl`. This module never reads a medium and never acts on a payload.

mod address;
mod bundle;
mod ca;
mod cbor;
mod codec;
mod form;
pub(crate) mod items;
mod names;
mod show;
pub mod signed;
mod url;

use std::net::IpAddr;

pub use address::{HardwareAddress, Prefix};
pub use bundle::{BundleKey, BundleTerms, MAX_COUNTER};
pub use ca::{CaCertificate, CaError};
pub use cbor::{DecodeError, Extension, Problem, Step, first_item};
pub use form::Form;
pub use names::{
    Attribute, DevicePath, DnsName, DriverName, Email, HostName, InterfaceName, NameError, NodeName, Subject,
    SubjectAttribute, Token, UnitName, Uri,
};
pub use url::{EstUrl, HttpsUrl, UrlError, UrlHost, authority_parts};

use self::signed::Signer;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The largest payload, in bytes. Readers check the length before they allocate memory for a payload.
pub const MAX_LEN: usize = 64 * 1024;

/// One payload. `Payload::decode` and `Payload::encode` are exact inverses. Both know only the form without a
/// signature; [`signed`] has the other form.
#[derive(Clone, PartialEq, Debug)]
pub struct Payload {
    /// Different for each payload.
    pub id: PayloadId,
    /// When the host made the payload, by the host's clock. A node that reads the payload knows that it is later now.
    pub composed: Timestamp,
    /// The end of the payload's life: node and server refuse the payload afterwards. Later than `composed`.
    pub expiry: Timestamp,
    /// The machine that the payload is meant for: a guard against mix-ups, not against attackers.
    pub binding: Option<Binding>,
    /// Entropy for the kernel's pool.
    pub seed: Option<Seed>,
    /// Links, in the order in which they are to be tried.
    pub network: Vec<Link>,
    /// The network is as the kernel command line says (`ip=` and its like). Never with links in `network`. Without either, the
    /// node leaves its network as somebody else has configured it.
    pub from_cmdline: bool,
    /// Host name to set; it need not be a name in the certificate.
    pub hostname: Option<HostName>,
    /// The only trust anchor for TLS.
    pub ca: CaCertificate,
    /// SHA-256 of further CA certificates that the *issued* certificate may chain to. Never used for TLS.
    pub issuers: Vec<[u8; 32]>,
    /// How the node gets its certificate.
    pub enrolment: Enrolment,
    /// Who signs the node's bundles, if the image's site pin names no signer. Used only with `bundle`.
    pub signers: Vec<Signer>,
    /// The node takes its configuration from a bundle. Never with [`Enrolment::Credentials`]: it takes a server.
    pub bundle: Option<BundleTerms>,
    /// SHA-256 of the image that is the root, where `root=imprint:` names one. Another image is not mounted.
    pub root: Option<[u8; 32]>,
    /// Entries with negative keys, from any map of the payload. They are ignored, and kept so that encoding gives the
    /// same bytes.
    pub extensions: Vec<Extension>,
}

/// Key of [`Payload::admitted`]. Readers ignore keys below 0 that they do not know.
const ADMITTED: i8 = -1;

/// 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadId(pub [u8; 16]);

impl std::fmt::Display for PayloadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

/// Identifiers of the machine. Every identifier that is present has to match. At least one is present.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Binding {
    /// SMBIOS system UUID in the byte order that `/sys/class/dmi/id/product_uuid` shows.
    pub uuid: Option<[u8; 16]>,
    /// One of these addresses must be on one of the machine's links.
    pub macs: Vec<HardwareAddress>,
    /// SMBIOS system serial number (`/sys/class/dmi/id/product_serial`).
    pub serial: Option<String>,
}

/// Entropy seed: always mixed into the kernel's pool; the rule in `plan` decides whether it is credited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seed {
    /// 32 to 512 bytes.
    pub bytes: Secret,
    /// The host declares that this medium is used for one boot only.
    pub single_boot: bool,
}

/// One network link: an existing one that is matched, or a virtual one that is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Which link.
    pub kind: LinkKind,
    /// Static addresses with their prefix lengths.
    pub addresses: Vec<Prefix>,
    /// Ask for an IPv4 address by DHCP (RFC 2131).
    pub dhcp4: bool,
    /// The client identifier of DHCPv4 is the machine's DUID (RFC 4361), and not the hardware address.
    pub duid: bool,
    /// Take IPv6 addresses from router advertisements (RFC 4862).
    pub slaac: bool,
    /// Ask for an IPv6 address by DHCPv6 (RFC 8415).
    pub dhcp6: bool,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Name servers reached over this link.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
    /// In bytes, 68 to 65535; at least 1280 with IPv6 (RFC 8200 §5).
    pub mtu: Option<u16>,
}

impl Link {
    /// A link that gets its addresses from DHCP and from router advertisements.
    pub fn automatic(matching: Match) -> Link {
        Link { dhcp4: true, slaac: true, ..Link::plain(matching) }
    }

    /// A link that gets nothing but carrier.
    pub fn plain(matching: Match) -> Link {
        Link {
            kind: LinkKind::Physical(matching),
            addresses: Vec::new(),
            dhcp4: false,
            duid: false,
            slaac: false,
            dhcp6: false,
            routes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            mtu: None,
        }
    }
}

/// Which link an entry of `Payload::network` describes. `ports` and `parent` are indices of earlier entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkKind {
    /// A link that exists on the machine already.
    Physical(Match),
    /// An IEEE 802.1Q VLAN.
    Vlan {
        /// Name of the new link.
        name: InterfaceName,
        /// 1 to 4094.
        id: u16,
        /// The link that carries it.
        parent: usize,
    },
    /// A bond.
    Bond {
        /// Name of the new link.
        name: InterfaceName,
        /// How the bond uses its ports.
        mode: BondMode,
        /// Ascending, each once.
        ports: Vec<usize>,
    },
    /// A bridge.
    Bridge {
        /// Name of the new link.
        name: InterfaceName,
        /// Ascending, each once.
        ports: Vec<usize>,
    },
}

/// How a physical link is recognised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Match {
    /// By its permanent hardware address.
    Mac(HardwareAddress),
    /// By its kernel name.
    Name(InterfaceName),
    /// By the name of its kernel driver.
    Driver(DriverName),
    /// By `BOOTIF=` on the kernel command line, as PXELINUX and iPXE write it.
    BootIf,
    /// Any link that has carrier.
    AnyWithCarrier,
    /// By where its device is.
    Path(DevicePath),
}

impl std::fmt::Display for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Match::Mac(mac) => write!(f, "MAC address {mac}"),
            Match::Name(name) => write!(f, "name {name}"),
            Match::Driver(driver) => write!(f, "driver {driver}"),
            Match::BootIf => f.write_str("BOOTIF"),
            Match::AnyWithCarrier => f.write_str("any with carrier"),
            Match::Path(path) => write!(f, "device path {path}"),
        }
    }
}

/// The bonding modes that a payload can ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BondMode {
    /// One port at a time.
    ActiveBackup,
    /// LACP. The partner is asked for a LACPDU each second.
    Lacp,
    /// LACP. The partner is asked for a LACPDU each 30 s.
    LacpSlow,
}

impl BondMode {
    /// Whether the partner has to agree before the bond carries anything.
    pub fn is_lacp(self) -> bool {
        self != BondMode::ActiveBackup
    }
}

/// As the record has it, with what differs from the usual.
impl std::fmt::Display for BondMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BondMode::ActiveBackup => "active-backup",
            BondMode::Lacp => "802.3ad",
            BondMode::LacpSlow => "802.3ad, slow LACP",
        })
    }
}

/// A static route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Host bits are zero; a length of 0 is the default route.
    pub destination: Prefix,
    /// `None`: on-link.
    pub gateway: Option<IpAddr>,
    /// The kernel's own default when absent.
    pub metric: Option<u32>,
}

/// `0.0.0.0/0 via 192.0.2.1 metric 100`
impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(metric) = self.metric {
            write!(f, " metric {metric}")?;
        }
        Ok(())
    }
}

/// How the node gets its certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Enrolment {
    /// The node makes a key and has a CSR signed.
    Csr(Box<CsrEnrolment>),
    /// The payload contains the certificate and the key.
    Credentials(Credentials),
}

/// The contents of the CSR, and the servers that may sign it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CsrEnrolment {
    /// The name of the node's record at the server; also the HTTP Basic user name.
    pub name: NodeName,
    /// The CSR contains exactly these names.
    pub names: CertificateNames,
    /// The type of key to make.
    pub key: KeyType,
    /// EST bases, tried in order; never empty.
    pub urls: Vec<EstUrl>,
    /// Enrolment secret; HTTP Basic password.
    pub token: Option<EnrolmentToken>,
}

/// Subject and subject alternative names. At least one name is present.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CertificateNames {
    /// May be empty; then the SAN extension is critical (RFC 5280 §4.2.1.6).
    pub subject: Subject,
    /// dNSName.
    pub dns: Vec<DnsName>,
    /// iPAddress.
    pub ips: Vec<IpAddr>,
    /// uniformResourceIdentifier.
    pub uris: Vec<Uri>,
    /// rfc822Name.
    pub emails: Vec<Email>,
}

/// `CN=node1 dns:node1.example.org ip:192.0.2.10`
impl std::fmt::Display for CertificateNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if !self.subject.0.is_empty() {
            parts.push(self.subject.to_string());
        }
        parts.extend(self.dns.iter().map(|name| format!("dns:{name}")));
        parts.extend(self.ips.iter().map(|ip| format!("ip:{ip}")));
        parts.extend(self.uris.iter().map(|uri| format!("uri:{uri}")));
        parts.extend(self.emails.iter().map(|email| format!("email:{email}")));
        f.write_str(&parts.join(" "))
    }
}

/// Key algorithms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KeyType {
    /// ECDSA on NIST P-256, the default.
    #[default]
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// EdDSA (RFC 8410).
    Ed25519,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
}

impl KeyType {
    /// Every key type with the name that records, plans and messages use for it.
    pub const ALL: [(KeyType, &str); 5] = [
        (KeyType::P256, "p256"),
        (KeyType::P384, "p384"),
        (KeyType::Ed25519, "ed25519"),
        (KeyType::Rsa2048, "rsa2048"),
        (KeyType::Rsa3072, "rsa3072"),
    ];
}

impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = KeyType::ALL.iter().find(|(key, _)| key == self).map_or("?", |(_, name)| name);
        f.write_str(name)
    }
}

/// The secret with which the server signs a CSR without asking the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnrolmentToken {
    /// Printable ASCII.
    pub secret: Token,
    /// How often the secret may be used.
    pub mode: TokenMode,
}

/// How often a token may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenMode {
    /// One signature.
    Once,
    /// Every boot until the payload's expiry.
    EachBoot,
}

/// Certificate chain and private key, made by the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// DER, leaf first; never empty.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER.
    pub key: Secret,
}

impl Link {
    /// Reads a network without the rest of a payload, as it lies in an image: a map with the version and the network of a
    /// payload, and with nothing else.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Link>, DecodeError> {
        codec::decode_network(bytes)
    }

    /// The reverse of [`Link::decode_all`].
    pub fn encode_all(links: &[Link]) -> Vec<u8> {
        codec::encode_network(links)
    }
}

impl Payload {
    /// How the node was let in at the door that the payload came from: one word. Only a signature vouches for it.
    pub fn admitted(&self) -> Option<&str> {
        let word = self.extensions.iter().find_map(|extension| extension.as_text(ADMITTED))?;
        let sound =
            (1..=32).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        sound.then_some(word)
    }

    /// Whether [`Payload::admitted`] comes from this entry.
    fn says_admitted(&self, extension: &Extension) -> bool {
        self.admitted().is_some() && extension.as_text(ADMITTED).is_some()
    }

    /// Says how the node was let in.
    pub fn admit(&mut self, word: &str) {
        self.extensions.retain(|extension| extension.as_text(ADMITTED).is_none());
        self.extensions.push(Extension::text(ADMITTED, word));
    }

    /// Reads the wire format. Every error names the offset, the item and the fault.
    pub fn decode(bytes: &[u8]) -> Result<Payload, DecodeError> {
        codec::decode(bytes)
    }

    /// Writes the wire format: deterministic CBOR (RFC 8949 §4.2).
    pub fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        codec::encode(self)
    }
}
