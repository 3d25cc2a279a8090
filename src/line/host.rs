//! The host's end of a line (docs/line-protocol.md, "The host"): calls, opens a conversation with the node that
//! answers, sends objects to it, takes its requests and reports. Pure: never sees bytes or a clock, and never decides
//! which node gets what.

mod state;

use std::collections::VecDeque;

use super::event::HostEvent;
use super::frame::{Challenge, Frame, Hello, Kind, Nonce, NotTaken, Packet, Session, Side, Stage, Versions};
use super::seal::{self, TimeKey};
use super::transfer::{Receiver, Sender, Shape, Taken};
use super::{Answered, End, Patience, Timer};
use state::{Passed, State};

/// How often the host calls because of a damaged frame or one of another conversation, until a timer has fired.
const HAILS: u8 = 4;

/// After this many expired timers without an answer the host gives the conversation up, and begins another one.
const GIVE_UP: u8 = 6;

/// In microseconds. A console server that repeats old output does so at once. A node that was passed over and is still
/// heard this much later is really there.
const REPLAYED: u64 = 1_500_000;

/// How many earlier conversations may still have frames on their way.
const LEFT: u64 = 3;

/// The narrowest line that is used, in columns. Every frame fits in it, except a HELLO with names: a HELLO without
/// names has 61 characters, and the longest other frame that cannot be made shorter, ANNOUNCE, has 56.
pub const NARROWEST: usize = 62;

/// How many nodes that were passed over are remembered.
const PASSED: usize = 8;

/// The host's end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    nonce: Nonce,
    /// The host calls before it has heard of a node.
    calling: bool,
    /// How often the host has called because of a damaged frame or one of another conversation, since the last timer.
    hailed: u8,
    shape: Shape,
    /// The node that said HELLO last; once [`Host::counts`], the node that answered.
    node: Option<Hello>,
    /// The node has answered: its HELLO is not old output that a console server has kept.
    counts: bool,
    /// The node before `node`. It was sent OPEN, too, and may still answer.
    earlier: Option<(Hello, Session)>,
    /// Nodes that were replaced by another before they had answered.
    passed: Vec<Passed>,
    /// A second node, which was reported already.
    second: Option<Hello>,
    state: State,
    receiver: Receiver,
    sender: Option<Sender>,
    waiting: VecDeque<(Kind, Vec<u8>)>,
    /// Number of the next object in this conversation.
    number: u8,
    quiet: u8,
    pending: bool,
    /// The newest challenge of the node in this conversation, and when it was first heard.
    challenge: Option<(Challenge, u64)>,
    /// What the time is proven with, once the node has a payload that was signed for a challenge.
    time_key: Option<TimeKey>,
    out: VecDeque<Frame>,
    events: VecDeque<HostEvent>,
    /// The number of the frame with OPEN, and whether OPEN was sent once only: the answer to a second OPEN may be to
    /// the first.
    opened: Option<(u64, bool)>,
    answered: Option<Answered>,
}

impl Host {
    /// `nonce`: eight random bytes. `calling`: the host calls before it has heard of a node. A boot loader or a login
    /// prompt on the line would hear that, too.
    pub fn new(nonce: Nonce, calling: bool, shape: Shape) -> Host {
        let mut host = Host {
            nonce,
            calling: false,
            hailed: 0,
            shape,
            node: None,
            counts: false,
            earlier: None,
            passed: Vec::new(),
            second: None,
            state: State::Calling,
            receiver: Receiver::default(),
            sender: None,
            waiting: VecDeque::new(),
            number: 0,
            quiet: 0,
            pending: false,
            challenge: None,
            time_key: None,
            out: VecDeque::new(),
            events: VecDeque::new(),
            opened: None,
            answered: None,
        };
        if calling {
            host.call();
        }
        host
    }

    /// Calls from now on, until a node answers.
    pub fn call(&mut self) {
        if !self.calling {
            self.calling = true;
            self.out.push_back(Frame::Call(Versions::OURS));
        }
    }

    /// Sends objects in pieces that fit lines of so many columns, from the next object on. The node then does the same.
    /// Fewer columns than [`NARROWEST`] count as [`NARROWEST`]: one line break may be an accident.
    pub fn narrow(&mut self, columns: usize) {
        self.shape = self.shape.within(columns.max(NARROWEST));
    }

    /// The node that this host speaks with.
    pub fn node(&self) -> Option<&Hello> {
        self.node.as_ref()
    }

