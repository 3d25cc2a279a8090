//! Tests of the hand-over folder without the mount, which needs privilege: tests/netns.rs tests it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::identity::Identity;
use crate::payload::{CertificateNames, DnsName, KeyType};
use crate::plan::SubjectPlan;
use crate::pool::Seeded;
use crate::status::{Timeline, VERSION};
use crate::time::Deadline;

mod kills;

/// The names that a reader finds in the folder.
const ALL: [&str; 8] = ["ca.pem", "cert.pem", "chain.pem", "current", "node.json", "private", "ready", "status.json"];

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
        root_sha256: None,
    }
}

fn hand_over(directory: &Path) -> Result<Pending, HandoverError> {
    let intermediates = [b"intermediate".to_vec(), b"root".to_vec()];
    let certificates = Certificates { leaf: b"leaf", intermediates: &intermediates, ca: b"root" };
    write(&Folder::make(directory)?, Private::Directory, identity(), &certificates, &node())
}

fn done() -> Status {
    Timeline::new(|_| ()).done()
}

fn failed() -> Status {
    Status { outcome: Outcome::Failed, exit_code: 18, ..done() }
}

/// Name → mode, links followed. The lock file is left out.
fn listing(directory: &Path) -> BTreeMap<String, u32> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let names = entries.map(|entry| (entry.file_name().into_string().unwrap(), mode(&entry.path())));
    names.filter(|(name, _)| name != ".lock").collect()
}

fn names(directory: &Path) -> Vec<String> {
    listing(directory).into_keys().collect()
}

/// The names without those of generations.
fn seen(directory: &Path) -> Vec<String> {
    names(directory).into_iter().filter(|name| !name.starts_with('.')).collect()
}

/// The contents of every file that a reader can read.
fn read_all(directory: &Path) -> Vec<(&'static str, String)> {
    let paths = [CERT, CHAIN, CA, NODE, STATUS, READY, "private/key.pem"];
    paths.map(|name| (name, fs::read_to_string(directory.join(name)).unwrap())).to_vec()
}

