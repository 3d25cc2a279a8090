//! What a CSR should be for, when somebody asks before making one (RFC 7030 §4.5). It reads: no token is used up, and
//! nothing is booked.

use imprint::payload::KeyType;

use super::first::payload_of;
use super::{Credentials, Desk, EnrolError, Refusal, Stop, revocation};
use crate::record::Entitlement;

/// The type of key that the record says, for whoever has shown a right token or a certificate of ours; the default type
/// for everybody else. Credentials that are wrong are refused: whoever has them should hear of it before making a key.
pub fn key_wanted(
    desk: &Desk<'_>,
    credentials: Option<&Credentials>,
    certificate: Option<&[u8]>,
) -> Result<Result<KeyType, Refusal>, EnrolError> {
    match entitlement(desk, credentials, certificate) {
        Ok(found) => Ok(Ok(found.map_or_else(KeyType::default, |found| found.key))),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn entitlement(
    desk: &Desk<'_>,
    credentials: Option<&Credentials>,
    certificate: Option<&[u8]>,
) -> Result<Option<Entitlement>, Stop> {
    match (credentials, certificate) {
        (Some(credentials), _) => desk.entitlement(&payload_of(desk, credentials, &[])?.node),
        (None, Some(der)) => match revocation::certificate(desk.changes, der)? {
            Some(row) => desk.entitlement(&row.node),
            None => Ok(None),
        },
        (None, None) => Ok(None),
    }
}
