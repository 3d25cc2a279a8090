//! EST over HTTP: paths, headers and status codes (RFC 7030 §3.2.2, §4.1, §4.2). Every answer has a Date by the
//! server's clock; a node without a clock sets its own by it.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use imprint::time::Timestamp;
use tokio::time::timeout;

use super::Shared;
use crate::csr::CsrError;
use crate::enrol::{self, Answer, Refusal};
use crate::est;

/// A CSR with many names is a few kilobytes.
const BODY_BYTES: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(30);

/// How soon a node that waits for an administrator asks again: soon enough for one who watches its console.
const RETRY_SECONDS: &str = "5";

/// What a handler knows.
#[derive(Clone)]
struct Context {
    shared: Arc<Shared>,
    peer: SocketAddr,
    /// The client's, verified.
    certificate: Option<Arc<[u8]>>,
}

pub(super) fn router(shared: Arc<Shared>, peer: SocketAddr, certificate: Option<Vec<u8>>) -> Router {
    let context = Context { shared, peer, certificate: certificate.map(Arc::from) };
    // RFC 7030 §3.2.2: the label names one of several CAs. Here is one, so every label means it.
    Router::new()
        .route("/.well-known/est/cacerts", get(ca_certs))
        .route("/.well-known/est/{label}/cacerts", get(ca_certs))
        .route("/.well-known/est/simpleenroll", post(simple_enroll))
        .route("/.well-known/est/{label}/simpleenroll", post(simple_enroll))
        .route("/.well-known/est/simplereenroll", post(simple_reenroll))
        .route("/.well-known/est/{label}/simplereenroll", post(simple_reenroll))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "not an EST operation of this server") })
        .method_not_allowed_fallback(|| async {
            plain(StatusCode::METHOD_NOT_ALLOWED, "GET cacerts, POST simpleenroll and simplereenroll")
        })
        .layer(from_fn_with_state(context.clone(), dated))
        .with_state(context)
}

async fn dated(State(context): State<Context>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Ok(date) = HeaderValue::try_from(http_date((context.shared.clock)())) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

async fn ca_certs(State(context): State<Context>) -> Response {
    certificates(context.shared.ca_certs.clone())
}

async fn simple_enroll(State(context): State<Context>, request: Request) -> Response {
    let credentials = match request.headers().get(AUTHORIZATION) {
        None => None,
        Some(value) => match value.to_str().ok().and_then(est::basic) {
            Some(credentials) => Some(credentials),
            None => return plain(StatusCode::BAD_REQUEST, "want Authorization: Basic with node name and token"),
        },
    };
    let csr = match csr_of(request).await {
        Ok(csr) => csr,
        Err(refused) => return *refused,
    };
    let peer = context.peer.ip().to_string();
    decided(context.shared, move |state, now| {
        let crate::state::State { ca, store, urls } = state;
        let request = enrol::Request { csr: &csr, credentials, peer: &peer };
        enrol::simple_enroll(store, ca, urls, &request, now)
    })
    .await
}

async fn simple_reenroll(State(context): State<Context>, request: Request) -> Response {
    let csr = match csr_of(request).await {
        Ok(csr) => csr,
        Err(refused) => return *refused,
    };
    let (peer, certificate) = (context.peer.ip().to_string(), context.certificate);
    decided(context.shared, move |state, now| {
        let crate::state::State { ca, store, urls } = state;
        enrol::simple_reenroll(store, ca, urls, &csr, certificate.as_deref(), &peer, now)
    })
    .await
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

/// Asks `enrol`, and says what it answers. The store waits for the disk; that is no work for a thread of the reactor.
async fn decided(
    shared: Arc<Shared>,
    decide: impl FnOnce(&mut crate::state::State, Timestamp) -> Result<Answer, enrol::EnrolError> + Send + 'static,
) -> Response {
    let decided = tokio::task::spawn_blocking(move || {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        decide(&mut state, (shared.clock)())
    });
    match decided.await {
        Ok(Ok(answer)) => respond(answer),
        Ok(Err(error)) => failed(&imprint::chain::chain(&error)),
        Err(error) => failed(&error.to_string()),
    }
}

fn respond(answer: Answer) -> Response {
    match answer {
        // Exactly the certificate (RFC 7030 §4.2.3); clients that want the chain ask for cacerts.
        Answer::Issued { der, .. } => match est::certs_only(&[&der]) {
            Ok(body) => certificates(body),
            Err(error) => failed(&error.to_string()),
        },
        // RFC 7030 §4.2.3. Without a body: some clients take none.
        Answer::Pending { .. } => {
            (StatusCode::ACCEPTED, [(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS))], Body::empty())
                .into_response()
        }
        Answer::Unauthorized => {
            let mut response = plain(StatusCode::UNAUTHORIZED, "want node name and token");
            let challenge = HeaderValue::from_static("Basic realm=\"imprint\", charset=\"UTF-8\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            response
        }
        Answer::Refused(refusal @ Refusal::Csr(CsrError::NotDer(_))) => {
            plain(StatusCode::BAD_REQUEST, &refusal.to_string())
        }
        Answer::Refused(refusal) => plain(StatusCode::FORBIDDEN, &refusal.to_string()),
    }
}

fn certificates(body: String) -> Response {
    let kind = HeaderValue::from_static("application/pkcs7-mime; smime-type=certs-only");
    let encoding = HeaderValue::from_static("base64");
    let name = HeaderName::from_static("content-transfer-encoding");
    ([(CONTENT_TYPE, kind), (name, encoding)], body).into_response()
}

/// One line for the node's console.
fn plain(status: StatusCode, reason: &str) -> Response {
    let mut response = (status, Body::from(format!("{reason}\n"))).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}

/// The reason is for the server's own log.
fn failed(why: &str) -> Response {
    tracing::error!("cannot enrol: {why}");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "the server has a fault; see its log")
}

fn is_pkcs10(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/pkcs10")
}

/// IMF-fixdate (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(at: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]; // 1970-01-01 was a Thursday
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let pick = |names: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or("?")
    };
    // 2026-11-22T23:46:08Z
    let text = at.to_string();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let month = part(5, 7).parse::<u64>().unwrap_or(0).wrapping_sub(1);
    let day = pick(&DAYS, at.as_secs() / 86_400 % 7);
    format!("{day}, {} {} {} {} GMT", part(8, 10), pick(&MONTHS, month), part(0, 4), part(11, 19))
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
