//! Sends an event to the server of `--webhook`: one HTTP/1.1 POST on a connection of its own, over TCP or TLS. Redirects are not
//! followed, and nothing but the status of the answer is used.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use imprint::payload::{UrlHost, authority_parts};
use imprint::pem;
use imprint::shown::Printable;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long an event may take.
const LIMIT: Duration = Duration::from_secs(15);
/// The longest status line.
const STATUS: usize = 1024;

/// A server that is told.
#[derive(Clone)]
pub struct Webhook {
    host: UrlHost,
    port: u16,
    /// Path and query.
    path: String,
    /// With `https`.
    tls: Option<TlsConnector>,
}

/// A URL as it was given.
#[derive(Clone, Debug)]
pub struct Address {
    host: UrlHost,
    port: u16,
    path: String,
    is_https: bool,
}

/// Why a webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// An https URL without the CA of its server.
    #[error("--webhook with https:// needs the CA of that server: give --webhook-ca FILE")]
    NoCa,
    /// A CA without an https URL.
    #[error("--webhook-ca is for an https:// URL; with http:// nobody shows who he is")]
    NoTls,
    /// The file of the CA cannot be read.
    #[error("reading {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// The file holds no certificates.
    #[error("{} holds no certificate of a CA: want blocks \"CERTIFICATE\" in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// TLS cannot be set up.
    #[error("TLS for --webhook")]
    Tls(#[source] rustls::Error),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let want = || format!("{}: want http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH", Printable::given(text));
        let uri: Uri = text.parse().map_err(|_| want())?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(want()),
        };
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        // No name and password: they would be in the arguments of this program.
        let (host, port) = authority_parts(authority).map_err(|_| want())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Address { host, port: port.unwrap_or(if is_https { 443 } else { 80 }), path, is_https })
    }
}

impl Webhook {
    /// The server at this address. `ca`: a file with the CAs that its certificate may chain to.
    pub fn new(address: Address, ca: Option<&Path>) -> Result<Webhook, WebhookError> {
        let Address { host, port, path, is_https } = address;
        let tls = match (is_https, ca) {
            (true, None) => return Err(WebhookError::NoCa),
            (false, Some(_)) => return Err(WebhookError::NoTls),
            (false, None) => None,
            (true, Some(file)) => Some(connector(file)?),
        };
        Ok(Webhook { host, port, path, tls })
    }

    fn authority(&self) -> String {
        let host = match &self.host {
            UrlHost::Dns(name) => name.to_string(),
            UrlHost::Ip(ip) if ip.is_ipv6() => format!("[{ip}]"),
            UrlHost::Ip(ip) => ip.to_string(),
        };
        format!("{host}:{}", self.port)
    }

    /// Tells the server. It has the event when it answers with 2xx.
    pub(super) async fn tell(&self, event: &str) -> Result<(), String> {
        let told = timeout(LIMIT, self.post(event)).await;
        told.unwrap_or_else(|_| Err(format!("{} did not answer within {} s", self.authority(), LIMIT.as_secs())))
    }

    async fn post(&self, event: &str) -> Result<(), String> {
        let authority = self.authority();
        let failed = |error: std::io::Error| format!("{authority}: {error}");
        let stream = match &self.host {
            UrlHost::Dns(name) => TcpStream::connect((name.as_str(), self.port)).await,
            UrlHost::Ip(ip) => TcpStream::connect((*ip, self.port)).await,
        };
        let stream = stream.map_err(failed)?;
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: imprint-host/{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{event}",
            self.path,
            env!("CARGO_PKG_VERSION"),
            event.len()
        );
        let status = match &self.tls {
            None => exchange(stream, &request).await,
            Some(tls) => {
                let name = match &self.host {
                    UrlHost::Dns(name) => ServerName::try_from(name.to_string()).map_err(|error| error.to_string())?,
                    UrlHost::Ip(ip) => ServerName::from(*ip),
                };
                let stream = tls.connect(name, stream).await.map_err(failed)?;
                exchange(stream, &request).await
            }
        };
        match status.map_err(failed)? {
            Some(200..=299) => Ok(()),
            Some(status) => Err(format!("{authority} answered {status}, want 2xx")),
            None => Err(format!("{authority} gave no HTTP answer")),
        }
    }
}

