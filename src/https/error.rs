//! Why there is no answer, in words for an operator at the console, and whether another try is of use. Never acts on an
//! error.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::dns::ask::listed;
use crate::http::HttpError;
use crate::payload::DnsName;
use crate::tls::{TlsError, about_certificates};

/// Why a server gave no answer, or none that can be read.
#[derive(Debug)]
pub enum HttpsError {
    /// The name has no address, or none became known in time.
    Resolve(Box<Unresolved>),
    /// No address takes a connection.
    Connect(Vec<(SocketAddr, io::Error)>),
    /// Something did not happen in time.
    TimedOut(Phase),
    /// There is no TLS connection, or it broke.
    Tls(TlsError),
    /// The answer cannot be read.
    Http(HttpError),
    /// Whoever takes the body has stopped the transfer, and knows why.
    Stopped,
}

/// What a server did not do in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Take a connection.
    Connect,
    /// Finish the TLS handshake.
    Handshake,
    /// Answer the request.
    Answer,
}

/// A host name without a known address.
#[derive(Debug)]
pub struct Unresolved {
    /// The name.
    pub name: DnsName,
    /// Whether `/etc/resolv.conf` names a name server.
    pub servers: bool,
    /// Whether a name server has said that there is no address.
    pub answered: bool,
    /// What came of each question: `A est.example.org: 192.0.2.53 says: there is no such name`.
    pub said: Vec<String>,
}

impl Unresolved {
    /// Whether no name server gave an answer that can be used.
    pub fn has_no_answer(&self) -> bool {
        !self.answered
    }
}

impl HttpsError {
    /// Whether the failure is permanent, so that another try is of no use.
    pub fn lasts(&self) -> bool {
        match self {
            HttpsError::Resolve(_) | HttpsError::Connect(_) | HttpsError::TimedOut(_) | HttpsError::Stopped => false,
            HttpsError::Tls(TlsError::Refused(_)) => true,
            // The server speaks another protocol on that port.
            HttpsError::Tls(TlsError::Protocol(rustls::Error::InvalidMessage(_))) => true,
            HttpsError::Tls(TlsError::Protocol(rustls::Error::AlertReceived(alert))) => about_certificates(*alert),
            HttpsError::Tls(_) | HttpsError::Http(HttpError::Truncated { .. }) => false,
            HttpsError::Http(_) => true,
        }
    }

    /// Whether the network may be at fault and not the server: nothing answered at all, or the TLS handshake stopped
    /// where packets get big. Another link may lead to the server.
    pub fn unreachable(&self) -> bool {
        match self {
            HttpsError::Resolve(_) => true,
            // An address that refuses a connection can be reached.
            HttpsError::Connect(errors) => {
                let there = [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
                !errors.iter().any(|(_, error)| there.contains(&error.kind()))
            }
            HttpsError::TimedOut(phase) => *phase != Phase::Answer,
            _ => false,
        }
    }
}

impl fmt::Display for HttpsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpsError::Resolve(unresolved) => unresolved.fmt(f),
            HttpsError::Connect(errors) => {
                f.write_str(if self.unreachable() {
                    "no connection; check the node's network and that the server runs"
                } else {
                    "no connection; check that the server listens there"
                })?;
                match errors.as_slice() {
                    [(_, error)] => write!(f, ": {error}"),
                    errors => errors.iter().try_for_each(|(address, error)| write!(f, ": {address}: {error}")),
                }
            }
            HttpsError::TimedOut(phase) => f.write_str(match phase {
                Phase::Connect => "there was no time left for a connection",
                Phase::Handshake => {
                    "the server took the connection, but no TLS handshake came about in time; check the path for lost \
                     big packets (MTU), and that this is a TLS port"
                }
                Phase::Answer => "the server did not answer the request in time",
            }),
            HttpsError::Tls(error) => error.fmt(f),
            HttpsError::Http(error) => error.fmt(f),
            HttpsError::Stopped => f.write_str("the transfer was stopped"),
        }
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let said = if self.said.is_empty() { "there was no time to ask".to_owned() } else { listed(&self.said) };
        match (self.answered, self.servers) {
            (true, _) => {
                write!(f, "{name} has no address: {said}; check the URL and what the name servers know")
            }
            (false, true) => write!(
                f,
                "no usable answer about {name}: {said}; check the URL, that the name servers know the name, and that the \
                 node reaches them"
            ),
            (false, false) => write!(
                f,
                "no usable answer about {name}: /etc/resolv.conf has no name server; add a name server (dns) to the record, \
                 or use an IP address in the URL"
            ),
        }
    }
}

impl std::error::Error for HttpsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Display shows this error itself, so its source is the next cause.
            HttpsError::Tls(error) => error.source(),
            _ => None,
        }
    }
}
