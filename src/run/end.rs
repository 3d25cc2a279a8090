//! How a run ends: the status in its folder, and the word to a host on the line. Decides nothing.

use std::path::Path;
use std::time::Duration;

use crate::chain::chain;
use crate::console::say;
use crate::dialogue::Dialogue;
use crate::error::Error;
use crate::handover::{self, Pending};
use crate::line::Stage;
use crate::status::{Status, Timeline};
use crate::time::Deadline;

pub(super) fn finish(directory: &Path, pending: Pending, timeline: &Timeline) -> Result<(), Error> {
    pending.finish(&timeline.done()).map_err(|error| stopped(directory, timeline, error.into()))
}

/// Writes the status of a run that was stopped, where no identity is. The error that stopped it is the one to tell; that
/// the status cannot be written either is a line beside it.
pub(super) fn stopped(directory: &Path, timeline: &Timeline, error: Error) -> Error {
    if let Err(second) = handover::fail(directory, &timeline.failed(error.stage(), cause(&error))) {
        say(&format!("status.json: {}", chain(&second)));
    }
    error
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(chain).unwrap_or_default()
}

/// Tells the host on the line how it ended; the line is given back.
pub(super) fn report(line: Dialogue, result: &Result<(), Error>, timeline: &Timeline) {
    let (stage, status) = match result {
        Ok(()) => (Stage::Done, timeline.done()),
        Err(error) => (Stage::Failed, timeline.failed(error.stage(), cause(error))),
    };
    say_report(line, stage, &status);
}

pub(super) fn say_report(line: Dialogue, stage: Stage, status: &Status) {
    if let Ok(text) = serde_json::to_vec(status) {
        line.report(stage, text, SILENCE, Deadline::after(REPORT));
    }
}

/// How long a host may be silent that is to hear how it ended: a line that breaks is opened again within a second or two.
const SILENCE: Duration = Duration::from_secs(5);

/// How long it may take at most, on a slow line.
const REPORT: Duration = Duration::from_secs(30);
