//! `imprint swap on` and `imprint swap prepare`: swap space for the real root. What fails here is told on the console, in swap.json and by
//! the exit code, and stops no boot: a machine that needs its swap space says so when it runs out of memory, and one without it can be
//! looked at.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{RUN_DIR, Words, words};
use crate::apply::file;
use crate::chain::chain;
use crate::console::{complain, say};
use crate::error::Error;
use crate::handover::HandoverError;
use crate::options::Mode;
use crate::source::reader;
use crate::swap::{self, SWAP, Told};

/// `imprint swap prepare DEVICE`
pub fn swap_prepare(root: &Path, device: &Path) -> Result<(), Error> {
    Ok(swap::prepare(root, device)?)
}

/// `imprint swap on`. The error: why there is less swap space than there should be.
pub fn swap_on(root: &Path) -> Result<(), Error> {
    let Words { options, .. } = words(root, &[])?;
    if options.mode == Mode::Off {
        return Ok(());
    }
    let mut outcome = swap::on(root, options.swap, Path::new(reader::PROGRAM));
    outcome.areas.iter().for_each(|area| say(&format!("swap: {area}")));
    if !outcome.is_nothing() {
        keep(root, &Told::of(&outcome))?;
    }
    let Some(last) = outcome.errors.pop() else { return Ok(()) };
    // Two disks may fail for two reasons.
    outcome.errors.iter().for_each(|error| complain(&format!("swap: {}", chain(error))));
    Err(last.into())
}

/// Writes swap.json, for `imprint status`. It is a file of its own, so that it needs no lock of the folder: another imprint may be at work
/// there.
fn keep(root: &Path, told: &Told) -> Result<(), HandoverError> {
    let folder = root.join(RUN_DIR);
    let failed = |source| HandoverError::Write { path: folder.join(SWAP), source };
    let json = serde_json::to_vec_pretty(told).map_err(HandoverError::Json)?;
    DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(failed)?;
    file::replace(&folder, SWAP, &json, 0o644).map_err(failed)
}

/// What is in swap.json; empty if there is none. It only adds to what `imprint status` says, so one that cannot be read is passed over.
pub(super) fn shown(root: &Path) -> String {
    let json = std::fs::read(root.join(RUN_DIR).join(SWAP)).ok();
    json.and_then(|json| serde_json::from_slice::<Told>(&json).ok()).map(|told| told.to_string()).unwrap_or_default()
}
