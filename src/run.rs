//! The whole story on one screen. Each step takes what the one before returned; the timeline keeps what happened.
//! Decides nothing: what to do is `plan`'s, how to do it is `apply`'s.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::apply::clock::ClockError;
use crate::apply::network::{LinkReport, Network, NetworkError, Race};
use crate::apply::{clock, entropy, network};
use crate::chain::chain;
use crate::checkin::{self, Ask, AskError, Context, Reply};
use crate::console::say;
use crate::dialogue::Dialogue;
use crate::error::Error;
use crate::facts;
use crate::fault;
use crate::handover::{self, Certificates, Folder, Pending, Private};
use crate::hex;
use crate::identity::{Given, Identity};
use crate::line::{Stage, seal};
use crate::options::{Mode, Options};
use crate::payload::{EstUrl, Payload};
use crate::plan::{self, ClockQuality, GivenPlan, IdentityPlan, Plan, Scope};
use crate::pool::Seeded;
use crate::source::{self, Found, Notice, Origin, SourceError};
use crate::status::{Node, Status, Timeline};
use crate::time::{Deadline, Timestamp, since_boot};

/// Where everything is handed over.
const RUN_DIR: &str = "run/imprint";

/// `imprint run`: the boot. What happened is in status.json, success or not.
pub fn boot(root: &Path) -> Result<(), Error> {
    let mut timeline = Timeline::new(|step| say(&step.to_string()));
    let directory = root.join(RUN_DIR);
    let mut line = None;
    let words = words(root);
    if words.as_ref().is_ok_and(|words| words.options.mode == Mode::Off) {
        return Ok(());
    }
    let Some(folder) = begin(&directory)? else { return Ok(()) };
    fault::recorded_in(&directory, timeline.record());
    let mut absent = false;
    let result = match words.and_then(|words| story(root, &folder, &words, &mut timeline, &mut line)) {
        Ok(Ending::Absent) => {
            absent = true;
            handover::fail(&directory, &timeline.absent()).map_err(Error::from)
        }
        Ok(Ending::Done(pending)) => finish(&directory, pending, &timeline),
        Err(error) => Err(stopped(&directory, &timeline, error)),
    };
    if let Some(line) = line {
        match &result {
            // It boots on, but nothing came of the host's word.
            Ok(()) if absent => say_report(line, Stage::Failed, &timeline.absent()),
            result => report(line, result, &timeline),
        }
    }
    result
}

/// How long a host may be silent that is to hear how it ended: a line that breaks is opened again within a second or two.
const SILENCE: Duration = Duration::from_secs(5);
/// How long it may take at most, on a slow line.
const REPORT: Duration = Duration::from_secs(30);

/// Tells the host on the line how it ended; the line is given back.
fn report(line: Dialogue, result: &Result<(), Error>, timeline: &Timeline) {
    let (stage, status) = match result {
        Ok(()) => (Stage::Done, timeline.done()),
        Err(error) => (Stage::Failed, timeline.failed(error.stage(), cause(error))),
    };
    say_report(line, stage, &status);
}

fn say_report(line: Dialogue, stage: Stage, status: &Status) {
    if let Ok(text) = serde_json::to_vec(status) {
        line.report(stage, text, SILENCE, Deadline::after(REPORT));
    }
}

enum Ending {
    Absent,
    Done(Pending),
}

/// The kernel command line, and what it says.
struct Words {
    cmdline: Zeroizing<String>,
    options: Options,
}

fn words(root: &Path) -> Result<Words, Error> {
    let cmdline = source::cmdline::text(root)?;
    let options = Options::with_image(&source::cmdline::of_image(root)?, &cmdline)?;
    Ok(Words { cmdline, options })
}

/// The folder of a boot, which begins with an empty /run: on a node that has its identity there is nothing to do.
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
    Words { cmdline, options }: &Words,
    timeline: &mut Timeline,
    line: &mut Option<Dialogue>,
) -> Result<Ending, Error> {
    let sought = timeline.step("source", |detail| find(options, root, cmdline, line, detail))?;
    let Some((found, pin)) = sought else {
        return Ok(Ending::Absent);
    };
    if !matches!(found.origin, Origin::Line { .. }) {
        // Another source won: whoever else is on the lines has them back.
        *line = None;
    }
    story_of(root, folder, options, found, pin, timeline, line.as_ref()).map(Ending::Done)
}

