//! Why the configuration server could not be asked, or what it said, in words for an operator at the console. Never acts on an error.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::apply::image::ImageError;
use crate::bundle::answer::JsonError;
use crate::chain::chain;
use crate::checkin::AskError;
use crate::est::{self, RetryAfter};
use crate::hex;
use crate::http::Response;
use crate::https::HttpsError;
use crate::payload::HttpsUrl;
use crate::shown::Printable;

/// Why no configuration server gave an answer that can be used.
#[derive(Debug)]
pub enum RetrievalError {
    /// No URL worked, and another try is of no use.
    Failed {
        /// The failure of each URL.
        attempts: Vec<Attempt>,
    },
    /// The deadline passed.
    GaveUp {
        /// How long it was tried.
        waited: Duration,
        /// The failure of each URL that was tried.
        attempts: Vec<Attempt>,
    },
    /// The network could not be kept meanwhile.
    Ask(AskError),
    /// JSON cannot be written.
    Json(serde_json::Error),
}

/// One try at one URL.
#[derive(Debug)]
pub struct Attempt {
    /// `fetching the bundle from`
    pub doing: &'static str,
    /// The URL.
    pub url: HttpsUrl,
    /// The server's address, once it is known.
    pub address: Option<SocketAddr>,
    /// What went wrong.
    pub error: ServerError,
}

/// What went wrong at one URL.
#[derive(Debug)]
pub enum ServerError {
    /// There is no URL to ask.
    NoServer,
    /// The server gave no answer, or none that can be read.
    Https(HttpsError),
    /// The server cannot answer now.
    Busy {
        /// The status.
        status: u16,
        /// The server's own words.
        text: Printable,
        /// When to ask again.
        retry_after: Option<RetryAfter>,
    },
    /// The server redirects.
    Redirect {
        /// The status.
        status: u16,
        /// The new URL, if the answer has one.
        location: Option<Printable>,
    },
    /// The server refuses this node: 401 or 403.
    Node {
        /// The status.
        status: u16,
        /// The server's own words.
        text: Printable,
    },
    /// The server knows nothing of bundles.
    NoBundles(Printable),
    /// The server refuses the request.
    Request {
        /// The status.
        status: u16,
        /// The server's own words.
        text: Printable,
    },
    /// The server does not give the image.
    NoImage {
        /// The status.
        status: u16,
        /// The server's own words.
        text: Printable,
    },
    /// There is no room for the image.
    Room(ImageError),
    /// The image cannot be kept.
    Keep {
        /// Bytes of it that are kept.
        have: usize,
        /// Bytes of it that there are.
        total: usize,
        /// The error of the system.
        source: io::Error,
    },
    /// The image comes so slowly that another server is asked.
    Slow {
        /// Bytes that have come.
        came: usize,
        /// In this time.
        took: Duration,
    },
    /// The image is another one.
    Digest {
        /// The SHA-256 that it has to have.
        want: [u8; 32],
        /// The SHA-256 that it has.
        got: [u8; 32],
    },
    /// The rest of a bundle or of an image is not what was asked for.
    Range {
        /// What was asked for.
        want: String,
        /// What came.
        got: Printable,
    },
    /// The JSON in the answer cannot be read.
    Standing(JsonError),
}

/// What an answer means that is none of those that the request hopes for.
pub(super) fn of(response: &Response) -> ServerError {
    let (status, text) = (response.status, response.text());
    match status {
        401 | 403 => ServerError::Node { status, text },
        404 => ServerError::NoBundles(text),
        300..=303 | 305..=399 => ServerError::Redirect { status, location: response.location.clone() },
        408 | 429 | 500..=599 => ServerError::Busy { status, text, retry_after: est::retry_after(response) },
        _ => ServerError::Request { status, text },
    }
}

/// The same where an image was asked for.
pub(super) fn of_image(response: &Response) -> ServerError {
    match response.status {
        300..=399 | 408 | 429 | 500..=599 => of(response),
        status => ServerError::NoImage { status, text: response.text() },
    }
}

impl ServerError {
    /// Whether another try is of no use.
    pub(super) fn lasts(&self) -> bool {
        match self {
            ServerError::Https(error) => error.lasts(),
            ServerError::Busy { .. } | ServerError::Range { .. } | ServerError::Slow { .. } => false,
            _ => true,
        }
    }

    /// The wait that the server asked for.
    pub(super) fn retry_after(&self) -> Option<RetryAfter> {
        match self {
            ServerError::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for RetrievalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = match self {
            RetrievalError::Ask(_) => {
                return f.write_str("keeping the network while the configuration server is asked");
            }
            RetrievalError::Json(_) => return f.write_str("writing the report"),
            RetrievalError::Failed { attempts } => attempts,
            RetrievalError::GaveUp { waited, attempts } => {
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
        write!(f, "{} {}", self.doing, self.url)?;
        if let Some(address) = self.address {
            write!(f, " ({address})")?;
        }
        write!(f, ": {}", chain(&self.error))
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::NoServer => f.write_str("there is no https:// URL to ask; give the record one"),
            ServerError::Https(error) => error.fmt(f),
            ServerError::Busy { status, text, .. } => {
                write!(f, "the server cannot answer now: {status} {text}")
            }
            ServerError::Redirect { status, location } => {
                let to = location.as_ref().map_or("no URL", Printable::as_str);
                write!(
                    f,
                    "the server redirects ({status}) to {to}; redirects are not followed, give nodes the final URL"
                )
            }
            ServerError::Node { status, text } => {
                write!(f, "the configuration server refuses this node: {status} {text}; see imprint-host log there")
            }
            ServerError::NoBundles(text) => write!(
                f,
                "the server knows no bundles: 404 {text}; have imprint-host of this version serve at this URL"
            ),
            ServerError::Request { status, text } => {
                write!(f, "the configuration server refuses the request: {status} {text}")
            }
            ServerError::Range { want, got } => write!(
                f,
                "the rest was asked for, {want}, and {got} came; the server, or a proxy before it, gives wrong ranges"
            ),
            ServerError::NoImage { status, text } => write!(
                f,
                "the server does not give this node the image: {status} {text}; check the URL, and that the server takes \
                 certificates of this node's CA"
            ),
            ServerError::Room(error) => error.fmt(f),
            ServerError::Keep { have, total, source } => {
                write!(f, "keeping the image in memory, after {have} of {total} bytes")?;
                match source.kind() {
                    io::ErrorKind::StorageFull => f.write_str("; give the machine more memory"),
                    _ => Ok(()),
                }
            }
            ServerError::Slow { came, took } => write!(
                f,
                "the server has brought {} KiB in {} s, and another one may be faster; look at its load, or at the network",
                came / 1024,
                took.as_secs()
            ),
            ServerError::Digest { want, got } => write!(
                f,
                "the image there has the SHA-256 {}, and {} is wanted; nothing was mounted. Put the right image there, or correct \
                 the digest",
                hex::encode(got),
                hex::encode(want)
            ),
            ServerError::Standing(_) => f.write_str("the configuration server's answer"),
        }
    }
}

impl std::error::Error for RetrievalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RetrievalError::Ask(error) => Some(error),
            RetrievalError::Json(error) => Some(error),
            RetrievalError::Failed { .. } | RetrievalError::GaveUp { .. } => None,
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Display shows this error itself, so its source is the next cause.
            ServerError::Https(error) => error.source(),
            ServerError::Standing(error) => Some(error),
            ServerError::Room(error) => error.source(),
            ServerError::Keep { source, .. } => Some(source),
            _ => None,
        }
    }
}
