//! Tells the configuration server what became of a bundle, in the name of this machine. Never decides what became of it.

use std::path::Path;

use crate::bundle::answer::{Outcome, Report};
use crate::chain::chain;
use crate::console::say;
use crate::error::UseError;
use crate::handover::staged::Description;
use crate::handover::{self, HandedOver, HandoverError};
use crate::payload::HttpsUrl;
use crate::retrieval::{Context, Hooks, Progress, Retrieval};
use crate::shown::Printable;
use crate::time::{Clock, Deadline, Timestamp};
use crate::tls::ClientCertificate;

/// The longest detail of a report, in bytes.
const DETAIL: usize = 1000;

/// Tells the configuration server. The certificate of the boot, or that of a renewal, says who this is.
pub(super) fn report(
    directory: &Path,
    bundle: &Description,
    failed: Option<&UseError>,
    deadline: Deadline,
) -> Result<(), UseError> {
    let url = HttpsUrl::read_for_bundles(&bundle.url).map_err(|_| UseError::Url(Printable::up_to(&bundle.url, 120)))?;
    let HandedOver { chain, ca, key, .. } = handover::read(directory)?;
    let client = ClientCertificate::new(&chain, key.expose()).map_err(|error| HandoverError::Damaged {
        path: directory.join("private/key.pem"),
        why: format!("{error}; it does not fit chain.pem"),
    })?;
    // The boot has set the system clock by the server's; in the real root it may have been set better.
    let clock = Clock::starting_at(Timestamp::system());
    let user_agent = format!("imprint/{} (available)", env!("CARGO_PKG_VERSION"));
    let context = Context { ca: &ca, client: &client, clock, user_agent: &user_agent };
    let report = Report {
        version: 1,
        state: if failed.is_some() { Outcome::Failed } else { Outcome::Available },
        counter: bundle.counter,
        sha256: bundle.sha256.clone(),
        detail: failed.map(chain_of),
    };
    let mut hooks = Hooks {
        wait: &mut |until| {
            std::thread::sleep(until.remaining());
            Ok(())
        },
        progress: &mut |progress| {
            if let Progress::Waiting { attempts: [attempt, ..], .. } = progress {
                say(&attempt.to_string());
            }
        },
    };
    Ok(Retrieval::new([url], context).report(&report, &mut hooks, deadline)?)
}

/// What went wrong, as on the console, and short enough for the server.
fn chain_of(error: &UseError) -> String {
    let mut text = chain(error);
    text.truncate(text.floor_char_boundary(DETAIL));
    text
}
