//! Bundles over HTTP: paths, headers and status codes. A client shows its certificate; everything else the desk decides.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE,
    RANGE, RETRY_AFTER,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Body as _;
use imprint::bundle::answer::{MAX_ANSWER, Report, Stand, Standing};
use imprint::hex;
use tokio::time::{Instant as Moment, timeout, timeout_at};

use super::range::{Wanted, wanted};
use super::{Peer, RETRY, Server, Shared, busy, later, plain, said};
use crate::bundles::{self, Look, MAX_UPLOAD, May, Put, Reported, Version};
use crate::crash;
use crate::serve::bulk::{Held, SHORT, Share};
use crate::serve::desk::bundles::{Answered, Ask, What};
use crate::serve::desk::{Asked, Said};

const BUNDLE: &str = "/.well-known/imprint/bundle";
const STANDING: &str = "/.well-known/imprint/standing";
const AVAILABLE: &str = "/.well-known/imprint/available";
/// How long a body may take. Shorter than a connection may last.
const BODY_TIME: Duration = Duration::from_secs(100);
/// A long body has to bring [`SHORT`] bytes in each of these times, or its end, so that who sends nothing holds no memory.
const PROGRESS_TIME: Duration = Duration::from_secs(10);

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route(BUNDLE, get(bundle).put(upload).fallback(|| async { not_allowed("GET, HEAD, PUT") }))
        .route(STANDING, get(all).fallback(|| async { not_allowed("GET, HEAD") }))
        .route(AVAILABLE, post(available).fallback(|| async { not_allowed("POST") }))
}

/// A name for the counters.
pub(super) fn operation(path: &str) -> Option<&'static str> {
    match path {
        BUNDLE => Some("bundle"),
        STANDING => Some("standing"),
        AVAILABLE => Some("available"),
        _ => None,
    }
}

fn not_allowed(methods: &'static str) -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, methods);
    response.headers_mut().insert(axum::http::header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// Asks the desk as the client with this certificate. `Err`: the answer to the client.
async fn ask(shared: &Shared, peer: &Peer, what: What) -> Result<Answered, Box<Response>> {
    let Some(certificate) = peer.certificate.clone() else {
        let why = "show the node's certificate as the TLS client certificate: bundles are for nodes that have one";
        return Err(Box::new(plain(StatusCode::UNAUTHORIZED, why)));
    };
    match shared.desk.ask(Asked::Bundle(Box::new(Ask { certificate, what })), peer.peer.to_string()).await {
        Said::Bundle(answer) => match *answer {
            Answered::Refused(refusal) => {
                tracing::info!("refused a bundle to {}: {refusal}", peer.peer);
                shared.metrics.refused();
                Err(Box::new(plain(StatusCode::FORBIDDEN, &refusal.to_string())))
            }
            answer => Ok(answer),
        },
        other => Err(Box::new(said(other, shared.layout))),
    }
}

async fn bundle(State(shared): Server, Extension(peer): Extension<Peer>, request: Request) -> Response {
    let tag = match tag_of(&request) {
        Ok(tag) => tag,
        Err(refused) => return *refused,
    };
    let head = *request.method() == Method::HEAD;
    found(&shared, &peer, request.headers(), (tag, head)).await.unwrap_or_else(|refused| *refused)
}

/// How it stands with all bundles of the node.
async fn all(State(shared): Server, Extension(peer): Extension<Peer>) -> Response {
    match ask(&shared, &peer, What::Stands).await {
        Ok(Answered::Stands(stands)) => standing(StatusCode::OK, &stands),
        Ok(_) => busy(),
        Err(refused) => *refused,
    }
}

async fn found(
    shared: &Shared,
    peer: &Peer,
    headers: &HeaderMap,
    (tag, head): (Option<[u8; 32]>, bool),
) -> Result<Response, Box<Response>> {
    let Answered::Look(node, look) = ask(shared, peer, What::Look { tag }).await? else { return Ok(busy()) };
    let version = match look {
        Look::Version(version) => version,
        Look::Stands(stands) => {
            let code = if stands.bundle == Stand::Pending { StatusCode::ACCEPTED } else { StatusCode::NOT_FOUND };
            shared.metrics.served(word(stands.bundle));
            return Ok(standing(code, &stands));
        }
    };
    let etag = etag(&version);
    let value = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let has_it = value(IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == etag)
    });
    if has_it {
        shared.metrics.served("unchanged");
        return Ok(tagged(StatusCode::NOT_MODIFIED.into_response(), &etag));
    }
    // RFC 9110 §13.1.5: with another version, the range is of no use, and the whole is sent.
    let range = value(RANGE).filter(|_| value(IF_RANGE).is_none_or(|tag| tag == etag));
    let part = match range.map_or(Wanted::Whole, |range| wanted(range, version.length)) {
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
        Wanted::Nothing => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "the bundle has fewer bytes");
            header(&mut response, CONTENT_RANGE, format!("bytes */{}", version.length));
            return Ok(tagged(response, &etag));
        }
    };
    let share = match head {
        // No body is sent.
        true => None,
        false => shared.bulk.share(&node, version.length).await,
    };
    let length = part.as_ref().map_or(version.length, |part| part.end.saturating_sub(part.start));
    let body = match (head, share) {
        (true, _) => Body::empty(),
        (false, None) => return Ok(busy()),
        (false, Some(share)) => match bytes(shared, peer, version.bytes, version.id).await? {
            Some(bytes) => cut(bytes, part.as_ref(), share),
            // It was removed meanwhile. The node asks again.
            None => return Ok(busy()),
        },
    };
    let (status, outcome) =
        if part.is_some() { (StatusCode::PARTIAL_CONTENT, "part") } else { (StatusCode::OK, "whole") };
    shared.metrics.served(outcome);
    let mut response = (status, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.imprint.bundle"));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(part) = part {
        let text = format!("bytes {}-{}/{}", part.start, part.end.saturating_sub(1), version.length);
        header(&mut response, CONTENT_RANGE, text);
    }
    Ok(tagged(response, &etag))
}

