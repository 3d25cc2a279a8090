//! Renewal (RFC 7030 §4.2.2): a certificate, proven in the TLS handshake, gets a successor with the same names. The
//! node's record has to be there and unchanged, and the certificate has to be the node's latest.

use super::first::is_lost;
use super::{Answer, Because, Decision, Desk, EnrolError, Refusal, Stop, revocation};
use crate::ca;
use crate::csr::Csr;
use crate::record::{Record, names_a_server};
use crate::store::CertificateRow;

/// Decides about a renewal, and books it. TLS has verified path, validity and possession of `certificate`, the client's.
pub fn simple_reenroll(
    desk: &Desk<'_>,
    csr: &[u8],
    certificate: Option<&[u8]>,
    peer: &str,
) -> Result<Decision, EnrolError> {
    let row = certificate.map(|der| revocation::certificate(desk.changes, der)).transpose()?.flatten();
    let mut alarm = None;
    let decided = match (&row, certificate) {
        (Some(row), _) => {
            alarm = desk.in_use(row, peer)?;
            desk.changes.seen(&row.serial, desk.now)?;
            decide(desk, csr, row)
        }
        (None, Some(_)) => Err(Refusal::NotOurs.into()),
        (None, None) => Err(Refusal::NoCertificate.into()),
    };
    let mut decision = desk.decision(decided, row.as_ref().map(|row| row.node.as_str()), peer, "renewed")?;
    decision.alarm = alarm;
    Ok(decision)
}

fn decide(desk: &Desk<'_>, csr: &[u8], row: &CertificateRow) -> Result<Answer, Stop> {
    let Desk { changes, urls, now, .. } = *desk;
    let csr = Csr::parse(csr)?;
    if let Some((at, reason)) = row.revoked {
        return Err(Refusal::Revoked { at, reason }.into());
    }
    let Some(node) = changes.node(&row.node)? else { return Err(Refusal::NotOurs.into()) };
    let Some(latest) = changes.latest_certificate(&row.node)? else { return Err(Refusal::NotOurs.into()) };
    let record = Record::of_store(&node.file, &node.record, urls)?;
    if !ca::is_for(&row.der, &record.names) {
        return Err(Refusal::Changed.into());
    }
    csr.matches(&record.names, record.key)?;
    if let Some(name) = names_a_server(&record.names, urls) {
        return Err(Refusal::ServerName(name).into());
    }
    if latest.serial != row.serial {
        let lost = latest.renews.as_ref() == Some(&row.serial) && latest.seen_at.is_none();
        // The same request again: its answer again, with no signature.
        if lost && latest.spki_hash == csr.spki_hash() {
            let detail = format!("{} key {}, same certificate again", record.names, latest.key_code);
            return Ok(Answer::Issued { der: latest.der, detail });
        }
        if !lost || !is_lost(&latest, now) {
            return Err(Refusal::Superseded { key_code: latest.key_code, at: latest.issued_at }.into());
        }
    }
    desk.issue(&record, &csr, row.payload, Because::Renews(&row.serial))
}
