//! EST over HTTP: paths, headers and status codes (RFC 7030 §3.2.2, §4.1, §4.2, §4.5). Every answer has a Date by the
//! server's clock; a node without a clock sets its clock by the Date. Decides nothing; the desk does.

mod bundles;
mod range;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, DATE, ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use imprint::payload::KeyType;
use imprint::time::Timestamp;
use tokio::time::{sleep, timeout};

use super::desk::{Asked, Said};
use super::guests::Place;
use super::lists::{Found, List};
use super::{LISTS_EVERY, Shared};
use crate::crash;
use crate::csr::{self, Csr, CsrError, shown};
use crate::enrol::{Answer, Credentials, Refusal};
use crate::est::{self, Layout};
use crate::origin::of_address;
use crate::x509;

/// The longest request body. A CSR with many names has a few kilobytes.
const BODY_BYTES: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(30);

/// A node that waits for an administrator asks again after this time: soon enough for a person at its console.
const RETRY: Duration = Duration::from_secs(5);
/// When the server is busy, clients come back after this many seconds and a random time up to as many more, so that clients
/// that were told together do not come back together.
const BUSY: u8 = 10;
/// When the disk is full, clients come back after this time: a person has to make room first.
const FULL: Duration = Duration::from_secs(30);

/// The client of a TLS connection.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) peer: IpAddr,
    /// The client's certificate, verified by TLS.
    pub(super) certificate: Option<Arc<[u8]>>,
    /// The answer to cacerts, DER.
    pub(super) ca_certs: Arc<[u8]>,
    pub(super) place: Place,
}

/// The client of a connection without TLS.
#[derive(Clone, Copy)]
pub(super) struct Asker(pub(super) IpAddr);

const CERTIFICATES: &str = "application/pkcs7-mime; smime-type=certs-only";

type Server = State<Arc<Shared>>;

/// The paths that are served over TLS. Each request has a [`Peer`] in its extensions.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    // RFC 7030 §3.2.2: the label selects one of several CAs. This server has one CA, so any label selects it.
    Router::new()
        .route("/.well-known/est/cacerts", get(ca_certs))
        .route("/.well-known/est/{label}/cacerts", get(ca_certs))
        .route("/.well-known/est/csrattrs", get(csr_attributes))
        .route("/.well-known/est/{label}/csrattrs", get(csr_attributes))
        .route("/.well-known/est/simpleenroll", post(simple_enroll))
        .route("/.well-known/est/{label}/simpleenroll", post(simple_enroll))
        .route("/.well-known/est/simplereenroll", post(simple_reenroll))
        .route("/.well-known/est/{label}/simplereenroll", post(simple_reenroll))
        .route("/crl/{file}", get(crl))
        .merge(bundles::router())
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "not an operation of this server") })
        .method_not_allowed_fallback(|| async {
            plain(StatusCode::METHOD_NOT_ALLOWED, "GET cacerts and csrattrs, POST simpleenroll and simplereenroll")
        })
        .layer(from_fn_with_state(shared.clone(), counted))
        .with_state(shared)
}

/// The paths that are served without TLS: CRLs, which are signed themselves. Each request has an [`Asker`].
pub(super) fn plain_router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/crl/{file}", get(crl))
        .fallback(|| async { plain(StatusCode::BAD_REQUEST, "this server speaks EST over TLS: use https://") })
        .layer(from_fn_with_state(shared.clone(), counted))
        .with_state(shared)
}

/// The paths that are served for monitoring.
pub(super) fn metrics_router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "GET /metrics") })
        .with_state(shared)
}

/// Adds a Date to every answer and counts it. Answers connections without a place: come back later.
async fn counted(State(shared): Server, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let operation = operation(request.uri().path());
    let away = request.extensions().get::<Peer>().is_some_and(|peer| peer.place == Place::Away);
    let mut response = if away { busy() } else { next.run(request).await };
    if let Ok(date) = HeaderValue::try_from(http_date((shared.clock)())) {
        response.headers_mut().insert(DATE, date);
    }
    if [WWW_AUTHENTICATE, ETAG].iter().any(|name| response.headers().contains_key(name)) {
        response.extensions_mut().extend(shared.spelling.clone());
    }
    shared.metrics.answered(operation, response.status().as_u16(), begun);
    response
}

