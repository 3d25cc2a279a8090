//! Switches nodes on: waits for a node's turn, and runs the power command. Kills the command at its time limit, and quotes
//! its output when it fails. Never shows the command itself.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

use super::command::{PLAIN, SHELL, Script};
use crate::talk::shown;

/// The most bytes of the command's output that are quoted.
const SAID: u16 = 2000;

/// How many nodes are switched on, and how fast. A rack that starts all at once trips its fuse, and its nodes overload the
/// servers that they all ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// The least time from one node to the next.
    pub every: Duration,
    /// The most commands that run at the same time.
    pub at_once: usize,
}

/// Hands out turns in the order of the requests.
pub(super) struct Turns {
    pace: Pace,
    free: Semaphore,
    /// When the next turn may begin.
    next: Mutex<Option<Instant>>,
}

impl Turns {
    pub(super) fn new(pace: Pace) -> Turns {
        Turns { pace, free: Semaphore::new(pace.at_once.clamp(1, Semaphore::MAX_PERMITS)), next: Mutex::new(None) }
    }

    /// Waits for a turn. The turn lasts until it is dropped. A caller that stops waiting does not delay the others.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let free = self.free.acquire().await.ok();
        let mut next = self.next.lock().await;
        if let Some(at) = next.filter(|at| *at > Instant::now()) {
            sleep_until(at).await;
        }
        *next = Some(Instant::now() + self.pace.every);
        Turn { _free: free }
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }
}

/// The right to switch a node on now.
pub(super) struct Turn<'a> {
    /// Always `Some`: the semaphore is never closed.
    _free: Option<SemaphorePermit<'a>>,
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pace { every, at_once } = self;
        if !every.is_zero() {
            write!(f, "one node each {} s, ", every.as_secs_f64())?;
        }
        write!(f, "{at_once} at the same time (--power-every, --power-at-once)")
    }
}

/// Runs the command. Does not wait for processes that it leaves running, like a virtual machine.
pub(super) async fn switch(command: &Script, limit: Duration) -> Result<(), String> {
    let broken = |error: io::Error| format!("--power: {error}");
    let (mut child, output) = start(command).map_err(broken)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    match timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("--power ended with {status}: {}", said(&output))),
        Ok(Err(error)) => Err(broken(error)),
        Err(_) => {
            // The child was not waited for yet, so its process ID was not reused.
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            Err(format!(
                "--power did not end within {} s, and was ended; try the command by hand. It said: {}",
                limit.as_secs(),
                said(&output)
            ))
        }
    }
}

/// Starts the command with its output in a file without a name. Not in a pipe: processes that it leaves running may go on
/// writing after nobody reads, and SIGPIPE would kill them (pipe(7)).
fn start(command: &Script) -> io::Result<(Child, File)> {
    let output = memfd_create("power", MFdFlags::MFD_CLOEXEC)?;
    // Append mode: standard output, standard error and a reopened /dev/stderr must not overwrite each other.
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    let output = File::from(output);
    let child = Command::new(SHELL)
        .args(PLAIN)
        .envs(command.environment())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, output))
}

/// The end of the command's output, where the reason of a failure usually is.
fn said(output: &File) -> String {
    let mut words = vec![0; usize::from(SAID)];
    let from = output.metadata().map_or(0, |about| about.len().saturating_sub(u64::from(SAID)));
    let count = output.read_at(&mut words, from).unwrap_or_default();
    words.truncate(count);
    shown(String::from_utf8_lossy(&words).trim())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::sleep;

    use super::*;

    /// 120 nodes that are all ready at the same moment, in virtual time.
    async fn starts(pace: Pace, takes: Duration) -> (Vec<Duration>, usize) {
        let turns = Arc::new(Turns::new(pace));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let begin = Instant::now();
        let tasks: Vec<_> = (0..120)
            .map(|_| {
                let (turns, running, most) = (Arc::clone(&turns), Arc::clone(&running), Arc::clone(&most));
                tokio::spawn(async move {
                    let _turn = turns.turn().await;
                    let started = begin.elapsed();
                    most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    sleep(takes).await;
                    running.fetch_sub(1, Ordering::Relaxed);
                    started
                })
            })
            .collect();
        let mut starts = Vec::new();
        for task in tasks {
            starts.push(task.await.unwrap());
        }
        starts.sort();
        (starts, most.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_are_switched_on_one_after_the_other() {
        let every = Duration::from_secs(1);
        let (starts, most) = starts(Pace { every, at_once: 8 }, Duration::from_millis(500)).await;
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= every), "{starts:?}");
        assert_eq!((starts[0], most), (Duration::ZERO, 1));
        // No slower than the pace, but for the timer's resolution.
        assert!(starts[119] < every * 120, "{:?}", starts[119]);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_the_same_time_and_no_more() {
        let (starts, most) = starts(Pace { every: Duration::ZERO, at_once: 8 }, Duration::from_secs(10)).await;
        assert_eq!(most, 8);
        let at = |second: u64| starts.iter().filter(|start| start.as_secs() / 10 == second / 10).count();
        assert_eq!((at(0), at(70), at(140), starts.len()), (8, 8, 8, 120));
    }

    /// The accident: a line breaks while it waits for a turn, and gives the turn up.
    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_given_up_holds_up_nobody() {
        let turns = Turns::new(Pace { every: Duration::from_secs(10), at_once: 1 });
        let begin = Instant::now();
        drop(turns.turn().await);
        for _ in 0..5 {
            assert!(timeout(Duration::from_secs(1), turns.turn()).await.is_err());
        }
        drop(turns.turn().await);
        assert!(begin.elapsed() < Duration::from_secs(11), "{:?}", begin.elapsed());
    }
}
