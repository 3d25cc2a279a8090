//! Tests of `imprint-host inject` against a node's end that does everything right, or has one fault.

mod commands;
mod lost;
mod peers;
mod power;
mod replayed;
mod reports;
mod secrets;
mod speeds;
mod terminals;
mod times;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use imprint::identity::Identity;
use imprint::line::frame::{Hello, Nonce, Versions};
use imprint::line::{Kind, LineKey, Node, NodeEvent, Shape, Stage, Wire, seal};
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::secret::Secret;
use imprint::time::{Deadline, Timestamp, since_boot};
use imprint_host::enrol::approve;
use imprint_host::state::State;
use imprint_tests::books::in_use;
use imprint_tests::patience::{PATIENCE, patiently};
use imprint_tests::programs;

const UUID: [u8; 16] = [7; 16];

struct Site {
    work: tempfile::TempDir,
    listener: UnixListener,
}

impl Site {
    fn new() -> Site {
        let work = tempfile::tempdir().unwrap();
        let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
        let mut state = State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap();
        let record = "name = \"node1\"\nsubject = [\"CN=node1.example.org\"]\n\
                      bind = { uuid = \"07070707-0707-0707-0707-070707070707\" }\n";
        state.add_nodes(&[("node1.toml".to_owned(), record.to_owned())], false, Timestamp::system()).unwrap();
        let listener = UnixListener::bind(work.path().join("line")).unwrap();
        Site { work, listener }
    }

    fn state(&self) -> State {
        State::open(&self.work.path().join("state")).unwrap()
    }

    fn inject(&self, words: &[&str]) -> Child {
        self.inject_for("100s", words)
    }

    fn inject_for(&self, timeout: &str, words: &[&str]) -> Child {
        let line = format!("unix:{}", self.work.path().join("line").display());
        Command::new(programs::host())
            .arg("--dir")
            .arg(self.work.path().join("state"))
            .args(["inject", "node1", "--line", &line, "--window", "100s", "--timeout", timeout])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn events(&self) -> Vec<String> {
        self.state().store.log(100).unwrap().into_iter().map(|row| row.event).collect()
    }
}

/// A FIFO in the site's folder, open for both, so that neither end waits for the other.
fn fifo(folder: &Path, name: &str) -> (PathBuf, File) {
    let path = folder.join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    (path, file)
}

/// A node that does everything right, behind two FIFOs. The node reads what a command writes to the first one, and
/// writes to the second one. The thread returns the code of the node's key.
fn behind_fifos(site: &Site) -> (PathBuf, PathBuf, JoinHandle<String>) {
    let [(down, from), (up, to)] = ["down", "up"].map(|name| fifo(site.work.path(), name));
    let (near, far) = UnixStream::pair().unwrap();
    let other = far.try_clone().unwrap();
    // Both threads end with the test.
    std::thread::spawn(move || pass(from, other));
    std::thread::spawn(move || pass(far, to));
    let node = std::thread::spawn(move || {
        let mut node = Remote::new(near, UUID, Twist::None);
        node.run(|node| node.over);
        node.code
    });
    (down, up, node)
}

/// At once, not when there is much of it: `std::io::copy` has the kernel move it.
fn pass(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn ended(child: Child) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// What the node does differently.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twist {
    None,
    /// It says HELLO with another key once it has its payload.
    SecondKey,
    /// Its proof is made with another token.
    WrongToken,
    /// It reports that it failed.
    Fails,
    /// It has used its token with another key before.
    Again,
    /// It reports that it is done once it has its payload, and asks for nothing.
    Claims,
    /// It finds its payload damaged, each time.
    Picky,
    /// It has its certificate, and says nothing of it.
    Mute,
    /// It has its certificate and cannot hand it over; why is lost.
    HandOver,
    /// It asks for its certificate over the network.
    Network,
}

struct Remote {
    stream: UnixStream,
    wire: Wire<Node>,
    key: LineKey,
    /// Code of its key, as it reports it.
    code: String,
    twist: Twist,
    pending: Option<String>,
    refused: Option<String>,
    certificates: Option<Vec<u8>>,
    /// It is in a conversation.
    opened: bool,
    /// It wants its payload again, once it has said that it is busy with it.
    damaged: bool,
    /// It leaves so many conversations once they have begun.
    leaves: u8,
    /// The first request was answered, and there is another one.
    first: bool,
    second: Option<Vec<u8>>,
    /// The token and the CSR, for [`Twist::Network`].
    over_network: Option<(Secret, Vec<u8>)>,
    over: bool,
}

fn seeded() -> Seeded {
    Seeded::ready(Deadline::after(PATIENCE)).unwrap()
}

fn hello(key: &LineKey, uuid: [u8; 16]) -> Hello {
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&key.public()[..8]);
    Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: false,
        nonce: Nonce(nonce),
        key: key.public(),
        uuid: Some(uuid),
        serial: None,
        macs: Vec::new(),
    }
}

