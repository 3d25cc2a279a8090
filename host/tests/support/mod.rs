//! A state directory, a server in this process with a clock of its own, CSRs made by openssl, and a client. Contains no
//! tests.
#![allow(dead_code, unreachable_pub)]

pub mod books;
pub mod command;
pub mod door;
pub mod fleet;
pub mod stateless;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64ct::{Base64, Encoding};
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::time::Timestamp;
use imprint_host::compose::Options;
use imprint_host::est::Layout;
use imprint_host::serve::{Config, Server};
use imprint_host::state::State;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, StreamOwned};

pub const URL: &str = "https://127.0.0.1:8443/.well-known/est";
pub const NODE: &str = "name = \"node1\"\nsubject = [\"CN=node1.example.org\", \"O=Example\"]\n\
                        sans = [\"dns:node1.example.org\", \"ip:192.0.2.10\"]\n";
pub const SUBJECT: &str = "/CN=node1.example.org/O=Example";
pub const SANS: &str = "subjectAltName=DNS:node1.example.org,IP:192.0.2.10";

/// A site: state, server, clock.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub server: Server,
    pub now: Arc<AtomicU64>,
    keys: AtomicU64,
    answers: AtomicU64,
}

pub fn start(records: &[&str]) -> Site {
    start_with(records, Layout::Wrapped)
}

pub fn start_with(records: &[&str], layout: Layout) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let start = Timestamp::from_secs(Timestamp::system().as_secs());
    let url = EstUrl::try_from(URL).unwrap();
    let mut state = State::init(&dir.path().join("state"), &[url], start).unwrap();
    let files: Vec<_> = records.iter().map(|text| ("node.toml".to_owned(), (*text).to_owned())).collect();
    state.add_nodes(&files, false, start).unwrap();
    let now = Arc::new(AtomicU64::new(start.as_secs()));
    let (shared, dir_state) = (now.clone(), dir.path().join("state"));
    let server = Server::start(Config {
        dir: dir_state,
        // Where the site's URL says that it is only in the certificates.
        listen: "127.0.0.1:0".parse().unwrap(),
        metrics: Some("127.0.0.1:0".parse().unwrap()),
        doors: Vec::new(),
        layout,
        tell: Default::default(),
        clock: Arc::new(move || Timestamp::from_secs(shared.load(Ordering::SeqCst))),
    });
    Site { dir, server: server.unwrap(), now, keys: AtomicU64::new(0), answers: AtomicU64::new(0) }
}

impl Site {
    pub fn state(&self) -> State {
        State::open(&self.dir.path().join("state")).unwrap()
    }

    pub fn clock(&self) -> Timestamp {
        Timestamp::from_secs(self.now.load(Ordering::SeqCst))
    }

    pub fn pass(&self, duration: Duration) {
        self.now.fetch_add(duration.as_secs(), Ordering::SeqCst);
    }

    /// The token of a new payload.
    pub fn token(&self, node: &str, options: &Options) -> String {
        let made = self.state().payload(node, options, self.clock()).unwrap();
        match Payload::unwrapped(&made.bytes).unwrap().enrolment {
            Enrolment::Csr(csr) => csr.token.unwrap().secret.expose().to_owned(),
            Enrolment::Credentials(_) => panic!("a payload with credentials"),
        }
    }