#[test]
fn everything_is_there_with_its_mode_and_ready_is_last() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("run/imprint");
    for number in 1..=2 {
        let was = is_complete(&directory).then(|| read_all(&directory));
        let pending = hand_over(&directory).unwrap();
        assert_eq!(is_complete(&directory).then(|| read_all(&directory)), was, "nothing is seen before finish()");
        pending.finish(&done()).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(seen(&directory), ALL);
        for (name, mode) in listing(&directory) {
            let want = match name.as_str() {
                "private" => 0o700,
                "current" => 0o755,
                _ if name.starts_with('.') => 0o755,
                _ => 0o644,
            };
            assert_eq!(mode, want, "{name}");
        }
        let key = format!("key-{number}.pem");
        let keys = BTreeMap::from([(key, 0o600), ("key.pem".to_owned(), 0o600)]);
        assert_eq!(listing(&directory.join("private")), keys, "the key before is gone");
        assert_ne!(Some(read_all(&directory)), was);
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

/// A program that reads the status alone, or the certificate alone, must not be misled about the other.
#[test]
fn a_failed_run_leaves_its_status_where_nothing_is_and_nothing_where_an_identity_is() {
    let root = tempfile::tempdir().unwrap();
    let status = || serde_json::from_slice::<Status>(&fs::read(root.path().join("status.json")).unwrap()).unwrap();
    fail(root.path(), &failed()).unwrap();
    assert_eq!((names(root.path()), status()), (vec!["status.json".to_owned()], failed()));
    hand_over(root.path()).unwrap().finish(&done()).unwrap();
    let was = read_all(root.path());
    fail(root.path(), &failed()).unwrap();
    assert_eq!((read_all(root.path()), status()), (was, done()));
}

/// What may be in the way of a second hand-over, in the order in which the hand-over meets it.
const OBSTACLES: [&str; 5] =
    ["private/.key-2.pem.new", ".generation-2/status.json", "..ready-next.new", ".ready-next", ".current.new"];

/// In earlier versions each of these errors removed a key and certificate that worked.
#[test]
fn a_second_hand_over_that_fails_leaves_the_first_one() {
    for obstacle in OBSTACLES {
        let root = tempfile::tempdir().unwrap();
        hand_over(root.path()).unwrap().finish(&done()).unwrap();
        let path = root.path().join(obstacle);
        let was = read_all(root.path());
        let pending = match obstacle {
            // The generation's folder must exist first.
            ".generation-2/status.json" => hand_over(root.path()).inspect(|_| fs::create_dir(&path).unwrap()),
            _ => {
                fs::create_dir(&path).unwrap();
                hand_over(root.path())
            }
        };
        let error = pending.and_then(|pending| pending.finish(&Status { origin: Some("second".to_owned()), ..done() }));
        let Err(HandoverError::Write { source, .. }) = error else { panic!("{obstacle}: {error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::IsADirectory, "{obstacle}");
        assert_eq!(read_all(root.path()), was, "{obstacle}");
        fail(root.path(), &failed()).unwrap();
        assert_eq!(read_all(root.path()), was, "{obstacle}");
        let _ = fs::remove_dir(&path);
        assert_eq!(names(&root.path().join("private")), ["key-1.pem", "key.pem"], "{obstacle}: no key is left over");
        hand_over(root.path()).unwrap().finish(&done()).unwrap();
        assert_ne!(read_all(root.path()), was);
    }
}

#[test]
fn a_first_hand_over_that_fails_leaves_no_credentials() {
    for obstacle in OBSTACLES.into_iter().chain(["ready"]) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("private")).unwrap();
        let path = root.path().join(obstacle.replace("-2", "-1"));
        let pending = match obstacle {
            ".generation-2/status.json" => hand_over(root.path()).inspect(|_| fs::create_dir(&path).unwrap()),
            // A folder with `ready` is complete, so `ready` is put there only after the hand-over is written.
            "ready" => hand_over(root.path()).inspect(|_| fs::create_dir(&path).unwrap()),
            _ => {
                fs::create_dir(&path).unwrap();
                hand_over(root.path())
            }
        };
        let error = pending.and_then(|pending| pending.finish(&done()));
        assert!(matches!(error, Err(HandoverError::Write { .. })), "{obstacle}: {error:?}");
        let _ = fs::remove_dir(&path);
        fail(root.path(), &failed()).unwrap();
        assert_eq!(names(root.path()), ["private", "status.json"], "{obstacle}");
        assert_eq!(names(&root.path().join("private")), [""; 0], "{obstacle}");
        hand_over(root.path()).unwrap().finish(&done()).unwrap();
        assert_eq!(seen(root.path()), ALL);
    }
}

/// A user may name /etc/ssl by mistake, or a folder from which a file was removed: everything in it must stay as it
/// was.
#[test]
fn what_is_not_ours_stays_whatever_happens() {
    let whole = tempfile::tempdir().unwrap();
    hand_over(whole.path()).unwrap().finish(&done()).unwrap();
    let theirs: [&[&str]; 5] = [
        &["private/key-1.pem", "private/key-2025.pem", "private/.key-7.pem.new"],
        &["private/key.pem"],
        &["cert.pem", "private/key.pem"],
        &["chain.pem"],
        &["cert.pem", "chain.pem", "ca.pem", "ready", "private/key.pem"],
    ];
    for (index, theirs) in theirs.iter().enumerate() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("private")).unwrap();
        theirs.iter().for_each(|name| fs::write(root.path().join(name), *name).unwrap());
        let stays = || theirs.iter().all(|name| fs::read(root.path().join(name)).is_ok_and(|is| is == name.as_bytes()));
        fail(root.path(), &failed()).unwrap();
        assert!(stays(), "{theirs:?}: a run that fails");
        let written = hand_over(root.path());
        if index == 0 {
            // These files have only names like imprint's.
            written.unwrap().finish(&done()).unwrap();
            assert_eq!(seen(root.path()), ALL);
            hand_over(root.path()).unwrap().finish(&done()).unwrap();
        } else {
            let error = written.map(|_| ()).unwrap_err();
            assert!(matches!(error, HandoverError::NotOurs { .. }), "{theirs:?}: {error}");
        }
        assert!(stays(), "{theirs:?}");
    }
}

