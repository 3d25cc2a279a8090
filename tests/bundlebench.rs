//! Measures a stateless node's second boot for `make bench`: the node's own processor time for a check-in, for the fetch of its
//! bundle behind it, and for the report. Prints numbers only; judges nothing.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measurement that fails says so by panicking"
)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use imprint::bundle::answer::{Outcome, Report};
use imprint::handover::{self, HandedOver};
use imprint::hex;

use imprint::payload::{BundleKey, EstUrl, NodeName, Payload};
use imprint::retrieval::{Context, Hooks, Retrieval};
use imprint::run;
use imprint::setting::{Key, Settings};
use imprint::stateless::{Wanted, obtain};
use imprint::time::{Clock, Deadline, Timestamp};
use imprint::tls::ClientCertificate;
use imprint_host::bundles::{self, Content, Source};
use imprint_host::compose::Options;
use imprint_host::state::State;
use nix::time::{ClockId, clock_gettime};

const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, runs] = words.as_slice() else { panic!("usage: bundlebench HOST RUNS") };
    let runs: usize = runs.parse().unwrap();
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("state");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let names: Vec<String> = (0..runs + 2).map(|number| format!("node{number:04}")).collect();
    let payloads = site(&dir, &format!("https://{address}/.well-known/est"), &names);
    let mut serve = Command::new(program)
        .arg("--dir")
        .arg(&dir)
        .args(["serve", "--listen", &address.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(serve.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("EST on ")));
    // The log has to be read, or the server would wait.
    std::thread::spawn(move || lines.for_each(drop));
    for (number, (name, payload)) in names.iter().zip(payloads).enumerate() {
        let home = work.path().join(name);
        std::fs::create_dir_all(home.join("run/private")).unwrap();
        std::fs::write(home.join("payload"), payload).unwrap();
        let (check_in, fetch, report) = boot(&home, name);
        // The first ones are not warm.
        if number >= 2 {
            println!("boot {check_in:.3} {fetch:.3} {report:.3}");
        }
    }
    serve.kill().unwrap();
    serve.wait().unwrap();
}

/// Nodes with a typical bundle each, and their payloads.
fn site(dir: &Path, url: &str, names: &[String]) -> Vec<Vec<u8>> {
    let now = Timestamp::system();
    let mut state = State::init(dir, &[EstUrl::try_from(url).unwrap()], now).unwrap();
    let record = |name: &String| {
        (name.clone(), format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\nbundle_key = \"payload\"\n"))
    };
    state.add_nodes(&names.iter().map(record).collect::<Vec<_>>(), false, now).unwrap();
    for name in names {
        let bundle = typical(name).bundle(NodeName::try_from(name.as_str()).unwrap(), 1).unwrap();
        let content = Content { units: bundle.units().to_vec(), entries: bundle.entries().to_vec() };
        bundles::make(&mut state, name, Source::Content(content), &[], now).unwrap();
    }
    state.payloads(names, &Options::default(), now).unwrap().into_iter().map(|made| made.bytes.to_vec()).collect()
}

fn typical(name: &str) -> Settings {
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGgRpKcbZJ0n5tPCGbXfDFdSGbxmh0lJ0XHyqQhzQwZd admin";
    let mut settings = Settings::default();
    for (key, value) in [
        (Key::Hostname, name),
        (Key::Link, "eth0,192.0.2.10/24,via=192.0.2.1"),
        (Key::Link, "eth1,dhcp4"),
        (Key::Dns, "192.0.2.53"),
        (Key::Ntp, "ntp.example.org"),
        (Key::Ssh, ssh),
        (Key::Syslog, "tcp:log.example.org:601"),
    ] {
        settings.add(key, value).unwrap();
    }
    settings
}

/// Milliseconds of this process: check-in, fetch, report.
fn boot(home: &Path, name: &str) -> (f64, f64, f64) {
    let payload = Payload::unwrapped(&std::fs::read(home.join("payload")).unwrap()).unwrap();
    let terms = payload.bundle.unwrap();
    let BundleKey::Payload(identity) = terms.key else { panic!("a key elsewhere") };
    let node = NodeName::try_from(name).unwrap();
    let begun = processor();
    run::enroll(Path::new("/"), &home.join("payload"), &home.join("id"), LIMIT, None).unwrap();
    let checked_in = processor();
    let HandedOver { node: handed, chain, ca, key } = handover::read(&home.join("id")).unwrap();
    let client = ClientCertificate::new(&chain, key.expose()).unwrap();
    let EstUrl::Https(url) = EstUrl::try_from(handed.renewal.unwrap().urls[0].as_str()).unwrap() else { panic!() };
    let clock = Clock::starting_at(Timestamp::system());
    let context = Context { ca: &ca, client: &client, clock, user_agent: "imprint-bench" };
    let wanted = Wanted {
        root: Path::new("/"),
        node: &node,
        least: terms.least,
        signers: &payload.signers,
        identity: &identity,
        new: false,
        settings: &Settings::default(),
        consoles: &[],
        timeout: LIMIT,
        approval: None,
        repeat: LIMIT,
        say: &|_| (),
    };
    let mut hooks = Hooks { wait: &mut |_| panic!("it waits"), progress: &mut |_| () };
    let mut retrieval = Retrieval::new([url.for_bundles()], context);
    let obtained = obtain(&wanted, &mut retrieval, &mut hooks).unwrap();
    obtained.stage(&home.join("run")).unwrap();
    let fetched = processor();
    // In the real root it is another process, with a connection of its own.
    drop(retrieval);
    let described = obtained.description();
    let sha256 = hex::decode(&described.sha256).unwrap().try_into().unwrap();
    let report = Report::new(Outcome::Available, described.counter, &sha256);
    let mut retrieval = Retrieval::new([url.for_bundles()], context);
    retrieval.report(&report, &mut hooks, Deadline::after(LIMIT)).unwrap();
    let millis = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1000.0;
    (millis(begun, checked_in), millis(checked_in, fetched), millis(fetched, processor()))
}

fn processor() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}
