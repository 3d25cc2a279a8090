//! The thread that owns the lines: reads and writes them, drives the protocol, and reports events. Never decides what a
//! payload is used for.

mod called;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::EventFd;

use super::call::Calls;
use super::standing::Standing;
use super::{Answer, Awaited, Command, Judge, Line, LineTime, Shared, Told, locked};
use crate::line::admission::AdmissionKey;
use crate::line::fresh::Seeds;
use crate::line::{Hello, Kind, LineKey, Node, NodeEvent, Session, Shape, Stage, Wire};
use crate::pipe::{Pipe, PipeError};
use crate::port::{self, Port, PortError, Quiet, Signals};
use crate::secret::Secret;
use crate::sys;
use crate::time::{Deadline, since_boot};
use crate::trial;

/// The thread's own half of a dialogue.
pub(super) struct Worker {
    pub(super) lines: Vec<Spoken>,
    pub(super) key: LineKey,
    pub(super) seeds: Seeds,
    pub(super) judge: Option<Judge>,
    pub(super) orders: Receiver<Command>,
    pub(super) tell: Sender<Told>,
    pub(super) wake: Arc<EventFd>,
    pub(super) came: Arc<EventFd>,
    pub(super) shared: Arc<Mutex<Shared>>,
    /// Lines that may still come.
    pub(super) awaited: Option<Awaited>,
    pub(super) hello: Hello,
    pub(super) signals: Signals,
    pub(super) quiet: Quiet,
    pub(super) root: PathBuf,
    /// The places that are called at.
    pub(super) calls: Calls,
    /// The admission keys that are proven in each conversation.
    pub(super) proves: Vec<AdmissionKey>,
    /// What a line that is made later says, too.
    pub(super) standing: Standing,
    /// Microseconds since boot: the clock of everything on a line.
    pub(super) clock: fn() -> u64,
}

/// A pipe with the protocol on it.
pub(super) struct Spoken {
    pub(super) pipe: Pipe,
    pub(super) wire: Wire<Node>,
    /// The call that made the line.
    pub(super) call: Option<usize>,
    /// When a frame last came, or when the line was made.
    last: u64,
    /// Bytes that have come since then.
    noise: usize,
    pub(super) lost: bool,
    /// The last bytes were not taken.
    stalled: bool,
    /// The stall was reported.
    said_so: bool,
    /// It was reported that the host speaks other versions. Each call of the host says so again.
    foreign: bool,
    /// How many payloads could not be opened.
    pub(super) openings: u8,
    /// It was reported that a payload was too old.
    pub(super) stale: bool,
    /// How many admission keys were proven in this conversation, with the one whose proof is on its way.
    pub(super) proven: usize,
    /// A proof is on its way.
    pub(super) proving: bool,
    /// Why a payload was not used, as it was reported last.
    pub(super) not_used: Option<String>,
    /// The host has this node wait for an administrator.
    pub(super) waits: bool,
    /// When the line last led to something, a conversation or a piece of an object, or when it was made.
    led: u64,
}

/// The object with a payload, as it came.
pub(super) struct Came {
    pub(super) kind: Kind,
    pub(super) number: u8,
    /// `None`: it is from a host that cannot hear, and has no seal.
    pub(super) session: Option<Session>,
    /// When its announcement had come, in microseconds since boot.
    pub(super) announced: u64,
    pub(super) bytes: Vec<u8>,
}

impl Spoken {
    pub(super) fn new(Line { pipe, beacon, far }: Line, hello: &Hello, seed: [u8; 32], now: u64) -> Spoken {
        let node = Node::new(hello.clone(), beacon, Shape::default()).challenging(seed, far);
        let mut wire = Wire::new(node, pipe.baud());
        if pipe.is_typed_on() {
            wire = wire.keeping_text();
        }
        let (lost, stalled, said_so, foreign, stale, waits) = (false, false, false, false, false, false);
        let (call, last, noise, openings, not_used) = (None, now, 0, 0, None);
        let (proven, proving) = (0, false);
        Spoken {
            pipe,
            wire,
            call,
            last,
            noise,
            lost,
            stalled,
            said_so,
            foreign,
            openings,
            stale,
            proven,
            proving,
            not_used,
            waits,
            led: now,
        }
    }

