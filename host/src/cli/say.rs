//! Output of the commands: answers on standard output, notes and questions on standard error. The program's only other
//! output is the error in `main`, `serve`'s log and `inject`'s events. All output is made printable: a subject, file name
//! or record never controls the terminal or adds a line.

use std::fmt;
use std::io::{self, Write};

use imprint::shown::{line, page};
use serde::Serialize;

use super::{Cli, CliError};

/// An answer for people, of any number of lines. Callers pass values from outside through `line` first.
pub(super) fn text(text: &str) -> Result<(), CliError> {
    answer(page(text).as_bytes())
}

/// An answer for programs.
pub(super) fn json(value: &impl Serialize) -> Result<(), CliError> {
    answer(format!("{}\n", crate::json::line(value)).as_bytes())
}

/// With --json the value, otherwise the words.
pub(super) fn either(cli: &Cli, value: &impl Serialize, words: &str) -> Result<(), CliError> {
    if cli.json { json(value) } else { text(words) }
}

/// Bytes for programs: a payload, a script. A reader that stops early is an error.
pub(super) fn raw(bytes: &[u8]) -> Result<(), CliError> {
    io::stdout().lock().write_all(bytes).map_err(CliError::Output)
}

/// One line on standard error. A failed write is ignored.
pub(super) fn note(words: &str) {
    let _ = writeln!(io::stderr(), "imprint-host: {}", line(words));
}

/// A warning on standard error.
pub(super) fn warn(words: fmt::Arguments<'_>) {
    note(&format!("warning: {words}"));
}

/// A question, or a text without the program's name.
pub(super) fn ask(words: &str) {
    let _ = write!(io::stderr(), "{}", page(words));
}

fn answer(bytes: &[u8]) -> Result<(), CliError> {
    match io::stdout().lock().write_all(bytes) {
        // The reader has closed the pipe, as in `imprint-host log | head`: not an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CliError::Output),
    }
}
