//! The node's end of a line (docs/line-protocol.md, "The node"): says HELLO, takes one payload, sends one request and
//! takes the answer, reports. Pure: never sees bytes, a clock or a private key.

mod objects;

use std::collections::VecDeque;
use std::time::Duration;

use super::event::NodeEvent;
use super::frame::{Announce, Challenge, Frame, Hello, Kind, Nonce, Packet, Session, Side, Stage, Versions};
use super::fresh::{Challenges, Fresh, GOOD_FOR};
use super::seal::{self, TimeKey};
use super::transfer::{Receiver, Sender, Shape};
use super::{Answered, End, Patience, Timer};

/// After this many retransmissions without a word from the host the node sends HELLO, too: another host may be there.
const HELLO_AFTER: u8 = 4;

/// After so many expired timers without a word about a proof of an admission key, the host is of an older release, which does
/// not know such objects: what is to be said next does not wait for it any longer.
const UNPROVEN: u8 = 4;

/// How many conversations that were left are remembered, so that a late OPEN does not lead back into one.
const LEFT: usize = 4;

/// The node's end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    hello: Hello,
    beacon: bool,
    /// What a payload is signed for, if HELLO says that the node sends challenges.
    challenges: Option<Challenges>,
    /// No payload is taken that is not signed for a challenge, and no time that is not proven.
    far: bool,
    /// How the node sends objects: in pieces no longer than those of the host's last object.
    shape: Shape,
    /// The most bytes in a piece that the node sends.
    most: u8,
    stage: Stage,
    session: Option<Session>,
    left: Vec<Nonce>,
    receiver: Receiver,
    /// The announcement that was taken last in this conversation, and when.
    announced: Option<(Announce, u64)>,
    /// Receives the object of a host that cannot hear.
    broadcast: Receiver,
    /// The object that the node has to send now: a request or a report. It is sent anew in every conversation, because
    /// another host may not have received it.
    statement: Option<(Kind, Vec<u8>)>,
    sender: Option<Sender>,
    /// Another statement waits for the end of a proof.
    held: bool,
    /// How many timers have expired without a word about the proof that is on its way.
    unproven: u8,
    /// Number of the next object in this conversation.
    number: u8,
    ask: Option<Ask>,
    /// What the host proves the time with. `None`: it need not.
    time_key: Option<TimeKey>,
    asked: u8,
    quiet: u8,
    heard: bool,
    pending: bool,
    out: VecDeque<Frame>,
    events: VecDeque<NodeEvent>,
    answered: Option<Answered>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Ask {
    number: u8,
    /// When the question was sent, and the number of its frame.
    sent: Option<(u64, u64)>,
}

impl Node {
    /// A node that has not said anything yet. `beacon`: the node says HELLO by itself; otherwise only when a host
    /// calls.
    pub fn new(hello: Hello, beacon: bool, shape: Shape) -> Node {
        let out = if beacon { VecDeque::from([Frame::Hello(hello.clone())]) } else { VecDeque::new() };
        Node {
            hello,
            beacon,
            challenges: None,
            far: false,
            shape,
            most: shape.chunk,
            stage: Stage::Payload,
            session: None,
            left: Vec::new(),
            receiver: Receiver::default(),
            announced: None,
            broadcast: Receiver::default(),
            statement: None,
            sender: None,
            held: false,
            unproven: 0,
            number: 0,
            ask: None,
            time_key: None,
            asked: 0,
            quiet: 0,
            heard: false,
            pending: false,
            out,
            events: VecDeque::new(),
            answered: None,
        }
    }

    /// Sends challenges, if HELLO says so. `seed`: random bytes, for this line alone. `far`: takes no payload that is not signed
    /// for one of them.
    #[must_use]
    pub fn challenging(self, seed: [u8; 32], far: bool) -> Node {
        let challenges = self.hello.fresh.then(|| Challenges::new(seed));
        Node { challenges, far, ..self }
    }

    /// When the node made this challenge on this line, by its clock, if it is one of the last.
    pub fn made(&self, challenge: &Challenge) -> Option<u64> {
        self.challenges.as_ref()?.made(challenge)
    }

    /// How fresh a payload is that answers this challenge, and whose announcement came at `announced` by the clock of the line.
    /// `None`: the node made no such challenge on this line within the minute before, so nobody knows when the payload was signed.
    pub fn fresh(&self, challenge: Challenge, announced: u64) -> Option<Fresh> {
        let [made, came] = [self.made(&challenge)?, announced].map(Duration::from_micros);
        let fresh = Fresh { hello: self.hello.digest(), challenge, made, came };
        (fresh.age() <= GOOD_FOR).then_some(fresh)
    }

    /// Whether only what is signed for a challenge counts on this line.
    pub fn is_far(&self) -> bool {
        self.far
    }

