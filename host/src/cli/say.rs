//! What the commands say: answers on standard output, notes and questions on standard error. Together with `main`, `serve`'s
//! log and `inject`'s events this is all that the program writes to people, and all of it is made printable: whoever a subject,
//! a file name or a record came from, it drives no terminal and is no line of its own.

use std::fmt;
use std::io::{self, Write};

use imprint::shown::{line, page};
use serde_json::Value;

use super::{Cli, CliError};

/// An answer for people, of any number of lines. What came from outside in it is on one line already.
pub(super) fn text(text: &str) -> Result<(), CliError> {
    answer(page(text).as_bytes())
}

/// An answer for programs.
pub(super) fn json(value: &Value) -> Result<(), CliError> {
    answer(format!("{}\n", crate::json::line(value)).as_bytes())
}

/// The one or the other.
pub(super) fn either(cli: &Cli, value: &Value, words: &str) -> Result<(), CliError> {
    if cli.json { json(value) } else { text(words) }
}

/// What is no text for people: a payload, a script. All of it has to arrive.
pub(super) fn raw(bytes: &[u8]) -> Result<(), CliError> {
    io::stdout().lock().write_all(bytes).map_err(CliError::Output)
}

/// One line on standard error. Nobody has to take it.
pub(super) fn note(words: &str) {
    let _ = writeln!(io::stderr(), "imprint-host: {}", line(words));
}

/// The same, about something that is not as it should be.
pub(super) fn warn(words: fmt::Arguments<'_>) {
    note(&format!("warning: {words}"));
}

/// A question, or a text without the program's name.
pub(super) fn ask(words: &str) {
    let _ = write!(io::stderr(), "{}", page(words));
}

fn answer(bytes: &[u8]) -> Result<(), CliError> {
    match io::stdout().lock().write_all(bytes) {
        // Whoever read us has seen enough: `imprint-host log | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CliError::Output),
    }
}