    /// The stage of the node, in a conversation.
    pub fn stage(&self) -> Option<Stage> {
        match self.state {
            State::Open(_, stage) => Some(stage),
            _ => None,
        }
    }

    /// Speaks with this node from now on, and with no other.
    pub fn accept(&mut self, hello: Hello) {
        self.node = Some(hello);
        self.time_key = None;
        self.second = None;
        self.counts = false;
        self.open();
    }

    /// The line was opened once more: its first bytes may be old output.
    pub fn attached(&mut self) {
        self.passed.iter_mut().for_each(|passed| passed.heard = None);
    }

    /// Whether the node that this host speaks with has answered.
    pub fn counts(&self) -> bool {
        self.counts
    }

    /// Sends an object, after those that are waiting. Does nothing outside a conversation.
    pub fn send(&mut self, kind: Kind, bytes: Vec<u8>) {
        if self.session().is_some() {
            self.pending = kind == Kind::Pending;
            self.waiting.push_back((kind, bytes));
            self.next_object();
        }
    }

    /// The newest challenge of the node in this conversation, and when it was first heard, by the clock of `now`.
    pub fn challenge(&self) -> Option<(Challenge, u64)> {
        self.challenge
    }

    /// Has the node send a challenge again: another one, unless the newest is young.
    pub fn renew(&mut self) {
        if let State::Open(session, _) = self.state {
            self.pending = false;
            self.open_again(session);
        }
    }

    /// From now on tells this node the time with a proof: it has a payload with this token, signed for a challenge.
    pub fn prove_time(&mut self, key: TimeKey) {
        self.time_key = Some(key);
    }

    /// The number of the next object. The object's seal is bound to the number.
    pub fn next_number(&self) -> u8 {
        let waiting = u8::try_from(self.waiting.len()).unwrap_or(u8::MAX);
        self.number.wrapping_add(waiting)
    }

    /// Bytes that have arrived of the object that is being sent, or else received, and its length.
    pub fn progress(&self) -> Option<(usize, usize)> {
        self.sender.as_ref().map(Sender::progress).or_else(|| self.receiver.progress())
    }

    /// Whether nothing is on its way to the node.
    pub fn is_quiet(&self) -> bool {
        self.sender.is_none() && self.waiting.is_empty() && self.out.is_empty()
    }

    fn next_object(&mut self) {
        if self.sender.is_none()
            && let Some((kind, bytes)) = self.waiting.pop_front()
        {
            self.sender = Sender::new(self.number, kind, bytes, self.shape);
            self.number = self.number.wrapping_add(1);
        }
    }

    /// Begins another conversation with the node.
    fn open(&mut self) {
        let Some(hello) = &self.node else { return };
        let Some(version) = Versions::OURS.common(hello.versions) else { return };
        // The nonce is counted up, not drawn: it only must not repeat.
        self.nonce = Nonce(u64::from_be_bytes(self.nonce.0).wrapping_add(1).to_be_bytes());
        let session = Session { node: hello.nonce, host: self.nonce };
        self.state = State::Opening(session);
        self.receiver = Receiver::default();
        self.sender = None;
        self.waiting.clear();
        self.number = 0;
        self.quiet = 0;
        self.pending = false;
        self.challenge = None;
        self.opened = None;
        self.earlier = None;
        self.out.clear();
        self.out.push_back(Frame::Open { version, session });
    }

    fn open_again(&mut self, session: Session) {
        let version = self.node.as_ref().and_then(|hello| Versions::OURS.common(hello.versions));
        self.out.retain(|frame| !matches!(frame, Frame::Open { .. }));
        self.out.extend(version.map(|version| Frame::Open { version, session }));
    }

    fn heard(&mut self, hello: Hello, now: u64) {
        if Versions::OURS.common(hello.versions).is_none() {
            self.events.push_back(HostEvent::Foreign(hello.versions));
            return;
        }
        match (&self.node, self.state) {
            (Some(node), _) if *node != hello && self.counts => self.another(hello, now),
            (Some(node), State::Opening(session)) if *node != hello => {
                let earlier = (node.clone(), session);
                self.pass_over(earlier.0.clone());
                self.meet(hello);
                self.earlier = Some(earlier);
            }
            (Some(node), _) if *node != hello => {
                self.pass_over(node.clone());
                self.meet(hello);
            }
            (None, _) => self.meet(hello),
            (Some(_), State::Opening(session)) => self.open_again(session),
            // A known node says HELLO again: it is in no conversation, or has left the one that it was in.
            (Some(_), State::Calling | State::Open(..)) => self.open(),
        }
    }

