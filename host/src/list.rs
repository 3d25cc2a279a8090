//! Shows nodes and audit log: text for people, JSON for programs. Changes nothing.

mod bundle;

use std::fmt::Write as _;

use comfy_table::Table;
use imprint::hex;
use imprint::payload::TokenMode;
use imprint::shown::line;
use imprint::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

use bundle::{Bundle, BundleEntry};

use crate::admission::Level;
use crate::enrol::reason_name;
use crate::state::{Error, State};
use crate::store::{
    AdmissionRow, AuditRow, CallerRow, CertificateRow, NotWritten, PayloadRow, RequestRow, Standing, Verdict, mode_name,
};

/// A node with its newest certificate, newest payload and open requests.
pub struct Node {
    name: String,
    names: String,
    mode: &'static str,
    certificate: Option<CertificateRow>,
    valid: Vec<CertificateRow>,
    payload: Option<PayloadRow>,
    /// Requests that wait for approval, and approved requests whose certificate the node has not fetched.
    open: Vec<RequestRow>,
    /// How it was let in at a door last.
    admitted: Option<AdmissionRow>,
    bundle: Bundle,
    now: Timestamp,
}

/// Every node, by name.
pub fn nodes(state: &State, now: Timestamp) -> Result<Vec<Node>, Error> {
    state.store.reading(|_| listed(state, now))
}

fn listed(state: &State, now: Timestamp) -> Result<Vec<Node>, Error> {
    let mut nodes = Vec::new();
    for row in state.store.nodes()? {
        // A record that an update made invalid is shown, so that it can be found and replaced.
        let (names, mode) = match state.record(&row.name) {
            Ok(record) => (record.names.to_string(), mode_name(record.mode)),
            Err(error) => (error.to_string(), "invalid"),
        };
        let (certificate, payload) = state.store.latest(&row.name)?;
        let valid = state.store.live_certificates(&row.name, now)?;
        let open = state.store.open_requests(&row.name, now)?;
        let admitted = state.store.admission(&row.name)?;
        let bundle = Bundle::of(state, &row.name)?;
        nodes.push(Node { name: row.name, names, mode, certificate, valid, payload, open, admitted, bundle, now });
    }
    Ok(nodes)
}

/// Everybody who waits at a door, or was let in and has no certificate yet, oldest first.
pub fn callers(state: &State, now: Timestamp) -> Result<Vec<CallerRow>, Error> {
    Ok(state.store.callers(now)?)
}

/// Who waits at a door, for people.
pub fn callers_text(callers: &[CallerRow]) -> String {
    if callers.is_empty() {
        return "nobody waits at a door\n".to_owned();
    }
    let mut text = String::new();
    for row in callers {
        let CallerRow { code, nodes, said, facts, from, why, first_at, .. } = row;
        let known = if facts.is_empty() { String::new() } else { format!(", the door knows {facts}") };
        let told = match (row.standing, nodes.as_slice()) {
            (Standing::LetIn(level), _) => {
                format!("{} is let in ({level}), and has no certificate yet: line key {code}", nodes.join(", "))
            }
            (Standing::HasPayload(level), _) => {
                format!(
                    "{} is let in ({level}), and has its payload, but no certificate yet: line key {code}",
                    nodes.join(", ")
                )
            }
            (_, []) => format!("an unknown machine waits at the door: line key {code}"),
            (_, nodes) => format!("{} waits at the door: line key {code}", nodes.join(" or ")),
        };
        let why = match (row.standing, nodes.as_slice()) {
            (standing, _) if standing.level().is_some() => String::new(),
            (_, [_]) => format!(": {why}; compare the code with its console, then imprint-host admit {code}"),
            (_, _) => format!(": {why}; compare the code with its console, then imprint-host admit {code} --as NODE"),
        };
        let _ = writeln!(text, "{}", line(&format!("{told} from {from} since {first_at}, says {said}{known}{why}")));
    }
    text
}

/// For programs.
pub fn callers_json(callers: &[CallerRow]) -> Value {
    value(callers.iter().map(CallerEntry::of).collect::<Vec<_>>())
}

impl Node {
    /// The column `certificate` of the table.
    fn certificate_text(&self) -> String {
        match &self.certificate {
            None => "none".to_owned(),
            Some(row) => match (row.revoked, self.status(row)) {
                (Some((at, reason)), _) => format!("revoked {at} ({})", reason_name(reason)),
                (None, "expired") => format!("expired {}", row.not_after),
                (None, _) => format!("until {}", row.not_after),
            },
        }
    }

