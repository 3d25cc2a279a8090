//! Tests of the state of a line after the program that holds it was ended.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use imprint::sys::{self, Terminal};
use imprint::time::Deadline;
use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;
use nix::poll::{PollFd, PollFlags};
use nix::pty::openpty;
use nix::sys::signal::Signal;

/// A program with a line, and the line's other end.
struct Held {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    host: File,
    terminal: File,
    before: Terminal,
}

impl Held {
    /// By way of `shell`, which runs what it is given.
    fn new(mode: &str, shell: &str) -> Held {
        let pair = openpty(None, None).unwrap();
        let (terminal, host) = (File::from(pair.slave), File::from(pair.master));
        let before = sys::terminal(&terminal).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", shell, "sh"]).arg(programs::hold()).arg(mode);
        command.arg(nix::unistd::ttyname(&terminal).unwrap()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut held = Held { child, said, host, terminal, before };
        assert_eq!(held.line(), mode);
        held
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn is_raw(&self) -> bool {
        sys::terminal(&self.terminal).unwrap().c_lflag & nix::libc::ICANON == 0
    }

    fn send(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// By which signal, with the line as it was.
    fn ended(&mut self) -> Option<i32> {
        let status = self.child.wait().unwrap();
        assert_eq!(sys::terminal(&self.terminal).unwrap(), self.before);
        status.signal()
    }

    /// Waits until the node has said HELLO.
    fn hello(&mut self) {
        let mut seen = Vec::new();
        while !seen.contains(&b'\n') {
            let mut fds = [PollFd::new(self.host.as_fd(), PollFlags::POLLIN)];
            assert!(sys::poll(&mut fds, Deadline::after(PATIENCE)).unwrap(), "the node is silent");
            let mut buffer = [0; 1000];
            let count = self.host.read(&mut buffer).unwrap();
            seen.extend(buffer.get(..count).unwrap());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PLAIN: &str = "exec \"$@\"";

#[test]
fn a_signal_gives_the_line_back_and_ends_the_program() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut held = Held::new("held", PLAIN);
        assert!(held.is_raw(), "{signal}");
        held.send(signal);
        assert_eq!(held.ended(), Some(signal as i32));
    }
}

/// Another source won, and the rest of the boot has to be as easy to end as any program.
#[test]
fn once_the_lines_are_given_back_signals_do_what_they_did() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut held = Held::new("over", PLAIN);
        assert_eq!(held.line(), "given back");
        assert!(!held.is_raw(), "{signal}");
        held.send(signal);
        assert_eq!(held.ended(), Some(signal as i32));
    }
}

/// nohup(1): whoever hangs up means somebody else.
#[test]
fn a_signal_that_is_ignored_takes_no_line_away() {
    let mut held = Held::new("held", "trap '' HUP; exec \"$@\"");
    held.hello();
    held.send(Signal::SIGHUP);
    // The first may have been on its way before.
    held.hello();
    held.hello();
    assert!(held.is_raw());
    held.send(Signal::SIGTERM);
    assert_eq!(held.ended(), Some(Signal::SIGTERM as i32));
}
