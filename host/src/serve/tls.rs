//! The server's TLS: its certificate, made anew when it is due, also while the server runs. A client may prove that it
//! has a certificate of ours, which `simplereenroll` asks for; nobody has to.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imprint::time::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::{Clock, ServeError, Shared};
use crate::ca::ServerIdentity;

/// The current configuration, and when it is.
pub(super) struct Tls {
    current: Mutex<(Arc<ServerConfig>, Range<Timestamp>)>,
}

impl Tls {
    pub(super) fn new(shared: &Shared) -> Result<Tls, ServeError> {
        Ok(Tls { current: Mutex::new(load(shared)?) })
    }

    /// For one connection. When renewal fails, what there is will do until the next one.
    pub(super) fn acceptor(&self, shared: &Shared) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !current.1.contains(&(shared.clock)()) {
            match load(shared) {
                Ok(renewed) => *current = renewed,
                Err(error) => tracing::error!("renewing the server certificate: {error}"),
            }
        }
        TlsAcceptor::from(current.0.clone())
    }
}

fn load(shared: &Shared) -> Result<(Arc<ServerConfig>, Range<Timestamp>), ServeError> {
    let now = (shared.clock)();
    let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let identity = state.ca.server_identity(&state.hosts(), now)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(state.ca.root().der())).map_err(ServeError::Tls)?;
    drop(state);
    if identity.renewed {
        tracing::info!("made a server certificate, to be renewed from {}", identity.renew_at);
    }
    let ServerIdentity { chain, key, not_before, renew_at, .. } = identity;
    // The provider lists X25519MLKEM768 first: recorded traffic stays secret. TLS 1.2 is for other people's clients.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| ServeError::Tls(rustls::Error::General(error.to_string())))?;
    let config = ServerConfig::builder_with_details(provider, Arc::new(Now(shared.clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
        .map_err(ServeError::Tls)?;
    Ok((Arc::new(config), not_before..renew_at))
}

/// The server's clock, for the validity of client certificates.
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
