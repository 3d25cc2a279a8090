//! What a node reports about its bundle: it is available with it, or has failed. A node reports only about versions that it was
//! given.

use imprint::bundle::answer::{Outcome, Report};
use imprint::hex;
use imprint::shown::printable_up_to;

use super::events::{self, Happened};
use crate::enrol::{Desk, EnrolError};
use crate::store::{AvailableRow, Budget, Event, Told};

/// The longest text of a report that is kept, in characters.
const DETAIL: usize = 512;

/// What has become of a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reported {
    /// It is stored.
    Noted,
    /// There is no such version.
    Unknown(String),
}

/// Stores what a node reports. `tell`: who is told.
pub fn report(desk: &Desk<'_>, node: &str, report: &Report, tell: &[Told], peer: &str) -> Result<Reported, EnrolError> {
    let (changes, now, counter) = (desk.changes, desk.now, report.counter);
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
    let row = AvailableRow { counter, sha256: version.sha256, available, detail, at: now };
    changes.put_available(node, &row)?;
    let told = row.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let event = if available { "available" } else { "failed" };
    let line = Event { event, node: Some(node), peer: Some(peer), detail: &format!("version {counter}{told}") };
    changes.audit_within(&budget, &line, now)?;
    events::add(desk, tell, node, &Happened::Reported(&row))?;
    Ok(Reported::Noted)
}