    /// Writes bytes. Bytes that are not taken are dropped, as noise on the line would drop them: the protocol sends
    /// them again. A line that did not take the last bytes is not waited for until it takes some.
    fn write(&mut self, bytes: &[u8]) -> Result<Option<Told>, PipeError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let patience = if self.stalled { Duration::ZERO } else { STALLED };
        let written = self.pipe.write_all(bytes, Deadline::after(patience));
        self.stalled = written.as_ref().is_err_and(PipeError::is_stall);
        match written {
            Ok(()) => Ok(None),
            // A place that is called at and takes nothing is hung up on in the end, as it says nothing either.
            Err(_) if self.stalled && self.is_called() => Ok(None),
            Err(error) if self.stalled => {
                Ok((!std::mem::replace(&mut self.said_so, true)).then_some(Told::Stalled(error)))
            }
            Err(error) => Err(error),
        }
    }
}

/// A write that takes longer than this has no reader at the other end for now.
const STALLED: Duration = Duration::from_secs(5);

/// The clock of a run.
pub(super) fn now() -> u64 {
    u64::try_from(since_boot().as_micros()).unwrap_or(u64::MAX)
}

impl Worker {
    pub(super) fn run(mut self) {
        self.work();
        // Callers that wait for a host stop waiting.
        self.awaited = None;
        self.lines.clear();
        self.calls.settle(None, None);
        self.rename();
    }

