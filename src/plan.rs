//! Turns a payload and the facts about the machine into a plan. Every decision of a run is made here. Never does I/O,
//! and never reads the clock or the random pool.

mod bundle;
mod clock;
mod error;
mod network;
mod show;
mod stack;

pub use bundle::BundlePlan;
pub use clock::{ClockPlan, ClockQuality, SignedTime};
pub use error::PlanError;
pub use network::{LinkConfig, LinkPlan, NetworkPlan, early};
pub use stack::{Layer, StackError, Under, What, below, check as check_links};

use std::time::Duration;

use crate::facts::Facts;
use crate::hex;
use crate::machine::{Dmi, placeholder};
use crate::medium::Medium;
use crate::payload::{
    CaCertificate, CertificateNames, Credentials, CsrEnrolment, Enrolment, EnrolmentToken, EstUrl, HardwareAddress,
    HostName, HttpsUrl, KeyType, NodeName, Payload, PayloadId, Seed, TokenMode,
};
use crate::secret::Secret;
use crate::site::{SignedBy, SitePin};
use crate::source::Origin;
use crate::time::Timestamp;

/// The steps of a run. The `Display` is the dry run that users read and the golden file that tests compare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The identifier of the payload.
    pub id: PayloadId,
    /// Where the payload came from.
    pub origin: Origin,
    /// Whether the image has a site pin that names the CAs of this site. Without it, and without a signer, the CA is as
    /// trustworthy as the channel that brought the payload.
    pub pinned: bool,
    /// Whose signature the payload has.
    pub signed: SignedBy,
    /// The time of day.
    pub clock: ClockPlan,
    /// The time that a host on a line gave, if it lies before the payload was made. The node does not use it.
    pub disbelieved: Option<Timestamp>,
    /// The entropy for the random pool.
    pub seed: Option<SeedPlan>,
    /// The host name to set.
    pub hostname: Option<HostName>,
    /// The network. `None` leaves it unchanged.
    pub network: Option<NetworkPlan>,
    /// Where key and certificate come from.
    pub identity: IdentityPlan,
    /// The bundle with the node's configuration. `None`: it has none, or this run does not apply one.
    pub bundle: Option<BundlePlan>,
    /// SHA-256 of the image that is the root, where `root=imprint:` names one.
    pub root: Option<[u8; 32]>,
}

/// Where key and certificate come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdentityPlan {
    /// The node makes the key, and a server signs the CSR.
    Enrol {
        /// The type of the key, and the names in the CSR.
        subject: SubjectPlan,
        /// The server that signs.
        server: Server,
    },
    /// The payload contains both, and no server is asked.
    Given(GivenPlan),
}

/// Certificate and key from the payload, and the data to verify them with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenPlan {
    /// DER, leaf first; never empty.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key: Secret,
    /// The trust anchor of the chain.
    pub ca: CaCertificate,
    /// SHA-256 of further CAs that the chain may lead to.
    pub issuers: Vec<[u8; 32]>,
    /// The time at which the chain has to be valid: the time of a host on a line, or else of the system clock. If that
    /// is too early, the earliest possible time.
    pub now: Timestamp,
}

/// Entropy to mix in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedPlan {
    /// The seed.
    pub bytes: Secret,
    /// Bits to credit; with 0 the seed is mixed in only.
    pub credit_bits: u32,
}

/// The identity that the node asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubjectPlan {
    /// The CSR contains exactly these names.
    pub names: CertificateNames,
    /// The type of the key.
    pub key: KeyType,
}

/// The server that signs, and the CAs that the issued certificate must chain to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// In order; never empty. `line:` is among them only if the payload came over a line.
    pub urls: Vec<EstUrl>,
    /// HTTP Basic user.
    pub name: NodeName,
    /// HTTP Basic password.
    pub token: Option<EnrolmentToken>,
    /// The only TLS trust anchor.
    pub ca: CaCertificate,
    /// SHA-256 of further CAs for the issued certificate.
    pub issuers: Vec<[u8; 32]>,
}

/// Which parts of a payload a run uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A boot, in the initramfs: clock, entropy, network, host name, certificate and bundle.
    Boot,
    /// A boot without an initramfs, or behind it: the same without a bundle. A payload that asks for one is refused.
    RealRoot,
    /// A running system: the certificate only.
    CertificateOnly,
}

