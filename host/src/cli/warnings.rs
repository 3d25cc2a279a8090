//! Warnings, what is waited for, and what is said about passwords that others can read. Refuses nothing.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use imprint::shown::line;

use crate::inject::Job;
use crate::inject::command::{Script, Shows};

/// One line on standard error. Nobody has to take it.
pub(super) fn warn(words: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "imprint-host: warning: {words}");
}

/// About another command that has its turn. It may have been stopped, and its turn last.
pub(super) fn waits(dir: &Path) {
    let dir = line(&dir.display().to_string());
    let words = "imprint-host: waiting for another command that changes or copies the files in";
    let _ = writeln!(io::stderr(), "{words} {dir}; lslocks shows which");
}

/// About commands that are arguments of this program.
pub(super) fn of_words(line: Option<&Script>, power: Option<&Script>) {
    for (option, script) in [("--line", line), ("--power", power)] {
        if let Some(Shows::Variable(what) | Shows::Argument(what)) = script.and_then(Script::shows) {
            warn(format_args!(
                "{option} holds a password ({what}), and every user of this machine can read the \
                 arguments of a program. Export the variable before, or put the line into a file: --lines FILE"
            ));
        }
    }
}

/// About a file of lines.
pub(super) fn of_file(path: &Path, jobs: &[Job]) {
    let scripts = || jobs.iter().flat_map(|job| job.line.script().into_iter().chain(job.power.as_ref()));
    let holds = scripts().any(|script| script.has_variables() || script.shows().is_some());
    // What comes through a pipe is nobody else's.
    let others =
        std::fs::metadata(path).is_ok_and(|file| !file.file_type().is_fifo() && file.permissions().mode() & 0o044 != 0);
    if holds && others {
        let path = path.display();
        warn(format_args!("{path} holds passwords, and others can read it; run: chmod 600 {path}"));
    }
    for job in jobs {
        for script in job.line.script().into_iter().chain(job.power.as_ref()) {
            if let Some(Shows::Argument(what)) = script.shows() {
                warn(format_args!(
                    "{}: its command has a password as an argument ({what}), which every user of \
                     this machine can read. Give it in a variable: env = {{ NAME = \"…\" }}, for ipmitool IPMI_PASSWORD \
                     and -E; for curl in a file that nobody else can read, and --netrc-file",
                    job.node.escape_default()
                ));
            }
        }
    }
}
