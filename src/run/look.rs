//! The subcommands that only show something: `imprint check`, `plan` and `status`. Never changes anything on the
//! machine.

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

/// `imprint check`: shows the payload in a file.
pub fn check(file: &Path) -> Result<String, Error> {
    Ok(source::decode(&source::file::named(file)?)?.to_string())
}

/// `imprint plan`: shows what the payload in a file would do on this machine.
pub fn plan(root: &Path, file: &Path) -> Result<String, Error> {
    let found = source::file::named(file)?;
    let payload = source::decode(&found)?;
    let deadline = Deadline::after(Duration::from_secs(10));
    Ok(planned(root, found, payload, Scope::Boot, deadline)?.to_string())
}

/// `imprint status`: shows what the last run did. `reason`: shows only why the run was stopped, and the remedy; empty
/// if it was not stopped.
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

/// The link that the machine booted from. The other options of the kernel command line are for the boot and do not
/// count on a running system.
pub(super) fn bootif(root: &Path) -> Option<HardwareAddress> {
    options::bootif(&source::cmdline::text(root).ok()?)
}
