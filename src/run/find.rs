//! The first step of a boot: searches every source that the options allow, and tells the console what the search waits
//! for. Never decides which source may bring a payload; `source` does that.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use crate::chain::chain;
use crate::confidential;
use crate::console::say;
use crate::dialogue::{Dialogue, Told};
use crate::error::Error;
use crate::finding::{self, Finding, Wanted};
use crate::machine;
use crate::options::{Options, SetCredential};
use crate::plan::{self, NetworkPlan};
use crate::site::{self, SitePin};
use crate::source::admission_key::Media;
use crate::source::config_drive::PATIENCE;
use crate::source::{self, Fits, Found, Notice, SourceError, Surroundings, Waiting};
use crate::time::{Deadline, since_boot};

pub(super) type Sought = Option<(Found, Option<SitePin>)>;

pub(super) fn find(
    options: &Options,
    root: &Path,
    cmdline: &str,
    line: &mut Option<Dialogue>,
    doors: &mut Option<Finding>,
    detail: &mut String,
) -> Result<Sought, Error> {
    let deadline = Deadline::after(options.timeout);
    source::credential::fw_cfg::load(root, deadline);
    let (pin, notes) = pin(root, &options.credentials)?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let around = Surroundings {
        root,
        reader: Path::new(source::reader::PROGRAM),
        pinned: pin.is_some(),
        credentials: credentials.as_deref().map(Path::new),
    };
    let present = source::at_once(options, &around);
    let trust = || (pin.as_ref(), fits(root));
    *line = source::line::listen(options, (root, cmdline), trust(), present.as_ref(), false, deadline)?;
    let media = |line: Option<&Dialogue>| match line {
        Some(line) => Media::look(options, root, around.reader, PATIENCE, line.prover()),
        None => Ok(None),
    };
    let mut keys = media(line.as_ref())?;
    // Notes for the operator, besides the source that was used: about the drives, and about words that had no effect.
    let (drives, left) = (RefCell::new(String::new()), RefCell::new(Vec::new()));
    let near = options.near_misses.iter().map(ToString::to_string);
    for note in notes.into_iter().chain(source::credential::fault(root)).chain(near) {
        say(&note);
        drives.borrow_mut().extend(["; ", &note]);
    }
    let wanted = RefCell::new(if line.is_some() { network(options, root)? } else { None });
    let doors = RefCell::new(doors);
    let heard = |line: Option<&Dialogue>, notice: Notice<'_>| match notice {
        Notice::Drive(words) => {
            say(words);
            drives.borrow_mut().extend(["; ", words]);
        }
        Notice::Left(drive) => left.borrow_mut().push(drive.to_owned()),
        Notice::Waiting(looked) => {
            let mut awaited = source::awaited(options);
            // The names of lines that the operator did not name are known only once the lines are open.
            let lines = line.filter(|_| options.sources.is_empty()).map(Dialogue::names);
            awaited.extend(lines.filter(|names| !names.is_empty()).map(|names| format!("a host on {names}")));
            let key = line.map(|line| format!("; line key {}", line.code())).unwrap_or_default();
            let (seconds, awaited) = (options.timeout.as_secs(), awaited.join(", or "));
            say(&format!("no payload yet ({looked}); waiting up to {seconds} s for {awaited}{key}"));
            // What comes before the lines has nothing, so the network may be used.
            if let Some((line, (sought, network))) = line.zip(wanted.take()) {
                match Finding::begin(sought, network, root, line.seeker()) {
                    Ok(finding) => **doors.borrow_mut() = Some(finding),
                    Err(error) => say(&format!("the door: it cannot be looked for: {error}")),
                }
            }
        }
        Notice::Admission(words) => say(words),
        Notice::Line(told) => {
            // Who compares the code has heard of a host. Where there is none, nobody has; and one that has this node wait is told
            // of with the code, if anybody is to compare it.
            let line = line.filter(|_| !matches!(told, Told::Missed { .. } | Told::Waits { .. }));
            let code = line.map(|line| format!("; line key {}", line.code())).unwrap_or_default();
            say(&format!("{told}{code}"));
        }
    };
    let early = line.as_ref();
    let mut notice = |notice: Notice<'_>| heard(early, notice);
    // Set before the search, so that a failed step has these messages, too.
    *detail = drives.borrow().trim_start_matches("; ").to_owned();
    let mut found = source::find(options, &around, present, early, deadline, &mut notice)?;
    if let Err(looked) = &found
        && line.is_none()
        && let Some(late) = source::line::listen(options, (root, cmdline), trust(), None, true, deadline)?
    {
        let late = line.insert(late);
        keys = media(Some(late))?;
        *wanted.borrow_mut() = network(options, root)?;
        let sought = source::line::find(
            &Waiting::new(late, options, true),
            options,
            false,
            since_boot(),
            deadline,
            source::line::Heard::default(),
            &mut |notice| heard(Some(late), notice),
        )?;
        found = sought.map_err(|lines| format!("{looked}; {lines}"));
    }
    drop(keys);
    if let Some(begun) = source::udevd::begin_anew(root, &left.borrow()) {
        say(&match begun {
            Ok(()) => "udevd waits for a drive that does not answer; it was restarted without that drive".to_owned(),
            Err(error) => format!(
                "udevd waits for a drive that does not answer, and could not be restarted ({error}); the root device \
                 may not appear before the drive is detached"
            ),
        });
    }
    if let Ok(found) = &found {
        source::admitted(&found.origin, pin.is_some(), confidential::detect(root))?;
    }
    *detail = match &found {
        Ok(found) => format!("{}{}", found.origin, drives.borrow()),
        Err(looked) => format!("no payload ({looked}), booting without one"),
    };
    Ok(found.ok().map(|found| (found, pin)))
}

