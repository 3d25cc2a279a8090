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
