//! Which node a client of the TLS connection is, for requests that want no certificate. Signs nothing; judges a certificate as
//! `renewal` and `gate` do.

use super::{Alarm, Desk, EnrolError, Refusal, Stop, revocation};
use crate::ca;
use crate::store::{Budget, CertificateRow, Event};
use crate::x509::CrlReason;

/// Who a client is, and an alarm for after the commit.
pub struct Client {
    /// The node, or why its certificate does not count.
    pub node: Result<String, Refusal>,
    /// The certificate was revoked, and is in use.
    pub alarm: Option<Alarm>,
}

/// The node of a client. TLS has verified path, validity and possession of the `certificate`. Writes only when it refuses: a line
/// in the audit log. `what`: what the client wants, for the log.
pub fn client(desk: &Desk<'_>, certificate: &[u8], what: &str, peer: &str) -> Result<Client, EnrolError> {
    let row = revocation::certificate(desk.changes, certificate)?;
    let mut alarm = None;
    let judged = match &row {
        None => Err(Refusal::NotOurs.into()),
        Some(row) => judge(desk, row, peer, &mut alarm),
    };
    let refusal = match judged {
        Ok(node) => return Ok(Client { node: Ok(node), alarm }),
        Err(Stop::Refused(refusal)) => refusal,
        Err(Stop::Failed(error)) => return Err(error),
    };
    let node = row.as_ref().map(|row| row.node.as_str());
    let budget = match (&row, &refusal) {
        (Some(row), Refusal::Changed) => Budget::Certificate(row.node.clone()),
        _ => Budget::Stranger,
    };
    let detail = format!("{what}: {refusal}");
    desk.changes.audit_within(
        &budget,
        &Event { event: "refused", node, peer: Some(peer), detail: &detail },
        desk.now,
    )?;
    Ok(Client { node: Err(refusal), alarm })
}

fn judge(desk: &Desk<'_>, row: &CertificateRow, peer: &str, alarm: &mut Option<Alarm>) -> Result<String, Stop> {
    if let Some((at, reason)) = row.revoked {
        *alarm = desk.in_use(row, peer)?;
        let latest = desk.changes.live_certificates(&row.node, desk.now)?.pop();
        return Err(match latest {
            Some(latest) if reason == CrlReason::Superseded => Refusal::Superseded { key_code: latest.key_code, at },
            _ => Refusal::Revoked { at, reason },
        }
        .into());
    }
    // That the client has the certificate was noted after the handshake (`shown_in_a_handshake`).
    let Some(node) = desk.entitlement(&row.node)? else { return Err(Refusal::NotOurs.into()) };
    if !ca::is_for(&row.der, &node.names) {
        return Err(Refusal::Changed.into());
    }
    Ok(row.node.clone())
}