    /// A revoked certificate is `revoked`, even after it has expired.
    fn status(&self, row: &CertificateRow) -> &'static str {
        match row.revoked {
            Some(_) => "revoked",
            None if row.not_after <= self.now => "expired",
            None => "valid",
        }
    }

    /// Valid certificates besides the newest one. The administrator may want to revoke them.
    fn others(&self) -> impl Iterator<Item = &CertificateRow> {
        let newest = self.certificate.as_ref().map(|row| &row.serial);
        self.valid.iter().filter(move |row| Some(&row.serial) != newest)
    }

    fn with(&self, verdict: Option<Verdict>) -> impl Iterator<Item = &RequestRow> {
        self.open.iter().filter(move |row| row.verdict == verdict)
    }

    fn payload_text(&self) -> String {
        let Some(payload) = &self.payload else { return "none".to_owned() };
        match (&payload.spent, payload.void_at) {
            (Some((at, _)), _) if payload.mode == TokenMode::Once => format!("used {at}"),
            // This is the newest payload, so no newer payload has voided it: it was revoked.
            (_, Some(at)) => format!("revoked {at}"),
            _ if payload.expiry <= self.now => format!("expired {}", payload.expiry),
            _ => format!("until {}", payload.expiry),
        }
    }
}

/// All nodes as a table, for people.
pub fn nodes_table(nodes: &[Node]) -> String {
    if nodes.is_empty() {
        return "no nodes; add some with imprint-host node add FILE\n".to_owned();
    }
    let mut table = Table::new();
    // Only where there are bundles, so that the table stays narrow for others.
    let bundles = nodes.iter().any(|node| !node.bundle.is_empty());
    let more = if bundles { &["bundle", "available"][..] } else { &[] };
    table.set_header([&["node", "names", "enrol", "payload", "certificate", "key"], more].concat());
    for node in nodes {
        let key = node.certificate.as_ref().map_or("", |row| row.key_code.as_str());
        let (payload, certificate) = (node.payload_text(), node.certificate_text());
        let mut row = [&node.name, &node.names, node.mode, &payload, &certificate, key].map(line).to_vec();
        if bundles {
            row.extend([node.bundle.text(), node.bundle.available_text()]);
        }
        table.add_row(row);
    }
    let mut text = format!("{table}\n");
    for row in nodes.iter().flat_map(|node| node.with(None)) {
        let RequestRow { node, key_code, why, peer, first_at, .. } = row;
        let _ = writeln!(text, "{node} waits for approval: key {key_code} from {peer} since {first_at}: {why}");
    }
    for RequestRow { node, key_code, .. } in nodes.iter().flat_map(|node| node.with(Some(Verdict::Approved))) {
        let _ = writeln!(
            text,
            "{node} is approved, but has not asked again yet: key {key_code}; imprint-host deny takes it back"
        );
    }
    for CertificateRow { node, key_code, not_after, .. } in nodes.iter().flat_map(Node::others) {
        let _ = writeln!(text, "{node} has another certificate: key {key_code}, until {not_after}");
    }
    for node in nodes {
        node.bundle.told(&node.name, &mut text);
    }
    for (node, row) in nodes.iter().filter_map(|node| node.admitted.as_ref().map(|row| (&node.name, row))) {
        let AdmissionRow { at, level, code, from } = row;
        let _ =
            writeln!(text, "{}", line(&format!("{node} was let in at {at} ({level}): line key {code} from {from}")));
    }
    text
}

/// For programs.
pub fn nodes_json(nodes: &[Node]) -> Value {
    let entry = |node: &Node| NodeEntry {
        name: node.name.clone(),
        names: node.names.clone(),
        enrol: node.mode,
        payload: node.payload.as_ref().map(PayloadEntry::of),
        certificate: node.certificate.as_ref().map(|row| CertificateEntry::of(row, node.status(row))),
        waiting: node.with(None).map(RequestEntry::of).collect(),
        approved: node.with(Some(Verdict::Approved)).map(RequestEntry::of).collect(),
        valid: node.valid.iter().map(ValidEntry::of).collect(),
        admitted: node.admitted.as_ref().map(AdmittedEntry::of),
        bundle: BundleEntry::of(&node.bundle),
    };
    value(nodes.iter().map(entry).collect::<Vec<_>>())
}

/// The audit log for people: a line for each entry, then how many refusals were counted and not written.
pub fn log_text(rows: &[AuditRow], unwritten: Option<&NotWritten>) -> String {
    let mut text = String::new();
    for row in rows {
        let who = match (&row.actor, &row.peer) {
            (Some(actor), Some(peer)) => format!(" by {actor}, asked from {peer}"),
            (Some(actor), None) => format!(" by {actor}"),
            (None, Some(peer)) => format!(" from {peer}"),
            (None, None) => String::new(),
        };
        let node = row.node.as_deref().unwrap_or("-");
        // An older imprint-host stored texts without escaping them.
        let told = line(&format!("{node}{who}: {}", row.detail));
        let _ = writeln!(text, "{} {:<8} {told}", row.at, row.event);
    }
    if let Some(NotWritten { count, since }) = unwritten {
        let _ = writeln!(
            text,
            "since {since} {count} refusals are not in the log, because it takes a limited number an hour"
        );
    }
    text
}

