//! `imprint available`: starts what the bundle of this machine names, and reports to the configuration server that the machine is
//! available, or why it is not. Runs in the real root. Never changes a file there.

use std::path::Path;
use std::time::Duration;

use super::RUN_DIR;
use super::apply::record;
use super::systemctl::{self, PATIENCE, Undone};
use super::tell::report;
use crate::apply::root;
use crate::bundle::{UnitAction, Verb};
use crate::chain::chain;
use crate::console::{complain, say};
use crate::error::{Error, UseError};
use crate::handover::staged::{self, Description};
use crate::payload::UnitName;
use crate::shown::Printable;
use crate::status::BundleState;
use crate::time::Deadline;

/// How long the server is asked, until the unit begins anew.
const TELLING: Duration = Duration::from_secs(120);

/// Starts the units that were not started before, and reports. `early`: starts them, and leaves the rest to a later call.
pub fn available(machine: &Path, early: bool) -> Result<(), Error> {
    let directory = machine.join(RUN_DIR);
    let Some(left) = staged::read(&directory).map_err(UseError::from)? else {
        say(&format!("no bundle in {}, nothing to do", directory.display()));
        return Ok(());
    };
    if !left.is_applied() {
        return Err(UseError::NotApplied { counter: left.description.counter }.into());
    }
    let bundle = &left.description;
    let started = start(&directory, bundle);
    if early {
        return Ok(started?);
    }
    let used = started.and_then(|()| shown(machine, &directory, bundle.counter));
    let told = report(&directory, bundle, used.as_ref().err(), Deadline::after(TELLING));
    let done = used.and(told);
    record(machine, done.as_ref().map(|()| BundleState::Available));
    done?;
    say(&format!("bundle number {} is in use, and the configuration server knows", bundle.counter));
    Ok(())
}

/// Whether every file of the bundle can be seen, as far as mounts decide it.
fn shown(machine: &Path, directory: &Path, counter: u64) -> Result<(), UseError> {
    match root::hidden(machine, &staged::laid(directory, counter)?)? {
        None => Ok(()),
        Some(path) => Err(UseError::Hidden { counter, path: Printable::of(path) }),
    }
}

/// Does what the bundle wants with its units, in order, and leaves out what was done before. One that fails keeps none of those
/// behind it from their start; the first failure is the error.
fn start(directory: &Path, bundle: &Description) -> Result<(), UseError> {
    let actions: Vec<UnitAction> = bundle.units.iter().map(action).collect::<Result<_, _>>()?;
    let mut done = staged::which_started(directory, bundle.counter)?;
    let mut failed = None;
    for (number, action) in actions.iter().enumerate() {
        if done.contains(&number) {
            continue;
        }
        let unit = action.unit.as_str();
        match commands(action.verb).iter().try_for_each(|words| systemctl(action, &[*words, &[unit]].concat())) {
            Ok(()) => {
                say(&action.to_string());
                done.insert(number);
                staged::started(directory, bundle.counter, &done)?;
            }
            Err(error) => {
                complain(&chain(&error));
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn action((verb, unit): &(String, String)) -> Result<UnitAction, UseError> {
    let known = Verb::ALL.into_iter().find(|known| known.word() == verb).zip(UnitName::try_from(unit.as_str()).ok());
    let unknown = || UseError::NoUnit { verb: verb.clone(), unit: unit.clone() };
    known.map(|(verb, unit)| UnitAction { verb, unit }).ok_or_else(unknown)
}

/// What systemctl is told. A unit is enabled for this boot: the links are made in /run, and a machine that has no bundle at its
/// next boot starts without it.
fn commands(verb: Verb) -> &'static [&'static [&'static str]] {
    match verb {
        Verb::Enable => &[&["enable", "--runtime", "--"], &["start", "--"]],
        Verb::Restart => &[&["restart", "--"]],
        Verb::Reload => &[&["reload-or-restart", "--"]],
    }
}

fn systemctl(action: &UnitAction, words: &[&str]) -> Result<(), UseError> {
    systemctl::tell(words).map_err(|undone| match undone {
        Undone::Run(error) => UseError::Systemctl(error),
        Undone::Failed(status) => UseError::Unit { action: action.clone(), status },
        Undone::Late => UseError::Late { action: action.clone(), waited: PATIENCE },
    })
}
