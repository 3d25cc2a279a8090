//! What a CSR should be for, when somebody asks before making one (RFC 7030 §4.5). It reads: no token is used up, and
//! nothing is booked.

use imprint::payload::KeyType;

use super::first::payload_of;
use super::{Credentials, Desk, EnrolError, Refusal, Stop, revocation};
use crate::record::Record;

/// The type of key that the record says, for whoever has shown a right token or a certificate of ours; the default type
/// for everybody else. Credentials that are wrong are refused: whoever has them should hear of it before making a key.
pub fn key_wanted(
    desk: &Desk<'_>,
    credentials: Option<&Credentials>,
    certificate: Option<&[u8]>,
) -> Result<Result<KeyType, Refusal>, EnrolError> {
    match record(desk, credentials, certificate) {
        Ok(record) => Ok(Ok(record.map_or_else(KeyType::default, |record| record.key))),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn record(
    desk: &Desk<'_>,
    credentials: Option<&Credentials>,
    certificate: Option<&[u8]>,
) -> Result<Option<Record>, Stop> {
    let node = match (credentials, certificate) {
        (Some(credentials), _) => {
            let Some(node) = desk.changes.node(&credentials.name)? else {
                return Err(Refusal::Unknown { node_exists: false }.into());
            };
            payload_of(desk, &node.name, credentials, &[])?;
            Some(node)
        }
        (None, Some(der)) => match revocation::certificate(desk.changes, der)? {
            Some(row) => desk.changes.node(&row.node)?,
            None => None,
        },
        (None, None) => None,
    };
    Ok(match node {
        Some(node) => Some(Record::compile(&node.file, &node.record, desk.ca.root(), desk.urls)?),
        None => None,
    })
}