async fn bytes(
    shared: &Shared,
    peer: &Peer,
    known: Option<Vec<u8>>,
    id: i64,
) -> Result<Option<Vec<u8>>, Box<Response>> {
    if known.is_some() {
        return Ok(known);
    }
    match ask(shared, peer, What::Bytes { id }).await? {
        Answered::Bytes(bytes) => Ok(bytes),
        _ => Ok(None),
    }
}

fn cut(bytes: Vec<u8>, part: Option<&std::ops::Range<u64>>, share: Share) -> Body {
    let bytes = Bytes::from(bytes);
    let bytes = match part {
        None => bytes,
        Some(part) => {
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            bytes.slice(at(part.start)..at(part.end).max(at(part.start)))
        }
    };
    Body::new(Held::new(bytes, share))
}

async fn upload(State(shared): Server, Extension(peer): Extension<Peer>, request: Request) -> Response {
    let answer = taken(&shared, &peer, request).await;
    let response = answer.unwrap_or_else(|refused| *refused);
    shared.metrics.uploaded(outcome(response.status()));
    response
}

async fn taken(shared: &Shared, peer: &Peer, request: Request) -> Result<Response, Box<Response>> {
    let refuse = |status, why: &str| Err(Box::new(plain(status, why)));
    let Some(tag) = tag_of(&request)? else {
        return refuse(StatusCode::BAD_REQUEST, "want ?tag=HEX, the tag of the bundle (docs/bundle.md)");
    };
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Some(length) = length else { return refuse(StatusCode::LENGTH_REQUIRED, "want Content-Length") };
    if peer.certificate.is_some() && length > MAX_UPLOAD {
        let why = format!("the upload has {length} bytes, and {MAX_UPLOAD} are the most");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, &why);
    }
    let answer = ask(shared, peer, What::MayUpload { tag }).await?;
    let Answered::May(node, may) = answer else { return Ok(busy()) };
    let reader = match may {
        May::Send(reader) => reader,
        May::Not(put) => {
            // A short body is read nevertheless: a client that is still writing could miss the answer.
            if length <= SHORT {
                let _ = read(request.into_body(), length).await;
            }
            return Ok(decided(&put));
        }
    };
    if let Some(after) = shared.checks.wait(&node, Instant::now()) {
        return Ok(failed_before(after));
    }
    let Some(share) = shared.uploads.share(&node, length).await else { return Ok(busy()) };
    let age = read(request.into_body(), length).await?;
    crash::point("bundle read");
    // A short body can unpack to as much as a long one, so each waits for its turn.
    let turn = match shared.checks.turn(&node).await {
        Ok(Some(turn)) => turn,
        Ok(None) => return Ok(busy()),
        Err(after) => return Ok(failed_before(after)),
    };
    let (bytes, name) = (age.clone(), node.clone());
    // Turn and share go along: the check goes on when the client has gone.
    let checking = tokio::task::spawn_blocking(move || {
        let checked = bundles::check(&bytes, &reader, &name, &tag);
        drop(turn);
        (checked, share)
    });
    let Ok((checked, _share)) = checking.await else { return Ok(super::fault()) };
    if checked.is_err() {
        shared.checks.failed(&node, Instant::now());
    }
    match ask(shared, peer, What::Put { tag, age, checked: Box::new(checked) }).await? {
        Answered::Put(node, put) => {
            if let Put::Stored(Standing { code: Some(code), bundle, .. }) = &put {
                tracing::info!("bundle {code} of {node} from {}: {}", peer.peer, word(*bundle));
            }
            Ok(decided(&put))
        }
        _ => Ok(busy()),
    }
}

