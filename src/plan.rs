//! Payload + facts → plan. Every decision is here, and nothing but decisions: no I/O, no clock, no randomness.

use std::fmt;
use std::net::IpAddr;

use crate::facts::{Facts, LinkFacts};
use crate::hex;
use crate::payload::{
    CaCertificate, CertificateNames, DnsName, Enrolment, EnrolmentToken, EstUrl, HostName, HttpsUrl, InterfaceName,
    KeyType, Link, LinkKind, Match, NodeName, Payload, PayloadId, Prefix, Route, Seed, TokenMode,
};
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

/// One link and what it gets.
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
    pub urls: Vec<HttpsUrl>,
    /// HTTP Basic user.
    pub name: NodeName,
    /// HTTP Basic password.
    pub token: Option<EnrolmentToken>,
    /// The one TLS trust anchor.
    pub ca: CaCertificate,
    /// SHA-256 of further CAs for the issued certificate.
    pub issuers: Vec<[u8; 32]>,
}

/// How much of a payload is acted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A boot: clock, entropy, network, host name and certificate.
    Boot,
    /// A running system: the certificate only.
    CertificateOnly,
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// The payload is for another machine.
    OtherMachine {
        /// SMBIOS UUID, serial number or MAC address.
        item: &'static str,
        /// What the payload says.
        want: String,
        /// What this machine has.
        have: String,
    },
    /// The image names the CAs of this site, and this one is not among them.
    NotThisSite {
        /// Subject of the payload's CA.
        subject: String,
        /// Its SHA-256.
        sha256: [u8; 32],
    },
    /// The CA is never valid while the payload is.
    CaValidity {
        /// Subject of the payload's CA.
        subject: String,
        /// First second of its validity.
        not_before: Timestamp,
        /// Last second of its validity.
        not_after: Timestamp,
        /// When the payload was made.
        composed: Timestamp,
        /// When the payload expires.
        expiry: Timestamp,
    },
    /// No link matches.
    NoSuchLink {
        /// What the payload asks for.
        want: String,
        /// Links that there are.
        have: String,
    },
    /// Several links match, and this version cannot try them all.
    WhichLink {
        /// What the payload asks for.
        want: String,
        /// Links that match.
        have: String,
    },
    /// Every URL is `line:`, and the payload did not come over a line.
    OnlyLine(Origin),
    /// Part of version 1 that this program cannot do yet.
    Unsupported {
        /// The item.
        item: String,
        /// What to do instead.
        instead: &'static str,
    },
}

/// Decides.
pub fn plan(payload: Payload, facts: &Facts, scope: Scope) -> Result<Plan, PlanError> {
    same_machine(&payload, facts)?;
    if let Some(pin) = &facts.site_pin
        && !pin.0.contains(&payload.ca.sha256())
    {
        let (subject, sha256) = (payload.ca.subject().to_owned(), payload.ca.sha256());
        return Err(PlanError::NotThisSite { subject, sha256 });
    }
    ca_valid_at_some_time(&payload)?;
    let csr = match payload.enrolment {
        Enrolment::Csr(csr) => *csr,
        Enrolment::Credentials(_) => {
            return Err(unsupported("credentials", "give names and an EST URL, so that the node makes its own key"));
        }
    };
    if csr.key != KeyType::P256 {
        return Err(unsupported(&format!("a key of type {}", csr.key), "set key = \"p256\" in the node's record"));
    }
    let urls: Vec<HttpsUrl> = csr.urls.into_iter().filter_map(https_only).collect();
    if urls.is_empty() {
        return Err(PlanError::OnlyLine(facts.origin.clone()));
    }
    let quality = if (payload.composed..=payload.expiry).contains(&facts.now) {
        ClockQuality::Rtc
    } else {
        ClockQuality::Unknown
    };
    let credit_bits = |seed: &Seed| match &facts.origin {
        // Fresh for this boot: the host says that the medium is used once, and it names this machine.
        Origin::ConfigDrive { .. } if seed.single_boot && payload.binding.is_some() => {
            u32::try_from(seed.bytes.expose().len()).unwrap_or(0).saturating_mul(8)
        }
        _ => 0,
    };
    let seed = payload.seed.as_ref().map(|s| SeedPlan { credit_bits: credit_bits(s), bytes: s.bytes.clone() });
    let (network, hostname) = match scope {
        Scope::Boot => (network(payload.network, facts)?, payload.hostname),
        Scope::CertificateOnly => (None, None),
    };
    Ok(Plan {
        id: payload.id,
        origin: facts.origin.clone(),
        pinned: facts.site_pin.is_some(),
        clock: ClockPlan { floor: payload.composed, expiry: payload.expiry, quality },
        seed,
        hostname,
        network,
        subject: SubjectPlan { names: csr.names, key: csr.key },
        server: Server { urls, name: csr.name, token: csr.token, ca: payload.ca, issuers: payload.issuers },
    })
}