impl Remote {
    fn new(stream: UnixStream, uuid: [u8; 16], twist: Twist) -> Remote {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let key = LineKey::generate(&seeded()).unwrap();
        let wire = Wire::new(Node::new(hello(&key, uuid), true, Shape::default()), None);
        Remote {
            stream,
            wire,
            key,
            code: "AAAA-BBBB-CCCC-DDDD".to_owned(),
            twist,
            pending: None,
            refused: None,
            certificates: None,
            opened: false,
            damaged: false,
            leaves: 0,
            first: false,
            second: None,
            over_network: None,
            over: false,
        }
    }

    /// The host opens the line once more.
    fn line_again(&mut self, site: &Site) {
        self.stream = site.listener.accept().unwrap().0;
        self.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    }

    /// Asks again, with another key.
    fn ask_again(&mut self) {
        let request = self.second.take().unwrap();
        self.wire.end_mut().set_stage(Stage::Request);
        self.wire.end_mut().say(Kind::Request, request);
    }

    /// Until `done`, or until the other end closes.
    fn run(&mut self, done: impl Fn(&Remote) -> bool) {
        let start = Instant::now();
        let now = || u64::try_from(since_boot().as_micros()).unwrap();
        let mut buffer = [0; 4096];
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "the host said nothing more");
            let polled = self.wire.poll(now());
            let idle = polled.events.is_empty();
            if self.stream.write_all(&polled.bytes).is_err() {
                return;
            }
            if idle && std::mem::take(&mut self.damaged) {
                self.wire.end_mut().set_stage(Stage::Payload);
            }
            polled.events.into_iter().for_each(|event| self.told(event));
            if !idle {
                continue;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => self.wire.push(&buffer[..count], now()),
                // The host is done, and what was on its way to it is lost.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
            }
        }
        let polled = self.wire.poll(now());
        drop(self.stream.write_all(&polled.bytes));
    }

    fn told(&mut self, event: NodeEvent) {
        let node = self.wire.end_mut();
        match event {
            NodeEvent::Opened(_) if self.leaves == 0 => self.opened = true,
            NodeEvent::Opened(_) => {
                self.leaves -= 1;
                let hello = node.hello().clone();
                self.wire = Wire::new(Node::new(hello, true, Shape::default()), None);
            }
            NodeEvent::Object { kind: Kind::Sealed, .. } if self.twist == Twist::Picky => {
                node.set_stage(Stage::Busy);
                self.damaged = true;
            }
            NodeEvent::Object { kind: Kind::Sealed, number, session, bytes, .. } => {
                if self.twist == Twist::SecondKey {
                    let key = LineKey::generate(&seeded()).unwrap();
                    self.wire = Wire::new(Node::new(hello(&key, UUID), true, Shape::default()), None);
                    return;
                }
                if self.twist == Twist::Fails {
                    node.set_stage(Stage::Failed);
                    return node.say(Kind::Report, report(None));
                }
                if self.twist == Twist::Claims {
                    node.set_stage(Stage::Done);
                    return node.say(Kind::Report, report(Some(&self.code)));
                }
                let opened = self.key.open(&bytes, node.hello(), session.unwrap(), Kind::Sealed, number).unwrap();
                let payload = Payload::unwrapped(opened.expose()).unwrap();
                let Enrolment::Csr(csr) = &payload.enrolment else { panic!("a CSR") };
                assert_eq!(csr.urls, [EstUrl::Line], "the node has no network");
                let subject = SubjectPlan { names: csr.names.clone(), key: csr.key };
                let identity = Identity::generate(&subject, &seeded()).unwrap();
                let token = match self.twist {
                    Twist::WrongToken => "AAAAAAAAAAAAAAAAAAAAAA",
                    _ => csr.token.as_ref().unwrap().secret.expose(),
                };
                let request = seal::request(token.as_bytes(), node.hello(), identity.csr());
                self.code = identity.code().to_string();
                if self.twist == Twist::Network {
                    let token = Secret::new(token.as_bytes().to_vec());
                    self.over_network = Some((token, identity.csr().to_vec()));
                    return node.set_stage(Stage::Busy);
                }
                node.set_stage(Stage::Request);
                node.say(Kind::Request, request);
                if self.twist == Twist::Again {
                    // Asks again with another key once it has its certificate.
                    self.twist = Twist::None;
                    let other = Identity::generate(&subject, &seeded()).unwrap();
                    let request = seal::request(token.as_bytes(), node.hello(), other.csr());
                    self.code = other.code().to_string();
                    self.second = Some(request);
                }
            }
            NodeEvent::Object { kind: Kind::Certificates, bytes, .. } => {
                let node = self.wire.end_mut();
                if self.second.is_some() {
                    self.first = true;
                    return;
                }
                self.certificates = Some(bytes);
                if self.twist == Twist::Mute {
                    return;
                }
                if self.twist == Twist::HandOver {
                    return node.set_stage(Stage::Failed);
                }
                node.set_stage(Stage::Done);
                node.say(Kind::Report, report(Some(&self.code)));
            }
            NodeEvent::Object { kind: Kind::Pending, bytes, .. } => {
                self.pending = Some(String::from_utf8(bytes).unwrap());
            }
            NodeEvent::Object { kind: Kind::Refused, bytes, .. } => {
                self.refused = Some(String::from_utf8(bytes).unwrap());
                node.set_stage(Stage::Failed);
                node.say(Kind::Report, report(None));
            }
            NodeEvent::Sent(Kind::Report) => self.over = true,
            _ => {}
        }
    }
}

