//! The command that switches a node on: run to its end, ended when it has none, quoted when it fails.

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
use tokio::time::timeout;

use super::words::shown;

/// So much of what it says is quoted.
const SAID: u16 = 2000;

/// Runs it. What it leaves running, like a machine in the background, is not waited for.
pub(super) async fn switch(command: &str, limit: Duration) -> Result<(), String> {
    let broken = |error: io::Error| format!("--power: {error}");
    let (mut child, output) = start(command).map_err(broken)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    match timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("--power ended with {status}: {}", said(&output))),
        Ok(Err(error)) => Err(broken(error)),
        Err(_) => {
            // It was not waited for yet, so nobody else has its number.
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

/// What it says goes into a file that has no name, not into a pipe: what it leaves running may go on writing when nobody
/// reads any more, where a pipe would end it (pipe(7): SIGPIPE).
fn start(command: &str) -> io::Result<(Child, File)> {
    let output = memfd_create("power", MFdFlags::MFD_CLOEXEC)?;
    // Two writers, and whoever opens /dev/stderr anew, must not write over each other's words.
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    let output = File::from(output);
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, output))
}

/// The end of what it said: the reason comes last.
fn said(output: &File) -> String {
    let mut words = vec![0; usize::from(SAID)];
    let from = output.metadata().map_or(0, |about| about.len().saturating_sub(u64::from(SAID)));
    let count = output.read_at(&mut words, from).unwrap_or_default();
    words.truncate(count);
    shown(String::from_utf8_lossy(&words).trim())
}
