//! Many nodes with their keys and requests, and a server in a process of its own. Contains no tests.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use imprint::est;
use imprint::identity::Identity;
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::time::{Deadline, Timestamp};
use imprint_host::compose::Options;
use imprint_host::state::State;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Long enough for everything that happens at all, also on a machine that does other things besides.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A site with nodes that have one key each, and ask with it until they have their certificate.
pub struct Fleet {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub client: Arc<ClientConfig>,
    pub nodes: Vec<(String, Vec<u8>)>,
    _port: OwnedFd,
}

pub struct Serve(pub Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of 127.0.0.1 that is nobody else's while the socket lives: bound without listening, so that the server gets it.
fn reserved() -> (OwnedFd, SocketAddr) {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let port = getsockname::<SockaddrIn>(socket.as_raw_fd()).unwrap().port();
    (socket, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

impl Fleet {
    pub fn new(nodes: usize) -> Fleet {
        let dir = tempfile::tempdir().unwrap();
        let (port, address) = reserved();
        let url = EstUrl::try_from(format!("https://{address}/.well-known/est").as_str()).unwrap();
        let now = Timestamp::system();
        let mut state = State::init(&dir.path().join("state"), &[url], now).unwrap();
        let names: Vec<String> = (0..nodes).map(|number| format!("node{number:04}")).collect();
        let record = |name: &String| (name.clone(), format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\n"));
        state.add_nodes(&names.iter().map(record).collect::<Vec<_>>(), false, now).unwrap();
        let seeded = Seeded::ready(Deadline::after(LIMIT)).unwrap();
        let request = |bytes: &[u8]| {
            let Enrolment::Csr(csr) = Payload::unwrapped(bytes).unwrap().enrolment else { panic!("a CSR") };
            let identity = Identity::generate(&SubjectPlan { names: csr.names, key: csr.key }, &seeded).unwrap();
            let token = csr.token.unwrap().secret;
            let basic = Base64::encode_string(format!("{}:{}", csr.name, token.expose()).as_bytes());
            let body = Base64::encode_string(identity.csr());
            let length = body.len();
            let head = format!(
                "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: \
                 Basic {basic}\r\nContent-Type: application/pkcs10\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            (csr.name.to_string(), head.into_bytes())
        };
        let payloads = state.payloads(&names, &Options::default(), now).unwrap();
        let nodes = payloads.iter().map(|composed| request(&composed.bytes)).collect();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(state.ca.root().der().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let client = Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth());
        Fleet { dir, address, client, nodes, _port: port }
    }

    pub fn serve(&self, crash: &str) -> Serve {
        let child = Command::new(env!("CARGO_BIN_EXE_imprint-host"))
            .arg("--dir")
            .arg(self.dir.path().join("state"))
            .args(["serve", "--listen", &self.address.to_string()])
            .env("IMPRINT_HOST_CRASH", crash)
            .stderr(Stdio::null())
            .spawn();
        Serve(child.unwrap())
    }

    /// One try. The certificate, or why there was none.
    pub fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let text = self.exchange(TcpStream::connect(self.address)?, request)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no answer"))?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(text));
        }
        let certificates = est::certs_only(&est::base64(body.as_bytes()).unwrap()).unwrap();
        Ok(certificates.into_iter().next().unwrap())
    }

    /// A request over TLS, and the answer to its end.
    pub fn exchange(&self, stream: TcpStream, request: &[u8]) -> io::Result<String> {
        stream.set_nodelay(true)?;
        if stream.read_timeout()?.is_none() {
            stream.set_read_timeout(Some(LIMIT))?;
        }
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(self.client.clone(), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        String::from_utf8(answer).map_err(io::Error::other)
    }

    /// As often as it takes.
    pub fn insist(&self, request: &[u8]) -> Vec<u8> {
        let start = Instant::now();
        loop {
            match self.ask(request) {
                Ok(certificate) => return certificate,
                Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Until it listens.
    pub fn listening(&self) {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(start.elapsed() < LIMIT, "it does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