    /// Begins a conversation with this node.
    fn meet(&mut self, hello: Hello) {
        self.passed.retain(|passed| passed.hello != hello);
        self.node = Some(hello.clone());
        self.time_key = None;
        self.events.push_back(HostEvent::Hello(hello));
        self.open();
    }

    fn pass_over(&mut self, hello: Hello) {
        self.passed.insert(0, Passed { hello, heard: None });
        self.passed.truncate(PASSED);
    }

    /// A HELLO of another node than the one that has answered.
    fn another(&mut self, hello: Hello, now: u64) {
        if let Some(passed) = self.passed.iter_mut().find(|passed| passed.hello == hello)
            && now.saturating_sub(*passed.heard.get_or_insert(now)) < REPLAYED
        {
            return;
        }
        if self.second.as_ref() != Some(&hello) {
            self.second = Some(hello.clone());
            self.events.push_back(HostEvent::Second(hello));
        }
    }

    /// The earlier node answers, which another one had replaced. The earlier node is certainly there; the other may be
    /// old output.
    fn answers(&mut self, session: Session) {
        if let Some((hello, _)) = self.earlier.take_if(|(_, earlier)| *earlier == session) {
            if let Some(other) = self.node.replace(hello.clone()) {
                self.pass_over(other);
            }
            self.passed.retain(|passed| passed.hello != hello);
            self.state = State::Opening(session);
            (self.time_key, self.challenge) = (None, None);
            self.opened = None;
            self.out.clear();
            self.events.push_back(HostEvent::Hello(hello));
        }
    }

    fn ready(&mut self, session: Session, stage: Stage) {
        self.counts = true;
        self.earlier = None;
        match self.state {
            State::Open(_, before) if before == stage => {}
            State::Open(..) => self.events.push_back(HostEvent::Stage(stage)),
            _ => {
                self.answered =
                    self.opened.take().map(|(frame, once)| if once { Answered::Once(frame) } else { Answered::Again });
                self.events.push_back(HostEvent::Opened(session, stage));
            }
        }
        self.state = State::Open(session, stage);
    }

    fn taken(&mut self, taken: Taken) {
        self.out.extend(taken.answer);
        self.events.extend(taken.object.map(|(kind, bytes)| HostEvent::Object(kind, bytes)));
    }

    fn acknowledged(&mut self, number: u8, next: u16, later: u32) {
        let Some(sender) = self.sender.as_mut().filter(|sender| sender.announce().number == number) else { return };
        self.answered = sender.acknowledged(next, later).or(self.answered);
        if sender.is_done() {
            let kind = sender.announce().kind;
            self.events.push_back(HostEvent::Delivered(kind));
            self.sender = None;
            // The node has a payload now. If it cannot open the payload, it says that it wants one again.
            if let (Kind::Sealed | Kind::Plain | Kind::Fresh, State::Open(session, Stage::Payload)) = (kind, self.state)
            {
                self.state = State::Open(session, Stage::Busy);
            }
            self.next_object();
        }
    }

    fn refused(&mut self, number: u8, reason: NotTaken) {
        let Some(sender) = self.sender.as_mut().filter(|sender| sender.announce().number == number) else { return };
        match reason {
            NotTaken::Unknown => sender.unknown(),
            // Begin another conversation: old acknowledgements must not count for the object when it is sent again.
            NotTaken::Digest => self.open(),
            reason => {
                self.events.push_back(HostEvent::Refused(sender.announce().kind, reason));
                self.sender = None;
                self.next_object();
            }
        }
    }
}

impl End for Host {
    type Event = HostEvent;

    const SIDE: Side = Side::Host;

    fn receive(&mut self, packet: Packet, now: u64) {
        let Packet { from: Side::Node, session, frame } = packet else { return };
        if let (Frame::Ready(_), Some(session)) = (&frame, session) {
            self.answers(session);
        }
        match frame {
            Frame::Hello(hello) => return self.heard(hello, now),
            _ if session.is_none() || session != self.session() => return,
            _ => self.quiet = 0,
        }
        let Some(session) = session else { return };
        match frame {
            Frame::Ready(stage) => self.ready(session, stage),
            Frame::Challenge(challenge) if self.challenge.is_none_or(|(before, _)| before != challenge) => {
                self.challenge = Some((challenge, now));
                self.events.push_back(HostEvent::Challenged);
            }
            Frame::Announce(announce) => {
                let wanted = |kind: Kind| if kind.from() == Side::Node { Ok(()) } else { Err(NotTaken::Unwanted) };
                let taken = self.receiver.announced(&announce, wanted);
                self.taken(taken);
            }
            Frame::Data { number, index, bytes } => {
                let taken = self.receiver.piece(number, index, &bytes);
                self.taken(taken);
            }
            Frame::Ack { number, next, later } => self.acknowledged(number, next, later),
            Frame::Refuse { number, reason } => self.refused(number, reason),
            // `held` is filled in when the answer is sent.
            Frame::Ask { number } => self.out.push_front(Frame::Time { number, received: now, held: 0 }),
            _ => {}
        }
    }

