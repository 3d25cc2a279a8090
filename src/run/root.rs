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
use crate::payload::HostName;
use crate::retrieval::Context;
use crate::source;
use crate::status::{Node, NodeNetwork, RootStatus};
use crate::time::{Clock, Timestamp};
use crate::tls::ClientCertificate;

/// The digest that the image has to have. A payload may be signed, and the kernel command line is not, so neither goes before the
/// other.
fn digest(options: &Options, node: &Node, directory: &Path) -> Result<[u8; 32], Error> {
    let damaged =
        || HandoverError::Damaged { path: directory.join("node.json"), why: "root_sha256 is no digest".to_owned() };
    let of_payload = node.root_sha256.as_ref().map(|text| hex::decode(text).and_then(|bytes| bytes.try_into().ok()));
    let of_payload = of_payload.map(|digest| digest.ok_or_else(damaged)).transpose()?;
    match (of_payload, options.root_sha256) {
        (Some(payload), Some(word)) if payload != word => Err(OptionsError::RootDiffers { payload }.into()),
        (one, other) => Ok(one.or(other).ok_or(OptionsError::NoRootDigest)?),
    }
}

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
    let directory = machine.join(RUN_DIR);
    let _folder = Folder::open(&directory)?;
    let HandedOver { node, chain: certificates, ca, key } = handover::read(&directory)?;
    let sha256 = digest(&options, &node, &directory)?;
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
        hostname: node.hostname.as_deref().and_then(|name| HostName::try_from(name).ok()),
        client_id: node.network.as_ref().and_then(NodeNetwork::dhcp_client_id),
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
