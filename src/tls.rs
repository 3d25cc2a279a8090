//! TLS with one trust anchor, the CA of the payload. System roots do not exist here, and nothing turns verification
//! off; the one thing that varies is *when* the server's certificate has to be valid.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup,
    RootCertStore, SignatureScheme, StreamOwned,
};

use crate::certificate::CertificateFacts;
use crate::payload::{CaCertificate, UrlHost};
use crate::shown::Printable;
use crate::time::{Clock, Timestamp};

/// How far a certificate's beginning may lie in the future: CAs and nodes do not agree on the second.
pub const SKEW: Duration = Duration::from_secs(5 * 60);

/// The most certificates that a server may send besides its own.
const MAX_INTERMEDIATES: usize = 8;

/// When the server's certificate, and each one between it and the CA, has to be valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At some moment of this interval, all at the same one. For a probe, which carries no secret (design: clock).
    Within {
        /// First moment.
        from: Timestamp,
        /// Last moment.
        to: Timestamp,
    },
    /// Now; they may begin up to [`SKEW`] later.
    Now(Clock),
}

/// An established connection.
pub struct Connection<S: Read + Write> {
    stream: StreamOwned<ClientConnection, S>,
    /// The server's own certificate, verified.
    pub server: CertificateFacts,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum TlsError {
    /// The server's certificate was refused.
    Refused(Box<Refused>),
    /// The server broke off, or speaks no TLS that this program speaks.
    Protocol(rustls::Error),
    /// The transport failed.
    Io(io::Error),
}

/// A server certificate, and why it was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The certificate as it describes itself; `None` when it cannot be read.
    pub certificate: Option<CertificateFacts>,
    /// Subject of the CA in the payload.
    pub ca: Printable,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a server's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It does not chain to the CA in the payload.
    OtherCa,
    /// It is for another name than the URL's.
    OtherName(String),
    /// It is not valid now.
    NotNow(Timestamp),
    /// It is valid at no moment of the payload's life.
    NeverWithin(Timestamp, Timestamp),
    /// One of the certificates that it chains through is not valid then.
    IntermediateValidity,
    /// The CA in the payload itself is not valid then.
    CaValidity(Timestamp, Timestamp),
    /// It is not for servers.
    Purpose,
    /// Anything else, in the words of the library.
    Other(String),
}

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

/// Makes a connection over `stream` to a server that proves to be `host` by a certificate from `ca`, valid `when`.
pub fn connect<S: Read + Write>(
    mut stream: S,
    host: &UrlHost,
    ca: &CaCertificate,
    when: When,
    client: Option<&ClientCertificate>,
) -> Result<Connection<S>, TlsError> {
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
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(TlsError::Protocol)?;
    while client.is_handshaking() {
        client.complete_io(&mut stream).map_err(|error| match verifier.refused.get() {
            Some(refused) => TlsError::Refused(Box::new(refused.clone())),
            None => last_words(&error, &mut client, &mut stream).unwrap_or_else(|| TlsError::from(error)),
        })?;
    }
    let server = client.peer_certificates().and_then(<[_]>::first).and_then(|leaf| CertificateFacts::of(leaf));
    let server = server.ok_or(TlsError::Protocol(rustls::Error::NoCertificatesPresented))?;
    Ok(Connection { stream: StreamOwned::new(client, stream), server })
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

impl<S: Read + Write> Connection<S> {
    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).map_err(TlsError::from)
    }

    /// Some bytes; 0 once the server has closed the connection, with or without saying so: a message whose end
    /// matters has an end of its own.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TlsError> {
        match self.stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other.map_err(TlsError::from),
        }
    }

    /// Says goodbye, and gives what the server's certificate says. A server that has gone already is no error.
    pub fn close(mut self) -> CertificateFacts {
        self.stream.conn.send_close_notify();
        // Nothing depends on it: every message was whole.
        let _ = self.stream.conn.write_tls(&mut self.stream.sock);
        self.server
    }

    /// The key exchange that was agreed on.
    pub fn key_exchange(&self) -> Option<NamedGroup> {
        self.stream.conn.negotiated_key_exchange_group().map(|group| group.name())
    }
}

/// What a server says of a client certificate that it does not take (RFC 8446 §6.2).
pub fn about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

/// What rustls is told the time is. The verifier below looks at [`When`] itself.
#[derive(Debug)]
struct Now(When);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(match self.0 {
            When::Within { from, .. } => unix(from),
            When::Now(clock) => unix(clock.now()),
        })
    }
}

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs()))
}

/// Checks what rustls' own verifier checks, with the same functions: path to the anchor, purpose, name, signatures.
/// Beyond that it chooses the moment of the check, checks the anchor's own validity (webpki does not), and keeps what
/// it refused for the error message, which an alert cannot carry.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    ca: CaCertificate,
    host: String,
    when: When,
    provider: Arc<CryptoProvider>,
    refused: OnceLock<Refused>,
}

