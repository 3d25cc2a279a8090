//! The end of a run: writes the status into its folder, and reports to the host on the line. Never decides the outcome.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use crate::apply::spent::{self, Removed, Spent};
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

/// Removes a spent payload, and adds that step to the status. The identity stays even if the payload cannot be removed:
/// the console and the status say so. `insists`: the next boot, too, stops without a payload.
pub(super) fn clear(root: &Path, directory: &Path, spent: &Spent, insists: bool, timeline: &mut Timeline) {
    let removed = timeline.step("spent", |detail| -> Result<(), Infallible> {
        *detail = match spent::remove(root, spent) {
            Ok(Removed::Gone) => {
                let next = if insists { NEXT } else { "" };
                format!("{} ({}){next}", Removed::Gone, spent.medium.row().kind)
            }
            Ok(replaced) => replaced.to_string(),
            Err(error) => chain(&error),
        };
        Ok(())
    });
    let Ok(()) = removed;
    if let Err(error) = handover::restate(directory, &timeline.done()) {
        say(&format!("status.json: {}", chain(&error)));
    }
}

/// Writes the status of a run that was stopped. Returns the error that stopped the run. If the status cannot be
/// written, that second error is only printed.
pub(super) fn stopped(directory: &Path, timeline: &Timeline, error: Error) -> Error {
    if let Err(second) = handover::fail(directory, &timeline.failed(error.stage(), cause(&error))) {
        say(&format!("status.json: {}", chain(&second)));
    }
    error
}

/// What somebody who names a medium should know before the next boot.
const NEXT: &str = "; the next boot needs another payload, or imprint=auto on the kernel command line";

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(chain).unwrap_or_default()
}

/// Tells the host on the line how the run ended, and gives the line back.
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

/// How long the host may be silent during the report. A host whose line broke opens it again within a second or two.
const SILENCE: Duration = Duration::from_secs(5);

/// How long the report may take, also on a slow line.
const REPORT: Duration = Duration::from_secs(30);
