//! A process that asks the kernel for modules, one after another, and the way to it. A driver looks for its devices while its module is
//! loaded (kernel/module/main.c, do_init_module), and may wait for one that never answers, where no signal reaches it. So whoever
//! loads many has another process ask, and goes on with a new one. Decides nothing about modules.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::error::LoadError;
use crate::chain::chain;
use crate::source::reader::PROGRAM;
use crate::sys;
use crate::time::Deadline;

/// The internal subcommand that makes this program ask the kernel.
pub(super) const WORD: &str = "init-modules";

/// The process.
pub(super) struct Worker {
    child: Child,
    /// `None`: nobody waits for it any more, and it ends when it can.
    orders: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Worker {
    pub(super) fn start() -> io::Result<Worker> {
        Worker::of(Command::new(PROGRAM).arg(WORD))
    }

    fn of(command: &mut Command) -> io::Result<Worker> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Worker { child, orders: Some(orders), answers })
    }

    /// Has it load a file with these parameters. What it says is empty if that succeeds. `None`: it has not answered in this time, and
    /// gets no other order.
    pub(super) fn load(&mut self, file: &Path, parameters: &str, limit: Duration) -> io::Result<Option<String>> {
        let until = Deadline::after(limit);
        let order = [file.as_os_str().as_encoded_bytes(), parameters.as_bytes()].join(&0);
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        orders.write_all(&[&order, [0].as_slice()].concat())?;
        let (mut said, mut buffer) = (Vec::new(), [0; 1024]);
        while !said.ends_with(&[0]) {
            if !sys::poll(&mut [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)], until)? {
                self.orders = None;
                return Ok(None);
            }
            match self.answers.read(&mut buffer)? {
                // The kernel ends a process in which a driver has a fault.
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => said.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            }
        }
        said.pop();
        Ok(Some(String::from_utf8_lossy(&said).into_owned()))
    }

    /// Whether it is still at work.
    pub(super) fn works(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// The process itself. It ends when nobody orders anything any more.
pub(super) fn serve(ask: impl Fn(&Path, &str) -> Result<(), LoadError>) -> ExitCode {
    let (mut orders, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let mut word = || {
        let mut bytes = Vec::new();
        orders.read_until(0, &mut bytes).ok()?;
        (bytes.pop() == Some(0)).then(|| String::from_utf8_lossy(&bytes).into_owned())
    };
    while let (Some(file), Some(parameters)) = (word(), word()) {
        let said = ask(Path::new(&file), &parameters).err().map(|error| chain(&error)).unwrap_or_default();
        let answer = [said.replace('\0', "").as_bytes(), &[0]].concat();
        if answers.write_all(&answer).and_then(|()| answers.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn worker(script: &str) -> Worker {
        Worker::of(Command::new("/bin/sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn it_answers_until_a_driver_hangs_or_has_a_fault() {
        // As the kernel has it: a path and parameters come, and an answer goes.
        let mut good = worker("while read -r _; do printf 'refused\\0'; done");
        assert_eq!(good.load(Path::new("/a.ko"), "x=1\n", LONG).unwrap().as_deref(), Some("refused"));
        assert_eq!(good.load(Path::new("/b.ko"), "\n", LONG).unwrap().as_deref(), Some("refused"));
        let mut mute = worker("cat >/dev/null; exit 0");
        assert_eq!(mute.load(Path::new("/a.ko"), "", Duration::ZERO).unwrap(), None);
        assert!(mute.load(Path::new("/b.ko"), "", LONG).is_err(), "it gets no other order");
        mute.child.wait().unwrap();
        assert!(!mute.works(), "it ends when it can");
        let error = worker("read -r _").load(Path::new("/a.ko"), "\n", LONG).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
