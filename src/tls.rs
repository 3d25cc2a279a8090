//! TLS with one trust anchor, the CA of the payload. System roots do not exist here, and nothing turns verification
//! off; the one thing that varies is *when* the server's certificate has to be valid.
//!
//! A connection has a type by that. One that [`probe`] makes is [`Tentative`]: the server's certificate was valid at some
//! moment of an interval. One that [`connect`] makes, or [`Connection::confirm`] of a tentative one, is [`Strict`]: the
//! certificate is valid now. Only the latter may carry a secret; `checkin` has no other way to send one.

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

/// The server's certificate was valid at some moment of an interval. Whether it is valid now, nobody has looked yet.
pub struct Tentative {
    verifier: Arc<Verifier>,
    name: ServerName<'static>,
}

/// The server's certificate is valid now.
pub struct Strict(());

/// What a client proves itself with, where a server asks for that.
#[derive(Clone, Debug)]
pub struct ClientCertificate(Arc<SingleCertAndKey>);

impl ClientCertificate {
    /// The chain, DER, leaf first, and the leaf's private key, PKCS#8. The error says what is wrong with the key.
    pub fn new(chain: &[Vec<u8>], pkcs8: &[u8]) -> Result<ClientCertificate, rustls::Error> {
        let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        // By reference, so that there is no copy of the key that nobody wipes.
        let key = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)))?;
        Ok(ClientCertificate(Arc::new(CertifiedKey::new(chain, key).into())))
    }
}

/// Makes a connection over `stream` to a server that proves to be `host` by a certificate from `ca`. That, and each one
/// between it and the CA, was valid at one moment from the first of `life` to the second. The client shows no certificate.
pub fn probe<S: Read + Write>(
    stream: S,
    host: &UrlHost,
    ca: &CaCertificate,
    life: (Timestamp, Timestamp),
) -> Result<Connection<S, Tentative>, TlsError> {
    let (wire, server, trust) = establish(stream, host, ca, When::Within(life), None)?;
    Ok(Connection { wire, server, trust })
}

/// The same to a server whose certificate is valid now; it may begin up to [`SKEW`] later.
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
    // Named here, not left to a default: recorded traffic stays secret from a later quantum computer.
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
    // Each connection is made once. No ALPN: there is only HTTP/1.1 to speak, and some EST servers dislike it.
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

/// A server that broke off while this end was still sending said why; the failed write hides it.
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
    /// Verifies the chain that the server showed in the handshake once more, as [`connect`] does it: now, and for the
    /// same name. That the server has the key of its certificate, the handshake has proved, whatever time it is.
    pub fn confirm(self, clock: Clock) -> Result<Connection<S, Strict>, Box<Refused>> {
        let Connection { wire, server, trust: Tentative { verifier, name } } = self;
        let chain = wire.0.conn.peer_certificates().unwrap_or_default();
        verifier.confirm(chain, &name, clock)?;
        Ok(Connection { wire, server, trust: Strict(()) })
    }
}

impl<S: Read + Write, T> Connection<S, T> {
    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let stream = &mut self.wire.0;
        stream.write_all(bytes).and_then(|()| stream.flush()).map_err(TlsError::from)
    }

    /// Some bytes; 0 once the server has closed the connection, with or without saying so: a message whose end
    /// matters has an end of its own.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TlsError> {
        match self.wire.0.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other.map_err(TlsError::from),
        }
    }

    /// What the connection goes over.
    pub fn transport(&mut self) -> &mut S {
        &mut self.wire.0.sock
    }
}

/// Says goodbye when it is dropped.
struct Wire<S: Read + Write>(StreamOwned<ClientConnection, S>);

impl<S: Read + Write> Drop for Wire<S> {
    fn drop(&mut self) {
        self.0.conn.send_close_notify();
        // Nothing depends on it: every message has an end of its own. A server that has gone already is no error.
        let _ = self.0.conn.write_tls(&mut self.0.sock);
    }
}
