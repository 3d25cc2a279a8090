//! The processes that process 1 starts, and its own duties: it reaps every process that ends, reboots at ctrl-alt-del, and never ends.
//! Decides nothing about the boot.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, InputFlags, LocalFlags, OutputFlags, SetArg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};

use super::error::Ended;
use super::{SYSROOT, load, prompt};
use crate::console::say;
use crate::source::reader::PROGRAM;
use crate::sys;
use crate::time::Deadline;

/// How long processes may take to end before they are killed.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before a console that is gone is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest line that a person types.
const LINE: usize = 256;

/// The processes of process 1.
pub(super) struct Children {
    signals: SignalFd,
    /// The one that is waited for, and how it has ended. Of all others nobody asks: they are only reaped.
    awaited: Option<(Pid, Option<Ended>)>,
    /// They work beside the boot.
    helpers: Vec<Pid>,
}

/// A program to run.
pub(super) struct Task<'a> {
    pub(super) program: &'a str,
    pub(super) words: &'a [&'a str],
    /// The terminal that the program is to have, if a person may type there.
    pub(super) tty: Option<&'a Path>,
}

impl Children {
    /// From here on ctrl-alt-del is a signal, and processes that end are seen.
    pub(super) fn begin() -> io::Result<Children> {
        own_signals().thread_block()?;
        let signals = SignalFd::with_flags(&own_signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // The kernel sends SIGINT then (reboot(2)). An error is ignored: in a container there is no ctrl-alt-del.
        let _ = set_cad_enabled(false);
        Ok(Children { signals, awaited: None, helpers: Vec::new() })
    }

    /// Runs a program to its end.
    pub(super) fn run(&mut self, task: &Task<'_>) -> io::Result<Ended> {
        self.run_as(task).map(|(_, ended)| ended)
    }

    /// The same, with the number that the process had.
    pub(super) fn run_as(&mut self, task: &Task<'_>) -> io::Result<(Pid, Ended)> {
        let pid = self.start(task)?;
        loop {
            self.reap();
            if let Some((_, Some(ended))) = self.awaited {
                self.awaited = None;
                return Ok((pid, ended));
            }
            self.signal(Deadline::after(Duration::MAX));
        }
    }

    /// Starts a program that is waited for from now on.
    fn start(&mut self, task: &Task<'_>) -> io::Result<Pid> {
        let pid = spawn(task)?;
        self.awaited = Some((pid, None));
        Ok(pid)
    }

    /// Starts this program for work beside the boot.
    pub(super) fn helper(&mut self, words: &[&str]) -> io::Result<()> {
        self.helpers.push(spawn(&Task { program: PROGRAM, words, tty: None })?);
        Ok(())
    }

    /// Ends the helpers, since the next program has the machine for itself. One that hangs in the kernel stays behind.
    pub(super) fn end_helpers(&mut self) {
        let until = Deadline::after(PATIENCE);
        for helper in &self.helpers {
            // An error is ignored: it has ended.
            let _ = kill(*helper, Signal::SIGKILL);
        }
        loop {
            self.reap();
            if self.helpers.is_empty() || until.expired() {
                return;
            }
            self.signal(until);
        }
    }

    /// Lets time pass. Ctrl-alt-del still counts.
    pub(super) fn pause(&mut self, time: Duration) {
        let until = Deadline::after(time);
        while !until.expired() {
            self.signal(until);
            self.reap();
        }
    }

    /// A line that a person types at a prompt. Waits for as long as it takes.
    pub(super) fn line(&mut self, tty: &Path, prompt: &str) -> String {
        loop {
            let open = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK)
                .open(tty);
            if let Ok(mut terminal) = open
                && let Ok(line) = self.typed(&mut terminal, prompt)
            {
                return line;
            }
            self.pause(AGAIN);
        }
    }

