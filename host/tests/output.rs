//! Tests of the places that `payload -o` writes to: it checks what is there before it replaces it. Tests that need root are
//! in tests/netns.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use imprint::payload::Payload;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

struct Site {
    work: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { work: tempfile::tempdir().unwrap() };
        site.fine(&["init", "--url", "https://est.example.org:8443/.well-known/est"]);
        fs::write(site.path("node1.toml"), "name = \"node1\"\nsubject = [\"CN=node1\"]\n").unwrap();
        site.fine(&["node", "add", site.path("node1.toml").to_str().unwrap()]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn host(&self, words: &[&str]) -> Output {
        let mut host = Command::new(env!("CARGO_BIN_EXE_imprint-host"));
        host.arg("--dir").arg(self.path("state")).args(words).output().unwrap()
    }

    fn fine(&self, words: &[&str]) -> String {
        let output = self.host(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn write(&self, to: &Path) -> Result<(), String> {
        let output = self.host(&["payload", "node1", "-o", to.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    fn payloads(&self) -> usize {
        self.fine(&["log"]).lines().filter(|line| line.contains(" payload ")).count()
    }

    /// What is in the folder, but for what belongs to the site.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.work.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name != "state" && name != "node1.toml");
        names.sort();
        names
    }
}

/// A new medium ends the one before: in words, and for programs.
#[test]
fn what_ends_with_credentials_is_said() {
    let site = Site::new();
    let file = site.path("drive");
    let payload = |words: &[&str]| {
        let fixed = ["payload", "node1", "--credentials", "-o", file.to_str().unwrap()];
        let said = site.fine(&[words, &fixed[..]].concat());
        let nodes: serde_json::Value = serde_json::from_str(&site.fine(&["--json", "nodes"])).unwrap();
        let newest = nodes[0]["certificate"]["key"].as_str().unwrap().to_owned();
        (said, newest)
    };
    let (said, first) = payload(&[]);
    assert!(said.starts_with("wrote ") && !said.contains("revoked"), "{said}");
    let (said, second) = payload(&[]);
    assert!(said.ends_with(&format!("; revoked the certificates of earlier payloads: key {first}\n")), "{said}");
    let (said, _) = payload(&["--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["superseded"], serde_json::json!([second]));
}

fn is_payload(bytes: &[u8]) {
    assert_eq!(Payload::unwrapped(bytes).unwrap().id.0.len(), 16);
}

/// A file that is made beside its place and renamed takes the place of whatever has the name: premise.
fn replaces(site: &Site, name: &str) {
    fs::write(site.path("beside"), "new").unwrap();
    fs::rename(site.path("beside"), site.path(name)).unwrap();
    assert!(fs::symlink_metadata(site.path(name)).unwrap().is_file(), "{name}");
    fs::remove_file(site.path(name)).unwrap();
}

#[test]
fn a_fifo_is_written_to() {
    let site = Site::new();
    let fifo = site.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    replaces(&site, "fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    // For both, so that neither end waits for the other; a payload fits into it.
    let mut reader = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    site.write(&fifo).unwrap();
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    let mut bytes = vec![0; 65_536];
    let count = reader.read(&mut bytes).unwrap();
    is_payload(&bytes[..count]);
    assert_eq!(site.left(), ["fifo"]);
}

#[test]
fn what_a_link_leads_to_is_replaced_and_the_link_stays() {
    let site = Site::new();
    symlink("elsewhere", site.path("link")).unwrap();
    replaces(&site, "link");
    fs::create_dir(site.path("folder")).unwrap();
    fs::write(site.path("folder/real"), "old").unwrap();
    symlink("folder/real", site.path("one")).unwrap();
    symlink("one", site.path("two")).unwrap();
    // Somebody who has the old file open still has the old file: it is replaced, not overwritten.
    let mut open = fs::File::open(site.path("folder/real")).unwrap();
    site.write(&site.path("two")).unwrap();
    for link in ["one", "two"] {
        assert!(fs::symlink_metadata(site.path(link)).unwrap().is_symlink(), "{link}");
    }
    is_payload(&fs::read(site.path("folder/real")).unwrap());
    assert_eq!(fs::metadata(site.path("folder/real")).unwrap().permissions().mode() & 0o777, 0o600);
    let mut old = String::new();
    open.read_to_string(&mut old).unwrap();
    assert_eq!(old, "old");
    assert_eq!(fs::read_dir(site.path("folder")).unwrap().count(), 1);
}

/// Refused before a payload is booked, which would void those before it.
#[test]
fn what_cannot_be_written_to_is_refused_by_name() {
    let site = Site::new();
    symlink("nowhere", site.path("dangling")).unwrap();
    let _socket = UnixListener::bind(site.path("socket")).unwrap();
    fs::create_dir(site.path("folder")).unwrap();
    for (name, why) in [
        ("dangling", "is a link to nowhere, which is not there; remove the link, or give the file's own name"),
        ("socket", "is a socket; give the name of a file"),
        ("folder", "is a folder; give the name of a file"),
        ("none/", "is a folder that is not there; give the name of a file"),
    ] {
        let path = site.path(name);
        assert_eq!(site.write(&path).unwrap_err(), format!("imprint-host: {} {why}\n", path.display()));
    }
    assert!(!site.path("nowhere").exists());
    assert_eq!((site.payloads(), site.left()), (0, ["dangling", "folder", "socket"].map(str::to_owned).to_vec()));
}

/// `-o /dev/sdq`, a drive that is not there, became a file among the devices, and the drive stayed empty.
#[test]
fn a_device_that_is_not_there_is_not_made() {
    let site = Site::new();
    let path = Path::new("/dev/imprint-test-no-such-drive");
    let error = site.write(path).unwrap_err();
    assert!(error.starts_with("imprint-host: /dev/imprint-test-no-such-drive is not a device, "), "{error}");
    assert!(!path.exists() && site.payloads() == 0);
    // A link to such a place is none either.
    symlink("/dev/imprint-test-no-such-drive", site.path("link")).unwrap();
    assert!(site.write(&site.path("link")).unwrap_err().contains(" is a link to "));
}

/// `payload -o a` threw `a.new` away, whatever that was.
#[test]
fn a_file_next_to_it_is_left_alone() {
    let site = Site::new();
    fs::write(site.path("a.new"), "mine").unwrap();
    fs::write(site.path("a"), "old").unwrap();
    site.write(&site.path("a")).unwrap();
    is_payload(&fs::read(site.path("a")).unwrap());
    assert_eq!(fs::read_to_string(site.path("a.new")).unwrap(), "mine");
    assert_eq!(site.left(), ["a", "a.new"]);
}

/// A name as long as a name can be: what is made beside it has a name of its own.
#[test]
fn a_long_name() {
    let site = Site::new();
    let path = site.path(&"x".repeat(255));
    site.write(&path).unwrap();
    is_payload(&fs::read(path).unwrap());
}

/// As /dev/stdout is one: a link, but to an open file and not to a name. The machine's own link is left out of it.
#[test]
fn standard_output_by_its_other_name() {
    let site = Site::new();
    let link = site.path("stdout");
    symlink("/proc/self/fd/1", &link).unwrap();
    let output = site.host(&["payload", "node1", "-o", link.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = format!("wrote {}: ", link.display());
    let at = output.stdout.windows(said.len()).position(|window| window == said.as_bytes()).unwrap();
    is_payload(&output.stdout[..at]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // A file that has no name any more cannot be replaced by name.
    let gone = fs::File::create(site.path("gone")).unwrap();
    fs::remove_file(site.path("gone")).unwrap();
    let mut host = Command::new(env!("CARGO_BIN_EXE_imprint-host"));
    host.arg("--dir").arg(site.path("state")).args(["payload", "node1", "-o"]).arg(&link).stdout(gone);
    let said = String::from_utf8(host.output().unwrap().stderr).unwrap();
    assert!(said.contains(" is an open file that cannot be replaced by name; "), "{said}");
    assert_eq!(site.left(), ["stdout"]);
}

/// A drive is named twice to be overwritten; nothing else is.
#[test]
fn only_a_drive_is_overwritten() {
    let site = Site::new();
    fs::write(site.path("file"), "old").unwrap();
    let (file, other) = (site.path("file").display().to_string(), site.path("other").display().to_string());
    let said = |words: &[&str]| String::from_utf8(site.host(words).stderr).unwrap();
    let words = ["payload", "node1", "--as", "iso", "-o", &file, "--overwrite"];
    assert_eq!(
        said(&[&words[..], &[&file]].concat()),
        format!(
            "imprint-host: {file} is not a drive, so there is nothing to overwrite; leave out --overwrite, or check \
             the name\n"
        )
    );
    assert_eq!(
        said(&[&words[..], &[&other]].concat()),
        format!("imprint-host: -o says {file} and --overwrite {other}; nothing was written, give both the same name\n")
    );
    assert_eq!((fs::read_to_string(&file).unwrap(), site.payloads()), ("old".to_owned(), 0));
}

/// A FIFO that nobody reads held up the thread that all lines share.
#[test]
fn a_log_does_not_wait_for_its_reader() {
    let site = Site::new();
    mkfifo(&site.path("fifo"), Mode::S_IRWXU).unwrap();
    symlink("nowhere", site.path("dangling")).unwrap();
    let line = format!("unix:{}", site.path("line").display());
    let _listener = UnixListener::bind(site.path("line")).unwrap();
    for (name, why) in [
        ("fifo", "is a FIFO that nobody reads; start its reader first"),
        ("dangling", "is a link to nowhere, which is not there; remove the link, or give the file's own name"),
        ("state", "is a folder; give the name of a file"),
    ] {
        let path = site.path(name).display().to_string();
        let output = site.host(&["inject", "node1", "--line", &line, "--window", "1s", "--log", &path]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(&format!("node1: failed: --log: {path} {why}\n")), "{said}");
    }
    // What may be written to may.
    let output = site.host(&["inject", "node1", "--line", &line, "--window", "1s", "--log", "/dev/null"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("node1: failed: no node said HELLO within 1 s"), "{said}");
}

/// A console that says more than a FIFO holds, and a reader that does not read: the log ends, not the line.
#[test]
fn a_log_that_is_full_does_not_stop_the_line() {
    let site = Site::new();
    let fifo = site.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let _reader = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let listener = UnixListener::bind(site.path("line")).unwrap();
    let line = format!("unix:{}", site.path("line").display());
    let console = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Until the host leaves.
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let log = fifo.display().to_string();
    let output = site.host(&["inject", "node1", "--line", &line, "--window", "3s", "--log", &log]);
    console.join().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("node1: log: Resource temporarily unavailable"), "{said}");
    assert!(said.contains("node1: failed: no node said HELLO within 3 s"), "{said}");
}
