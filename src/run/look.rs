//! The subcommands that only show something: `imprint check`, `plan` and `status`. Never changes anything on the
//! machine.

use std::path::Path;
use std::time::Duration;

use super::RUN_DIR;
use super::find::pin_of_machine;
use crate::console::complain;
use crate::error::Error;
use crate::facts;
use crate::finding;
use crate::hex;
use crate::line::admission::AdmissionKey;
use crate::options::{self, NetworkWords, Options};
use crate::payload::{HardwareAddress, Payload};
use crate::plan::{self, Plan, Scope};
use crate::site::{self, SignedBy, SitePin};
use crate::source::admission_key::{self, INSTALLED};
use crate::source::{self, Found, SourceError, bundle_key};
use crate::status::Status;
use crate::time::Deadline;

/// `imprint check`: shows the payload in a file, and who signed it. The site pin of this machine counts, as at a boot. A
/// file with an admission key or a bundle key is shown, too. Without a file, shows what the image has for every node.
pub fn check(root: &Path, file: Option<&Path>) -> Result<String, Error> {
    let Some(file) = file else { return of_image(root) };
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

/// The files of an image that are the same for all nodes, each read as a boot reads it: what a boot would refuse is an error here.
fn of_image(root: &Path) -> Result<String, Error> {
    let pin = match site::pin(root)? {
        Some(pin) => shown(&pin),
        None => format!("no site pin: there is neither /{} nor /{}\n", site::PATH, site::INSTALLED),
    };
    let (links, _) = finding::links(&Options::parse("")?, root)?;
    let network = match links.len() {
        0 => format!("no network before the payload: there is no /{}\n", finding::PATH),
        count => format!("network        {count} link(s) before the payload\n"),
    };
    let none = || format!("no admission key: there is neither /{} nor /{}\n", admission_key::PATH, INSTALLED);
    let admission = admission_key::of_image(root)?.map_or_else(none, |key| key.to_string());
    let bundle = bundle_key::of_image(root).map_err(SourceError::BundleKey)?;
    Ok([pin, network, admission, bundle.map(|key| key.to_string()).unwrap_or_default()].concat())
}

/// One line for each CA and signer of the site.
fn shown(pin: &SitePin) -> String {
    let cas = pin.cas.iter().map(|digest| format!("site pin       CA {}\n", hex::encode(digest)));
    cas.chain(pin.signers.iter().map(|signer| format!("site pin       signer {}\n", signer.kid()))).collect()
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
    let status = last(root)?;
    Ok(if reason { status.reason() } else { status.to_string() + &super::swap::shown(root) })
}

/// Why the last run was stopped, in one line. `None`: it was not, or has left no status.
pub fn why(root: &Path) -> Option<String> {
    last(root).ok()?.why()
}

fn last(root: &Path) -> Result<Status, Error> {
    let path = root.join(RUN_DIR).join("status.json");
    let text = source::text(root, &format!("{RUN_DIR}/status.json"))?;
    let status = serde_json::from_str(&text);
    Ok(status.map_err(|error| SourceError::Read { path, source: std::io::Error::other(error) })?)
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
    let (words, bootif) = network_words(root);
    let mut facts = facts::gather(root, found.origin, pin, signed, bootif, deadline)?;
    if payload.from_cmdline && scope != Scope::CertificateOnly {
        facts.cmdline = words.network(facts.bootif.as_ref());
        facts.cmdline.unused.iter().for_each(|word| complain(word));
    }
    Ok(plan::plan(payload, &facts, scope)?)
}

/// The words for the network, and the link that the machine booted from. The other options of the kernel command line are for the
/// boot and do not count on a running system.
pub(super) fn network_words(root: &Path) -> (NetworkWords, Option<HardwareAddress>) {
    source::cmdline::text(root).map(|text| options::network_words(&text)).unwrap_or_default()
}
