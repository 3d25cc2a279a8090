//! Tests of the agent program below a root of its own, when its output cannot be written, and when it panics. A failed
//! write never stops it; in every case it gives the lines back and writes status.json.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use imprint::line::{Host, HostEvent, Kind, Nonce, Shape, Wire};
use imprint::status::{Outcome, Status};
use imprint::sys;
use imprint::time::{Deadline, since_boot};
use imprint_tests::programs;
use nix::poll::{PollFd, PollFlags};
use nix::pty::openpty;
use nix::sys::termios::{FlowArg, tcflow};

const PAYLOAD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/payload-typical.cbor");

/// A console that takes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Console {
    /// A disk without room, or a driver that fails.
    Full,
    /// `>&- 2>&-`
    Closed,
    /// Whoever read has ended.
    BrokenPipe,
    /// The other end of the terminal is gone: a session that was cut, a console server that was restarted.
    HungUp,
    /// Somebody has pressed ^S, or a console server does not read on.
    Stopped,
}

const CONSOLES: [Console; 5] = [Console::Full, Console::Closed, Console::BrokenPipe, Console::HungUp, Console::Stopped];

/// Keeps the other end of the console as it is.
struct Kept(#[allow(dead_code, reason = "it is kept open")] Option<(OwnedFd, OwnedFd)>);

impl Console {
    fn output(self) -> (Stdio, Stdio, Kept) {
        let twice = |fd: OwnedFd| (Stdio::from(fd.try_clone().unwrap()), Stdio::from(fd));
        let ((out, err), kept) = match self {
            Console::Full => (twice(File::options().write(true).open("/dev/full").unwrap().into()), None),
            // The shell closes them.
            Console::Closed => ((Stdio::inherit(), Stdio::inherit()), None),
            Console::BrokenPipe => (twice(nix::unistd::pipe().unwrap().1), None),
            Console::HungUp => (twice(openpty(None, None).unwrap().slave), None),
            Console::Stopped => {
                let pty = openpty(None, None).unwrap();
                tcflow(&pty.slave, FlowArg::TCOOFF).unwrap();
                (twice(pty.slave.try_clone().unwrap()), Some((pty.master, pty.slave)))
            }
        };
        (out, err, Kept(kept))
    }

    /// The agent with this console.
    fn run(self, root: &Path, fault: &str, words: &[&str]) -> ExitStatus {
        let (out, err, _kept) = self.output();
        let close = if self == Console::Closed { " >&- 2>&-" } else { "" };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$@\"{close}"), "sh"]).arg(programs::agent()).args(words);
        command.env("IMPRINT_ROOT", root).env("IMPRINT_FAULT", fault);
        ended(command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap())
    }
}

fn ended(mut child: Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            // A child cannot be waited for with a limit.
            None => std::thread::sleep(Duration::from_millis(10)),
        }
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("it does not end");
        }
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn status(directory: &Path) -> Status {
    let text = fs::read(directory.join("status.json")).expect("status.json");
    serde_json::from_slice(&text).unwrap()
}

/// On a console that works the same boots end in the same way; on none of these did they end without a panic.
mod a_boot_goes_on_whatever_the_console_does {
    use super::*;

    #[test]
    fn full() {
        boots(Console::Full);
    }

    #[test]
    fn closed() {
        boots(Console::Closed);
    }

    #[test]
    fn broken_pipe() {
        boots(Console::BrokenPipe);
    }

    #[test]
    fn hung_up() {
        boots(Console::HungUp);
    }

    #[test]
    fn stopped() {
        boots(Console::Stopped);
    }
}

/// Each console is tested in a process of its own: any other process that is started at that moment would inherit the
/// pipes and terminals.
fn boots(console: Console) {
    for (words, code, outcome) in [
        ("imprint=auto imprint.timeout=2", 0, Outcome::Absent),
        ("imprint=require imprint.source=cmdline imprint.timeout=2", 11, Outcome::Failed),
        ("imprint.nonsense=1", 10, Outcome::Failed),
    ] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/cmdline", &format!("{words}\n"));
        let ended = console.run(root.path(), "", &["run"]);
        assert_eq!(ended.code(), Some(code), "{console:?}, {words}: {ended}");
        let status = status(&root.path().join("run/imprint"));
        assert_eq!((status.outcome, i32::from(status.exit_code)), (outcome, code), "{console:?}, {words}");
    }
}

/// What was asked for is lost, and nothing else. (A console that was stopped is waited for, as `less` is.)
#[test]
fn every_command_ends_with_its_own_code() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "proc/cmdline", "imprint=auto imprint.timeout=2\n");
    let code = |console: Console, words: &[&str]| console.run(root.path(), "", words).code();
    assert_eq!(code(Console::Full, &["run"]), Some(0));
    for console in CONSOLES.into_iter().filter(|console| *console != Console::Stopped) {
        for words in [
            &["version"][..],
            &["--help"],
            &["status"],
            &["check", PAYLOAD],
            &["plan", PAYLOAD],
            &["check", "/nowhere"],
            &["nonsense"],
        ] {
            let mut command = Command::new(programs::agent());
            command.args(words).env("IMPRINT_ROOT", root.path());
            let want =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code();
            assert!(want.is_some_and(|code| code < 20), "{want:?}");
            assert_eq!(code(console, words), want, "{console:?}, {words:?}");
        }
    }
}

