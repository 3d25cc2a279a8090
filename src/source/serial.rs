//! Serial lines as a source: which of them are listened to, and how long for a payload. What is said on them is the
//! dialogue's.

use std::path::Path;
use std::time::Duration;

use super::uevent::Stir;
use super::{Found, Notice, Origin, SourceError, needs_no_line, order};
use crate::apply::entropy::Seeded;
use crate::dialogue::{Dialogue, Line, Told};
use crate::facts::{self, Dmi};
use crate::line::{Hello, LineKey, Nonce, Versions};
use crate::options::{Options, SourceName};
use crate::payload::HardwareAddress;
use crate::port::{self, Held, Place, Port, PortError, Quiet, Signals};
use crate::sys;
use crate::time::{Deadline, since_boot};

/// How long a host may take to speak where nothing insists on a payload: all that a boot without one waits for lines.
const AUTO: Duration = Duration::from_secs(1);
/// How long it may take from its first word to the payload.
const SPOKEN: Duration = Duration::from_secs(30);
/// How long a key may wait for the random pool. Without a key there is no HELLO.
const POOL: Duration = Duration::from_secs(20);

/// Begins to listen on the lines of the order, where there are any. `None`: there are none, or, where nothing insists on a
/// payload, no key can be made yet. `last`: everything else has been looked at, so that key is waited for.
pub fn listen(
    options: &Options,
    root: &Path,
    cmdline: &str,
    last: bool,
    deadline: Deadline,
) -> Result<Option<Dialogue>, SourceError> {
    if needs_no_line(options, root) {
        return Ok(None);
    }
    let insist = options.insists();
    let mut ports = Vec::new();
    for place in places(options, root, cmdline) {
        ports.extend(needed(options, Port::open(place))?.flatten());
    }
    let virtio =
        order(options).contains(&SourceName::Virtio).then(Stir::open).transpose().map_err(SourceError::Watch)?;
    if ports.is_empty() && virtio.is_none() {
        return Ok(None);
    }
    // Whoever waits for the pool makes the kernel fill it (src/sys.rs, pool_ready), and a seed on a drive would come late.
    if !insist && !last && !sys::pool_ready(false).unwrap_or(false) {
        return Ok(None);
    }
    let wait = if insist { deadline.at_most(POOL) } else { deadline.at_most(AUTO) };
    let Ok(seeded) = Seeded::ready(wait) else {
        // Under auto a line is no reason to wait for entropy.
        return if insist { Err(SourceError::NoKey) } else { Ok(None) };
    };
    let signals = Signals::catch().map_err(SourceError::Watch)?;
    let mut lines = Vec::new();
    for mut port in ports {
        if needed(options, port.prepare())?.is_some() {
            // On a line that is named, or that has to bring a payload, the node speaks first.
            lines.push(Line { port, beacon: insist });
        }
    }
    start(signals, lines, &seeded, options.plain, virtio, root, deadline).map(Some)
}

/// A console that somebody else holds is no reason not to boot; one that was named is.
fn needed<T>(options: &Options, result: Result<T, PortError>) -> Result<Option<T>, SourceError> {
    match result {
        Err(_) if options.sources.is_empty() => Ok(None),
        result => Ok(Some(result?)),
    }
}

/// The terminal that somebody types on, taken at once: what is pasted is neither echoed nor cut.
pub fn terminal(root: &Path, deadline: Deadline) -> Result<Dialogue, SourceError> {
    let place = port::terminal().ok_or(SourceError::NoTerminal)?;
    let mut port = Port::open(place)?.ok_or(SourceError::NoTerminal)?;
    let seeded = Seeded::ready(deadline.at_most(POOL)).map_err(|_| SourceError::NoKey)?;
    let signals = Signals::catch().map_err(SourceError::Watch)?;
    port.take(root, &mut Quiet::default())?;
    start(signals, vec![Line { port, beacon: false }], &seeded, true, None, root, deadline)
}

