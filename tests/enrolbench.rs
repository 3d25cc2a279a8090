//! Measures `imprint-host serve` for `make bench`, and its two bounds: bare TLS handshakes with the same library and
//! certificate, and SQLite commits with the same settings. Measures again while clients poll a long CRL. Prints numbers
//! only; judges nothing.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a measurement that fails says so by panicking"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use imprint::identity::Identity;
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::time::{Deadline, Timestamp};
use imprint_host::compose::Options;
use imprint_host::enrol;
use imprint_host::state::State;
use imprint_host::store::Event;
use imprint_host::x509::CrlReason;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

/// Clients at a time.
const CLIENTS: usize = 64;
/// Certificates in the long CRL, and clients that fetch it again and again.
const REVOKED: usize = 10_000;
const POLLERS: u8 = 4;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, rounds, seconds] = words.as_slice() else { panic!("usage: enrolbench HOST ROUNDS SECONDS") };
    let (rounds, seconds): (usize, u64) = (rounds.parse().unwrap(), seconds.parse().unwrap());
    let window = Duration::from_secs(seconds);
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("state");
    let address = free();
    let mut site = Site::new(&dir, address);
    // Enough requests for all rounds: half load is one more round, and a round with pollers counts twice.
    let polled = rounds.min(3);
    let requests = site.requests((rounds + 1 + 2 * polled) * seconds as usize * 3000);
    let bare = Bare::start(&site);
    let _serve = Serve::start(Path::new(program), &dir, address);
    let next = AtomicUsize::new(0);
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let tls = handshakes(&site.client, bare.address, window);
        let commit = site.commits(window);
        let check_in = check_ins(&site.client, address, &requests, &next, window);
        println!("rates {tls:.1} {commit:.1} {check_in:.1}");
        rates.push(check_in);
    }
    rates.sort_by(f64::total_cmp);
    let half = rates[rates.len() / 2] / 2.0;
    let mut times = paced(&site.client, address, &requests, &next, half, window);
    times.sort_unstable();
    let at = |of_hundred: usize| times[(times.len() - 1) * of_hundred / 100].as_secs_f64() * 1000.0;
    println!("half {half:.1} {:.2} {:.2}", at(50), at(99));
    // This process revokes while the server runs.
    site.revoke();
    let path = format!("/crl/{}.crl", site.state.ca.current().id());
    for _ in 0..polled {
        let without = check_ins(&site.client, address, &requests, &next, window);
        let (with, lists) =
            polled_meanwhile(address, &path, || check_ins(&site.client, address, &requests, &next, window));
        println!("lists {without:.1} {with:.1} {lists}");
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

struct Site {
    state: State,
    client: Arc<ClientConfig>,
    host: SocketAddr,
}

impl Site {
    fn new(dir: &Path, address: SocketAddr) -> Site {
        let url = EstUrl::try_from(format!("https://{address}/.well-known/est").as_str()).unwrap();
        let state = State::init(dir, &[url], Timestamp::system()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(state.ca.root().der().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        // Each node connects for the first time.
        config.resumption = Resumption::disabled();
        Site { state, client: Arc::new(config), host: address }
    }

    /// Requests of as many nodes, each with its own key and token.
    fn requests(&mut self, count: usize) -> Vec<Vec<u8>> {
        let names: Vec<String> = (0..count).map(|number| format!("node{number:06}")).collect();
        let record = |name: &String| {
            let host = format!("{name}.example.org");
            (name.clone(), format!("name = \"{name}\"\nsubject = [\"CN={host}\"]\nsans = [\"dns:{host}\"]\n"))
        };
        let now = Timestamp::system();
        self.state.add_nodes(&names.iter().map(record).collect::<Vec<_>>(), false, now).unwrap();
        let seeded = Seeded::ready(Deadline::after(Duration::from_secs(10))).unwrap();
        let payloads = self.state.payloads(&names, &Options::default(), now).unwrap();
        let request = |bytes: &[u8]| {
            let Enrolment::Csr(csr) = Payload::unwrapped(bytes).unwrap().enrolment else { panic!("a CSR") };
            let identity = Identity::generate(&SubjectPlan { names: csr.names, key: csr.key }, &seeded).unwrap();
            let token = csr.token.unwrap().secret;
            let basic = Base64::encode_string(format!("{}:{}", csr.name, token.expose()).as_bytes());
            let body = Base64::encode_string(identity.csr());
            format!(
                "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Basic \
                 {basic}\r\nContent-Type: application/pkcs10\r\nContent-Length: {}\r\n\r\n{body}",
                self.host,
                body.len()
            )
            .into_bytes()
        };
        payloads.iter().map(|composed| request(&composed.bytes)).collect()
    }

    /// Certificates of one node, all revoked.
    fn revoke(&mut self) {
        let now = Timestamp::system();
        let record = "name = \"revoked\"\nsubject = [\"CN=revoked\"]\n".to_owned();
        self.state.add_nodes(&[("revoked".to_owned(), record)], false, now).unwrap();
        let options = Options { credentials: true, keep: true, ..Options::default() };
        self.state.payloads(&vec!["revoked".to_owned(); REVOKED], &options, now).unwrap();
        let revoked = enrol::revoke(&mut self.state.store, "revoked", None, CrlReason::Superseded, now).unwrap();
        let rows = revoked.certificates;
        assert_eq!(rows.len(), REVOKED);
    }

    /// Commits a second, each of one line of the audit log: the least that a check-in writes.
    fn commits(&mut self, window: Duration) -> f64 {
        let (start, mut count) = (Instant::now(), 0);
        let detail = "x".repeat(200);
        while start.elapsed() < window {
            let changes = self.state.store.changes().unwrap();
            let event = Event { event: "bench", node: Some("node000000"), peer: Some("127.0.0.1"), detail: &detail };
            changes.audit(&event, Timestamp::system()).unwrap();
            changes.commit().unwrap();
            count += 1;
        }
        f64::from(count) / start.elapsed().as_secs_f64()
    }
}

/// A server that does handshakes only, with the real server's number of threads and certificate.
struct Bare {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Bare {
    fn start(site: &Site) -> Bare {
        let identity = site.state.ca.server_identity(&site.state.hosts(), Timestamp::system()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let config = config.unwrap().with_no_client_auth().with_single_cert(identity.chain, identity.key);
        let mut config = config.unwrap();
        config.send_tls13_tickets = 0;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    use tokio::io::AsyncWriteExt;
                    stream.set_nodelay(true).unwrap();
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
        Bare { address, _runtime: runtime }
    }
}

struct Serve(Child);

impl Serve {
    fn start(program: &Path, dir: &Path, address: SocketAddr) -> Serve {
        let child = Command::new(program)
            .arg("--dir")
            .arg(dir)
            .args(["serve", "--listen", &address.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let serve = Serve(child);
        while TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        serve
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes one connection, and returns all bytes that came until its end.
fn exchange(client: &Arc<ClientConfig>, server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(request).unwrap();
    stream.flush().unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Runs `one` as often as possible within the window. The answer: times a second.
fn many(window: Duration, one: impl Fn() + Sync) -> f64 {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    one();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(window);
        stop.store(true, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn handshakes(client: &Arc<ClientConfig>, server: SocketAddr, window: Duration) -> f64 {
    many(window, || {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(client), name).unwrap(), stream);
        // Reads up to the server's close_notify.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    })
}

fn signed(answer: &[u8]) {
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(answer));
}

fn check_ins(
    client: &Arc<ClientConfig>,
    server: SocketAddr,
    requests: &[Vec<u8>],
    next: &AtomicUsize,
    window: Duration,
) -> f64 {
    many(window, || signed(&exchange(client, server, &requests[next.fetch_add(1, Ordering::Relaxed)])))
}

/// A connection from another address of this machine.
fn from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 1, last, 0)).unwrap();
    let SocketAddr::V4(to) = to else { panic!("an IPv4 address") };
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    TcpStream::from(socket)
}

/// Measures while clients fetch the CRL without a pause. The answer: the measurement, and how many CRLs they got. Each
/// client has an address of its own, because the server limits the rate of an address.
fn polled_meanwhile(server: SocketAddr, path: &str, measured: impl FnOnce() -> f64) -> (f64, usize) {
    let (stop, lists) = (AtomicBool::new(false), AtomicUsize::new(0));
    let poll = &|number| {
        while !stop.load(Ordering::Relaxed) {
            let mut stream = from(number, server);
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            if answer.starts_with(b"HTTP/1.1 200 ") {
                // Each entry has a serial number of 16 bytes and a time.
                assert!(answer.len() > REVOKED * 32, "{}", answer.len());
                lists.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let rate = std::thread::scope(|scope| {
        for number in 1..=POLLERS {
            scope.spawn(move || poll(number));
        }
        let rate = measured();
        stop.store(true, Ordering::Relaxed);
        rate
    });
    (rate, lists.into_inner())
}

/// Sends requests at a fixed rate, each at its own time even if earlier ones are late. Measures from that time to the
/// answer.
fn paced(
    client: &Arc<ClientConfig>,
    server: SocketAddr,
    requests: &[Vec<u8>],
    next: &AtomicUsize,
    rate: f64,
    window: Duration,
) -> Vec<Duration> {
    let (start, turn) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let one = || {
            let mut times = Vec::new();
            loop {
                let due = Duration::from_secs_f64(turn.fetch_add(1, Ordering::Relaxed) as f64 / rate);
                if due >= window {
                    return times;
                }
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                signed(&exchange(client, server, &requests[next.fetch_add(1, Ordering::Relaxed)]));
                times.push(start.elapsed().saturating_sub(due));
            }
        };
        let clients: Vec<_> = (0..CLIENTS * 4).map(|_| scope.spawn(one)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}
