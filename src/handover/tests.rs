//! The folder, without the mount: that takes privilege, tests/netns.rs has it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::apply::entropy::Seeded;
use crate::identity::Identity;
use crate::payload::{CertificateNames, DnsName, KeyType};
use crate::plan::SubjectPlan;
use crate::status::{Timeline, VERSION};
use crate::time::Deadline;

const ALL: [&str; 7] = ["ca.pem", "cert.pem", "chain.pem", "node.json", "private", "ready", "status.json"];

fn identity() -> Identity {
    let names = CertificateNames { dns: vec![DnsName::try_from("node1").unwrap()], ..Default::default() };
    let seeded = Seeded::ready(Deadline::after(Duration::from_secs(60))).unwrap();
    Identity::generate(&SubjectPlan { names, key: KeyType::P256 }, &seeded).unwrap()
}

fn node() -> Node {
    Node {
        version: VERSION,
        name: Some("node1".to_owned()),
        payload_id: "00".repeat(16),
        hostname: None,
        key_code: identity().code().to_string(),
        not_after: "2026-11-23T00:00:00Z".to_owned(),
        network: None,
        renewal: None,
    }
}

fn hand_over(directory: &Path) -> Result<Pending, HandoverError> {
    let intermediates = [b"intermediate".to_vec(), b"root".to_vec()];
    let certificates = Certificates { leaf: b"leaf", intermediates: &intermediates, ca: b"root" };
    write(directory, Private::Directory, identity(), &certificates, &node())
}

fn done() -> Status {
    Timeline::new(|_| ()).done()
}

fn failed() -> Status {
    Status { outcome: Outcome::Failed, exit_code: 18, ..done() }
}

/// Name → mode
fn listing(directory: &Path) -> BTreeMap<String, u32> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().mode() & 0o7777)).collect()
}

fn names(directory: &Path) -> Vec<String> {
    listing(directory).into_keys().collect()
}

#[test]
fn everything_is_there_with_its_mode_and_ready_is_last() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("run/imprint");
    for _ in 0..2 {
        let pending = hand_over(&directory).unwrap();
        assert!(!directory.join("ready").exists(), "ready must be last");
        pending.finish(&done()).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o755);
        let modes = listing(&directory);
        assert_eq!(names(&directory), ALL);
        for (name, mode) in modes {
            assert_eq!(mode, if name == "private" { 0o700 } else { 0o644 }, "{name}");
        }
        assert_eq!(listing(&directory.join("private")), BTreeMap::from([("key.pem".to_owned(), 0o600)]));
    }
}

#[test]
fn the_chain_is_what_tls_sends() {
    let root = tempfile::tempdir().unwrap();
    hand_over(root.path()).unwrap().finish(&done()).unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    let pem = |der: &[u8]| pem::encode("CERTIFICATE", der).to_string();
    assert_eq!(read("cert.pem"), pem(b"leaf"));
    assert_eq!(read("chain.pem"), pem(b"leaf") + &pem(b"intermediate"), "without the trust anchor");
    assert_eq!(read("ca.pem"), pem(b"root"));
    assert!(read("private/key.pem").starts_with("-----BEGIN PRIVATE KEY-----\n"));
}

#[test]
fn a_failed_run_leaves_no_credentials_of_an_earlier_one() {
    let root = tempfile::tempdir().unwrap();
    hand_over(root.path()).unwrap().finish(&done()).unwrap();
    fail(root.path(), &failed()).unwrap();
    assert_eq!(names(root.path()), ["ca.pem", "private", "status.json"]);
    assert_eq!(names(&root.path().join("private")), [""; 0]);
    let status: Status = serde_json::from_slice(&fs::read(root.path().join("status.json")).unwrap()).unwrap();
    assert_eq!(status, failed());
}

#[test]
fn a_failed_hand_over_leaves_no_credentials() {
    let root = tempfile::tempdir().unwrap();
    hand_over(root.path()).unwrap().finish(&done()).unwrap();
    // What is written last cannot be written.
    fs::remove_file(root.path().join("private/key.pem")).unwrap();
    fs::create_dir(root.path().join("private/key.pem")).unwrap();
    let Err(HandoverError::Write { path, source }) = hand_over(root.path()).map(|_| ()) else { panic!() };
    assert_eq!((path, source.kind()), (root.path().join("private/key.pem"), io::ErrorKind::IsADirectory));
    assert_eq!(names(root.path()), ["ca.pem", "private", "status.json"]);
}

#[test]
fn a_hand_over_that_cannot_be_finished_leaves_no_credentials() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("status.json")).unwrap();
    let error = hand_over(root.path()).unwrap().finish(&done()).unwrap_err();
    let path = root.path().join("status.json");
    assert_eq!(crate::chain::chain(&error), format!("writing {}: Is a directory (os error 21)", path.display()));
    assert_eq!(names(root.path()), ["ca.pem", "private", "status.json"]);
}

#[test]
fn a_private_folder_that_is_none_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), root.path().join("private")).unwrap();
    let error = hand_over(root.path()).map(|_| ()).unwrap_err();
    let path = root.path().join("private");
    assert_eq!(error.to_string(), format!("{} is not a folder; remove it, or name another place", path.display()));
    assert_eq!(names(elsewhere.path()), [""; 0]);
}

/// Whoever opens `current` once, and reads both below it, never gets a key and a certificate of two generations.
#[test]
fn certificate_and_key_change_in_one_step() {
    let root = tempfile::tempdir().unwrap();
    hand_over(root.path()).unwrap().finish(&done()).unwrap();
    let replace = |text: &str| {
        let files = [CERT, CHAIN, NODE].map(|name| (name, text.as_bytes()));
        generation::replace(root.path(), &files, text.as_bytes(), Duration::ZERO).unwrap();
    };
    replace("0");
    let over = std::sync::atomic::AtomicBool::new(false);
    let pairs = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut pairs = 0;
            while !over.load(std::sync::atomic::Ordering::SeqCst) || pairs == 0 {
                // A generation that is over may be gone already, here without grace.
                let Ok(folder) = fs::File::open(root.path().join("current")) else { continue };
                let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder)));
                let [Ok(certificate), Ok(key)] = [CERT, KEY].map(|name| fs::read_to_string(path.join(name))) else {
                    continue;
                };
                assert_eq!(certificate, key);
                pairs += 1;
            }
            pairs
        });
        (1..300).for_each(|number| replace(&number.to_string()));
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        reader.join().unwrap()
    });
    assert!(pairs > 0);
    assert_eq!(fs::read_to_string(root.path().join("private/key.pem")).unwrap(), "299");
    assert_eq!(names(&root.path().join("private")), ["key-301.pem", "key.pem"]);
    assert_eq!(listing(&root.path().join("private"))["key-301.pem"], 0o600);
    fail(root.path(), &failed()).unwrap();
    assert_eq!(names(root.path()), ["ca.pem", "private", "status.json"]);
    assert_eq!(names(&root.path().join("private")), [""; 0]);
}
