//! The node's side of serial lines: ports and protocol in a thread of its own, so that a host is answered while the
//! node is busy with its network. Bytes go in and out here and nowhere else; what a payload says is not known here.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::chain::chain;
use crate::identity::KeyCode;
use crate::line::frame::NotTaken;
use crate::line::seal::SealError;
use crate::line::{Hello, Kind, LineKey, Node, NodeEvent, Shape, Stage, Versions, Wire};
use crate::port::{self, Held, Port, PortError, Quiet, Signals};
use crate::secret::Secret;
use crate::source::uevent::Stir;
use crate::sys;
use crate::time::{Clock, Deadline, Timestamp, since_boot};

/// A conversation, or the hope for one.
pub struct Dialogue {
    commands: Sender<Command>,
    told: Receiver<Told>,
    /// Wakes the thread.
    wake: Arc<EventFd>,
    /// Readable once a payload has come.
    came: Arc<EventFd>,
    hello: Hello,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
    /// Until the lines are given back.
    _held: Held,
}

/// A port, and how to use it.
pub struct Line {
    /// Where the bytes go.
    pub port: Port,
    /// The node speaks first.
    pub beacon: bool,
}

/// What both sides look at.
struct Shared {
    /// A host has begun a conversation.
    open: bool,
    /// The lines.
    names: Vec<String>,
}

enum Command {
    Stage(Stage),
    Say(Kind, Vec<u8>),
    AskTime,
    End,
}

/// What the thread tells.
#[derive(Debug)]
pub enum Told {
    /// A host was heard for the first time.
    Heard {
        /// On which line.
        line: String,
    },
    /// A payload has come. From now on there is this line only.
    Payload {
        /// On which line.
        line: String,
        /// It was sealed for this node.
        sealed: bool,
        /// The bytes.
        bytes: Secret,
    },
    /// A payload that was sealed for somebody else.
    Unsealed(SealError),
    /// What time it is.
    Time(LineTime),
    /// What became of the request.
    Answer(Answer),
    /// The host has this now.
    Sent(Kind),
    /// The host does not take this.
    NotTaken(Kind, NotTaken),
    /// The host speaks other versions.
    Foreign(Versions),
    /// Lines of a text were pasted. `missing`: those that are not there yet, from 1.
    Pasted {
        /// Empty: all are there.
        missing: Vec<usize>,
    },
    /// Nobody takes what is written to a line. It is tried again.
    Stalled(PortError),
    /// A line is of no use any more.
    Lost(PortError),
}

/// Why there will be no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// The host takes no request.
    NotTaken(NotTaken),
    /// There is no line any more.
    Lost(String),
}

/// What a host says to a request.
#[derive(Debug)]
pub enum Answer {
    /// Certificates, as certs-only CMS.
    Certificates(Vec<u8>),
    /// An administrator has to approve.
    Pending(String),
    /// No.
    Refused(String),
}

/// The time of day by a host, and how far it may be off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineTime {
    /// The time of day.
    pub clock: Clock,
    /// The time that it really is differs by this at most.
    pub bound: Duration,
}

/// Questions about the time: the best of so many answers counts.
const QUESTIONS: u32 = 3;
/// A payload that cannot be opened is asked for again so often.
const OPENINGS: u8 = 3;

impl Dialogue {
    /// Begins to listen, and to speak where that is wanted. `hello` is what the node says of itself. `virtio`: the port
    /// imprint.0 is taken when it comes.
    pub fn start(
        (signals, held): (Signals, Held),
        lines: Vec<Line>,
        key: LineKey,
        hello: Hello,
        virtio: Option<Stir>,
        root: &Path,
    ) -> std::io::Result<Dialogue> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let (wake, came) = (Arc::new(EventFd::from_flags(flags)?), Arc::new(EventFd::from_flags(flags)?));
        let (commands, orders) = channel();
        let (tell, told) = channel();
        let names = lines.iter().map(|line| line.port.label()).collect();
        let shared = Arc::new(Mutex::new(Shared { open: false, names }));
        let worker = Worker {
            lines: lines.into_iter().map(|line| Spoken::new(line, &hello)).collect(),
            key,
            orders,
            tell,
            wake: Arc::clone(&wake),
            came: Arc::clone(&came),
            shared: Arc::clone(&shared),
            virtio,
            hello: hello.clone(),
            signals,
            quiet: Quiet::default(),
            root: root.to_owned(),
            openings: 0,
            lost: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("line".to_owned()).spawn(move || worker.run())?;
        Ok(Dialogue { commands, told, wake, came, hello, shared, thread: Some(thread), _held: held })
    }

    /// The lines, for messages.
    pub fn names(&self) -> String {
        locked(&self.shared).names.join(", ")
    }

