//! Tests of the agent's whole boot over a line, in namespaces of its own, with a host that was written from
//! docs/line-protocol.md alone.

use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use imprint::key_code::KeyCode;
use imprint_host::state::MadeKey;
use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;
use imprint_tests::signer;
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use crate::namespaces;

/// The agent, and what the host in Python says. `key`: the admission key of the image.
fn boot(mode: &str, timeout: u64, key: Option<&MadeKey>) -> (Output, String, tempfile::TempDir) {
    namespaces();
    let root = tempfile::tempdir().unwrap();
    let public = root.path().join("public.pem");
    let pty = openpty(None, None).unwrap();
    let mut settings = tcgetattr(&pty.slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/cmdline", &format!("imprint.source=serial:ttyS0 imprint.timeout={timeout}\n"));
    if mode == "fresh" {
        write("imprint/site", signer::LINES);
    }
    if let Some(key) = key {
        write("imprint/key", &key.pem);
        // RFC 8410 §4: SubjectPublicKeyInfo of an Ed25519 key.
        let info = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &key.public].concat();
        write("public.pem", &imprint::pem::encode("PUBLIC KEY", &info));
    }
    write("run/.keep", "");
    write("dev/.keep", "");
    let name = nix::unistd::ttyname(&pty.slave).unwrap();
    std::os::unix::fs::symlink(name, root.path().join("dev/ttyS0")).unwrap();
    let line = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let host = Command::new(programs::python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/line_host.py"))
        .arg(mode)
        .args((mode == "fresh").then_some(concat!(env!("CARGO_MANIFEST_DIR"), "/data/signer-ed25519.pem")))
        .args(key.map(|_| &public))
        .stdin(line(&pty.master))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whatever goes wrong, it sets no clock of this machine.
    let agent = Command::new("setpriv")
        .args(["--bounding-set=-sys_time", "--"])
        .arg(programs::agent())
        .arg("run")
        .env("IMPRINT_ROOT", root.path())
        .output()
        .expect("setpriv: apt-get install util-linux");
    let host = host.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&host.stdout).into_owned();
    let all = format!(
        "{words}{}\n{}{}",
        String::from_utf8_lossy(&host.stderr),
        String::from_utf8_lossy(&agent.stdout),
        String::from_utf8_lossy(&agent.stderr)
    );
    assert!(host.status.success() && !words.contains("FAILED"), "{all}");
    (agent, all, root)
}

/// Written in Python from the page: it sends pieces of nothing, lengths that there are not, numbers that wrap, frames that
/// terminals have broken, certificates in another order; and it does not answer the report at first.
#[test]
fn an_independent_host() {
    let (agent, all, root) = boot("line", PATIENCE.as_secs(), None);
    assert_eq!(agent.status.code(), Some(0), "{all}");
    assert!(all.contains("ok: it is done, with the key of its request\n"), "{all}");
    let chain = std::fs::read_to_string(root.path().join("run/imprint/chain.pem")).unwrap_or_default();
    assert!(root.path().join("run/imprint/private/key.pem").exists() && chain.contains("BEGIN CERTIFICATE"), "{all}");
    for words in [
        "imprint: ttyS0: something on the way breaks lines after 40 columns; ",
        "imprint: ttyS0: characters come with even parity in bit 7, ",
    ] {
        assert_eq!(all.matches(words).count(), 1, "{all}");
    }
}

/// An image that names signers, and a payload that names no machine: it was signed for this node and one of its challenges. The
/// host also answers a challenge that is none of the node, and tells times that it must not use: were one of them used, setting
/// the clock would fail here.
#[test]
fn an_independent_host_that_signs_for_a_challenge() {
    let (agent, all, root) = boot("fresh", PATIENCE.as_secs(), None);
    assert_eq!(agent.status.code(), Some(0), "{all}");
    assert!(all.contains("ok: it is done, with the key of its request\n"), "{all}");
    let words = "a payload came on ttyS0 that was signed for no challenge of the last minute; ";
    assert_eq!(all.matches(words).count(), 1, "{all}");
    let clock = all.lines().find(|line| line.starts_with("imprint: clock: ")).unwrap_or_default();
    assert!(clock.starts_with("imprint: clock: confirmed by the signature of the payload, to within "), "{all}");
    assert!(clock.contains(", which the signature contradicts, and which is ignored"), "{all}");
    assert!(root.path().join("run/imprint/private/key.pem").exists(), "{all}");
}

/// An image with an admission key, on a line of this machine: the host in Python verifies the proof of each conversation, and
/// goes on as above.
#[test]
fn an_independent_host_that_wants_an_admission_key() {
    let made = MadeKey::new().unwrap();
    let (agent, all, _root) = boot("fresh", PATIENCE.as_secs(), Some(&made));
    assert_eq!(agent.status.code(), Some(0), "{all}");
    for (words, times) in [
        ("ok: it is of the key that the image has\n", 2),
        ("ok: the key has signed this HELLO and this host's nonce\n", 2),
        ("ok: another conversation, another proof\n", 1),
        ("ok: it is done, with the key of its request\n", 1),
    ] {
        assert_eq!(all.matches(words).count(), times, "{words}{all}");
    }
    assert!(all.contains(&format!("imprint: admission key {} of ", KeyCode::of(&made.public))), "{all}");
}

/// A payload whose URLs have no `line:` brings no request up the line, and a report in the end.
#[test]
fn an_independent_host_with_a_payload_for_a_server() {
    let (agent, all, _root) = boot("server", 4, None);
    assert_eq!(agent.status.code(), Some(18), "{all}");
    assert!(all.contains("ok: without line: among its URLs it requests nothing here\n"), "{all}");
}