/// `imprint console`: by hand, on the console of a node. Shows which node it is, and takes what is pasted.
pub fn console(root: &Path, timeout: Duration) -> Result<(), Error> {
    let mut timeline = Timeline::new(|step| say(&step.to_string()));
    let directory = root.join(RUN_DIR);
    let Some(folder) = begin(&directory)? else { return Ok(()) };
    fault::recorded_in(&directory, timeline.record());
    let mut line = None;
    let result = match by_hand(root, &folder, timeout, &mut timeline, &mut line) {
        Ok(pending) => finish(&directory, pending, &timeline),
        Err(error) => Err(stopped(&directory, &timeline, error)),
    };
    if let Some(line) = line {
        report(line, &result, &timeline);
    }
    result
}

fn by_hand(
    root: &Path,
    folder: &Folder,
    timeout: Duration,
    timeline: &mut Timeline,
    line: &mut Option<Dialogue>,
) -> Result<Pending, Error> {
    let deadline = Deadline::after(timeout);
    let mut options = Options::parse("")?;
    options.timeout = timeout;
    let pin = facts::site_pin(root)?;
    let origin = Origin::Line { name: String::new(), sealed: false };
    let facts = facts::gather(root, origin, None, None, deadline)?;
    let dialogue = line.insert(source::serial::terminal(root, deadline)?);
    let uuid = facts.dmi.uuid.map_or("unknown".to_owned(), |uuid| hex::uuid(&uuid));
    say(&format!("UUID {uuid}, serial number {}", facts.dmi.serial.as_deref().unwrap_or("unknown")));
    for link in &facts.links {
        say(&format!("link {link}, {}", if link.carrier { "carrier" } else { "no carrier, or down" }));
    }
    say(&format!("line key {}, for a host that speaks on this line (imprint-host inject --call)", dialogue.code()));
    say("or paste what this prints: imprint-host payload NODE --as text");
    let found = timeline.step("source", |detail| {
        source::serial::pasted(dialogue, deadline, &mut |words| say(words))
            .inspect(|found| *detail = found.origin.to_string())
    })?;
    story_of(root, folder, &options, found, pin, timeline, line.as_ref())
}

/// From the payload to the hand-over.
fn story_of(
    root: &Path,
    folder: &Folder,
    options: &Options,
    found: Found,
    pin: Option<facts::SitePin>,
    timeline: &mut Timeline,
    line: Option<&Dialogue>,
) -> Result<Pending, Error> {
    timeline.found(&found.origin);
    let deadline = Deadline::after(options.timeout);
    let payload = timeline.step("payload", |_| source::decode(&found))?;
    let line_time = line.filter(|line| line.is_open()).and_then(|line| line.time(deadline.at_most(TIME)));
    let facts = timeline.step("facts", |_| -> Result<_, Error> {
        let mut facts = facts::gather(root, found.origin, pin, Some(options), deadline)?;
        facts.line_time = line_time;
        facts::await_links(&mut facts, &payload, root, deadline)?;
        Ok(facts)
    })?;
    let plan = timeline.step("plan", |_| plan::plan(payload, &facts, Scope::Boot))?;
    timeline.planned(&plan);
    if options.debug {
        plan.to_string().lines().for_each(say);
    }
    if !plan.pinned {
        say("no site pin in this image: trust is as good as the channel that brought the payload");
    }
    timeline.step("clock", |detail| prepare_clock(&plan, root, detail))?;
    let seeded = timeline.step("entropy", |detail| {
        entropy::seed(&plan.seed, root, deadline).inspect(|seeded| *detail = seeded.to_string())
    })?;
    let race = timeline.step("network", |detail| configure(&plan, root, deadline, detail))?;
    if options.debug {
        race.iter().flat_map(Race::report).for_each(|link| say(&format!("  {link}")));
    }
    let door = Door { root, boot: true, race, line };
    let limits = Limits { deadline, approval: options.approval_timeout };
    identify(&plan, &seeded, door, folder, Private::Mount, timeline, limits)
}