/// A payload that did not come over a line has no line to enrol over, so such a URL is passed over.
fn https_only(url: EstUrl) -> Option<HttpsUrl> {
    match url {
        EstUrl::Https(url) => Some(url),
        EstUrl::Line => None,
    }
}

fn unsupported(item: &str, instead: &'static str) -> PlanError {
    PlanError::Unsupported { item: item.to_owned(), instead }
}

fn same_machine(payload: &Payload, facts: &Facts) -> Result<(), PlanError> {
    let Some(binding) = &payload.binding else { return Ok(()) };
    if let Some(want) = binding.uuid
        && facts.dmi.uuid != Some(want)
    {
        let have = facts.dmi.uuid.map_or("none".to_owned(), |have| hex::uuid(&have));
        return Err(PlanError::OtherMachine { item: "SMBIOS UUID", want: hex::uuid(&want), have });
    }
    if let Some(want) = &binding.serial
        && facts.dmi.serial.as_ref() != Some(want)
    {
        let have = facts.dmi.serial.clone().unwrap_or("none".to_owned());
        return Err(PlanError::OtherMachine { item: "serial number", want: want.clone(), have });
    }
    let macs = &binding.macs;
    if !macs.is_empty() && !facts.links.iter().any(|link| link.mac.as_ref().is_some_and(|mac| macs.contains(mac))) {
        let have: Vec<_> = facts.links.iter().filter_map(|link| link.mac.as_ref()).collect();
        return Err(PlanError::OtherMachine { item: "MAC address", want: listed(macs), have: listed(&have) });
    }
    Ok(())
}

fn listed(items: &[impl fmt::Display]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether it is valid *now* can be said once a server told the time; that it never is can be said before.
fn ca_valid_at_some_time(payload: &Payload) -> Result<(), PlanError> {
    let ca = &payload.ca;
    if ca.not_before() <= payload.expiry && payload.composed <= ca.not_after() {
        return Ok(());
    }
    Err(PlanError::CaValidity {
        subject: ca.subject().to_owned(),
        not_before: ca.not_before(),
        not_after: ca.not_after(),
        composed: payload.composed,
        expiry: payload.expiry,
    })
}

fn network(links: Vec<Link>, facts: &Facts) -> Result<Option<NetworkPlan>, PlanError> {
    let mut links = links.into_iter();
    let Some(link) = links.next() else { return Ok(None) };
    if links.next().is_some() {
        return Err(unsupported("more than one link", "give the one link that leads to the EST server"));
    }
    for (asked, item) in [(link.dhcp4, "DHCPv4"), (link.slaac, "SLAAC"), (link.dhcp6, "DHCPv6")] {
        if asked {
            return Err(unsupported(item, "give a static IPv4 address"));
        }
    }
    if link.addresses.iter().any(|prefix| prefix.address().is_ipv6())
        || link.routes.iter().any(|route| route.destination.address().is_ipv6())
    {
        return Err(unsupported("IPv6", "give a static IPv4 address"));
    }
    let matching = match &link.kind {
        LinkKind::Physical(matching) => matching,
        LinkKind::Vlan { name, .. } => return Err(unsupported(&format!("VLAN {name}"), "give a physical link")),
        LinkKind::Bond { name, .. } => return Err(unsupported(&format!("bond {name}"), "give a physical link")),
        LinkKind::Bridge { name, .. } => return Err(unsupported(&format!("bridge {name}"), "give a physical link")),
    };
    let chosen = choose(matching, facts)?;
    Ok(Some(NetworkPlan {
        index: chosen.index,
        name: chosen.name.clone(),
        mtu: link.mtu,
        addresses: link.addresses,
        routes: link.routes,
        dns: link.dns,
        search: link.search,
    }))
}

fn choose<'f>(matching: &Match, facts: &'f Facts) -> Result<&'f LinkFacts, PlanError> {
    let candidates: Vec<&LinkFacts> = facts.links.iter().filter(|link| facts.is(matching, link)).collect();
    let want = matching.to_string();
    match candidates.as_slice() {
        [] => Err(PlanError::NoSuchLink { want, have: listed(&facts.links) }),
        [one] => Ok(one),
        several => match several.iter().find(|link| link.carrier) {
            Some(first) => Ok(first),
            None => Err(PlanError::WhichLink { want, have: listed(several) }),
        },
    }
}

