//! Where an answer ends, by its head (RFC 9112 §6.3), and whether another request may follow it. Pure.

use super::{HttpError, State};
use crate::shown::Printable;

/// An answer with what was asked for, or with the rest of it.
pub fn is_success(status: u16) -> bool {
    matches!(status, 200 | 206)
}

/// RFC 9112 §9.3, but stricter: no request follows an answer that says its length twice, or not at all.
pub(super) fn persistent(status: u16, fields: &[httparse::Header<'_>]) -> bool {
    let count = |name: &str| fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    let framed = [count("Content-Length"), count("Transfer-Encoding")];
    let mut options = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("Connection"))
        .flat_map(|field| field.value.split(|byte| *byte == b','));
    status >= 200
        && matches!(framed, [1, 0] | [0, 1])
        && !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// RFC 9112 §6.3.
pub(super) fn framing(status: u16, fields: &[httparse::Header<'_>], limit: usize) -> Result<State, HttpError> {
    if matches!(status, 204 | 304) {
        return Ok(State::Length(0));
    }
    let values = |name: &'static str| {
        let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value.trim_ascii())
    };
    let mut codings = values("Transfer-Encoding").peekable();
    if codings.peek().is_some() {
        return match (codings.next(), codings.next()) {
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(State::Chunk),
            (Some(coding), _) => Err(HttpError::Framing(about("Transfer-Encoding", &[coding]))),
            (None, _) => Ok(State::UntilClose),
        };
    }
    let mut lengths = values("Content-Length");
    let Some(first) = lengths.next() else {
        // RFC 7030 §4.2.3: a 202 without a length has no body, and servers keep the connection open after it.
        return Ok(if status == 202 { State::Length(0) } else { State::UntilClose });
    };
    if let Some(other) = lengths.find(|other| *other != first) {
        return Err(HttpError::Framing(about("Content-Length", &[first, other])));
    }
    let digits = std::str::from_utf8(first).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<usize>().ok()) {
        Some(length) if length <= limit => Ok(State::Length(length)),
        Some(_) => Err(HttpError::BodyTooLong(limit)),
        None => Err(HttpError::Framing(about("Content-Length", &[first]))),
    }
}

/// `Content-Length 1 and 2`
fn about(name: &str, values: &[&[u8]]) -> Printable {
    let values: Vec<String> = values.iter().map(|value| Printable::of_bytes(value).to_string()).collect();
    Printable::of(&format!("{name} {}", values.join(" and ")))
}
