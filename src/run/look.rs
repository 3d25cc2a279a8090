//! What only looks: `imprint check`, `plan` and `status`. Changes nothing on the machine.

use std::path::Path;
use std::time::Duration;

use super::RUN_DIR;
use crate::error::Error;
use crate::facts;
use crate::options;
use crate::payload::{HardwareAddress, Payload};
use crate::plan::{self, Plan, Scope};
use crate::source::{self, Found, SourceError};
use crate::status::Status;
use crate::time::Deadline;

/// `imprint check`: the payload in a file, for people.
pub fn check(file: &Path) -> Result<String, Error> {
    Ok(source::decode(&source::file::named(file)?)?.to_string())
}

/// `imprint plan`: what the payload in a file would do on this machine.
pub fn plan(root: &Path, file: &Path) -> Result<String, Error> {
    let found = source::file::named(file)?;
    let payload = source::decode(&found)?;
    let deadline = Deadline::after(Duration::from_secs(10));
    Ok(planned(root, found, payload, Scope::Boot, deadline)?.to_string())
}

/// `imprint status`: what the last run did. `reason`: only why it was stopped, and what to do; nothing where it was not.
pub fn status(root: &Path, reason: bool) -> Result<String, Error> {
    let path = root.join(RUN_DIR).join("status.json");
    let text = source::text(root, &format!("{RUN_DIR}/status.json"))?;
    let status: Status = serde_json::from_str(&text)
        .map_err(|error| SourceError::Read { path, source: std::io::Error::other(error) })?;
    Ok(if reason { status.reason() } else { status.to_string() })
}

pub(super) fn planned(
    root: &Path,
    found: Found,
    payload: Payload,
    scope: Scope,
    deadline: Deadline,
) -> Result<Plan, Error> {
    let pin = facts::site_pin(root)?;
    let facts = facts::gather(root, found.origin, pin, bootif(root), deadline)?;
    Ok(plan::plan(payload, &facts, scope)?)
}

/// Which link the machine booted from. The rest of a running system's command line is for the boot that this is not.
pub(super) fn bootif(root: &Path) -> Option<HardwareAddress> {
    options::bootif(&source::cmdline::text(root).ok()?)
}
