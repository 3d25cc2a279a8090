//! The lines as a source: which of the order are opened or called at, whether the node speaks first, and how long a payload is
//! waited for: serial and virtio ports, vsock, Ethernet links, and what is pasted at `imprint console`. Places that have to be found
//! over a network come later (`finding`). Never reads or writes a frame itself; `dialogue` does that.
//!
//! Whoever is at the other end vouches for what comes on a port. On a line that leads to a network anybody may be there, so its
//! payloads have to be signed (docs/line-protocol.md, "Fresh payloads").

use std::path::Path;
use std::time::Duration;

use super::admission_key;
use super::typed::Typed;
use super::waiting::{Waiting, within_a_minute};
use super::{AtOnce, Fits, Found, Notice, Origin, SourceError, judge, needs_no_line, order};
use crate::dialogue::{Awaited, Dialogue, Judge, Line, Told};
use crate::line::{Hello, LineKey, Nonce, Versions};
use crate::machine::{self, Dmi};
use crate::options::{Options, SourceName};
use crate::payload::HardwareAddress;
use crate::pipe::{PipeError, Target};
use crate::pool::Seeded;
use crate::port::{self, Held, Place, Port, PortError, Quiet, Signals};
use crate::shown::Printable;
use crate::site::SitePin;
use crate::sys;
use crate::time::{Deadline, since_boot};
use crate::uevent::Stir;

/// How long a host may take to begin when no payload is required. A boot without a payload waits no longer for lines.
const AUTO: Duration = Duration::from_secs(1);
/// How long a door that was named may take where the boot goes on without one: DHCP, and names, and then the host.
const FAR: Duration = Duration::from_secs(30);
/// How long a host may take from its first frame to the first piece of the payload, and from one piece to the next. A
/// whole payload may take longer on a slow line: 20 KB at 9600 bits a second take more than 20 s.
const SPOKEN: Duration = Duration::from_secs(30);
/// How long the line key may wait for the random pool. Without the key the node sends no HELLO.
const POOL: Duration = Duration::from_secs(20);

/// Begins to listen on the lines of the order. `None`: the order has no lines, or nothing insists on a payload and no
/// key can be made yet. `pin`: the image's. `fits`: whether a
/// payload of a far line is for this machine. `present`: the medium that is there at once. `last`: all other sources have been searched, so
/// this waits for a key.
pub fn listen(
    options: &Options,
    (root, cmdline): (&Path, &str),
    (pin, fits): (Option<&SitePin>, Fits),
    present: Option<&AtOnce>,
    last: bool,
    deadline: Deadline,
) -> Result<Option<Dialogue>, SourceError> {
    if needs_no_line(options, present) {
        return Ok(None);
    }
    let insist = options.insists();
    let order = order(options, true);
    if !order.iter().any(SourceName::is_line) {
        return Ok(None);
    }
    // Before anything is sent: the node would hand its identifiers to a network whose answers it can never accept.
    let far = order.iter().find(|source| source.is_far());
    if let Some(far) = far.filter(|_| !pin.is_some_and(SitePin::has_signers)) {
        return Err(SourceError::NoSigner(far.to_string()));
    }
    // Opened before the ports are listed, so that a port that appears meanwhile is not missed.
    let stir = Stir::open().map_err(SourceError::Watch)?;
    let (mut ports, mut missing) = (Vec::new(), Vec::new());
    for place in places(options, root, cmdline) {
        match needed(options, Port::open(place.clone()))?.flatten() {
            Some(port) => ports.push(port),
            // A USB adapter or its driver may be slow. The operator named the line, so wait for it.
            None if !options.sources.is_empty() => missing.push(place),
            None => {}
        }
    }
    let virtio = order.contains(&SourceName::Virtio);
    let awaited = (virtio || !missing.is_empty()).then_some(Awaited { stir, virtio, places: missing, insist });
    if ports.is_empty() && awaited.is_none() && far.is_none() {
        return Ok(None);
    }
    // Waiting for the pool makes the kernel fill it by itself (src/sys.rs, pool_ready). A seed from a drive would then
    // come too late. So do not wait before the drives have been searched.
    if !insist && !last && !sys::pool_ready(false).unwrap_or(false) {
        return Ok(None);
    }
    let wait = if insist { deadline.at_most(POOL) } else { deadline.at_most(AUTO) };
    let Ok(seeded) = Seeded::ready(wait) else {
        // If no payload is required, a line alone does not justify a longer wait for entropy.
        return if insist { Err(SourceError::NoKey) } else { Ok(None) };
    };
    let signals = Signals::catch().map_err(SourceError::Watch)?;
    let mut lines = Vec::new();
    for mut port in ports {
        if needed(options, port.prepare())?.is_some() {
            // The node speaks first only when a payload is required. Otherwise it waits for the host's first frame.
            lines.push(Line { pipe: port.into(), beacon: insist, far: false });
        }
    }
    let image = admission_key::of_image(root)?;
    let takes = Takes { plain: options.plain, pin, judge: pin.and_then(|pin| judge(pin, fits)) };
    let dialogue = start(signals, lines, &seeded, takes, awaited, root, deadline)?;
    if let Some(image) = image {
        image.note().into_iter().for_each(|note| dialogue.prover().tell(note));
        dialogue.prover().prove(image.key, Printable::path(&image.path).to_string());
    }
    let targets = near_at_hand(options);
    if !targets.is_empty() {
        dialogue.call(targets);
    }
    Ok(Some(dialogue))
}

