//! Says why an answer of an EST server cannot be used. Never acts on an error.

use std::fmt;

use super::http::{MAX_BODY, MAX_FIELDS, MAX_HEAD};
use super::{MAX_CERTIFICATES, RetryAfter};
use crate::shown::Printable;
use crate::time::Timestamp;

/// Why an answer of an EST server cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EstError {
    /// Not an HTTP/1.x answer.
    NotHttp(&'static str),
    /// The head is longer than [`MAX_HEAD`].
    HeadTooLong,
    /// The head has more fields than [`MAX_FIELDS`].
    TooManyFields,
    /// The body is longer than [`MAX_BODY`].
    BodyTooLong,
    /// The connection ended in the middle of an answer.
    Truncated {
        /// Bytes of the body that came, or of the head if the head is not whole.
        have: usize,
        /// Bytes of the body that were announced, if any were.
        want: Option<usize>,
    },
    /// A Content-Length or Transfer-Encoding that this program cannot follow.
    Framing(Printable),
    /// The server redirects (3xx).
    Redirect {
        /// The status.
        status: u16,
        /// The new URL, if the answer has one.
        location: Option<Printable>,
    },
    /// 401: the server wants credentials, or others than it got.
    Unauthorized {
        /// The authentication schemes that the server offers; empty when it does not say.
        schemes: Vec<Printable>,
        /// The server's own words.
        text: Printable,
    },
    /// The server does not want this request, and will not want it later.
    Refused {
        /// The status.
        status: u16,
        /// The server's own words.
        text: Printable,
    },
    /// The server cannot answer now.
    Busy {
        /// The status.
        status: u16,
        /// The server's own words.
        text: Printable,
        /// When to ask again.
        retry_after: Option<RetryAfter>,
    },
    /// The body is neither DER nor base64.
    NotBase64,
    /// The body is not a PKCS#7 certs-only message.
    NotCertsOnly(Printable),
    /// The message holds so many certificates: none, or too many.
    Count(usize),
}

impl EstError {
    /// The same error, with a date to ask again turned into a wait from `now` on.
    #[must_use]
    pub fn counted_from(self, now: Timestamp) -> EstError {
        match self {
            EstError::Busy { status, text, retry_after: Some(RetryAfter::At(at)) } => {
                EstError::Busy { status, text, retry_after: Some(RetryAfter::Delay(at.since(now))) }
            }
            other => other,
        }
    }
}

impl fmt::Display for EstError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EstError::NotHttp(why) => {
                write!(f, "the answer is not HTTP/1.1 ({why}); is this the port of the EST server?")
            }
            EstError::HeadTooLong => write!(f, "the head of the answer is longer than {MAX_HEAD} bytes"),
            EstError::TooManyFields => write!(
                f,
                "the head of the answer has more than {MAX_FIELDS} header fields; have the server, or the proxy before it, \
                 send fewer"
            ),
            EstError::BodyTooLong => write!(f, "the body of the answer is longer than {MAX_BODY} bytes"),
            EstError::Truncated { have, want: Some(want) } => {
                write!(f, "the answer ended after {have} of {want} bytes of its body")
            }
            EstError::Truncated { have: 0, want: None } => write!(f, "the connection was closed without an answer"),
            EstError::Truncated { have, want: None } => write!(f, "the answer ended in the middle, after {have} bytes"),
            EstError::Framing(why) => write!(f, "the answer's length is unclear: {why}"),
            EstError::Redirect { status, location } => {
                let to = location.as_ref().map_or("no URL", Printable::as_str);
                write!(
                    f,
                    "the server redirects ({status}) to {to}; redirects are not followed, give nodes the final URL"
                )
            }
            EstError::Unauthorized { text, .. } => write!(f, "the server refuses: 401 {text}"),
            EstError::Refused { status, text } => {
                write!(f, "the server refuses: {status} {text}{}", advice(*status))
            }
            EstError::Busy { status, text, .. } => write!(f, "the server cannot answer now: {status} {text}"),
            EstError::NotBase64 => write!(f, "the body of the answer is neither DER nor base64"),
            EstError::NotCertsOnly(why) => {
                write!(f, "the body of the answer is not a PKCS#7 certs-only message: {why}")
            }
            EstError::Count(count) => {
                write!(f, "the answer holds {count} certificates, want 1 to {MAX_CERTIFICATES}")
            }
        }
    }
}

/// What to do about a status, where the status says enough.
fn advice(status: u16) -> &'static str {
    match status {
        404 => "; check the path of the URL",
        _ => "",
    }
}

impl std::error::Error for EstError {}
