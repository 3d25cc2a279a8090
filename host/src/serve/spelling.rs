//! The spelling of header names in answers. hyper writes them in title case, `Www-Authenticate`; some clients compare them
//! with the RFCs' spelling, case included: cisco/libest then does not find its challenge. Changes no values.

use std::convert::Infallible;
use std::io;
use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

/// A request with all header names whose spelling is not title case.
const SPELLED: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nWWW-Authenticate: x\r\nETag: x\r\n\r\n";

/// Extensions that make hyper spell a response's header names like this.
///
/// hyper documents (`preserve_header_case`) that it keeps a request's spelling in an extension, which a proxy may pass on
/// to a response. Only hyper can make this extension, so this function lets hyper read a request.
pub(super) async fn spelling() -> io::Result<Extensions> {
    let (mut client, server) = tokio::io::duplex(4096);
    client.write_all(SPELLED).await?;
    let found = Mutex::new(Extensions::new());
    let service = service_fn(|request: Request<Incoming>| {
        *found.lock().unwrap_or_else(PoisonError::into_inner) = request.extensions().clone();
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let served = http1::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(server), service).await;
    served.map_err(io::Error::other)?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use axum::http::header::{ETAG, HeaderValue, WWW_AUTHENTICATE};
    use tokio::io::AsyncReadExt;

    use super::*;

    /// The head of a response as our server writes it.
    async fn written(extensions: Extensions) -> String {
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let service = service_fn(|_: Request<Incoming>| {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
            response.headers_mut().insert(ETAG, HeaderValue::from_static("\"1\""));
            response.extensions_mut().extend(extensions.clone());
            async { Ok::<_, Infallible>(response) }
        });
        let mut builder = http1::Builder::new();
        let served = builder.title_case_headers(true).serve_connection(TokioIo::new(server), service);
        let mut head = String::new();
        let (served, read) = tokio::join!(served, client.read_to_string(&mut head));
        served.unwrap();
        read.unwrap();
        head
    }

    #[tokio::test]
    async fn names_are_spelled_as_the_rfcs_write_them() {
        // Premise: hyper itself writes title case.
        let head = written(Extensions::new()).await;
        assert!(head.contains("\r\nWww-Authenticate: Basic\r\n") && head.contains("\r\nEtag: \"1\"\r\n"), "{head}");
        let head = written(spelling().await.unwrap()).await;
        // RFC 9110 §11.6.1 and §8.8.3; all others stay in title case.
        assert!(head.contains("\r\nWWW-Authenticate: Basic\r\n") && head.contains("\r\nETag: \"1\"\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Length: 0\r\n"), "{head}");
    }
}
