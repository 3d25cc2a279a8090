//! Runs the command of `--hook` with an event on its standard input. Its words are never an argument, as those of lines.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::inject::command::{PLAIN, SHELL, Script};

/// How long the command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a command that has failed may hold its standard error open: a program of it may have left the group.
const REST: Duration = Duration::from_secs(5);
/// The most of its standard error that is quoted, in bytes.
const SAID: u64 = 1000;

/// Tells the command. It has the event when it ends with exit code 0.
pub(super) async fn tell(command: &Script, event: &str) -> Result<(), String> {
    let broken = |error: std::io::Error| error.to_string();
    let child = Command::new(SHELL)
        .args(PLAIN)
        .envs(command.environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(broken)?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (input, errors) = (child.stdin.take(), child.stderr.take());
    let write = async {
        if let Some(mut input) = input {
            // A command that does not read its input is told nevertheless.
            let _ = input.write_all(format!("{event}\n").as_bytes()).await;
        }
    };
    let read = async {
        let mut said = Vec::new();
        if let Some(errors) = errors {
            let mut errors = errors.take(SAID);
            let _ = errors.read_to_end(&mut said).await;
            // Read on, so that the command is not stopped by a full pipe.
            let _ = tokio::io::copy(errors.get_mut(), &mut tokio::io::sink()).await;
        }
        said
    };
    let ended = timeout(LIMIT, async {
        let ((), status) = tokio::join!(write, child.wait());
        status
    });
    // Programs that the command has left behind may hold its standard error open. If it has failed, they end with it, and what was
    // said is read to its end.
    let mut group = Some(group);
    let mut said = Vec::new();
    let status = {
        tokio::pin!(read);
        tokio::pin!(ended);
        tokio::select! {
            status = &mut ended => {
                if !matches!(&status, Ok(Ok(status)) if status.success()) {
                    drop(group.take());
                    said = timeout(REST, &mut read).await.unwrap_or_default();
                }
                status
            }
            words = &mut read => {
                said = words;
                ended.await
            }
        }
    };
    match status {
        Ok(Ok(status)) if status.success() => {
            if let Some(group) = group.take() {
                group.leave();
            }
            Ok(())
        }
        Ok(Ok(status)) => {
            let words = String::from_utf8_lossy(&said).trim().to_owned();
            Err(if words.is_empty() {
                format!("it ended with {status}")
            } else {
                format!("it ended with {status}: {words}")
            })
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not end within {} s, and was ended", LIMIT.as_secs())),
    }
}

/// The processes of a command. They end with it, unless it has succeeded.
struct Group(Option<Pid>);

impl Group {
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_command_has_the_event_on_its_input() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("event");
        tell(&script(&format!("cat > {}", file.display())), "{\"id\":1}").await.unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"id\":1}\n");
        // Whoever does not look at it is told, too; whatever it leaves behind goes on.
        tell(&script("exit 0"), &"x".repeat(1 << 20)).await.unwrap();
        tell(&script("sleep 1000 & exit 0"), "{}").await.unwrap();
        let failed = tell(&script("echo no engine >&2; exit 7"), "{}").await.unwrap_err();
        assert_eq!(failed, "it ended with exit status: 7: no engine");
    }
}
