//! Tries one attack of a compromised drive reader: `probe ATTEMPT [confined]`. Exit code 0: the attack succeeded; 1: the
//! kernel refused it. Judges nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a program of the tests fails by panicking")]

use std::fs::{File, OpenOptions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, ExitCode};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let attempt = words.next().unwrap();
    if words.next().as_deref() == Some("confined") {
        assert!(imprint::confine::confine().unwrap().filtered, "this kernel has no seccomp filters");
    }
    let done = match attempt.as_str() {
        "nothing" => true,
        "inet" => UdpSocket::bind("127.0.0.1:0").is_ok(),
        "listen" => TcpListener::bind("127.0.0.1:0").is_ok(),
        "unix" => UnixDatagram::unbound().is_ok(),
        "pair" => UnixStream::pair().is_ok(),
        "pipe" => nix::unistd::pipe().is_ok(),
        "dup" => nix::unistd::dup(std::io::stdin()).is_ok(),
        "open" => File::open("/proc/self/status").is_ok(),
        "write" => OpenOptions::new().append(true).open("/dev/null").is_ok(),
        "thread" => std::thread::Builder::new().spawn(|| ()).is_ok(),
        "start" => Command::new("/bin/true").status().is_ok(),
        "signal" => kill(getppid(), None::<Signal>).is_ok() && kill(Pid::this(), None::<Signal>).is_ok(),
        "user" => nix::unistd::setuid(nix::unistd::getuid()).is_ok(),
        "stat" => std::fs::metadata("/").is_ok(),
        other => panic!("{other}: no such attempt"),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
