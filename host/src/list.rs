//! Nodes and audit log as tables for people and JSON for programs. Reads only.

use std::fmt::Write as _;

use comfy_table::Table;
use imprint::hex;
use imprint::payload::TokenMode;
use imprint::shown::line;
use imprint::time::Timestamp;
use serde_json::{Value, json};

use crate::state::{Error, State};
use crate::store::{AuditRow, CertificateRow, PayloadRow, RequestRow, mode_name};

/// A node and where it stands.
pub struct Node {
    name: String,
    names: String,
    mode: &'static str,
    certificate: Option<CertificateRow>,
    payload: Option<PayloadRow>,
    waiting: Vec<RequestRow>,
    now: Timestamp,
}

/// Every node, by name.
pub fn nodes(state: &State, now: Timestamp) -> Result<Vec<Node>, Error> {
    let mut nodes = Vec::new();
    for row in state.store.nodes()? {
        // A record that an update made invalid is shown, so that it can be found and replaced.
        let (names, mode) = match state.record(&row.name) {
            Ok(record) => (record.names.to_string(), mode_name(record.mode)),
            Err(error) => (error.to_string(), "invalid"),
        };
        let (certificate, payload) = state.store.latest(&row.name)?;
        let waiting = state.store.waiting(&row.name, now)?;
        nodes.push(Node { name: row.name, names, mode, certificate, payload, waiting, now });
    }
    Ok(nodes)
}

impl Node {
    /// What a person would say about it.
    fn certificate_text(&self) -> String {
        match &self.certificate {
            None => "none".to_owned(),
            Some(row) if row.not_after <= self.now => format!("expired {}", row.not_after),
            Some(row) => format!("until {}", row.not_after),
        }
    }

    fn payload_text(&self) -> String {
        let Some(payload) = &self.payload else { return "none".to_owned() };
        match (&payload.spent, payload.void_at) {
            (Some((at, _)), _) if payload.mode == TokenMode::Once => format!("used {at}"),
            (_, Some(at)) => format!("void {at}"),
            _ if payload.expiry <= self.now => format!("expired {}", payload.expiry),
            _ => format!("until {}", payload.expiry),
        }
    }
}

/// For people.
pub fn nodes_table(nodes: &[Node]) -> String {
    if nodes.is_empty() {
        return "no nodes; add some with imprint-host node add FILE\n".to_owned();
    }
    let mut table = Table::new();

    table.set_header(["node", "names", "enrol", "payload", "certificate", "key"]);
    for node in nodes {
        let key = node.certificate.as_ref().map_or("", |row| row.key_code.as_str());
        let (payload, certificate) = (node.payload_text(), node.certificate_text());
        table.add_row([&node.name, &node.names, node.mode, &payload, &certificate, key].map(line));
    }
    let mut text = format!("{table}\n");
    for row in nodes.iter().flat_map(|node| &node.waiting) {
        let RequestRow { node, key_code, why, peer, first_at, .. } = row;
        let _ = writeln!(text, "{node} waits for approval: key {key_code} from {peer} since {first_at}: {why}");
    }
    text
}

/// For programs.
pub fn nodes_json(nodes: &[Node]) -> Value {
    let node = |node: &Node| {
        let certificate = node.certificate.as_ref().map(|row| {
            json!({
                "serial": hex::encode(&row.serial), "key": row.key_code, "payload": row.payload.to_string(),
                "issued_at": row.issued_at.to_string(), "not_after": row.not_after.to_string(),
            })
        });
        let payload = node.payload.as_ref().map(|row| {
            json!({
                "id": row.id.to_string(), "composed": row.composed.to_string(), "expiry": row.expiry.to_string(),
                "spent_at": row.spent.as_ref().map(|(at, _)| at.to_string()),
                "void_at": row.void_at.map(|at| at.to_string()),
            })
        });
        let waiting = node.waiting.iter().map(|row| {
            json!({
                "key": row.key_code, "why": row.why, "peer": row.peer,
                "first_at": row.first_at.to_string(), "last_at": row.last_at.to_string(),
            })
        });
        json!({
            "name": node.name, "names": node.names, "enrol": node.mode,
            "payload": payload, "certificate": certificate, "waiting": waiting.collect::<Value>(),
        })
    };
    nodes.iter().map(node).collect()
}

/// For people: a line each.
pub fn log_text(rows: &[AuditRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let peer = row.peer.as_ref().map(|peer| format!(" from {peer}")).unwrap_or_default();
        let node = row.node.as_deref().unwrap_or("-");
        // An earlier program wrote what it was given.
        let told = line(&format!("{node}{peer}: {}", row.detail));
        let _ = writeln!(text, "{} {:<8} {told}", row.at, row.event);
    }
    text
}

/// For programs.
pub fn log_json(rows: &[AuditRow]) -> Value {
    let row = |row: &AuditRow| {
        json!({
            "at": row.at.to_string(), "event": row.event, "node": row.node, "peer": row.peer, "detail": row.detail,
        })
    };
    rows.iter().map(row).collect()
}
