//! The prompt of a bare image: which words there are, on which terminal, and how a program gets that terminal. Decides nothing about the
//! boot.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::console::complain;

/// The internal subcommand that gives a program a terminal of its own.
pub(super) const WORD: &str = "init-on";
/// What stands before the cursor.
pub(super) const PROMPT: &str = "imprint> ";
/// Only if the image has it.
pub(super) const SHELL: &str = "/bin/sh";
/// Documentation/ABI/testing/sysfs-tty: the consoles; the last one is /dev/console.
const ACTIVE: &str = "sys/class/tty/console/active";

/// What a person has typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Typed {
    Console,
    Setup,
    Status,
    Run,
    Shell,
    Reboot,
    PowerOff,
}

impl Typed {
    pub(super) fn parse(line: &str) -> Option<Typed> {
        match line.trim().trim_start_matches("imprint ").trim_start() {
            "console" => Some(Typed::Console),
            "setup" => Some(Typed::Setup),
            "status" => Some(Typed::Status),
            "run" => Some(Typed::Run),
            "shell" | "sh" => Some(Typed::Shell),
            "reboot" => Some(Typed::Reboot),
            "poweroff" => Some(Typed::PowerOff),
            _ => None,
        }
    }
}

/// The words, for the person at the prompt.
pub(super) fn words(has_shell: bool) -> String {
    let shell = if has_shell { ", shell" } else { "" };
    format!("type console (to paste a payload), run (to boot again), status, setup{shell}, reboot or poweroff")
}

/// The terminal of the person at the console. `/dev/console` itself cannot be a controlling terminal, so it is the one behind it.
pub(super) fn terminal(root: &Path) -> PathBuf {
    let active = fs::read_to_string(root.join(ACTIVE)).unwrap_or_default();
    let name = active.split_whitespace().last().unwrap_or("console");
    // Behind tty0 there is the virtual console that is shown, which at a boot is the first one.
    root.join("dev").join(if name == "tty0" { "tty1" } else { name })
}

/// Starts a program in a session of its own, with this terminal as its controlling one: ^C and job control work there. Does not return
/// if that succeeds.
pub(super) fn start(tty: &str, words: &[&str]) -> ExitCode {
    let Some((program, words)) = words.split_first() else { return ExitCode::FAILURE };
    if let Err(error) = take(tty) {
        complain(&format!("taking the terminal {tty}: {error}"));
        return ExitCode::FAILURE;
    }
    let error = Command::new(program).args(words).env("TERM", "linux").exec();
    complain(&format!("starting {program}: {error}"));
    ExitCode::FAILURE
}

fn take(tty: &str) -> io::Result<()> {
    setsid()?;
    // The first terminal that the leader of a session opens is its controlling terminal (drivers/tty/tty_io.c, tty_open).
    let terminal: File = OpenOptions::new().read(true).write(true).open(tty)?;
    dup2_stdin(&terminal)?;
    dup2_stdout(&terminal)?;
    dup2_stderr(&terminal)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_as_they_are_typed() {
        assert_eq!(Typed::parse(" console\r\n"), Some(Typed::Console));
        assert_eq!(Typed::parse("imprint status"), Some(Typed::Status));
        for nothing in ["", "help", "console x", "Reboot"] {
            assert_eq!(Typed::parse(nothing), None, "{nothing}");
        }
        for word in words(true)
            .split([',', ' '])
            .filter(|word| ["console", "run", "status", "setup", "shell", "reboot", "poweroff"].contains(word))
        {
            assert!(Typed::parse(word).is_some(), "{word}");
        }
        assert!(!words(false).contains("shell"));
    }

    #[test]
    fn the_terminal_is_the_last_console() {
        let root = tempfile::tempdir().unwrap();
        let at = |active: Option<&str>| {
            let path = root.path().join(ACTIVE);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(active) = active {
                fs::write(&path, active).unwrap();
            }
            terminal(root.path()).strip_prefix(root.path()).unwrap().to_owned()
        };
        assert_eq!(at(None), Path::new("dev/console"));
        assert_eq!(at(Some("tty0 ttyS0\n")), Path::new("dev/ttyS0"));
        assert_eq!(at(Some("ttyS0 tty0\n")), Path::new("dev/tty1"));
    }
}