/// For programs.
pub fn log_json(rows: &[AuditRow]) -> Value {
    value(rows.iter().map(LogEntry::of).collect::<Vec<_>>())
}

/// The field names of these structs are a published format.
#[derive(Serialize)]
struct NodeEntry {
    name: String,
    names: String,
    enrol: &'static str,
    payload: Option<PayloadEntry>,
    certificate: Option<CertificateEntry>,
    waiting: Vec<RequestEntry>,
    approved: Vec<RequestEntry>,
    valid: Vec<ValidEntry>,
    admitted: Option<AdmittedEntry>,
    /// Left out if the node has had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<BundleEntry>,
}

/// How a node was let in at a door last.
#[derive(Serialize)]
struct AdmittedEntry {
    at: String,
    level: &'static str,
    key: String,
    peer: String,
}

/// Who calls at a door.
#[derive(Serialize)]
struct CallerEntry {
    /// Code of the line key.
    key: String,
    /// The nodes that it may be.
    nodes: Vec<String>,
    /// `None`: it waits.
    level: Option<&'static str>,
    why: String,
    peer: String,
    first_at: String,
    last_at: String,
    uuid: Option<String>,
    serial: Option<String>,
    macs: Vec<String>,
    cid: Option<u32>,
    tap: Option<String>,
    vm: Option<String>,
}

#[derive(Serialize)]
struct PayloadEntry {
    id: String,
    composed: String,
    expiry: String,
    spent_at: Option<String>,
    void_at: Option<String>,
}

#[derive(Serialize)]
struct CertificateEntry {
    serial: String,
    key: String,
    payload: String,
    issued_at: String,
    not_after: String,
    status: &'static str,
    revoked_at: Option<String>,
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct RequestEntry {
    key: String,
    why: String,
    peer: String,
    first_at: String,
    last_at: String,
}

#[derive(Serialize)]
struct ValidEntry {
    key: String,
    not_after: String,
}

#[derive(Serialize)]
struct LogEntry {
    at: String,
    event: String,
    node: Option<String>,
    peer: Option<String>,
    by: Option<String>,
    detail: String,
}

impl PayloadEntry {
    fn of(row: &PayloadRow) -> PayloadEntry {
        PayloadEntry {
            id: row.id.to_string(),
            composed: row.composed.to_string(),
            expiry: row.expiry.to_string(),
            spent_at: row.spent.as_ref().map(|(at, _)| at.to_string()),
            void_at: row.void_at.map(|at| at.to_string()),
        }
    }
}

impl CertificateEntry {
    fn of(row: &CertificateRow, status: &'static str) -> CertificateEntry {
        CertificateEntry {
            serial: hex::encode(&row.serial),
            key: row.key_code.clone(),
            payload: row.payload.to_string(),
            issued_at: row.issued_at.to_string(),
            not_after: row.not_after.to_string(),
            status,
            revoked_at: row.revoked.map(|(at, _)| at.to_string()),
            reason: row.revoked.map(|(_, reason)| reason_name(reason)),
        }
    }
}

impl AdmittedEntry {
    fn of(row: &AdmissionRow) -> AdmittedEntry {
        let (at, level) = (row.at.to_string(), row.level.word());
        AdmittedEntry { at, level, key: row.code.clone(), peer: row.from.clone() }
    }
}

impl CallerEntry {
    fn of(row: &CallerRow) -> CallerEntry {
        let CallerRow { said, facts, .. } = row;
        CallerEntry {
            key: row.code.clone(),
            nodes: row.nodes.clone(),
            level: row.standing.level().map(Level::word),
            why: row.why.clone(),
            peer: row.from.clone(),
            first_at: row.first_at.to_string(),
            last_at: row.last_at.to_string(),
            uuid: said.uuid.clone(),
            serial: said.serial.clone(),
            macs: said.macs.clone(),
            cid: facts.cid,
            tap: facts.tap.clone(),
            vm: facts.vm.clone(),
        }
    }
}

impl RequestEntry {
    fn of(row: &RequestRow) -> RequestEntry {
        RequestEntry {
            key: row.key_code.clone(),
            why: row.why.clone(),
            peer: row.peer.clone(),
            first_at: row.first_at.to_string(),
            last_at: row.last_at.to_string(),
        }
    }
}

impl ValidEntry {
    fn of(row: &CertificateRow) -> ValidEntry {
        ValidEntry { key: row.key_code.clone(), not_after: row.not_after.to_string() }
    }
}

impl LogEntry {
    fn of(row: &AuditRow) -> LogEntry {
        LogEntry {
            at: row.at.to_string(),
            event: row.event.clone(),
            node: row.node.clone(),
            peer: row.peer.clone(),
            by: row.actor.clone(),
            detail: row.detail.clone(),
        }
    }
}

/// Fields are sorted by name, as in every release (a `Value` sorts them). Structs of texts always convert to JSON.
fn value(entries: impl Serialize) -> Value {
    serde_json::to_value(entries).unwrap_or_default()
}
