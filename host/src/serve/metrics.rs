//! Metrics for a monitoring system, in the text format of Prometheus. Each name begins with `imprint_host_`. Holds no
//! secrets and no names of nodes.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use imprint::time::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::enrol::Decision;

/// The counters, and their names.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    decisions: Family<Event, Counter>,
    pub(super) alarms: Counter,
    pub(super) lists: Counter,
    pub(super) connections: Gauge,
    turned: Family<Reason, Counter>,
    pub(super) callers: Gauge,
    pub(super) callers_waiting: Gauge,
    called: Family<Called, Counter>,
    pub(super) strangers: Counter,
    pub(super) handshakes_failed: Counter,
    pub(super) waiting: Gauge,
    served: Family<Outcome, Counter>,
    uploads: Family<Outcome, Counter>,
    told: Family<Delivery, Counter>,
    pub(super) bundles_pending: Gauge,
    pub(super) nodes_available: Gauge,
    memory: Gauge,
    pub(super) server_not_after: Gauge<f64, AtomicU64>,
    pub(super) intermediate_not_after: Gauge<f64, AtomicU64>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    code: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Event {
    event: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Delivery {
    target: &'static str,
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Called {
    outcome: &'static str,
}

/// Upper bounds in seconds for the time from request to answer.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

impl Metrics {
    pub(super) fn new(now: Timestamp) -> Metrics {
        let mut registry = Registry::with_prefix("imprint_host");
        let metrics = Metrics {
            requests: Family::default(),
            seconds: Histogram::new(BUCKETS),
            decisions: Family::default(),
            alarms: Counter::default(),
            lists: Counter::default(),
            connections: Gauge::default(),
            turned: Family::default(),
            callers: Gauge::default(),
            callers_waiting: Gauge::default(),
            called: Family::default(),
            strangers: Counter::default(),
            handshakes_failed: Counter::default(),
            waiting: Gauge::default(),
            served: Family::default(),
            uploads: Family::default(),
            told: Family::default(),
            bundles_pending: Gauge::default(),
            nodes_available: Gauge::default(),
            memory: Gauge::default(),
            server_not_after: Gauge::default(),
            intermediate_not_after: Gauge::default(),
            registry: Registry::default(),
        };
        let start: Gauge<f64, AtomicU64> = Gauge::default();
        start.set(seconds(now));
        let process = registry.sub_registry_with_prefix("process");
        process.register_with_unit("start_time", "When it started, since 1970", Unit::Seconds, start);
        process.register_with_unit("resident_memory", "Memory in use", Unit::Bytes, metrics.memory.clone());
        registry.register("requests", "Requests answered, by operation and status", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From the head of a request to its answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register("decisions", "What was decided, by word of the audit log", metrics.decisions.clone());
        registry.register("alarms", "Revoked certificates that were found in use", metrics.alarms.clone());
        registry.register("lists", "Lists of revoked certificates that were made", metrics.lists.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("connections_refused", "Connections turned away, by reason", metrics.turned.clone());
        registry.register("door_callers", "Nodes that talk at a door", metrics.callers.clone());
        registry.register(
            "door_callers_waiting",
            "Nodes at a door that wait for an administrator",
            metrics.callers_waiting.clone(),
        );
        registry.register(
            "door_calls",
            "What became of nodes at a door: let in, by level, or waits, refused, done, failed",
            metrics.called.clone(),
        );
        registry.register(
            "door_strange_frames",
            "Frames at an Ethernet door that were for somebody else",
            metrics.strangers.clone(),
        );
        registry.register(
            "tls_handshake_failures",
            "Connections that became no TLS connection",
            metrics.handshakes_failed.clone(),
        );
        registry.register(
            "bundles_served",
            "Answers to nodes that asked for their bundle: whole, part, unchanged, or how it stands",
            metrics.served.clone(),
        );
        registry.register("bundle_uploads", "What became of bundles that nodes sent", metrics.uploads.clone());
        registry.register("bundles_pending", "Bundles that wait for an administrator", metrics.bundles_pending.clone());
        registry.register(
            "nodes_available",
            "Nodes whose last report says that they are available",
            metrics.nodes_available.clone(),
        );
        registry.register("events", "Events that programs were told, or could not be told", metrics.told.clone());
        registry.register("queue_length", "Requests that wait to be decided", metrics.waiting.clone());
        registry.register_with_unit(
            "server_certificate_expiry",
            "When the server's own certificate ends, since 1970",
            Unit::Seconds,
            metrics.server_not_after.clone(),
        );
        registry.register_with_unit(
            "intermediate_certificate_expiry",
            "When the intermediate CA ends, since 1970",
            Unit::Seconds,
            metrics.intermediate_not_after.clone(),
        );
        Metrics { registry, ..metrics }
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&self, operation: &'static str, code: u16, begun: Instant) {
        self.requests.get_or_create(&Request { operation, code }).inc();
        self.seconds.observe(begun.elapsed().as_secs_f64());
    }

    pub(super) fn decided(&self, decision: &Decision) {
        self.decisions.get_or_create(&Event { event: decision.event }).inc();
        if decision.alarm.is_some() {
            self.alarms.inc();
        }
    }

    /// Counts a request that was refused without the desk.
    pub(super) fn refused(&self) {
        self.decisions.get_or_create(&Event { event: "refused" }).inc();
    }

    /// Counts a connection that was turned away.
    pub(super) fn turned_away(&self, reason: &'static str) {
        self.turned.get_or_create(&Reason { reason }).inc();
    }

    /// Counts an answer to a node that asked for its bundle.
    pub(super) fn served(&self, outcome: &'static str) {
        self.served.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts what became of a bundle that a node sent.
    pub(super) fn uploaded(&self, outcome: &'static str) {
        self.uploads.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts an event that a program was told, or could not be told.
    pub(super) fn told(&self, target: &'static str, outcome: &'static str) {
        self.told.get_or_create(&Delivery { target, outcome }).inc();
    }

    /// Counts what became of a node at a door.
    pub(super) fn called(&self, outcome: &'static str) {
        self.called.get_or_create(&Called { outcome }).inc();
    }

    /// All metrics as text.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        self.memory.set(resident().unwrap_or_default());
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

pub(super) fn seconds(at: Timestamp) -> f64 {
    std::time::Duration::from_millis(at.as_millis()).as_secs_f64()
}

/// Resident memory in bytes: the second number of /proc/self/statm (proc(5)), in pages. Pages have 4 KiB on all supported
/// machines.
fn resident() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split(' ').nth(1)?.parse::<i64>().ok()?.checked_mul(4096)
}
