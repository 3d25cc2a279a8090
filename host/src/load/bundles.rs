//! What a stateless node does after its check-in, with the agent's own code: fetch its bundle, verify and open it, and report. Applies
//! nothing.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use imprint::age::Identity;
use imprint::bundle::answer::{Outcome, Report};
use imprint::bundle::{self, Expect};
use imprint::checkin::Issued;
use imprint::payload::signed::Signer;
use imprint::payload::{EstUrl, NodeName};
use imprint::plan::Server;
use imprint::retrieval::{Context, Got, Hooks, Retrieval};
use imprint::time::{Deadline, Timestamp};
use imprint::tls::ClientCertificate;

use super::LoadError;
use crate::bundles::{self, BundleError, Content, Source};
use crate::state::{self, State};

/// What a node knows about its bundle from its payload.
pub(super) struct Terms {
    node: NodeName,
    identity: Identity,
    signers: Arc<Vec<Signer>>,
}

/// What a record says to have a bundle.
pub(super) const RECORD: &str = "bundle_key = \"payload\"\n";

/// Makes a bundle of typical content for each node.
pub(super) fn prepare(state: &mut State, nodes: &[String], now: Timestamp) -> Result<Vec<Terms>, LoadError> {
    let failed = |error: BundleError| LoadError::Bundle(Box::new(error));
    let contents = nodes.iter().map(|node| Ok((node.clone(), Source::Content(typical(node)?))));
    let contents = contents.collect::<Result<Vec<_>, BundleError>>().map_err(failed)?;
    bundles::make_all(state, contents, now).map_err(failed)?;
    let signers = state.ca.signers().map_err(|error| LoadError::State(error.into()))?;
    let signers: Arc<Vec<Signer>> = Arc::new(signers.into_iter().map(|(signer, _)| signer).collect());
    let store = |error| LoadError::State(state::Error::Store(error));
    let changes = state.store.changes().map_err(store)?;
    let mut all = Vec::with_capacity(nodes.len());
    for node in nodes {
        let identity = bundles::held_key(&changes, node, now).map_err(|error| failed(error.into()))?;
        let name = NodeName::try_from(node.as_str());
        let name = name.map_err(|_| failed(BundleError::NoSuchNode(node.clone())))?;
        all.push(Terms { node: name, identity, signers: signers.clone() });
    }
    Ok(all)
}

/// Host name, two links, time, name servers, keys, a CA and syslog.
fn typical(node: &str) -> Result<Content, BundleError> {
    let key = |user: &str| {
        let digits: String = imprint::hex::encode(&imprint::digest::sha256(user.as_bytes())).chars().take(43).collect();
        format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{digits} {user}@example.org\\n")
    };
    let link = |name: &str, address: &str| {
        format!("[Match]\\nName={name}\\n\\n[Network]\\nAddress={address}/24\\nGateway=192.0.2.1\\nDNS=192.0.2.53\\n")
    };
    let ca = imprint::hex::encode(&imprint::digest::sha256(b"CA")).repeat(8);
    let files = [
        ("etc/hostname", format!("{node}\\n")),
        ("etc/systemd/network/60-imprint-eth0.network", link("eth0", "192.0.2.10")),
        ("etc/systemd/network/60-imprint-eth1.network", link("eth1", "198.51.100.10")),
        ("etc/systemd/timesyncd.conf.d/60-imprint.conf", "[Time]\\nNTP=192.0.2.123\\n".to_owned()),
        ("etc/ssh/authorized_keys.d/root", [key("alice"), key("bob")].concat()),
        ("etc/ssl/certs/site.pem", format!("-----BEGIN CERTIFICATE-----\\n{ca}\\n-----END CERTIFICATE-----\\n")),
        ("etc/rsyslog.d/60-imprint.conf", "*.* @@syslog.example.org:6514\\n".to_owned()),
    ];
    let file = |(path, text): &(&str, String)| format!("[[file]]\npath = \"{path}\"\ntext = \"{text}\"\n");
    let text = format!("restart = [\"systemd-networkd.service\"]\n{}", files.iter().map(file).collect::<String>());
    Ok(Content::of_toml("bundle", &text, Path::new(""))?)
}

/// The rest of a boot, up to the report.
pub(super) fn become_available(
    terms: &Terms,
    server: &Server,
    (issued, key): (&Issued, &[u8]),
    user_agent: &str,
    waits: &mut dyn FnMut(),
    limit: Duration,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = ClientCertificate::new(issued.chain(), key)?;
    let urls = server.urls.iter().filter_map(|url| match url {
        EstUrl::Https(url) => Some(url.for_bundles()),
        EstUrl::Line => None,
    });
    let context = Context { ca: &server.ca, client: &client, clock: issued.clock(), user_agent };
    let mut retrieval = Retrieval::new(urls, context);
    let mut wait = |until: Deadline| {
        waits();
        std::thread::sleep(until.remaining());
        Ok(())
    };
    let mut hooks = Hooks { wait: &mut wait, progress: &mut |_| () };
    let deadline = Deadline::after(limit);
    let sealed = match retrieval.bundle(None, &mut hooks, deadline)? {
        Got::Sealed(sealed) => sealed,
        Got::Stands(..) => return Err("the server has no bundle for the node".into()),
    };
    let expect = Expect { node: &terms.node, least: 1, signers: &terms.signers };
    let (statement, _) = bundle::open(&sealed, &expect, &terms.identity)?;
    let report = Report::new(Outcome::Available, statement.counter, &statement.sha256);
    retrieval.report(&report, &mut hooks, deadline)?;
    Ok(())
}
