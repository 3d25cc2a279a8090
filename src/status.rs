//! What a run did and how long it took: the values behind status.json, node.json (docs/status.md) and the console
//! lines. Holds no secrets and writes no files.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::apply::network::{AppliedLink, Network};
use crate::hex;
use crate::key_code::KeyCode;
use crate::payload::Route;
use crate::plan::{IdentityPlan, Plan};
use crate::shown::line;
use crate::sys;
use crate::time::{Timestamp, since_boot};
use crate::trial;

/// Version of both schemas. An item that is added does not change it, any other change does.
pub const VERSION: u32 = 1;

/// status.json
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`]
    pub version: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The published exit code.
    pub exit_code: u8,
    /// What stopped it.
    pub error: Option<Failure>,
    /// Where the payload came from.
    pub origin: Option<String>,
    /// Which payload.
    pub payload_id: Option<String>,
    /// Name of the node's record at the server.
    pub name: Option<String>,
    /// Where key and certificate come from; `None` until that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<Enrolment>,
    /// Code of the key.
    pub key_code: Option<String>,
    /// What was done, in order; the last one is the one that failed.
    pub steps: Vec<Step>,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Credentials were handed over.
    Done,
    /// There was no payload, and there need not be one.
    Absent,
    /// It was stopped.
    Failed,
}

/// Where key and certificate come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enrolment {
    /// The key is made here, and an EST server signs.
    Est,
    /// Both are in the payload.
    Credentials,
}

/// What stopped a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The stage.
    pub stage: String,
    /// The error and its causes, as on the console.
    pub message: String,
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
    /// What came of it, for people; empty when there is nothing to say.
    pub detail: String,
}

/// node.json
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// [`VERSION`]
    pub version: u32,
    /// Name of the node's record at the server; `None` when no server was asked.
    pub name: Option<String>,
    /// Which payload made it.
    pub payload_id: String,
    /// Host name that was set.
    pub hostname: Option<String>,
    /// Code of the key.
    pub key_code: String,
    /// Last second of the certificate's validity, RFC 3339 in UTC.
    pub not_after: String,
    /// The link that the certificate came over; `None` when the network was left as it was.
    pub network: Option<NodeNetwork>,
    /// How the certificate is renewed; `None`: not by this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<NodeRenewal>,
}

/// How a certificate is renewed: what the payload said of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRenewal {
    /// EST bases, in order.
    pub urls: Vec<String>,
    /// SHA-256 of further CAs that the certificate may chain to, in hexadecimal.
    pub issuers: Vec<String>,
    /// Type of the key: `p256`.
    pub key: String,
}

/// One configured link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeNetwork {
    /// Its name.
    pub link: String,
    /// Its hardware address.
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
    /// What the next stage may want to know.
    pub fn new(plan: &Plan, network: Option<&Network>, code: &KeyCode, not_after: Timestamp) -> Node {
        Node {
            version: VERSION,
            name: record(plan),
            payload_id: plan.id.to_string(),
            hostname: plan.hostname.as_ref().map(|name| name.as_str().to_owned()),
            key_code: code.to_string(),
            not_after: not_after.to_string(),
            network: network.and_then(|network| network.links.first()).map(NodeNetwork::from),
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
    /// Why the run was stopped, and what a person at the prompt of an initramfs can do: the last words before that prompt.
    /// Empty when it was not stopped.
    pub fn reason(&self) -> String {
        let Some(failure) = self.error.as_ref().filter(|_| self.outcome == Outcome::Failed) else {
            return String::new();
        };
        format!(
            "imprint: the boot was stopped with exit code {}: {failure}\nimprint: \"imprint status\" shows every step; \
             \"imprint console\" takes a payload that is pasted here, and then \"exit\" boots on\n",
            self.exit_code
        )
    }
}

/// Records the steps of a run while they happen, and shows each one when it is over.
pub struct Timeline {
    record: Record,
    show: fn(&Step),
}

/// What a [`Timeline`] has recorded so far: for whoever has to say it when the program cannot go on.
#[derive(Clone)]
pub struct Record(Arc<Mutex<(Status, Option<Doing>)>>);

/// The step that is being done.
struct Doing {
    name: String,
    start: Duration,
}

impl Record {
    fn locked(&self) -> MutexGuard<'_, (Status, Option<Doing>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole run, when the program has found a fault in itself. `None`: it was found in here.
    pub fn fault(&self, exit_code: u8, message: String) -> Option<Status> {
        let record = sys::lock_soon(&self.0)?;
        let (mut status, doing) = (record.0.clone(), &record.1);
        if let Some(Doing { name, start }) = doing {
            status.steps.push(step(name, *start, String::new()));
        }
        let last = status.steps.last().map(|step| step.name.as_str());
        // Which links there are is the network's business.
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
    /// Nothing has happened yet. `show` is called with each step that is over; it may print.
    pub fn new(show: fn(&Step)) -> Timeline {
        let status = Status {
            version: VERSION,
            outcome: Outcome::Failed,
            exit_code: 0,
            error: None,
            origin: None,
            payload_id: None,
            name: None,
            enrolment: None,
            key_code: None,
            steps: Vec::new(),
        };
        Timeline { record: Record(Arc::new(Mutex::new((status, None)))), show }
    }

    /// What is recorded, now and from now on.
    pub fn record(&self) -> Record {
        self.record.clone()
    }

    fn status(&self) -> Status {
        self.record.locked().0.clone()
    }

    /// Does one step and records it, whether it succeeds or not. `act` says in its argument what came of it.
    pub fn step<T, E>(&mut self, name: &str, act: impl FnOnce(&mut String) -> Result<T, E>) -> Result<T, E> {
        let (start, mut detail) = (since_boot(), String::new());
        self.record.locked().1 = Some(Doing { name: name.to_owned(), start });
        trial::point(name);
        let result = act(&mut detail);
        let step = step(name, start, line(&detail));
        // A step that failed is told by the error, not twice.
        if result.is_ok() {
            (self.show)(&step);
        }
        let mut record = self.record.locked();
        record.1 = None;
        record.0.steps.push(step);
        result
    }

    /// Where the payload was found.
    pub fn found(&mut self, origin: &dyn fmt::Display) {
        self.record.locked().0.origin = Some(line(&origin.to_string()));
    }

    /// What the payload is.
    pub fn planned(&mut self, plan: &Plan) {
        let status = &mut self.record.locked().0;
        status.payload_id = Some(plan.id.to_string());
        status.name = record(plan);
        status.enrolment = Some(match &plan.identity {
            IdentityPlan::Enrol { .. } => Enrolment::Est,
            IdentityPlan::Given(_) => Enrolment::Credentials,
        });
    }

    /// What key was made.
    pub fn keyed(&mut self, code: &KeyCode) {
        self.record.locked().0.key_code = Some(code.to_string());
    }

    /// The whole run, when credentials were handed over.
    pub fn done(&self) -> Status {
        Status { outcome: Outcome::Done, ..self.status() }
    }

    /// The whole run, when there was no payload and `imprint=auto`.
    pub fn absent(&self) -> Status {
        Status { outcome: Outcome::Absent, ..self.status() }
    }

    /// The whole run, when it was stopped.
    pub fn failed(&self, (stage, exit_code): (&str, u8), message: String) -> Status {
        let error = Some(Failure { stage: stage.to_owned(), message: line(&message) });
        Status { outcome: Outcome::Failed, exit_code, error, ..self.status() }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// `network: eth0 10.0.2.15/24 (0.412 s)`
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_micros(self.duration_us).as_secs_f64();
        match self.detail.as_str() {
            "" => write!(f, "{} ({seconds:.3} s)", self.name),
            detail => write!(f, "{}: {detail} ({seconds:.3} s)", self.name),
        }
    }
}

/// `source: no payload found (…)`, on one line
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", line(&self.stage), line(&self.message))
    }
}

/// For `imprint status`: a line for each step, and how it ended.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let started = Duration::from_micros(step.started_us).as_secs_f64();
            writeln!(f, "{started:9.3} {}", line(&step.to_string()))?;
        }
        match (&self.outcome, &self.error) {
            (Outcome::Done, _) => {
                let code = self.key_code.as_deref().unwrap_or("?");
                match &self.name {
                    Some(name) => writeln!(f, "done: {} has its certificate, key {}", line(name), line(code)),
                    None => writeln!(f, "done: certificate and key {} came with the payload", line(code)),
                }
            }
            (Outcome::Absent, _) => writeln!(f, "absent: no payload was found, and none was required"),
            (Outcome::Failed, Some(failure)) => writeln!(f, "failed with exit code {}: {failure}", self.exit_code),
            (Outcome::Failed, None) => writeln!(f, "failed with exit code {}", self.exit_code),
        }
    }
}

#[cfg(test)]
mod tests;
