//! Tests of a server whose disk is full or read-only: it says so, and leaves nothing half done.

use std::process::{Child, Stdio};

use imprint::run;
use imprint_host::state::State;
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
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let listen = format!("127.0.0.1:{}", self.port);
        let mut serve = Command::new(programs::host());
        let child = serve.arg("--dir").arg(self.state()).args(["serve", "--listen", &listen]).stderr(log);
        let serve = Serve(child.stdin(Stdio::null()).spawn().unwrap());
        let until = Deadline::after(LIMIT);
        while std::net::TcpStream::connect(&listen).is_err() {
            assert!(!until.expired(), "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        serve
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
    let fill = || {
        let mut filler = fs::OpenOptions::new().create(true).append(true).open(disk.path("disk/filler")).unwrap();
        while std::io::Write::write(&mut filler, &[0; 4096]).is_ok_and(|written| written > 0) {}
    };
    fill();
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
