//! `imprint reload`: has the services that `/etc/imprint/reload.d` lists take up a renewed certificate. Runs in the real root. Never
//! changes the identity, and never starts a unit that does not run.

use std::path::Path;

use super::systemctl::{self, PATIENCE, Undone};
use crate::chain::chain;
use crate::console::{complain, say};
use crate::error::Error;
use crate::handover::HandoverError;
use crate::handover::reload::{self, How, List, Listed, ReloadError};

/// Reloads what has not taken up the certificate in `directory` yet. One that fails keeps nobody else from it.
pub fn reload(machine: &Path, directory: &Path) -> Result<(), Error> {
    let taken_up = reload::taken_up(directory)?;
    // What is wrong with the list is told before the first renewal, too.
    let List { units, wrong } = reload::list(machine);
    let mut failed = wrong.len();
    wrong.iter().for_each(|error| complain(&chain(error)));
    let Some(mut taken_up) = taken_up else {
        say(&format!("the certificate in {} was not renewed yet, nothing to reload", directory.display()));
        return ended(failed);
    };
    let (mut done, listed) = (0_usize, units.len());
    for listed in units {
        if taken_up.by(&listed.unit) {
            continue;
        }
        match told(&listed) {
            Ok(words) => {
                say(&words);
                taken_up.record(&listed.unit)?;
                done = done.saturating_add(1);
            }
            Err(error) => {
                complain(&chain(&error));
                failed = failed.saturating_add(1);
            }
        }
    }
    if done == 0 && failed == 0 {
        say(&format!("{listed} units have the current certificate, nothing to reload"));
    }
    ended(failed)
}

fn ended(failed: usize) -> Result<(), Error> {
    match failed {
        0 => Ok(()),
        failed => Err(HandoverError::Reload(ReloadError::Left { failed }).into()),
    }
}

/// Tells one unit, and returns what was done in words.
fn told(listed: &Listed) -> Result<String, ReloadError> {
    let Listed { unit, how, .. } = listed;
    let words = ["show", "--property=LoadState,ActiveState,CanReload", "--", unit.as_str()];
    let answer = systemctl::ask(&words).map_err(|undone| error(undone, "show", listed))?;
    let is = |property: &str| answer.lines().any(|line| line == property);
    if is("LoadState=not-found") {
        return Err(ReloadError::Unknown(listed.clone()));
    }
    if ["inactive", "failed", "deactivating"].iter().any(|state| is(&format!("ActiveState={state}"))) {
        return Ok(format!("{unit} does not run; it gets the new certificate when it starts"));
    }
    let (verb, done) = match how {
        // Not reload-or-restart: a restart drops connections, so whoever lists the unit has to say that it may be.
        How::Reload if !is("CanReload=yes") => return Err(ReloadError::CannotReload(listed.clone())),
        How::Reload => ("reload", "reloaded"),
        // A unit that was stopped since stays so.
        How::Restart => ("try-restart", "restarted"),
    };
    systemctl::tell(&[verb, "--", unit.as_str()]).map_err(|undone| error(undone, verb, listed))?;
    Ok(format!("{unit} {done}, it has the new certificate"))
}

fn error(undone: Undone, verb: &'static str, Listed { unit, .. }: &Listed) -> ReloadError {
    let unit = unit.clone();
    match undone {
        Undone::Run(error) => ReloadError::Systemctl(error),
        Undone::Failed(status) => ReloadError::Failed { verb, unit, status },
        Undone::Late => ReloadError::Late { verb, unit, waited: PATIENCE },
    }
}
