//! Verifies a server's certificate for a given time or interval. Never opens a connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::error::{Reason, Refused};
use super::remembered::{Remembered, Remembering};
use crate::certificate::{CertificateFacts, anchors, odd_key, oddity, words};
use crate::order;
use crate::payload::{CaCertificate, UrlHost};
use crate::time::{Clock, Timestamp};

/// How far in the future a certificate's validity may begin. The clocks of CAs and nodes differ.
pub const SKEW: Duration = Duration::from_secs(5 * 60);

/// The most certificates that a server may send besides its own.
const MAX_INTERMEDIATES: usize = 8;

/// When the server's certificate and each certificate between it and the CA have to be valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    /// All at the same moment, somewhere from the first time to the last. For a probe, which carries no secret (design:
    /// clock).
    Within((Timestamp, Timestamp)),
    /// Now; their validity may begin up to [`SKEW`] later.
    Now(Clock),
}

impl When {
    /// The first and the last moment that count.
    fn window(self) -> (Timestamp, Timestamp) {
        match self {
            When::Within(life) => life,
            When::Now(clock) => (clock.now(), clock.now().plus(SKEW)),
        }
    }
}

/// The time for rustls itself. [`Verifier`] does not use it: it uses [`When`].
#[derive(Debug)]
pub(super) struct Now(pub(super) When);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.0.window().0))
    }
}

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs()))
}

/// Checks the same as rustls' own verifier, with the same functions: path to the anchor, purpose, name, signatures. It
/// also chooses the moment of the check, checks the anchor's own validity (webpki does not), and keeps the refused
/// certificate for the error message.
#[derive(Debug)]
pub(super) struct Verifier {
    roots: RootCertStore,
    ca: CaCertificate,
    host: String,
    when: When,
    provider: Arc<CryptoProvider>,
    /// Verified signatures of the chain, for later verifications of the same chain.
    good: Remembered,
    refused: OnceLock<Refused>,
}

impl Verifier {
    pub(super) fn new(
        ca: &CaCertificate,
        host: &UrlHost,
        when: When,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca.der()))?;
        let provider = Arc::clone(provider);
        let (ca, host, refused) = (ca.clone(), host.to_string(), OnceLock::new());
        Ok(Verifier { roots, ca, host, when, provider, good: Remembered::default(), refused })
    }

    /// The certificate that the handshake refused, for the error message.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused.get().cloned()
    }

    /// Verifies the chain, leaf first, again: now.
    pub(super) fn confirm(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        clock: Clock,
    ) -> Result<(), Box<Refused>> {
        let (leaf, intermediates) = match chain {
            [leaf, intermediates @ ..] => (leaf, intermediates),
            [] => (&CertificateDer::from_slice(&[]), chain),
        };
        self.looked_at(leaf, intermediates, name, When::Now(clock)).map_err(|refused| Box::new(refused.1))
    }

    fn looked_at(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        when: When,
    ) -> Result<(), Box<(rustls::Error, Refused)>> {
        self.verify(leaf, intermediates, name, when).map_err(|error| {
            let certificate = CertificateFacts::of(leaf);
            let reason = self.reason(leaf, intermediates, certificate.as_ref(), &error, when);
            Box::new((error, Refused { certificate, ca: self.ca.subject().to_owned(), reason }))
        })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        when: When,
    ) -> Result<(), rustls::Error> {
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(rustls::Error::General(format!("the server sends more than {MAX_INTERMEDIATES} certificates")));
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        let (from, to) = when.window();
        let (from, to) = (from.max(self.ca.not_before()), to.min(self.ca.not_after()));
        if from > to {
            return Err(CertificateError::Expired.into());
        }
        let algorithms: Vec<Remembering<'_>> = self
            .provider
            .signature_verification_algorithms
            .all
            .iter()
            .map(|algorithm| Remembering { algorithm: *algorithm, good: &self.good })
            .collect();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            algorithms.iter().map(|algorithm| -> &dyn SignatureVerificationAlgorithm { algorithm }).collect();
        let path = |roots: &RootCertStore| {
            let mut last = Err(CertificateError::Expired.into());
            for moment in moments(from, to, leaf, intermediates) {
                last =
                    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, unix(moment), &algorithms);
                if last.is_ok() {
                    break;
                }
            }
            last
        };
        path(&self.roots).or_else(|error| {
            let chain = std::iter::once(leaf).chain(intermediates).map(AsRef::as_ref);
            match anchors(self.ca.der(), chain) {
                // A certificate writes the CA's name in another encoding of the same text.
                Ok(roots) if roots.len() > 1 => path(&RootCertStore { roots }),
                _ => Err(error),
            }
        })?;
        verify_server_name(&parsed, name)
    }

    /// Turns rustls' error into this program's reason.
    fn reason(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        certificate: Option<&CertificateFacts>,
        error: &rustls::Error,
        when: When,
    ) -> Reason {
        let (from, to) = when.window();
        let rustls::Error::InvalidCertificate(error) = error else { return Reason::Other(error.to_string()) };
        match error {
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
                match when {
                    When::Within((from, to)) => Reason::NeverWithin(from, to),
                    When::Now(_) => Reason::NotNow(from),
                }
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Reason::Purpose,
            other => {
                let chain = std::iter::once(leaf).chain(intermediates).map(AsRef::as_ref);
                match (oddity(chain, self.ca.der()), other) {
                    (Some(oddity), _) => Reason::Odd(oddity),
                    (None, CertificateError::UnknownIssuer | CertificateError::BadSignature) => Reason::OtherCa,
                    (None, other) => Reason::Other(in_words(other).to_owned()),
                }
            }
        }
    }

    /// Handles the result of a handshake signature, which proves that the server has the key of its certificate. If it
    /// fails and the key is of an unsupported kind, keeps that reason for the error message.
    fn proved(
        &self,
        check: SignatureCheck,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check(message, leaf, signature, &self.provider.signature_verification_algorithms).inspect_err(|_| {
            if let Some(oddity) = odd_key(leaf) {
                let (certificate, ca) = (CertificateFacts::of(leaf), self.ca.subject().to_owned());
                drop(self.refused.set(Refused { certificate, ca, reason: Reason::Odd(oddity) }));
            }
        })
    }
}

