//! EST messages (RFC 7030, clarified by RFC 8951), bytes to values and back. No I/O, no clock, no trust: `checkin`
//! decides what a certificate in an answer is worth.

mod certs;
mod date;
mod error;

use std::time::Duration;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

pub use certs::{MAX_CERTIFICATES, base64, certs_only};
pub use date::date;
pub use error::EstError;

use crate::http::{Address, Head, PublicRequest, Response, SecretRequest};
use crate::payload::{NodeName, Token};
use crate::pem;
use crate::shown::Printable;
use crate::time::Timestamp;

/// What the server is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// The certificates of the CA and its issuers (RFC 7030 §4.1).
    CaCerts,
    /// A signature for a CSR, DER (RFC 7030 §4.2).
    SimpleEnroll(&'a [u8]),
    /// The same, for a client that has a certificate already and proves with it who asks (RFC 7030 §4.2.2).
    SimpleReenroll(&'a [u8]),
}

/// Credentials for HTTP Basic (RFC 7617). The types of both parts keep out control characters, and colons where HTTP
/// Basic does not allow them.
pub struct Basic<'a> {
    /// User.
    pub name: &'a NodeName,
    /// Password.
    pub token: &'a Token,
}

/// The server's answer to a request for a signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Certificates, DER, in the order in which they came, unchecked.
    Issued(Vec<Vec<u8>>),
    /// RFC 7030 §4.2.3: 202 means ask again, not failure.
    RetryAfter(Option<RetryAfter>),
}

/// When to ask again (RFC 9110 §10.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryAfter {
    /// This long after the answer.
    Delay(Duration),
    /// At this time. The answer has no Date.
    At(Timestamp),
}

/// How the body of a request is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lines {
    /// Base64 in lines of 64 columns: libest wants it, and nearly every other server takes it.
    Of64,
    /// Base64 on one line: RFC 4648 §3.1 has no line breaks, and some servers take none.
    One,
}

/// A request for the CA certificates that does not say which node asks.
pub fn ca_certs(to: &Address<'_>) -> PublicRequest {
    PublicRequest::get(to, "cacerts", ACCEPT)
}

/// Any request, with credentials or without.
pub fn request(operation: Operation<'_>, lines: Lines, to: &Address<'_>, basic: Option<&Basic<'_>>) -> SecretRequest {
    let encoded = |der: &[u8]| match lines {
        Lines::Of64 => wrapped(der),
        Lines::One => Base64::encode_string(der),
    };
    let (method, name, body) = match operation {
        Operation::CaCerts => ("GET", "cacerts", None),
        Operation::SimpleEnroll(csr) => ("POST", "simpleenroll", Some(encoded(csr))),
        Operation::SimpleReenroll(csr) => ("POST", "simplereenroll", Some(encoded(csr))),
    };
    let mut head = Head::new(method, to, name, ACCEPT);
    if body.is_some() {
        // Nothing follows a CSR on its connection. With `close`, an answer without a length has an end.
        head.field("Connection", "close");
    }
    if let Some(basic) = basic {
        let mut plain = Zeroizing::new(String::with_capacity(512));
        plain.push_str(basic.name.as_str());
        plain.push(':');
        plain.push_str(basic.token.expose());
        let mut value = Zeroizing::new(String::with_capacity(1024));
        value.push_str("Basic ");
        value.push_str(&Zeroizing::new(Base64::encode_string(plain.as_bytes())));
        head.field("Authorization", &value);
    }
    if let Some(body) = &body {
        head.field("Content-Type", "application/pkcs10");
        head.field("Content-Transfer-Encoding", "base64");
        head.field("Content-Length", &body.len().to_string());
    }
    head.with(body.unwrap_or_default().as_bytes())
}

const ACCEPT: &str = "application/pkcs7-mime";

fn wrapped(der: &[u8]) -> String {
    let mut text = String::new();
    pem::wrap(&Base64::encode_string(der), &mut text);
    text
}

/// What an answer to `simpleenroll` means.
pub fn outcome(response: &Response) -> Result<Outcome, EstError> {
    match response.status {
        202 => Ok(Outcome::RetryAfter(retry_after(response))),
        _ => certificates(response).map(Outcome::Issued),
    }
}

/// The certificates in an answer to `cacerts`, or in a good answer to `simpleenroll`, in any order and unchecked.
pub fn certificates(response: &Response) -> Result<Vec<Vec<u8>>, EstError> {
    let status = response.status;
    match status {
        200 => certs_only(&response.body),
        401 => Err(EstError::Unauthorized { schemes: response.schemes(), text: response.text() }),
        // EST needs no redirect to another server, and a redirect within the server is a mistake in the URL.
        300..=399 => Err(EstError::Redirect { status, location: response.location.clone() }),
        429 | 500..=599 => Err(EstError::Busy { status, text: response.text(), retry_after: retry_after(response) }),
        _ => Err(EstError::Refused { status, text: response.text() }),
    }
}

/// The header Retry-After: seconds or a date; anything else counts as absent. A date counts from the server's own Date,
/// if there is one, so that no other clock matters.
pub fn retry_after(response: &Response) -> Option<RetryAfter> {
    let value = response.retry_after.as_ref()?.as_str().trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a u64 holds still mean "late". The caller caps the wait.
        return Some(RetryAfter::Delay(Duration::from_secs(value.parse().unwrap_or(u64::MAX))));
    }
    let at = date(value)?;
    Some(match response.date.as_ref().map(Printable::as_str).and_then(date) {
        Some(now) => RetryAfter::Delay(at.since(now)),
        None => RetryAfter::At(at),
    })
}

#[cfg(test)]
mod tests;
