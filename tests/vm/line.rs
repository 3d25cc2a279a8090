//! Machines without a network: payload, time and certificate over a serial line, as hypervisors and servers have them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use imprint_tests::programs;

use crate::*;

/// A host with one node, which has no network, and a place for sockets.
struct Host {
    work: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let work = tempfile::tempdir().unwrap();
        let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
        let mut state = State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap();
        let record = "name = \"node1\"\nsubject = [\"CN=node1.example.org\"]\nsans = [\"dns:node1.example.org\"]\n\
                      hostname = \"node1\"\nbind = { serial = \"VM-0001\" }\n";
        state.add_nodes(&[("node1.toml".to_owned(), record.to_owned())], false, Timestamp::system()).unwrap();
        Host { work }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// `imprint-host inject node1` with these words.
    fn inject(&self, words: &[&str]) -> Inject {
        let mut command = Command::new(programs::host());
        command.arg("--dir").arg(self.path("state")).args(["inject", "node1", "--timeout", "100s"]).args(words);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Inject(Some(child))
    }

    /// The certificate that the store has for the node.
    fn certificate_of(&self, report: &Report) {
        let state = State::open(&self.path("state")).unwrap();
        let log = state.store.log(100).unwrap();
        let events: Vec<&str> = log.iter().map(|row| row.event.as_str()).collect();
        assert!(events.contains(&"enrolled"), "{events:?}");
        assert!(report.file_names().contains(&"private/key.pem"), "{:?}", report.file_names());
    }
}

/// Does not outlive its test.
struct Inject(Option<Child>);

impl Inject {
    /// Exit code and what it told.
    fn ended(mut self) -> (Option<i32>, String) {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Inject {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const SMBIOS: [&str; 2] = ["-smbios", "type=1,serial=VM-0001"];

/// What a machine without a network has to come up with.
fn certified(host: &Host, report: &Report, told: &(Option<i32>, String), origin: &str) {
    assert_eq!(told.0, Some(0), "{}\n{}", told.1, report.console);
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    let status = report.status();
    assert_eq!((status.outcome, status.origin.as_deref()), (Outcome::Done, Some(origin)));
    // The machine's own clock says 2019.
    let off = Timestamp::system().as_secs().abs_diff(report.date());
    assert!(off < 60, "the clock is off by {off} s");
    assert!(status.steps.iter().any(|step| step.name == "clock" && step.detail.contains("by the line, to within")));
    host.certificate_of(report);
}

/// A unix socket at the machine's console, as virsh console has one.
fn console(host: &Host) -> (String, String) {
    let socket = host.path("console");
    (format!("socket,path={},server=on,wait=off", socket.display()), format!("unix:{}", socket.display()))
}

/// The kernel's own settings of a console, which an agent has to leave behind.
fn sane(report: &Report) {
    let stty = report.part("stty");
    for setting in [" icanon ", " echo ", " opost ", " icrnl ", " isig "] {
        assert!(format!(" {} ", stty.replace(['\n', ';'], " ")).contains(setting), "{setting} in {stty}");
    }
}

/// Nobody says where: the host hears the agent on the console, and calls.
#[test]
fn the_console_itself() {
    let host = Host::new();
    let (chardev, line) = console(&host);
    let log = host.path("log");
    let inject = host.inject(&["--line", &line, "--call", "--log", log.to_str().unwrap()]);
    let report = Machine::new(Kernel::Stable).without_network().qemu(&SMBIOS).console(&chardev).boot();
    certified(&host, &report, &inject.ended(), "line ttyS0");
    sane(&report);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("imprint: source: line ttyS0"), "{log}");
    assert!(!log.lines().any(|line| line.len() > 20 && line.starts_with('#')), "{log}");
}

#[test]
fn a_virtio_port_of_that_name() {
    let host = Host::new();
    let socket = host.path("line");
    let chardev = format!("socket,id=line,path={},server=on,wait=off", socket.display());
    let inject = host.inject(&["--line", &format!("unix:{}", socket.display())]);
    let report = Machine::new(Kernel::Stable)
        .without_network()
        .qemu(&SMBIOS)
        .qemu(&["-chardev", &chardev, "-device", "virtserialport,chardev=line,name=imprint.0"])
        .boot();
    certified(&host, &report, &inject.ended(), "line virtio imprint.0");
}

/// Somebody pastes, and a line gets lost.
#[test]
fn by_hand_at_the_console() {
    let site = Site::new(NODE);
    let mut state = State::open(&site.work.path().join("state")).unwrap();
    let options = compose::Options { expires: DAY, medium: compose::Medium::Text, ..Default::default() };
    let payload = state.payload("node1", &options, Timestamp::system()).unwrap();
    let text = String::from_utf8(compose::text(&payload.bytes).to_vec()).unwrap();
    assert!(text.lines().all(|line| line.len() <= 76), "{text}");
    let socket = site.work.path().join("console");
    let chardev = format!("socket,path={},server=on,wait=off", socket.display());
    let person = std::thread::spawn(move || {
        let mut line = connected(&socket);
        let mut seen = String::new();
        until(&mut line, &mut seen, "--as text");
        for (index, words) in text.lines().enumerate() {
            let words = if index == 4 { words.replacen(&words[9..12], "+++", 1) } else { words.to_owned() };
            std::io::Write::write_all(&mut line, format!("{words}\n").as_bytes()).unwrap();
        }
        until(&mut line, &mut seen, "missing or garbled: line 5; paste again");
        std::io::Write::write_all(&mut line, format!("{}\n", text.lines().nth(4).unwrap()).as_bytes()).unwrap();
        until(&mut line, &mut seen, "hand-over: ");
        seen
    });
    let report = Machine::new(Kernel::Stable)
        .init(Init::Plain)
        .append("imprint-test.console")
        .qemu(&["-smbios", "type=1,serial=VM-0001"])
        .console(&chardev)
        .boot();
    let seen = person.join().unwrap();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{seen}");
    assert_eq!(report.status().origin.as_deref(), Some("line ttyS0 (not sealed)"));
    assert!(
        seen.contains("imprint: UUID ") && seen.contains("serial number VM-0001") && seen.contains("link e"),
        "{seen}"
    );
    sane(&report);
}

fn connected(socket: &std::path::Path) -> std::os::unix::net::UnixStream {
    let start = std::time::Instant::now();
    loop {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(stream) => return stream,
            // QEMU makes it; nothing tells when.
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn until(line: &mut std::os::unix::net::UnixStream, seen: &mut String, words: &str) {
    line.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    let from = seen.len();
    let mut buffer = [0; 1024];
    while !seen[from..].contains(words) {
        let count = std::io::Read::read(line, &mut buffer).unwrap_or_else(|error| panic!("{error}: {seen}"));
        assert!(count > 0, "the console ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap()));
    }
}

#[test]
fn a_second_serial_port_at_its_own_speed() {
    let host = Host::new();
    let socket = host.path("line");
    let chardev = format!("socket,id=line,path={},server=on,wait=off", socket.display());
    let inject = host.inject(&["--line", &format!("unix:{}", socket.display())]);
    let report = Machine::new(Kernel::Stable)
        .without_network()
        .append("imprint.source=serial:ttyS1,115200")
        .qemu(&SMBIOS)
        .qemu(&["-chardev", &chardev, "-serial", "chardev:line"])
        .boot();
    certified(&host, &report, &inject.ended(), "line ttyS1");
}
