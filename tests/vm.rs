//! Tests of the whole boot, with real kernels, real initramfs images and a real server. Each case differs from a working
//! boot in one thing. The guest's own report gives the verdict, never the console.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail tests by panicking"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imprint::medium::Medium;
use imprint::payload::EstUrl;
use imprint::source::Origin;
use imprint::status::Outcome;
use imprint::time::Timestamp;
use imprint_host::compose;
use imprint_host::est::Layout;
use imprint_host::serve::{Config, Server};
use imprint_host::state::State;
use imprint_tests::patience::{PATIENCE, patiently};
use imprint_tests::ports::Reserved;
use imprint_tests::vm::{Init, Kernel, Machine, Report};

mod vm {
    mod arm64;
    mod bare;
    mod bundle;
    mod cases;
    mod consumers;
    mod controllers;
    mod credentials;
    mod deciding;
    mod door;
    mod drives;
    mod efivar;
    mod first_process;
    mod images;
    mod initramfs_tools;
    mod line;
    mod lying;
    mod matrix;
    mod medium;
    mod names;
    mod netroot;
    mod network;
    mod partitions;
    mod offers;
    mod plain;
    mod prompt;
    mod pxe;
    mod quickstart;
    mod rescue;
    mod root_file;
    mod services;
    mod site_image;
    mod sticks;
    mod swap;
}

/// A CA with a server, and one node's payload on a config drive.
struct Site {
    work: tempfile::TempDir,
    server: Option<Server>,
    /// The server's clock is ahead by this time.
    offset: Arc<Mutex<Duration>>,
    payload: Vec<u8>,
    _port: Reserved,
}

/// The values in which the cases differ.
#[derive(Clone)]
struct Node {
    bind: &'static str,
    single_boot: bool,
    enrol: &'static str,
    /// Which link.
    matching: &'static str,
    /// The rest of its `[[network]]`.
    network: &'static str,
    /// The address that the server listens on, and the address that the node connects to.
    server: (&'static str, &'static str),
}

const DAY: Duration = Duration::from_secs(86_400);

const NODE: Node = Node {
    bind: "{ serial = \"VM-0001\" }",
    single_boot: false,
    enrol: "once",
    matching: "{ driver = \"virtio_net\" }",
    network: "addresses = [\"10.0.2.15/24\"]\nroutes = [{ to = \"0.0.0.0/0\", via = \"10.0.2.2\" }]\n\
              dns = [\"10.0.2.3\"]\nsearch = [\"example.org\"]\n",
    server: ("127.0.0.1", "10.0.2.2"),
};

impl Site {
    /// Starts the server first, so that the EST URL has the server's real port.
    fn new(node: Node) -> Site {
        let work = tempfile::tempdir().unwrap();
        let (here, there) = node.server;
        let reserved = Reserved::at(here.trim_matches(['[', ']']).parse().unwrap());
        let port = reserved.port();
        let url = EstUrl::try_from(format!("https://{there}:{port}/.well-known/est").as_str()).unwrap();
        let mut state = State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap();
        let record = format!(
            "name = \"node1\"\nsubject = [\"CN=node1.example.org\"]\nsans = [\"dns:node1.example.org\"]\n\
             hostname = \"node1\"\nenrol = \"{}\"\nbind = {}\n[[network]]\nmatch = {}\n{}",
            node.enrol, node.bind, node.matching, node.network
        );
        let now = Timestamp::system();
        state.add_nodes(&[("node1.toml".to_owned(), record)], false, now).unwrap();
        let options =
            compose::Options { expires: DAY, seed: true, single_boot: node.single_boot, ..Default::default() };
        let payload = state.payload("node1", &options, now).unwrap().bytes.to_vec();
        drop(state);
        let offset = Arc::new(Mutex::new(Duration::ZERO));
        let theirs = Arc::clone(&offset);
        let server = Server::start(Config {
            dir: work.path().join("state"),
            listen: format!("{here}:{port}").parse().unwrap(),
            metrics: None,
            doors: Vec::new(),
            layout: Layout::Wrapped,
            tell: Default::default(),
            clock: Arc::new(move || Timestamp::system().plus(*theirs.lock().unwrap())),
        })
        .unwrap();
        Site { work, server: Some(server), offset, payload, _port: reserved }
    }

