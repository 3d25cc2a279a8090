//! Renewal (RFC 7030 §4.2.2): finds the client certificate of the TLS handshake, then asks `gate` for its successor. Signs
//! nothing itself.

use super::gate::{self, Shown, Visit};
use super::{Answer, Decision, Desk, EnrolError, Notes, Refusal, Stop, revocation};
use crate::csr::{Csr, CsrError};
use crate::store::{Budget, CertificateRow};
use crate::x509::CrlReason;

/// Decides about a renewal, and stores the decision. TLS has verified path, validity and possession of the client's
/// `certificate`.
pub fn simple_reenroll(
    desk: &Desk<'_>,
    csr: Result<&Csr, &CsrError>,
    certificate: Option<&[u8]>,
    peer: &str,
) -> Result<Decision, EnrolError> {
    let row = certificate.map(|der| revocation::certificate(desk.changes, der)).transpose()?.flatten();
    let mut notes = Notes::default();
    let decided = match (&row, certificate) {
        (Some(row), _) => decide(desk, csr, row, peer, &mut notes),
        (None, Some(_)) => Err(Refusal::NotOurs.into()),
        (None, None) => Err(Refusal::NoCertificate.into()),
    };
    desk.decision(decided, row.as_ref().map(|row| row.node.as_str()), peer, "renewed", notes)
}

fn decide(
    desk: &Desk<'_>,
    csr: Result<&Csr, &CsrError>,
    row: &CertificateRow,
    peer: &str,
    notes: &mut Notes,
) -> Result<Answer, Stop> {
    if let Some((at, reason)) = row.revoked {
        notes.alarm = desk.in_use(row, peer)?;
        let latest = desk.changes.live_certificates(&row.node, desk.now)?.pop();
        return Err(match latest {
            Some(latest) if reason == CrlReason::Superseded => Refusal::Superseded { key_code: latest.key_code, at },
            _ => Refusal::Revoked { at, reason },
        }
        .into());
    }
    notes.budget = Budget::Certificate(row.node.clone());
    desk.proven(row, peer)?;
    let csr = csr.map_err(CsrError::clone)?;
    let Some(node) = desk.entitlement(&row.node)? else { return Err(Refusal::NotOurs.into()) };
    let of_key = desk.changes.certificates_of(&csr.spki_hash())?;
    let visit = Visit { node: &node, csr, of_key: &of_key, shown: Shown::Certificate(row), peer };
    gate::pass(desk, &visit, notes)
}
