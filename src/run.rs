//! The steps of a boot, in order. Each step takes the result of the one before; the timeline records every step. Never
//! decides what to do, which is the work of `plan`, and never changes the machine itself, which is the work of `apply`.

mod apply;
mod available;
mod certify;
mod console;
mod door;
mod end;
mod enroll;
mod find;
mod limits;
mod look;
mod making;
mod network;
mod reload;
mod root;
mod setup;
mod stateless;
mod swap;
mod systemctl;
mod tell;

pub use apply::apply;
pub use available::available;
pub use console::console;
pub use enroll::enroll;
pub use look::{check, plan, status, why};
pub use network::network;
pub use reload::reload;
pub use root::root;
pub use setup::setup;
pub use swap::{swap_on, swap_prepare};

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::apply::entropy;
use crate::apply::network::{NetworkError, Race};
use crate::apply::spent::Spent;
use crate::confidential;
use crate::console::say;
use crate::dialogue::Dialogue;
use crate::digest::sha256;
use crate::error::Error;
use crate::facts;
use crate::fault;
use crate::finding::Finding;
use crate::handover::{self, Folder, Pending, Private};
use crate::line::{Stage, TimeKey};
use crate::options::{Mode, NotHere, Options, SourceName};
use crate::payload::{Enrolment, Payload};
use crate::plan::{self, Scope};
use crate::site::{SignedBy, SitePin};
use crate::source::{self, Found, Origin};
use crate::status::Timeline;
use crate::time::Deadline;
use certify::identify;
use door::{Door, configure, prepare_clock};
use end::{clear, finish, report, say_report, stopped};
use find::find;
use limits::Limits;
use making::{Asks, Making};

/// The folder of the hand-over.
const RUN_DIR: &str = "run/imprint";

/// `imprint run`: the boot. Writes status.json, whether the boot succeeds or fails.
pub fn boot(root: &Path) -> Result<(), Error> {
    boot_from(root, &[])
}

/// `imprint run --source …`: a boot that searches these sources.
pub fn boot_from(root: &Path, given: &[SourceName]) -> Result<(), Error> {
    let mut timeline = Timeline::new(|step| say(&step.to_string()));
    let directory = root.join(RUN_DIR);
    let (mut line, mut doors) = (None, None);
    let words = words(root, given);
    if words.as_ref().is_ok_and(|words| words.options.mode == Mode::Off) {
        return Ok(());
    }
    let Some(folder) = begin(&directory)? else { return Ok(()) };
    let insists = words.as_ref().is_ok_and(|words| words.insists);
    fault::recorded_in(&directory, timeline.record());
    let mut absent = false;
    let result = match words.and_then(|words| story(root, &folder, &words, &mut timeline, &mut line, &mut doors)) {
        Ok(Ending::Absent) => {
            absent = true;
            handover::fail(&directory, &timeline.absent()).map_err(Error::from)
        }
        Ok(Ending::Done(pending, spent)) => finish(&directory, pending, &timeline)
            .inspect(|()| spent.iter().for_each(|spent| clear(root, &directory, spent, insists, &mut timeline))),
        Err(error) => Err(stopped(&directory, &timeline, error)),
    };
    if let Some(line) = line {
        match &result {
            // The boot goes on without a payload, so for the host on the line it has failed.
            Ok(()) if absent => say_report(line, Stage::Failed, &timeline.absent()),
            result => report(line, result, &timeline),
        }
    }
    // A network that was brought up for the line is given back behind the line.
    drop(doors);
    result
}

enum Ending {
    Absent,
    /// An identity, and the payload that is removed from its medium.
    Done(Pending, Option<Spent>),
}

/// The kernel command line, and the options in it.
struct Words {
    cmdline: Zeroizing<String>,
    options: Options,
    /// Why this run searches no source.
    elsewhere: Option<NotHere>,
    /// A boot with these words and without a payload stops.
    insists: bool,
}

fn words(root: &Path, given: &[SourceName]) -> Result<Words, Error> {
    let cmdline = source::cmdline::text(root)?;
    let mut options = Options::with_image(&source::cmdline::of_image(root)?, &cmdline)?;
    let insists = options.insists();
    let elsewhere = options.here(given, facts::is_initramfs(root)).err();
    Ok(Words { cmdline, options, elsewhere, insists })
}

/// Makes the folder of a boot. `None` if the folder is complete: the node has its identity, and there is nothing to do.
fn begin(directory: &Path) -> Result<Option<Folder>, Error> {
    let folder = Folder::begin(directory)?;
    if folder.is_none() {
        say(&format!("{} is complete, nothing to do; remove it to begin again", directory.display()));
    }
    Ok(folder)
}

