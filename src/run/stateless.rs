//! The step of a boot that gets the bundle of a stateless node: finds the key that opens it, and brings the certificate, the network
//! and the consoles to the story in `crate::stateless`. Never decides whether a node has a bundle: the plan does.

use std::thread::sleep;
use std::time::Duration;

use super::door::Door;
use super::limits::Limits;
use crate::checkin::{Ask, Issued};
use crate::console::say;
use crate::error::Error;
use crate::identity::Identity;
use crate::payload::EstUrl;
use crate::plan::{BundlePlan, Server};
use crate::retrieval::{self, Hooks, Progress, Retrieval};
use crate::source::bundle_key::{self, Around, Held};
use crate::stateless::{self, Obtained, StatelessError, Wanted};
use crate::time::{Deadline, since_boot};

/// What is known of the node by now.
pub(super) struct About<'a> {
    pub(super) bundle: &'a BundlePlan,
    pub(super) server: &'a Server,
    pub(super) issued: &'a Issued,
    pub(super) identity: &'a Identity,
    pub(super) user_agent: &'a str,
}

/// How often the leases are looked at while the node waits.
const LEASES: Duration = Duration::from_secs(10);
/// How often the code of a bundle that waits is said again: what was said once has left the screen.
const REPEAT: Duration = Duration::from_secs(180);
/// The longest that renewing a lease may take.
const RENEWAL: Duration = Duration::from_secs(5);

/// Gets the bundle, however long that takes.
pub(super) fn obtain(
    about: &About<'_>,
    door: &mut Door<'_>,
    limits: Limits,
    detail: &mut String,
) -> Result<Obtained, Error> {
    let About { bundle, server, issued, identity, user_agent } = *about;
    let Limits { timeout, approval, .. } = limits;
    let (root, making) = (door.root, std::mem::take(&mut door.making));
    // A person has as long to pull a medium as an administrator has to approve something.
    let (found, pulled) = (Deadline::after(timeout), Deadline::after(approval.unwrap_or(Duration::MAX)));
    let held = bundle_key::find(&bundle.key, &Around::of(root), found, pulled, &mut |words| say(words));
    let Held { identity: key, from } = held.map_err(StatelessError::Key)?;
    let client = identity.client(issued.chain()).map_err(StatelessError::Client)?;
    let context = retrieval::Context { ca: &server.ca, client: &client, clock: issued.clock(), user_agent };
    // The server that has issued the certificate is asked first.
    let first = match issued.url() {
        EstUrl::Https(url) => Some(url),
        EstUrl::Line => None,
    };
    let urls = first.into_iter().chain(server.https()).map(|url| url.for_bundles());
    let consoles = making.places(root, door.line);
    let wanted = Wanted {
        root,
        node: &server.name,
        least: bundle.least,
        signers: &bundle.signers,
        identity: &key,
        new: making.new,
        settings: &making.settings,
        consoles: &consoles,
        timeout,
        approval,
        repeat: REPEAT,
        say: &say,
    };
    let mut looked = since_boot();
    let mut wait = |until: Deadline| loop {
        if since_boot().saturating_sub(looked) >= LEASES {
            looked = since_boot();
            door.answer(Ask::RenewLease(Deadline::after(RENEWAL)))?;
        }
        if until.expired() {
            return Ok(());
        }
        sleep(until.at_most(LEASES).remaining());
    };
    let mut progress = |progress: Progress<'_>| say(&progress.to_string());
    let mut hooks = Hooks { wait: &mut wait, progress: &mut progress };
    let obtained = stateless::obtain(&wanted, &mut Retrieval::new(urls, context), &mut hooks)?;
    let described = obtained.description();
    *detail = format!(
        "number {} ({}) from {}, approved by {}, key in {from}",
        described.counter, described.code, described.url, described.approver
    );
    Ok(obtained)
}
