//! HTTP/1.1 (RFC 9112): writes a request, and reads one answer from bytes that come in pieces. Never touches a connection,
//! and never keeps more of an answer than its caps.

mod framing;

use std::fmt;

use zeroize::Zeroizing;

pub use framing::is_success;
use framing::{framing, persistent};

use crate::shown::Printable;

/// Where a request goes, and who sends it. `authority` and `path` come from a parsed URL; of `user_agent` only printable
/// ASCII is sent.
pub struct Address<'a> {
    /// Host and port.
    pub authority: String,
    /// Path of the server, without the operation.
    pub path: &'a str,
    /// User-Agent.
    pub user_agent: &'a str,
}

/// A whole request without a secret: no token, no CSR. Only [`PublicRequest::get`] makes one, and has nothing to put a
/// secret in.
pub struct PublicRequest(Zeroizing<Vec<u8>>);

/// A whole request that may hold a secret: a token, a CSR, the name of a node.
pub struct SecretRequest(Zeroizing<Vec<u8>>);

impl PublicRequest {
    /// GET, of the operation `name` of a server.
    pub fn get(to: &Address<'_>, name: &'static str, accept: &'static str) -> PublicRequest {
        PublicRequest(Head::new("GET", to, name, accept).ended(&[]))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl SecretRequest {
    /// The bytes, for a connection to a verified server.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// The head of a request, to which fields are added.
pub struct Head(Zeroizing<String>);

impl Head {
    /// The request line, and the fields that every request has. Title-case names: cisco/libest compares some of them
    /// case-sensitively.
    pub fn new(method: &'static str, to: &Address<'_>, name: &str, accept: &'static str) -> Head {
        let user_agent: String =
            to.user_agent.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(200).collect();
        let mut head = Zeroizing::new(String::with_capacity(2048));
        for part in [
            method,
            " ",
            to.path,
            "/",
            name,
            " HTTP/1.1\r\nHost: ",
            &to.authority,
            "\r\nUser-Agent: ",
            user_agent.trim(),
            "\r\nAccept: ",
            accept,
            "\r\n",
        ] {
            head.push_str(part);
        }
        Head(head)
    }

    /// Adds a field. The value has no line ends: callers have it from types, not from texts of others.
    pub fn field(&mut self, name: &'static str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.0.push_str(part);
        }
    }

    /// The whole request, with this body.
    pub fn with(self, body: &[u8]) -> SecretRequest {
        SecretRequest(self.ended(body))
    }

    fn ended(mut self, body: &[u8]) -> Zeroizing<Vec<u8>> {
        self.0.push_str("\r\n");
        // The capacity is exact, so that growing never leaves a copy of a secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.0.len().saturating_add(body.len())));
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Why an answer cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// Not an HTTP/1.x answer.
    NotHttp(&'static str),
    /// The head is longer than [`MAX_HEAD`].
    HeadTooLong,
    /// The head has more fields than [`MAX_FIELDS`].
    TooManyFields,
    /// The body is longer than this.
    BodyTooLong(usize),
    /// The connection ended in the middle of an answer.
    Truncated {
        /// Bytes of the body that came, or of the head if the head is not whole.
        have: usize,
        /// Bytes of the body that were announced, if any were.
        want: Option<usize>,
    },
    /// A Content-Length or Transfer-Encoding that this program cannot follow.
    Framing(Printable),
}

/// The longest head that is read, status line and fields, interim answers included.
pub const MAX_HEAD: usize = 16 * 1024;
/// The longest body that is read where nothing else is said. A chain of four RSA-4096 certificates in base64 has 10 KiB.
pub const MAX_BODY: usize = 64 * 1024;
/// The most header fields of an answer.
const MAX_FIELDS: usize = 64;

/// The parts of an answer that this program needs. Texts are printable: all other characters are escaped.
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
    /// ETag, as it stands.
    pub etag: Option<Printable>,
    /// Content-Range, as it stands.
    pub content_range: Option<Printable>,
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
    /// The longest body that is kept.
    limit: usize,
    /// The body of a success, 200 or 206, is handed on in pieces ([`ResponseReader::piece`]), and may be of any length.
    hands_on: bool,
    /// Bytes of the body that were handed on.
    handed: usize,
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
        ResponseReader::up_to(MAX_BODY)
    }
}

impl ResponseReader {
    /// Reads an answer with a body of at most `limit` bytes.
    pub fn up_to(limit: usize) -> ResponseReader {
        let (state, response) = (State::Head, Response::default());
        ResponseReader { limit, hands_on: false, handed: 0, buffer: Vec::new(), at: 0, state, response }
    }

    /// Hands the body of a success on in pieces. It has to have a Content-Length: nothing else says beforehand how much there is.
    #[must_use]
    pub fn handing_on(self) -> ResponseReader {
        ResponseReader { hands_on: true, ..self }
    }

    /// What has come of a body that is handed on, unless the answer is whole: the head, how many bytes are to come with these, and
    /// these. They come once.
    pub fn piece(&self) -> Option<(&Response, usize, &[u8])> {
        match self.state {
            State::Length(left) if self.hands_on && is_success(self.response.status) => {
                Some((&self.response, left, self.rest()))
            }
            _ => None,
        }
    }

    /// Forgets the bytes of [`ResponseReader::piece`].
    pub fn forget(&mut self) {
        if let State::Length(left) = &mut self.state {
            let count = self.buffer.len().saturating_sub(self.at).min(*left);
            *left = left.saturating_sub(count);
            self.handed = self.handed.saturating_add(count);
            self.buffer.drain(..self.at.saturating_add(count));
            self.at = 0;
        }
    }

    /// Takes bytes. Returns the answer as soon as it is whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Response>, HttpError> {
        // A body may come in chunks of one byte, six bytes each on the wire.
        let cap = self.limit.saturating_mul(6).saturating_add(MAX_HEAD);
        if self.buffer.len().saturating_add(bytes.len()) > cap {
            return Err(if matches!(self.state, State::Head) {
                HttpError::HeadTooLong
            } else {
                HttpError::BodyTooLong(self.limit)
            });
        }
        // What was read of a body in chunks is in the answer already.
        if self.at > MAX_HEAD && matches!(self.state, State::Chunk | State::Trailer) {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
        self.advance().map(|whole| whole.then(|| std::mem::take(&mut self.response)))
    }

    /// The bytes behind a whole answer. They belong neither to this answer nor to the next one.
    pub fn behind(&self) -> &[u8] {
        self.rest()
    }

    /// How much of the body has come, and how long it is. `None` as long as there is no head, and for a body without a
    /// length.
    pub fn so_far(&self) -> Option<(usize, usize)> {
        match self.state {
            State::Length(want) => {
                let have = self.rest().len().min(want).saturating_add(self.handed);
                Some((have, want.saturating_add(self.handed)))
            }
            _ => None,
        }
    }

    /// What has come of an answer that breaks off, with the beginning of a body whose length is known.
    pub fn beginning(&self) -> Option<(Response, usize)> {
        self.so_far().map(|(_, want)| (Response { body: self.rest().to_vec(), ..self.response.clone() }, want))
    }

    /// To be called when the connection has ended. Returns the answer, if it is one that ends with the connection.
    pub fn end(mut self) -> Result<Response, HttpError> {
        let rest = self.rest().len();
        let so_far = self.so_far();
        match self.state {
            State::UntilClose => {
                self.response.body = self.rest().to_vec();
                Ok(self.response)
            }
            State::Head => Err(HttpError::Truncated { have: rest, want: None }),
            State::Length(want) => {
                let (have, want) = so_far.unwrap_or((rest, want));
                Err(HttpError::Truncated { have, want: Some(want) })
            }
            State::Chunk | State::Trailer | State::Whole => {
                Err(HttpError::Truncated { have: self.response.body.len(), want: None })
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Reads as far as it can. Returns whether the answer is whole.
    fn advance(&mut self) -> Result<bool, HttpError> {
        loop {
            match self.state {
                State::Head => {
                    if !self.head()? {
                        return Ok(false);
                    }
                }
                State::Length(want) => {
                    if self.rest().len() < want {
                        return Ok(false);
                    }
                    // The body is moved, not copied: it may be long.
                    self.buffer.drain(..self.at);
                    let behind = self.buffer.split_off(want);
                    self.response.body = std::mem::replace(&mut self.buffer, behind);
                    self.at = 0;
                    self.state = State::Whole;
                }
                State::Chunk => {
                    let rest = self.buffer.get(self.at..).unwrap_or_default();
                    let (start, size) = match httparse::parse_chunk_size(rest) {
                        Ok(httparse::Status::Complete(found)) => found,
                        Ok(httparse::Status::Partial) if rest.len() > MAX_HEAD => return Err(HttpError::HeadTooLong),
                        Ok(httparse::Status::Partial) => return Ok(false),
                        Err(_) => return Err(HttpError::Framing("a chunk without a size".into())),
                    };
                    if size == 0 {
                        self.at = self.at.saturating_add(start);
                        self.state = State::Trailer;
                        continue;
                    }
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    if self.response.body.len().saturating_add(size) > self.limit {
                        return Err(HttpError::BodyTooLong(self.limit));
                    }
                    let end = start.saturating_add(size);
                    let Some(ending) = rest.get(end..end.saturating_add(2)) else { return Ok(false) };
                    if ending != b"\r\n" {
                        return Err(HttpError::Framing(Printable::of(&format!(
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
                        return if rest.len() > MAX_HEAD { Err(HttpError::HeadTooLong) } else { Ok(false) };
                    };
                    self.at = self.at.saturating_add(end);
                    self.state = State::Whole;
                }
                State::Whole => return Ok(true),
                State::UntilClose if self.rest().len() > self.limit => return Err(HttpError::BodyTooLong(self.limit)),
                State::UntilClose => return Ok(false),
            }
        }
    }

    /// Reads the head. False: the head is not whole yet.
    fn head(&mut self) -> Result<bool, HttpError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let length = match parsed.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if rest.len() > MAX_HEAD => return Err(HttpError::HeadTooLong),
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooManyFields),
            Err(httparse::Error::Version | httparse::Error::Status) => {
                return Err(HttpError::NotHttp("no status line"));
            }
            Err(_) => return Err(HttpError::NotHttp("a malformed header field")),
        };
        self.at = self.at.saturating_add(length);
        if self.at > MAX_HEAD {
            return Err(HttpError::HeadTooLong);
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
            etag: text("ETag"),
            content_range: text("Content-Range"),
            challenges: parsed
                .headers
                .iter()
                .filter(|field| field.name.eq_ignore_ascii_case("WWW-Authenticate"))
                .map(|field| Printable::of_bytes(field.value))
                .collect(),
            body: Vec::new(),
            persistent: parsed.version == Some(1) && persistent(status, parsed.headers),
        };
        let hands_on = self.hands_on && is_success(status);
        self.state = framing(status, parsed.headers, if hands_on { usize::MAX } else { self.limit })?;
        match self.state {
            State::Length(_) => Ok(true),
            _ if hands_on => Err(HttpError::Framing("no Content-Length".into())),
            _ => Ok(true),
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::NotHttp(why) => {
                write!(f, "the answer is not HTTP/1.1 ({why}); is this the port of the EST server?")
            }
            HttpError::HeadTooLong => write!(f, "the head of the answer is longer than {MAX_HEAD} bytes"),
            HttpError::TooManyFields => write!(
                f,
                "the head of the answer has more than {MAX_FIELDS} header fields; have the server, or the proxy before it, \
                 send fewer"
            ),
            HttpError::BodyTooLong(limit) => write!(f, "the body of the answer is longer than {limit} bytes"),
            HttpError::Truncated { have, want: Some(want) } => {
                write!(f, "the answer ended after {have} of {want} bytes of its body")
            }
            HttpError::Truncated { have: 0, want: None } => write!(f, "the connection was closed without an answer"),
            HttpError::Truncated { have, want: None } => {
                write!(f, "the answer ended in the middle, after {have} bytes")
            }
            HttpError::Framing(why) => write!(f, "the answer's length is unclear: {why}"),
        }
    }
}

impl std::error::Error for HttpError {}
