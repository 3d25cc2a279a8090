//! The server's TLS configuration and certificate, renewed when it is due, also while the server runs. A client may show a
//! certificate of this CA; only `simplereenroll` requires it. Never decides what a client gets.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imprint::payload::UrlHost;
use imprint::time::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::metrics::{self, Metrics};
use super::{Clock, ServeError};
use crate::ca::{Ca, ServerIdentity, StateError};

/// The current configuration, and the values for making a new one.
pub(super) struct Tls {
    dir: PathBuf,
    hosts: Vec<UrlHost>,
    clock: Clock,
    metrics: Arc<Metrics>,
    current: Mutex<Current>,
}

struct Current {
    ca: Ca,
    config: Arc<ServerConfig>,
    /// The time during which this configuration is used.
    good: Range<Timestamp>,
    /// The answer to cacerts, DER.
    ca_certs: Arc<[u8]>,
}

impl Tls {
    pub(super) fn new(
        dir: &Path,
        hosts: Vec<UrlHost>,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> Result<Tls, ServeError> {
        let current = Mutex::new(load(dir, &hosts, &clock, metrics)?);
        Ok(Tls { dir: dir.to_owned(), hosts, clock, metrics: metrics.clone(), current })
    }

    /// TLS and the answer to cacerts, for one connection. If renewal fails, the old ones are used, and the next connection
    /// tries again.
    pub(super) fn current(&self) -> (TlsAcceptor, Arc<[u8]>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !current.good.contains(&(self.clock)()) || current.ca.is_outdated() {
            match load(&self.dir, &self.hosts, &self.clock, &self.metrics) {
                Ok(renewed) => *current = renewed,
                Err(error) => {
                    tracing::error!("renewing the server certificate: {}", imprint::chain::chain(&error));
                }
            }
        }
        (TlsAcceptor::from(current.config.clone()), current.ca_certs.clone())
    }
}

fn load(dir: &Path, hosts: &[UrlHost], clock: &Clock, metrics: &Metrics) -> Result<Current, ServeError> {
    let now = clock();
    let ca = Ca::open(dir)?;
    let identity = ca.server_identity(hosts, now)?;
    let mut roots = RootCertStore::empty();
    // The intermediates are trust anchors, too: many clients send their certificate without its chain, and some send one
    // only if the server names its issuer (RFC 8446 §4.2.4).
    for authority in ca.certificates(now) {
        roots.add(CertificateDer::from(authority)).map_err(ServeError::Tls)?;
    }
    if identity.renewed {
        tracing::info!("made a server certificate, to be renewed from {}", identity.renew_at);
    }
    let ServerIdentity { chain, key, not_before, not_after, renew_at, .. } = identity;
    metrics.server_not_after.set(metrics::seconds(not_after));
    metrics.intermediate_not_after.set(metrics::seconds(ca.current().not_after()));
    // The provider lists X25519MLKEM768 first, so that recorded traffic stays secret from quantum computers. TLS 1.2 is for
    // EST clients other than imprint.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| ServeError::Tls(rustls::Error::General(error.to_string())))?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Now(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
        .map_err(ServeError::Tls)?;
    // A node connects once and never resumes a session, so no sessions are kept.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let ca_certs = crate::est::certs_only(&ca.certificates(now)).map_err(|error| StateError::X509(error.into()))?;
    Ok(Current { ca, config: Arc::new(config), good: not_before..renew_at, ca_certs: ca_certs.into() })
}

/// The server's clock, for checking the validity of client certificates.
struct Now(Clock);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs((self.0)().as_secs())))
    }
}

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Now").finish_non_exhaustive()
    }
}