/// The places that can be called at without an address of this machine.
fn near_at_hand(options: &Options) -> Vec<Target> {
    let target = |source: &SourceName| match source {
        SourceName::Vsock(port) => Some(Target::Vsock { cid: HYPERVISOR, port: *port }),
        SourceName::Ether(link) => Some(Target::Ether(link.clone())),
        _ => None,
    };
    let mut targets = Vec::new();
    for target in order(options, true).iter().filter_map(target) {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

/// VMADDR_CID_HOST (vsock(7)).
const HYPERVISOR: u32 = 2;

/// An error of a line stops the boot only if the operator named the line. A console that another program holds is
/// ignored.
fn needed<T>(options: &Options, result: Result<T, PortError>) -> Result<Option<T>, SourceError> {
    match result {
        Err(_) if options.sources.is_empty() => Ok(None),
        result => Ok(Some(result?)),
    }
}

/// The operator's terminal. It is made raw at once, so that pasted lines are neither echoed nor cut.
pub fn terminal(root: &Path, pin: Option<&SitePin>, deadline: Deadline) -> Result<Dialogue, SourceError> {
    let place = port::terminal().ok_or(SourceError::NoTerminal)?;
    let mut port = Port::open(place)?.ok_or(SourceError::NoTerminal)?;
    let seeded = Seeded::ready(deadline.at_most(POOL)).map_err(|_| SourceError::NoKey)?;
    let signals = Signals::catch().map_err(SourceError::Watch)?;
    port.take(root, &mut Quiet::default())?;
    let lines = vec![Line { pipe: port.into(), beacon: false, far: false }];
    // Nobody else is at a terminal.
    start(signals, lines, &seeded, Takes { plain: true, pin, judge: None }, None, root, deadline)
}

/// What payloads the node takes on its lines.
struct Takes<'a> {
    /// One that is not sealed.
    plain: bool,
    /// Those of this pin only. If it names signers, the node sends challenges.
    pin: Option<&'a SitePin>,
    /// Judges those that come on far lines.
    judge: Option<Judge>,
}

/// The caller catches the signals before it takes a line, so that no signal ends the program while a line is changed.
fn start(
    signals: (Signals, Held),
    lines: Vec<Line>,
    seeded: &Seeded,
    takes: Takes<'_>,
    awaited: Option<Awaited>,
    root: &Path,
    deadline: Deadline,
) -> Result<Dialogue, SourceError> {
    let key = LineKey::generate(seeded).map_err(SourceError::Key)?;
    let mut nonce = [0; 8];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SourceError::NoKey)?;
    let (Dmi { uuid, serial }, macs) = machine::identifiers(root, deadline);
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: takes.plain,
        fresh: takes.pin.is_some_and(SitePin::has_signers),
        nonce: Nonce(nonce),
        key: key.public(),
        uuid,
        serial,
        macs: macs.iter().map(|mac| HardwareAddress::as_bytes(mac).to_vec()).collect(),
    };
    Dialogue::start(signals, lines, key, hello, takes.judge, awaited, root).map_err(SourceError::Watch)
}

/// The serial ports among the sources, each once.
fn places(options: &Options, root: &Path, cmdline: &str) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut add = |place: Place| {
        if !places.iter().any(|known| known.path == place.path) {
            places.push(place);
        }
    };
    for source in &order(options, true) {
        if let SourceName::Serial { name, baud } = source {
            add(port::named(root, cmdline, name, *baud));
        }
    }
    if options.sources.is_empty() {
        port::consoles(root, cmdline).into_iter().for_each(&mut add);
    }
    places
}

