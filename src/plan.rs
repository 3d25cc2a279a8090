//! Payload + facts → plan. Every decision is here, and nothing but decisions: no I/O, no clock, no randomness.

use std::net::IpAddr;

use crate::payload::{CaCertificate, CertificateNames, DnsName, EnrolmentToken, EstUrl, HostName, InterfaceName, KeyType, NodeName, PayloadId, Prefix, Route};
use crate::secret::Secret;
use crate::source::Origin;
use crate::time::Timestamp;

/// What will be done. Its `Display` is the dry run that users read and the golden file that tests compare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Which payload.
    pub id: PayloadId,
    /// Where it came from.
    pub origin: Origin,
    /// Whether the image names the CAs of this site; if not, trust is as good as the channel of the payload.
    pub pinned: bool,
    /// The time of day.
    pub clock: ClockPlan,
    /// The random pool.
    pub seed: Option<SeedPlan>,
    /// Host name to set.
    pub hostname: Option<HostName>,
    /// The network; `None` leaves it as it is.
    pub network: Option<NetworkPlan>,
    /// What goes into key and CSR.
    pub subject: SubjectPlan,
    /// Who signs it.
    pub server: Server,
}

/// What is known about the time of day before anybody was asked (design §7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClockPlan {
    /// The earliest that it can be.
    pub floor: Timestamp,
    /// The payload's expiry.
    pub expiry: Timestamp,
    /// Whether the system clock lies within [floor, expiry].
    pub quality: ClockQuality,
}

/// How far the system clock is to be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockQuality {
    /// Inside the interval: plausible, and kept until a server says better.
    Rtc,
    /// Outside it: set to the floor until a server says better.
    Unknown,
}

/// Entropy to mix in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedPlan {
    /// The seed.
    pub bytes: Secret,
    /// Bits to credit; 0 mixes only.
    pub credit_bits: u32,
}

/// One link and what it gets (more links come with the schema; the plan refuses them by name until then).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkPlan {
    /// Kernel interface index.
    pub index: u32,
    /// Name at the time of planning.
    pub name: InterfaceName,
    /// In bytes.
    pub mtu: Option<u16>,
    /// Static addresses.
    pub addresses: Vec<Prefix>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<DnsName>,
}

/// What the node calls itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubjectPlan {
    /// Exactly these names.
    pub names: CertificateNames,
    /// What key.
    pub key: KeyType,
}

/// Who signs, and what the answer must chain to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// EST bases in order; never empty.
    pub urls: Vec<EstUrl>,
    /// HTTP Basic user.
    pub name: NodeName,
    /// HTTP Basic password.
    pub token: Option<EnrolmentToken>,
    /// The one TLS trust anchor.
    pub ca: CaCertificate,
    /// SHA-256 of further CAs for the issued certificate.
    pub issuers: Vec<[u8; 32]>,
}
