//! Renewal (RFC 7030 §4.2.2): a certificate, proven in the TLS handshake, gets a successor with the same names. The
//! node's record has to be there and unchanged, and the certificate has to be the node's latest.

use std::time::Duration;

use imprint::payload::EstUrl;
use imprint::time::Timestamp;

use super::{Answer, EnrolError, Refusal, Stop, issue};
use crate::ca::{self, Ca};
use crate::csr::Csr;
use crate::record::{Record, names_a_server};
use crate::store::{CertificateRow, Changes, Event, Store};

/// For this long after a renewal whose certificate nobody has shown yet, the one before it may be renewed again: the
/// answer may have been lost between signature and hand-over.
const LOST: Duration = Duration::from_secs(15 * 60);

/// Decides and books it. TLS has verified path, validity and possession of `certificate`, the client's.
pub fn simple_reenroll(
    store: &mut Store,
    ca: &Ca,
    urls: &[EstUrl],
    csr: &[u8],
    certificate: Option<&[u8]>,
    peer: &str,
    now: Timestamp,
) -> Result<Answer, EnrolError> {
    let changes = store.changes()?;
    let row = match certificate {
        Some(der) => changes.certificate(der)?,
        None => None,
    };
    let decided = match (&row, certificate) {
        (Some(row), _) => {
            changes.seen(&row.serial, now)?;
            decide(&changes, ca, urls, csr, row, now)
        }
        (None, Some(_)) => Err(Refusal::NotOurs.into()),
        (None, None) => Err(Refusal::NoCertificate.into()),
    };
    let answer = match decided {
        Ok(answer) => answer,
        Err(Stop::Refused(refusal)) => Answer::Refused(refusal),
        Err(Stop::Failed(error)) => return Err(error),
    };
    let (event, detail) = match &answer {
        Answer::Issued { detail, .. } => ("renewed", detail.clone()),
        Answer::Pending { detail, .. } => ("pending", detail.clone()),
        Answer::Unauthorized => ("refused", "no credentials".to_owned()),
        Answer::Refused(refusal) => ("refused", format!("renewal: {refusal}")),
    };
    let node = row.as_ref().map(|row| row.node.as_str());
    let event_row = Event { event, node, peer: Some(peer), detail: &detail };
    match answer.is_to_a_stranger() {
        true => changes.audit_stranger(&event_row, now)?,
        false => changes.audit(&event_row, now)?,
    }
    changes.commit()?;
    let node = node.unwrap_or("-");
    match &answer {
        // Two keys at work under one name: somebody should look.
        Answer::Refused(Refusal::Superseded { .. }) => tracing::warn!("{event} {node} from {peer}: {detail}"),
        _ => tracing::info!("{event} {node} from {peer}: {detail}"),
    }
    Ok(answer)
}

fn decide(
    changes: &Changes<'_>,
    ca: &Ca,
    urls: &[EstUrl],
    csr: &[u8],
    row: &CertificateRow,
    now: Timestamp,
) -> Result<Answer, Stop> {
    let csr = Csr::parse(csr)?;
    let Some(node) = changes.node(&row.node)? else { return Err(Refusal::NotOurs.into()) };
    let Some(latest) = changes.latest_certificate(&row.node)? else { return Err(Refusal::NotOurs.into()) };
    let record = Record::compile(&node.file, &node.record, ca.root(), urls)?;
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
        if !lost || now >= latest.issued_at.plus(LOST) {
            return Err(Refusal::Superseded { key_code: latest.key_code, at: latest.issued_at }.into());
        }
    }
    issue(changes, ca, &record, &csr, row.payload, Some(row.serial.clone()), now)
}