    fn typed(&mut self, terminal: &mut File, prompt: &str) -> io::Result<String> {
        // A program that was killed may have left it without echo or lines.
        if let Ok(mut settings) = termios::tcgetattr(&*terminal) {
            settings.local_flags |= LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ECHOE | LocalFlags::ISIG;
            settings.input_flags |= InputFlags::ICRNL;
            settings.output_flags |= OutputFlags::OPOST | OutputFlags::ONLCR;
            let _ = termios::tcsetattr(&*terminal, SetArg::TCSANOW, &settings);
        }
        terminal.write_all(prompt.as_bytes())?;
        let mut bytes = [0; LINE];
        loop {
            let mut fds = [
                PollFd::new(terminal.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            sys::poll(&mut fds, Deadline::after(Duration::MAX))?;
            let [terminal_is_ready, _] = fds.map(|fd| fd.any().unwrap_or(false));
            self.signal(Deadline::after(Duration::ZERO));
            self.reap();
            if !terminal_is_ready {
                continue;
            }
            return match terminal.read(&mut bytes) {
                // The terminal hung up, or somebody typed ^D.
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => Ok(String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).trim().to_owned()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => Err(error),
            };
        }
    }

    /// Ends every other process. One that hangs in the kernel stays behind.
    pub(super) fn end_all(&mut self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // An error is ignored: there may be no other process.
            let _ = kill(Pid::from_raw(-1), signal);
            let until = Deadline::after(PATIENCE);
            while self.reap() && !until.expired() {
                // Errors are ignored: the next round looks again. Ctrl-alt-del asks for what is under way.
                let _ = sys::poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], until);
                while let Ok(Some(_)) = self.signals.read_signal() {}
            }
        }
    }

    /// Ends every process, writes what is to be on disks, and ends the machine.
    pub(super) fn shut_down(&mut self, root: &Path, mode: RebootMode) -> ! {
        self.end_all();
        sync();
        // A root that is read-only is clean. It is the one that is mounted, or already entered. Errors are ignored: there may be none.
        for place in [&root.join(SYSROOT), root] {
            let _ = mount(None::<&str>, place, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>);
        }
        let _ = umount2(&root.join(SYSROOT), MntFlags::MNT_DETACH);
        sync();
        // It returns only if it fails.
        let Err(error) = reboot(mode);
        say(&format!("the kernel does not reboot: {error}; switch the machine off"));
        rest()
    }

    /// Reaps all that has ended. False: there is no process left.
    fn reap(&mut self) -> bool {
        loop {
            let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Ended::Exit(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ended::Killed(signal_number(signal))),
                Ok(WaitStatus::StillAlive) => return true,
                Ok(_) => continue,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return false,
            };
            if self.helpers.contains(&pid) {
                self.helpers.retain(|helper| *helper != pid);
                // Whoever waits for the drivers need not wait any longer.
                load::busy(Path::new("/"), false);
            } else if let Some((awaited, how)) = &mut self.awaited
                && *awaited == pid
            {
                *how = Some(ended);
            }
        }
    }

    /// Waits for a signal, and follows ctrl-alt-del.
    fn signal(&mut self, until: Deadline) {
        // An error is ignored: the caller looks again.
        let _ = sys::poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], until);
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if i32::try_from(signal.ssi_signo).is_ok_and(|number| number == signal_number(Signal::SIGINT)) {
                say("ctrl-alt-del: the machine reboots");
                self.shut_down(Path::new("/"), RebootMode::RB_AUTOBOOT);
            }
        }
    }
}

/// Those that process 1 reads, and blocks for that.
fn own_signals() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGINT].into_iter().collect()
}

/// Becomes this program, which takes signals as any program does. Returns only if that fails, and is as before then.
pub(super) fn become_program(command: &mut Command) -> io::Error {
    sys::take_signals(command);
    let error = command.exec();
    // An error is ignored: the numbers are right.
    let _ = own_signals().thread_block();
    error
}

#[allow(clippy::as_conversions, reason = "an enumeration of the C library's own numbers")]
fn signal_number(signal: Signal) -> i32 {
    signal as i32
}

/// The child is not waited for through std: process 1 reaps all that ends.
fn spawn(task: &Task<'_>) -> io::Result<Pid> {
    let mut command = match task.tty {
        None => {
            let mut command = Command::new(task.program);
            command.args(task.words);
            command
        }
        Some(tty) => {
            let mut command = Command::new(PROGRAM);
            command.arg(prompt::WORD).arg(tty).arg(task.program).args(task.words);
            command
        }
    };
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(PathBuf::from("/"));
    sys::take_signals(&mut command);
    let child = command.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
}

/// Process 1 when nothing is left to do: it waits, and reaps.
pub(super) fn rest() -> ! {
    loop {
        // An error, that there is no child, is ignored.
        let _ = waitpid(None, None);
        std::thread::sleep(AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::prctl::set_child_subreaper;
    use nix::sys::wait::{Id, waitid};

    use super::*;

    /// Waits for all processes below this one, and reaps them. Process 1 waits for a signal instead, which another thread of a test
    /// takes.
    fn reap_all(children: &mut Children) {
        while children.reap() {
            waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        }
    }

    fn shell(script: &str) -> Option<Ended> {
        let mut children = Children::begin().unwrap();
        children.start(&Task { program: "/bin/sh", words: &["-c", script], tty: None }).unwrap();
        reap_all(&mut children);
        children.awaited.and_then(|(_, ended)| ended)
    }

    /// The accident: a program leaves many processes behind, all of which become process 1's, and among so many the end of the program
    /// itself is lost.
    #[test]
    fn the_end_of_the_program_is_found_among_many_orphans() {
        set_child_subreaper(true).unwrap();
        let script = "i=0; while [ $i -lt 200 ]; do (true &); i=$((i + 1)); done; exit 7";
        assert_eq!(shell(script), Some(Ended::Exit(7)));
        assert_eq!(shell("kill -9 $$"), Some(Ended::Killed(9)));
    }

    /// The accident: a program of the image, or the root's init, never sees that its own processes end, or that somebody interrupts it.
    #[test]
    fn a_program_takes_all_signals() {
        drop(Children::begin().unwrap());
        let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(own.contains("\nSigBlk:\t0000000000010002\n"), "the premise: they are blocked here\n{own}");
        let script = "while read -r name value; do [ \"$name\" != SigBlk: ] || exit \"$((value))\"; done </proc/self/status; exit 9";
        assert_eq!(shell(script), Some(Ended::Exit(0)));
        let error = become_program(&mut Command::new("/nowhere"));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(own.contains("\nSigBlk:\t0000000000010002\n"), "{own}");
    }
}