/// A name for the counters. Unknown paths share one name, so that clients cannot make more counters.
fn operation(path: &str) -> &'static str {
    let last = path.rsplit('/').next().unwrap_or_default();
    let known = ["cacerts", "csrattrs", "simpleenroll", "simplereenroll"];
    let found = known.into_iter().find(|known| *known == last && path.starts_with("/.well-known/est/"));
    let found = found.or_else(|| bundles::operation(path));
    found.unwrap_or(if path.starts_with("/crl/") { "crl" } else { "other" })
}

async fn ca_certs(State(shared): Server, Extension(peer): Extension<Peer>) -> Response {
    encoded(CERTIFICATES, &peer.ca_certs, shared.layout)
}

async fn csr_attributes(State(shared): Server, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Response {
    let credentials = match credentials(&headers) {
        Ok(credentials) => credentials,
        Err(refused) => return *refused,
    };
    if credentials.is_none() && peer.certificate.is_none() {
        return said(Said::Key(Ok(KeyType::default())), shared.layout);
    }
    let node = credentials.as_ref().map_or_else(|| "-".to_owned(), |credentials| shown(&credentials.name));
    let name = credentials.as_ref().map(|credentials| credentials.name.clone());
    let asked = || Asked::Key { credentials, certificate: peer.certificate.clone() };
    let answer = by_token(&shared, &peer, name, asked).await;
    if let Said::Key(Err(refusal)) = &answer {
        tracing::info!("refused csrattrs {node} from {}: {refusal}", peer.peer);
    }
    said(answer, shared.layout)
}

async fn simple_enroll(State(shared): Server, Extension(peer): Extension<Peer>, request: Request) -> Response {
    let credentials = match credentials(request.headers()) {
        Ok(credentials) => credentials,
        Err(refused) => return *refused,
    };
    let csr = match csr_of(request).await {
        Ok(csr) => csr,
        Err(refused) => return *refused,
    };
    crash::point("asked");
    let name = credentials.as_ref().map(|credentials| credentials.name.clone());
    let asked = || Asked::First { csr: Csr::parse(&csr), credentials };
    said(by_token(&shared, &peer, name, asked).await, shared.layout)
}

/// Asks the desk, unless this address or record has had too many wrong tokens.
async fn by_token(shared: &Shared, peer: &Peer, name: Option<String>, asked: impl FnOnce() -> Asked) -> Said {
    let wait = name.as_ref().and_then(|name| shared.tries.wait(peer.peer, name, Instant::now()));
    if let Some(after) = wait {
        return Said::Answer(Answer::Later { after, detail: "too many wrong tokens; come back later".to_owned() });
    }
    let said = ask(shared, peer, asked()).await;
    let wrong = match &said {
        Said::Answer(Answer::Refused(refusal)) | Said::Key(Err(refusal)) => refusal.is_unknown(),
        _ => false,
    };
    if wrong && let Some(name) = name {
        shared.tries.wrong(peer.peer, &name, Instant::now());
    }
    said
}

/// Asks the desk. Of requests with an invalid CSR only a few reach it, and get a line in the audit log: anybody can send
/// them, and there is nothing to decide. The others are refused here, with a line in the server's log and a count.
async fn ask(shared: &Shared, peer: &Peer, asked: Asked) -> Said {
    if let Asked::First { csr: Err(error), .. } | Asked::Renewal { csr: Err(error), .. } = &asked
        && !shared.bad.turn(Instant::now())
    {
        tracing::info!("refused a CSR from {}: {error}", peer.peer);
        shared.metrics.refused();
        return Said::Answer(Answer::Refused(Refusal::Csr(error.clone())));
    }
    shared.desk.ask(asked, peer.peer.to_string()).await
}

async fn simple_reenroll(State(shared): Server, Extension(peer): Extension<Peer>, request: Request) -> Response {
    let csr = match csr_of(request).await {
        Ok(csr) => csr,
        Err(refused) => return *refused,
    };
    crash::point("asked");
    let asked = Asked::Renewal { csr: Csr::parse(&csr), certificate: peer.certificate.clone() };
    said(ask(&shared, &peer, asked).await, shared.layout)
}

/// `/crl/KEYID.crl`, the CRL of the intermediate with that key identifier. Clients are anonymous, so each address has a
/// limited rate: a request waits for its turn, or is told to come back.
async fn crl(State(shared): Server, Path(file): Path<String>, request: Request) -> Response {
    let extensions = request.extensions();
    let asker = extensions.get::<Asker>().map(|asker| asker.0);
    let peer = asker.or_else(|| extensions.get::<Peer>().map(|peer| peer.peer));
    if let Some(peer) = peer {
        match shared.pace.turn(of_address(peer), Instant::now()) {
            Ok(wait) if wait.is_zero() => {}
            Ok(wait) => sleep(wait).await,
            Err(after) => return later(StatusCode::TOO_MANY_REQUESTS, after, "too many requests from this address"),
        }
    }
    let Some(issuer) = file.strip_suffix(".crl") else {
        return plain(StatusCode::NOT_FOUND, "want /crl/KEYID.crl");
    };
    match shared.lists.get(issuer).await {
        Found::List(list) => crl_response(list, request.headers()),
        Found::NoIssuer => plain(StatusCode::NOT_FOUND, "no intermediate CA of this server has that key identifier"),
        Found::Fault(why) => {
            tracing::error!("no list of revoked certificates: {why}");
            fault()
        }
    }
}

/// The answer with a CRL, with ETag and Last-Modified for conditional requests (RFC 9110 §13.1).
fn crl_response(list: List, headers: &HeaderMap) -> Response {
    let (tag, made) = (format!("\"{}\"", list.number), http_date(list.made_at));
    let said = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let has_it = match said(IF_NONE_MATCH) {
        Some(tags) => tags.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag),
        // Clients send back the Last-Modified that they got, so the texts are compared.
        None => said(IF_MODIFIED_SINCE) == Some(made.as_str()),
    };
    let mut response = if has_it {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/pkix-crl"))], list.der).into_response()
    };
    let age = format!("max-age={}", LISTS_EVERY.as_secs());
    for (name, text) in [(ETAG, tag), (LAST_MODIFIED, made), (CACHE_CONTROL, age)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn metrics(State(shared): Server) -> Response {
    shared.metrics.waiting.set(i64::try_from(shared.desk.waiting()).unwrap_or(i64::MAX));
    // If the desk is too busy for that, the counts stay as they were.
    if let Said::Counts(pending, available) = shared.desk.ask(Asked::Counts, String::new()).await {
        shared.metrics.bundles_pending.set(pending);
        shared.metrics.nodes_available.set(available);
    }
    match shared.metrics.text() {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => failed(&error.to_string()),
    }
}

/// The request's name and token, if it has them.
fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, Box<Response>> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let credentials = value.to_str().ok().and_then(est::basic);
    let refused = || Box::new(plain(StatusCode::BAD_REQUEST, "want Authorization: Basic with node name and token"));
    credentials.map(Some).ok_or_else(refused)
}

/// The CSR in the body.
async fn csr_of(request: Request) -> Result<Vec<u8>, Box<Response>> {
    let refused = |status, why: &str| Err(Box::new(plain(status, why)));
    let (parts, body) = request.into_parts();
    if !is_pkcs10(&parts.headers) {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "want Content-Type: application/pkcs10");
    }
    let body = match timeout(BODY_TIME, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, &format!("body cut short or over {BODY_BYTES} bytes"));
        }
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    est::csr(&body).or_else(|error| refused(StatusCode::BAD_REQUEST, &error.to_string()))
}

