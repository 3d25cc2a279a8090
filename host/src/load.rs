//! `imprint-host load`, a simulated boot storm: many nodes check in at the same time with a server on this machine, and with
//! `--bundle` fetch their bundles. The nodes run the agent's own code, with its waits and the waits that the server asks for. Everything happens in a
//! directory of its own; the storm never touches a site's state.

mod bundles;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use imprint::checkin::{self, Ask, Context, Progress, Reply};
use imprint::identity::{Identity, IdentityError};
use imprint::payload::{DecodeError, Enrolment, EstUrl, Payload};
use imprint::plan::{ClockPlan, ClockQuality, Server, SubjectPlan};
use imprint::pool::{EntropyError, Seeded};
use imprint::secret::Secret;
use imprint::time::{Deadline, Timestamp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bundles::BundleError;
use crate::compose::Options;
use crate::state::{self, State};

/// Stack of a node's thread, in bytes. The kernel allocates only the pages that are used.
const STACK: usize = 2 * 1024 * 1024;

/// The result of a storm.
#[derive(Debug, Default)]
pub struct Storm {
    /// How many nodes there were.
    pub nodes: usize,
    /// How many have a certificate in the store.
    pub enrolled: usize,
    /// How many nodes have more than one certificate in the store.
    pub doubled: usize,
    /// With bundles: how many nodes have reported that they are available.
    pub available: Option<usize>,
    /// Time from the start of the storm to each node's certificate, or with bundles to its report, ascending.
    pub times: Vec<Duration>,
    /// How often nodes tried again.
    pub retries: u64,
    /// How often the server said that it has too much to do (503).
    pub busy: u64,
    /// The most memory that `serve` had, in bytes.
    pub memory: u64,
    /// The error of the first node that failed.
    pub failure: Option<String>,
}

/// Why there was no storm.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The state directory cannot be made or used.
    #[error(transparent)]
    State(state::Error),
    /// A payload that was made here cannot be decoded.
    #[error(transparent)]
    Payload(DecodeError),
    /// A node's key or CSR cannot be made.
    #[error(transparent)]
    Identity(IdentityError),
    /// The system's random pool is not ready.
    #[error(transparent)]
    Entropy(EntropyError),
    /// The bundles cannot be made.
    #[error(transparent)]
    Bundle(Box<BundleError>),
    /// A process, thread or socket cannot be made.
    #[error("{0}; try fewer --nodes")]
    System(&'static str, #[source] io::Error),
    /// `serve` ended or does not listen.
    #[error("serve ended or does not listen; run imprint-host serve by hand to see why")]
    NoServer,
}

/// A node that is ready to check in.
struct Node {
    server: Server,
    clock: ClockPlan,
    identity: Identity,
    bundle: Option<bundles::Terms>,
}

/// A storm that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How many nodes.
    pub nodes: usize,
    /// Whether each of them has a bundle.
    pub bundles: bool,
    /// How long each may take.
    pub limit: Duration,
}