/// Makes the plan, or says why there is none.
pub fn plan(payload: Payload, facts: &Facts, scope: Scope) -> Result<Plan, PlanError> {
    bound(&payload, &facts.origin, facts.fresh.is_some(), facts.site_pin.as_ref())?;
    let macs: Vec<&HardwareAddress> = facts.links.iter().filter_map(|link| link.mac.as_ref()).collect();
    same_machine(&payload, &facts.dmi, &macs)?;
    if let Some(pin) = &facts.site_pin
        && !pin.takes(&payload.ca.sha256())
    {
        let (subject, sha256) = (payload.ca.subject().to_owned(), payload.ca.sha256());
        return Err(PlanError::NotThisSite { subject, sha256, file: pin.file });
    }
    ca_valid_at_some_time(&payload)?;
    let (clock, disbelieved) = clock::decide(&payload, facts)?;
    let (ca, issuers) = (payload.ca, payload.issuers);
    let identity = match payload.enrolment {
        Enrolment::Csr(csr) => {
            let CsrEnrolment { name, names, key, urls, token } = *csr;
            // If the payload did not come over a line, there is no line to enrol over.
            let line = matches!(facts.origin, Origin::Line { .. });
            let urls: Vec<EstUrl> = urls.into_iter().filter(|url| line || *url != EstUrl::Line).collect();
            if urls.is_empty() {
                return Err(PlanError::OnlyLine(facts.origin.clone()));
            }
            let server = Server { urls, name, token, ca, issuers };
            IdentityPlan::Enrol { subject: SubjectPlan { names, key }, server }
        }
        Enrolment::Credentials(Credentials { chain, key }) => {
            let now = clock.without_a_server(facts)?;
            IdentityPlan::Given(GivenPlan { chain, key, ca, issuers, now })
        }
    };
    let fresh = |seed: &Seed| match &facts.origin {
        // Whoever runs the machine knows the seed, or can have chosen it.
        origin if facts.confidential.is_some() && facts.fresh.is_none() && origin.is_of_hypervisor() => false,
        // The host says that the medium is used once, and it names this machine.
        Origin::Medium { medium, .. } => {
            medium.row().credits_seed && seed.single_boot && placeholder::is_named(payload.binding.as_ref())
        }
        // Sealed for a key that was made in this boot.
        Origin::Line { sealed, .. } => *sealed && seed.single_boot,
        Origin::File(_) => false,
    };
    let credit_bits = |seed: &Seed| {
        let bits = u32::try_from(seed.bytes.expose().len()).unwrap_or(0).saturating_mul(8);
        if fresh(seed) { bits } else { 0 }
    };
    let seed = payload.seed.as_ref().map(|s| SeedPlan { credit_bits: credit_bits(s), bytes: s.bytes.clone() });
    let urls: Vec<&HttpsUrl> = match &identity {
        IdentityPlan::Enrol { server, .. } => server.https().collect(),
        IdentityPlan::Given(_) => Vec::new(),
    };
    let (network, hostname) = match scope {
        Scope::Boot | Scope::RealRoot => {
            let of_words = facts.cmdline.hostname.clone().filter(|_| payload.from_cmdline);
            let network = network::decide(payload.network, payload.from_cmdline, &urls, facts)?;
            (network, payload.hostname.or(of_words))
        }
        Scope::CertificateOnly => (None, None),
    };
    let bundle = match payload.bundle {
        Some(terms) => bundle::decide(terms, payload.signers, &urls, facts.site_pin.as_ref(), scope)?,
        None => None,
    };
    Ok(Plan {
        id: payload.id,
        origin: facts.origin.clone(),
        pinned: facts.site_pin.as_ref().is_some_and(|pin| !pin.cas.is_empty()),
        signed: facts.signed,
        clock,
        disbelieved,
        seed,
        hostname,
        network,
        identity,
        bundle,
        root: payload.root,
    })
}

impl Plan {
    /// The only trust anchor.
    pub fn ca(&self) -> &CaCertificate {
        match &self.identity {
            IdentityPlan::Enrol { server, .. } => &server.ca,
            IdentityPlan::Given(given) => &given.ca,
        }
    }

