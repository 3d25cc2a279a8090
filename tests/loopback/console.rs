//! Tests of `imprint console` on a pseudo terminal: its answer to text that is not a payload, and the terminal's state after an
//! interruption. Before a payload has come, the command changes nothing else.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};

/// The agent with a terminal and a root of its own, once it waits for a paste. It must not use /run/imprint of this
/// machine, which belongs to another run.
fn started(root: &Path) -> (Child, OpenptyResult, Termios) {
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let mut child = console(root, &pty);
    match said(&pty, &mut child, "--as text") {
        Ok(text) => assert!(text.contains("imprint: UUID ") && text.contains("imprint: line key "), "{text}"),
        Err(text) => panic!("it does not wait for what is pasted: {text}"),
    }
    (child, pty, before)
}

fn console(root: &Path, pty: &OpenptyResult) -> Child {
    let end = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
    Command::new("setsid")
        .args(["--ctty", "--wait"])
        .arg(programs::agent())
        .args(["console", "--timeout", "600"])
        .env("IMPRINT_ROOT", root)
        .stdin(end(&pty.slave))
        .stdout(end(&pty.slave))
        .stderr(end(&pty.slave))
        .spawn()
        .expect("setsid: apt-get install util-linux")
}

/// The agent's output up to these words. The error is the output of an agent that has ended, or took too long, without
/// them.
fn said(pty: &OpenptyResult, child: &mut Child, words: &str) -> Result<String, String> {
    let mut master = std::fs::File::from(pty.master.try_clone().unwrap());
    let (start, mut seen, mut buffer) = (Instant::now(), Vec::new(), [0; 512]);
    loop {
        let ended = child.try_wait().unwrap();
        // The test keeps the terminal open: that the agent is gone does not end a read.
        let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        let came = poll(&mut fds, PollTimeout::from(if ended.is_some() { 0u8 } else { 100 })).unwrap() > 0;
        if came {
            let count = master.read(&mut buffer).unwrap();
            seen.extend(&buffer[..count]);
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        match ended {
            _ if text.contains(words) => return Ok(text),
            Some(status) if !came => return Err(format!("it ended ({status}), and said: {text}")),
            None if start.elapsed() > PATIENCE => return Err(format!("it said no more than this: {text}")),
            _ => {}
        }
    }
}

fn is_raw(settings: &Termios) -> bool {
    !settings.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO)
}

fn given_back(mut child: Child, pty: &OpenptyResult, before: &Termios) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!child.wait().unwrap().success());
    assert_eq!(tcgetattr(&pty.slave).unwrap(), *before);
}

#[test]
fn ctrl_c_gives_the_terminal_back() {
    let root = tempfile::tempdir().unwrap();
    let (child, pty, before) = started(root.path());
    assert!(!is_raw(&before) && is_raw(&tcgetattr(&pty.slave).unwrap()));
    nix::unistd::write(&pty.master, &[3]).unwrap();
    given_back(child, &pty, &before);
}

#[test]
fn so_does_a_signal() {
    for signal in ["TERM", "HUP", "QUIT"] {
        let root = tempfile::tempdir().unwrap();
        let (child, pty, before) = started(root.path());
        // The agent is the child of setsid, which has no other.
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let agent = std::fs::read_to_string(children).unwrap();
        let agent = agent.split_whitespace().next().map(str::to_owned).unwrap_or_else(|| child.id().to_string());
        assert!(Command::new("kill").args([&format!("-{signal}"), &agent]).status().unwrap().success());
        given_back(child, &pty, &before);
    }
}

/// Another run has the folder. The agent says so at once and does not wait. An earlier version waited for ever.
#[test]
fn a_folder_that_another_run_has_ends_it_and_leaves_the_terminal_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run/imprint");
    std::fs::create_dir_all(&folder).unwrap();
    let file = std::fs::File::create(folder.join(".lock")).unwrap();
    let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let mut child = console(root.path(), &pty);
    let told = said(&pty, &mut child, "--as text").unwrap_err();
    assert!(told.contains("exit status: 19") && told.contains("run/imprint"), "{told}");
    given_back(child, &pty, &before);
    drop(held);
    let (child, pty, before) = started(root.path());
    nix::unistd::write(&pty.master, &[3]).unwrap();
    given_back(child, &pty, &before);
}

const PASTE: &str = "paste the lines that imprint-host payload NODE --as text prints";

/// The accident: somebody pastes the payload in another form than the lines that the agent asks for, and waits.
/// Terminals send a carriage return for each line end.
#[test]
fn what_is_pasted_in_another_form_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (mut child, pty, before) = started(root.path());
    let mut person = std::fs::File::from(pty.master.try_clone().unwrap());
    let payload = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/data/payload-typical.cbor")).unwrap();
    let pem = imprint::pem::encode("IMPRINT PAYLOAD", &payload).to_string();
    let without_header: String =
        pem.lines().filter(|line| !line.starts_with('-')).map(|line| format!("{line}\r")).collect();
    // Enter alone is not a paste.
    person.write_all(b"\r\r").unwrap();
    for (pasted, what) in [
        (without_header, "a payload in base64"),
        (pem.replace('\n', "\r"), "a PEM file, a certificate or a key"),
        (imprint::hex::encode(&payload) + "\r", "a payload in hexadecimal digits"),
        ("help\r".to_owned(), "something else"),
    ] {
        person.write_all(pasted.as_bytes()).unwrap();
        let text = said(&pty, &mut child, PASTE).unwrap();
        assert!(text.contains(&format!("imprint: this was {what}, and was not taken; {PASTE}")), "{text}");
        assert_eq!(text.matches("imprint: ").count(), 1, "one line: {text}");
        let secret = pasted.trim().rsplit('\r').next().unwrap();
        assert!(secret == "help" || !text.contains(secret), "nothing of it is shown: {text}");
    }
    // Only the first line of a payload comes, and it is garbled.
    person.write_all(b"#0ae[rH%nSc0ae[rH%nSc\r \r").unwrap();
    said(&pty, &mut child, "imprint: these lines did not arrive whole; paste all lines again").unwrap();
    nix::unistd::write(&pty.master, &[3]).unwrap();
    given_back(child, &pty, &before);
}
