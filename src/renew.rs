//! `imprint renew`: replaces the certificate of an earlier run by a new one with the same names (RFC 7030 §4.2.2). The
//! new certificate is verified as at check-in. Never changes the files before the new certificate is complete, and
//! never the system's clock or network.

use std::path::Path;
use std::time::Duration;

use der::Decode;

use crate::certificate::{Certificate, CertificateFacts};
use crate::checkin::{self, Ask, CheckinError, Context, Progress, Reply};
use crate::console::say;
use crate::error::Error;
use crate::handover::{self, Certificates, Folder, HandedOver, HandoverError};
use crate::hex;
use crate::identity::Identity;
use crate::payload::{CaCertificate, EstUrl, KeyType, NodeName};
use crate::plan::{ClockPlan, ClockQuality, Server};
use crate::pool::Seeded;
use crate::shown::Printable;
use crate::status::{Node, NodeRenewal};
use crate::time::{Deadline, Timestamp};
use crate::tls::{ClientCertificate, SKEW};

/// The options of the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// How long a renewal may take.
    pub timeout: Duration,
    /// Ask for a certificate for the same key.
    pub keep_key: bool,
    /// Do nothing before two thirds of the certificate's validity have passed.
    pub if_due: bool,
}

/// Renews the certificate in `directory`.
pub fn renew(directory: &Path, request: Request, now: Timestamp) -> Result<(), Error> {
    let deadline = Deadline::after(request.timeout);
    let folder = Folder::open(directory)?;
    let HandedOver { node, chain, ca, key } = handover::read(directory)?;
    let damaged = |name: &str, why: String| HandoverError::Damaged { path: directory.join(name), why };
    let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
    let certificate = Certificate::from_der(leaf).map_err(|error| damaged("chain.pem", error.to_string()))?;
    let facts = CertificateFacts::of(leaf).ok_or_else(|| damaged("chain.pem", "no certificate".to_owned()))?;
    let due = due(&facts);
    if request.if_due && now < due {
        say(&format!("certificate valid until {}, renewal due from {due} on", facts.not_after));
        return Ok(());
    }
    let (server, kind) = server(&node, ca).map_err(|wrong| match wrong {
        Some(why) => damaged("node.json", why),
        None => HandoverError::NotRenewable(directory.join("node.json")),
    })?;
    let client = ClientCertificate::new(&chain, key.expose())
        .map_err(|error| damaged("private/key.pem", format!("{error}; it does not fit chain.pem")))?;
    let identity = match request.keep_key {
        true => Identity::keeping(&certificate, key.expose())?,
        false => Identity::renewing(&certificate, kind, &Seeded::ready(deadline)?)?,
    };
    // At a check-in the payload limits the possible times; here the certificate does. The time lies within its
    // validity, unless the CA's clock was wrong by more than `SKEW`.
    let floor = facts.not_before.minus(SKEW);
    let quality = if (floor..=facts.not_after).contains(&now) { ClockQuality::Rtc } else { ClockQuality::Unknown };
    let clock = ClockPlan { floor, expiry: facts.not_after, quality };
    let user_agent = format!("imprint/{} (renewal)", env!("CARGO_PKG_VERSION"));
    let context = Context {
        server: &server,
        clock: &clock,
        identity: &identity,
        renews: Some(&client),
        user_agent: &user_agent,
        // The approval may take the rest of the deadline.
        approval_timeout: None,
        line: None,
    };
    // A renewal must not change the system's clock or network.
    let mut progress = |progress: Progress<'_>| match progress {
        Progress::Clock { .. } => {}
        told => say(&told.to_string()),
    };
    let mut door = |ask: Ask| match ask {
        Ask::SetClock(_) => Ok(Reply::Done),
        Ask::NextLink(_) | Ask::RenewLease(_) => Ok(Reply::NothingMore),
    };
    let issued = checkin::enroll(&context, &mut door, &mut progress, deadline);
    let issued = issued.map_err(|error| match error {
        CheckinError::Expired { expiry, date, server } => CheckinError::Ended { not_after: expiry, date, server },
        other => other,
    })?;
    let not_after = issued.facts().not_after;
    let node = Node { key_code: identity.code().to_string(), not_after: not_after.to_string(), ..node };
    let code = identity.code();
    handover::replace(&folder, identity, &Certificates::new(&issued, &server.ca), &node)?;
    say(&format!("renewed by {}: key {code}, valid until {not_after}", issued.server()));
    Ok(())
}

/// The time from which a renewal is due: two thirds of the validity have passed. The last third allows for a server
/// that is down.
fn due(facts: &CertificateFacts) -> Timestamp {
    let validity = facts.not_after.as_millis().saturating_sub(facts.not_before.as_millis());
    facts.not_before.plus(Duration::from_millis(validity.saturating_sub(validity / 3)))
}

/// The server and the key type for the renewal, from node.json. The error is `None` if node.json has no renewal, or
/// else says what is wrong with it.
fn server(node: &Node, ca: CaCertificate) -> Result<(Server, KeyType), Option<String>> {
    let NodeRenewal { urls, issuers, key } = node.renewal.as_ref().ok_or(None)?;
    let url = |text: &String| match EstUrl::try_from(text.as_str()) {
        Ok(url @ EstUrl::Https(_)) => Ok(url),
        Ok(EstUrl::Line) => Err(Some("a line: URL, which cannot be used for a renewal".to_owned())),
        Err(error) => Err(Some(error.to_string())),
    };
    let urls = urls.iter().map(url).collect::<Result<Vec<EstUrl>, _>>()?;
    if urls.is_empty() {
        return Err(None);
    }
    let digest = |text: &String| hex::decode(text)?.try_into().ok();
    let issuers = issuers.iter().map(digest).collect::<Option<Vec<[u8; 32]>>>();
    let issuers = issuers.ok_or_else(|| Some("issuers that are not SHA-256 digests".to_owned()))?;
    let name = NodeName::try_from(node.name.as_deref().ok_or(None)?).map_err(|error| Some(error.to_string()))?;
    let kind = KeyType::ALL.iter().find(|(_, name)| name == key).map(|(kind, _)| *kind);
    let kind = kind.ok_or_else(|| Some(format!("key type \"{}\"", Printable::of(key))))?;
    Ok((Server { urls, name, token: None, ca, issuers }, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_of_the_validity_are_the_certificates_own() {
        let (not_before, not_after) = (Timestamp::from_secs(1000), Timestamp::from_secs(4000));
        let (subject, issuer) = (Printable::default(), Printable::default());
        let facts = CertificateFacts { subject, issuer, names: Vec::new(), not_before, not_after };
        assert_eq!(due(&facts), Timestamp::from_secs(3000));
    }
}