/// `imprint enroll`: from decoding to hand-over on a running system, whose clock and network stay as they are.
/// `approval`: how long an administrator may take.
pub fn enroll(
    root: &Path,
    file: &Path,
    out: &Path,
    timeout: Duration,
    approval: Option<Duration>,
) -> Result<(), Error> {
    let mut timeline = Timeline::new(|step| say(&step.to_string()));
    let limits = Limits { deadline: Deadline::after(timeout), approval };
    let folder = Folder::make(out)?;
    fault::recorded_in(out, timeline.record());
    match enroll_story(root, file, &folder, limits, &mut timeline) {
        Ok(pending) => finish(out, pending, &timeline),
        Err(error) => Err(stopped(out, &timeline, error)),
    }
}

fn enroll_story(
    root: &Path,
    file: &Path,
    folder: &Folder,
    limits: Limits,
    timeline: &mut Timeline,
) -> Result<Pending, Error> {
    let deadline = limits.deadline;
    let found = timeline.step("source", |_| source::file::named(file))?;
    timeline.found(&found.origin);
    let payload = timeline.step("payload", |_| source::decode(&found))?;
    let plan = timeline.step("plan", |_| planned(root, found, payload, Scope::CertificateOnly, deadline))?;
    timeline.planned(&plan);
    let seeded = timeline.step("entropy", |_| Seeded::ready(deadline))?;
    let door = Door { root, boot: false, race: None, line: None };
    identify(&plan, &seeded, door, folder, Private::Directory, timeline, limits)
}

/// How long all of it may take, and how long an administrator's approval, which has a limit of its own.
#[derive(Clone, Copy)]
struct Limits {
    deadline: Deadline,
    approval: Option<Duration>,
}

/// Key, CSR, certificate, hand-over: the part that a boot and a running system share.
fn identify(
    plan: &Plan,
    seeded: &Seeded,
    mut door: Door<'_>,
    folder: &Folder,
    private: Private,
    timeline: &mut Timeline,
    Limits { deadline, approval: approval_timeout }: Limits,
) -> Result<Pending, Error> {
    let (subject, server) = match &plan.identity {
        IdentityPlan::Enrol { subject, server } => (subject, server),
        IdentityPlan::Given(given) => return adopt(plan, given, &mut door, folder, private, timeline),
    };
    let identity = timeline.step("identity", |detail| {
        let identity = Identity::generate(subject, seeded)?;
        *detail = format!("{} key {}", subject.key, identity.code());
        Ok::<_, Error>(identity)
    })?;
    timeline.keyed(&identity.code());
    let user_agent = format!("imprint/{} ({})", env!("CARGO_PKG_VERSION"), plan.origin.kind());
    let request = door.line.and_then(|line| {
        let token = server.token.as_ref().map(|token| token.secret.expose().as_bytes()).unwrap_or_default();
        server.urls.contains(&EstUrl::Line).then(|| (line, seal::request(token, line.hello(), identity.csr())))
    });
    let issued = timeline.step("check-in", |detail| {
        let context = Context {
            line: request.as_ref().map(|(dialogue, request)| checkin::Line { dialogue, request }),
            server,
            clock: &plan.clock,
            identity: &identity,
            renews: None,
            user_agent: &user_agent,
            approval_timeout,
        };
        let mut ask = |ask: Ask| door.answer(ask);
        let issued = checkin::enroll(&context, &mut ask, &mut |progress| say(&progress.to_string()), deadline)?;
        *detail = format!("{} by {}", issued.facts().subject, issued.server());
        Ok::<_, Error>(issued)
    })?;
    timeline.step("hand-over", |detail| {
        let network = door.hand_over()?;
        let node = Node::new(plan, network.as_ref(), &identity.code(), issued.facts().not_after);
        *detail = format!("{}, valid until {}", folder.path().display(), issued.facts().not_after);
        let certificates = Certificates::new(&issued, &server.ca);
        Ok::<_, Error>(handover::write(folder, private, identity, &certificates, &node)?)
    })
}

