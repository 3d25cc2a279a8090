//! What a node reports about its bundle: it is available with it, or has failed. A node reports only about versions that it was
//! given. What it has said before, in the same boot, is not written again.

use std::time::Duration;

use imprint::bundle::answer::{Outcome, Report};
use imprint::hex;
use imprint::shown::printable_up_to;

use super::events::{self, Happened};
use crate::enrol::{Desk, EnrolError};
use crate::store::{AvailableRow, Budget, Event, Told};

/// The longest text of a report that is kept, in characters.
const DETAIL: usize = 512;
/// A node may say something new this often at once, and then once in each [`PACE`].
const AT_ONCE: u32 = 20;
const PACE: Duration = Duration::from_secs(60);

/// Who reports, and from where.
pub struct From<'a> {
    /// The node.
    pub node: &'a str,
    /// The certificate that it has shown, SHA-256: another one at each boot.
    pub certificate: [u8; 32],
    /// Its address.
    pub peer: &'a str,
}

/// What has become of a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reported {
    /// It is stored.
    Noted,
    /// It was known.
    Known,
    /// There is no such version.
    Unknown(String),
    /// Too many.
    Later(Duration, String),
}

/// Stores what a node reports. `tell`: who is told.
pub fn report(desk: &Desk<'_>, from: &From<'_>, report: &Report, tell: &[Told]) -> Result<Reported, EnrolError> {
    let (changes, now, counter) = (desk.changes, desk.now, report.counter);
    let From { node, certificate, peer } = *from;
    let budget = Budget::Certificate(node.to_owned());
    let version = changes.bundle(node, counter)?.filter(|row| hex::encode(&row.sha256) == report.sha256);
    let Some(version) = version else {
        let why = format!("{node} has no version {counter} with this digest; report the one that was applied");
        let event = Event { event: "refused", node: Some(node), peer: Some(peer), detail: &why };
        changes.audit_within(&budget, &event, now)?;
        return Ok(Reported::Unknown(why));
    };
    let available = report.state == Outcome::Available;
    let detail = report.detail.as_deref().map(|text| printable_up_to(text, DETAIL));
    let row = AvailableRow {
        counter,
        sha256: version.sha256,
        available,
        detail,
        at: now,
        certificate,
        paced_until: now.plus(PACE),
    };
    let row = match changes.available(node)? {
        None => row,
        Some(last) => {
            let is_known = AvailableRow { at: last.at, paced_until: last.paced_until, ..row.clone() } == last;
            if is_known {
                return Ok(Reported::Known);
            }
            let burst = PACE.saturating_mul(AT_ONCE);
            // A clock that was set back makes nobody wait until it has caught up.
            let is_ahead = last.paced_until > now.plus(burst);
            let used = if is_ahead { now.plus(burst).minus(PACE) } else { last.paced_until.max(now) };
            let until = used.plus(PACE);
            if until > now.plus(burst) {
                let after = Duration::from_millis(until.as_millis().saturating_sub(now.plus(burst).as_millis()));
                let why = format!("{AT_ONCE} different reports of this node within minutes; come back later");
                return Ok(Reported::Later(after, why));
            }
            AvailableRow { paced_until: until, ..row }
        }
    };
    changes.put_available(node, &row)?;
    let told = row.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let event = if available { "available" } else { "failed" };
    let line = Event { event, node: Some(node), peer: Some(peer), detail: &format!("version {counter}{told}") };
    changes.audit_within(&budget, &line, now)?;
    events::add(desk, tell, node, &Happened::Reported(&row))?;
    Ok(Reported::Noted)
}
