//! Payload + facts → plan. Every decision is here, and nothing but decisions: no I/O, no clock, no randomness.

mod clock;
mod error;
mod network;
mod show;

pub use clock::{ClockPlan, ClockQuality};
pub use error::PlanError;
pub use network::{LinkConfig, LinkPlan, NetworkPlan};

use crate::facts::Facts;
use crate::hex;
use crate::payload::{
    CaCertificate, CertificateNames, Credentials, CsrEnrolment, Enrolment, EnrolmentToken, EstUrl, HostName, HttpsUrl,
    KeyType, NodeName, Payload, PayloadId, Seed,
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
    /// What a host on a line said that the time was, before the payload was made: nobody believes it.
    pub disbelieved: Option<Timestamp>,
    /// The random pool.
    pub seed: Option<SeedPlan>,
    /// Host name to set.
    pub hostname: Option<HostName>,
    /// The network; `None` leaves it as it is.
    pub network: Option<NetworkPlan>,
    /// Where key and certificate come from.
    pub identity: IdentityPlan,
}

/// Where key and certificate come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdentityPlan {
    /// The key is made here, and a server signs.
    Enrol {
        /// What goes into key and CSR.
        subject: SubjectPlan,
        /// Who signs it.
        server: Server,
    },
    /// Both are in the payload, and nobody is asked.
    Given(GivenPlan),
}

/// Certificate and key from the payload, and what they are held against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenPlan {
    /// DER, leaf first; never empty.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key: Secret,
    /// Its trust anchor.
    pub ca: CaCertificate,
    /// SHA-256 of further CAs that it may chain to.
    pub issuers: Vec<[u8; 32]>,
    /// The time at which it has to be valid: the system clock's, where that is plausible, else the earliest possible.
    pub now: Timestamp,
}

/// Entropy to mix in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeedPlan {
    /// The seed.
    pub bytes: Secret,
    /// Bits to credit; 0 mixes only.
    pub credit_bits: u32,
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
    /// In order; never empty. The line is among them only where the payload came over one.
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

/// How much of a payload is acted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A boot: clock, entropy, network, host name and certificate.
    Boot,
    /// A running system: the certificate only.
    CertificateOnly,
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
    let (clock, disbelieved) = clock::decide(&payload, facts)?;
    let (ca, issuers) = (payload.ca, payload.issuers);
    let identity = match payload.enrolment {
        Enrolment::Csr(csr) => {
            let CsrEnrolment { name, names, key, urls, token } = *csr;
            // A payload that did not come over a line has no line to enrol over.
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
        // The host says that the medium is used once, and it names this machine.
        Origin::Medium { medium, .. } => {
            medium.row().credits_seed && seed.single_boot && payload.binding.is_some()
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
        Scope::Boot => (network::decide(payload.network, &urls, facts)?, payload.hostname),
        Scope::CertificateOnly => (None, None),
    };
    Ok(Plan {
        id: payload.id,
        origin: facts.origin.clone(),
        pinned: facts.site_pin.is_some(),
        clock,
        disbelieved,
        seed,
        hostname,
        network,
        identity,
    })
}

impl Plan {
    /// The one trust anchor.
    pub fn ca(&self) -> &CaCertificate {
        match &self.identity {
            IdentityPlan::Enrol { server, .. } => &server.ca,
            IdentityPlan::Given(given) => &given.ca,
        }
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
    /// Those of the URLs that lead over a network.
    pub fn https(&self) -> impl Iterator<Item = &HttpsUrl> {
        self.urls.iter().filter_map(|url| match url {
            EstUrl::Https(url) => Some(url),
            EstUrl::Line => None,
        })
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
        let have = facts.dmi.uuid.map_or("none".into(), |have| hex::uuid(&have).as_str().into());
        return Err(PlanError::OtherMachine { item: "SMBIOS UUID", want: hex::uuid(&want).as_str().into(), have });
    }
    // What SMBIOS says is trimmed, as firmware pads it; so is what a record said.
    if let Some(want) = binding.serial.as_deref().map(str::trim)
        && facts.dmi.serial.as_deref() != Some(want)
    {
        let have = facts.dmi.serial.as_deref().unwrap_or("none").into();
        return Err(PlanError::OtherMachine { item: "serial number", want: want.into(), have });
    }
    let macs = &binding.macs;
    if !macs.is_empty() && !facts.links.iter().any(|link| link.mac.as_ref().is_some_and(|mac| macs.contains(mac))) {
        let have: Vec<_> = facts.links.iter().filter_map(|link| link.mac.as_ref()).collect();
        return Err(PlanError::OtherMachine {
            item: "MAC address",
            want: joined(macs, ", ").as_str().into(),
            have: joined(&have, ", ").as_str().into(),
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

#[cfg(test)]
mod tests;
