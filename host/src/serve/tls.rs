//! The server's TLS: its certificate, made anew when it is due, also while the server runs. No client certificates.

use std::sync::{Arc, Mutex, PoisonError};

use imprint::time::Timestamp;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::{ServeError, Shared};
use crate::ca::ServerIdentity;

/// The current configuration, and until when it is.
pub(super) struct Tls {
    current: Mutex<(Arc<ServerConfig>, Timestamp)>,
}

impl Tls {
    pub(super) fn new(shared: &Shared) -> Result<Tls, ServeError> {
        Ok(Tls { current: Mutex::new(load(shared)?) })
    }

    /// For one connection. When renewal fails, what there is will do until the next one.
    pub(super) fn acceptor(&self, shared: &Shared) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if (shared.clock)() >= current.1 {
            match load(shared) {
                Ok(renewed) => *current = renewed,
                Err(error) => tracing::error!("renewing the server certificate: {error}"),
            }
        }
        TlsAcceptor::from(current.0.clone())
    }
}

fn load(shared: &Shared) -> Result<(Arc<ServerConfig>, Timestamp), ServeError> {
    let now = (shared.clock)();
    let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let identity = state.ca.server_identity(&state.hosts(), now)?;
    drop(state);
    if identity.renewed {
        tracing::info!("made a server certificate, to be renewed from {}", identity.renew_at);
    }
    let ServerIdentity { chain, key, renew_at, .. } = identity;
    // The provider lists X25519MLKEM768 first: recorded traffic stays secret. TLS 1.2 is for other people's clients.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(ServeError::Tls)?;
    Ok((Arc::new(config), renew_at))
}
