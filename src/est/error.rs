//! Why an answer of an EST server is of no use.

use std::fmt;

use super::http::{MAX_BODY, MAX_FIELDS, MAX_HEAD};
use super::{MAX_CERTIFICATES, RetryAfter};
use crate::time::Timestamp;

/// Why an answer of an EST server is of no use.
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
    /// The connection ended in the middle.
    Truncated {
        /// Bytes of the body, or of the head when that is not whole.
        have: usize,
        /// Bytes that were announced, when they were.
        want: Option<usize>,
    },
    /// A Content-Length or Transfer-Encoding that cannot be followed.
    Framing(String),
    /// More came behind an answer, and nobody had asked for it. So many bytes of it were there.
    Unasked(usize),
    /// 3xx.
    Redirect {
        /// The status.
        status: u16,
        /// Where to.
        location: Option<String>,
    },
    /// 401: the server wants credentials, or others than it got.
    Unauthorized {
        /// The authentication schemes that it offers; none when it does not say.
        schemes: Vec<String>,
        /// What the server says about it.
        text: String,
    },
    /// The server does not want this request, and will not want it later.
    Refused {
        /// The status.
        status: u16,
        /// What the server says about it.
        text: String,
    },
    /// The server cannot answer now.
    Busy {
        /// The status.
        status: u16,
        /// What the server says about it.
        text: String,
        /// When to ask again.
        retry_after: Option<RetryAfter>,
    },
    /// The body is neither DER nor base64.
    NotBase64,
    /// The body is no PKCS#7 certs-only message.
    NotCertsOnly(String),
    /// The message holds no certificate, or too many.
    Count(usize),
}

impl EstError {
    /// The same with a moment to ask again turned into a wait, by somebody who knows what time it is.
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
            EstError::Unasked(count) => write!(
                f,
                "{count} bytes came behind the answer that nobody had asked for; correct the server, or the proxy before it: \
                 it must say the length of its answers, or close the connection"
            ),
            EstError::Redirect { status, location } => {
                let to = location.as_deref().unwrap_or("nowhere");
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
            EstError::NotCertsOnly(why) => write!(f, "the body of the answer is no PKCS#7 certs-only message: {why}"),
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