    /// Whether there is no line at all.
    pub fn is_empty(&self) -> bool {
        locked(&self.shared).names.is_empty()
    }

    /// The code of the key that payloads are sealed with: the host shows it, too.
    pub fn code(&self) -> KeyCode {
        KeyCode::of(&self.hello.key)
    }

    /// What the node says of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Readable once a payload has come.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.came.as_fd()
    }

    /// Whether a host is there, as far as is known.
    pub fn is_open(&self) -> bool {
        locked(&self.shared).open
    }

    /// The next thing that is told, until then at the latest.
    pub fn hear(&self, until: Deadline) -> Option<Told> {
        self.told.recv_timeout(until.remaining()).ok()
    }

    /// How far the node is.
    pub fn stage(&self, stage: Stage) {
        self.command(Command::Stage(stage));
    }

    /// Says something, until it says something else.
    pub fn say(&self, kind: Kind, bytes: Vec<u8>) {
        self.command(Command::Say(kind, bytes));
    }

    /// Asks for the time, a few times; the answer that was quickest counts.
    pub fn time(&self, until: Deadline) -> Option<LineTime> {
        let mut best: Option<LineTime> = None;
        for _ in 0..QUESTIONS {
            self.command(Command::AskTime);
            let time = loop {
                match self.hear(until) {
                    Some(Told::Time(time)) => break time,
                    Some(_) => {}
                    // What was learned so far is better than nothing.
                    None => return best,
                }
            };
            if best.is_none_or(|best| time.bound < best.bound) {
                best = Some(time);
            }
        }
        best
    }

    /// What the host says to the request, until then at the latest.
    pub fn answer(&self, until: Deadline) -> Result<Option<Answer>, NoAnswer> {
        loop {
            match self.told.recv_timeout(until.remaining()) {
                Ok(Told::Answer(answer)) => return Ok(Some(answer)),
                Ok(Told::NotTaken(Kind::Request, reason)) => return Err(NoAnswer::NotTaken(reason)),
                Ok(Told::Lost(error)) if self.is_empty() => return Err(NoAnswer::Lost(chain(&error))),
                Err(RecvTimeoutError::Disconnected) => return Err(NoAnswer::Lost("it was given back".to_owned())),
                Err(RecvTimeoutError::Timeout) => {
                    // Lost before it was asked for an answer, perhaps.
                    let lost = || NoAnswer::Lost("it broke".to_owned());
                    return if self.is_empty() { Err(lost()) } else { Ok(None) };
                }
                Ok(_) if until.expired() => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    /// The last word: how it ended. Returns when the host has it, or then at the latest; no longer than a moment when
    /// nobody is there.
    pub fn report(self, stage: Stage, report: Vec<u8>, until: Deadline) {
        if !self.is_open() {
            return;
        }
        self.command(Command::Stage(stage));
        self.command(Command::Say(Kind::Report, report));
        while let Some(told) = self.hear(until) {
            let over = matches!(told, Told::Sent(Kind::Report) | Told::NotTaken(Kind::Report, _));
            if over || self.is_empty() || until.expired() {
                return;
            }
        }
    }

    fn command(&self, command: Command) {
        // A thread that has ended has nothing to do any more.
        if self.commands.send(command).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// The lines are given back as they were.
impl Drop for Dialogue {
    fn drop(&mut self) {
        self.command(Command::End);
        if let Some(thread) = self.thread.take() {
            // It did not panic: it cannot.
            drop(thread.join());
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    lines: Vec<Spoken>,
    key: LineKey,
    orders: Receiver<Command>,
    tell: Sender<Told>,
    wake: Arc<EventFd>,
    came: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
    /// The virtio port may still come.
    virtio: Option<Stir>,
    hello: Hello,
    signals: Signals,
    quiet: Quiet,
    root: PathBuf,
    openings: u8,
    /// Why lines were lost, until it is told.
    lost: Vec<PortError>,
}

/// A port with the protocol on it.
struct Spoken {
    port: Port,
    wire: Wire<Node>,
    lost: bool,
    /// The last write took too long.
    stalled: bool,
}

impl Spoken {
    fn new(Line { port, beacon }: Line, hello: &Hello) -> Spoken {
        let wire = Wire::new(Node::new(hello.clone(), beacon, Shape::default()), port.baud());
        Spoken { port, wire, lost: false, stalled: false }
    }
}

/// A write that takes longer than this has nobody at the other end.
const STALLED: Duration = Duration::from_secs(5);

/// Microseconds since boot: the clock of everything on a line.
fn now() -> u64 {
    u64::try_from(since_boot().as_micros()).unwrap_or(u64::MAX)
}

impl Worker {
    fn run(mut self) {
        self.look_for_virtio();
        loop {
            let next = self.speak();
            if self.lines.iter().any(|line| line.lost) {
                self.lines.retain(|line| !line.lost);
                self.rename();
            }
            // Once they are gone, so that whoever hears of it finds them gone.
            for error in std::mem::take(&mut self.lost) {
                self.tell(Told::Lost(error));
            }
            // Microseconds since boot; without a timer somebody else ends the wait.
            let until = next.map_or(Duration::MAX, Duration::from_micros);
            let mut fds = vec![
                PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.virtio.iter().map(|stir| PollFd::new(stir.as_fd(), PollFlags::POLLIN)));
            fds.extend(self.lines.iter().map(|line| PollFd::new(line.port.as_fd(), PollFlags::POLLIN)));
            if sys::poll(&mut fds, Deadline::after(Duration::MAX).at(until)).is_err() {
                return;
            }
            if let Some(signal) = self.signals.take() {
                // As it was before anything else: whoever sent it wants an end.
                self.lines.clear();
                signal.end();
            }
            let _ = self.wake.read();
            loop {
                match self.orders.try_recv() {
                    Ok(Command::End) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                    Ok(command) => self.obey(command),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                }
            }
            self.listen();
            self.look_for_virtio();
        }
    }

    fn rename(&self) {
        let mut shared = locked(&self.shared);
        shared.names = self.lines.iter().map(|line| line.port.label()).collect();
        shared.open &= !self.lines.is_empty();
    }

    /// The virtio port has its name only some time after its device (drivers/char/virtio_console.c).
    fn look_for_virtio(&mut self) {
        let Some(stir) = &self.virtio else { return };
        stir.drain();
        let port = port::virtio(&self.root).and_then(|place| Port::open(place).transpose());
        match port {
            None => return,
            Some(Ok(port)) => self.lines.push(Spoken::new(Line { port, beacon: true }, &self.hello)),
            Some(Err(error)) => self.lost.push(error),
        }
        self.virtio = None;
        self.rename();
    }

    fn obey(&mut self, command: Command) {
        for line in &mut self.lines {
            let node = line.wire.end_mut();
            match &command {
                Command::Stage(stage) => node.set_stage(*stage),
                Command::Say(kind, bytes) => node.say(*kind, bytes.clone()),
                Command::AskTime => node.ask_time(),
                Command::End => {}
            }
        }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        for line in &mut self.lines {
            match line.port.read(&mut buffer) {
                Ok(0) => {}
                Ok(count) => line.wire.push(buffer.get(..count).unwrap_or_default(), now()),
                Err(error) => {
                    line.lost = true;
                    self.lost.push(error);
                }
            }
        }
    }

    /// Sends what is to be sent, tells what is to be told; when to do so again.
    fn speak(&mut self) -> Option<u64> {
        let mut next: Option<u64> = None;
        let mut stalled = Vec::new();
        let mut index = 0;
        while let Some(line) = self.lines.get_mut(index) {
            if line.lost {
                index = index.saturating_add(1);
                continue;
            }
            let polled = line.wire.poll(now());
            if !polled.bytes.is_empty() {
                // What nobody takes is dropped, as a line may do; the protocol says it again. Waited for once only.
                let limit = if line.stalled { Duration::ZERO } else { STALLED };
                match line.port.write_all(&polled.bytes, Deadline::after(limit)) {
                    Ok(()) => line.stalled = false,
                    Err(error @ PortError::Stalled(_)) => {
                        if !std::mem::replace(&mut line.stalled, true) {
                            stalled.push(error);
                        }
                    }
                    Err(error) => {
                        line.lost = true;
                        self.lost.push(error);
                    }
                }
            }
            next = [next, polled.next].into_iter().flatten().min();
            let idle = polled.events.is_empty();
            for event in polled.events {
                self.happened(index, event);
            }
            if idle {
                index = index.saturating_add(1);
            }
        }
        stalled.into_iter().for_each(|error| self.tell(Told::Stalled(error)));
        next
    }

    fn happened(&mut self, index: usize, event: NodeEvent) {
        let Some(line) = self.lines.get_mut(index) else { return };
        let told = match event {
            NodeEvent::Heard => {
                if let Err(error) = line.port.take(&self.root, &mut self.quiet) {
                    line.lost = true;
                    self.lost.push(error);
                    return;
                }
                Told::Heard { line: line.port.name().to_owned() }
            }
            NodeEvent::Opened(_) => {
                locked(&self.shared).open = true;
                return;
            }
            NodeEvent::Foreign(versions) => Told::Foreign(versions),
            NodeEvent::Object { kind: kind @ (Kind::Sealed | Kind::Plain), number, session, bytes } => {
                let opened = match (kind, session) {
                    (Kind::Sealed, Some(session)) => {
                        self.key.open(&bytes, line.wire.end().hello(), session, kind, number)
                    }
                    _ => Ok(Secret::new(bytes)),
                };
                let bytes = match opened {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        self.openings = self.openings.saturating_add(1);
                        line.lost = self.openings >= OPENINGS;
                        line.wire.end_mut().set_stage(Stage::Payload);
                        self.tell(Told::Unsealed(error));
                        return;
                    }
                };
                let name = line.port.name().to_owned();
                self.virtio = None;
                // The others are let go, as they were.
                for (other, line) in self.lines.iter_mut().enumerate() {
                    line.lost |= other != index;
                }
                Told::Payload { line: name, sealed: kind == Kind::Sealed, bytes }
            }
            NodeEvent::Object { kind, bytes, .. } => {
                let text = || crate::shown::printable(&String::from_utf8_lossy(&bytes));
                Told::Answer(match kind {
                    Kind::Certificates => Answer::Certificates(bytes),
                    Kind::Pending => Answer::Pending(text()),
                    _ => Answer::Refused(text()),
                })
            }
            // The announcement is line 1, the first piece line 2.
            NodeEvent::Broadcast { missing } => Told::Pasted {
                missing: match missing {
                    Some(pieces) => pieces.iter().map(|piece| usize::from(*piece).saturating_add(2)).collect(),
                    None => vec![1],
                },
            },
            NodeEvent::Sent(kind) => Told::Sent(kind),
            NodeEvent::Refused(kind, reason) => Told::NotTaken(kind, reason),
            NodeEvent::Time { sent, arrived, received, held } => {
                let Some(time) = time_of_day(sent, arrived, received, held) else { return };
                Told::Time(time)
            }
        };
        self.tell(told);
    }

    fn tell(&self, told: Told) {
        let came = matches!(told, Told::Payload { .. });
        // Whoever does not listen any more wants to know nothing.
        if self.tell.send(told).is_ok() && came {
            let _ = self.came.write(1);
        }
    }
}

/// The four timestamps (RFC 5905 §8): the answer was on its way for half of the round trip, give or take that half.
fn time_of_day(sent: u64, arrived: u64, received: u64, held: u64) -> Option<LineTime> {
    let round = arrived.checked_sub(sent)?.checked_sub(held)?;
    let at_arrival = received.checked_add(held)?.checked_add(round / 2)?;
    // Aged to now, and rounded to the millisecond that a timestamp has.
    let now = at_arrival.checked_add(now().saturating_sub(arrived))?;
    let clock = Clock::starting_at(Timestamp::from_millis(now.checked_add(500)? / 1000)?);
    Some(LineTime { clock, bound: Duration::from_micros(round.div_ceil(2)).saturating_add(ROUNDING) })
}

/// Of a timestamp to milliseconds, and of the moment that it was taken at.
const ROUNDING: Duration = Duration::from_millis(1);

/// For the console.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Heard { line } => write!(f, "a host speaks on {line}"),
            Told::Payload { line, sealed, .. } => {
                write!(f, "a payload came on {line}{}", if *sealed { "" } else { ", not sealed" })
            }
            Told::Unsealed(error) => f.write_str(&chain(error)),
            Told::Time(time) => time.fmt(f),
            Told::Answer(_) => f.write_str("the host has answered"),
            Told::Sent(kind) => write!(f, "the host has the {kind:?}"),
            Told::NotTaken(kind, reason) => write!(f, "the host does not take the {kind:?}: {reason:?}"),
            Told::Foreign(Versions { lowest, highest }) => write!(
                f,
                "the host speaks versions {lowest} to {highest} of the line protocol, this program {} to {}; bring both \
                 to the same release",
                Versions::OURS.lowest,
                Versions::OURS.highest
            ),
            Told::Pasted { missing } => write!(f, "{} lines to come", missing.len()),
            Told::Stalled(error) | Told::Lost(error) => f.write_str(&chain(error)),
        }
    }
}

impl fmt::Display for LineTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = self.bound.as_secs_f64() * 1000.0;
        write!(f, "{} by the line, to within {bound:.1} ms", self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_timestamps() {
        // 8 ms there and back, 2 of them at the host.
        let sent = now().saturating_sub(8000);
        let time = time_of_day(sent, sent + 8000, 1_800_000_000_000_000, 2000).unwrap();
        assert_eq!(time.bound, Duration::from_millis(4));
        let off = time.clock.now().since(Timestamp::from_millis(1_800_000_000_005).unwrap());
        assert!(off < Duration::from_millis(500), "{off:?}");
        assert_eq!(time_of_day(10, 5, 0, 0), None);
        assert_eq!(time_of_day(0, 5, u64::MAX, 2), None);
    }
}
