//! Tests of the agent's messages for people, from the program itself, below a root of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use imprint::payload::{CaCertificate, LinkKind, Match, Payload};
use imprint::status::Status;
use imprint_tests::ca::Ca;
use imprint_tests::programs;

const TYPICAL: &[u8] = include_bytes!("../data/payload-typical.cbor");

/// A root with this kernel command line.
fn root(cmdline: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("proc")).unwrap();
    fs::write(root.path().join("proc/cmdline"), format!("{cmdline}\n")).unwrap();
    root
}

fn agent(root: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(programs::agent());
    command.args(words).env("IMPRINT_ROOT", root).stdin(Stdio::null()).output().unwrap()
}

/// What a program that succeeded said.
#[track_caller]
fn said(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn status(root: &Path) -> Status {
    serde_json::from_slice(&fs::read(root.join("run/imprint/status.json")).unwrap()).unwrap()
}

fn payload(root: &Path, payload: &Payload) -> PathBuf {
    let path = root.join("payload.cbor");
    fs::write(&path, payload.encode()).unwrap();
    path
}

/// A CA may have any subject. This one clears the screen, and says in a line of its own that all is well, in two directions.
/// RFC 4514 escapes some of that, and neither U+009B, which begins a command as ESC [ does, nor U+202E.
#[test]
fn a_subject_drives_no_terminal_and_forges_no_line() {
    let subject = "x\u{1b}[2J\u{9b}31m\u{202e}\nimprint: done: node1 has its certificate\r";
    let root = root("quiet");
    let mut hostile = Payload::decode(TYPICAL).unwrap();
    let (from, until) = (hostile.composed.as_secs(), hostile.expiry.as_secs());
    hostile.ca = CaCertificate::new(Ca::new(subject, (from, until + 86_400)).der()).unwrap();
    let file = payload(root.path(), &hostile);
    let file = file.to_str().unwrap();
    let shown = said(agent(root.path(), &["check", file]));
    assert!(shown.contains("CA         CN=x\\1b[2J\\u{9b}31m\\u{202e}\\0aimprint"), "{shown}");
    // It is refused, and its subject is in the reason.
    fs::create_dir(root.path().join("imprint")).unwrap();
    fs::write(root.path().join("imprint/site"), "00".repeat(32)).unwrap();
    let refused = agent(root.path(), &["plan", file]);
    assert_eq!(refused.status.code(), Some(13));
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("the payload's CA \"CN=x\\1b[2J\\u{9b}"), "{refused}");
    // Names of files can hold the same bytes.
    let odd = root.path().join(subject);
    let missing = agent(root.path(), &["check", odd.to_str().unwrap()]);
    let missing = String::from_utf8(missing.stderr).unwrap();
    let usage = agent(root.path(), &[subject]);
    let usage = String::from_utf8(usage.stderr).unwrap();
    for text in [&shown, &refused, &missing, &usage] {
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
    }
    for text in [&shown, &refused, &missing] {
        assert!(!text.lines().any(|line| line.starts_with("imprint: done")), "{text}");
    }
    assert_eq!((refused.lines().count(), missing.lines().count()), (1, 1));
}

/// A label in `imprint.source=` is text from outside as well: on the console, and in status.json.
#[test]
fn what_a_run_says_and_records_is_printable() {
    let root = root("\"imprint.source=config-drive:A\u{1b}[2J\u{202e}B\" imprint.timeout=1");
    let ended = agent(root.path(), &["run"]);
    assert_eq!(ended.status.code(), Some(11));
    let text = format!("{}{}", String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    assert!(text.contains("labelled A\\u{1b}[2J\\u{202e}B"), "{text}");
    let status = status(root.path());
    let message = status.error.clone().unwrap().message;
    for text in [&text, &message, &status.to_string(), &status.reason()] {
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
    }
}

/// The last words before the prompt of an initramfs: what stopped the boot, and what a person can do there.
#[test]
fn the_reason_is_said_again_in_two_lines() {
    let root = root("imprint.source=file");
    assert_eq!(agent(root.path(), &["run"]).status.code(), Some(11));
    let want = "imprint: the boot was stopped with exit code 11: source: no payload found (no file /imprint/payload); bring \
                one where imprint.source= says: /imprint/payload in the initramfs (imprint-host payload NODE --as cpio); \
                or boot with imprint=auto to go on without\n\
                imprint: \"imprint status\" shows every step; \"imprint console\" takes a payload that is pasted here; \
                then \"systemctl default\" boots on, or \"exit\" in an image without systemd\n";
    assert_eq!(said(agent(root.path(), &["status", "--reason"])), want);
    // A boot that was not stopped has none.
    let auto = self::root("imprint=auto imprint.timeout=1");
    said(agent(auto.path(), &["run"]));
    assert_eq!(said(agent(auto.path(), &["status", "--reason"])), "");
}

/// Nothing came of such a word, and the node booted on without a payload and without a reason.
#[test]
fn a_word_that_is_nearly_ours_is_said_and_stops_nothing() {
    let root = root("quiet IMPRINT=require imprint_timeout=1 imprint.timeout=2");
    let output = said(agent(root.path(), &["run"]));
    for want in [
        "imprint: \"IMPRINT\" on the kernel command line was ignored; if you mean imprint=, write it like that\n",
        "imprint: \"imprint_timeout\" on the kernel command line was ignored; if you mean imprint.timeout=, write it \
         like that\n",
    ] {
        assert!(output.contains(want), "{output}");
    }
    // Off is off: nothing is looked for, and nothing said.
    let off = self::root("imprint=off IMPRINT=require");
    assert_eq!(said(agent(off.path(), &["run"])), "");
    // One that stopped a boot before does so still, and knows the nearest.
    let wrong = self::root("imprint.sources=file");
    let ended = agent(wrong.path(), &["run"]);
    assert_eq!(ended.status.code(), Some(10));
    let reason = String::from_utf8(ended.stderr).unwrap();
    assert!(reason.contains("the nearest that is known is imprint.source="), "{reason}");
}

/// The command that is to say what a boot would do said that the boot loader had named no link.
#[test]
fn a_plan_knows_the_link_that_the_machine_booted_from() {
    let mut by_link = Payload::decode(TYPICAL).unwrap();
    by_link.network[0].kind = LinkKind::Physical(Match::BootIf);
    by_link.binding = None;
    for (cmdline, knows) in [("quiet", false), ("quiet imprint.nonsense BOOTIF=01-52-54-00-12-34-56", true)] {
        let root = root(cmdline);
        let file = payload(root.path(), &by_link);
        let output = agent(root.path(), &["plan", file.to_str().unwrap()]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(text.contains("52:54:00:12:34:56"), knows, "{text}");
        assert_eq!(text.contains("BOOTIF= is not on the kernel command line"), !knows, "{text}");
    }
}

#[test]
fn the_version_is_said_as_people_ask_for_it() {
    let root = root("quiet");
    let want = format!("imprint {}\n", env!("CARGO_PKG_VERSION"));
    for words in [&["--version"][..], &["-V"], &["version"]] {
        assert_eq!(said(agent(root.path(), words)), want);
    }
    let host = Command::new(programs::host()).arg("--version").output().unwrap();
    assert_eq!(said(host), format!("imprint-host {}\n", env!("CARGO_PKG_VERSION")));
}
