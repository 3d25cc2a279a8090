//! Tests with an image that names signers, and a payload that none of them has signed. Each subcommand of the agent
//! refuses it, and changes nothing. The payload is bound to another machine: if it were accepted, the plan would refuse
//! it, and no test changes the clock of this machine.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use imprint::payload::{Binding, Payload};
use imprint::status::{Outcome, Status};
use imprint_host::compose;
use imprint_tests::programs;
use imprint_tests::signer::{self, Key};
use nix::pty::openpty;

const TYPICAL: &[u8] = include_bytes!("../data/payload-typical.cbor");

/// A payload for a machine that is not this one.
fn payload() -> Vec<u8> {
    let mut payload = Payload::decode(TYPICAL).unwrap();
    payload.binding = Some(Binding { serial: Some("no such machine".to_owned()), ..Binding::default() });
    payload.encode().to_vec()
}

fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("proc")).unwrap();
    fs::write(root.path().join("proc/cmdline"), "quiet\n").unwrap();
    root
}

fn agent(root: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(programs::agent());
    command.args(words).env("IMPRINT_ROOT", root).stdin(Stdio::null()).output().unwrap()
}

fn status(folder: &Path) -> Status {
    serde_json::from_slice(&fs::read(folder.join("status.json")).unwrap()).unwrap()
}

/// Exit code 13, these words, and no certificate, key or marker.
fn refused(output: &Output, folder: Option<&Path>, words: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(13), "{error}");
    assert!(error.contains(words), "{error}");
    let Some(folder) = folder else { return };
    let status = status(folder);
    assert_eq!((status.outcome, status.exit_code, status.payload_id), (Outcome::Failed, 13, None));
    for name in ["ready", "cert.pem", "node.json", "private/key.pem"] {
        assert!(!folder.join(name).exists(), "{name}");
    }
}

#[test]
fn every_subcommand_refuses_what_no_signer_has_signed() {
    let stranger = Key::stranger();
    let names = "signers (";
    for (bytes, words) in [
        (payload(), names),
        (stranger.sign(&payload()), "the payload is signed by"),
        (stranger.sign_as(&Key::p256().signer(), signed_aad(), &payload()), "the signature does not fit"),
    ] {
        for pinned in [false, true] {
            let root = root();
            let root = root.path();
            let file = root.join("payload.cbor");
            let path = file.to_str().unwrap();
            fs::write(&file, &bytes).unwrap();
            fs::create_dir(root.join("imprint")).unwrap();
            fs::copy(&file, root.join("imprint/payload")).unwrap();
            // Premise: without the pin each goes on to the plan, which refuses the payload for this machine.
            let words = if pinned { words } else { "the payload is for a machine with serial number no such machine" };
            if pinned {
                signer::pin(root, signer::LINES);
            }
            let out = root.join("out");
            refused(&agent(root, &["plan", path]), None, words);
            refused(&agent(root, &["enroll", "--payload", path, "--out", out.to_str().unwrap()]), Some(&out), words);
            refused(&agent(root, &["run"]), Some(&root.join("run/imprint")), words);
            let check = agent(root, &["check", path]);
            if pinned { refused(&check, None, words) } else { assert!(check.status.success()) }
        }
    }
}

fn signed_aad() -> &'static [u8] {
    imprint::payload::signed::AAD
}

/// With a signature, the signer vouches for the payload, for the machine that it names, and for no other.
#[test]
fn what_a_signer_has_signed_is_judged_like_any_other() {
    let root = root();
    let root = root.path();
    let file = root.join("payload.cbor");
    let path = file.to_str().unwrap();
    for key in [Key::p256(), Key::ed25519()] {
        fs::write(&file, key.sign(&payload())).unwrap();
        signer::pin(root, signer::LINES);
        let shown = agent(root, &["check", path]);
        let shown = String::from_utf8(shown.stdout).unwrap();
        let want = format!("signed by  {}, a signer of the site pin\n", key.signer().kid());
        assert!(shown.ends_with(&want), "{shown}");
        // A payload for another node.
        let out = root.join("out");
        let output = agent(root, &["enroll", "--payload", path, "--out", out.to_str().unwrap()]);
        let words = "the payload is for a machine with serial number no such machine";
        refused(&output, Some(&out), words);
        assert_eq!(status(&out).signer, Some(key.signer().kid().to_string()));
        // A payload for every node.
        fs::write(&file, key.sign(TYPICAL)).unwrap();
        for words in [&["plan", path][..], &["check", path]] {
            let names = "names no machine, and /imprint/site in this image names signers";
            refused(&agent(root, words), None, names);
        }
        // If the image names CAs as well, both must hold.
        fs::write(&file, key.sign(&payload())).unwrap();
        signer::pin(root, &format!("{}\n{}", "00".repeat(32), signer::LINES));
        refused(&agent(root, &["plan", path]), None, words);
        signer::pin(root, signer::LINES.lines().find(|line| !line.contains(key.signer().algorithm().word())).unwrap());
        refused(&agent(root, &["plan", path]), None, "the payload is signed by");
    }
}

/// A payload that is pasted on a console needs a signature, as one on a medium does.
#[test]
fn the_console_refuses_what_no_signer_has_signed() {
    for (bytes, pinned, words) in [
        (payload(), false, "the payload is for a machine with serial number no such machine"),
        (payload(), true, "the payload is not signed"),
        (Key::stranger().sign(&payload()), true, "the payload is signed by"),
        (Key::p256().sign(&payload()), true, "the payload is for a machine with serial number no such machine"),
    ] {
        let root = root();
        if pinned {
            signer::pin(root.path(), signer::LINES);
        }
        let pty = openpty(None, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(programs::agent())
            .args(["console", "--timeout", "600"])
            .env("IMPRINT_ROOT", root.path())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid: apt-get install util-linux");
        let mut master = fs::File::from(pty.master);
        let (mut seen, mut buffer, mut pasted) = (Vec::new(), [0; 512], false);
        drop(pty.slave);
        // The terminal ends with the last program that has it.
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            seen.extend(&buffer[..count]);
            if !pasted && String::from_utf8_lossy(&seen).contains("--as text") {
                pasted = true;
                master.write_all(&compose::text(&bytes)).unwrap();
            }
        }
        let (code, said) = (child.wait().unwrap().code(), String::from_utf8_lossy(&seen).into_owned());
        assert!(pasted && code == Some(13) && said.contains(words), "{code:?}: {said}");
        let status = status(&root.path().join("run/imprint"));
        assert_eq!((status.outcome, status.exit_code), (Outcome::Failed, 13));
    }
}