    fn typical() -> Site {
        Site::new(NODE)
    }

    fn machine(&self, kernel: Kernel) -> Machine {
        machine(kernel).optical(&self.config_drive(&self.payload))
    }

    fn config_drive(&self, payload: &[u8]) -> PathBuf {
        let path = self.work.path().join("config-drive.iso");
        std::fs::write(&path, &*imprint_host::iso::image(payload, Timestamp::system()).unwrap()).unwrap();
        path
    }

    fn state(&self) -> State {
        State::open(&self.work.path().join("state")).unwrap()
    }

    fn certificates_issued(&self) -> usize {
        let state = self.state();
        let nodes = imprint_host::list::nodes_json(&imprint_host::list::nodes(&state, Timestamp::system()).unwrap());
        let nodes = nodes.as_array().unwrap().clone();
        nodes.iter().filter(|node| node.get("certificate").is_some_and(|c| !c.is_null())).count()
    }
}

fn machine(kernel: Kernel) -> Machine {
    Machine::new(kernel).qemu(&["-smbios", "type=1,serial=VM-0001"])
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }
}

/// Asserts what holds for every stopped boot: an emergency, no credentials, and one line for the person at the console.
#[track_caller]
fn stopped(report: &Report, exit_code: u8, stage: &str, message: &str) {
    let (found_stage, found_message) = report.failure();
    assert_eq!((report.exit_code(), found_stage.as_str()), (exit_code, stage), "{found_message}");
    assert!(found_message.contains(message), "{found_message}");
    assert_eq!(report.ended_in(), "emergency", "the real root must not be booted");
    assert_eq!(report.status().outcome, Outcome::Failed);
    assert_eq!(report.file_names(), ["status.json"]);
    assert!(!report.part("mounts").contains(" /sysroot "), "the real root was mounted:\n{}", report.part("mounts"));
    let line = report.console.lines().find(|line| line.contains(&format!("imprint: {stage}: ")));
    assert!(line.is_some(), "the console does not say why:\n{}", report.console);
}

/// Asserts what holds for every node that came up.
#[track_caller]
fn came_up(report: &Report) {
    assert_eq!(report.exit_code(), 0, "{}\n{}", report.part("status"), report.console);
    assert_eq!(report.ended_in(), "root", "{}", report.console);
    assert_eq!(report.status().outcome, Outcome::Done);
    report.was_set("system clock", report.date());
    report.was_set("real-time clock", report.part("rtc").parse().unwrap());
    assert!(report.part("cert").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(report.part("key").starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_eq!(report.part("hostname"), "node1");
    for (mode, file) in [
        ("drwxr-xr-x", "/run/imprint"),
        ("-rw-r--r--", "/run/imprint/cert.pem"),
        ("-rw-r--r--", "/run/imprint/chain.pem"),
        ("-rw-r--r--", "/run/imprint/ca.pem"),
        ("-rw-r--r--", "/run/imprint/node.json"),
        ("-rw-r--r--", "/run/imprint/status.json"),
        ("-rw-r--r--", "/run/imprint/ready"),
        ("drwx------", "/run/imprint/private"),
        ("-rw-------", "/run/imprint/private/key.pem"),
    ] {
        assert_eq!(report.mode(file), mode, "{file}");
    }
}

#[track_caller]
fn came_up_from(report: &Report, medium: Medium, place: &str) {
    came_up(report);
    came_from(report, medium, place);
}

/// Asserts that the payload came from this medium. `place`: where on the machine the medium was; empty if the medium
/// has one place only. tests/pure/boots.rs counts the media that tests assert here.
#[track_caller]
fn came_from(report: &Report, medium: Medium, place: &str) {
    let origin = Origin::Medium { medium, place: place.into() };
    assert_eq!(report.status().origin, Some(origin.to_string()));
}

/// Asserts that openssl accepts the chain, and that the key belongs to it.
#[track_caller]
fn openssl_agrees(report: &Report, ca: &Path) {
    let work = tempfile::tempdir().unwrap();
    let file = |name: &str| work.path().join(name);
    for part in ["cert", "chain", "key"] {
        std::fs::write(file(part), report.part(part)).unwrap();
    }
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl").args(arguments).current_dir(work.path()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(&[
        "verify",
        "-x509_strict",
        "-purpose",
        "sslclient",
        "-CAfile",
        ca.to_str().unwrap(),
        "-untrusted",
        "chain",
        "cert",
    ]);
    assert_eq!(run(&["x509", "-in", "cert", "-noout", "-pubkey"]), run(&["pkey", "-in", "key", "-pubout"]));
    assert!(run(&["x509", "-in", "cert", "-noout", "-ext", "subjectAltName"]).contains("DNS:node1.example.org"));
}