/// Whether a payload that came on a far line is for this machine, as it is then.
fn fits(root: &Path) -> Fits {
    let root = root.to_owned();
    Box::new(move |payload, fresh| {
        let (dmi, macs) = machine::identifiers(&root, Deadline::after(LOOK));
        let since = since_boot().saturating_sub(fresh.came);
        plan::fits(payload, since, &dmi, &macs).map_err(|error| chain(&error))
    })
}

/// How long the kernel may take to list the links.
const LOOK: Duration = Duration::from_secs(2);

/// The doors that the sources name, and the network before the payload, over which they are called at. `None`: there is none to
/// call at over a network.
fn network(options: &Options, root: &Path) -> Result<Option<(Vec<Wanted>, NetworkPlan)>, Error> {
    let sought = finding::wanted(options);
    if sought.is_empty() {
        return Ok(None);
    }
    let (links, notes) = finding::links(options, root)?;
    notes.iter().for_each(|note| say(note));
    Ok(Some((sought, plan::early(links, options.bootif.as_ref())?)))
}

/// The site pin that counts for a payload which a person names, or pastes: the same as at a boot. Notes are for `tell`. Who is not
/// root may not read what the firmware has; then nothing of it narrows the pin.
pub(super) fn pin_of_machine(root: &Path, tell: fn(&str)) -> Result<Option<SitePin>, Error> {
    let words = source::cmdline::text(root).ok().and_then(|text| Options::parse(&text).ok());
    let (pin, notes) = match pin(root, &words.map(|words| words.credentials).unwrap_or_default()) {
        Err(Error::Source(SourceError::Read { path, source })) if source.kind() == ErrorKind::PermissionDenied => {
            let note =
                format!("only root can read {}: a credential imprint.site there is not looked at", path.display());
            (site::pin(root)?, vec![note])
        }
        found => found?,
    };
    notes.iter().for_each(|note| tell(note));
    Ok(pin)
}

/// The site pin that counts: the image's, narrowed by credentials. Also returns notes about the credentials for the
/// operator.
pub(super) fn pin(root: &Path, words: &[SetCredential]) -> Result<(Option<SitePin>, Vec<String>), Error> {
    let unit = std::env::var_os("CREDENTIALS_DIRECTORY");
    Ok(source::credential::pin::narrow(site::pin(root)?, root, unit.as_deref().map(Path::new), words)?)
}
