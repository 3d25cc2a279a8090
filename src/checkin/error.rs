//! Says why there is no certificate, in words for an operator at the console. Never acts on an error.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::apply::clock::ClockError;
use crate::apply::network::NetworkError;
use crate::certificate::CertificateFacts;
use crate::chain::chain;
use crate::est::EstError;
use crate::https::HttpsError;
use crate::identity::AnswerError;
use crate::key_code::KeyCode;
use crate::line::NotTaken;
use crate::payload::{EstUrl, NodeName};
use crate::shown::Printable;
use crate::time::Timestamp;

/// Why there is no certificate.
#[derive(Debug)]
pub enum CheckinError {
    /// No URL worked, and another try is of no use.
    Failed {
        /// The most telling failure of each URL.
        attempts: Vec<Attempt>,
    },
    /// The deadline has passed.
    GaveUp {
        /// How long the check-in tried.
        waited: Duration,
        /// The most telling failure of each URL that was tried.
        attempts: Vec<Attempt>,
    },
    /// No administrator approved in time.
    NotApproved(Box<Unapproved>),
    /// The payload has expired.
    Expired {
        /// When it expired.
        expiry: Timestamp,
        /// The time of day.
        date: Timestamp,
        /// The source of that time.
        server: String,
    },
    /// The certificate that was to be renewed has ended.
    Ended {
        /// When it ended.
        not_after: Timestamp,
        /// The time of day.
        date: Timestamp,
        /// The source of that time.
        server: String,
    },
    /// The privileged half did not do what the check-in asked for.
    Ask(AskError),
}

/// A request that no administrator approved in time.
#[derive(Debug)]
pub struct Unapproved {
    /// The URL whose server holds it.
    pub url: EstUrl,
    /// The node that it is for.
    pub node: NodeName,
    /// The code that console and administrator compare.
    pub code: KeyCode,
    /// How long the node waited.
    pub waited: Duration,
    /// Whether it was for the renewal of a certificate.
    pub renewal: bool,
    /// Why the server could not be asked in the end; `None`: it could be asked.
    pub failed: Option<Failure>,
}

/// Why the privileged half did not do what the check-in asked for.
#[derive(Debug)]
pub enum AskError {
    /// The clock was not set.
    Clock(ClockError),
    /// The network could not be looked at or changed.
    Network(NetworkError),
}

/// One try at one URL.
#[derive(Debug)]
pub struct Attempt {
    /// The URL.
    pub url: EstUrl,
    /// The server's address, once it is known.
    pub address: Option<SocketAddr>,
    /// The step that failed.
    pub step: Step,
    /// What went wrong. Of several tries at one URL, this is the most telling failure.
    pub failure: Failure,
    /// What went wrong last, when it tells less than `failure`.
    pub last: Option<Failure>,
}

impl Attempt {
    /// A try that failed.
    pub fn new(url: EstUrl, address: Option<SocketAddr>, step: Step, failure: Failure) -> Attempt {
        Attempt { url, address, step, failure, last: None }
    }
}

/// A step of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Fetching the CA certificates and the time.
    Probe,
    /// Fetching the CA certificates from a server that wants credentials for that.
    CaCerts,
    /// Asking for the certificate.
    Enrol,
}

/// What went wrong with one URL.
#[derive(Debug)]
pub enum Failure {
    /// The server gave no answer, or none that can be read.
    Https(HttpsError),
    /// The answer cannot be used.
    Est(EstError),
    /// The probe's answer has no Date.
    NoDate,
    /// The probe's answer has a Date header that is not a date.
    NotADate(Printable),
    /// The probe's answer has a Date at which the server's own certificate is not valid.
    DateOutsideCertificate {
        /// The Date.
        date: Timestamp,
        /// The server's certificate.
        server: Box<CertificateFacts>,
    },
    /// The probe's answer has a Date before the earliest time that it can be.
    DateBeforeFloor {
        /// The Date.
        date: Timestamp,
        /// The earliest time.
        floor: Timestamp,
    },
    /// 401: the server wants credentials that this node does not have, or refuses those that the node sent.
    Credentials {
        /// Whether name and token were sent.
        sent: bool,
        /// Whether the payload holds a token.
        token: bool,
        /// The authentication schemes that the server offers.
        schemes: Vec<Printable>,
        /// The server's own words.
        text: Printable,
    },
    /// The certificate is not the one that was asked for.
    Answer(Box<AnswerError>),
    /// There is no line to a host.
    NoLine,
    /// The host on the line refuses the request, with its words.
    LineRefused(Printable),
    /// The line to the host is lost, with the reason.
    LineLost(String),
    /// The host on the line does not take a request.
    LineNotTaken(NotTaken),
}