/// Makes a site in `work`, starts `program serve` on it, and lets all nodes go.
pub fn storm(program: &Path, work: &Path, wanted: Wanted, tell: &mut dyn FnMut(&str)) -> Result<Storm, LoadError> {
    let Wanted { nodes, bundles, limit } = wanted;
    let port = free_port()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let dir = work.join("state");
    tell(&format!("making {nodes} nodes with their payloads and keys"));
    let ready = prepare(&dir, address, nodes, bundles)?;
    let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let serve = serve(program, &dir, address, metrics)?;
    tell(&format!("{nodes} nodes check in at {address}"));
    let mut storm = Storm { nodes, ..Storm::default() };
    let retries = Arc::new(AtomicU64::new(0));
    let (done, ended) = mpsc::channel();
    let go = Arc::new(Barrier::new(ready.len().saturating_add(1)));
    for node in ready {
        let (done, go, retries) = (done.clone(), go.clone(), retries.clone());
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            go.wait();
            let begun = Instant::now();
            // The receiver may have reached its time limit and be gone.
            let _ = done.send(boot(node, limit, &retries).map(|()| begun.elapsed()));
        });
        thread.map_err(|error| LoadError::System("starting a thread for each node", error))?;
    }
    drop(done);
    go.wait();
    let begun = Instant::now();
    let mut told = begun;
    while let Ok(end) = ended.recv() {
        match end {
            Ok(_) => storm.times.push(begun.elapsed()),
            Err(error) => {
                storm.failure.get_or_insert(imprint::chain::chain(&*error));
            }
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            let (done, retries) = (storm.times.len(), retries.load(Ordering::Relaxed));
            let what = if bundles { "available" } else { "enrolled" };
            tell(&format!("{:.0} s: {done} {what}, {retries} retries", begun.elapsed().as_secs_f64()));
        }
    }
    storm.retries = retries.load(Ordering::Relaxed);
    let none = || LoadError::System("reading the memory of serve", io::ErrorKind::NotFound.into());
    storm.memory = peak_memory(serve.0.id()).ok_or_else(none)?;
    storm.busy = busy(metrics).map_err(|error| LoadError::System("reading the metrics of serve", error))?;
    serve.stop();
    let mut state = State::open(&dir).map_err(LoadError::State)?;
    let failed = |error| LoadError::State(state::Error::Store(error));
    if bundles {
        let (_, available) = state.store.count_bundles().map_err(failed)?;
        storm.available = Some(usize::try_from(available).unwrap_or_default());
    }
    let changes = state.store.changes().map_err(failed)?;
    for number in 0..nodes {
        let certificates = changes.certificates(&name(number)).map_err(failed)?.len();
        storm.enrolled = storm.enrolled.saturating_add(usize::from(certificates > 0));
        storm.doubled = storm.doubled.saturating_add(usize::from(certificates > 1));
    }
    Ok(storm)
}

fn name(number: usize) -> String {
    format!("node{number:06}")
}

fn prepare(dir: &Path, address: SocketAddr, nodes: usize, with_bundles: bool) -> Result<Vec<Node>, LoadError> {
    let now = Timestamp::system();
    let url = EstUrl::try_from(format!("https://{address}/.well-known/est").as_str());
    let url = url.map_err(|error| LoadError::System("an address as a URL", io::Error::other(error)))?;
    let mut state = State::init(dir, &[url], now).map_err(LoadError::State)?;
    let names: Vec<String> = (0..nodes).map(name).collect();
    let record = |name: &String| {
        let host = format!("{name}.example.org");
        let more = if with_bundles { bundles::RECORD } else { "" };
        let text = format!("name = \"{name}\"\nsubject = [\"CN={host}\"]\nsans = [\"dns:{host}\"]\n{more}");
        (format!("{name}.toml"), text)
    };
    state.add_nodes(&names.iter().map(record).collect::<Vec<_>>(), false, now).map_err(LoadError::State)?;
    let mut terms = match with_bundles {
        true => bundles::prepare(&mut state, &names, now)?,
        false => Vec::new(),
    }
    .into_iter();
    let payloads = state.payloads(&names, &Options::default(), now).map_err(LoadError::State)?;
    let seeded = Seeded::ready(Deadline::after(Duration::from_secs(10))).map_err(LoadError::Entropy)?;
    let mut ready = Vec::with_capacity(nodes);
    for composed in payloads {
        let payload = Payload::unwrapped(&composed.bytes).map_err(LoadError::Payload)?;
        let Enrolment::Csr(csr) = payload.enrolment else { continue };
        let identity = Identity::generate(&SubjectPlan { names: csr.names, key: csr.key }, &seeded);
        let server =
            Server { urls: csr.urls, name: csr.name, token: csr.token, ca: payload.ca, issuers: payload.issuers };
        let clock = ClockPlan { floor: payload.composed, expiry: payload.expiry, quality: ClockQuality::Unknown };
        let (identity, bundle) = (identity.map_err(LoadError::Identity)?, terms.next());
        ready.push(Node { server, clock, identity, bundle });
    }
    Ok(ready)
}

const USER_AGENT: &str = concat!("imprint/", env!("CARGO_PKG_VERSION"), " (load)");

