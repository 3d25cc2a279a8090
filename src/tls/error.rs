//! Why a TLS connection failed, with messages that name the remedy. Never decides whether to trust a server.

use std::fmt;
use std::io;

use rustls::AlertDescription;

use crate::certificate::{CertificateFacts, Oddity};
use crate::shown::Printable;
use crate::time::Timestamp;

/// Why a TLS connection failed.
#[derive(Debug)]
pub enum TlsError {
    /// The server's certificate was refused.
    Refused(Box<Refused>),
    /// The server broke off, or it does not speak a TLS version that this program speaks.
    Protocol(rustls::Error),
    /// The transport failed.
    Io(io::Error),
}

/// A server certificate, and why it was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The facts in the certificate, not verified. `None` if the certificate cannot be read.
    pub certificate: Option<CertificateFacts>,
    /// The subject of the payload's CA.
    pub ca: Printable,
    /// Why it was refused.
    pub reason: Reason,
}

/// Why a server's certificate was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The certificate does not chain to the payload's CA.
    OtherCa,
    /// The certificate is not for the name in the URL.
    OtherName(String),
    /// The certificate is not valid now.
    NotNow(Timestamp),
    /// The certificate is valid at no moment of the payload's life.
    NeverWithin(Timestamp, Timestamp),
    /// A certificate between this one and the CA is not valid then.
    IntermediateValidity,
    /// The payload's CA is not valid then; the first and last second of its validity.
    CaValidity(Timestamp, Timestamp),
    /// The certificate is not for TLS servers.
    Purpose,
    /// This program cannot use the certificate, or one between it and the CA.
    Odd(Oddity),
    /// Anything else.
    Other(String),
}

/// Whether the alert means that the server refuses the client certificate (RFC 8446 §6.2).
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

/// rustls wraps its own errors in I/O errors; unwrap them.
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
                f.write_str("the server refuses this node's certificate; its log may say why")
            }
            TlsError::Protocol(rustls::Error::AlertReceived(_)) => {
                f.write_str("the server broke off the TLS handshake; its log may say why")
            }
            TlsError::Protocol(_) => f.write_str("TLS failed"),
            TlsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the server closed the connection during the TLS handshake or before all data was sent")
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
                    write!(f, "the server's certificate expired at {}, and the time is {now}", certificate.not_after)?;
                }
                Some(certificate) => {
                    write!(f, "the server's certificate begins at {}, and the time is {now}", certificate.not_before)?;
                }
                None => write!(f, "the server's certificate is not valid now, at {now}")?,
            },
            Reason::NeverWithin(from, to) => {
                write!(
                    f,
                    "the server's certificate is not valid at any time between {from} and {to}, the life of this \
                     node's payload or certificate"
                )?;
            }
            Reason::IntermediateValidity => {
                f.write_str(
                    "the server's certificate needs an intermediate certificate that is not valid at the same time",
                )?;
            }
            Reason::CaValidity(not_before, not_after) => {
                write!(f, "this node's CA, \"{ca}\", is valid only from {not_before} until {not_after}")?;
            }
            Reason::Purpose => f.write_str("the server's certificate is not for TLS servers")?,
            Reason::Odd(oddity) => write!(f, "the server's certificate cannot be used: {oddity}")?,
            Reason::Other(why) => write!(f, "the server's certificate was refused: {why}")?,
        }
        match &self.certificate {
            Some(certificate) => write!(f, " (the server's certificate: {certificate})")?,
            None => f.write_str(" (the server's certificate cannot be read)")?,
        }
        if let Reason::Odd(oddity) = &self.reason {
            return write!(f, "; {}", oddity.remedy());
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
            Reason::Odd(_) => "",
            Reason::Other(_) => "; give the server a certificate as RFC 5280 has it",
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