fn said(said: Said, layout: Layout) -> Response {
    match said {
        Said::Answer(answer) => respond(answer, layout),
        Said::Key(Ok(key)) => match csr::attributes(key) {
            Ok(der) => encoded("application/csrattrs", &der, layout),
            Err(error) => failed(&error.to_string()),
        },
        // A wrong name or token gets a challenge (RFC 9110 §15.5.2).
        Said::Key(Err(refusal @ Refusal::Unknown { .. })) => {
            unauthorized(plain(StatusCode::UNAUTHORIZED, &refusal.to_string()))
        }
        Said::Key(Err(refusal)) => plain(StatusCode::FORBIDDEN, &refusal.to_string()),
        Said::Noted => StatusCode::NO_CONTENT.into_response(),
        // Answers to questions that are asked at a door.
        Said::Admission(_)
        | Said::Payload(_)
        | Said::Fresh(_)
        | Said::Ended
        | Said::Decided(_)
        | Said::Latest(_)
        | Said::Version(_)
        | Said::Bundle(_)
        | Said::Counts(..) => failed("the desk has answered another question"),
        Said::Fault(why) => failed(&why),
        Said::Full => busy(),
        Said::NoRoom => later(
            StatusCode::SERVICE_UNAVAILABLE,
            FULL,
            "the server's disk is full; make room there, then nodes can go on",
        ),
    }
}