impl Verifier {
    fn new(
        ca: &CaCertificate,
        host: &UrlHost,
        when: When,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca.der()))?;
        let provider = Arc::clone(provider);
        let (ca, host, refused) = (ca.clone(), host.to_string(), OnceLock::new());
        Ok(Verifier { roots, ca, host, when, provider, refused })
    }

    /// The moments in question.
    fn window(&self) -> (Timestamp, Timestamp) {
        match self.when {
            When::Within { from, to } => (from, to),
            When::Now(clock) => (clock.now(), clock.now().plus(SKEW)),
        }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), rustls::Error> {
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(rustls::Error::General(format!("the server sends more than {MAX_INTERMEDIATES} certificates")));
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        let (from, to) = self.window();
        let (from, to) = (from.max(self.ca.not_before()), to.min(self.ca.not_after()));
        if from > to {
            return Err(CertificateError::Expired.into());
        }
        let mut last = Err(CertificateError::Expired.into());
        for moment in moments(from, to, leaf, intermediates) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            last = verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                unix(moment),
                algorithms,
            );
            if last.is_ok() {
                break;
            }
        }
        last?;
        verify_server_name(&parsed, name)
    }

    /// The same error in the words of this program.
    fn reason(&self, certificate: Option<&CertificateFacts>, error: &rustls::Error) -> Reason {
        let (from, to) = self.window();
        let rustls::Error::InvalidCertificate(error) = error else { return Reason::Other(error.to_string()) };
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Reason::OtherCa,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Reason::OtherName(self.host.clone())
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                let inside = |not_before, not_after| not_before <= to && from <= not_after;
                if !inside(self.ca.not_before(), self.ca.not_after()) {
                    return Reason::CaValidity(self.ca.not_before(), self.ca.not_after());
                }
                if certificate.is_some_and(|c| inside(c.not_before, c.not_after)) {
                    return Reason::IntermediateValidity;
                }
                match self.when {
                    When::Within { from, to } => Reason::NeverWithin(from, to),
                    When::Now(_) => Reason::NotNow(from),
                }
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Reason::Purpose,
            other => Reason::Other(other.to_string()),
        }
    }
}

/// The moments that have to be tried. A path that is valid at some moment of the interval is valid at the first one at
/// which all of its certificates have begun: the interval's own beginning, or that of a certificate.
pub(crate) fn moments(
    from: Timestamp,
    to: Timestamp,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Vec<Timestamp> {
    let mut moments = vec![from];
    let all = std::iter::once(leaf).chain(intermediates);
    moments.extend(all.filter_map(|der| CertificateFacts::of(der)).map(|facts| facts.not_before));
    moments.retain(|moment| (from..=to).contains(moment));
    moments.sort_unstable();
    moments.dedup();
    moments
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, name).map(|()| ServerCertVerified::assertion()).inspect_err(|error| {
            let certificate = CertificateFacts::of(leaf);
            let reason = self.reason(certificate.as_ref(), error);
            // Set once: a connection has one handshake.
            drop(self.refused.set(Refused { certificate, ca: self.ca.subject().to_owned(), reason }));
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// rustls hides its own errors in I/O errors.
impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> TlsError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => TlsError::Protocol(inner.clone()),
            None => TlsError::Io(error),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Refused(refused) => refused.fmt(f),
            TlsError::Protocol(rustls::Error::InvalidMessage(_)) => {
                f.write_str("the server does not speak TLS; check host and port of the URL")
            }
            TlsError::Protocol(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => f.write_str(
                "the server insists on a client certificate, which a node shows at a renewal only, and never to fetch \
                 the CA certificates; let the server ask for one without insisting",
            ),
            TlsError::Protocol(rustls::Error::AlertReceived(alert)) if about_certificates(*alert) => {
                f.write_str("the server does not take this node's certificate")
            }
            TlsError::Protocol(rustls::Error::AlertReceived(_)) => f.write_str("the server broke off the handshake"),
            TlsError::Protocol(_) => f.write_str("TLS failed"),
            TlsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the server closed the connection before TLS was done with it")
            }
            TlsError::Io(_) => f.write_str("the connection failed"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ca = &self.ca;
        match &self.reason {
            Reason::OtherCa => write!(f, "the server's certificate does not chain to this node's CA, \"{ca}\"")?,
            Reason::OtherName(host) => write!(f, "the server's certificate is not for {host}, the name in the URL")?,
            Reason::NotNow(now) => match &self.certificate {
                Some(certificate) if certificate.not_after <= *now => {
                    write!(f, "the server's certificate expired at {}, and it is {now}", certificate.not_after)?;
                }
                Some(certificate) => {
                    write!(f, "the server's certificate begins at {}, and it is {now}", certificate.not_before)?;
                }
                None => write!(f, "the server's certificate is not valid now, at {now}")?,
            },
            Reason::NeverWithin(from, to) => {
                write!(
                    f,
                    "the server's certificate is at no time valid between {from} and {to}, the life of what this node was given"
                )?;
            }
            Reason::IntermediateValidity => {
                f.write_str("the server's certificate chains through one that is not valid at the same time")?;
            }
            Reason::CaValidity(not_before, not_after) => {
                write!(f, "this node's CA, \"{ca}\", is valid from {not_before} until {not_after}, not now")?;
            }
            Reason::Purpose => f.write_str("the server's certificate is not for TLS servers")?,
            Reason::Other(why) => write!(f, "the server's certificate was refused: {why}")?,
        }
        match &self.certificate {
            Some(certificate) => write!(f, " (it is {certificate})")?,
            None => f.write_str(" (it cannot be read)")?,
        }
        f.write_str(match self.reason {
            Reason::OtherCa => "; give the node a payload with this server's CA, or correct its URL",
            Reason::OtherName(_) => "; correct the URL, or give the server a certificate for that name",
            Reason::NotNow(_) | Reason::IntermediateValidity => "; renew the server's certificate",
            Reason::NeverWithin(..) => {
                "; if the payload is old make a new one with imprint-host payload, else renew the server's certificate"
            }
            Reason::CaValidity(..) => "; make a new payload with the CA's current certificate",
            Reason::Purpose => "; give the server a certificate with the extended key usage serverAuth",
            Reason::Other(_) => "",
        })
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsError::Refused(_) | TlsError::Protocol(rustls::Error::InvalidMessage(_)) => None,
            TlsError::Protocol(error) => Some(error),
            TlsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            TlsError::Io(error) => Some(error),
        }
    }
}