    /// Either a node is there that still speaks with an earlier host, or the line garbles its own echo. Calls are
    /// limited, because every call could come back garbled, without end.
    fn stranger(&mut self) {
        if self.state == State::Calling && self.out.is_empty() && self.hailed < HAILS {
            self.hailed = self.hailed.saturating_add(1);
            self.out.push_back(Frame::Call(Versions::OURS));
        }
    }

    fn fire(&mut self) {
        let timer = self.timer();
        self.quiet = self.quiet.saturating_add(1);
        match (self.state, timer) {
            (_, Timer::None) => {}
            (State::Calling, _) => {
                self.hailed = 0;
                if self.calling {
                    self.out.push_back(Frame::Call(Versions::OURS));
                }
            }
            (State::Opening(session), _) if self.quiet < GIVE_UP => self.open_again(session),
            (State::Opening(_), _) => {
                self.state = State::Calling;
                self.out.clear();
            }
            (State::Open(..), _) if self.quiet >= GIVE_UP => {
                self.events.push_back(HostEvent::Lost);
                self.open();
            }
            (State::Open(session, _), Timer::Retransmit) => {
                if let Some(sender) = &mut self.sender {
                    sender.timed_out();
                }
                // The node may have left the conversation, or a late OPEN may have led it into another.
                if self.quiet > 1 {
                    self.open_again(session);
                }
            }
            (State::Open(session, _), _) => self.open_again(session),
        }
    }

    fn packet(&mut self, now: u64, number: u64) -> Option<Packet> {
        let frame = match self.out.pop_front() {
            Some(Frame::Time { number, received, .. }) => {
                let held = u32::try_from(now.saturating_sub(received)).unwrap_or(u32::MAX);
                match (&self.time_key, &self.node, self.session()) {
                    (Some(key), Some(hello), Some(session)) => {
                        let tag = seal::time_proof(key, hello, session, (number, received, held));
                        Frame::ProvenTime { number, received, held, tag }
                    }
                    _ => Frame::Time { number, received, held },
                }
            }
            Some(frame) => frame,
            None => self.sender.as_mut()?.next(number)?,
        };
        if matches!((&frame, self.state), (Frame::Open { .. }, State::Opening(_))) {
            self.opened = Some((number, self.opened.is_none()));
        }
        let session = if frame.is_outside() { None } else { self.session() };
        Some(Packet { from: Side::Host, session, frame })
    }

    fn timer(&self) -> Timer {
        match self.state {
            State::Calling if self.calling || self.hailed > 0 => Timer::Hail,
            State::Calling => Timer::None,
            State::Opening(_) => Timer::Retransmit,
            State::Open(..) if self.sender.is_some() => Timer::Retransmit,
            State::Open(..) if self.pending => Timer::Keepalive(Patience::Long),
            State::Open(..) => Timer::Keepalive(Patience::Short),
        }
    }

    fn session(&self) -> Option<Session> {
        match self.state {
            State::Calling => None,
            State::Opening(session) | State::Open(session, _) => Some(session),
        }
    }

    fn earlier(&self) -> Option<Session> {
        self.earlier.as_ref().map(|(_, session)| *session)
    }

    /// With this node and with those whose place it took: the conversations are numbered one after the other.
    fn left(&self) -> impl Iterator<Item = Session> {
        let nodes = self.node.iter().chain(self.passed.iter().map(|passed| &passed.hello));
        nodes.flat_map(|hello| {
            let host = |back| Nonce(u64::from_be_bytes(self.nonce.0).wrapping_sub(back).to_be_bytes());
            (0..=LEFT).map(move |back| Session { node: hello.nonce, host: host(back) })
        })
    }

    fn event(&mut self) -> Option<HostEvent> {
        self.events.pop_front()
    }

    fn answered(&mut self) -> Option<Answered> {
        self.answered.take()
    }
}