    /// Leaves the conversation. Another one may begin.
    pub fn part(&mut self) {
        self.leave();
    }

    /// Leaves the conversation and says HELLO, so that another one begins: there both ends send again what the other wants.
    pub fn begin_anew(&mut self) {
        self.leave();
        self.greet();
    }

    /// The node's HELLO.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The node's stage.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Bytes that have come of the object that is coming, and its length.
    pub fn progress(&self) -> Option<(usize, usize)> {
        self.receiver.progress().or_else(|| self.broadcast.progress())
    }

    /// Sets the stage, and tells the host.
    pub fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
        if self.session.is_some() {
            self.out.push_back(Frame::Ready(stage));
        }
    }

    /// Sends a statement in this conversation and in each that follows, until another statement replaces it.
    pub fn say(&mut self, kind: Kind, bytes: Vec<u8>) {
        self.statement = Some((kind, bytes));
        if self.session.is_none() {
            return;
        }
        match self.is_proving() {
            // The host takes one object after the other, so a proof that is on its way comes to its end.
            true => self.held = true,
            false => self.state(),
        }
        self.bypass();
    }

    fn is_proving(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.announce().kind == Kind::Admission)
    }

    /// Leaves the conversation with a host that does not know proofs, if another statement waits: it may begin another one, and
    /// gets the statement there.
    fn bypass(&mut self) {
        let waits = self.held && self.statement.as_ref().is_some_and(|(kind, _)| *kind != Kind::Admission);
        if waits && self.unproven >= UNPROVEN {
            self.begin_anew();
        }
    }

    /// Whether everything that the node had to send has arrived.
    pub fn is_quiet(&self) -> bool {
        self.sender.is_none() && self.out.is_empty()
    }

    /// From now on only a host counts that proves with this key that it has the payload.
    pub fn believe(&mut self, key: TimeKey) {
        self.time_key = Some(key);
    }

    /// Asks the host for the time, in this conversation and in those that follow, until it is answered.
    pub fn ask_time(&mut self) {
        self.asked = self.asked.wrapping_add(1);
        self.ask = Some(Ask { number: self.asked, sent: None });
        if self.session.is_some() {
            self.out.push_back(Frame::Ask { number: self.asked });
        }
    }

    /// Asks for the time no more. An answer that comes later does not count.
    pub fn ask_no_more(&mut self) {
        self.ask = None;
        self.out.retain(|frame| !matches!(frame, Frame::Ask { .. }));
    }

    /// Whether the time was asked for, and has not come.
    #[cfg(test)]
    pub(crate) fn is_asking(&self) -> bool {
        self.ask.is_some()
    }

    /// Sends the statement from its beginning.
    fn state(&mut self) {
        self.sender = self.statement.as_ref().and_then(|(kind, bytes)| {
            let number = self.number;
            self.number = self.number.wrapping_add(1);
            Sender::new(number, *kind, bytes.clone(), self.shape)
        });
    }

    fn greet(&mut self) {
        self.out.retain(|frame| !matches!(frame, Frame::Hello(_)));
        self.out.push_back(Frame::Hello(self.hello.clone()));
    }

    fn opened(&mut self, session: Session) {
        if self.session == Some(session) {
            self.out.push_back(Frame::Ready(self.stage));
            return;
        }
        if self.left.contains(&session.host) {
            return;
        }
        self.leave();
        self.session = Some(session);
        self.events.push_back(NodeEvent::Opened(session));
        self.out.push_back(Frame::Ready(self.stage));
        if self.ask.is_some() {
            self.ask_time();
        }
        self.state();
    }

    fn leave(&mut self) {
        if let Some(session) = self.session.take() {
            self.left.insert(0, session.host);
            self.left.truncate(LEFT);
        }
        self.receiver = Receiver::default();
        self.announced = None;
        self.sender = None;
        (self.held, self.unproven) = (false, 0);
        self.number = 0;
        self.pending = false;
        self.out.clear();
        // A proof is for one conversation.
        self.statement.take_if(|(kind, _)| *kind == Kind::Admission);
    }

    /// A challenge that is due, if a payload is wanted. While an object comes, the one that it may answer stays the newest.
    fn challenge(&mut self, now: u64, asked: bool) -> Option<Frame> {
        let coming = self.receiver.progress().is_some();
        let challenges = self.challenges.as_mut()?;
        let due = asked || (self.stage == Stage::Payload && !coming && challenges.is_old(now));
        due.then(|| Frame::Challenge(if coming { challenges.newest(now) } else { challenges.next(now) }))
    }
}

impl End for Node {
    type Event = NodeEvent;

    const SIDE: Side = Side::Node;