/// `done`: with this key.
fn report(done: Option<&str>) -> Vec<u8> {
    let (outcome, code, error) = match done {
        Some(_) => ("done", 0, "null"),
        None => ("failed", 13, r#"{"stage":"plan","message":"CA CN=x is none of this site's\u001b[2J"}"#),
    };
    let key = done.map_or("null".to_owned(), |key| format!("\"{key}\""));
    format!(
        r#"{{"version":1,"outcome":"{outcome}","exit_code":{code},"error":{error},"origin":"line ttyS0","payload_id":null,
            "name":"node1","key_code":{key},"steps":[{{"name":"payload","started_us":5,"duration_us":7,"detail":""}}]}}"#
    )
    .into_bytes()
}

#[test]
fn a_node_gets_its_certificate_and_the_console_is_logged() {
    let site = Site::new();
    let log = site.work.path().join("log");
    let inject = site.inject(&["--log", log.to_str().unwrap()]);
    let (mut stream, _) = site.listener.accept().unwrap();
    stream.write_all(b"Linux version 6.1 #1 SMP\r\nimprint: hello\r\n").unwrap();
    let mut node = Remote::new(stream, UUID, Twist::None);
    node.run(|node| node.over);
    node.stream.write_all(b"login: ").unwrap();
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    let done = format!("node1: done: key {}, payload ", node.code);
    assert!(told.contains(&done) && told.contains(" retransmits, "), "{told}");
    let certificates = imprint::est::certs_only(&node.certificates.unwrap()).unwrap();
    assert_eq!(certificates.len(), 2, "the node's and the intermediate");
    assert_eq!(site.events().iter().filter(|event| *event == "enrolled").count(), 1);
    assert_eq!(std::fs::read_to_string(log).unwrap(), "Linux version 6.1 #1 SMP\r\nimprint: hello\r\nlogin: ");
}

#[test]
fn another_machine_gets_nothing() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, [8; 16], Twist::None);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1));
    let want = "another machine is on this line: the record's SMBIOS UUID is 07070707-0707-0707-0707-070707070707, HELLO \
                says 08080808-0808-0808-0808-080808080808";
    assert!(told.contains(want), "{told}");
    assert!(!site.events().contains(&"payload".to_owned()), "{:?}", site.events());
}

#[test]
fn a_second_key_in_the_window_is_refused() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::SecondKey);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1));
    assert!(told.contains("a second line key, ") && told.contains("somebody else writes to the line"), "{told}");
    assert!(!site.events().contains(&"enrolled".to_owned()));
}

#[test]
fn a_request_without_the_payload_is_refused() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::WrongToken);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    assert!(node.refused.unwrap().contains("no payload was made with this name and token"), "{told}");
    assert!(site.events().contains(&"refused".to_owned()));
}

#[test]
fn a_node_that_fails_says_why() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Fails);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1));
    assert!(told.contains("the node says: plan: CA CN=x is none of this site's\\u{1b}[2J"), "{told}");
    assert!(told.contains("node1: step: payload"), "{told}");
}

