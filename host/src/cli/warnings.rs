//! Warnings on standard error: about duplicate records, about waiting for another command, and about passwords that other
//! users can read. Refuses nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use imprint::payload::signed::Kid;
use imprint::shown::line;

use super::say::{note, warn};
use crate::inject::Job;
use crate::inject::command::{Script, Shows};
use crate::state::Warning;

/// At most this many duplicates of each kind are printed. A table of thousands of nodes that share an address has thousands.
const EACH: usize = 5;

/// Warnings about records that were added.
pub(super) fn of_records(warnings: &[Warning]) {
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for warning in warnings {
        let count = told.entry(warning.word()).or_default();
        *count = count.saturating_add(1);
        // A warning that is about one node alone is always printed.
        if warning.other().is_none() || *count <= EACH {
            warn(format_args!("{warning}"));
        }
    }
    let twice = |word: &str| warnings.iter().any(|warning| warning.word() == word && warning.other().is_some());
    for (word, count) in told.into_iter().filter(|(word, count)| *count > EACH && twice(word)) {
        warn(format_args!("{} more warnings of this kind ({word}); --json lists all", count.saturating_sub(EACH)));
    }
}

/// Says how many records name no machine, to the person who is about to put a signer into a site pin.
pub(super) fn of_unbound(nodes: &[String]) {
    let [first, others @ ..] = nodes else { return };
    let whose = match others.len() {
        0 => format!("the record of {} has", line(first)),
        more => format!("{} records have ({} and {more} more)", nodes.len(), line(first)),
    };
    warn(format_args!(
        "{whose} no bind that names a machine, and images that name a signer refuse payloads without: add bind before you \
         build them"
    ));
}

/// Says since when another key signs.
pub(super) fn of_rotation(kid: Kid) {
    note(&format!("{kid} signs every payload from now on; images that do not name it refuse them"));
}

/// Says that this command waits for another command's lock. The wait may be long: a command that was stopped (SIGSTOP)
/// keeps its lock.
pub(super) fn waits(dir: &Path) {
    let words = "waiting for another command that changes or copies the files in";
    note(&format!("{words} {}; lslocks shows which", dir.display()));
}

/// Warnings about passwords in `--line` and `--power`.
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

/// Warnings about passwords in the file of `--lines`.
pub(super) fn of_file(path: &Path, jobs: &[Job]) {
    let scripts = || jobs.iter().flat_map(|job| job.line.script().into_iter().chain(job.power.as_ref()));
    let holds = scripts().any(|script| script.has_variables() || script.shows().is_some());
    // Other users cannot read a pipe.
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
                    job.node
                ));
            }
        }
    }
}
