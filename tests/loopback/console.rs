//! Tests of `imprint console` on a pseudo terminal: the terminal's state after an interruption. Before a payload has come,
//! the command changes nothing else.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;
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
    let mut seen = Vec::new();
    let mut master = std::fs::File::from(pty.master.try_clone().unwrap());
    let mut buffer = [0; 512];
    while !String::from_utf8_lossy(&seen).contains("--as text") {
        let count = master.read(&mut buffer).unwrap();
        seen.extend(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("imprint: UUID ") && text.contains("imprint: line key "), "{text}");
    (child, pty, before)
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