#[test]
fn a_used_token_waits_for_an_administrator() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Again);
    node.run(|node| node.first);
    in_use(&mut site.state(), "node1");
    node.ask_again();
    node.run(|node| node.pending.is_some());
    let words = node.pending.clone().unwrap();
    let code = words.split("key ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    approve(&mut site.state().store, "node1", &code, Timestamp::system()).unwrap();
    node.run(|node| node.over);
    let (exit, told) = ended(inject);
    assert_eq!(exit, Some(0), "{told}");
    assert!(told.contains(&format!("node1: pending: key {code}: token already used by key ")), "{told}");
    assert!(node.certificates.is_some());
}

/// Killed in the middle and started again, with another payload for a node that has one.
#[test]
fn a_host_that_starts_again_goes_on() {
    let site = Site::new();
    let mut inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.run(|node| node.wire.end().stage() == Stage::Request);
    inject.kill().unwrap();
    inject.wait().unwrap();
    let inject = site.inject(&[]);
    node.line_again(&site);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(site.events().iter().filter(|event| *event == "payload").count(), 1, "the node had its payload");
}

#[test]
fn lines_that_nobody_answers_are_told_apart() {
    let site = Site::new();
    let nowhere = Path::new("/nowhere/line");
    let output = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "node1", "--line", &format!("unix:{}", nowhere.display()), "--window", "1s"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.contains("unix:/nowhere/line: No such file or directory") && told.contains("start the virtual"),
        "{told}"
    );
    assert!(told.contains("no node said HELLO within 1 s"), "{told}");
}

/// A network that breaks, a console server that is restarted.
#[test]
fn a_line_that_breaks_is_opened_again() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.run(|node| node.wire.end().stage() == Stage::Request);
    node.stream.shutdown(std::net::Shutdown::Both).unwrap();
    node.line_again(&site);
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("node1: line lost: "), "{told}");
    assert_eq!(site.events().iter().filter(|event| *event == "payload").count(), 1);
}

/// Serial-over-LAN that stalls, a console server that is restarted: the payload never came.
#[test]
fn conversations_that_end_before_the_payload_do_not_count() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    node.leaves = 6;
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told.matches("node1: node: wants its payload\n").count(), 7, "{told}");
}

#[test]
fn a_node_that_is_never_content_with_its_payload_is_given_up() {
    let site = Site::new();
    let inject = site.inject(&[]);
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::Picky);
    node.run(|_| false);
    let (code, told) = ended(inject);
    assert_eq!(code, Some(1), "{told}");
    let want = "node1: failed: the node asked for its payload again and again; look at its console\n";
    assert!(told.contains(want), "{told}");
    assert_eq!(told.matches("node1: delivered: payload, sealed, ").count(), 3, "{told}");
}

#[test]
fn two_lines_in_one_process_and_one_of_them_fails() {
    // The second node never says HELLO, and the first one has to before that time is over.
    patiently(Duration::from_secs(2), two_lines);
}

fn two_lines(window: Duration) -> Result<(), String> {
    let (site, seconds) = (Site::new(), window.as_secs());
    let record = "name = \"node2\"\nsubject = [\"CN=node2.example.org\"]\n".to_owned();
    site.state().add_nodes(&[("node2.toml".to_owned(), record)], false, Timestamp::system()).unwrap();
    let other = UnixListener::bind(site.work.path().join("other")).unwrap();
    let folder = site.work.path().display();
    std::fs::write(
        site.work.path().join("lines"),
        format!("# two\nnode1 unix:{folder}/line\nnode2 unix:{folder}/other | true\n"),
    )
    .unwrap();
    let logs = site.work.path().join("new/logs");
    let inject = Command::new(programs::host())
        .arg("--dir")
        .arg(site.work.path().join("state"))
        .args(["inject", "--window", &format!("{seconds}s"), "--lines"])
        .arg(site.work.path().join("lines"))
        .arg("--log")
        .arg(&logs)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut node = Remote::new(site.listener.accept().unwrap().0, UUID, Twist::None);
    let mut mute = other.accept().unwrap().0;
    mute.write_all(b"grub> ").unwrap();
    node.run(|node| node.over);
    let (code, told) = ended(inject);
    drop(mute);
    if !told.contains("node1: done: ") {
        return Err(told);
    }
    assert_eq!(code, Some(1));
    assert!(told.contains(&format!("node2: failed: no node said HELLO within {seconds} s")), "{told}");
    assert!(told.ends_with("imprint-host: 1 of 2 nodes failed; see above\n"), "{told}");
    let log = |name: &str| std::fs::read_to_string(logs.join(name)).unwrap();
    assert_eq!((log("node1.log"), log("node2.log")), (String::new(), "grub> ".to_owned()));
    Ok(())
}
