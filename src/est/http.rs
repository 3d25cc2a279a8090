//! Reads one HTTP/1.1 answer from bytes that come in pieces (RFC 9112). Never reads from a connection itself, and never
//! keeps more than its caps.

use super::EstError;
use crate::shown::Printable;

/// The longest head that is read, status line and fields, interim answers included.
pub const MAX_HEAD: usize = 16 * 1024;
/// The longest body that is read. A chain of four RSA-4096 certificates in base64 has 10 KiB.
pub const MAX_BODY: usize = 64 * 1024;
/// The most header fields of an answer.
pub(super) const MAX_FIELDS: usize = 64;

/// The parts of an answer that EST needs. Texts are printable: all other characters are escaped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Response {
    /// Three digits.
    pub status: u16,
    /// The reason phrase behind the status.
    pub reason: Printable,
    /// Date, as it stands.
    pub date: Option<Printable>,
    /// Retry-After, as it stands.
    pub retry_after: Option<Printable>,
    /// Location, as it stands.
    pub location: Option<Printable>,
    /// Each WWW-Authenticate, as it stands.
    pub challenges: Vec<Printable>,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
    /// Another request may follow on the connection: the server keeps it open, and the end of this answer is beyond
    /// doubt.
    pub persistent: bool,
}

impl Response {
    /// What the server says in words: the first line of a body that is text, else the reason phrase.
    pub fn text(&self) -> Printable {
        let line = std::str::from_utf8(&self.body).ok().map(|body| body.trim().lines().next().unwrap_or("").trim());
        match line {
            Some(line) if !line.is_empty() && !line.starts_with('<') => Printable::of(line),
            _ => self.reason.clone(),
        }
    }

    /// The authentication schemes that the server offers, in its order and spelling. RFC 9110 §11.6.1: one field may
    /// hold several challenges with commas between them, and the parameters of a challenge have commas between them,
    /// too.
    pub fn schemes(&self) -> Vec<Printable> {
        let mut schemes = Vec::new();
        for challenge in &self.challenges {
            let mut quoted = false;
            for part in challenge.as_str().split(|c| {
                quoted ^= c == '"';
                c == ',' && !quoted
            }) {
                // A parameter is `name=value`; a scheme stands alone or before a space.
                let word = part.trim().split(' ').next().unwrap_or_default();
                if !word.is_empty() && !word.contains('=') {
                    schemes.push(Printable::of(word));
                }
            }
        }
        schemes
    }

    /// Whether the server offers HTTP Basic.
    pub fn offers_basic(&self) -> bool {
        self.schemes().iter().any(|scheme| scheme.as_str().eq_ignore_ascii_case("Basic"))
    }
}

/// Puts an answer together from its pieces.
pub struct ResponseReader {
    buffer: Vec<u8>,
    /// Where the unread part begins.
    at: usize,
    state: State,
    response: Response,
}

/// How the rest of the answer is framed (RFC 9112 §6.3).
#[derive(Clone, Copy)]
enum State {
    Head,
    Length(usize),
    Chunk,
    Trailer,
    UntilClose,
    Whole,
}

impl Default for ResponseReader {
    fn default() -> ResponseReader {
        ResponseReader { buffer: Vec::new(), at: 0, state: State::Head, response: Response::default() }
    }
}