/// rustls' check of a signature, of TLS 1.2 or of TLS 1.3.
type SignatureCheck = fn(
    &[u8],
    &CertificateDer<'_>,
    &DigitallySignedStruct,
    &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error>;

/// This program's words for an error of webpki that rustls has wrapped.
fn in_words(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::BadEncoding => words(&webpki::Error::BadDer),
        CertificateError::UnhandledCriticalExtension => words(&webpki::Error::UnsupportedCriticalExtension),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its signature algorithm is not accepted"
        }
        CertificateError::Other(OtherError(error)) => match error.downcast_ref::<webpki::Error>() {
            Some(error) => words(error),
            None => words(&webpki::Error::MalformedExtensions),
        },
        _ => "it breaks a rule of RFC 5280",
    }
}

/// The moments that have to be tried. If a path is valid at any moment of the interval, it is valid at the earliest
/// moment at which all its certificates have begun. That moment is the beginning of the interval or of a certificate.
/// The beginning of the interval nearly always works, so the certificates are parsed for the other moments only if it
/// fails.
pub(crate) fn moments<'a>(
    from: Timestamp,
    to: Timestamp,
    leaf: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
) -> impl Iterator<Item = Timestamp> + 'a {
    let later = move || {
        let all = std::iter::once(leaf).chain(intermediates);
        let mut begins: Vec<Timestamp> =
            all.filter_map(|der| CertificateFacts::of(der)).map(|facts| facts.not_before).collect();
        begins.retain(|moment| from < *moment && *moment <= to);
        order::sort(&mut begins, |one, other| one < other);
        begins.dedup();
        begins
    };
    std::iter::once(from).chain(std::iter::once_with(later).flatten())
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
        match self.looked_at(leaf, intermediates, name, self.when) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(found) => {
                let (error, refused) = *found;
                // Never set before: a connection has only one handshake.
                drop(self.refused.set(refused));
                Err(error)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.proved(rustls::crypto::verify_tls12_signature, message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.proved(rustls::crypto::verify_tls13_signature, message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