/// Checks in, and with a bundle goes on to the report.
fn boot(node: Node, limit: Duration, retries: &AtomicU64) -> Result<(), Box<dyn Error + Send + Sync>> {
    let Node { server, clock, identity, bundle } = node;
    let context = Context {
        server: &server,
        clock: &clock,
        identity: &identity,
        renews: None,
        user_agent: USER_AGENT,
        approval_timeout: Some(limit),
        line: None,
    };
    // The agent asks for the next link once after each failed try.
    let tries = AtomicUsize::new(0);
    let mut ask = |ask: Ask| {
        if matches!(ask, Ask::NextLink(_)) {
            tries.fetch_add(1, Ordering::Relaxed);
        }
        Ok(match ask {
            Ask::SetClock(_) | Ask::RenewLease(_) => Reply::Done,
            Ask::NextLink(_) => Reply::NothingMore,
        })
    };
    let mut progress = |progress: Progress<'_>| {
        if matches!(progress, Progress::Waiting { .. }) {
            retries.fetch_add(1, Ordering::Relaxed);
        }
    };
    let issued = checkin::enroll(&context, &mut ask, &mut progress, Deadline::after(limit))?;
    let Some(terms) = bundle else { return Ok(()) };
    let key = Secret::from(identity);
    let mut waits = || {
        retries.fetch_add(1, Ordering::Relaxed);
    };
    bundles::become_available(&terms, &server, (&issued, key.expose()), USER_AGENT, &mut waits, limit)
}

/// The `serve` process. It ends with the storm.
struct Serve(Child);

impl Serve {
    fn stop(mut self) {
        if let Ok(id) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(program: &Path, dir: &Path, address: SocketAddr, metrics: SocketAddr) -> Result<Serve, LoadError> {
    let child = Command::new(program)
        .arg("--dir")
        .arg(dir)
        .args(["serve", "--listen", &address.to_string(), "--metrics", &metrics.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut serve = Serve(child.map_err(|error| LoadError::System("starting serve", error))?);
    let until = Deadline::after(Duration::from_secs(30));
    while std::net::TcpStream::connect(metrics).is_err() {
        if until.expired() || !matches!(serve.0.try_wait(), Ok(None)) {
            return Err(LoadError::NoServer);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(serve)
}

/// A port that was free a moment ago. Another process could take it before `serve` binds it; that is unlikely.
fn free_port() -> Result<u16, LoadError> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|error| LoadError::System("finding a free port", error))
}

/// VmHWM of proc(5), in bytes.
fn peak_memory(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// How often the server answered 503.
fn busy(metrics: SocketAddr) -> io::Result<u64> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(metrics)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let counts =
        text.lines().filter(|line| line.starts_with("imprint_host_requests_total{") && line.contains("code=\"503\""));
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

impl Storm {
    /// How many nodes did not get as far as they should: to their certificate, or with bundles to their report.
    pub fn failed(&self) -> usize {
        self.nodes.saturating_sub(self.available.map_or(self.enrolled, |available| available.min(self.enrolled)))
    }

    /// Time after which `of_hundred` percent of the nodes that came through had their certificates, or with bundles had reported.
    pub fn percentile(&self, of_hundred: usize) -> Duration {
        let index = self.times.len().saturating_sub(1).saturating_mul(of_hundred) / 100;
        self.times.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |of_hundred| self.percentile(of_hundred).as_secs_f64();
        writeln!(f, "nodes      {}", self.nodes)?;
        writeln!(f, "enrolled   {}, with two certificates {}", self.enrolled, self.doubled)?;
        if let Some(available) = self.available {
            writeln!(f, "available  {available}")?;
        }
        let to = if self.available.is_some() { "to its report" } else { "to its certificate" };
        writeln!(
            f,
            "time       of a node {to}: half {:.1} s, 99 % {:.1} s, last {:.1} s",
            seconds(50),
            seconds(99),
            seconds(100)
        )?;
        writeln!(f, "retries    {}", self.retries)?;
        writeln!(f, "503        {}", self.busy)?;
        write!(
            f,
            "memory     {:.1} MiB in serve at most",
            Duration::from_micros(self.memory).as_secs_f64() / 1.048_576
        )?;
        match &self.failure {
            Some(why) => write!(f, "\nfailed     {}: {why}", self.failed()),
            None => Ok(()),
        }
    }
}
