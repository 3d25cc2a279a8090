//! Serial lines as a source: decides on which lines to listen, and how long to wait for a payload. Never reads or
//! writes a frame itself; `dialogue` does that.

use std::path::Path;
use std::time::Duration;

use super::admission_key;
use super::typed::Typed;
use super::{AtOnce, Found, Notice, Origin, SourceError, judge, needs_no_line, order};
use crate::dialogue::{Awaited, Dialogue, Line, Told};
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
use crate::time::Deadline;
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
/// key can be made yet. `pin`: the image's. `present`: the medium that is there at once. `last`: all other sources have been searched, so
/// this waits for a key.
pub fn listen(
    options: &Options,
    root: &Path,
    cmdline: &str,
    pin: Option<&SitePin>,
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
    let dialogue = start(signals, lines, &seeded, Takes { plain: options.plain, pin }, awaited, root, deadline)?;
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
    start(signals, lines, &seeded, Takes { plain: true, pin }, None, root, deadline)
}

/// What payloads the node takes on its lines.
struct Takes<'a> {
    /// One that is not sealed.
    plain: bool,
    /// Those of this pin only. If it names signers, the node sends challenges.
    pin: Option<&'a SitePin>,
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
    let judge = takes.pin.and_then(judge);
    Dialogue::start(signals, lines, key, hello, judge, awaited, root).map_err(SourceError::Watch)
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
/// has to be called at first.
pub(crate) fn find(
    dialogue: &Dialogue,
    options: &Options,
    insist: bool,
    begun: Duration,
    deadline: Deadline,
    heard: Heard,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Result<Found, String>, SourceError> {
    let far = options.sources.iter().any(SourceName::is_far);
    let first = match (insist, far) {
        (true, _) => deadline,
        (false, true) => deadline.at_most(FAR),
        (false, false) => deadline.at(begun.saturating_add(AUTO)),
    };
    if dialogue.is_empty() && !insist && !far {
        let named = !dialogue.missing().is_empty();
        return Ok(Err(if named { lines_so_far(dialogue, "", ABSENT, true) } else { "no serial line".to_owned() }));
    }
    if insist || far {
        notice(Notice::Waiting(&lines_so_far(dialogue, "listening on", "is not there yet", false)));
    }
    Ok(hear(dialogue, first, (!insist).then_some(SPOKEN), deadline, heard, notice))
}

/// Waits until `first`. If a host speaks, waits on until nothing has come from it for `patience`.
fn hear(
    dialogue: &Dialogue,
    first: Deadline,
    patience: Option<Duration>,
    deadline: Deadline,
    mut heard: Heard,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Found, String> {
    let mut until = first;
    loop {
        if let Some(payload) = heard.payload.take() {
            return Ok(payload);
        }
        match dialogue.hear(until) {
            Some(told) => {
                let before = heard.spoken;
                heard.take(told, notice);
                if heard.spoken && !before {
                    until = patience.map_or(until, |patience| deadline.at_most(patience));
                }
            }
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
    Err(lines_so_far(dialogue, &format!("{what} on"), ABSENT, true) + gone)
}

const ABSENT: &str = "did not appear; is its driver in the image, and its name right?";

/// `WHAT ttyS0 at 115200; ttyUSB0 MISSING; tcp:192.0.2.1:8444: …`: the lines that are open, the lines that are missing, and the
/// places that are called at, with what happened there if it is the `end`. Never empty.
fn lines_so_far(dialogue: &Dialogue, what: &str, missing: &str, end: bool) -> String {
    let (names, absent, tried) = (dialogue.names(), dialogue.missing(), dialogue.tried());
    let open = (!names.is_empty()).then(|| format!("{what} {names}"));
    let absent = (!absent.is_empty()).then(|| format!("{} {missing}", absent.join(" and ")));
    let called = match end {
        true => tried.iter().map(|(place, words)| format!("{place}: {words}")).collect(),
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
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsFd, OwnedFd};

    use nix::poll::{PollFd, PollFlags};
    use nix::pty::openpty;

    use super::super::Surroundings;
    use super::*;
    use crate::line::Kind;
    use crate::line::Side;
    use crate::line::frame::{Frame, Packet};
    use crate::line::transfer::{Sender, Shape};

    /// A root without drives.
    fn around(root: &Path) -> Surroundings<'_> {
        Surroundings { root, reader: Path::new("/nowhere"), pinned: false, credentials: None }
    }

    /// A line that is a pseudo terminal, the host's end of it, and what keeps it open.
    fn line(until: Deadline) -> (Dialogue, File, OwnedFd) {
        let pair = openpty(None, None).unwrap();
        let path = nix::unistd::ttyname(&pair.slave).unwrap();
        let name = "line".to_owned();
        let place = Place { name, path, baud: None, set: true, console: false, virtio: false, keys: false };
        let mut port = Port::open(place).unwrap().unwrap();
        port.prepare().unwrap();
        let lines = vec![Line { pipe: port.into(), beacon: false, far: false }];
        let seeded = Seeded::ready(until).unwrap();
        let dialogue = start(
            Signals::catch().unwrap(),
            lines,
            &seeded,
            Takes { plain: true, pin: None },
            None,
            Path::new("/nowhere"),
            until,
        );
        (dialogue.unwrap(), File::from(pair.master), pair.slave)
    }

    /// The search waits for drives meanwhile. The person at the console must not have to wait for the report of the
    /// host.
    #[test]
    fn what_a_host_says_is_shown_before_its_payload_comes() {
        let later = Deadline::after(Duration::from_secs(30));
        let (dialogue, mut host, _slave) = line(later);
        let mut say = |frame| {
            let mut bytes = Vec::new();
            Packet { from: Side::Host, session: None, frame }.encode(&mut bytes);
            host.write_all(&bytes).unwrap();
        };
        say(Frame::Call(Versions { lowest: 7, highest: 8 }));
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
        let mut told = Vec::new();
        // The host sends its payload only after its report was shown.
        let mut notice = |notice: Notice<'_>| {
            if let Notice::Line(line) = notice {
                told.push(line.to_string());
                if matches!(line, Told::Foreign(_)) {
                    let mut pieces = Sender::new(0, Kind::Plain, vec![7; 100], Shape::default()).unwrap();
                    while let Some(frame) = pieces.next(0) {
                        say(frame);
                    }
                }
            }
        };
        let options = Options::parse("imprint=require").unwrap();
        let found = super::super::find(&options, &around(root.path()), None, Some(&dialogue), later, &mut notice);
        assert!(found.unwrap().unwrap().bytes.expose() == [7; 100]);
        assert!(
            matches!(&told[..], [heard, foreign, ..] if heard.starts_with("a host speaks") && foreign.contains("7 to 8"))
        );
    }

    /// A slow transfer takes longer than the patience. The node must not give up while pieces still arrive.
    #[test]
    fn a_host_that_goes_on_is_heard_to_the_end() {
        let later = Deadline::after(Duration::from_secs(60));
        let (dialogue, mut host, _slave) = line(later);
        let payload = vec![7; 4000];
        let sent = payload.clone();
        let thread = std::thread::spawn(move || {
            let mut pieces = Sender::new(0, Kind::Plain, sent, Shape { chunk: 180, window: 1 }).unwrap();
            let mut next = 0;
            while let Some(frame) = pieces.next(0) {
                next += u16::from(matches!(frame, Frame::Data { .. }));
                let mut bytes = Vec::new();
                Packet { from: Side::Host, session: None, frame }.encode(&mut bytes);
                host.write_all(&bytes).unwrap();
                pieces.acknowledged(next, 0);
                // The pace of a slow line: POLLPRI never comes, so poll waits for the whole time.
                let pace = Deadline::after(Duration::from_millis(150));
                sys::poll(&mut [PollFd::new(host.as_fd(), PollFlags::POLLPRI)], pace).unwrap();
            }
            host
        });
        let mut told = Vec::new();
        let mut notice = |notice: Notice<'_>| match notice {
            Notice::Line(line) => told.push(line.to_string()),
            Notice::Waiting(_) | Notice::Drive(_) | Notice::Left(_) => {}
        };
        let patience = Duration::from_millis(1500);
        let found = hear(&dialogue, later, Some(patience), later, Heard::default(), &mut notice).unwrap();
        assert!(found.bytes.expose() == payload);
        assert_eq!(told.first().map(String::as_str), Some("a host speaks on line"));
        thread.join().unwrap();
    }

    /// A pseudoterminal with a link to it in `/dev`.
    fn named_line(root: &Path, name: &str) -> nix::pty::OpenptyResult {
        let pair = openpty(None, None).unwrap();
        std::fs::create_dir_all(root.join("dev")).unwrap();
        std::os::unix::fs::symlink(nix::unistd::ttyname(&pair.slave).unwrap(), root.join("dev").join(name)).unwrap();
        pair
    }

    /// A USB adapter appears after a second, and later if its module is loaded late. The search once ended at once with
    /// `no payload found ()`.
    #[test]
    fn a_named_line_that_is_not_there_yet_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let later = Deadline::after(Duration::from_secs(60));
        let _there = named_line(root.path(), "early");
        let options = Options::parse("imprint.source=serial:early imprint.source=serial:late").unwrap();
        let dialogue = listen(&options, root.path(), "", None, None, false, later).unwrap().unwrap();
        assert_eq!((dialogue.names().as_str(), dialogue.missing()), ("early", vec!["late".to_owned()]));
        assert_eq!(
            lines_so_far(&dialogue, "listening on", "is not there yet", false),
            "listening on early; late is not there yet"
        );
        let _late = named_line(root.path(), "late");
        // Like a uevent, this makes the dialogue look for the missing lines again.
        dialogue.stage(crate::line::Stage::Payload);
        let Some(Told::Came { line }) = dialogue.hear(later) else { panic!("it did not come") };
        assert_eq!((line.as_str(), dialogue.names().as_str()), ("late", "early, late"));
        assert!(dialogue.missing().is_empty());
    }

    #[test]
    fn a_line_that_never_comes_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at_once = Deadline::after(Duration::ZERO);
        let mut told = Vec::new();
        for (words, want) in [
            (
                "imprint.source=serial:ttyUSB0,9600",
                "no payload found (ttyUSB0 did not appear; is its driver in the image, and its name right?); bring one \
                 where imprint.source= says: the serial line ttyUSB0 (imprint-host inject NODE --line LINE); or boot \
                 with imprint=auto to go on without",
            ),
            (
                "imprint.source=virtio",
                "no payload found (the virtio port imprint.0 did not appear; is its driver in the image, and its name \
                 right?); bring one where imprint.source= says: the virtio port imprint.0 (imprint-host inject NODE --line \
                 unix:PATH); or boot with imprint=auto to go on without",
            ),
        ] {
            let options = Options::parse(words).unwrap();
            let dialogue = listen(&options, root.path(), "", None, None, false, at_once).unwrap();
            let mut notice = |notice: Notice<'_>| {
                if let Notice::Waiting(looked) = notice {
                    told.push(looked.to_owned());
                }
            };
            let around = around(root.path());
            let found = super::super::find(&options, &around, None, dialogue.as_ref(), at_once, &mut notice);
            assert_eq!(found.unwrap_err().to_string(), want);
        }
        assert_eq!(told, ["ttyUSB0 is not there yet", "the virtio port imprint.0 is not there yet"]);
    }

    /// Whoever owns the network could have the node take any payload. So nothing is sent, and no link is brought up.
    #[test]
    fn a_line_of_a_network_needs_a_signer() {
        let root = tempfile::tempdir().unwrap();
        let later = Deadline::after(Duration::from_secs(60));
        let cas = SitePin { cas: vec![[1; 32]], ..SitePin::default() };
        for source in ["tcp:192.0.2.1:8444", "door", "vsock:7", "ether", "ether:eth7"] {
            let options = Options::parse(&format!("imprint.source={source} imprint.source=virtio")).unwrap();
            for pin in [None, Some(&cas)] {
                let Err(error) = listen(&options, root.path(), "", pin, None, false, later) else { panic!("{source}") };
                assert_eq!(
                    error.to_string(),
                    format!(
                        "imprint.source={source} leads to a network, where anybody can answer, so its payloads have to be \
                         signed, and the site pin of this image names no signer; put the line that imprint-host signer \
                         prints into /imprint/site"
                    )
                );
            }
        }
        // A medium before it in the order: the line is not needed, and no error.
        let options = Options::parse("imprint.source=cmdline imprint.payload=oQEB imprint.source=ether:eth7").unwrap();
        let present = super::super::at_once(&options, &around(root.path()));
        assert!(present.is_some());
        assert!(listen(&options, root.path(), "", None, present.as_ref(), false, later).unwrap().is_none());
    }

    /// The end of a search names each place that was called at, and what happened there.
    #[test]
    fn a_search_that_called_names_each_place() {
        let root = tempfile::tempdir().unwrap();
        let pin = SitePin::parse(include_bytes!("../../tests/data/site-signers")).unwrap();
        let options = Options::parse("imprint.source=ether:nowhere7").unwrap();
        let later = Deadline::after(Duration::from_secs(60));
        let dialogue = listen(&options, root.path(), "", Some(&pin), None, false, later).unwrap().unwrap();
        let told = dialogue.hear(later).unwrap().to_string();
        let missing = "there is no such link; is its driver in the image, and its name right?";
        assert_eq!(told, format!("ether:nowhere7: {missing}"));
        let (mut words, at_once) = (Vec::new(), Deadline::after(Duration::ZERO));
        let mut notice = |notice: Notice<'_>| {
            if let Notice::Waiting(looked) = notice {
                words.push(looked.to_owned());
            }
        };
        let around = around(root.path());
        let found = super::super::find(&options, &around, None, Some(&dialogue), at_once, &mut notice);
        assert_eq!(
            found.unwrap_err().to_string(),
            format!(
                "no payload found (ether:nowhere7: {missing}); bring one where imprint.source= says: a door next to this \
                 machine (imprint-host serve --door ether:LINK); or boot with imprint=auto to go on without"
            )
        );
        assert_eq!(words, ["calling ether:nowhere7"]);
    }

    /// For every combination of sources, the message names what was searched.
    #[test]
    fn no_search_ends_without_a_word() {
        let root = tempfile::tempdir().unwrap();
        let at_once = Deadline::after(Duration::ZERO);
        let sources = [
            "cmdline",
            "file",
            "credential",
            "partition",
            "efivar",
            "root-file",
            "config-drive",
            "config-drive:LAB",
            "virtio",
            "serial:ttyS9",
            "serial:hvc7",
        ];
        let named = |names: &[&str]| names.iter().map(|name| format!("imprint.source={name} ")).collect::<String>();
        let mut lines = vec!["imprint=require".to_owned()];
        for one in sources {
            lines.push(named(&[one]));
            lines.extend(sources.iter().map(|other| format!("imprint=require {}", named(&[one, other]))));
        }
        for words in lines {
            let options = Options::parse(&words).unwrap();
            let dialogue = listen(&options, root.path(), "", None, None, false, at_once).unwrap();
            let mut notice = |notice: Notice<'_>| {
                if let Notice::Waiting(looked) = notice {
                    assert!(!looked.trim().is_empty(), "{words}");
                }
            };
            let around = around(root.path());
            let found = super::super::find(&options, &around, None, dialogue.as_ref(), at_once, &mut notice);
            let error = found.unwrap_err().to_string();
            assert!(error.starts_with("no payload found ("), "{words}: {error}");
            let (looked, _) = error.trim_start_matches("no payload found (").split_once("); ").unwrap();
            assert!(looked.split("; ").all(|part| !part.trim().is_empty()), "{words}: {error}");
        }
    }

    /// `imprint=auto` beside the name: nothing is said on the line before a host speaks, also on a line that appears late, and a
    /// boot without a host goes on.
    #[test]
    fn a_line_that_is_named_with_auto_is_listened_to_and_not_insisted_on() {
        for (auto, beacons) in [("", true), ("imprint=auto ", false)] {
            let root = tempfile::tempdir().unwrap();
            let later = Deadline::after(Duration::from_secs(60));
            let words = format!("{auto}imprint.source=serial:early imprint.source=serial:late");
            let early = named_line(root.path(), "early");
            let options = Options::parse(&words).unwrap();
            let dialogue = listen(&options, root.path(), "", None, None, true, later).unwrap().unwrap();
            let late = named_line(root.path(), "late");
            // Like a uevent, this makes the dialogue look for the missing lines again.
            dialogue.stage(crate::line::Stage::Payload);
            let Some(Told::Came { .. }) = dialogue.hear(later) else { panic!("it did not come") };
            if beacons {
                for line in [&early, &late] {
                    let mut ready = [PollFd::new(line.master.as_fd(), PollFlags::POLLIN)];
                    assert!(sys::poll(&mut ready, later).unwrap(), "no HELLO");
                }
                continue;
            }
            let found = super::super::find(&options, &around(root.path()), None, Some(&dialogue), later, &mut |_| {});
            assert_eq!(found.unwrap().unwrap_err(), "no host spoke on early, late");
            for line in [&early, &late] {
                let mut ready = [PollFd::new(line.master.as_fd(), PollFlags::POLLIN)];
                assert!(!sys::poll(&mut ready, Deadline::after(Duration::ZERO)).unwrap(), "a HELLO");
            }
        }
    }
}