    /// A new key and a CSR for node1 as openssl makes it. `with` are more arguments of `openssl req`.
    pub fn csr(&self, subject: &str, with: &[&str]) -> Vec<u8> {
        self.csr_for(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], subject, with)
    }

    /// The CSR that [`NODE`] is a record for, with a new key.
    pub fn good(&self) -> Vec<u8> {
        self.csr(SUBJECT, &["-addext", SANS])
    }

    pub fn csr_for(&self, key: &[&str], subject: &str, with: &[&str]) -> Vec<u8> {
        let number = self.keys.fetch_add(1, Ordering::SeqCst);
        let file = |name: &str| self.dir.path().join(format!("{number}.{name}")).display().to_string();
        let (config, key_file, csr_file) = (file("cnf"), file("key"), file("csr"));
        std::fs::write(&config, "[req]\ndistinguished_name = none\nstring_mask = utf8only\n[none]\n").unwrap();
        let fixed = ["-nodes", "-keyout", &key_file, "-outform", "DER", "-out", &csr_file];
        // Without -subj the configuration has the last word, and may ask for attributes.
        let subject: &[&str] = if subject.is_empty() { &[] } else { &["-subj", subject] };
        run("openssl", &[&["req", "-new", "-config", &config], key, &fixed, subject, with].concat());
        std::fs::read(csr_file).unwrap()
    }

    pub fn enroll(&self, credentials: Option<(&str, &str)>, csr: &[u8]) -> Answer {
        let authorization = credentials.map(|(name, token)| basic(name, token)).unwrap_or_default();
        self.post("simpleenroll", &format!("{authorization}Content-Type: application/pkcs10\r\n"), &wrapped(csr))
    }

    pub fn post(&self, operation: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!(
            "POST /.well-known/est/{operation} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Without TLS. Head and body.
    pub fn plain(&self, server: std::net::SocketAddr, path: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(server).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end + 4..].to_vec())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").as_bytes())
    }

    pub fn send(&self, request: &[u8]) -> Answer {
        self.exchange(&[&rustls::version::TLS13], request)
    }

    /// Sends one request and reads to the end; without close_notify that is an error. The client's clock is the site's.
    pub fn exchange(&self, versions: &[&'static rustls::SupportedProtocolVersion], request: &[u8]) -> Answer {
        self.exchange_on(TcpStream::connect(self.server.local_addr()).unwrap(), versions, request)
    }

    pub fn exchange_on(
        &self,
        stream: TcpStream,
        versions: &[&'static rustls::SupportedProtocolVersion],
        request: &[u8],
    ) -> Answer {
        self.exchange_as(None, stream, versions, request)
    }

    /// A request of a client that shows this certificate, whose key was made for the CSR of that number.
    pub fn shows(&self, certificate: &Path, number: u64, request: &[u8]) -> Answer {
        let stream = TcpStream::connect(self.server.local_addr()).unwrap();
        let key = self.dir.path().join(format!("{number}.key"));
        self.exchange_as(Some((certificate, &key)), stream, &[&rustls::version::TLS13], request)
    }

    fn exchange_as(
        &self,
        client: Option<(&Path, &Path)>,
        stream: TcpStream,
        versions: &[&'static rustls::SupportedProtocolVersion],
        request: &[u8],
    ) -> Answer {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.state().ca.root().der().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_details(provider, Arc::new(SiteClock(self.now.clone())));
        let config = config.with_protocol_versions(versions).unwrap();
        let config = config.with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let intermediate = self.dir.path().join("state/intermediate.pem");
                let files = [certificate, intermediate.as_path()];
                let chain = files.map(|path| CertificateDer::from_pem_file(path).unwrap()).to_vec();
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(request).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer that ends with close_notify");
        let text = String::from_utf8(bytes).expect("an answer that is text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let group = stream.conn.negotiated_key_exchange_group().map(|group| group.name());
        Answer { status, head: head.to_owned(), body: body.to_owned(), group }
    }

    /// The certificate in an answer, verified by openssl against the root.
    pub fn verified(&self, answer: &Answer) -> PathBuf {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let number = self.answers.fetch_add(1, Ordering::SeqCst);
        let (p7, pem) = (self.dir.path().join("answer.p7"), self.dir.path().join(format!("answer{number}.pem")));
        std::fs::write(&p7, Base64::decode_vec(&answer.body.replace('\n', "")).unwrap()).unwrap();
        let (p7, out) = (p7.to_str().unwrap(), pem.to_str().unwrap());
        run("openssl", &["pkcs7", "-inform", "DER", "-in", p7, "-print_certs", "-out", out]);
        let text = std::fs::read_to_string(&pem).unwrap();
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 1, "exactly one certificate");
        let state = self.dir.path().join("state");
        let (root, chain) = (state.join("root.pem"), state.join("intermediate.pem"));
        let at = self.clock().as_secs().to_string();
        let verify = ["verify", "-purpose", "sslclient", "-x509_strict", "-attime", &at, "-CAfile"];
        run("openssl", &[&verify[..], &[root.to_str().unwrap(), "-untrusted", chain.to_str().unwrap(), out]].concat());
        pem
    }
}

/// The head as it came, and the body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    pub group: Option<NamedGroup>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[derive(Debug)]
struct SiteClock(Arc<AtomicU64>);

impl TimeProvider for SiteClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::SeqCst))))
    }
}

pub fn basic(name: &str, token: &str) -> String {
    format!("Authorization: Basic {}\r\n", Base64::encode_string(format!("{name}:{token}").as_bytes()))
}

/// 64 columns, as libest sends it.
pub fn wrapped(der: &[u8]) -> Vec<u8> {
    let text = Base64::encode_string(der);
    text.as_bytes().chunks(64).flat_map(|line| [line, b"\n"].concat()).collect()
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}: apt-get install {program}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn shown(pem: &Path) -> String {
    run("openssl", &["x509", "-in", pem.to_str().unwrap(), "-noout", "-text"])
}