    /// The medium from which the payload is removed after the hand-over. A payload with an each-boot token stays,
    /// because the next boot needs it.
    pub fn spent(&self) -> Option<Medium> {
        let Origin::Medium { medium, .. } = &self.origin else { return None };
        let stays = match &self.identity {
            IdentityPlan::Enrol { server, .. } => {
                server.token.as_ref().is_some_and(|token| token.mode == TokenMode::EachBoot)
            }
            IdentityPlan::Given(_) => false,
        };
        (medium.is_cleared() && !stays).then_some(*medium)
    }

    /// SHA-256 of further CAs for the node's certificate.
    pub fn issuers(&self) -> &[[u8; 32]] {
        match &self.identity {
            IdentityPlan::Enrol { server, .. } => &server.issuers,
            IdentityPlan::Given(given) => &given.issuers,
        }
    }
}

impl Server {
    /// The URLs that use the network.
    pub fn https(&self) -> impl Iterator<Item = &HttpsUrl> {
        self.urls.iter().filter_map(|url| match url {
            EstUrl::Https(url) => Some(url),
            EstUrl::Line => None,
        })
    }
}

/// Refuses what [`plan`] would refuse of a payload that was signed for this node, before it is used: then the search goes on. `macs`:
/// those of the links that there are now. If the one that the payload is bound to comes later, the payload fits when it comes again.
/// `since`: how long ago it came.
pub fn fits(payload: &Payload, since: Duration, dmi: &Dmi, macs: &[HardwareAddress]) -> Result<(), PlanError> {
    same_machine(payload, dmi, &macs.iter().collect::<Vec<_>>())?;
    ca_valid_at_some_time(payload)?;
    let (expiry, told) = (payload.expiry, payload.composed.plus(since));
    if told > expiry { Err(PlanError::ExpiredByLine { expiry, told }) } else { Ok(()) }
}

fn same_machine(payload: &Payload, dmi: &Dmi, macs: &[&HardwareAddress]) -> Result<(), PlanError> {
    let Some(binding) = &payload.binding else { return Ok(()) };
    // Beside an item that names a machine, a placeholder does not count. Alone it fits no machine.
    let named = placeholder::is_named(Some(binding));
    if let Some(want) = binding.uuid.filter(|uuid| !(named && placeholder::is_uuid(uuid)))
        && dmi.uuid != Some(want)
    {
        let have = dmi.uuid.map_or("none".into(), |have| hex::uuid(&have).as_str().into());
        return Err(PlanError::OtherMachine { item: "SMBIOS UUID", want: hex::uuid(&want).as_str().into(), have });
    }
    // Firmware pads the serial number, so the one from SMBIOS is trimmed. The one from the payload is trimmed, too.
    if let Some(want) = binding.serial.as_deref().map(str::trim).filter(|text| !(named && placeholder::is_serial(text)))
        && dmi.serial.as_deref() != Some(want)
    {
        let have = dmi.serial.as_deref().unwrap_or("none").into();
        return Err(PlanError::OtherMachine { item: "serial number", want: want.into(), have });
    }
    let wanted = &binding.macs;
    if !wanted.is_empty() && !macs.iter().any(|mac| wanted.contains(mac) && !placeholder::is_mac(mac)) {
        return Err(PlanError::OtherMachine {
            item: "MAC address",
            want: joined(wanted, ", ").as_str().into(),
            have: joined(macs, ", ").as_str().into(),
        });
    }
    Ok(())
}

fn joined(items: &[impl std::fmt::Display], between: &str) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// Refuses a payload that names no machine, if the image names signers: it would be good for every node that finds it, or that
/// somebody sends it to. `fresh`: it was signed for this node.
pub fn bound(payload: &Payload, origin: &Origin, fresh: bool, pin: Option<&SitePin>) -> Result<(), PlanError> {
    if let Some(pin) = pin.filter(|pin| pin.has_signers())
        && !fresh
        && !placeholder::is_named(payload.binding.as_ref())
    {
        return Err(PlanError::NotBound(origin.clone(), pin.file));
    }
    Ok(())
}

/// Refuses a CA that is valid at no moment of the payload's life. Whether the CA is valid *now* is checked later, when
/// the time is known.
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

#[cfg(test)]
mod tests;
