//! `imprint root`: mounts the root that `root=imprint:` names, behind the hand-over. Brings the words of the kernel command line and
//! the identity to `crate::netroot`. Never makes an identity, and does nothing where the root comes from elsewhere.

use std::path::Path;

use super::RUN_DIR;
use super::apply::amend;
use crate::chain::chain;
use crate::console::say;
use crate::error::Error;
use crate::handover::{self, Folder, HandedOver, HandoverError};
use crate::hex;
use crate::netroot::{self, Wanted};
use crate::options::{Mode, Options, OptionsError};
use crate::retrieval::Context;
use crate::source;
use crate::status::RootStatus;
use crate::time::{Clock, Timestamp};
use crate::tls::ClientCertificate;

/// Mounts the root at `to`.
pub fn root(machine: &Path, to: &Path) -> Result<(), Error> {
    let cmdline = source::cmdline::text(machine)?;
    let options = Options::with_image(&source::cmdline::of_image(machine)?, &cmdline)?;
    if options.mode == Mode::Off {
        return Err(OptionsError::RootOff.into());
    }
    if options.root_image.is_empty() {
        say("root=imprint: is not on the kernel command line, nothing to do");
        return Ok(());
    }
    let sha256 = options.root_sha256.ok_or(OptionsError::NoRootDigest)?;
    let directory = machine.join(RUN_DIR);
    let _folder = Folder::open(&directory)?;
    let HandedOver { chain: certificates, ca, key, .. } = handover::read(&directory)?;
    let client = ClientCertificate::new(&certificates, key.expose()).map_err(|error| HandoverError::Damaged {
        path: directory.join("private/key.pem"),
        why: format!("{error}; it does not fit chain.pem"),
    })?;
    let user_agent = format!("imprint/{} (root)", env!("CARGO_PKG_VERSION"));
    // The boot has set the system clock by the server's.
    let clock = Clock::starting_at(Timestamp::system());
    let wanted = Wanted {
        machine,
        directory: &directory,
        urls: &options.root_image,
        sha256,
        patience: options.timeout,
        context: Context { ca: &ca, client: &client, clock, user_agent: &user_agent },
        say: &say,
    };
    let mounted = netroot::mount(&wanted, to);
    let (url, error) = match &mounted {
        Ok(Some(mounted)) => (Some(mounted.url.to_string()), None),
        Ok(None) => (None, None),
        Err(error) => (None, Some(chain(error))),
    };
    if !matches!(mounted, Ok(None)) {
        let record = RootStatus { sha256: hex::encode(&sha256), url, error };
        amend(machine, |status| status.root = Some(record));
    }
    say(&match mounted? {
        Some(mounted) => format!("the root is at {}: {mounted}, SHA-256 as it has to be", to.display()),
        None => format!("the root is at {} already, nothing to do", to.display()),
    });
    Ok(())
}