/// Certificate and key from the payload: the same hand-over without a check-in.
fn adopt(
    plan: &Plan,
    given: &GivenPlan,
    door: &mut Door<'_>,
    folder: &Folder,
    private: Private,
    timeline: &mut Timeline,
) -> Result<Pending, Error> {
    let given = timeline.step("identity", |detail| {
        let given = Given::verify(given)?;
        *detail = format!("{} with {} key {}, from the payload", given.facts().subject, given.key_type(), given.code());
        Ok::<_, Error>(given)
    })?;
    timeline.keyed(&given.code());
    timeline.step("hand-over", |detail| {
        let network = door.hand_over()?;
        let node = Node::new(plan, network.as_ref(), &given.code(), given.facts().not_after);
        *detail = format!("{}, valid until {}", folder.path().display(), given.facts().not_after);
        let chain = given.chain().to_vec();
        Ok::<_, Error>(handover::write(folder, private, given, &Certificates::of(&chain, plan.ca()), &node)?)
    })
}

/// `imprint check`: the payload in a file, for people.
pub fn check(file: &Path) -> Result<String, Error> {
    Ok(source::decode(&source::file::named(file)?)?.to_string())
}

/// `imprint plan`: what the payload in a file would do on this machine.
pub fn plan(root: &Path, file: &Path) -> Result<String, Error> {
    let found = source::file::named(file)?;
    let payload = source::decode(&found)?;
    let deadline = Deadline::after(Duration::from_secs(10));
    Ok(planned(root, found, payload, Scope::Boot, deadline)?.to_string())
}

/// `imprint status`: what the last run did.
pub fn status(root: &Path) -> Result<String, Error> {
    let path = root.join(RUN_DIR).join("status.json");
    let text = source::text(root, &format!("{RUN_DIR}/status.json"))?;
    let status: Status = serde_json::from_str(&text)
        .map_err(|error| SourceError::Read { path, source: std::io::Error::other(error) })?;
    Ok(status.to_string())
}

fn planned(root: &Path, found: Found, payload: Payload, scope: Scope, deadline: Deadline) -> Result<Plan, Error> {
    let pin = facts::site_pin(root)?;
    // A running system's command line may hold words for the boot that this is not.
    let facts = facts::gather(root, found.origin, pin, None, deadline)?;
    Ok(plan::plan(payload, &facts, scope)?)
}

type Sought = Option<(Found, Option<facts::SitePin>)>;

fn find(
    options: &Options,
    root: &Path,
    cmdline: &str,
    line: &mut Option<Dialogue>,
    detail: &mut String,
) -> Result<Sought, Error> {
    let pin = facts::site_pin(root)?;
    let deadline = Deadline::after(options.timeout);
    *line = source::serial::listen(options, root, cmdline, false, deadline)?;
    // Beside the source that was used, what a person should know of the drives.
    let (drives, left) = (RefCell::new(String::new()), RefCell::new(Vec::new()));
    let heard = |line: Option<&Dialogue>, notice: Notice<'_>| match notice {
        Notice::Drive(words) => {
            say(words);
            drives.borrow_mut().extend(["; ", words]);
        }
        Notice::Left(drive) => left.borrow_mut().push(drive.to_owned()),
        Notice::Waiting(looked) => {
            let seconds = options.timeout.as_secs();
            let by = line.map(|line| format!(", or a host on {}; line key {}", line.names(), line.code()));
            let by = by.unwrap_or_default();
            say(&format!(
                "no payload yet ({looked}); waiting up to {seconds} s for a config drive labelled IMPRINT{by}"
            ));
        }
        Notice::Line(told) => {
            let code = line.map(|line| format!("; line key {}", line.code())).unwrap_or_default();
            say(&format!("{told}{code}"));
        }
    };
    let early = line.as_ref();
    let reader = Path::new(source::reader::PROGRAM);
    let mut notice = |notice: Notice<'_>| heard(early, notice);
    let mut found = source::find(options, root, reader, pin.is_some(), early, deadline, &mut notice)?;
    if let Err(looked) = &found
        && line.is_none()
        && let Some(late) = source::serial::listen(options, root, cmdline, true, deadline)?
    {
        let late = line.insert(late);
        let sought = source::serial::find(
            late,
            false,
            since_boot(),
            deadline,
            source::serial::Heard::default(),
            &mut |notice| heard(Some(late), notice),
        )?;
        found = sought.map_err(|lines| format!("{looked}; {lines}"));
    }
    if let Some(begun) = source::udevd::begin_anew(root, &left.borrow()) {
        say(&match begun {
            Ok(()) => "udevd waits for a drive that does not answer; it was begun anew, without that drive".to_owned(),
            Err(error) => format!(
                "udevd waits for a drive that does not answer, and could not be begun anew ({error}); the root device may \
                 not appear before the drive is detached"
            ),
        });
    }
    *detail = match &found {
        Ok(found) => format!("{}{}", found.origin, drives.borrow()),
        Err(looked) => format!("no payload ({looked}), booting on without"),
    };
    Ok(found.ok().map(|found| (found, pin)))
}