/// Waits for a payload that is pasted, or that a host sends on the same line.
pub fn pasted(dialogue: &Dialogue, deadline: Deadline, notice: &mut dyn FnMut(&str)) -> Result<Found, SourceError> {
    let (mut missing, mut typed): (Vec<usize>, _) = (Vec::new(), Typed::new());
    loop {
        let idle = missing.is_empty() && typed.is_blank();
        let until = if idle { deadline } else { deadline.at_most(PASTE) };
        match dialogue.hear(until) {
            Some(Told::Payload { line, sealed, fresh, bytes }) => {
                return Ok(Found { origin: Origin::Line { name: line, sealed }, bytes, cut: false, fresh });
            }
            Some(Told::Pasted { missing: lines }) => {
                missing = lines;
                // Garbled lines are among the missing lines, so they are not reported as another form.
                typed.clear();
            }
            Some(Told::Typed(bytes)) => typed.push(bytes.expose()),
            Some(Told::Lost(error)) if dialogue.is_over() => return Err(error.into()),
            Some(told) => notice(&told.to_string()),
            None if deadline.expired() || dialogue.is_over() => {
                let looked = format!("nothing was pasted on {}", dialogue.names());
                return Err(SourceError::Nothing { looked, remedy: PASTE_AGAIN.to_owned() });
            }
            None if missing.first() == Some(&1) => {
                notice("line 1 did not arrive whole; paste all lines again");
                missing.clear();
                typed.clear();
            }
            None if missing.is_empty() => {
                notice(&typed.named());
                typed.clear();
            }
            None => {
                let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
                notice(&format!("missing or garbled: line {}; paste again", lines.join(", ")));
                missing.clear();
                typed.clear();
            }
        }
    }
}

/// The remedy when nothing was pasted.
const PASTE_AGAIN: &str = "run imprint console again, and paste what imprint-host payload NODE --as text prints";

/// A paste has ended when nothing has arrived for this long.
const PASTE: Duration = Duration::from_millis(1500);

/// What the dialogue has reported so far.
#[derive(Default)]
pub(crate) struct Heard {
    /// A host has spoken.
    spoken: bool,
    payload: Option<Found>,
}

