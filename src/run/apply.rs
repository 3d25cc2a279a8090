//! `imprint apply`: lays the bundle that a boot has left over the root that is about to be entered, and leaves the units that start
//! and report it there, and imprint.target. Never fetches a bundle, and never judges one: the boot has verified it.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::RUN_DIR;
use super::tell::report;
use crate::apply::root;
use crate::bundle::{Bundle, Entry, MAX_TAR};
use crate::chain::chain;
use crate::console::say;
use crate::error::{Error, UseError};
use crate::facts;
use crate::handover::{self, Folder, HandoverError, staged, units};
use crate::source;
use crate::status::{BundleState, Status};
use crate::time::Deadline;
use crate::trial;

/// The folder in that of the hand-over that has the memory of the overlays, and the program for the real root.
const ROOT: &str = "root";
/// The units of the real root, and what wants them there.
const LEFT: [(&str, &str); 2] = [
    ("imprint-units.service", include_str!("../../systemd/imprint-units.service")),
    ("imprint-available.service", include_str!("../../systemd/imprint-available.service")),
];
/// How long the configuration server is asked to take the report of a failure: a person may wait for the prompt.
const TELLING: Duration = Duration::from_secs(5);
/// systemd.exec reads these once it has loaded a policy: a list of paths that get the labels of the policy (systemd 245).
const LABELS: (&str, &str) = ("run/systemd/relabel-extra.d", "imprint.relabel");

/// Lays the bundle over the root at `new`. Does nothing if there is none, or if the root has it already.
pub fn apply(machine: &Path, new: &Path) -> Result<(), Error> {
    let directory = machine.join(RUN_DIR);
    let is_complete = handover::is_complete(&directory);
    if is_complete {
        tell_systemd(machine, new);
    }
    let Some(left) = staged::read(&directory).map_err(UseError::from)? else {
        return match is_complete {
            false if staged::is_anew(&directory) => Err(UseError::NoneInstead.into()),
            false => {
                say(&format!("no bundle waits in {}, nothing to do", directory.display()));
                Ok(())
            }
            // Most payloads have the machine fetch no bundle, and need no word about it at each boot.
            true => Ok(()),
        };
    };
    let counter = left.description.counter;
    let _folder = Folder::open(&directory).map_err(UseError::from)?;
    let done = match left.is_applied() {
        true => look(machine, &directory, new, counter),
        false => lay(machine, &directory, new, counter),
    };
    record(machine, done.as_ref().map(|_| BundleState::Applied));
    if let Err(error) = &done {
        say(
            "to go on, make another version at the server: imprint-host bundle make; then run imprint console here, or boot again",
        );
        // The network of the initramfs is up. Whoever keeps the bundles sees then that this one is of no use.
        if let Err(second) = report(&directory, &left.description, Some(error), Deadline::after(TELLING)) {
            say(&format!("the configuration server was not told: {}", chain(&second)));
        }
    }
    let words = done?;
    say(&words);
    Ok(())
}

/// A root with systemd learns that the machine has its identity, also from an initramfs without systemd. The boot does not depend
/// on that, so a failure is only told.
fn tell_systemd(machine: &Path, new: &Path) {
    if let Err(error) = units::leave_target(machine, Some(new)) {
        say(&format!("no imprint.target in the real root: {}", chain(&error)));
    }
}

/// Whether the root still has what was laid over it: somebody may have unmounted it and mounted it again since.
fn look(machine: &Path, directory: &Path, new: &Path, counter: u64) -> Result<String, UseError> {
    let paths = staged::laid(directory, counter)?;
    if root::hidden(new, &paths)?.is_some() {
        if facts::is_initramfs(machine) {
            // So that another run can begin.
            staged::lost(directory)?;
        }
        return Err(UseError::Lost { counter });
    }
    // A kill may have come before the tar was removed.
    staged::remove_spent(directory)?;
    Ok(format!("bundle number {counter} is in the root already, nothing to do"))
}

fn lay(machine: &Path, directory: &Path, new: &Path, counter: u64) -> Result<String, UseError> {
    let tar = staged::tar(directory, MAX_TAR).map_err(|error| match error {
        HandoverError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => UseError::Lost { counter },
        error => error.into(),
    })?;
    let bundle = Bundle::of_tar(tar.expose())?;
    let work = directory.join(ROOT);
    // Before the step, so that a kill behind it leaves nothing undone that the real root needs.
    root::copy_program(&work)?;
    leave_units(machine)?;
    leave_labels(machine, new, bundle.entries())?;
    let laid = root::lay(&work, new, bundle.entries())?;
    trial::crash("laid");
    staged::applied(directory, counter, bundle.entries().iter().map(|entry| entry.path.as_str()))?;
    trial::crash("applied");
    let (count, over) = (bundle.entries().len(), laid.directories.join(", "));
    let over = if over.is_empty() { "nothing".to_owned() } else { over };
    Ok(format!("bundle number {counter} is in the root: {count} entries, over {over}"))
}

/// Writes into status.json how far the bundle has come. The bundle does not depend on that, so a failure is only told.
pub(super) fn record(machine: &Path, came: Result<BundleState, &UseError>) {
    amend(machine, |status| {
        let Some(bundle) = &mut status.bundle else { return };
        match came {
            Ok(BundleState::Applied) if bundle.state == BundleState::Available => {}
            Ok(state) => (bundle.state, bundle.error) = (state, None),
            Err(error) => {
                if matches!(error, UseError::Lost { .. }) {
                    bundle.state = BundleState::Staged;
                }
                bundle.error = Some(chain(error));
            }
        }
    });
}

/// Changes status.json, for what a subcommand does after the run. Nothing depends on that, so a failure is only told.
pub(super) fn amend(machine: &Path, change: impl FnOnce(&mut Status)) {
    let directory = machine.join(RUN_DIR);
    let changed = (|| -> Result<(), Error> {
        let text = source::text(machine, &format!("{RUN_DIR}/status.json"))?;
        let damaged = |error: serde_json::Error| HandoverError::Damaged {
            path: directory.join("status.json"),
            why: error.to_string(),
        };
        let mut status: Status = serde_json::from_str(&text).map_err(damaged)?;
        let before = status.clone();
        change(&mut status);
        if status != before {
            handover::restate(&directory, &status)?;
        }
        Ok(())
    })();
    if let Err(error) = changed {
        say(&format!("status.json: {}", chain(&error)));
    }
}

fn leave_units(machine: &Path) -> Result<(), UseError> {
    Ok(LEFT.iter().try_for_each(|(name, text)| units::leave(machine, name, text, "multi-user.target"))?)
}

/// A policy gives labels to files as they are made, and these were made before there was one. On a root without SELinux nobody
/// reads the list.
fn leave_labels(machine: &Path, new: &Path, entries: &[Entry]) -> Result<(), UseError> {
    if !new.join("etc/selinux").is_dir() {
        return Ok(());
    }
    let list: String = entries.iter().map(|entry| format!("/{}\n", entry.path.as_str())).collect();
    Ok(units::put_file(machine, LABELS.0, LABELS.1, list.as_bytes())?)
}