    fn work(&mut self) {
        self.look_for_lines();
        loop {
            let next = self.due();
            // Microseconds since boot. Without a timer, one of the descriptors ends the wait.
            let until = next.map_or(Duration::MAX, Duration::from_micros);
            let mut fds = vec![
                PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.awaited.iter().map(|awaited| PollFd::new(awaited.stir.as_fd(), PollFlags::POLLIN)));
            let pipes = self.lines.iter().filter_map(|line| line.pipe.fd());
            fds.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
            fds.extend(self.calls.fds());
            if sys::poll(&mut fds, Deadline::after(Duration::MAX).at(until)).is_err() {
                return;
            }
            if let Some(signal) = self.signals.take() {
                // The lines are given back first, because the sender of the signal wants the program to end.
                self.lines.clear();
                self.calls = Calls::default();
                self.rename();
                signal.end();
            }
            let _ = self.wake.read();
            loop {
                match self.orders.try_recv() {
                    Ok(Command::End) | Err(TryRecvError::Disconnected) => return,
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            // First, as the frames that have come on a link go to its lines.
            self.call();
            self.listen();
            self.look_for_lines();
        }
    }

    /// Sends what is due. Returns when something is due next.
    fn due(&mut self) -> Option<u64> {
        let spoken = self.speak();
        self.lines.retain(|line| !line.lost);
        let tiring = self.lines.iter().flat_map(|line| [line.tires_at(), line.stuck_at()]).flatten();
        [spoken, self.calls.next()].into_iter().flatten().chain(tiring).min()
    }

    /// Updates what both sides see. To be called before a loss is reported.
    pub(super) fn rename(&self) {
        let mut shared = locked(&self.shared);
        let left = self.lines.iter().filter(|line| !line.lost && !line.is_called());
        let mut names: Vec<String> = left.map(|line| line.pipe.label()).collect();
        shared.lines = names.len();
        shared.tried = self.calls.tried();
        shared.calls = shared.tried.len();
        names.extend(self.calls.settled_on());
        if !names.is_empty() {
            shared.names = names;
        }
        shared.awaited = self.awaited.is_some();
        shared.missing = self.awaited.iter().flat_map(Awaited::names).collect();
        shared.open &= shared.lines != 0 || shared.calls != 0;
    }

    /// The line is lost. A place that was called at is called again.
    fn lose(&mut self, index: usize, error: PipeError) {
        let Some(line) = self.lines.get(index).filter(|line| line.is_called()) else {
            return self.give_up(index, Told::Lost(error));
        };
        let why = match error {
            PipeError::Far { fault, .. } => fault.to_string(),
            error => crate::chain::chain(&error),
        };
        match &line.pipe {
            // The link is gone, and with it all lines on it.
            Pipe::Ether(peer) => self.lose_link(line.call, peer.index(), why),
            _ => self.hang_up(index, why),
        }
    }

    /// The line is lost for good.
    pub(super) fn give_up(&mut self, index: usize, told: Told) {
        if let Some(line) = self.lines.get_mut(index) {
            line.lost = true;
        }
        self.rename();
        locked(&self.shared).why = Some(told.to_string());
        self.tell(told);
    }

    /// Opens those awaited lines that have appeared. The virtio port gets its name only some time after its device
    /// (drivers/char/virtio_console.c). For any other line, the node in /dev exists before the kernel's event.
    fn look_for_lines(&mut self) {
        let Some(mut awaited) = self.awaited.take() else { return };
        awaited.stir.drain();
        let insist = awaited.insist;
        let mut came: Vec<Result<Port, PortError>> = Vec::new();
        if awaited.virtio
            && let Some(port) = port::virtio(&self.root).and_then(|place| Port::open(place).transpose())
        {
            awaited.virtio = false;
            came.push(port);
        }
        awaited.places.retain(|place| {
            let prepared = |mut port: Port| port.prepare().map(|()| port);
            let Some(port) = Port::open(place.clone()).transpose() else { return true };
            came.push(port.and_then(prepared));
            false
        });
        self.awaited = (awaited.virtio || !awaited.places.is_empty()).then_some(awaited);
        for port in came {
            match port {
                Ok(port) => {
                    let told = (!port.is_virtio()).then(|| Told::Came { line: port.label() });
                    let beacon = insist || port.is_virtio();
                    let line = Line { pipe: port.into(), beacon, far: false };
                    self.lines.push(Spoken::new(line, &self.hello, self.seeds.another(), (self.clock)()));
                    self.rename();
                    told.into_iter().for_each(|told| self.tell(told));
                }
                Err(error) => {
                    let index = self.lines.len();
                    self.lose(index, error.into());
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match &command {
            Command::Stage(stage) => self.standing.stage = *stage,
            Command::Say(kind, bytes) => self.standing.statement = Some((*kind, bytes.clone())),
            Command::AskTime(key) => {
                self.standing.asks = true;
                self.standing.believes = key.clone().or(self.standing.believes.take());
            }
            Command::AskNoMore => self.standing.asks = false,
            Command::LeaveLinks => self.calls.leave_links(),
            _ => {}
        }
        for line in &mut self.lines {
            let node = line.wire.end_mut();
            match &command {
                Command::Stage(stage) => node.set_stage(*stage),
                Command::Say(kind, bytes) => node.say(*kind, bytes.clone()),
                Command::AskTime(key) => {
                    key.iter().for_each(|key| node.believe(key.clone()));
                    node.ask_time();
                }
                Command::AskNoMore => node.ask_no_more(),
                _ => {}
            }
        }
        match command {
            Command::Call(targets) => {
                // A payload that has come meanwhile ends the search, so nobody is called any more.
                if !self.calls.is_settled() {
                    self.calls.add(targets, (self.clock)());
                }
                self.rename();
            }
            Command::CallAnew => self.call_anew(),
            Command::Prove(proves) => self.proves(*proves),
            Command::Tell(told) => self.tell(told),
            _ => {}
        }
    }

    fn listen(&mut self) {
        let (mut buffer, now) = ([0; 4096], (self.clock)());
        let (mut lost, mut odd, mut typed) = (Vec::new(), Vec::new(), Vec::new());
        for (index, line) in self.lines.iter_mut().enumerate().filter(|(_, line)| !line.lost) {
            match line.pipe.read(&mut buffer) {
                Ok(0) => {}
                Ok(count) => {
                    let (before, heard) = (line.wire.end().progress(), line.wire.heard());
                    line.wire.push(buffer.get(..count).unwrap_or_default(), now);
                    let after = line.wire.end().progress();
                    let name = line.pipe.name();
                    // What is no frame on a connection is of another protocol, and was not changed by a line.
                    let seen = std::iter::from_fn(|| line.wire.odd()).filter(|_| line.call.is_none());
                    odd.extend(seen.map(|what| Told::Odd { line: name.to_owned(), what }));
                    typed.extend(Some(Secret::new(line.wire.text())).filter(|text| !text.expose().is_empty()));
                    line.noise = line.noise.saturating_add(count);
                    if line.wire.heard() != heard {
                        (line.last, line.noise) = (now, 0);
                        if let Pipe::Stream(stream) = &mut line.pipe {
                            stream.speaks();
                        }
                        let mut shared = locked(&self.shared);
                        shared.heard = Some(since_boot());
                        if let Some(waits) = shared.waits.as_mut().filter(|_| line.waits) {
                            waits.heard = since_boot();
                        }
                    }
                    if after.is_some() && after != before {
                        line.led = now;
                        locked(&self.shared).progress = Some(since_boot());
                    }
                }
                Err(error) => lost.push((index, error)),
            }
        }
        odd.into_iter().chain(typed.into_iter().map(Told::Typed)).for_each(|told| self.tell(told));
        lost.into_iter().for_each(|(index, error)| self.lose(index, error));
    }

    /// Sends what is due, and reports what happened. Returns when to do so again.
    fn speak(&mut self) -> Option<u64> {
        let mut next: Option<u64> = None;
        let mut index = 0;
        while index < self.lines.len() {
            let held_back = self.is_held_back(index);
            let Some(line) = self.lines.get_mut(index) else { break };
            if line.lost || held_back {
                // This may also be a line that was let go because another line brought a payload: there is only one
                // payload.
                index = index.saturating_add(1);
                continue;
            }
            let polled = line.wire.poll((self.clock)());
            match line.write(&polled.bytes) {
                Ok(None) => {}
                Ok(Some(stalled)) => self.tell(stalled),
                Err(error) => self.lose(index, error),
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
        next
    }

    fn happened(&mut self, index: usize, event: NodeEvent) {
        let Some(line) = self.lines.get_mut(index).filter(|line| !line.lost) else { return };
        let told = match event {
            NodeEvent::Heard => {
                if let Err(error) = line.pipe.take(&self.root, &mut self.quiet) {
                    self.lose(index, error);
                    return;
                }
                trial::point("line");
                let name = line.pipe.name().to_owned();
                // A place that is called again is heard for the first time each time.
                if line.is_called() && !self.calls.speaks(&name) {
                    return;
                }
                Told::Heard { line: name, called: line.is_called() }
            }
            NodeEvent::Opened(_) => {
                line.led = (self.clock)();
                locked(&self.shared).open = true;
                // A proof is for one conversation.
                (line.proven, line.proving) = (0, false);
                return self.prove(index);
            }
            NodeEvent::Foreign(versions) => {
                let told = Told::Foreign(versions);
                // Each line says it once, and so does each place that is called again.
                let (new, call) = (!std::mem::replace(&mut line.foreign, true), line.call);
                if !(new && call.is_none_or(|call| self.says(call, told.to_string()))) {
                    return;
                }
                told
            }
            NodeEvent::Object {
                kind: kind @ (Kind::Sealed | Kind::Plain | Kind::Fresh),
                number,
                session,
                announced,
                bytes,
            } => {
                return self.payload(index, Came { kind, number, session, announced, bytes });
            }
            NodeEvent::Object { kind: kind @ (Kind::Pending | Kind::Refused), bytes, .. }
                if line.wire.end().stage() == Stage::Payload =>
            {
                return self.turned_away(index, kind == Kind::Pending, &bytes);
            }
            NodeEvent::Object { kind, bytes, .. } => {
                if matches!(kind, Kind::Certificates | Kind::Refused) && self.standing.stage == Stage::Request {
                    // The request is answered: a later line need not ask again.
                    (self.standing.stage, self.standing.statement) = (Stage::Busy, None);
                }
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
            // Whether a host lets the node in for it is seen by what it sends next.
            NodeEvent::Sent(Kind::Admission) | NodeEvent::Refused(Kind::Admission, _) => {
                line.proving = false;
                return self.prove(index);
            }
            NodeEvent::Sent(kind) => Told::Sent(kind),
            NodeEvent::Refused(kind, reason) => Told::NotTaken(kind, reason),
            NodeEvent::Time { sent, arrived, received, held } => {
                self.standing.asks = false;
                let Some(time) = LineTime::answered(sent, arrived, received, held) else { return };
                Told::Time(time)
            }
        };
        self.tell(told);
    }

    pub(super) fn tell(&self, told: Told) {
        // When the dialogue does not listen any more, nobody needs to know.
        if self.tell.send(told).is_ok() {
            let _ = self.came.write(1);
        }
    }
}

#[cfg(test)]
mod tests;
