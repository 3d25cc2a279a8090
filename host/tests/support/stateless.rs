//! A site whose nodes have certificates and bundle keys, their requests over TLS, and a server in a process of its own or in this
//! one. Contains no tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imprint::age::Identity;
use imprint::bundle::answer::Standing;
use imprint::bundle::{Bundle, Content, Entry, EntryPath};
use imprint::hex;
use imprint::payload::EstUrl;
use imprint::secret::Secret;
use imprint::time::Timestamp;
use imprint_host::bundles;
use imprint_host::csr::Csr;
use imprint_host::enrol::{self, Answer as Enrolled, Credentials, Proof, Request};
use imprint_host::est::Layout;
use imprint_host::serve::{Config, Server, Tell};
use imprint_host::state::State;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Long enough for everything that happens at all, also on a machine that does other things besides.
pub const LIMIT: Duration = Duration::from_secs(300);

pub struct Site {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub nodes: Vec<Node>,
    pub strangers: Arc<ClientConfig>,
    _port: OwnedFd,
}

pub struct Node {
    pub name: String,
    /// What it shows in the handshake.
    pub client: Arc<ClientConfig>,
    pub identity: Identity,
    /// The code of its certificate's key.
    pub code: String,
}

/// The head as it came, and the body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn standing(&self) -> Standing {
        Standing::read(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
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

impl Site {
    /// `records`: the name of each node, and what its record says about bundles.
    pub fn new(records: &[(String, &str)]) -> Site {
        Site::within(&std::env::temp_dir(), records)
    }

    /// As [`Site::new`], on the disk of this folder.
    pub fn within(folder: &Path, records: &[(String, &str)]) -> Site {
        let dir = tempfile::tempdir_in(folder).unwrap();
        let (port, address) = reserved();
        let url = EstUrl::try_from(format!("https://{address}/.well-known/est").as_str()).unwrap();
        let now = Timestamp::system();
        let mut state = State::init(&dir.path().join("state"), &[url], now).unwrap();
        let record = |(name, rule): &(String, &str)| {
            (name.clone(), format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\n{rule}\n"))
        };
        state.add_nodes(&records.iter().map(record).collect::<Vec<_>>(), false, now).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(state.ca.root().der().to_vec())).unwrap();
        let config = || {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider);
            let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
            config.with_root_certificates(roots.clone())
        };
        let nodes = records.iter().map(|(name, _)| {
            let (certificate, key, code) = enrolled(&mut state, name, now);
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
            let client = config().with_client_auth_cert(vec![certificate.into()], key).unwrap();
            let changes = state.store.changes().unwrap();
            let identity = bundles::held_key(&changes, name, now).unwrap();
            changes.commit().unwrap();
            Node { name: name.clone(), client: Arc::new(client), identity, code }
        });
        let nodes = nodes.collect();
        let strangers = Arc::new(config().with_no_client_auth());
        Site { dir, address, nodes, strangers, _port: port }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn state(&self) -> State {
        let mut state = State::open(&self.path()).unwrap();
        state.store.run_by("alice (uid 1000)".to_owned());
        state
    }

    /// A server in this process.
    pub fn serve(&self, tell: Tell) -> Server {
        let config = Config {
            dir: self.path(),
            listen: self.address,
            metrics: Some("127.0.0.1:0".parse().unwrap()),
            doors: Vec::new(),
            layout: Layout::Wrapped,
            tell,
            clock: Arc::new(Timestamp::system),
        };
        Server::start(config).unwrap()
    }

    /// A server in a process of its own.
    pub fn process(&self, crash: &str, arguments: &[&str]) -> Serve {
        let child = Command::new(env!("CARGO_BIN_EXE_imprint-host"))
            .arg("--dir")
            .arg(self.path())
            .args(["serve", "--listen", &self.address.to_string()])
            .args(arguments)
            .env("IMPRINT_HOST_CRASH", crash)
            .stderr(Stdio::null())
            .spawn();
        Serve(child.unwrap())
    }

    /// `imprint-host` with these arguments: exit code, standard output, standard error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output =
            Command::new(env!("CARGO_BIN_EXE_imprint-host")).arg("--dir").arg(self.path()).args(arguments).output();
        let output = output.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// One request on a connection of its own.
    pub fn ask(&self, client: &Arc<ClientConfig>, request: &[u8]) -> io::Result<Answer> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(client.clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(request)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.ok_or_else(|| io::Error::other("no answer"))?;
        let head = String::from_utf8(bytes[..end].to_vec()).map_err(io::Error::other)?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status"))?;
        let body = bytes[end + 4..].to_vec();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
        if !request.starts_with(b"HEAD") && status != 304 && length.is_some_and(|length| length != body.len()) {
            return Err(io::Error::other("cut short"));
        }
        Ok(Answer { status, head, body })
    }

    pub fn get(&self, node: &Node, tag: Option<&[u8; 32]>, headers: &str) -> io::Result<Answer> {
        let query = tag.map(|tag| format!("?tag={}", hex::encode(tag))).unwrap_or_default();
        let request =
            format!("GET /.well-known/imprint/bundle{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        self.ask(&node.client, request.as_bytes())
    }

    pub fn put(&self, node: &Node, tag: &[u8; 32], age: &[u8]) -> io::Result<Answer> {
        self.ask(&node.client, &put(tag, age))
    }

    pub fn report(&self, node: &Node, json: &str) -> io::Result<Answer> {
        let length = json.len();
        let request = format!(
            "POST /.well-known/imprint/available HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \
             {length}\r\n\r\n{json}"
        );
        self.ask(&node.client, request.as_bytes())
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

/// The request that sends a bundle.
pub fn put(tag: &[u8; 32], age: &[u8]) -> Vec<u8> {
    let (tag, length) = (hex::encode(tag), age.len());
    let head = format!(
        "PUT /.well-known/imprint/bundle?tag={tag} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \
         {length}\r\n\r\n"
    );
    [head.as_bytes(), age].concat()
}

/// A bundle with one file.
pub fn bundle(node: &str, counter: u64, text: &[u8]) -> Bundle {
    let path = EntryPath::try_from("etc/motd").unwrap();
    let content = Content::File(Secret::new(text.to_vec()));
    let entry = Entry { path, mode: 0o644, uid: 0, gid: 0, content };
    Bundle::new(node.try_into().unwrap(), counter, Vec::new(), vec![entry]).unwrap()
}

impl Node {
    /// A bundle of this node: its tag and the age file.
    pub fn made(&self, counter: u64, text: &str) -> ([u8; 32], Vec<u8>) {
        let bundle = bundle(&self.name, counter, text.as_bytes());
        (bundle.tag(&self.identity).unwrap(), bundle.encrypt(&[self.identity.recipient()]).unwrap())
    }
}

/// A certificate with its key: DER, PKCS#8 and the key's code.
pub fn enrolled(state: &mut State, node: &str, now: Timestamp) -> (Vec<u8>, Vec<u8>, String) {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, node);
    let csr = Csr::parse(params.serialize_request(&pair).unwrap().der()).unwrap();
    let made = state.payload(node, &imprint_host::compose::Options::default(), now).unwrap();
    let payload = imprint::payload::Payload::unwrapped(&made.bytes).unwrap();
    let imprint::payload::Enrolment::Csr(enrolment) = payload.enrolment else { panic!("a CSR") };
    let token = enrolment.token.unwrap().secret.expose().as_bytes().to_vec();
    let credentials = Credentials { name: node.to_owned(), proof: Proof::Token(Secret::new(token)) };
    let code = csr.code().to_string();
    let csr = Ok(csr);
    let request = Request { csr: csr.as_ref(), credentials: Some(&credentials), peer: "127.0.0.1" };
    match state.decide(now, |desk| enrol::simple_enroll(desk, &request)).unwrap().answer {
        Enrolled::Issued { der, .. } => (der, pair.serialize_der(), code),
        other => panic!("{other:?}"),
    }
}

pub struct Serve(pub Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
