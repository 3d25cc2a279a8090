//! The type of key that a CSR should have, for clients that ask before they make one (RFC 7030 §4.5). Reads only: uses up
//! no token and stores nothing.

use imprint::payload::KeyType;

use super::first::payload_of;
use super::{Credentials, Desk, EnrolError, Refusal, Stop, revocation};
use crate::record::Entitlement;

/// The record's type of key, for a client with a right token or a certificate of this CA. Clients without credentials get
/// the default type. Wrong credentials are refused, so that the client learns this before it makes a key.
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