fn failed_before(after: Duration) -> Response {
    let why = "too many uploads of this node within an hour were no bundle of it; come back later";
    later(StatusCode::TOO_MANY_REQUESTS, after, why)
}

/// The whole body, of exactly this length.
async fn read(mut body: Body, length: u64) -> Result<Bytes, Box<Response>> {
    let refused = |status, why| Box::new(plain(status, why));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let short = usize::try_from(SHORT).unwrap_or(usize::MAX);
    let reading = async {
        let mut bytes = Vec::with_capacity(length);
        let (mut until, mut want) = (Moment::now() + PROGRESS_TIME, short);
        loop {
            let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            // Short bodies have no share of the memory, and may be slow.
            let frame = if length > short { timeout_at(until, frame).await } else { Ok(frame.await) };
            let Some(frame) = frame.map_err(|_| Slow)? else { break };
            let Some(data) = frame.ok().map(|frame| frame.into_data().unwrap_or_default()) else { return Ok(None) };
            if bytes.len().saturating_add(data.len()) > length {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
            if bytes.len() >= want {
                (until, want) = (Moment::now() + PROGRESS_TIME, bytes.len().saturating_add(short));
            }
        }
        Ok((bytes.len() == length).then_some(bytes))
    };
    match timeout(BODY_TIME, reading).await {
        Ok(Ok(Some(bytes))) => Ok(bytes.into()),
        Ok(Ok(None)) => Err(refused(StatusCode::BAD_REQUEST, "the body is cut short")),
        Ok(Err(Slow)) | Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// A long body whose bytes come too slowly.
struct Slow;

fn decided(put: &Put) -> Response {
    match put {
        Put::Stored(stands) => standing(StatusCode::CREATED, stands),
        Put::Known(stands) => standing(StatusCode::OK, stands),
        Put::Waits(stands) => standing(StatusCode::CONFLICT, stands),
        Put::Denied(stands) => standing(StatusCode::FORBIDDEN, stands),
        Put::Off(why) => plain(StatusCode::FORBIDDEN, why),
        Put::Later(after, why) => later(StatusCode::TOO_MANY_REQUESTS, *after, why),
        Put::Bad(why) => plain(StatusCode::BAD_REQUEST, why),
    }
}

/// What became of an upload, for the counters.
fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        201 => "stored",
        200 => "known",
        409 => "waits",
        401 | 403 => "refused",
        429 | 503 => "later",
        _ => "bad",
    }
}

async fn available(State(shared): Server, Extension(peer): Extension<Peer>, request: Request) -> Response {
    let body = match timeout(BODY_TIME, to_bytes(request.into_body(), MAX_ANSWER)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let why = format!("body cut short or over {MAX_ANSWER} bytes");
            return plain(StatusCode::PAYLOAD_TOO_LARGE, &why);
        }
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let report = match Report::read(&body) {
        Ok(report) => report,
        Err(error) => return plain(StatusCode::BAD_REQUEST, &format!("the body is no report: {error}")),
    };
    match ask(&shared, &peer, What::Report(Box::new(report))).await {
        Ok(Answered::Reported(node, Reported::Noted)) => {
            tracing::info!("{node} from {} has reported", peer.peer);
            StatusCode::NO_CONTENT.into_response()
        }
        // A node that says the same again, or is let wait, fills no log.
        Ok(Answered::Reported(_, Reported::Known)) => StatusCode::NO_CONTENT.into_response(),
        Ok(Answered::Reported(_, Reported::Later(after, why))) => later(StatusCode::TOO_MANY_REQUESTS, after, &why),
        Ok(Answered::Reported(_, Reported::Unknown(why))) => plain(StatusCode::BAD_REQUEST, &why),
        Ok(_) => busy(),
        Err(refused) => *refused,
    }
}

/// `tag=HEX` of the query; `None`: there is none.
fn tag_of(request: &Request) -> Result<Option<[u8; 32]>, Box<Response>> {
    let query = request.uri().query().unwrap_or_default();
    let mut tags = query.split('&').filter_map(|item| item.strip_prefix("tag="));
    let Some(text) = tags.next() else { return Ok(None) };
    let tag = hex::decode(text).and_then(|bytes| bytes.try_into().ok()).filter(|_| tags.next().is_none());
    let refused =
        || Box::new(plain(StatusCode::BAD_REQUEST, "the tag in the query is not one of 64 hexadecimal digits"));
    tag.map(Some).ok_or_else(refused)
}

/// `"COUNTER-16HEX"`
fn etag(version: &Version) -> String {
    let digest = hex::encode(version.sha256.first_chunk::<8>().unwrap_or(&[0; 8]));
    format!("\"{}-{digest}\"", version.counter)
}

fn tagged(mut response: Response, etag: &str) -> Response {
    header(&mut response, ETAG, etag.to_owned());
    response
}

fn header(response: &mut Response, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(name, value);
    }
}

