//! Tests of commands that root runs in another user's directory, and of many commands at once.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use imprint_host::crash::ROTATION;
use imprint_host::state::State;
use nix::fcntl::{Flock, FlockArg};

const URL: &str = "https://127.0.0.1:8443/.well-known/est";
const NODE: &str = "name = \"node1\"\nsubject = [\"CN=node1\"]\n";
/// nobody and nogroup of Debian; any that are not root's would do.
const OTHER: u32 = 65534;

fn host(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imprint-host"));
    command.arg("--dir").arg(dir);
    command
}

fn fine(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn run(dir: &Path, arguments: &[&str]) {
    let mut command = host(dir);
    command.args(arguments);
    fine(command);
}

/// All files in it that are not of this owner.
fn foreign(folder: &Path, owner: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if (metadata.uid(), metadata.gid()) != (owner, owner) {
            found.push(path.clone());
        }
        if metadata.is_dir() {
            found.extend(foreign(&path, owner));
        }
    }
    found
}

struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that listens, as this user.
fn serve(dir: &Path, user: Option<u32>) -> Serve {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = host(dir);
    command.args(["serve", "--listen", &address.to_string()]).stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut serve = Serve(command.spawn().unwrap());
    while TcpStream::connect(address).is_err() {
        if let Some(status) = serve.0.try_wait().unwrap() {
            let mut error = String::new();
            std::io::Read::read_to_string(&mut serve.0.stderr.take().unwrap(), &mut error).unwrap();
            panic!("{status}: {error}");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    serve
}

/// An administrator runs everything once as root, `serve` too; killed in the middle of it. Then the unit starts, as the
/// user that the directory belongs to.
#[test]
fn what_root_makes_belongs_to_the_owner_of_the_directory() {
    assert!(nix::unistd::geteuid().is_root(), "run it as root, or with unshare --user --map-auto --map-root-user");
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let owned = |name: &str| {
        let dir = temp.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(OTHER), Some(OTHER)).unwrap();
        dir
    };
    let (dir, copy) = (owned("state"), owned("copy"));
    let none: Vec<PathBuf> = Vec::new();
    run(&dir, &["init", "--url", URL]);
    assert_eq!(foreign(&dir, OTHER), none);
    let (record, file) = (temp.path().join("node1.toml"), temp.path().join("node1.cbor"));
    std::fs::write(&record, NODE).unwrap();
    run(&dir, &["node", "add", record.to_str().unwrap()]);
    run(&dir, &["payload", "node1", "-o", file.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), 0, "what lies elsewhere is root's");
    // Killed, so that SQLite leaves its own files.
    drop(serve(&dir, None));
    for name in ["serve.lock", "server.key", "server.pem", "imprint.db-wal", "imprint.db-shm"] {
        assert!(dir.join(name).exists(), "{name}");
    }
    assert_eq!(foreign(&dir, OTHER), none);
    run(&dir, &["ca", "rotate"]);
    run(&dir, &["revoke", "node1"]);
    run(&dir, &["backup", copy.to_str().unwrap()]);
    assert_eq!((foreign(&dir, OTHER), foreign(&copy, OTHER)), (none.clone(), none));
    // What an earlier program has left to root, root gives back.
    std::os::unix::fs::chown(dir.join("serve.lock"), Some(0), Some(0)).unwrap();
    let mut command = host(&dir);
    command.args(["serve", "--listen", "127.0.0.1:0"]).uid(OTHER).gid(OTHER);
    let error = String::from_utf8(command.output().unwrap().stderr).unwrap();
    let lock = dir.join("serve.lock").display().to_string();
    let want = format!(
        "imprint-host: opening the lock file {lock}; give it to the owner of the directory \
         (chown): Permission denied (os error 13)\n"
    );
    assert_eq!(error, want);
    drop(serve(&dir, None));
    for dir in [&dir, &copy] {
        drop(serve(dir, Some(OTHER)));
    }
}

fn intermediates(dir: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut found = (BTreeSet::new(), BTreeSet::new());
    for entry in std::fs::read_dir(dir.join("intermediates")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match path.extension().unwrap().to_str().unwrap() {
            "key" => found.0.insert(stem),
            "pem" => found.1.insert(stem),
            _ => panic!("{}", path.display()),
        };
    }
    found
}

fn subject(path: &Path) -> String {
    let output = Command::new("openssl").args(["x509", "-noout", "-subject", "-in"]).arg(path).output();
    String::from_utf8(output.expect("openssl is missing: apt-get install openssl").stdout).unwrap()
}

fn new_site(temp: &tempfile::TempDir) -> PathBuf {
    let dir = temp.path().join("state");
    run(&dir, &["init", "--url", URL]);
    dir
}

fn lines_of_rotations(dir: &Path) -> usize {
    State::open(dir).unwrap().store.log(1000).unwrap().iter().filter(|row| row.event == "rotated").count()
}

/// Four administrators at once: each gets an intermediate of its own, with its own name, and all of them are whole.
#[test]
fn the_ca_is_rotated_by_four_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = new_site(&temp);
    let running: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = host(&dir);
            command.args(["ca", "rotate"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (keys, certificates) = intermediates(&dir);
    assert_eq!((keys.len(), &keys), (5, &certificates));
    let names: BTreeSet<String> =
        keys.iter().map(|stem| subject(&dir.join("intermediates").join(stem).with_extension("pem"))).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.contains(&subject(&dir.join("intermediate.pem"))));
    assert_eq!(lines_of_rotations(&dir), 4);
}

/// A rotation is killed at each of its steps: it has happened or it has not, and the next one finds nothing in its way.
#[test]
fn a_rotation_that_is_killed_is_whole_or_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = new_site(&temp);
    let current = |dir: &Path| State::open(dir).unwrap().ca.current().id();
    for (point, happened) in ROTATION.iter().zip([false, true]) {
        let before = current(&dir);
        let known = State::open(&dir).unwrap().ca.certificates(imprint::time::Timestamp::system()).len();
        let mut command = host(&dir);
        let output = command.args(["ca", "rotate"]).env("IMPRINT_HOST_CRASH", point).output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "{point}");
        let state = State::open(&dir).unwrap();
        assert_eq!(state.ca.current().id() != before, happened, "{point}");
        let more = state.ca.certificates(imprint::time::Timestamp::system()).len() - known;
        assert_eq!(more, usize::from(happened), "{point}");
        let after = current(&dir);
        run(&dir, &["ca", "rotate"]);
        let (keys, certificates) = intermediates(&dir);
        assert_eq!(keys, certificates, "{point}");
        assert!(keys.contains(&before) && keys.contains(&after), "{point}");
    }
    assert_eq!(intermediates(&dir).0.len(), 4);
}