/// `eth0 (52:54:00:12:34:56, virtio_net)`
impl fmt::Display for LinkFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = self.mac.as_ref().map_or("no MAC address".to_owned(), ToString::to_string);
        let driver = self.driver.as_ref().map_or("virtual", |driver| driver.as_str());
        write!(f, "{} ({mac}, {driver})", self.name)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "payload    {} from {}", self.id, self.origin)?;
        let pin = if self.pinned { "named by this image" } else { "not pinned: as good as the payload's channel" };
        writeln!(
            f,
            "trust      {}, sha256 {} ({pin})",
            self.server.ca.subject(),
            hex::encode(&self.server.ca.sha256())
        )?;
        for issuer in &self.server.issuers {
            writeln!(f, "issuer     sha256 {}", hex::encode(issuer))?;
        }
        let clock = match self.clock.quality {
            ClockQuality::Rtc => "plausible, kept",
            ClockQuality::Unknown => "not within the payload's time, set to its start",
        };
        writeln!(
            f,
            "clock      {clock} until a server tells; payload from {} to {}",
            self.clock.floor, self.clock.expiry
        )?;
        if let Some(seed) = &self.seed {
            writeln!(f, "seed       {} bytes, {} bits credited", seed.bytes.expose().len(), seed.credit_bits)?;
        }
        if let Some(hostname) = &self.hostname {
            writeln!(f, "host name  {hostname}")?;
        }
        match &self.network {
            Some(network) => network.fmt(f)?,
            None => writeln!(f, "network    left as it is")?,
        }
        writeln!(f, "key        {}", self.subject.key)?;
        writeln!(f, "names      {}", self.subject.names)?;
        let token = match self.server.token.as_ref().map(|token| token.mode) {
            Some(TokenMode::Once) => "a token for one enrolment",
            Some(TokenMode::EachBoot) => "a token for each boot",
            None => "no token",
        };
        writeln!(f, "enrol      as {} with {token}", self.server.name)?;
        for url in &self.server.urls {
            writeln!(f, "server     {url}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NetworkPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "link       {} (index {})", self.name, self.index)?;
        if let Some(mtu) = self.mtu {
            writeln!(f, "mtu        {mtu}")?;
        }
        for address in &self.addresses {
            writeln!(f, "address    {address}")?;
        }
        for route in &self.routes {
            writeln!(f, "route      {route}")?;
        }
        for server in &self.dns {
            writeln!(f, "dns        {server}")?;
        }
        for domain in &self.search {
            writeln!(f, "search     {domain}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::OtherMachine { item, want, have } => write!(
                f,
                "the payload is for a machine with {item} {want}, this one has {have}; give this machine its own payload"
            ),
            PlanError::NotThisSite { subject, sha256 } => write!(
                f,
                "the payload's CA \"{subject}\" (sha256 {}) is not among those of /imprint/site in this image; use a \
                 payload of this site, or an image of the other",
                hex::encode(sha256)
            ),
            PlanError::CaValidity { subject, not_before, not_after, composed, expiry } => write!(
                f,
                "the payload's CA \"{subject}\" is valid from {not_before} to {not_after}, the payload from {composed} to \
                 {expiry}: never at the same time; make a payload with a current CA"
            ),
            PlanError::NoSuchLink { want, have } => {
                write!(f, "no network link with {want}; this machine has: {have}; is its driver in the image?")
            }
            PlanError::WhichLink { want, have } => {
                write!(f, "several links with {want} and none with carrier yet: {have}; match one by its MAC address")
            }
            PlanError::OnlyLine(origin) => write!(
                f,
                "the payload has no URL but line:, and it did not come over a line but from {origin}; add an https URL"
            ),
            PlanError::Unsupported { item, instead } => {
                write!(f, "{item} is not supported by this version; {instead}")
            }
        }
    }
}

impl std::error::Error for PlanError {}

#[cfg(test)]
mod tests;