impl ResponseReader {
    /// Takes bytes. Returns the answer as soon as it is whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Response>, EstError> {
        // A body may come in chunks of one byte, six bytes each on the wire.
        let cap = MAX_HEAD + 6 * MAX_BODY;
        if self.buffer.len().saturating_add(bytes.len()) > cap {
            return Err(if matches!(self.state, State::Head) { EstError::HeadTooLong } else { EstError::BodyTooLong });
        }
        self.buffer.extend_from_slice(bytes);
        self.advance().map(|whole| whole.then(|| std::mem::take(&mut self.response)))
    }

    /// The bytes behind a whole answer. They belong neither to this answer nor to the next one.
    pub fn behind(&self) -> &[u8] {
        self.rest()
    }

    /// To be called when the connection has ended. Returns the answer, if it is one that ends with the connection.
    pub fn end(mut self) -> Result<Response, EstError> {
        let rest = self.rest().len();
        match self.state {
            State::UntilClose => {
                self.response.body = self.rest().to_vec();
                Ok(self.response)
            }
            State::Head => Err(EstError::Truncated { have: rest, want: None }),
            State::Length(want) => Err(EstError::Truncated { have: rest, want: Some(want) }),
            State::Chunk | State::Trailer | State::Whole => {
                Err(EstError::Truncated { have: self.response.body.len(), want: None })
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Reads as far as it can. Returns whether the answer is whole.
    fn advance(&mut self) -> Result<bool, EstError> {
        loop {
            match self.state {
                State::Head => {
                    if !self.head()? {
                        return Ok(false);
                    }
                }
                State::Length(want) => {
                    let body = match self.rest().get(..want) {
                        Some(body) => body.to_vec(),
                        None => return Ok(false),
                    };
                    self.response.body = body;
                    self.at = self.at.saturating_add(want);
                    self.state = State::Whole;
                }
                State::Chunk => {
                    let rest = self.buffer.get(self.at..).unwrap_or_default();
                    let (start, size) = match httparse::parse_chunk_size(rest) {
                        Ok(httparse::Status::Complete(found)) => found,
                        Ok(httparse::Status::Partial) if rest.len() > MAX_HEAD => return Err(EstError::HeadTooLong),
                        Ok(httparse::Status::Partial) => return Ok(false),
                        Err(_) => return Err(EstError::Framing("a chunk without a size".into())),
                    };
                    if size == 0 {
                        self.at = self.at.saturating_add(start);
                        self.state = State::Trailer;
                        continue;
                    }
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    if self.response.body.len().saturating_add(size) > MAX_BODY {
                        return Err(EstError::BodyTooLong);
                    }
                    let end = start.saturating_add(size);
                    let Some(ending) = rest.get(end..end.saturating_add(2)) else { return Ok(false) };
                    if ending != b"\r\n" {
                        return Err(EstError::Framing(Printable::of(&format!(
                            "a chunk that is not {size} bytes long"
                        ))));
                    }
                    self.response.body.extend_from_slice(rest.get(start..end).unwrap_or_default());
                    self.at = self.at.saturating_add(end).saturating_add(2);
                }
                // RFC 9112 §7.1.2: trailer fields up to an empty line. Nothing here needs them.
                State::Trailer => {
                    let rest = self.rest();
                    let end = match rest.strip_prefix(b"\r\n") {
                        Some(_) => Some(2),
                        None => rest.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at.saturating_add(4)),
                    };
                    let Some(end) = end else {
                        return if rest.len() > MAX_HEAD { Err(EstError::HeadTooLong) } else { Ok(false) };
                    };
                    self.at = self.at.saturating_add(end);
                    self.state = State::Whole;
                }
                State::Whole => return Ok(true),
                State::UntilClose if self.rest().len() > MAX_BODY => return Err(EstError::BodyTooLong),
                State::UntilClose => return Ok(false),
            }
        }
    }

    /// Reads the head. False: the head is not whole yet.
    fn head(&mut self) -> Result<bool, EstError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let length = match parsed.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if rest.len() > MAX_HEAD => return Err(EstError::HeadTooLong),
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(httparse::Error::TooManyHeaders) => return Err(EstError::TooManyFields),
            Err(httparse::Error::Version | httparse::Error::Status) => {
                return Err(EstError::NotHttp("no status line"));
            }
            Err(_) => return Err(EstError::NotHttp("a malformed header field")),
        };
        self.at = self.at.saturating_add(length);
        if self.at > MAX_HEAD {
            return Err(EstError::HeadTooLong);
        }
        let status = parsed.code.unwrap_or_default();
        // RFC 9110 §15.2: interim answers come before the one that counts. 101 would end HTTP.
        if (100..200).contains(&status) && status != 101 {
            return Ok(true);
        }
        let field = |name: &str| parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
        let text = |name: &str| field(name).map(Printable::of_bytes);
        self.response = Response {
            status,
            reason: Printable::of(parsed.reason.unwrap_or_default()),
            date: text("Date"),
            retry_after: text("Retry-After"),
            location: text("Location"),
            challenges: parsed
                .headers
                .iter()
                .filter(|field| field.name.eq_ignore_ascii_case("WWW-Authenticate"))
                .map(|field| Printable::of_bytes(field.value))
                .collect(),
            body: Vec::new(),
            persistent: parsed.version == Some(1) && persistent(status, parsed.headers),
        };
        self.state = framing(status, parsed.headers)?;
        Ok(true)
    }
}

/// RFC 9112 §9.3, but stricter: no request follows an answer that says its length twice, or not at all.
fn persistent(status: u16, fields: &[httparse::Header<'_>]) -> bool {
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
fn framing(status: u16, fields: &[httparse::Header<'_>]) -> Result<State, EstError> {
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
            (Some(coding), _) => Err(EstError::Framing(about("Transfer-Encoding", &[coding]))),
            (None, _) => Ok(State::UntilClose),
        };
    }
    let mut lengths = values("Content-Length");
    let Some(first) = lengths.next() else {
        // RFC 7030 §4.2.3: a 202 without a length has no body, and servers keep the connection open after it.
        return Ok(if status == 202 { State::Length(0) } else { State::UntilClose });
    };
    if let Some(other) = lengths.find(|other| *other != first) {
        return Err(EstError::Framing(about("Content-Length", &[first, other])));
    }
    let digits = std::str::from_utf8(first).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<usize>().ok()) {
        Some(length) if length <= MAX_BODY => Ok(State::Length(length)),
        Some(_) => Err(EstError::BodyTooLong),
        None => Err(EstError::Framing(about("Content-Length", &[first]))),
    }
}

/// `Content-Length 1 and 2`
fn about(name: &str, values: &[&[u8]]) -> Printable {
    let values: Vec<String> = values.iter().map(|value| Printable::of_bytes(value).to_string()).collect();
    Printable::of(&format!("{name} {}", values.join(" and ")))
}