/// The host tool, which has a name for each way to fail, and for none of them a panic.
#[test]
fn so_does_the_host_tool() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("state");
    let url = imprint::payload::EstUrl::try_from("https://127.0.0.1:8443/.well-known/est").unwrap();
    imprint_host::state::State::init(&dir, &[url], imprint::time::Timestamp::system()).unwrap();
    for console in [Console::Full, Console::BrokenPipe, Console::HungUp, Console::Closed] {
        let run = |words: &[&str]| {
            let (out, err, _kept) = console.output();
            let close = if console == Console::Closed { " >&- 2>&-" } else { "" };
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exec \"$@\"{close}"), "sh"]).arg(programs::host()).args(words);
            ended(command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap()).code()
        };
        assert_eq!(run(&["--dir", "/nowhere", "nodes"]), Some(1), "{console:?}");
        assert_eq!(run(&["--dir", dir.to_str().unwrap(), "payload", "nobody"]), Some(1), "{console:?}");
    }
}

/// A host that speaks, and brings a payload once it is answered, until the other end is gone.
fn host(mut line: File) {
    let mut wire = Wire::new(Host::new(Nonce([9; 8]), true, Shape::default()), None);
    let now = || u64::try_from(since_boot().as_micros()).unwrap();
    let payload = fs::read(PAYLOAD).unwrap();
    let mut buffer = [0; 4096];
    loop {
        let polled = wire.poll(now());
        if line.write_all(&polled.bytes).is_err() {
            return;
        }
        for event in polled.events {
            if let HostEvent::Opened(..) = event {
                wire.end_mut().send(Kind::Plain, payload.clone());
            }
        }
        let soon = Deadline::after(Duration::from_millis(10));
        if sys::poll(&mut [PollFd::new(line.as_fd(), PollFlags::POLLIN)], soon).unwrap() {
            let Ok(count @ 1..) = line.read(&mut buffer) else { return };
            wire.push(&buffer[..count], now());
        }
    }
}

/// In the thread that has the line, and in the one that has all the rest while the line is held.
#[test]
fn a_fault_gives_the_line_back_and_leaves_its_status() {
    for (fault, stage) in [("line", "source"), ("payload", "payload")] {
        for console in [None, Some(Console::Full)] {
            let root = tempfile::tempdir().unwrap();
            let root = root.path();
            let pty = openpty(None, None).unwrap();
            let before = sys::terminal(&pty.slave).unwrap();
            write(root, "proc/cmdline", "imprint=require imprint.timeout=60 imprint.line=plain console=ttyS0\n");
            write(root, "proc/sys/kernel/printk", "7\t4\t1\t7\n");
            write(root, "sys/class/tty/console/active", "ttyS0\n");
            fs::create_dir_all(root.join("dev")).unwrap();
            std::os::unix::fs::symlink(nix::unistd::ttyname(&pty.slave).unwrap(), root.join("dev/ttyS0")).unwrap();
            let master = File::from(pty.master);
            let thread = std::thread::spawn(move || host(master));
            let code = match console {
                Some(console) => console.run(root, fault, &["run"]).code(),
                None => {
                    let mut command = Command::new(programs::agent());
                    command.arg("run").env("IMPRINT_ROOT", root).env("IMPRINT_FAULT", fault);
                    let output = command.stdin(Stdio::null()).output().unwrap();
                    let told = String::from_utf8_lossy(&output.stderr).into_owned();
                    // The place and nothing else: what a panic says may hold anything.
                    let place = told.strip_prefix("imprint: internal error at src/trial.rs:");
                    let place = place.and_then(|rest| rest.strip_suffix("; please report it\n"));
                    assert!(place.is_some_and(|place| !place.contains(' ')), "{told}");
                    output.status.code()
                }
            };
            assert_eq!(code, Some(70), "{fault}, {console:?}");
            assert_eq!(sys::terminal(&pty.slave).unwrap(), before, "{fault}, {console:?}");
            assert_eq!(fs::read_to_string(root.join("proc/sys/kernel/printk")).unwrap(), "7");
            let status = status(&root.join("run/imprint"));
            assert_eq!((status.outcome, status.exit_code), (Outcome::Failed, 70));
            let failure = status.error.unwrap();
            assert_eq!(failure.stage, stage);
            assert!(failure.message.starts_with("internal error at src/"), "{}", failure.message);
            assert_eq!(status.steps.last().map(|step| step.name.as_str()), Some(stage));
            // The last end of the terminal but the host's own: the host hears that it is over.
            drop(pty.slave);
            thread.join().unwrap();
        }
    }
}

/// On a running system, which lives on what it was handed before.
#[test]
fn a_fault_leaves_an_identity_that_is_there() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let words = ["enroll", "--payload", PAYLOAD, "--out", out.to_str().unwrap()];
    assert_eq!(Console::Full.run(root.path(), "plan", &words).code(), Some(70));
    let first = status(&out);
    assert_eq!((first.outcome, first.exit_code, first.error.unwrap().stage.as_str()), (Outcome::Failed, 70, "plan"));
    let files = ["cert.pem", "chain.pem", "ca.pem", "node.json", "status.json", "private/key.pem"];
    fs::create_dir_all(out.join("private")).unwrap();
    for file in files {
        fs::write(out.join(file), file).unwrap();
    }
    assert_eq!(Console::Full.run(root.path(), "plan", &words).code(), Some(70));
    for file in files {
        assert_eq!(fs::read_to_string(out.join(file)).unwrap(), file);
    }
}
