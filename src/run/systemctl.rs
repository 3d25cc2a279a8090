//! Has systemd do something, by its own program. What systemctl has to say is in the journal, behind the words of this program.
//! Decides nothing.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::time::Deadline;

/// How long systemctl may take for one unit. Units have their own limits, which are shorter as a rule.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// The time between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// The most that is read of an answer. A pipe holds as much.
const ANSWER: u64 = 4096;

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Undone {
    /// systemctl cannot be run.
    Run(io::Error),
    /// It failed.
    Failed(ExitStatus),
    /// It did not end within [`PATIENCE`].
    Late,
}

/// Tells systemd to do something, and waits until it is done.
pub(super) fn tell(words: &[&str]) -> Result<(), Undone> {
    ended(&mut command(words).stdout(Stdio::null()).spawn().map_err(Undone::Run)?)
}

/// Asks systemd something.
pub(super) fn ask(words: &[&str]) -> Result<String, Undone> {
    let mut child = command(words).stdout(Stdio::piped()).spawn().map_err(Undone::Run)?;
    ended(&mut child)?;
    let mut answer = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(ANSWER).read_to_end(&mut answer).map_err(Undone::Run)?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.args(["--no-ask-password", "--quiet"]).args(words).stdin(Stdio::null());
    command
}

fn ended(child: &mut Child) -> Result<(), Undone> {
    let until = Deadline::after(PATIENCE);
    loop {
        match child.try_wait().map_err(Undone::Run)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(Undone::Failed(status)),
            None if !until.expired() => std::thread::sleep(PAUSE),
            None => {
                // systemctl only waits for the job; systemd goes on with it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Undone::Late);
            }
        }
    }
}
