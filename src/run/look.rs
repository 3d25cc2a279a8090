//! The subcommands that only show something: `imprint check`, `plan` and `status`. Never changes anything on the
//! machine.

use std::path::Path;
use std::time::Duration;

use super::RUN_DIR;
use super::find::pin_of_machine;
use crate::console::complain;
use crate::error::Error;
use crate::facts;
use crate::line::admission::AdmissionKey;
use crate::options;
use crate::payload::{HardwareAddress, Payload};
use crate::plan::{self, Plan, Scope};
use crate::site::{SignedBy, SitePin};
use crate::source::admission_key::{self, INSTALLED};
use crate::source::{self, Found, SourceError, bundle_key};
use crate::status::Status;
use crate::time::Deadline;

/// `imprint check`: shows the payload in a file, and who signed it. The site pin of this machine counts, as at a boot. A
/// file with an admission key or a bundle key is shown, too; without a file, those of the image.
pub fn check(root: &Path, file: Option<&Path>) -> Result<String, Error> {
    let Some(file) = file else {
        let none = || format!("no admission key: there is neither /{} nor /{}\n", admission_key::PATH, INSTALLED);
        let admission = admission_key::of_image(root)?.map_or_else(none, |key| key.to_string());
        let bundle = bundle_key::of_image(root).map_err(SourceError::BundleKey)?;
        return Ok(admission + &bundle.map(|key| key.to_string()).unwrap_or_default());
    };
    let found = source::file::named(file)?;
    if AdmissionKey::is_meant(found.bytes.expose()) {
        return Ok(admission_key::parsed(file.to_owned(), found.bytes.expose())?.to_string());
    }
    if bundle_key::is_meant(found.bytes.expose()) {
        let key = bundle_key::named(file.to_owned(), found.bytes.expose()).map_err(SourceError::BundleKey)?;
        return Ok(key.to_string());
    }
    let pin = pin_of_machine(root, complain)?;
    let (payload, signed) = source::decode(&found, pin.as_ref(), None)?;
    plan::bound(&payload, &found.origin, false, pin.as_ref())?;
    Ok(match signed {
        SignedBy::Nobody => payload.to_string(),
        signed => format!("{payload}signed by  {signed}\n"),
    })
}

/// `imprint plan`: shows what the payload in a file would do on this machine.
pub fn plan(root: &Path, file: &Path) -> Result<String, Error> {
    let found = source::file::named(file)?;
    let pin = pin_of_machine(root, complain)?;
    let (payload, signed) = source::decode(&found, pin.as_ref(), None)?;
    let deadline = Deadline::after(Duration::from_secs(10));
    Ok(planned(root, found, Judged { payload, signed, pin }, Scope::Boot, deadline)?.to_string())
}

/// `imprint status`: shows what the last run did. `reason`: shows only why the run was stopped, and the remedy; empty
/// if it was not stopped.
pub fn status(root: &Path, reason: bool) -> Result<String, Error> {
    let path = root.join(RUN_DIR).join("status.json");
    let text = source::text(root, &format!("{RUN_DIR}/status.json"))?;
    let status: Status = serde_json::from_str(&text)
        .map_err(|error| SourceError::Read { path, source: std::io::Error::other(error) })?;
    Ok(if reason { status.reason() } else { status.to_string() + &super::swap::shown(root) })
}

/// A payload whose signature was judged by the site pin.
pub(super) struct Judged {
    pub(super) payload: Payload,
    pub(super) signed: SignedBy,
    pub(super) pin: Option<SitePin>,
}

pub(super) fn planned(
    root: &Path,
    found: Found,
    Judged { payload, signed, pin }: Judged,
    scope: Scope,
    deadline: Deadline,
) -> Result<Plan, Error> {
    let facts = facts::gather(root, found.origin, pin, signed, bootif(root), deadline)?;
    Ok(plan::plan(payload, &facts, scope)?)
}

/// The link that the machine booted from. The other options of the kernel command line are for the boot and do not
/// count on a running system.
pub(super) fn bootif(root: &Path) -> Option<HardwareAddress> {
    options::bootif(&source::cmdline::text(root).ok()?)
}
