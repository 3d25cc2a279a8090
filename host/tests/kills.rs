//! The server is killed at every named point between request and answer, and at random: no certificate is lost that a
//! node was given, and no node has two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use imprint::apply::entropy::Seeded;
use imprint::est;
use imprint::identity::Identity;
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::plan::SubjectPlan;
use imprint::time::{Deadline, Timestamp};
use imprint_host::compose::Options;
use imprint_host::crash::POINTS;
use imprint_host::state::State;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const LIMIT: Duration = Duration::from_secs(60);

/// A site with nodes that have one key each, and ask with it until they have their certificate.
struct Fleet {
    dir: tempfile::TempDir,
    address: SocketAddr,
    client: Arc<ClientConfig>,
    nodes: Vec<(String, Vec<u8>)>,
}

struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Fleet {
    fn new(nodes: usize) -> Fleet {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = EstUrl::try_from(format!("https://{address}/.well-known/est").as_str()).unwrap();
        let now = Timestamp::system();
        let mut state = State::init(&dir.path().join("state"), &[url], now).unwrap();
        let names: Vec<String> = (0..nodes).map(|number| format!("node{number:04}")).collect();
        let record = |name: &String| (name.clone(), format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\n"));
        state.add_nodes(&names.iter().map(record).collect::<Vec<_>>(), false, now).unwrap();
        let seeded = Seeded::ready(Deadline::after(LIMIT)).unwrap();
        let request = |bytes: &[u8]| {
            let Enrolment::Csr(csr) = Payload::decode(bytes).unwrap().enrolment else { panic!("a CSR") };
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
        Fleet { dir, address, client, nodes }
    }

    fn serve(&self, crash: &str) -> Serve {
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
    fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(self.client.clone(), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8(answer).map_err(io::Error::other)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no answer"))?;
        assert!(head.starts_with("HTTP/1.1 200 "), "{text}");
        let certificates = est::certs_only(&est::base64(body.as_bytes()).unwrap()).unwrap();
        Ok(certificates.into_iter().next().unwrap())
    }

    /// As often as it takes.
    fn insist(&self, request: &[u8]) -> Vec<u8> {
        let start = Instant::now();
        loop {
            match self.ask(request) {
                Ok(certificate) => return certificate,
                Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Each of these nodes has the one certificate that it was given, and no other.
    #[track_caller]
    fn audit(&self, given: &[(usize, Vec<u8>)]) {
        let mut state = State::open(&self.dir.path().join("state")).unwrap();
        let enrolled = state.store.log(1_000_000).unwrap();
        let changes = state.store.changes().unwrap();
        let (mut lost, mut doubled) = (0, 0);
        for (number, certificate) in given {
            let name = &self.nodes[*number].0;
            let rows = changes.certificates(name).unwrap();
            lost += usize::from(!rows.iter().any(|row| row.der == *certificate));
            doubled += usize::from(rows.len() > 1);
            // Signed once, whatever was answered again.
            let line =
                |row: &&imprint_host::store::AuditRow| row.event == "enrolled" && row.node.as_ref() == Some(name);
            let signed = enrolled.iter().filter(line).filter(|row| !row.detail.ends_with(" same certificate again"));
            assert_eq!(signed.count(), 1, "{name}");
            assert!(rows.iter().all(|row| row.revoked.is_none()), "{name}");
        }
        println!("{} nodes: {lost} lost, {doubled} doubled", given.len());
        assert_eq!((lost, doubled), (0, 0));
    }
}

fn wait(mut serve: Serve) {
    let start = Instant::now();
    while serve.0.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < LIMIT, "it goes on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn killed_at_every_named_point() {
    let fleet = Fleet::new(POINTS.len());
    for (number, point) in POINTS.iter().enumerate() {
        let serve = fleet.serve(point);
        let request = &fleet.nodes[number].1;
        let start = Instant::now();
        while TcpStream::connect(fleet.address).is_err() {
            assert!(start.elapsed() < LIMIT, "it does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let answer = fleet.ask(request);
        wait(serve);
        assert_eq!(answer.is_ok(), *point == "answered", "{point}");
        let certificates = |fleet: &Fleet| {
            let mut state = State::open(&fleet.dir.path().join("state")).unwrap();
            state.store.changes().unwrap().certificates(&fleet.nodes[number].0).unwrap().len()
        };
        assert_eq!(certificates(&fleet), usize::from(matches!(*point, "booked" | "answered")), "{point}");
        let _serve = fleet.serve("");
        let certificate = fleet.insist(request);
        fleet.audit(&[(number, answer.unwrap_or(certificate.clone())), (number, certificate)]);
    }
}

/// Two hundred kills, at moments that a seed names, while clients ask without a pause.
#[test]
fn killed_at_random() {
    const KILLS: u64 = 200;
    let fleet = Fleet::new(4000);
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let given = std::thread::scope(|scope| {
        let client = || {
            let mut given = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((_, request)) = fleet.nodes.get(number) else { return given };
                given.push((number, fleet.insist(request)));
            }
            given
        };
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(client)).collect();
        let mut seed = 0x1d5e_ed00_u64;
        for _ in 0..KILLS {
            let serve = fleet.serve("");
            let start = Instant::now();
            while TcpStream::connect(fleet.address).is_err() && start.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(1));
            }
            // xorshift64 (Marsaglia 2003): any numbers will do, if they are the same each time.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            std::thread::sleep(Duration::from_micros(seed % 150_000));
            drop(serve);
        }
        over.store(true, Ordering::Relaxed);
        // What is under way comes to its end.
        let _serve = fleet.serve("");
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(given.len() > 50, "{} nodes are too few to say anything", given.len());
    fleet.audit(&given);
}

/// The state directory is as it was between two commands, whatever stopped: nothing is left that stops the next one.
#[test]
fn nothing_is_left_over() {
    let fleet = Fleet::new(1);
    drop(fleet.serve(""));
    let dir: &Path = &fleet.dir.path().join("state");
    std::fs::write(dir.join("server.pem.new"), "half").unwrap();
    std::fs::write(dir.join("server.key"), "").unwrap();
    let _serve = fleet.serve("");
    fleet.insist(&fleet.nodes[0].1);
}
