//! TLS with one trust anchor, the CA of the payload. Never uses the system's roots, and nothing can turn verification
//! off. Only one thing varies: *when* the server's certificate has to be valid.
//!
//! The type of a connection says when. [`probe`] makes a [`Tentative`] connection: the server's certificate was valid
//! at some moment of an interval. [`connect`] makes a [`Strict`] connection, and so does [`Connection::confirm`] from a
//! tentative one: the certificate is valid now. Only a strict connection may carry a secret; `checkin` has no other way
//! to send one.

mod error;
mod remembered;
mod verify;

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

pub use error::{Reason, Refused, TlsError, about_certificates};
pub use verify::SKEW;
pub(crate) use verify::moments;

use crate::certificate::CertificateFacts;
use crate::payload::{CaCertificate, UrlHost};
use crate::time::{Clock, Timestamp};
use verify::{Now, Verifier, When};

/// An established connection. `T` says what is known about the server: [`Tentative`] or [`Strict`].
pub struct Connection<S: Read + Write, T> {
    wire: Wire<S>,
    /// The server's own certificate, verified.
    pub server: CertificateFacts,
    trust: T,
}

/// The server's certificate was valid at some moment of an interval. Whether it is valid now has not been checked yet.
pub struct Tentative {
    verifier: Arc<Verifier>,
    name: ServerName<'static>,
}

/// The server's certificate is valid now.
pub struct Strict(());

/// The certificate and key of the client, for servers that ask for a client certificate.
#[derive(Clone, Debug)]
pub struct ClientCertificate(Arc<SingleCertAndKey>);

impl ClientCertificate {
    /// `chain`: DER, leaf first. `pkcs8`: the leaf's private key. The error says what is wrong with the key.
    pub fn new(chain: &[Vec<u8>], pkcs8: &[u8]) -> Result<ClientCertificate, rustls::Error> {
        let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        // By reference: a copy of the key would not be wiped.
        let key = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)))?;
        Ok(ClientCertificate(Arc::new(CertifiedKey::new(chain, key).into())))
    }
}

/// Connects over `stream` to a server that proves with a certificate from `ca` that it is `host`. There must be a
/// moment, from the first time of `life` to the second, at which the whole chain was valid. The client shows no
/// certificate.
pub fn probe<S: Read + Write>(
    stream: S,
    host: &UrlHost,
    ca: &CaCertificate,
    life: (Timestamp, Timestamp),
) -> Result<Connection<S, Tentative>, TlsError> {
    let (wire, server, trust) = establish(stream, host, ca, When::Within(life), None)?;
    Ok(Connection { wire, server, trust })
}

/// Like [`probe`], but the chain must be valid now. A certificate may begin up to [`SKEW`] later.
pub fn connect<S: Read + Write>(
    stream: S,
    host: &UrlHost,
    ca: &CaCertificate,
    clock: Clock,
    client: Option<&ClientCertificate>,
) -> Result<Connection<S, Strict>, TlsError> {
    let (wire, server, _) = establish(stream, host, ca, When::Now(clock), client)?;
    Ok(Connection { wire, server, trust: Strict(()) })
}

fn establish<S: Read + Write>(
    mut stream: S,
    host: &UrlHost,
    ca: &CaCertificate,
    when: When,
    client: Option<&ClientCertificate>,
) -> Result<(Wire<S>, CertificateFacts, Tentative), TlsError> {
    let name = match host {
        UrlHost::Dns(name) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|error| TlsError::Protocol(rustls::Error::General(format!("\"{name}\": {error}"))))?,
        UrlHost::Ip(address) => ServerName::IpAddress((*address).into()),
    };
    let mut provider = aws_lc_rs::default_provider();
    // Set here and not left to a default: with ML-KEM a later quantum computer cannot decrypt recorded traffic.
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    let provider = Arc::new(provider);
    let verifier = Arc::new(Verifier::new(ca, host, when, &provider).map_err(TlsError::Protocol)?);
    let config = ClientConfig::builder_with_details(provider, Arc::new(Now(when)))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>);
    let mut config = match client {
        Some(ClientCertificate(resolver)) => config.with_client_cert_resolver(resolver.clone()),
        None => config.with_no_client_auth(),
    };
    // No resumption: each connection is made once. No ALPN: only HTTP/1.1 is used, and some EST servers fail on ALPN.
    config.resumption = Resumption::disabled();
    let mut client = ClientConnection::new(Arc::new(config), name.clone()).map_err(TlsError::Protocol)?;
    while client.is_handshaking() {
        client.complete_io(&mut stream).map_err(|error| match verifier.refused() {
            Some(refused) => TlsError::Refused(Box::new(refused)),
            None => last_words(&error, &mut client, &mut stream).unwrap_or_else(|| TlsError::from(error)),
        })?;
    }
    let server = client.peer_certificates().and_then(<[_]>::first).and_then(|leaf| CertificateFacts::of(leaf));
    let server = server.ok_or(TlsError::Protocol(rustls::Error::NoCertificatesPresented))?;
    Ok((Wire(StreamOwned::new(client, stream)), server, Tentative { verifier, name }))
}

/// When a server breaks off during the handshake, it has often sent an alert with the reason, but our write fails
/// first. Reads the alert.
fn last_words<S: Read + Write>(error: &io::Error, client: &mut ClientConnection, stream: &mut S) -> Option<TlsError> {
    if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
        return None;
    }
    while client.read_tls(stream).is_ok_and(|count| count != 0) {
        if let Err(error) = client.process_new_packets() {
            return Some(TlsError::Protocol(error));
        }
    }
    None
}

impl<S: Read + Write> Connection<S, Tentative> {
    /// Verifies the server's chain again, as [`connect`] does: now, and for the same name. The handshake has already
    /// proved that the server has the key of its certificate; that proof does not depend on the time.
    pub fn confirm(self, clock: Clock) -> Result<Connection<S, Strict>, Box<Refused>> {
        let Connection { wire, server, trust: Tentative { verifier, name } } = self;
        let chain = wire.0.conn.peer_certificates().unwrap_or_default();
        verifier.confirm(chain, &name, clock)?;
        Ok(Connection { wire, server, trust: Strict(()) })
    }
}

impl<S: Read + Write, T> Connection<S, T> {
    /// Sends all bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let stream = &mut self.wire.0;
        stream.write_all(bytes).and_then(|()| stream.flush()).map_err(TlsError::from)
    }

    /// Receives some bytes. 0 means that the server has closed the connection, with or without close_notify. A
    /// truncated message is detected by its own length, not here.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TlsError> {
        match self.wire.0.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other.map_err(TlsError::from),
        }
    }

    /// The transport under the TLS connection.
    pub fn transport(&mut self) -> &mut S {
        &mut self.wire.0.sock
    }
}

/// Sends close_notify when it is dropped.
struct Wire<S: Read + Write>(StreamOwned<ClientConnection, S>);

impl<S: Read + Write> Drop for Wire<S> {
    fn drop(&mut self) {
        self.0.conn.send_close_notify();
        // An error is ignored: every message carries its own length, and the server may have gone already.
        let _ = self.0.conn.write_tls(&mut self.0.sock);
    }
}