#[test]
fn a_node_with_a_slow_clock_gets_its_certificate_and_the_real_root_finds_it() {
    let site = Site::typical();
    let report = site.machine(Kernel::Stable).boot();
    came_up(&report);
    openssl_agrees(&report, &site.work.path().join("state/root.pem"));
    // Linux 6.1 has no tmpfs without swap.
    assert_eq!(report.mount("/run/imprint/private"), "ramfs rw,nosuid,nodev,noexec,relatime,mode=700");
    let status = report.status();
    assert_eq!(status.origin.as_deref(), Some("config-drive sr0 (IMPRINT)"));
    let steps: Vec<&str> = status.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(
        steps,
        ["source", "payload", "facts", "plan", "clock", "entropy", "network", "identity", "check-in", "hand-over"]
    );
    assert!(status.steps.iter().any(|step| step.detail.starts_with("unknown, set to ")), "2019 is no plausible clock");
    assert_eq!(site.certificates_issued(), 1);
}

#[test]
fn on_a_newer_kernel_the_key_lies_on_a_tmpfs_without_swap() {
    let site = Site::typical();
    let report = machine(Kernel::Backports).disk(&site.config_drive(&site.payload)).boot();
    came_up(&report);
    assert_eq!(report.status().origin.as_deref(), Some("config-drive vdb (IMPRINT)"));
    let private = report.mount("/run/imprint/private");
    assert!(private.starts_with("tmpfs rw,nosuid,nodev,noexec,relatime,"), "{private}");
    for option in ["noswap", "mode=700"] {
        assert!(private.split(',').any(|other| other == option), "{private}");
    }
}

/// A processor without random numbers. A seed that names this machine and is declared as single-boot is credited and makes
/// the pool ready. The same seed without the declaration is only mixed in, and the agent waits for the pool.
#[test]
fn a_seed_makes_the_random_pool_ready_only_when_it_is_fresh_for_this_boot() {
    for (single_boot, words) in [(true, "the seed made the pool ready"), (false, "waited until the pool was ready")] {
        let site = Site::new(Node { single_boot, ..NODE });
        let machine = site.machine(Kernel::Stable).append("random.trust_cpu=off").cpu("qemu64,-cx16");
        let report = machine.boot();
        came_up(&report);
        let entropy = report.status().steps.into_iter().find(|step| step.name == "entropy").unwrap();
        assert_eq!(entropy.detail, words);
    }
}

#[test]
fn a_server_of_another_ca_gets_nothing() {
    let site = Site::typical();
    // The same names and port, but another CA: the payload is of another site.
    let other = Site::typical();
    let port = |site: &Site| site.server.as_ref().unwrap().local_addr().port();
    let mut payload = imprint::payload::Payload::unwrapped(&other.payload).unwrap();
    let imprint::payload::Enrolment::Csr(csr) = &mut payload.enrolment else { panic!("it enrols with a CSR") };
    let url = format!("https://10.0.2.2:{}/.well-known/est", port(&site));
    csr.urls = vec![EstUrl::try_from(url.as_str()).unwrap()];
    let drive = site.config_drive(&payload.encode());
    let report = machine(Kernel::Stable).optical(&drive).boot();
    stopped(&report, 18, "check-in", "does not chain to this node's CA");
    assert_eq!(site.certificates_issued(), 0);
}

#[test]
fn a_payload_for_another_machine_changes_nothing() {
    let site = Site::new(Node { bind: "{ serial = \"VM-0002\" }", ..NODE });
    let report = site.machine(Kernel::Stable).boot();
    stopped(&report, 13, "plan", "the payload is for a machine with serial number VM-0002, this one has VM-0001");
    assert_ne!(report.part("hostname"), "node1");
}