/// Somebody writes to the store for longer than anybody waits for. A rotation that fails has replaced nothing.
#[test]
fn a_rotation_that_cannot_be_logged_does_not_happen() {
    let temp = tempfile::tempdir().unwrap();
    let dir = new_site(&temp);
    let before = (intermediates(&dir), subject(&dir.join("intermediate.pem")));
    let writer = rusqlite::Connection::open(dir.join("imprint.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = host(&dir).args(["ca", "rotate"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let want = format!(
        "imprint-host: store {}: database is locked: Error code 5: database is locked\n",
        dir.join("imprint.db").display()
    );
    assert_eq!((output.status.code(), error), (Some(1), want));
    assert_eq!((intermediates(&dir), subject(&dir.join("intermediate.pem"))), before);
    writer.execute_batch("COMMIT").unwrap();
    run(&dir, &["ca", "rotate"]);
    assert_eq!((intermediates(&dir).0.len(), lines_of_rotations(&dir)), (2, 1));
}

/// The disk breaks after the intermediate was replaced. Whoever reads "failed" rotates again, and again.
#[test]
fn a_rotation_whose_line_of_the_log_is_missing_says_that_it_has_happened() {
    let temp = tempfile::tempdir().unwrap();
    let dir = new_site(&temp);
    let store = rusqlite::Connection::open(dir.join("imprint.db")).unwrap();
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, 'broken'); END";
    store.execute_batch(broken).unwrap();
    let output = host(&dir).args(["ca", "rotate"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let want = format!(
        "imprint-host: the CA has another intermediate now, {}, and serve uses it; only the line of the audit log is \
         missing. Take the root's key offline, and do not repeat the command: store {}: broken: Error code 1811: \
         constraint failed\n",
        State::open(&dir).unwrap().ca.current().id(),
        dir.join("imprint.db").display()
    );
    assert_eq!((output.status.code(), error), (Some(1), want));
    assert_eq!((intermediates(&dir).0.len(), lines_of_rotations(&dir)), (2, 0));
}

/// Another command was stopped while it had its turn.
#[test]
fn whoever_waits_for_a_turn_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let dir = new_site(&temp);
    let (empty, copy) = (temp.path().join("empty"), temp.path().join("copy"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&copy).unwrap();
    let words = copy.display().to_string();
    for (dir, arguments, held) in [
        (&dir, &["ca", "rotate"][..], &dir),
        (&dir, &["backup", &words], &copy),
        (&dir, &["backup", &temp.path().join("other").display().to_string()], &dir),
        (&empty, &["init", "--url", URL], &empty),
    ] {
        let turn = Flock::lock(std::fs::File::open(held).unwrap(), FlockArg::LockExclusive).unwrap();
        let mut command = host(dir);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        errors.read_line(&mut said).unwrap();
        let want = format!(
            "imprint-host: waiting for another command that changes or copies the files in {}; lslocks shows which\n",
            held.display()
        );
        assert_eq!(said, want, "{arguments:?}");
        drop(turn);
        said.clear();
        errors.read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().success(), said.as_str()), (true, ""), "{arguments:?}");
    }
}

/// Four at once in one empty directory, all of which have found it empty: one site, and an error for each other.
#[test]
fn a_site_is_made_by_one_of_four() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    std::fs::create_dir(&dir).unwrap();
    // Held until all of them wait for it.
    let folder = std::fs::File::open(&dir).unwrap();
    let held = Flock::lock(folder, FlockArg::LockExclusive).unwrap();
    let running: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = host(&dir);
            command.args(["init", "--url", URL]).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    // proc_locks(5): "1: -> FLOCK  ADVISORY  WRITE PID …" waits.
    let waits = |child: &Child| {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        locks.lines().map(words).any(|line| line[1] == "->" && line[5] == child.id().to_string())
    };
    while !running.iter().all(waits) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(held);
    let outputs: Vec<Output> = running.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let made = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(made, 1);
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.ends_with("; nothing is overwritten, give an empty directory\n"), "{error}");
    }
    run(&dir, &["ca", "rotate"]);
}