    fn receive(&mut self, packet: Packet, now: u64) {
        let Packet { from: Side::Host, session, frame } = packet else { return };
        if !frame.is_outside() && session.is_some() && session != self.session {
            return;
        }
        if !self.heard {
            self.heard = true;
            self.events.push_back(NodeEvent::Heard);
        }
        if session.is_some() {
            self.quiet = 0;
        }
        match (frame, session) {
            (Frame::Call(versions), _) => {
                if versions.common(self.hello.versions).is_none() {
                    self.events.push_back(NodeEvent::Foreign(versions));
                }
                self.greet();
            }
            (Frame::Open { version, session }, _) if session.node == self.hello.nonce => {
                let ours = self.hello.versions;
                if (ours.lowest..=ours.highest).contains(&version) {
                    self.quiet = 0;
                    self.opened(session);
                } else {
                    self.events.push_back(NodeEvent::Foreign(Versions { lowest: version, highest: version }));
                }
            }
            // The OPEN is for an earlier run of the node's program.
            (Frame::Open { .. }, _) if self.session.is_none() => self.greet(),
            // From a host that cannot hear nothing comes that is signed for a challenge.
            (Frame::Announce(_) | Frame::Data { .. }, None) if self.far => {}
            (Frame::Announce(announce), session) => {
                self.announced(&announce, session, now);
                if session.is_none() {
                    self.tell_broadcast();
                }
            }
            (Frame::Data { number, index, bytes }, Some(_)) => {
                let taken = self.receiver.piece(number, index, &bytes);
                self.taken(taken, number, session);
            }
            (Frame::Data { number, index, bytes }, None) => {
                let taken = self.broadcast.piece(number, index, &bytes);
                self.taken(taken, number, None);
                self.tell_broadcast();
            }
            (Frame::Ack { number, next, later }, Some(_)) => self.acknowledged(number, next, later),
            (Frame::Refuse { number, reason }, Some(_)) => self.refused(number, reason),
            (Frame::Time { number, received, held }, Some(_)) if !self.far && self.time_key.is_none() => {
                self.told(number, received, held, now);
            }
            (Frame::ProvenTime { number, received, held, tag }, Some(session)) => {
                let is_proof =
                    |key: &TimeKey| seal::is_time_proof(&tag, key, &self.hello, session, (number, received, held));
                if self.time_key.as_ref().is_some_and(is_proof) {
                    self.told(number, received, held, now);
                }
            }
            _ => {}
        }
    }

    fn stranger(&mut self) {}

    fn fire(&mut self) {
        let timer = self.timer();
        self.quiet = self.quiet.saturating_add(1);
        match timer {
            Timer::Retransmit => {
                if let Some(sender) = &mut self.sender {
                    sender.timed_out();
                }
                if self.is_proving() {
                    self.unproven = self.unproven.saturating_add(1).min(UNPROVEN);
                    self.bypass();
                }
                // Ask again under a new number: a late answer to the first question must not count for the second.
                if self.ask.is_some() {
                    self.ask_time();
                }
                if self.quiet >= HELLO_AFTER {
                    self.greet();
                }
            }
            Timer::Call | Timer::Watch(_) => self.greet(),
            Timer::Keepalive(_) | Timer::Hail | Timer::None => {}
        }
    }

    fn packet(&mut self, now: u64, number: u64) -> Option<Packet> {
        let frame = match self.out.pop_front() {
            Some(frame) => frame,
            None => match self.session.and_then(|_| self.challenge(now, false)) {
                Some(frame) => frame,
                None => self.session.and(self.sender.as_mut())?.next(number)?,
            },
        };
        if frame == Frame::Ready(Stage::Payload)
            && let Some(challenge) = self.challenge(now, true)
        {
            self.out.push_front(challenge);
        }
        if let Frame::Ask { number: asked } = frame
            && let Some(ask) = self.ask.as_mut().filter(|ask| ask.number == asked)
        {
            ask.sent = Some((now, number));
        }
        let session = if frame.is_outside() { None } else { self.session };
        Some(Packet { from: Side::Node, session, frame })
    }

    fn timer(&self) -> Timer {
        let over = matches!(self.stage, Stage::Done | Stage::Failed) && self.statement.is_none();
        match self.session {
            _ if self.sender.is_some() => Timer::Retransmit,
            Some(_) if self.ask.is_some() => Timer::Retransmit,
            _ if over => Timer::None,
            None if self.beacon || !self.left.is_empty() => Timer::Call,
            None => Timer::None,
            // The host is silent: the node has said HELLO, and goes on saying HELLO.
            Some(_) if self.quiet > 0 => Timer::Call,
            Some(_) if self.pending => Timer::Watch(Patience::Long),
            Some(_) => Timer::Watch(Patience::Short),
        }
    }

    fn session(&self) -> Option<Session> {
        self.session
    }

    fn event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front()
    }

    fn answered(&mut self) -> Option<Answered> {
        self.answered.take()
    }
}