fn busy() -> Response {
    let chance = x509::random::<1>().map_or(0, |[byte]| byte % BUSY);
    let after = Duration::from_secs(u64::from(BUSY.saturating_add(chance)));
    later(StatusCode::SERVICE_UNAVAILABLE, after, "the server has too much to do; come back later")
}

fn later(status: StatusCode, after: Duration, reason: &str) -> Response {
    let mut response = plain(status, reason);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    response
}

fn respond(answer: Answer, layout: Layout) -> Response {
    match answer {
        // Only the certificate (RFC 7030 §4.2.3); the chain is in cacerts.
        Answer::Issued { der, .. } => match est::certs_only(&[&der]) {
            Ok(der) => encoded(CERTIFICATES, &der, layout),
            Err(error) => failed(&error.to_string()),
        },
        // RFC 7030 §4.2.3. No body: some clients fail on one.
        Answer::Pending { .. } => {
            (StatusCode::ACCEPTED, [(RETRY_AFTER, HeaderValue::from(RETRY.as_secs()))], Body::empty()).into_response()
        }
        // RFC 6585 §4.
        Answer::Later { after, detail } => later(StatusCode::TOO_MANY_REQUESTS, after, &detail),
        // No body either: Bouncy Castle's client waits for this answer before it sends name and token, and it closes the
        // answer unread, so a body makes it fail.
        Answer::Unauthorized => unauthorized(StatusCode::UNAUTHORIZED.into_response()),
        Answer::Refused(refusal @ Refusal::Csr(CsrError::NotDer(_))) => {
            plain(StatusCode::BAD_REQUEST, &refusal.to_string())
        }
        Answer::Refused(refusal) => plain(StatusCode::FORBIDDEN, &refusal.to_string()),
    }
}

fn unauthorized(mut response: Response) -> Response {
    let challenge = HeaderValue::from_static("Basic realm=\"imprint\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// A body in base64. RFC 8951 §3.1 ignores Content-Transfer-Encoding; older clients require it, so it is sent.
fn encoded(kind: &'static str, der: &[u8], layout: Layout) -> Response {
    let kind = HeaderValue::from_static(kind);
    let encoding = HeaderValue::from_static("base64");
    let name = HeaderName::from_static("content-transfer-encoding");
    ([(CONTENT_TYPE, kind), (name, encoding)], est::encoded(der, layout)).into_response()
}

/// An error with one line of text, for the node's console.
fn plain(status: StatusCode, reason: &str) -> Response {
    let mut response = (status, Body::from(format!("{reason}\n"))).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}

/// An internal error. The reason goes to the server's own log only.
fn failed(why: &str) -> Response {
    tracing::error!("cannot enrol: {why}");
    fault()
}

fn fault() -> Response {
    plain(StatusCode::INTERNAL_SERVER_ERROR, "the server has a fault; see its log")
}

fn is_pkcs10(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/pkcs10")
}

/// IMF-fixdate (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(at: Timestamp) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // RFC 9110 §5.6.7
        assert_eq!(http_date(Timestamp::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(Timestamp::from_secs(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(Timestamp::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