/// How long the questions about the time may take.
const TIME: Duration = Duration::from_secs(3);

fn prepare_clock(plan: &Plan, root: &Path, detail: &mut String) -> Result<(), ClockError> {
    clock::prepare(&plan.clock)?;
    if let ClockQuality::Line(time) = plan.clock.quality {
        write_rtc(root, time.clock().now());
    }
    *detail = plan.clock_words();
    Ok(())
}

fn configure<'p>(
    plan: &'p Plan,
    root: &'p Path,
    deadline: Deadline,
    detail: &mut String,
) -> Result<Option<Race<'p>>, NetworkError> {
    if let Some(hostname) = &plan.hostname {
        network::set_hostname(hostname)?;
    }
    let Some(wanted) = &plan.network else { return Ok(None) };
    let mut race = Race::new(wanted, plan.hostname.as_ref(), root)?;
    if !race.next(deadline, &mut no_link_yet)? {
        return Err(race.failure());
    }
    *detail = race.network()?.links.first().map(ToString::to_string).unwrap_or_default();
    Ok(Some(race))
}

fn no_link_yet(links: &[LinkReport]) {
    say("no link is usable yet:");
    if links.is_empty() {
        say("  none that the payload asks for has appeared; is its driver in the image?");
    }
    links.iter().for_each(|link| say(&format!("  {link}")));
}

/// The one door that leads back: what a check-in may ask for, and what has come of it in the end.
struct Door<'a> {
    root: &'a Path,
    /// A running system's clock and network are not ours to touch.
    boot: bool,
    race: Option<Race<'a>>,
    /// The line that the payload came on.
    line: Option<&'a Dialogue>,
}

impl Door<'_> {
    fn answer(&mut self, ask: Ask) -> Result<Reply, AskError> {
        match (ask, &mut self.race) {
            (Ask::SetClock(now), _) if self.boot => {
                clock::set(now).map_err(AskError::Clock)?;
                write_rtc(self.root, now);
                Ok(Reply::Done)
            }
            (Ask::NextLink(until), Some(race)) => {
                let more = race.next(until, &mut |_| ()).map_err(AskError::Network)?;
                Ok(if more { Reply::Done } else { Reply::NothingMore })
            }
            (Ask::RenewLease(until), Some(race)) => {
                race.renew(until).map_err(AskError::Network)?;
                Ok(Reply::Done)
            }
            _ => Ok(Reply::NothingMore),
        }
    }

    /// The network as it is in the end, written down for whatever manages it in the next stage.
    fn hand_over(&mut self) -> Result<Option<Network>, Error> {
        let Some(race) = &mut self.race else { return Ok(None) };
        let network = race.network()?;
        race.settle()?;
        handover::network::write(self.root, &network)?;
        Ok(Some(network))
    }
}

fn write_rtc(root: &Path, now: Timestamp) {
    if let Err(error) = clock::write_rtc(root, now) {
        say(&format!("{}; the next boot asks again", chain(&error)));
    }
}

fn finish(directory: &Path, pending: Pending, timeline: &Timeline) -> Result<(), Error> {
    pending.finish(&timeline.done()).map_err(|error| stopped(directory, timeline, error.into()))
}

/// Writes the status of a run that was stopped, where no identity is. The error that stopped it is the one to tell; that
/// the status cannot be written either is a line beside it.
fn stopped(directory: &Path, timeline: &Timeline, error: Error) -> Error {
    if let Err(second) = handover::fail(directory, &timeline.failed(error.stage(), cause(&error))) {
        say(&format!("status.json: {}", chain(&second)));
    }
    error
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(chain).unwrap_or_default()
}
