//! Tests of the commands' messages, and of where they go: voided payloads, `show`, permissions of the directory.

use crate::support::books;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use books::{AWAY, Books, HOME, key, refused};
use imprint_host::enrol::Refusal;
use imprint_host::x509::CrlReason;
use serde_json::Value;

const URL: &str = "https://est.example.org:8443/.well-known/est";
/// nobody and nogroup of Debian; any that are not root's would do.
const OTHER: u32 = 65534;
/// Who has nothing to do with it.
const THIRD: u32 = 65533;

struct Site {
    temp: tempfile::TempDir,
    dir: PathBuf,
}

impl Site {
    fn new() -> Site {
        let temp = tempfile::tempdir().unwrap();
        std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let dir = temp.path().join("state");
        let site = Site { temp, dir };
        site.fine(&["init", "--url", URL, "--url", "https://192.0.2.1/.well-known/est"]);
        site
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imprint-host"));
        command.arg("--dir").arg(&self.dir).args(arguments);
        command
    }

    #[track_caller]
    fn fine(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// As this user. Exit code and standard error.
    fn by(&self, user: u32, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).uid(user).gid(user).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.temp.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn node(&self, text: &str) {
        let file = self.file("node1.toml", &format!("name = \"node1\"\nsubject = [\"CN=node1\"]\n{text}"));
        self.fine(&["node", "add", "--replace", &file]);
    }
}

/// What images and nodes of a site need was told once, by `init`.
#[test]
fn a_site_can_be_shown_again() {
    let site = Site::new();
    let root = std::fs::read(site.dir.join("root.pem")).unwrap();
    let digest = Command::new("sh")
        .args(["-c", "openssl x509 -outform DER | sha256sum"])
        .stdin(std::fs::File::open(site.dir.join("root.pem")).unwrap())
        .output()
        .unwrap();
    let pin = String::from_utf8(digest.stdout).unwrap()[..64].to_owned();
    assert!(!root.is_empty());
    let shown = site.fine(&["show"]);
    for want in [
        format!("directory      {}\n", site.dir.display()),
        format!("url            {URL}\n"),
        "url            https://192.0.2.1/.well-known/est\n".to_owned(),
        format!("site pin       {pin}\n"),
        "CA             CN=imprint-".to_owned(),
        "root key       here, root.key: move it offline\n".to_owned(),
    ] {
        assert!(shown.contains(&want), "{want}{shown}");
    }
    std::fs::remove_file(site.dir.join("root.key")).unwrap();
    assert!(site.fine(&["show"]).contains("root key       not here\n"));
    let json: Value = serde_json::from_str(&site.fine(&["show", "--json"])).unwrap();
    assert_eq!(json["urls"], serde_json::json!([URL, "https://192.0.2.1/.well-known/est"]));
    assert_eq!((json["pin"].as_str(), json["root_key"].as_bool()), (Some(pin.as_str()), Some(false)));
    assert!(json["ca"]["subject"].as_str().unwrap().starts_with("CN=imprint-"), "{json}");
}

/// Who made a payload twice had two media, one of which was void, and was told so by the node alone.
#[test]
fn a_new_payload_says_that_it_voids_the_last_one() {
    let site = Site::new();
    site.node("");
    let (first, second) = (site.temp.path().join("one.iso"), site.temp.path().join("two.iso"));
    let make = |path: &Path, more: &[&str]| {
        let fixed = ["payload", "node1", "--as", "iso", "-o", path.to_str().unwrap()];
        site.fine(&[&fixed[..], more].concat())
    };
    assert!(!make(&first, &[]).contains("void"));
    let said = make(&second, &[]);
    assert!(said.ends_with("; an earlier payload of node1 is void now, --keep leaves it valid\n"), "{said}");
    assert!(!make(&first, &["--keep"]).contains("void"));
    let said = make(&first, &[]);
    assert!(said.ends_with("; 2 earlier payloads of node1 are void now, --keep leaves them valid\n"), "{said}");
    let json: Value = serde_json::from_str(&make(&first, &["--json"])).unwrap();
    assert_eq!(json["voided"], 1);
}

/// "Another payload took the place of this one; use that one" was said where there was no other one.
#[test]
fn a_payload_that_was_revoked_says_so() {
    let books = Books::new("once");
    let first = books.token("node1", false);
    let second = books.token("node1", false);
    assert!(matches!(refused(books.first(&first, &key(), HOME)), Refusal::Void(_)));
    let now = books.now.get();
    imprint_host::enrol::revoke(&mut books.state.borrow_mut().store, "node1", None, CrlReason::KeyCompromise, now)
        .unwrap();
    // The one that was replaced before goes on saying that.
    assert!(matches!(refused(books.first(&first, &key(), HOME)), Refusal::Void(_)));
    let refusal = refused(books.first(&second, &key(), AWAY));
    assert_eq!(
        refusal.to_string(),
        format!("an administrator revoked this payload at {now}; make another with imprint-host payload")
    );
    // What is made then is good, and the list says what became of the newest one.
    books.pass(std::time::Duration::from_secs(1));
    let third = books.token("node1", false);
    assert!(matches!(refused(books.first(&second, &key(), AWAY)), Refusal::Withdrawn(_)));
    books::issued(books.first(&third, &key(), HOME));
}

#[test]
fn the_list_says_that_a_payload_was_revoked() {
    let site = Site::new();
    site.node("");
    site.fine(&["payload", "node1"]);
    assert!(!site.fine(&["nodes"]).contains("revoked 2"));
    site.fine(&["revoke", "node1"]);
    assert!(site.fine(&["nodes"]).contains("revoked 2"), "{}", site.fine(&["nodes"]));
}

/// It was "no CA in …; make one with imprint-host init", and somebody might have done that.
#[test]
fn whoever_may_not_read_the_directory_is_told_so_and_who_may() {
    assert!(nix::unistd::geteuid().is_root(), "run it as root, or with unshare --user --map-auto --map-root-user");
    let site = Site::new();
    let own = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
    let file = site.dir.join("intermediate.pem");
    for (user, whom) in [(0, "root (uid 0): run the command as root\n"), (OTHER, ": run the command as root")] {
        own(&site.dir, user);
        let (code, said) = site.by(THIRD, &["nodes"]);
        let want =
            format!("imprint-host: reading {}: permission denied; {} belongs to ", file.display(), site.dir.display());
        assert!(code == Some(1) && said.starts_with(&want) && said.contains(whom), "{said}");
    }
    // The directory can be read, and what is in it cannot: the database, a directory.
    std::fs::set_permissions(&site.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let (code, said) = site.by(THIRD, &["nodes"]);
    assert!(code == Some(1) && said.contains("intermediates") && said.contains(": permission denied; "), "{said}");
    std::fs::set_permissions(site.dir.join("intermediates"), PermissionsExt::from_mode(0o755)).unwrap();
    for entry in std::fs::read_dir(site.dir.join("intermediates")).unwrap() {
        std::fs::set_permissions(entry.unwrap().path(), PermissionsExt::from_mode(0o644)).unwrap();
    }
    let (code, said) = site.by(THIRD, &["nodes"]);
    assert!(code == Some(1) && said.contains("opening ") && said.contains("imprint.db: permission denied; "), "{said}");
    // Where nothing is, nothing is: also for whoever may not look.
    std::fs::set_permissions(&site.dir, PermissionsExt::from_mode(0o700)).unwrap();
    own(&site.dir, 0);
    let elsewhere = Command::new(env!("CARGO_BIN_EXE_imprint-host"))
        .args(["--dir", "/nowhere/at/all", "nodes"])
        .uid(THIRD)
        .output()
        .unwrap();
    let said = String::from_utf8(elsewhere.stderr).unwrap();
    assert_eq!(said, "imprint-host: no CA in /nowhere/at/all; make one with imprint-host init, or give its --dir\n");
    // A directory that cannot be made.
    let new = site.temp.path().join("new");
    let made: Output = Command::new(env!("CARGO_BIN_EXE_imprint-host"))
        .args(["--dir", new.to_str().unwrap(), "init", "--url", URL])
        .uid(THIRD)
        .output()
        .unwrap();
    let said = String::from_utf8(made.stderr).unwrap();
    let want = format!(
        "imprint-host: making directory {}: permission denied; {} belongs to root (uid 0): run the command as root\n",
        new.display(),
        site.temp.path().display()
    );
    assert_eq!(said, want);
}

/// The page's lines, with a directory and a user of this test: the user of the unit has to be able to read all that is there,
/// also where `init` was run before the user was made. An `install -d` that gave the directory away left its files to root,
/// and systemd changes nothing below a directory that has the right owner.
#[test]
fn the_install_lines_leave_a_directory_that_the_unit_can_read() {
    assert!(nix::unistd::geteuid().is_root(), "run it as root, or with unshare --user --map-auto --map-root-user");
    let read =
        |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap();
    let (unit, page) = (read("systemd/imprint-host.service"), read("docs/host.md"));
    let user = unit.lines().find_map(|line| line.strip_prefix("User=")).unwrap();
    let state = unit.lines().find_map(|line| line.strip_prefix("StateDirectory=")).unwrap();
    let state = format!("/var/lib/{state}");
    let (_, running) = page.split_once("\n## Running it\n").unwrap();
    let block = running.split("```").nth(1).unwrap();
    let lines: Vec<&str> = block.lines().filter(|line| line.contains(&state) || line.contains(" init ")).collect();
    assert!(lines.iter().any(|line| line.contains(" init ")), "{block}");
    let site = Site::new();
    let _ = std::fs::remove_dir_all(&site.dir);
    let dir = site.dir.display().to_string();
    let program = env!("CARGO_BIN_EXE_imprint-host");
    let here = |line: &str| {
        let line = line.replace(&state, &dir).replace(&format!("{user}:{user}"), &format!("{OTHER}:{OTHER}"));
        line.replace("imprint-host init", &format!("{program} --dir {dir} init"))
    };
    let run = |line: &str| assert!(Command::new("sh").args(["-ec", line]).status().unwrap().success(), "{line}");
    // The premise: what the page said before.
    run(&here("imprint-host init --url https://est.example.org/.well-known/est"));
    run(&format!("install -d -m 0700 -o {OTHER} -g {OTHER} {dir}"));
    assert_eq!(site.by(OTHER, &["nodes"]).0, Some(1), "the directory is the user's, and its files are root's");
    // Now, on that, and on a machine where nothing is.
    for fresh in [false, true] {
        if fresh {
            std::fs::remove_dir_all(&site.dir).unwrap();
        }
        for line in &lines {
            if fresh || !line.contains(" init ") {
                run(&here(line));
            }
        }
        assert_eq!(site.by(OTHER, &["nodes"]), (Some(0), String::new()), "fresh: {fresh}");
        // What root does later stays readable, too.
        site.node("");
        site.fine(&["payload", "node1"]);
        assert_eq!(site.by(OTHER, &["payload", "node1", "--as", "userpass"]), (Some(0), String::new()));
    }
}

/// A table of two thousand nodes on one address had two thousand lines of warnings.
#[test]
fn what_many_share_is_said_a_few_times_and_counted() {
    let site = Site::new();
    let rows: String = (0..40).map(|number| format!("node{number},CN=node{number},web\n")).collect();
    let table = site.file("nodes.csv", &format!("name,subject,hostname\n{rows}"));
    let template = site.file("template.toml", "[[network]]\nmatch = { any = true }\naddresses = [\"192.0.2.7/24\"]\n");
    let output = site.command(&["node", "add", "--json", "--csv", &table, "--template", &template]).output().unwrap();
    let (said, answer) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    assert!(output.status.success(), "{said}");
    let of = |words: &str| said.lines().filter(|line| line.contains(words)).count();
    assert_eq!((of(": address 192.0.2.7 is "), of(": host name web is ")), (5, 5), "{said}");
    for kind in ["address", "hostname"] {
        let more = format!("imprint-host: warning: 34 more warnings of this kind ({kind}); --json lists all\n");
        assert!(said.contains(&more), "{said}");
    }
    assert_eq!(said.lines().count(), 12, "{said}");
    // Programs get all of them.
    let json: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(json["warnings"].as_array().unwrap().len(), 78);
}

/// Firmware has no blanks around a serial number once it is read, so a record that has some is for no machine.
#[test]
fn blanks_around_a_serial_number_are_not_part_of_it() {
    let site = Site::new();
    site.node("bind = { serial = \" SN 7 \\t\" }\n");
    let file = site.temp.path().join("node1.cbor");
    site.fine(&["payload", "node1", "-o", file.to_str().unwrap()]);
    let payload = imprint::payload::Payload::unwrapped(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(payload.binding.unwrap().serial.as_deref(), Some("SN 7"));
    // Blanks alone are none.
    let file = site.file("blank.toml", "name = \"node2\"\nsubject = [\"CN=node2\"]\nbind = { serial = \"  \" }\n");
    let output = site.command(&["node", "add", &file]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("bind.serial: a serial number has 1 to 128 bytes"), "{said}");
}
