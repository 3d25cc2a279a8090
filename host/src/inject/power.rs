//! The command that switches a node on: run to its end, ended when it has none, quoted when it fails.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::words::shown;

/// So much of what it says is kept.
const SAID: usize = 2000;

/// Runs it. What it leaves running, like a machine in the background, is not waited for.
pub(super) async fn switch(command: &str, limit: Duration) -> Result<(), String> {
    let broken = |error: io::Error| format!("--power: {error}");
    let (mut child, mut output) = start(command).map_err(broken)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut said = Vec::new();
    let ended = timeout(limit, ended(&mut child, &mut output, &mut said)).await;
    let words = shown(String::from_utf8_lossy(&said).trim());
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("--power ended with {status}: {words}")),
        Ok(Err(error)) => Err(broken(error)),
        Err(_) => {
            // It was not waited for yet, so nobody else has its number.
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            let limit = limit.as_secs();
            Err(format!(
                "--power did not end within {limit} s, and was ended; try the command by hand. It said: {words}"
            ))
        }
    }
}

fn start(command: &str) -> io::Result<(Child, pipe::Receiver)> {
    let (output, input) = io::pipe()?;
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(output.into())?))
}

async fn ended(
    child: &mut Child,
    output: &mut pipe::Receiver,
    said: &mut Vec<u8>,
) -> io::Result<std::process::ExitStatus> {
    let mut buffer = [0; 512];
    let mut open = true;
    loop {
        tokio::select! {
            // All that it said before it ended.
            biased;
            read = output.read(&mut buffer), if open => match read? {
                0 => open = false,
                count => {
                    said.extend(buffer.get(..count).unwrap_or_default());
                    // The reason comes last.
                    let over = said.len().saturating_sub(SAID);
                    said.drain(..over);
                }
            },
            status = child.wait() => return status,
        }
    }
}
