//! The record of a run and its durations: the values of status.json, of node.json (docs/status.md) and of the console
//! lines. Never holds a secret, and never writes a file.

mod link;
mod show;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::apply::network::{AppliedLink, LinkReport, Network};
use crate::hex;
use crate::key_code::KeyCode;
use crate::payload::{InterfaceName, Payload, Route};
use crate::plan::{IdentityPlan, Plan};
use crate::shown::line;
use crate::site::SignedBy;
use crate::sys;
use crate::time::{Timestamp, since_boot};
use crate::trial;
pub use link::{LinkStatus, NeighbourStatus};

/// Version of both schemas. A new item does not change the version; any other change does.
pub const VERSION: u32 = 1;

/// More links are not recorded: the record also goes over serial lines.
const MOST_LINKS: usize = 16;

/// Exit code of the stage `bundle`.
pub const BUNDLE: u8 = 20;

/// status.json
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`]
    pub version: u32,
    /// How the run ended.
    pub outcome: Outcome,
    /// The published exit code.
    pub exit_code: u8,
    /// The error that stopped the run.
    pub error: Option<Failure>,
    /// Where the payload came from.
    pub origin: Option<String>,
    /// Key id of the signer whose signature was verified. Absent: the image names no signer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// How the node was let in at the door that the payload came from, if a signer of the image vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<String>,
    /// The identifier of the payload.
    pub payload_id: Option<String>,
    /// Name of the node's record at the server.
    pub name: Option<String>,
    /// Where key and certificate come from; `None` before the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<Enrolment>,
    /// Code of the key.
    pub key_code: Option<String>,
    /// The node's configuration bundle. Absent: the payload has the node fetch none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleStatus>,
    /// The root that `root=imprint:` names. Absent: it comes from elsewhere, or its turn has not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootStatus>,
    /// The links that the plan wanted, as they were after the check-in, or when the network was given up. Absent: the network was not
    /// changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkStatus>,
    /// The steps, in order. If the run failed, the last step is the one that failed.
    pub steps: Vec<Step>,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Certificate and key were handed over.
    Done,
    /// No payload was found, and none was required.
    Absent,
    /// An error stopped the run.
    Failed,
}

/// Where key and certificate come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enrolment {
    /// The node makes the key, and an EST server signs the CSR.
    Est,
    /// The payload contains both.
    Credentials,
}

/// The error that stopped a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The stage.
    pub stage: String,
    /// The error and its causes, as on the console.
    pub message: String,
}

/// How far a configuration bundle has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BundleStatus {
    /// The counter that was signed.
    pub counter: u64,
    /// The code of the encrypted file.
    pub code: String,
    /// How far it has come.
    pub state: BundleState,
    /// Why it came no further, as on the console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How far a configuration bundle has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleState {
    /// It was fetched and verified, and waits for the root.
    Staged,
    /// Its files are in the root.
    Applied,
    /// Its units run, and the configuration server knows.
    Available,
}

/// The image of a root, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RootStatus {
    /// The SHA-256 that it has to have.
    pub sha256: String,
    /// Where it came from. Absent: it is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Why it is not mounted, as on the console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One step of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The stage.
    pub name: String,
    /// Microseconds since boot (CLOCK_BOOTTIME).
    pub started_us: u64,
    /// Microseconds.
    pub duration_us: u64,
    /// The result, for people; may be empty.
    pub detail: String,
}

/// node.json
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// [`VERSION`]
    pub version: u32,
    /// Name of the node's record at the server; `None` if no server was asked.
    pub name: Option<String>,
    /// The identifier of the payload.
    pub payload_id: String,
    /// The host name that was set.
    pub hostname: Option<String>,
    /// Code of the key.
    pub key_code: String,
    /// Last second of the certificate's validity, RFC 3339 in UTC.
    pub not_after: String,
    /// The link that the certificate came over; `None` if the network was not changed.
    pub network: Option<NodeNetwork>,
    /// How the certificate is renewed; `None` if this program cannot renew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<NodeRenewal>,
    /// SHA-256 of the image that is the root, where `root=imprint:` names one, as the payload says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_sha256: Option<String>,
}

/// How a certificate is renewed; the values come from the payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRenewal {
    /// EST base URLs, in order.
    pub urls: Vec<String>,
    /// SHA-256 of further CAs that the certificate may chain to, in hexadecimal.
    pub issuers: Vec<String>,
    /// Type of the key: `p256`.
    pub key: String,
}

/// One configured link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeNetwork {
    /// Name of the link.
    pub link: String,
    /// Hardware address of the link.
    pub mac: Option<String>,
    /// In bytes.
    pub mtu: u32,
    /// `192.0.2.10/24`
    pub addresses: Vec<String>,
    /// Static routes.
    pub routes: Vec<NodeRoute>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// The client identifier for DHCPv4 in hexadecimal; `None`: the hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_client_id: Option<String>,
}

/// One static route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRoute {
    /// `0.0.0.0/0`
    pub to: String,
    /// Gateway; `None`: on-link.
    pub via: Option<String>,
    /// `None`: the kernel's default.
    pub metric: Option<u32>,
}

impl Node {
    /// Collects the values for the next stage of the boot.
    pub fn new(plan: &Plan, network: Option<&Network>, code: &KeyCode, not_after: Timestamp) -> Node {
        Node {
            version: VERSION,
            name: record(plan),
            payload_id: plan.id.to_string(),
            hostname: plan.hostname.as_ref().map(|name| name.as_str().to_owned()),
            key_code: code.to_string(),
            not_after: not_after.to_string(),
            network: network.and_then(|network| network.links.first()).map(NodeNetwork::from),
            root_sha256: plan.root.as_ref().map(|digest| hex::encode(digest)),
            renewal: match &plan.identity {
                IdentityPlan::Enrol { subject, server } => Some(NodeRenewal {
                    urls: server.https().map(ToString::to_string).collect(),
                    issuers: server.issuers.iter().map(|digest| hex::encode(digest)).collect(),
                    key: subject.key.to_string(),
                }),
                IdentityPlan::Given(_) => None,
            },
        }
    }
}

/// Name of the node's record at the server.
fn record(plan: &Plan) -> Option<String> {
    match &plan.identity {
        IdentityPlan::Enrol { server, .. } => Some(server.name.as_str().to_owned()),
        IdentityPlan::Given(_) => None,
    }
}

impl NodeNetwork {
    /// The link and its client identifier, if that is not the hardware address.
    pub fn dhcp_client_id(&self) -> Option<(InterfaceName, Vec<u8>)> {
        let client_id = hex::decode(self.dhcp_client_id.as_deref()?)?;
        Some((InterfaceName::try_from(self.link.as_str()).ok()?, client_id))
    }
}

impl From<&AppliedLink> for NodeNetwork {
    fn from(link: &AppliedLink) -> NodeNetwork {
        NodeNetwork {
            link: link.name.as_str().to_owned(),
            mac: link.mac.as_ref().map(ToString::to_string),
            mtu: link.mtu,
            addresses: link.all_addresses().map(|prefix| prefix.to_string()).collect(),
            routes: link.all_routes().map(NodeRoute::from).collect(),
            dns: link.all_dns().map(|server| server.to_string()).collect(),
            search: link.all_search().map(|name| name.as_str().to_owned()).collect(),
            dhcp_client_id: link.client_id.as_deref().map(hex::encode),
        }
    }
}

impl From<&Route> for NodeRoute {
    fn from(route: &Route) -> NodeRoute {
        NodeRoute {
            to: route.destination.to_string(),
            via: route.gateway.map(|gateway| gateway.to_string()),
            metric: route.metric,
        }
    }
}

impl Status {
    /// Why the run was stopped, in one line. `None`: it was not stopped.
    pub fn why(&self) -> Option<String> {
        let (code, why) = match (self.undone(), &self.root) {
            (Some(error), _) | (None, Some(RootStatus { error: Some(error), .. })) => {
                (BUNDLE, format!("bundle: {}", line(error)))
            }
            _ => {
                let failure = self.error.as_ref().filter(|_| self.outcome == Outcome::Failed)?;
                (self.exit_code, failure.to_string())
            }
        };
        Some(format!("the boot was stopped with exit code {code}: {why}"))
    }

    /// Why the bundle is not in the root.
    fn undone(&self) -> Option<&String> {
        let bundle = self.bundle.as_ref().filter(|bundle| bundle.state == BundleState::Staged)?;
        bundle.error.as_ref()
    }

    /// The same, and what a person at the prompt of an initramfs can do. It is printed before that
    /// prompt. Empty if the run was not stopped.
    pub fn reason(&self) -> String {
        let Some(why) = self.why() else { return String::new() };
        let what = if self.undone().is_some() {
            "make another version at the server (imprint-host bundle make NODE …); then run \"imprint console\" here and leave with \
             \"systemctl default\", or \"exit\" in an image without systemd; or boot again"
        } else if self.root.as_ref().is_some_and(|root| root.error.is_some()) {
            "\"imprint root\" tries again (with --to where the root is not mounted at /sysroot); then \"systemctl default\" boots on, or \
             \"exit\" in an image without systemd"
        } else {
            "\"imprint status\" shows every step; \"imprint console\" takes a payload that is pasted here; then \"systemctl default\" \
             boots on, or \"exit\" in an image without systemd"
        };
        format!("imprint: {why}\nimprint: {what}\n")
    }
}

/// Records the steps of a run, and shows each step when it has ended.
pub struct Timeline {
    record: Record,
    show: fn(&Step),
}

/// The record of a [`Timeline`] so far. The panic handler writes it into status.json.
#[derive(Clone)]
pub struct Record(Arc<Mutex<(Status, Option<Doing>)>>);

/// The current step.
struct Doing {
    name: String,
    start: Duration,
}

impl Record {
    fn locked(&self) -> MutexGuard<'_, (Status, Option<Doing>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole run, after a panic. `None` if the panic happened while the record was locked.
    pub fn fault(&self, exit_code: u8, message: String) -> Option<Status> {
        let record = sys::lock_soon(&self.0)?;
        let (mut status, doing) = (record.0.clone(), &record.1);
        if let Some(Doing { name, start }) = doing {
            status.steps.push(step(name, *start, String::new()));
        }
        let last = status.steps.last().map(|step| step.name.as_str());
        // The step "facts" gathers the links; its errors belong to the stage "network".
        let stage = last.map_or("options", |name| if name == "facts" { "network" } else { name }).to_owned();
        status.error = Some(Failure { stage, message });
        Some(Status { outcome: Outcome::Failed, exit_code, ..status })
    }
}

fn step(name: &str, start: Duration, detail: String) -> Step {
    let duration = since_boot().saturating_sub(start);
    Step { name: name.to_owned(), started_us: micros(start), duration_us: micros(duration), detail }
}

impl Timeline {
    /// An empty timeline. `show` is called with each step that has succeeded; it may print.
    pub fn new(show: fn(&Step)) -> Timeline {
        let status = Status {
            version: VERSION,
            outcome: Outcome::Failed,
            exit_code: 0,
            error: None,
            origin: None,
            signer: None,
            admitted: None,
            payload_id: None,
            name: None,
            enrolment: None,
            key_code: None,
            bundle: None,
            root: None,
            links: Vec::new(),
            steps: Vec::new(),
        };
        Timeline { record: Record(Arc::new(Mutex::new((status, None)))), show }
    }

    /// The record, which also contains all later steps.
    pub fn record(&self) -> Record {
        self.record.clone()
    }

    fn status(&self) -> Status {
        self.record.locked().0.clone()
    }

    /// Does one step and records it, whether it succeeds or fails. `act` writes the result for people into its
    /// argument.
    pub fn step<T, E>(&mut self, name: &str, act: impl FnOnce(&mut String) -> Result<T, E>) -> Result<T, E> {
        let (start, mut detail) = (since_boot(), String::new());
        self.record.locked().1 = Some(Doing { name: name.to_owned(), start });
        trial::point(name);
        let result = act(&mut detail);
        let step = step(name, start, line(&detail));
        // The error reports a failed step, so do not show the step, too.
        if result.is_ok() {
            (self.show)(&step);
        }
        let mut record = self.record.locked();
        record.1 = None;
        record.0.steps.push(step);
        result
    }

    /// Records where the payload was found.
    pub fn found(&mut self, origin: &dyn std::fmt::Display) {
        self.record.locked().0.origin = Some(line(&origin.to_string()));
    }

    /// Records whose signature the payload has, and what the signer says of the door.
    pub fn signed(&mut self, signed: &SignedBy, payload: &Payload) {
        let Some(kid) = signed.signer() else { return };
        let status = &mut self.record.locked().0;
        status.signer = Some(kid.to_string());
        status.admitted = payload.admitted().map(str::to_owned);
    }

    /// Records the payload's identifier, the node's name and the kind of enrolment.
    pub fn planned(&mut self, plan: &Plan) {
        let status = &mut self.record.locked().0;
        status.payload_id = Some(plan.id.to_string());
        status.name = record(plan);
        status.enrolment = Some(match &plan.identity {
            IdentityPlan::Enrol { .. } => Enrolment::Est,
            IdentityPlan::Given(_) => Enrolment::Credentials,
        });
    }

    /// Records the links that were tried. A machine may have hundreds, of which the first count.
    pub fn links(&mut self, links: &[LinkReport]) {
        self.record.locked().0.links = links.iter().take(MOST_LINKS).map(LinkStatus::from).collect();
    }

    /// Records the code of the key.
    pub fn keyed(&mut self, code: &KeyCode) {
        self.record.locked().0.key_code = Some(code.to_string());
    }

    /// Records the bundle that waits for the root.
    pub fn staged(&mut self, counter: u64, code: String) {
        let bundle = BundleStatus { counter, code, state: BundleState::Staged, error: None };
        self.record.locked().0.bundle = Some(bundle);
    }

    /// The whole run, after certificate and key were handed over.
    pub fn done(&self) -> Status {
        Status { outcome: Outcome::Done, ..self.status() }
    }

    /// The whole run, if there was no payload and `imprint=auto`.
    pub fn absent(&self) -> Status {
        Status { outcome: Outcome::Absent, ..self.status() }
    }

    /// The whole run, after an error stopped it.
    pub fn failed(&self, (stage, exit_code): (&str, u8), message: String) -> Status {
        let error = Some(Failure { stage: stage.to_owned(), message: line(&message) });
        Status { outcome: Outcome::Failed, exit_code, error, ..self.status() }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