/// `signals` are caught already, so that none ends the program between taking a line and giving it back.
fn start(
    signals: (Signals, Held),
    lines: Vec<Line>,
    seeded: &Seeded,
    plain: bool,
    virtio: Option<Stir>,
    root: &Path,
    deadline: Deadline,
) -> Result<Dialogue, SourceError> {
    let key = LineKey::generate(seeded).map_err(SourceError::Key)?;
    let mut nonce = [0; 8];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SourceError::NoKey)?;
    let (Dmi { uuid, serial }, macs) = facts::identifiers(root, deadline);
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain,
        nonce: Nonce(nonce),
        key: key.public(),
        uuid,
        serial,
        macs: macs.iter().map(|mac| HardwareAddress::as_bytes(mac).to_vec()).collect(),
    };
    Dialogue::start(signals, lines, key, hello, virtio, root).map_err(SourceError::Watch)
}

/// The ports of the order, each once.
fn places(options: &Options, root: &Path, cmdline: &str) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut add = |place: Place| {
        if !places.iter().any(|known| known.path == place.path) {
            places.push(place);
        }
    };
    for source in order(options) {
        if let SourceName::Serial { name, baud } = source {
            add(port::named(root, cmdline, name, *baud));
        }
    }
    if options.sources.is_empty() {
        port::consoles(root, cmdline).into_iter().for_each(&mut add);
    }
    places
}

/// Waits for what somebody pastes, or for a host that speaks on the same line.
pub fn pasted(dialogue: &Dialogue, deadline: Deadline, notice: &mut dyn FnMut(&str)) -> Result<Found, SourceError> {
    let mut missing: Vec<usize> = Vec::new();
    loop {
        let until = if missing.is_empty() { deadline } else { deadline.at_most(PASTE) };
        match dialogue.hear(until) {
            Some(Told::Payload { line, sealed, bytes }) => {
                return Ok(Found { origin: Origin::Line { name: line, sealed }, bytes, cut: false });
            }
            Some(Told::Pasted { missing: lines }) => missing = lines,
            Some(told) => notice(&told.to_string()),
            None if deadline.expired() => {
                return Err(SourceError::Nothing { looked: format!("nothing was pasted on {}", dialogue.names()) });
            }
            None if missing.first() == Some(&1) => {
                notice("line 1 did not arrive whole; paste all lines again");
                missing.clear();
            }
            None => {
                let lines: Vec<String> = missing.iter().take(20).map(ToString::to_string).collect();
                notice(&format!("missing or garbled: line {}; paste again", lines.join(", ")));
                missing.clear();
            }
        }
    }
}

/// Whoever pastes is done when nothing more has come for so long.
const PASTE: Duration = Duration::from_millis(1500);

/// Waits for a payload: where nothing insists, only if a host has spoken.
pub(crate) fn find(
    dialogue: &Dialogue,
    insist: bool,
    begun: Duration,
    deadline: Deadline,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Result<Found, String>, SourceError> {
    let mut until = if insist { deadline } else { deadline.at(begun.saturating_add(AUTO)) };
    let mut heard = false;
    if dialogue.is_empty() && !insist {
        return Ok(Err("no serial line".to_owned()));
    }
    if insist {
        notice(Notice::Waiting(&format!("listening on {}", dialogue.names())));
    }
    while let Some(told) = dialogue.hear(until) {
        match told {
            Told::Payload { line, sealed, bytes } => {
                let origin = Origin::Line { name: line, sealed };
                return Ok(Ok(Found { origin, bytes, cut: false }));
            }
            Told::Heard { .. } if !heard => {
                heard = true;
                notice(Notice::Line(&told));
                if !insist {
                    until = deadline.at(since_boot().saturating_add(SPOKEN));
                }
            }
            other => notice(Notice::Line(&other)),
        }
    }
    let what = if heard { "a host spoke, but sent no payload" } else { "no host spoke" };
    Ok(Err(format!("{} on {}", what, dialogue.names())))
}

impl From<PortError> for SourceError {
    fn from(error: PortError) -> SourceError {
        SourceError::Port(error)
    }
}