fn story(
    root: &Path,
    folder: &Folder,
    Words { cmdline, options, elsewhere, .. }: &Words,
    timeline: &mut Timeline,
    line: &mut Option<Dialogue>,
    doors: &mut Option<Finding>,
) -> Result<Ending, Error> {
    let sought = timeline.step("source", |detail| match elsewhere {
        Some(why) => {
            *detail = why.to_string();
            Ok(None)
        }
        None => find(options, root, cmdline, line, doors, detail),
    })?;
    let Some((found, pin)) = sought else {
        return Ok(Ending::Absent);
    };
    if !matches!(found.origin, Origin::Line { .. }) {
        // The payload came from another source, so give the lines back to their other users.
        *line = None;
    }
    match doors {
        Some(finding) if found.origin.is_called() => finding.hold(),
        // What brought the payload needs no network.
        _ => *doors = None,
    }
    let lines = Lines { line: line.as_ref(), doors, places: Asks::Consoles(cmdline) };
    let (pending, spent) = story_of(root, folder, options, found, pin, timeline, lines)?;
    Ok(Ending::Done(pending, spent))
}

/// The line that the payload came on, the network that was brought up to call there, and where a person can be asked.
struct Lines<'a> {
    line: Option<&'a Dialogue>,
    doors: &'a mut Option<Finding>,
    places: Asks<'a>,
}

/// The steps from the payload to the hand-over. Also returns the medium from which the payload is removed afterwards.
fn story_of(
    root: &Path,
    folder: &Folder,
    options: &Options,
    found: Found,
    pin: Option<SitePin>,
    timeline: &mut Timeline,
    Lines { line, doors, places }: Lines<'_>,
) -> Result<(Pending, Option<Spent>), Error> {
    timeline.found(&found.origin);
    let sha256 = sha256(found.bytes.expose());
    let link = found.origin.link();
    let deadline = Deadline::after(options.timeout);
    let (payload, signed) = timeline.step("payload", |detail| {
        source::decode(&found, pin.as_ref(), confidential::detect(root))
            .inspect(|(_, signed)| *detail = signed_words(signed))
    })?;
    timeline.signed(&signed, &payload);
    let (fresh, key) = (found.fresh, time_key(&payload));
    // What is signed for this moment tells the time itself. Only a host with the payload can tell it better.
    let asks = fresh.is_none() || key.is_some();
    let line_time = line
        .filter(|line| asks && line.is_open())
        .and_then(|line| line.time(key.filter(|_| fresh.is_some()), deadline.at_most(TIME)));
    let facts = timeline.step("facts", |_| -> Result<_, Error> {
        let mut facts = facts::gather(root, found.origin, pin, signed, options.bootif.clone(), deadline)?;
        (facts.fresh, facts.line_time) = (fresh, line_time);
        if payload.from_cmdline {
            facts.cmdline = options.network.network(options.bootif.as_ref());
            facts.cmdline.unused.iter().for_each(|word| say(word));
        }
        facts::await_links(&mut facts, &payload, root, deadline)?;
        Ok(facts)
    })?;
    let scope = if facts::is_initramfs(root) { Scope::Boot } else { Scope::RealRoot };
    let plan = timeline.step("plan", |_| plan::plan(payload, &facts, scope))?;
    timeline.planned(&plan);
    if options.debug {
        plan.to_string().lines().for_each(say);
    }
    if !plan.pinned && plan.signed.signer().is_none() {
        say("no site pin in this image: anybody who can change the payload can choose the CA");
    }
    timeline.step("clock", |detail| prepare_clock(&plan, root, detail))?;
    let seeded = timeline.step("entropy", |detail| {
        entropy::seed(&plan.seed, root, deadline).inspect(|seeded| *detail = seeded.to_string())
    })?;
    let moves = plan.network.is_some() && doors.is_some();
    if plan.network.is_some() {
        line.into_iter().for_each(Dialogue::leave_links);
        // The payload's own network takes the place of the one that its line came over.
        doors.take().into_iter().for_each(|finding| finding.give_back(plan.network.as_ref(), link.as_ref()));
    }
    let race = timeline.step("network", |detail| configure(&plan, root, deadline, detail));
    if let Err(NetworkError::NoLink { links, .. }) = &race {
        timeline.links(links);
    }
    let race = race?;
    if moves {
        line.into_iter().for_each(Dialogue::call_anew);
    }
    if options.debug {
        race.iter().flat_map(Race::report).for_each(|link| say(&format!("  {link}")));
    }
    let door = Door { root, boot: true, race, line, making: Making::of(options, places) };
    let limits = Limits { deadline, timeout: options.timeout, approval: options.approval_timeout };
    let pending = identify(&plan, &seeded, door, folder, Private::Mount, timeline, limits)?;
    Ok((pending, plan.spent().map(|medium| Spent { medium, sha256 })))
}

/// What a host that has this payload proves the time with.
fn time_key(payload: &Payload) -> Option<TimeKey> {
    match &payload.enrolment {
        Enrolment::Csr(csr) => csr.token.as_ref().map(|token| TimeKey::of(token.secret.expose().as_bytes())),
        Enrolment::Credentials(_) => None,
    }
}

/// Who signed the payload, for the step that decodes it. Empty: nobody did.
fn signed_words(signed: &SignedBy) -> String {
    match signed {
        SignedBy::Nobody => String::new(),
        signed => format!("signed by {signed}"),
    }
}

/// How long asking the host for the time may take. A console server may stall for some seconds; a host that is gone must not
/// hold up the network for long.
const TIME: Duration = Duration::from_secs(10);
