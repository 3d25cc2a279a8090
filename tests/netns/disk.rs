//! Tests of a server whose disk is full or read-only: it says so, and leaves nothing half done.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use imprint::run;
use imprint::site::SitePin;
use imprint_host::state::State;
use imprint_tests::caller::Caller;
use imprint_tests::programs;

use crate::*;

const LIMIT: Duration = PATIENCE;

struct Disk {
    work: tempfile::TempDir,
    port: u16,
}

struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Disk {
    /// A state directory on a file system of its own, of four megabytes.
    fn new() -> Disk {
        namespaces();
        ip("link set lo up");
        let disk = Disk { work: tempfile::tempdir().unwrap(), port: 8443 };
        fs::create_dir(disk.path("disk")).unwrap();
        let options = Some("size=4m,mode=0700");
        nix::mount::mount(Some("none"), &disk.path("disk"), Some("tmpfs"), MsFlags::empty(), options).unwrap();
        disk.host(&["init", "--url", &format!("https://127.0.0.1:{}/.well-known/est", disk.port)]).unwrap();
        fs::write(disk.path("node1.toml"), "name = \"node1\"\nsubject = [\"CN=node1\"]\n").unwrap();
        disk.host(&["node", "add", disk.path("node1.toml").to_str().unwrap()]).unwrap();
        disk.host(&["payload", "node1", "-o", disk.path("payload").to_str().unwrap()]).unwrap();
        disk
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.work.path().join(name)
    }

    fn state(&self) -> std::path::PathBuf {
        self.path("disk/state")
    }

    fn host(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new(programs::host()).arg("--dir").arg(self.state()).args(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn serve(&self) -> Serve {
        self.serve_with(&[])
    }

    fn serve_with(&self, more: &[&str]) -> Serve {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let listen = format!("127.0.0.1:{}", self.port);
        let mut serve = Command::new(programs::host());
        let child = serve.arg("--dir").arg(self.state()).args(["serve", "--listen", &listen]).args(more).stderr(log);
        let serve = Serve(child.stdin(Stdio::null()).spawn().unwrap());
        let until = Deadline::after(LIMIT);
        while std::net::TcpStream::connect(&listen).is_err() {
            assert!(!until.expired(), "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        serve
    }

    fn fill(&self) {
        let mut filler = fs::OpenOptions::new().create(true).append(true).open(self.path("disk/filler")).unwrap();
        while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn enroll(&self, limit: Duration) -> Result<(), imprint::error::Error> {
        run::enroll(Path::new("/"), &self.path("payload"), &self.path("out"), limit, None)
    }

    fn certificates(&self) -> usize {
        let mut state = State::open(&self.state()).unwrap();
        state.store.changes().unwrap().certificates("node1").unwrap().len()
    }
}

#[test]
fn a_disk_that_is_full_and_then_is_not() {
    let disk = Disk::new();
    let _serve = disk.serve();
    disk.fill();
    patiently(Duration::from_secs(3), |limit| {
        let refused = imprint::chain::chain(&disk.enroll(limit).unwrap_err());
        let told = refused.contains("503 the server's disk is full; make room there, then nodes can go on");
        if told { Ok(()) } else { Err(refused) }
    });
    assert!(disk.log().contains("is full: nothing is signed until there is room"), "{}", disk.log());
    let payload = disk.host(&["payload", "node1"]).unwrap_err();
    assert!(payload.contains("database or disk is full"), "{payload}");
    fs::remove_file(disk.path("disk/filler")).unwrap();
    // What is kept for an administrator was not eaten into.
    assert_eq!(fs::metadata(disk.path("disk/state/reserve")).unwrap().len(), imprint_host::room::BYTES);
    // Neither the token nor anything else was used up.
    assert_eq!(disk.certificates(), 0);
    disk.enroll(LIMIT).unwrap();
    assert_eq!(disk.certificates(), 1);
}

/// Until `done` (true), or until the door closes (false).
fn talk(node: &mut Caller, stream: &mut UnixStream, done: impl Fn(&Caller) -> bool) -> bool {
    let until = Deadline::after(LIMIT);
    let mut buffer = [0; 4096];
    loop {
        let (bytes, next) = node.poll();
        if stream.write_all(&bytes).is_err() || done(node) {
            return done(node);
        }
        assert!(!until.expired(), "the door said nothing more; told: {:?}", node.pending);
        let wait = next.unwrap_or(Duration::from_secs(1)).clamp(Duration::from_millis(1), Duration::from_secs(1));
        stream.set_read_timeout(Some(wait)).unwrap();
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => node.push(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
}

/// Accident: the disk is full while a node waits at a door, and the administrator admits it. Attack: strangers call meanwhile, and each
/// call would be written. Nobody is hung up, each is told why it waits, and the log says once that the disk is full. When there
/// is room, the node goes on over the same connection.
#[test]
fn nodes_at_a_door_wait_for_room() {
    let disk = Disk::new();
    let signer = State::open(&disk.state()).unwrap().ca.signers().unwrap().remove(0).0;
    let pin = SitePin::parse(format!("{signer}\n").as_bytes()).unwrap();
    let door = disk.path("door");
    let _serve = disk.serve_with(&["--door", &format!("unix:{}", door.display())]);
    let call = || UnixStream::connect(&door).unwrap();
    let (mut node, mut stream) = (Caller::new("S1", &pin), call());
    assert!(talk(&mut node, &mut stream, |node| !node.pending.is_empty()));
    disk.fill();
    let is_told =
        |node: &Caller| node.pending.last().is_some_and(|why| why.starts_with("the server's disk is full; make room"));
    let strangers: Vec<_> = ["X1", "X2", "X3"]
        .map(|serial| {
            let (mut stranger, mut stream) = (Caller::new(serial, &pin), call());
            assert!(talk(&mut stranger, &mut stream, |node| !node.pending.is_empty()), "hung up");
            assert!(is_told(&stranger), "{:?}", stranger.pending);
            stream
        })
        .into();
    disk.host(&["admit", &node.code(), "--as", "node1"]).unwrap();
    assert!(talk(&mut node, &mut stream, is_told), "hung up");
    let said = |words: &str| disk.log().matches(words).count();
    assert_eq!((said("is full: nothing is signed"), said("has room again")), (1, 0), "{}", disk.log());
    fs::remove_file(disk.path("disk/filler")).unwrap();
    assert!(talk(&mut node, &mut stream, |node| node.over), "hung up; refused: {:?}", node.refused);
    assert_eq!(disk.certificates(), 1);
    assert_eq!((said("is full: nothing is signed"), said("has room again")), (1, 1), "{}", disk.log());
    drop(strangers);
}

#[test]
fn a_disk_that_can_only_be_read() {
    let disk = Disk::new();
    drop(disk.serve());
    let none: Option<&str> = None;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    nix::mount::mount(none, &disk.path("disk"), none, flags, Some("size=4m,mode=0700")).unwrap();
    let serve = disk.host(&["serve", "--listen", "127.0.0.1:0"]).unwrap_err();
    assert!(serve.contains("Read-only file system") && serve.contains("disk/state/"), "{serve}");
    let payload = disk.host(&["payload", "node1"]).unwrap_err();
    assert!(payload.contains("readonly database"), "{payload}");
    let flags = MsFlags::MS_REMOUNT;
    nix::mount::mount(none, &disk.path("disk"), none, flags, Some("size=4m,mode=0700")).unwrap();
    let _serve = disk.serve();
    disk.enroll(LIMIT).unwrap();
}
