//! Says why an answer of an EST server cannot be used. Never acts on an error.

use std::fmt;

use super::{MAX_CERTIFICATES, RetryAfter};
use crate::shown::Printable;
use crate::time::Timestamp;

/// Why an answer of an EST server cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EstError {
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