/// Sends a request. The answer: the status.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> std::io::Result<Option<u16>> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut said = Vec::with_capacity(STATUS);
    while !said.contains(&b'\n') && said.len() < STATUS {
        let mut part = [0; 256];
        let count = stream.read(&mut part).await?;
        if count == 0 {
            break;
        }
        said.extend_from_slice(part.get(..count).unwrap_or_default());
    }
    let line = said.split(|b| *b == b'\n').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    Ok(words.next().filter(|_| is_http).and_then(|status| status.trim().parse().ok()))
}

fn connector(file: &Path) -> Result<TlsConnector, WebhookError> {
    let text = std::fs::read_to_string(file).map_err(|error| WebhookError::Read(file.to_owned(), error))?;
    let none = || WebhookError::NoCertificate(file.to_owned());
    let blocks = pem::decode("CERTIFICATE", &text).filter(|blocks| !blocks.is_empty()).ok_or_else(none)?;
    let mut roots = RootCertStore::empty();
    for der in blocks {
        roots.add(CertificateDer::from(der.to_vec())).map_err(|_| none())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(WebhookError::Tls)?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses() {
        let parsed = |text: &str| text.parse::<Address>().map(|a| (a.port, a.path, a.is_https)).ok();
        assert_eq!(parsed("http://127.0.0.1:8080/a?b=c"), Some((8080, "/a?b=c".to_owned(), false)));
        assert_eq!(parsed("https://engine.example.org"), Some((443, "/".to_owned(), true)));
        assert_eq!(parsed("http://[2001:db8::1]/x"), Some((80, "/x".to_owned(), false)));
        for wrong in ["", "engine", "ftp://a/", "http://", "http://u:p@a/", "/path", "http://a:0/", "https://a b/"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert!(matches!(Webhook::new(address("https://a/"), None), Err(WebhookError::NoCa)));
        assert!(matches!(Webhook::new(address("http://a/"), Some(Path::new("x"))), Err(WebhookError::NoTls)));
    }

    /// What a server answers, and what is made of it.
    #[tokio::test]
    async fn only_2xx_means_that_the_server_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let webhook = Webhook::new(format!("http://127.0.0.1:{port}/in").parse().unwrap(), None).unwrap();
        let rows = [
            ("HTTP/1.1 204 No Content\r\n\r\n", "Ok(())".to_owned()),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "Ok(())".to_owned()),
            ("HTTP/1.1 302 Found\r\n\r\n", format!("Err(\"127.0.0.1:{port} answered 302, want 2xx\")")),
            ("HTTP/1.1 503 Busy\r\n\r\n", format!("Err(\"127.0.0.1:{port} answered 503, want 2xx\")")),
            ("220 mail.example.org ESMTP\r\n", format!("Err(\"127.0.0.1:{port} gave no HTTP answer\")")),
            ("", format!("Err(\"127.0.0.1:{port} gave no HTTP answer\")")),
        ];
        for (answer, want) in rows {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut said = vec![0; 4096];
                let mut have = 0;
                while !said[..have].ends_with(b"{\"id\":1}") {
                    have += stream.read(&mut said[have..]).await.unwrap();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8(said[..have].to_vec()).unwrap()
            };
            let (said, told) = tokio::join!(serve, webhook.tell("{\"id\":1}"));
            assert!(said.starts_with("POST /in HTTP/1.1\r\n") && said.contains("\r\nContent-Length: 8\r\n"), "{said}");
            assert_eq!(format!("{told:?}"), want);
        }
    }
}