/// A copy of key or certificate would be stale after the first renewal, so services get the CA alone. A run that hands nothing
/// over leaves no CA either: services would trust it, and the identity that it belongs to would not be there.
#[test]
fn services_are_left_the_ca_alone_and_with_a_whole_hand_over_only() {
    for fails in [false, true] {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/initrd-release"), "").unwrap();
        let (directory, folder) = (root.path().join("run/imprint"), root.path().join("run/credentials/@initrd"));
        let mut pending = hand_over(&directory).unwrap();
        assert_eq!(pending.leave_ca(root.path(), b"root").unwrap(), credential::Left::Ours);
        assert_eq!(names(&folder), ["imprint.ca"]);
        if fails {
            fs::create_dir(directory.join(READY)).unwrap();
        }
        assert_eq!(pending.finish(&done()).is_err(), fails);
        if fails {
            assert!(names(&folder).is_empty(), "{:?}", names(&folder));
        } else {
            let ca = fs::read_to_string(folder.join("imprint.ca")).unwrap();
            assert_eq!(ca, fs::read_to_string(directory.join(CA)).unwrap());
            assert_eq!(listing(&folder), BTreeMap::from([("imprint.ca".to_owned(), 0o400)]));
        }
        // Nothing is put among the credentials that systemd imported before.
        assert!(!root.path().join("run/credentials/@system").exists());
    }
}

#[test]
fn a_private_folder_that_is_none_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    // Files with imprint's names, in a folder that is not imprint's.
    let theirs = ["key-1.pem", "key.pem"];
    theirs.iter().for_each(|name| fs::write(elsewhere.path().join(name), "theirs").unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), root.path().join("private")).unwrap();
    let error = hand_over(root.path()).map(|_| ()).unwrap_err();
    let path = root.path().join("private");
    assert_eq!(error.to_string(), format!("{} is not a folder; remove it, or name another folder", path.display()));
    fail(root.path(), &failed()).unwrap();
    assert_eq!(names(elsewhere.path()), theirs);
}

/// Copies a hand-over as plain files, as earlier versions wrote it and as a copy that followed all links has it.
fn flattened(directory: &Path, to: &Path, names: &[&str]) {
    fs::create_dir_all(to.join("private")).unwrap();
    for name in names.iter().chain(&["private/key.pem"]) {
        fs::write(to.join(name), fs::read(directory.join(name)).unwrap()).unwrap();
    }
}

#[test]
fn plain_files_become_a_generation_and_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (first, plain) = (root.path().join("first"), root.path().join("plain"));
    hand_over(&first).unwrap().finish(&done()).unwrap();
    flattened(&first, &plain, &[CERT, CHAIN, CA, NODE, STATUS, READY]);
    let pending = hand_over(&plain).unwrap();
    assert_eq!(read_all(&plain), read_all(&first));
    drop(pending);
    assert_eq!(read_all(&plain), read_all(&first));
    hand_over(&plain).unwrap().finish(&done()).unwrap();
    assert_ne!(read_all(&plain), read_all(&first));
    assert_eq!(names(&plain.join("private")), ["key-2.pem", "key.pem"]);
    // The generations of earlier versions had neither ca.pem nor status.json.
    for name in [CA, STATUS] {
        let bytes = fs::read(first.join(name)).unwrap();
        fs::remove_file(first.join(name)).unwrap();
        fs::remove_file(first.join("current").join(name)).unwrap();
        fs::write(first.join(name), bytes).unwrap();
    }
    let was = read_all(&first);
    let _folder = Folder::open(&first).unwrap();
    assert_eq!(read_all(&first), was);
    assert_eq!(fs::read_link(first.join(CA)).unwrap(), Path::new("current/ca.pem"));
}

#[test]
fn a_copy_that_followed_all_links_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("current")).unwrap();
    let error = Folder::open(root.path()).unwrap_err().to_string();
    let want = "current is not a symbolic link, perhaps because the folder was copied with links followed; remove it, \
                or name another folder";
    assert!(error.ends_with(want), "{error}");
}

/// A reader that opens `current` once, and reads certificate and key below it, never gets them from two generations.
#[test]
fn certificate_and_key_change_in_one_step() {
    let root = tempfile::tempdir().unwrap();
    hand_over(root.path()).unwrap().finish(&done()).unwrap();
    let replace = |text: &str| {
        let files = [CERT, CHAIN, CA, NODE, STATUS].map(|name| (name, text.as_bytes()));
        let beside = generation::write(root.path(), &files, text.as_bytes()).unwrap();
        beside.switch(root.path(), Duration::ZERO).unwrap();
    };
    replace("0");
    let over = std::sync::atomic::AtomicBool::new(false);
    let pairs = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut pairs = 0;
            while !over.load(std::sync::atomic::Ordering::SeqCst) || pairs == 0 {
                // A replaced generation may be removed already: this test switches without grace.
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
}