impl fmt::Display for CheckinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = match self {
            CheckinError::Expired { expiry, date, server } => {
                return write!(
                    f,
                    "the payload expired at {expiry}, and the time is {date} according to {server}; make a new payload \
                     with imprint-host payload"
                );
            }
            CheckinError::Ended { not_after, date, server } => {
                return write!(
                    f,
                    "the certificate ended at {not_after}, and the time is {date} according to {server}; enrol with a \
                     new payload"
                );
            }
            CheckinError::NotApproved(unapproved) => {
                let Unapproved { url, node, code, waited, renewal, failed } = unapproved.as_ref();
                write!(f, "nobody approved key {code} at {url} within {:.0} s; ", waited.as_secs_f64())?;
                // The key of a renewal is gone by then: approving it would be too late.
                match renewal {
                    true => f.write_str("approve it there while it waits, and allow more time for that with --timeout"),
                    false => write!(
                        f,
                        "compare the code and run imprint-host approve {node} {code}, then boot again, or allow more \
                         time with imprint.approval-timeout"
                    ),
                }?;
                return failed.iter().try_for_each(|failure| at_last(f, failure));
            }
            CheckinError::Ask(AskError::Clock(_)) => return f.write_str("setting the clock to the server's Date"),
            CheckinError::Ask(AskError::Network(_)) => return f.write_str("changing the network to reach the server"),
            CheckinError::Failed { attempts } => attempts,
            CheckinError::GaveUp { waited, attempts } => {
                write!(f, "gave up after {:.0} s", waited.as_secs_f64())?;
                if attempts.is_empty() {
                    return f.write_str(", before any server was tried");
                }
                f.write_str("; ")?;
                attempts
            }
        };
        for (index, attempt) in attempts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{attempt}")?;
        }
        Ok(())
    }
}

/// The attempt with all causes of its failure, because several attempts stand in one line.
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.step {
            Step::Probe => "fetching CA certificates and time from",
            Step::CaCerts => "fetching CA certificates, with credentials, from",
            Step::Enrol => "asking for a certificate at",
        };
        write!(f, "{doing} {}", self.url)?;
        if let Some(address) = self.address {
            write!(f, " ({address})")?;
        }
        write!(f, ": {}", chain(&self.failure))?;
        self.last.iter().try_for_each(|failure| at_last(f, failure))
    }
}

fn at_last(f: &mut fmt::Formatter<'_>, failure: &Failure) -> fmt::Result {
    write!(f, "; last: {}", chain(failure))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Https(error) => error.fmt(f),
            Failure::Est(error) => error.fmt(f),
            Failure::NoDate => f.write_str(
                "the answer has no Date header, so the time of day stays unknown; configure the server to send one",
            ),
            Failure::NotADate(text) => write!(
                f,
                "the answer's Date, \"{text}\", is not an HTTP date; correct the server, or the proxy before it"
            ),
            Failure::DateOutsideCertificate { date, server } => write!(
                f,
                "the server's Date is {date}, at which its own certificate is not valid ({server}); correct the \
                 server's clock or renew its certificate"
            ),
            Failure::DateBeforeFloor { date, floor } => write!(
                f,
                "the server's Date is {date}, but it cannot be earlier than {floor}, 5 minutes before this node's \
                 payload or certificate was made; correct the server's clock"
            ),
            Failure::Credentials { sent: true, schemes, text, .. } if knows_basic(schemes) => write!(
                f,
                "the server refuses name and token: 401 {text}; make a new payload, the token is unknown, used or \
                 expired at the server"
            ),
            Failure::Credentials { sent: false, token: false, text, .. } => write!(
                f,
                "the server wants credentials, and the payload holds no token: 401 {text}; make a payload with a token"
            ),
            Failure::Credentials { schemes, text, .. } if schemes.is_empty() => write!(
                f,
                "the server wants credentials, but does not say which (401 {text}, no WWW-Authenticate); configure the \
                 server to offer HTTP Basic"
            ),
            Failure::Credentials { schemes, text, .. } => write!(
                f,
                "the server wants credentials by {} only (401 {text}), but this node sends name and token by HTTP \
                 Basic; configure the server to offer HTTP Basic",
                schemes.iter().map(Printable::as_str).collect::<Vec<_>>().join(" or ")
            ),
            Failure::Answer(error) => write!(f, "the server's answer was refused: {error}"),
            Failure::NoLine => f.write_str("there is no line to a host; run imprint-host inject while the node waits"),
            Failure::LineRefused(text) => write!(f, "the host refuses: {text}"),
            Failure::LineLost(why) => {
                write!(
                    f,
                    "the line to the host is gone: {why}; plug the line in again, and boot again or run imprint console"
                )
            }
            Failure::LineNotTaken(reason) => {
                write!(f, "the host does not take the request ({reason}); run imprint-host inject of this version")
            }
        }
    }
}

fn knows_basic(schemes: &[Printable]) -> bool {
    schemes.iter().any(|scheme| scheme.as_str().eq_ignore_ascii_case("Basic"))
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Clock(error) => error.fmt(f),
            AskError::Network(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CheckinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CheckinError::Ask(error) => Some(error),
            _ => None,
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Display shows this error itself, so its source is the next cause.
            Failure::Https(error) => error.source(),
            _ => None,
        }
    }
}

impl std::error::Error for AskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AskError::Clock(error) => error.source(),
            AskError::Network(error) => error.source(),
        }
    }
}
