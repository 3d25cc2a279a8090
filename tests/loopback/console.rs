//! `imprint console` on a pseudo terminal: what it says to what is no payload, and what it leaves behind when it is
//! interrupted. It touches nothing else before a payload has come.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};

/// The agent with a terminal of its own, once it waits for what is pasted.
fn started() -> (Child, OpenptyResult, Termios) {
    let pty = openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let end = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
    let child = Command::new("setsid")
        .args(["--ctty", "--wait"])
        .arg(programs::agent())
        .args(["console", "--timeout", "600"])
        .stdin(end(&pty.slave))
        .stdout(end(&pty.slave))
        .stderr(end(&pty.slave))
        .spawn()
        .expect("setsid: apt-get install util-linux");
    let text = until(&pty, "--as text");
    assert!(text.contains("imprint: UUID ") && text.contains("imprint: line key "), "{text}");
    (child, pty, before)
}

/// What the agent says from here on, until there are these words in it.
#[track_caller]
fn until(pty: &OpenptyResult, words: &str) -> String {
    let start = Instant::now();
    let mut seen = Vec::new();
    let mut master = std::fs::File::from(pty.master.try_clone().unwrap());
    let mut buffer = [0; 512];
    loop {
        let text = String::from_utf8_lossy(&seen);
        if text.contains(words) {
            return text.into_owned();
        }
        let left = PATIENCE.saturating_sub(start.elapsed());
        let left = PollTimeout::try_from(left).unwrap();
        let ready = poll(&mut [PollFd::new(pty.master.as_fd(), PollFlags::POLLIN)], left).unwrap();
        assert!(ready > 0, "it does not say {words:?}, but: {text}");
        let count = master.read(&mut buffer).unwrap();
        seen.extend(&buffer[..count]);
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
    let (child, pty, before) = started();
    assert!(!is_raw(&before) && is_raw(&tcgetattr(&pty.slave).unwrap()));
    nix::unistd::write(&pty.master, &[3]).unwrap();
    given_back(child, &pty, &before);
}

#[test]
fn so_does_a_signal() {
    for signal in ["TERM", "HUP", "QUIT"] {
        let (child, pty, before) = started();
        // The agent is the child of setsid, which has no other.
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let agent = std::fs::read_to_string(children).unwrap();
        let agent = agent.split_whitespace().next().map(str::to_owned).unwrap_or_else(|| child.id().to_string());
        assert!(Command::new("kill").args([&format!("-{signal}"), &agent]).status().unwrap().success());
        given_back(child, &pty, &before);
    }
}

/// Somebody has the payload in another form than the lines that are asked for, and waits for something to happen. Terminals
/// send a carriage return for each line end.
#[test]
fn what_is_pasted_in_another_form_is_named() {
    let (child, pty, before) = started();
    let mut person = std::fs::File::from(pty.master.try_clone().unwrap());
    let payload = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/data/payload-typical.cbor")).unwrap();
    let pem = imprint::pem::encode("IMPRINT PAYLOAD", &payload).to_string();
    let without_header: String =
        pem.lines().filter(|line| !line.starts_with('-')).map(|line| format!("{line}\r")).collect();
    let said = "paste the lines that imprint-host payload NODE --as text prints";
    // Enter alone is no paste.
    person.write_all(b"\r\r").unwrap();
    for (pasted, what) in [
        (without_header, "a payload in base64"),
        (pem.replace('\n', "\r"), "a PEM file, a certificate or a key"),
        (imprint::hex::encode(&payload) + "\r", "a payload in hexadecimal digits"),
        ("help\r".to_owned(), "something else"),
    ] {
        person.write_all(pasted.as_bytes()).unwrap();
        let text = until(&pty, said);
        assert!(text.contains(&format!("imprint: this was {what}, and was not taken; {said}")), "{text}");
        assert_eq!(text.matches("imprint: ").count(), 1, "one line: {text}");
        let secret = pasted.trim().rsplit('\r').next().unwrap();
        assert!(secret == "help" || !text.contains(secret), "nothing of it is shown: {text}");
    }
    // A payload as it should be, of which the first line alone came, and that garbled.
    person.write_all(b"#0ae[rH%nSc0ae[rH%nSc\r \r").unwrap();
    until(&pty, "imprint: these lines did not arrive whole; paste all lines again");
    nix::unistd::write(&pty.master, &[3]).unwrap();
    given_back(child, &pty, &before);
}
