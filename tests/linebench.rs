//! Measures the serial line for `make bench`: the real code of both ends, on pseudo terminals with a line between them that
//! is as slow as a real one. Prints numbers only; judges nothing.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measurement that fails says so by panicking"
)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use imprint::dialogue::{Answer, Dialogue, Line, Told};
use imprint::identity::Identity;
use imprint::line::frame::{Hello, Nonce, Versions};
use imprint::line::{Host, HostEvent, Kind, LineKey, Node, NodeEvent, SEAL_LEN, Shape, Stage, Wire, seal};
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::port::{Place, Port, Signals};
use imprint::secret::Secret;
use imprint::time::{Deadline, Timestamp, since_boot};
use imprint_host::compose::{Medium, Options};
use imprint_host::csr::Csr;
use imprint_host::enrol::{self, Credentials, Proof, Request};
use imprint_host::est;
use imprint_host::state::State;
use imprint_tests::line::{Faults, Objects, Random, session};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u32>().unwrap();
    match words[..] {
        // Milliseconds of each run: BYTES BAUD ROUND-TRIP-MS RUNS
        ["object", bytes, baud, round, runs] => {
            for run in 0..number(runs) {
                println!("{:.3}", object(number(bytes) as usize, number(baud), number(round), u64::from(run)));
            }
        }
        // Milliseconds from HELLO to certificate: BAUD RUNS
        ["whole", baud, runs] => (0..number(runs)).for_each(|_| println!("{:.3}", whole(number(baud)))),
        // Milliseconds of error and of the stated bound: BAUD RUNS
        ["clock", baud, runs] => {
            for run in 0..number(runs) {
                let (error, bound) = clock(number(baud), u64::from(run));
                println!("{error:.3} {bound:.3}");
            }
        }
        // Ratios to bytes × 10 / baud in virtual time, 1 % of the frames damaged in each direction: BYTES SEEDS
        ["faulty", bytes, seeds] => faulty(number(bytes) as usize, u64::from(number(seeds))),
        // Of a line whose speed neither end knows, in virtual time: ratio of a sealed payload to its bytes × 10 / baud, and what was
        // sent again. LOSS-IN: one frame in so many is damaged, 0: none: BYTES BAUD LOSS-IN SEEDS
        ["slow", bytes, baud, loss, seeds] => {
            slow(number(bytes) as usize, number(baud), u64::from(number(loss)), u64::from(number(seeds)));
        }
        // The paths of both ends, until standard input ends: BAUD
        ["line", baud] => {
            let line = paced(number(baud), 0);
            let host = nix::unistd::ttyname(&line.host).unwrap();
            println!("{}\n{}", line.node.display(), host.display());
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        // Seconds: BYTES BAUD
        ["ymodem", bytes, baud] => println!("{:.3}", ymodem(number(bytes) as usize, number(baud))),
        // IMPRINT-HOST LINES STALLED: 99th percentile in ms, and KiB of memory
        ["many", host, lines, stalled] => many(Path::new(host), number(lines) as usize, number(stalled) as usize),
        _ => panic!("usage: linebench object|whole|clock|faulty|slow|line|ymodem|many …"),
    }
}

/// Two terminals with a paced line between them. The line ends when this is dropped.
struct Paced {
    node: PathBuf,
    host: File,
    /// Held open, so that the terminals keep their settings.
    _slaves: [OwnedFd; 2],
    stop: Arc<AtomicBool>,
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn paced(baud: u32, round_ms: u32) -> Paced {
    let (one, two) = (openpty(None, None).unwrap(), openpty(None, None).unwrap());
    for slave in [&one.slave, &two.slave] {
        let mut settings = tcgetattr(slave).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(slave, SetArg::TCSANOW, &settings).unwrap();
    }
    let node = nix::unistd::ttyname(&one.slave).unwrap();
    let host = nix::unistd::ttyname(&two.slave).unwrap();
    let host = nonblocking(&host);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    std::thread::spawn(move || carry(File::from(one.master), File::from(two.master), baud, round_ms, &stopped));
    Paced { node, host, _slaves: [one.slave, two.slave], stop }
}

fn nonblocking(path: &Path) -> File {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)
        .unwrap()
}