impl Heard {
    fn take(&mut self, told: Told, notice: &mut dyn FnMut(Notice<'_>)) {
        match told {
            Told::Payload { line, sealed, fresh, bytes } => {
                self.payload = Some(Found { origin: Origin::Line { name: line, sealed }, bytes, cut: false, fresh });
            }
            // The dialogue reports each pasted piece; a message for each would be too many.
            Told::Pasted { .. } => {}
            told => {
                // What happened at the places that are called at is told beside the lines.
                self.spoken |= matches!(told, Told::Heard { called: false, .. });
                notice(Notice::Line(&told));
            }
        }
    }

    /// Takes all reports that are ready. Returns whether a payload has come.
    pub(crate) fn catch_up(&mut self, dialogue: &Dialogue, notice: &mut dyn FnMut(Notice<'_>)) -> bool {
        while self.payload.is_none()
            && let Some(told) = dialogue.news()
        {
            self.take(told, notice);
        }
        self.payload.is_some()
    }
}

/// Waits for a payload. If none is required, waits longer than [`AUTO`] only if a host has spoken, or if a door that was named
/// has to be called at first. Goes on beyond both for an administrator.
pub(crate) fn find(
    waiting: &Waiting<'_>,
    options: &Options,
    insist: bool,
    begun: Duration,
    deadline: Deadline,
    heard: Heard,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Result<Found, String>, SourceError> {
    let dialogue = waiting.dialogue;
    let far = options.sources.iter().any(SourceName::is_far);
    let first = first_word(insist, far, begun).map_or(deadline, |moment| deadline.at(moment));
    if dialogue.is_empty() && !insist && !far {
        let named = !dialogue.missing().is_empty();
        return Ok(Err(if named { lines_so_far(dialogue, "", ABSENT, true) } else { "no serial line".to_owned() }));
    }
    if insist || far {
        notice(Notice::Waiting(&lines_so_far(dialogue, "listening on", "is not there yet", false)));
    }
    Ok(hear(waiting, first, (!insist).then_some(SPOKEN), deadline, heard, notice))
}

/// Until when a host may take to speak, since boot. `None`: as long as the boot waits at all. `begun`: when the search began.
fn first_word(insist: bool, far: bool, begun: Duration) -> Option<Duration> {
    match (insist, far) {
        (true, _) => None,
        (false, true) => Some(since_boot().saturating_add(FAR)),
        (false, false) => Some(begun.saturating_add(AUTO)),
    }
}

/// Waits until `first`. If a host speaks, waits on until nothing has come from it for `patience`; and for an administrator.
fn hear(
    waiting: &Waiting<'_>,
    first: Deadline,
    patience: Option<Duration>,
    deadline: Deadline,
    mut heard: Heard,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Found, String> {
    let (dialogue, mut until) = (waiting.dialogue, first);
    loop {
        if let Some(payload) = heard.payload.take() {
            return Ok(payload);
        }
        let end = waiting.until(until, notice);
        match dialogue.hear(within_a_minute(end)) {
            Some(told) => {
                let before = heard.spoken;
                heard.take(told, notice);
                if heard.spoken && !before {
                    until = patience.map_or(until, |patience| deadline.at_most(patience));
                }
            }
            None if !end.expired() && !dialogue.is_over() => {}
            None => {
                let more = patience.zip(dialogue.progress()).map(|(patience, at)| at.saturating_add(patience));
                match more.map(|moment| deadline.at(moment)).filter(|more| !more.expired() && !dialogue.is_over()) {
                    Some(more) => until = more,
                    None => break,
                }
            }
        }
    }
    let what = if heard.spoken { "a host spoke, but sent no payload" } else { "no host spoke" };
    let gone = if dialogue.is_over() { ", and all lines are lost" } else { "" };
    let mut looked = lines_so_far(dialogue, &format!("{what} on"), ABSENT, true) + gone;
    // Its place may be called at anew just now.
    if let Some(waits) = dialogue.waits().filter(|waits| !looked.contains(&waits.words)) {
        looked.push_str(&format!("; a host had this node wait: {}", waits.words));
    }
    Err(looked)
}

const ABSENT: &str = "did not appear; is its driver in the image, and its name right?";

/// `WHAT ttyS0 at 115200; ttyUSB0 MISSING; tcp:192.0.2.1:8444: …`: the lines that are open, the lines that are missing, and the
/// places that are called at, with what happened there if it is the `end`. Never empty.
fn lines_so_far(dialogue: &Dialogue, what: &str, missing: &str, end: bool) -> String {
    let (names, absent, tried) = (dialogue.names(), dialogue.missing(), dialogue.tried());
    let open = (!names.is_empty()).then(|| format!("{what} {names}"));
    let absent = (!absent.is_empty()).then(|| format!("{} {missing}", absent.join(" and ")));
    let called = match end {
        true => happened(&tried),
        false if tried.is_empty() => Vec::new(),
        false => {
            let places: Vec<&str> = tried.iter().map(|(place, _)| place.as_str()).collect();
            vec![format!("calling {}", places.join(", "))]
        }
    };
    let said: Vec<String> = open.into_iter().chain(absent).chain(called).collect();
    match said.as_slice() {
        [] if dialogue.is_over() => "no place to call at is known".to_owned(),
        [] => format!("the virtio port imprint.0 {missing}"),
        said => said.join("; "),
    }
}

/// What happened at the places that were called at: `tcp:192.0.2.1:8444 and tcp:192.0.2.2:8444: no answer`. A domain may name many
/// doors, and where the same happened at several it is said once.
fn happened(tried: &[(String, String)]) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (place, words) in tried {
        match groups.iter_mut().find(|(known, _)| known == words) {
            Some((_, places)) => places.push(place),
            None => groups.push((words, vec![place])),
        }
    }
    let line = |(words, places): (&str, Vec<&str>)| {
        let more = places.len().saturating_sub(NAMED);
        let mut named: Vec<String> = places.into_iter().take(NAMED).map(str::to_owned).collect();
        let last = if more == 0 { named.pop() } else { Some(format!("{more} more")) }.unwrap_or_default();
        let named = if named.is_empty() { last } else { format!("{} and {last}", named.join(", ")) };
        format!("{named}: {words}")
    };
    groups.into_iter().map(line).collect()
}

/// So many places with the same words are named.
const NAMED: usize = 3;

impl From<PortError> for SourceError {
    fn from(error: PortError) -> SourceError {
        SourceError::Line(error.into())
    }
}

impl From<PipeError> for SourceError {
    fn from(error: PipeError) -> SourceError {
        SourceError::Line(error)
    }
}

#[cfg(test)]
mod tests;
