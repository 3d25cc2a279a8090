//! Measures the door of `imprint-host serve` for `make bench`: the processor time of one node from HELLO to certificate, at both
//! ends together; and many nodes that call at once. Prints numbers only; judges nothing.
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

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64ct::{Base64, Encoding};
use imprint::line::admission::AdmissionKey;
use imprint::payload::EstUrl;
use imprint::site::SitePin;
use imprint::time::Timestamp;
use imprint_host::state::State;
use imprint_tests::caller::Caller;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::Barrier;
use tokio::time::timeout;

/// Nodes that call one after the other.
const ONE_BY_ONE: usize = 50;
/// A node that has nothing to do comes again after this time at the latest.
const IDLE: Duration = Duration::from_secs(1);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, nodes] = words.as_slice() else { panic!("usage: doorbench HOST NODES") };
    let nodes: usize = nodes.parse().unwrap();
    more_files(nodes);
    let work = tempfile::tempdir().unwrap();
    let (pin, key) = site(&work.path().join("state"), nodes + ONE_BY_ONE);
    let serve = Serve::start(Path::new(program), &work.path().join("state"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let caller = |number: usize| {
        let mut caller = Caller::new(&serial(number), &pin);
        caller.admission = Some(Arc::clone(&key));
        caller
    };
    let before = (serve.processor(), own_processor());
    for number in 0..ONE_BY_ONE {
        runtime.block_on(call(caller(number), serve.door, number)).unwrap();
    }
    let used = (serve.processor() - before.0) + (own_processor() - before.1);
    println!("one {:.2}", used.as_secs_f64() * 1000.0 / ONE_BY_ONE as f64);
    // All have their line keys before the first one calls.
    let callers: Vec<Caller> = (ONE_BY_ONE..ONE_BY_ONE + nodes).map(caller).collect();
    let barrier = Arc::new(Barrier::new(nodes));
    let begun = Instant::now();
    let mut times = runtime.block_on(async {
        let mut tasks = Vec::new();
        for (number, caller) in callers.into_iter().enumerate() {
            let (barrier, door) = (Arc::clone(&barrier), serve.door);
            tasks.push(tokio::spawn(async move {
                barrier.wait().await;
                let begun = Instant::now();
                call(caller, door, number).await.map(|()| begun.elapsed())
            }));
        }
        let mut times = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(time) => times.push(time),
                Err(why) => eprintln!("{why}"),
            }
        }
        times
    });
    let all = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at =
        |of_hundred: usize| times.get(times.len().saturating_sub(1) * of_hundred / 100).copied().unwrap_or_default();
    let (p50, p99) = (at(50).as_secs_f64(), at(99).as_secs_f64());
    println!("storm {nodes} {} {all:.1} {p50:.2} {p99:.2} {}", times.len(), serve.memory());
}

/// Each node is an open file here, and one of the server, which has the same limit. Beside nodes it keeps places for EST.
fn more_files(nodes: usize) {
    let needed = u64::try_from(nodes + 4096).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = hard.max(needed);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)
        .unwrap_or_else(|error| panic!("{needed} open files are needed and {hard} allowed; raise the limit: {error}"));
}

fn serial(number: usize) -> String {
    format!("SN{number:06}")
}

/// A state directory with so many nodes, which one admission key lets in.
fn site(dir: &Path, nodes: usize) -> (SitePin, Arc<AdmissionKey>) {
    let now = Timestamp::system();
    let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
    let mut state = State::init(dir, &[url], now).unwrap();
    let signer = state.ca.signers().unwrap().remove(0).0;
    let der = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let public = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap().public_key().as_ref().to_vec();
    let public = Base64::encode_string(&public);
    let pem = imprint::pem::encode("PRIVATE KEY", der.as_ref());
    let record = |number: usize| {
        let text = format!(
            "name = \"node{number:06}\"\nsubject = [\"CN=node{number:06}.example.org\"]\nbind = {{ serial = \"{}\" }}\n\
             admit = \"key\"\nadmission_key = \"{public}\"\n",
            serial(number)
        );
        (format!("node{number:06}.toml"), text)
    };
    state.add_nodes(&(0..nodes).map(record).collect::<Vec<_>>(), false, now).unwrap();
    let pin = SitePin::parse(format!("{signer}\n").as_bytes()).unwrap();
    (pin, Arc::new(AdmissionKey::parse(pem.as_bytes()).unwrap()))
}

/// One node, from an address of its own, until its report has arrived. Calls again when the connection ends early.
async fn call(mut node: Caller, door: SocketAddr, number: usize) -> Result<(), String> {
    let [_, a, b, c] = u32::try_from(number + 2).unwrap().to_be_bytes();
    let from = SocketAddrV4::new(Ipv4Addr::new(127, a, b, c), 0);
    let mut wait = Duration::from_millis(300);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(600) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from.into()).unwrap();
        if let Ok(mut stream) = socket.connect(door).await {
            stream.set_nodelay(true).unwrap();
            let mut buffer = [0; 2048];
            loop {
                let (bytes, next) = node.poll();
                if node.over {
                    return Ok(());
                }
                if let Some(why) = node.refused {
                    return Err(why);
                }
                if stream.write_all(&bytes).await.is_err() {
                    break;
                }
                match timeout(next.unwrap_or(IDLE).min(IDLE), stream.read(&mut buffer)).await {
                    Ok(Ok(count @ 1..)) => node.push(&buffer[..count]),
                    Ok(_) => break,
                    Err(_) => {}
                }
            }
            node.calls_again();
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
    Err(format!("node {number} was not done in time: {:?}", node.pending))
}

fn own_processor() -> Duration {
    processor("self")
}

/// User and system time of a process (proc_pid_stat(5)), in hundredths of a second.
fn processor(process: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Duration::from_millis(fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

struct Serve {
    child: Child,
    door: SocketAddr,
}

impl Serve {
    fn start(program: &Path, dir: &Path) -> Serve {
        let mut child = Command::new(program)
            .arg("--dir")
            .arg(dir)
            .args(["serve", "--listen", "127.0.0.1:0", "--door", "tcp:127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let door = loop {
            let line = lines.next().expect("serve ended").unwrap();
            if let Some((_, address)) = line.split_once("door tcp:") {
                break address.trim().parse().unwrap();
            }
        };
        // The log has to be read, or the server would wait.
        std::thread::spawn(move || lines.for_each(drop));
        Serve { child, door }
    }

    fn processor(&self) -> Duration {
        processor(&self.child.id().to_string())
    }

    /// The most memory that was resident, in MiB.
    fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