/// Carries bytes in both directions, at ten bits a byte.
fn carry(one: File, two: File, baud: u32, round_ms: u32, stop: &AtomicBool) {
    for file in [&one, &two] {
        nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    }
    let byte = Duration::from_nanos(10_000_000_000 / u64::from(baud));
    let delay = Duration::from_millis(u64::from(round_ms)) / 2;
    let start = Instant::now();
    let mut queues: [VecDeque<(Duration, u8)>; 2] = Default::default();
    let mut free = [Duration::ZERO; 2];
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let now = start.elapsed();
        let next = queues.iter().filter_map(|queue| queue.front()).map(|(due, _)| *due).min();
        let wait = next.map_or(Duration::from_millis(50), |due| due.saturating_sub(now));
        // A byte takes a tenth of a millisecond. A few at a time are as exact as a UART's interrupts.
        let mut fds = [PollFd::new(one.as_fd(), PollFlags::POLLIN), PollFd::new(two.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(wait.as_millis().min(50) as i32).unwrap();
        if wait < Duration::from_millis(1) {
            std::thread::sleep(wait.max(Duration::from_micros(300)));
            poll(&mut fds, PollTimeout::ZERO).unwrap();
        } else {
            poll(&mut fds, timeout).unwrap();
        }
        let now = start.elapsed();
        for (index, mut from) in [&one, &two].into_iter().enumerate() {
            match from.read(&mut buffer) {
                Ok(count) => {
                    for byte_read in &buffer[..count] {
                        free[index] = free[index].max(now) + byte;
                        queues[index].push_back((free[index] + delay, *byte_read));
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
                Err(_) => return,
            }
        }
        for (index, mut to) in [&two, &one].into_iter().enumerate() {
            let mut due = Vec::new();
            while queues[index].front().is_some_and(|(at, _)| *at <= now) {
                due.extend(queues[index].pop_front().map(|(_, byte)| byte));
            }
            if !due.is_empty() && to.write_all(&due).is_err() {
                return;
            }
        }
    }
}

fn seeded() -> Seeded {
    Seeded::ready(Deadline::after(Duration::from_secs(10))).unwrap()
}

fn hello(key: &LineKey, seed: u64) -> Hello {
    Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: false,
        nonce: Nonce(Random(seed).word().to_be_bytes()),
        key: key.public(),
        uuid: Some([7; 16]),
        serial: Some("SN-0042".to_owned()),
        macs: vec![vec![0x52, 0x54, 0, 0x12, 0x34, 0x56]; 2],
    }
}

fn dialogue(line: &Paced, baud: u32, seed: u64) -> Dialogue {
    let key = LineKey::generate(&seeded()).unwrap();
    // A pseudo terminal has no speed, so the protocol is told the line's speed.
    let place = Place {
        name: "line".to_owned(),
        path: line.node.clone(),
        baud: Some(baud),
        set: false,
        console: false,
        virtio: true,
        keys: false,
    };
    let port = Port::open(place).unwrap().unwrap();
    let hello = hello(&key, seed);
    let lines = vec![Line { pipe: port.into(), beacon: true, far: false }];
    Dialogue::start(Signals::catch().unwrap(), lines, key, hello, None, None, Path::new("/nowhere")).unwrap()
}

/// Runs the host's end until `act` returns true.
fn host(line: &Paced, baud: u32, offset: u64, mut act: impl FnMut(&mut Wire<Host>, HostEvent) -> bool) {
    let mut wire = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), Some(baud));
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64 + offset;
    let mut buffer = [0; 4096];
    let mut file = &line.host;
    loop {
        let polled = wire.poll(now());
        file.write_all(&polled.bytes).unwrap();
        let idle = polled.events.is_empty() && polled.bytes.is_empty();
        for event in polled.events {
            if act(&mut wire, event) {
                let last = wire.poll(now());
                file.write_all(&last.bytes).unwrap();
                return;
            }
        }
        if !idle {
            continue;
        }
        let wait = polled.next.map_or(50_000, |at| at.saturating_sub(now()));
        let mut fds = [PollFd::new(line.host.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(wait.div_ceil(1000).min(50) as i32).unwrap()).unwrap();
        match file.read(&mut buffer) {
            Ok(count) => wire.push(&buffer[..count], now()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

/// Time of a sealed object from its announcement to the last acknowledgement, in milliseconds.
fn object(bytes: usize, baud: u32, round_ms: u32, seed: u64) -> f64 {
    let line = paced(baud, round_ms);
    let dialogue = dialogue(&line, baud, seed);
    let payload = Secret::new(Random(seed).bytes(bytes));
    let (mut hello, mut began) = (None, None);
    let mut took = 0.0;
    host(&line, baud, 0, |wire, event| {
        match event {
            HostEvent::Hello(said) => hello = Some(said),
            HostEvent::Opened(session, Stage::Payload) => {
                let number = wire.end().next_number();
                let sealed = seal::seal(&payload, hello.as_ref().unwrap(), session, Kind::Sealed, number).unwrap();
                began = Some(Instant::now());
                wire.end_mut().send(Kind::Sealed, sealed);
            }
            HostEvent::Delivered(Kind::Sealed) => {
                took = began.unwrap().elapsed().as_secs_f64() * 1000.0;
                return true;
            }
            _ => {}
        }
        false
    });
    let arrived = loop {
        if let Told::Payload { bytes, .. } = dialogue.hear(Deadline::after(Duration::from_secs(60))).unwrap() {
            break bytes;
        }
    };
    assert!(arrived == payload);
    took
}

const RECORD: &str = "name = \"node1\"\nsubject = [\"CN=node1.example.org\"]\nsans = [\"dns:node1.example.org\"]\n\
                      hostname = \"node1\"\n[[network]]\nmatch = { driver = \"virtio_net\" }\n\
                      addresses = [\"192.0.2.10/24\"]\nroutes = [{ to = \"0.0.0.0/0\", via = \"192.0.2.1\" }]\n";

fn state(dir: &Path, records: &[(String, String)]) -> State {
    let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
    let mut state = State::init(dir, &[url], Timestamp::system()).unwrap();
    state.add_nodes(records, false, Timestamp::system()).unwrap();
    state
}

/// Time of everything that a node without a network does: HELLO, payload, time, request, certificates; in milliseconds.
fn whole(baud: u32) -> f64 {
    let work = tempfile::tempdir().unwrap();
    let mut state = state(&work.path().join("state"), &[("node1.toml".to_owned(), RECORD.to_owned())]);
    let options = Options { seed: true, single_boot: true, medium: Medium::Line, ..Options::default() };
    let made = state.payload("node1", &options, Timestamp::system()).unwrap();
    let payload = Secret::new(made.bytes.to_vec());
    let line = paced(baud, 0);
    let node = line.node.clone();
    let paced = &line;
    std::thread::scope(|scope| {
        let began = Instant::now();
        let dialogue = dialogue(paced, baud, 1);
        let _ = node;
        scope.spawn(move || {
            let mut hello = None;
            host(paced, baud, 0, |wire, event| {
                match event {
                    HostEvent::Hello(said) => hello = Some(said),
                    HostEvent::Opened(session, Stage::Payload) => {
                        let number = wire.end().next_number();
                        let said = hello.as_ref().unwrap();
                        let sealed = seal::seal(&payload, said, session, Kind::Sealed, number).unwrap();
                        wire.end_mut().send(Kind::Sealed, sealed);
                    }
                    HostEvent::Object(Kind::Request, request) => {
                        let (tag, csr) = seal::open_request(&request).unwrap();
                        let proof = Proof::Line { tag: *tag, hello: Box::new(hello.clone().unwrap()) };
                        let credentials = Some(Credentials { name: "node1".to_owned(), proof });
                        let csr = Csr::parse(csr);
                        let asked = Request { csr: csr.as_ref(), credentials: credentials.as_ref(), peer: "bench" };
                        let decided = state.decide(Timestamp::system(), |desk| enrol::simple_enroll(desk, &asked));
                        match decided.unwrap().answer {
                            enrol::Answer::Issued { der, .. } => {
                                let bytes = est::certs_only(&[&der, state.ca.intermediate()]).unwrap();
                                wire.end_mut().send(Kind::Certificates, bytes);
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                    HostEvent::Delivered(Kind::Certificates) => return true,
                    _ => {}
                }
                false
            });
        });
        let later = Deadline::after(Duration::from_secs(60));
        let bytes = loop {
            if let Told::Payload { bytes, .. } = dialogue.hear(later).unwrap() {
                break bytes;
            }
        };
        let payload = Payload::unwrapped(bytes.expose()).unwrap();
        let Enrolment::Csr(csr) = &payload.enrolment else { panic!("a CSR") };
        dialogue.time(None, later).expect("a time");
        let subject = SubjectPlan { names: csr.names.clone(), key: csr.key };
        let identity = Identity::generate(&subject, &seeded()).unwrap();
        let token = csr.token.as_ref().unwrap().secret.expose();
        dialogue.stage(Stage::Request);
        dialogue.say(Kind::Request, seal::request(token.as_bytes(), dialogue.hello(), identity.csr()));
        let Ok(Some(Answer::Certificates(_))) = dialogue.answer(later) else { panic!("no certificates") };
        began.elapsed().as_secs_f64() * 1000.0
    })
}

/// The error of the node's clock, and the error bound that the node states, in milliseconds.
fn clock(baud: u32, seed: u64) -> (f64, f64) {
    let line = paced(baud, 0);
    let paced = &line;
    let offset = 1_000_000 * 3600 * (1 + seed);
    let finished = AtomicBool::new(false);
    let finished = &finished;
    std::thread::scope(|scope| {
        let dialogue = dialogue(paced, baud, seed);
        scope.spawn(move || {
            let mut hello = None;
            host(paced, baud, offset, |wire, event| {
                match event {
                    HostEvent::Hello(said) => hello = Some(said),
                    HostEvent::Opened(session, Stage::Payload) => {
                        let number = wire.end().next_number();
                        let payload = Secret::new(vec![1; 600]);
                        let said = hello.as_ref().unwrap();
                        let sealed = seal::seal(&payload, said, session, Kind::Sealed, number).unwrap();
                        wire.end_mut().send(Kind::Sealed, sealed);
                    }
                    HostEvent::Object(Kind::Request, _) => return true,
                    _ => {}
                }
                finished.load(Ordering::Relaxed)
            });
        });
        let later = Deadline::after(Duration::from_secs(60));
        while !matches!(dialogue.hear(later).unwrap(), Told::Payload { .. }) {}
        let time = dialogue.time(None, later).expect("a time");
        let truth = || (SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64 + offset) as f64 / 1000.0;
        let clock = time.within(Timestamp::from_secs(0), Timestamp::MAX).unwrap().clock();
        // The process may be delayed between two readings, so the true clock is read before and after. The node's clock has
        // whole milliseconds, half a millisecond too few on average.
        let (before, said, after) = (truth(), clock.now().as_millis() as f64 + 0.5, truth());
        let error = (before - said).max(said - after).max(0.0);
        // A request ends the host's loop.
        dialogue.stage(Stage::Request);
        dialogue.say(Kind::Request, vec![0; 40]);
        finished.store(true, Ordering::Relaxed);
        (error, time.bound().as_secs_f64() * 1000.0)
    })
}

/// Prints the ratio for each seed, in virtual time.
fn faulty(bytes: usize, seeds: u64) {
    let seeded = seeded();
    let clean = bytes as f64 * 10.0 / 115_200.0 * 1000.0;
    for seed in 0..seeds {
        let mut random = Random(seed);
        let objects = Objects {
            payload: random.bytes(bytes),
            request: random.bytes(300),
            certificates: random.bytes(300),
            report: random.bytes(100),
        };
        let faults = Faults { frame_in: 100, ..Faults::default() };
        let course = session(&objects, &faults, 115_200, true, seed, &seeded);
        println!("{:.4}", course.delivery_ms / clean);
    }
}

fn slow(bytes: usize, baud: u32, loss: u64, seeds: u64) {
    let seeded = seeded();
    let clean = (bytes + SEAL_LEN) as f64 * 10.0 / f64::from(baud) * 1000.0;
    for seed in 0..seeds {
        let mut random = Random(seed);
        let objects = Objects {
            payload: random.bytes(bytes),
            request: random.bytes(400),
            certificates: random.bytes(1300),
            report: random.bytes(600),
        };
        let faults = Faults { frame_in: loss, unknown_speed: true, ..Faults::default() };
        let course = session(&objects, &faults, baud, seed % 2 == 0, seed, &seeded);
        println!("{:.4} {}", course.delivery_ms / clean, course.retransmits);
    }
}

/// Time of the same bytes with lrzsz's YMODEM, in seconds.
fn ymodem(bytes: usize, baud: u32) -> f64 {
    let line = paced(baud, 0);
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("object"), Random(1).bytes(bytes)).unwrap();
    let received = work.path().join("received");
    std::fs::create_dir(&received).unwrap();
    let open = |path: &Path| std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (one, two) = (open(&line.node), line.host.try_clone().unwrap());
    nix::fcntl::fcntl(&two, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let run = |program: &str, words: &[&str], dir: &Path, file: &File| {
        let mut command = Command::new(program);
        command.args(words).current_dir(dir).stderr(Stdio::null());
        command.stdin(file.try_clone().unwrap()).stdout(file.try_clone().unwrap()).spawn().expect("lrzsz")
    };
    let began = Instant::now();
    let mut receiver = run("rb", &["--quiet"], &received, &one);
    let mut sender = run("sb", &["--quiet", "--1k", "object"], work.path(), &two);
    let arrived = receiver.wait().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    // The sender may wait for ever at its end, so kill it.
    drop(sender.kill());
    drop(sender.wait());
    assert!(arrived.success());
    assert_eq!(std::fs::read(received.join("object")).unwrap().len(), bytes);
    seconds
}

/// A node's end over a socket.
struct Remote {
    stream: std::os::unix::net::UnixStream,
    wire: Wire<Node>,
    key: LineKey,
    code: String,
    out: Vec<u8>,
    began: Instant,
    took: Option<Duration>,
}

/// Measures one process of imprint-host with many lines.
fn many(program: &Path, lines: usize, stalled: usize) {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("state");
    let name = |index: usize| format!("node{index:04}");
    let record = |index: usize| (format!("{index}.toml"), RECORD.replace("node1", &name(index)));
    let records: Vec<_> = (0..lines + stalled).map(record).collect();
    drop(state(&dir, &records));
    let listeners: Vec<_> = (0..lines + stalled)
        .map(|index| std::os::unix::net::UnixListener::bind(work.path().join(format!("{index}.sock"))).unwrap())
        .collect();
    let file: String = (0..lines + stalled)
        .map(|index| format!("{} unix:{}/{index}.sock\n", name(index), work.path().display()))
        .collect();
    std::fs::write(work.path().join("lines"), file).unwrap();
    let mut inject = Command::new(program)
        .arg("--dir")
        .arg(&dir)
        .args(["inject", "--lines"])
        .arg(work.path().join("lines"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let seeded = seeded();
    let mut deaf = Vec::new();
    let mut remotes = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let (stream, _) = listener.accept().unwrap();
        if index >= lines {
            deaf.push(stream);
            continue;
        }
        stream.set_nonblocking(true).unwrap();
        let key = LineKey::generate(&seeded).unwrap();
        let wire = Wire::new(Node::new(hello(&key, index as u64), true, Shape::default()), None);
        remotes.push(Remote {
            stream,
            wire,
            key,
            code: String::new(),
            out: Vec::new(),
            began: Instant::now(),
            took: None,
        });
    }
    let now = || since_boot().as_micros() as u64;
    let start = Instant::now();
    remotes.iter_mut().for_each(|remote| remote.began = start);
    let mut buffer = vec![0; 16 * 1024];
    while remotes.iter().any(|remote| remote.took.is_none()) {
        assert!(start.elapsed() < Duration::from_secs(300), "not done");
        for remote in remotes.iter_mut().filter(|remote| remote.took.is_none()) {
            match remote.stream.read(&mut buffer) {
                Ok(count) => remote.wire.push(&buffer[..count], now()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let polled = remote.wire.poll(now());
            remote.out.extend(polled.bytes);
            for event in polled.events {
                remote.told(event, &seeded);
            }
            if !remote.out.is_empty()
                && let Ok(count) = remote.stream.write(&remote.out)
            {
                remote.out.drain(..count);
            }
        }
        let mut fds: Vec<_> =
            remotes.iter().map(|remote| PollFd::new(remote.stream.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::from(5u8)).unwrap();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", inject.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let memory: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut times: Vec<_> = remotes.iter().filter_map(|remote| remote.took).collect();
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    println!("{:.1} {memory}", p99.as_secs_f64() * 1000.0);
    inject.kill().unwrap();
    inject.wait().unwrap();
}

impl Remote {
    fn told(&mut self, event: NodeEvent, seeded: &Seeded) {
        let node = self.wire.end_mut();
        match event {
            NodeEvent::Object { kind: Kind::Sealed, number, session, bytes, .. } => {
                let opened = self.key.open(&bytes, node.hello(), session.unwrap(), Kind::Sealed, number).unwrap();
                let payload = Payload::unwrapped(opened.expose()).unwrap();
                let Enrolment::Csr(csr) = &payload.enrolment else { panic!("a CSR") };
                let subject = SubjectPlan { names: csr.names.clone(), key: csr.key };
                let identity = Identity::generate(&subject, seeded).unwrap();
                let token = csr.token.as_ref().unwrap().secret.expose();
                let request = seal::request(token.as_bytes(), node.hello(), identity.csr());
                self.code = identity.code().to_string();
                node.set_stage(Stage::Request);
                node.say(Kind::Request, request);
            }
            NodeEvent::Object { kind: Kind::Certificates, .. } => {
                node.set_stage(Stage::Done);
                let code = &self.code;
                let report = format!(
                    r#"{{"version":1,"outcome":"done","exit_code":0,"error":null,"origin":"line","payload_id":null,"name":null,"key_code":"{code}","steps":[]}}"#
                );
                node.say(Kind::Report, report.into_bytes());
            }
            NodeEvent::Sent(Kind::Report) => self.took = Some(self.began.elapsed()),
            NodeEvent::Object { kind, bytes, .. } => panic!("{kind:?}: {}", String::from_utf8_lossy(&bytes)),
            _ => {}
        }
    }
}