/// The same payload, byte for byte, on a node with a fast clock and on a node with a right one. Only the server's time
/// tells whether the payload has expired.
#[test]
fn an_expired_payload_and_a_clock_two_days_fast_differ_only_in_the_servers_time() {
    let site = Site::typical();
    let in_two_days = Timestamp::system().plus(2 * DAY).to_string();
    let drive = site.config_drive(&site.payload);
    let boot = || machine(Kernel::Stable).rtc(in_two_days.trim_end_matches('Z')).ide_optical(&drive).boot();

    *site.offset.lock().unwrap() = 2 * DAY;
    stopped(&boot(), 18, "check-in", "the payload expired at ");
    assert_eq!(site.certificates_issued(), 0);

    // The token was not sent to a server that says the payload has expired, so it is still good.
    *site.offset.lock().unwrap() = Duration::ZERO;
    came_up(&boot());
    assert_eq!(site.certificates_issued(), 1);
}

#[test]
fn a_site_pin_lets_its_own_ca_in_and_no_other() {
    let site = Site::typical();
    let ca = imprint::payload::Payload::unwrapped(&site.payload).unwrap().ca;
    let digest = |bytes: &[u8]| format!("# the CAs of this site\n{}\n", imprint::hex::encode(bytes));
    let report = site.machine(Kernel::Stable).initramfs_file("imprint/site", digest(&[7; 32]).as_bytes()).boot();
    stopped(&report, 13, "plan", "is not among those of /imprint/site in this image");
    let report = site.machine(Kernel::Stable).initramfs_file("imprint/site", digest(&ca.sha256()).as_bytes()).boot();
    came_up(&report);
    assert!(!report.console.contains("no site pin"), "{}", report.console);
}

/// The attack: somebody can write the medium. A node of such an image accepts the signer's payload, or none.
#[test]
fn a_signer_in_the_site_pin_lets_in_what_it_has_signed_and_nothing_else() {
    let site = Site::typical();
    let signer = site.state().ca.signing_key().unwrap().unwrap().signer().clone();
    let boot = |payload: &[u8]| {
        let drive = site.config_drive(payload);
        machine(Kernel::Stable).optical(&drive).initramfs_file("imprint/site", signer.to_string().as_bytes()).boot()
    };
    let unsigned = imprint::payload::Payload::unwrapped(&site.payload).unwrap().encode();
    let report = boot(&unsigned);
    stopped(
        &report,
        13,
        "plan",
        &format!("the payload is not signed, and /imprint/site in this image names signers ({})", signer.kid()),
    );
    let report = boot(&imprint_tests::signer::Key::stranger().sign(&unsigned));
    stopped(&report, 13, "plan", "the payload is signed by ");
    assert_eq!(site.certificates_issued(), 0);
    let report = boot(&site.payload);
    came_up(&report);
    assert_eq!(report.status().signer, Some(signer.kid().to_string()));
    assert!(!report.console.contains("no site pin"), "{}", report.console);
}

#[test]
fn without_a_source_auto_boots_on() {
    let report = Machine::new(Kernel::Stable).boot();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    assert_eq!(report.status().outcome, Outcome::Absent);
    assert_eq!(report.file_names(), ["status.json"]);
}

#[test]
fn without_a_source_require_stops_the_boot_and_off_does_nothing() {
    // The disk of the real root must have appeared by then.
    let looked = "no file /imprint/payload; no credential imprint.payload; vda: an ext file system, and neither ISO 9660 nor FAT on the whole disk; no host spoke on ttyS0)";
    let report = patiently(Duration::from_secs(3), |limit| {
        let words = format!("imprint=require imprint.timeout={}", limit.as_secs());
        let report = Machine::new(Kernel::Stable).append(&words).boot();
        if report.failure().1.contains(looked) { Ok(report) } else { Err(report.failure().1) }
    });
    stopped(&report, 11, "source", looked);
    let report = Machine::new(Kernel::Stable).append("imprint=off").boot();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    assert!(report.part("modes").contains("No such file"), "{}", report.part("modes"));
}