fn word(stand: Stand) -> &'static str {
    match stand {
        Stand::None => "none",
        Stand::Pending => "pending",
        Stand::Approved => "approved",
        Stand::Denied => "denied",
        Stand::Renew => "renew",
        Stand::Removed => "removed",
    }
}

/// How it stands, as JSON. A node that waits asks again.
fn standing(status: StatusCode, stands: &Standing) -> Response {
    let mut response = (status, Body::from(crate::json::line(stands))).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if stands.bundle == Stand::Pending && matches!(status, StatusCode::OK | StatusCode::ACCEPTED) {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY.as_secs()));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that sends this many bytes at once, and then nothing more.
    struct Stalled(usize);

    impl hyper::body::Body for Stalled {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            match std::mem::take(&mut self.0) {
                0 => std::task::Poll::Pending,
                length => std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(vec![0; length].into())))),
            }
        }
    }

    /// Attack: clients announce 17 MB and send nothing, so that all others wait for memory.
    #[tokio::test(start_paused = true)]
    async fn a_long_body_that_does_not_come_is_given_up_soon() {
        for (sent, length, seconds) in [(0, 17_000_000, 10), (100_000, 17_000_000, 10), (0, SHORT, 100)] {
            let begun = Moment::now();
            let refused = read(Body::new(Stalled(sent)), length).await.unwrap_err();
            assert_eq!(refused.status(), StatusCode::REQUEST_TIMEOUT);
            assert_eq!(begun.elapsed().as_secs(), seconds, "{sent} of {length}");
        }
    }
}
