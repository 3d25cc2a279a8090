//! A node and a host on a network that loses, repeats and reorders packets, with somebody on it who hears all of them, sends any of
//! them again at any time, opens conversations of his own, acknowledges for the node, sends objects that the node refuses, and has a
//! payload that was signed for this node yesterday. Searched is every order of all that, until the node has its payload.
//!
//! The ends, what the node takes for fresh and what the host signs for are those of the programs. Seals and signatures are the names of
//! what they cover. Packets have no order, and at most two are on their way in each direction; the object has one piece. Left out: what
//! comes after the payload (the model of the line has it), acknowledgements in the name of the host, and changed packets (a CRC and the
//! seal are for those).
//!
//! What is searched, with the number of different states, and how many steps it is to the farthest of them, give or take one (two
//! threads search at once):
//!
//! | may happen | states | steps |
//! |---|---|---|
//! | 2 packets lost or repeated | 10,388 | 31 |
//! | 1 packet lost or repeated, the host waits for a proof of a key | 12,440 | 32 |
//! | nothing comes for a minute, a timer fires too early | 104,403 | 56 |
//! | nothing comes for a minute, proof of a key | 19,715 | 57 |
//! | 2 attacks | 167,469 | 55 |
//! | 1 attack, proof of a key | 58,904 | 87 |
//! | 1 attack, nothing comes for a minute | 387,875 | 68 |

use imprint::line::frame::{Announce, Challenge, Frame, Hello, Nonce, Packet, Session, Side, Stage, Versions};
use imprint::line::fresh::to_sign_for;
use imprint::line::{End, Host, HostEvent, Kind, Node, NodeEvent, Shape, Timer};
use stateright::{Model, Property};

use crate::reaches;

/// What may go wrong.
#[derive(Clone, Default)]
struct Net {
    /// Packets that are lost or repeated.
    faults: u8,
    /// What the attacker does.
    attacks: u8,
    /// How often a minute passes while nothing comes through.
    minutes: u8,
    /// Timers that fire while a packet is on its way.
    hasty: u8,
    /// The host wants a proof of an admission key first.
    proof: bool,
}

/// Packets on their way in each direction.
const CHANNEL: usize = 2;
const SHAPE: Shape = Shape { chunk: 192, window: 1 };
const MINUTE: u64 = 61_000_000;
/// A challenge counts for so long.
const SIXTY: u64 = 60_000_000;
/// The largest search takes 1,150,000 steps.
const MOST: usize = 2_000_000;
/// The conversation of the attacker.
const STRANGER: Nonce = Nonce([66; 8]);
/// A challenge of an earlier boot.
const YESTERDAY: Challenge = Challenge([77; 16]);

/// The object of a payload: the conversation that it is sealed for, the challenge that it is signed for, and when.
fn object(session: Session, challenge: Challenge, signed: u64) -> Vec<u8> {
    [&session.host.0[..], &challenge.0, &signed.to_be_bytes()].concat()
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    node: Node,
    host: Host,
    to_node: Vec<Packet>,
    to_host: Vec<Packet>,
    /// What the attacker has heard of the host.
    heard: Vec<Packet>,
    now: u64,
    faults: u8,
    attacks: u8,
    minutes: u8,
    hasty: u8,
    proof: bool,
    /// The host has had the proof in this conversation.
    proven: bool,
    /// The conversation that the payload is being sent in.
    sending: Option<Session>,
    /// The node has a payload.
    over: bool,
    wrong: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    ToNode(usize),
    ToHost(usize),
    NodeTimer,
    HostTimer,
    DropToNode(usize),
    DropToHost(usize),
    TwiceToNode(usize),
    TwiceToHost(usize),
    Minute,
    /// Sends what the host has sent before.
    Again(usize),
    /// Begins a conversation.
    Opens,
    /// Sends yesterday's payload, sealed for the node's conversation; or one that is only sealed.
    Forges(bool),
    /// Says that nobody has a payload for this node.
    Refuses,
    /// Acknowledges for the node what the host has sent last.
    Acknowledges,
}

impl Action {
    fn is_fair(&self) -> bool {
        matches!(self, Action::ToNode(_) | Action::ToHost(_) | Action::NodeTimer | Action::HostTimer)
    }
}

impl State {
    fn settle(&mut self) {
        loop {
            let mut idle = true;
            while self.to_host.len() < CHANNEL
                && !self.over
                && let Some(packet) = self.node.packet(self.now, 0)
            {
                self.to_host.push(packet);
                idle = false;
            }
            while self.to_node.len() < CHANNEL
                && let Some(packet) = self.host.packet(self.now, 0)
            {
                // The rest says nothing that counts later.
                let counts = matches!(packet.frame, Frame::Open { .. } | Frame::Announce(_) | Frame::Data { .. });
                if counts && !self.heard.contains(&packet) {
                    self.heard.push(packet.clone());
                }
                self.to_node.push(packet);
                idle = false;
            }
            while let Some(event) = self.node.event() {
                self.node_told(event);
                idle = false;
            }
            while let Some(event) = self.host.event() {
                self.host_told(event);
                idle = false;
            }
            self.node.answered();
            self.host.answered();
            if idle {
                // The network has no order.
                let order =
                    |one: &Packet, other: &Packet| (one.session, &one.frame).cmp(&(other.session, &other.frame));
                self.to_node.sort_by(order);
                self.to_host.sort_by(order);
                self.heard.sort_by(order);
                return;
            }
        }
    }

    fn node_told(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Opened(session) if self.proof => self.node.say(Kind::Admission, session.host.0.to_vec()),
            NodeEvent::Object { kind: Kind::Fresh, session: Some(session), announced, bytes, .. } => {
                let (host, rest) = bytes.split_at(8);
                let (challenge, signed) = rest.split_at(16);
                let challenge = Challenge(challenge.try_into().unwrap());
                let signed = u64::from_be_bytes(signed.try_into().unwrap());
                match self.node.fresh(challenge, announced) {
                    Some(fresh) if host == session.host.0 => {
                        self.over = true;
                        let [made, came] = [fresh.made, fresh.came].map(|at| u64::try_from(at.as_micros()).unwrap());
                        let young = came - made <= SIXTY && (made..=came).contains(&signed);
                        if session.host == STRANGER || challenge == YESTERDAY || !young {
                            self.wrong = Some(format!("signed at {signed}, made at {made}, came at {came}"));
                        }
                    }
                    // As the agent does: the seal is wrong, or the challenge.
                    _ => self.node.set_stage(Stage::Payload),
                }
            }
            NodeEvent::Object { kind: Kind::Refused, .. } => self.node.part(),
            NodeEvent::Object { .. } => self.wrong = Some(format!("node: {event:?}")),
            _ => {}
        }
    }

    fn host_told(&mut self, event: HostEvent) {
        let session = self.host.session();
        match event {
            // As the door does: a proof is for a HELLO, and may come before READY.
            HostEvent::Hello(_) => self.proven = !self.proof,
            HostEvent::Object(Kind::Admission, bytes) => {
                if session.is_none_or(|session| bytes != session.host.0) {
                    self.wrong = Some("a proof for another conversation".to_owned());
                }
                self.proven = true;
                self.deliver();
            }
            HostEvent::Opened(..) | HostEvent::Stage(_) | HostEvent::Challenged => self.deliver(),
            HostEvent::Delivered(_) | HostEvent::Refused(..) => self.sending = None,
            HostEvent::Object(..) => self.wrong = Some(format!("host: {event:?}")),
            _ => {}
        }
    }

    /// As imprint-host does.
    fn deliver(&mut self) {
        let Some(session) = self.host.session() else { return };
        if self.host.stage() != Some(Stage::Payload) || self.sending == Some(session) || !self.proven {
            return;
        }
        match to_sign_for(self.host.challenge(), self.now) {
            Some(challenge) => {
                self.sending = Some(session);
                self.host.send(Kind::Fresh, object(session, challenge, self.now));
            }
            None => self.host.renew(),
        }
    }

    fn may_fire(&mut self, timer: Timer) -> bool {
        if timer == Timer::None {
            return false;
        }
        if self.to_node.is_empty() && self.to_host.is_empty() {
            return true;
        }
        let may = self.hasty > 0;
        self.hasty = self.hasty.saturating_sub(1);
        may
    }

    fn attack(&mut self) -> Option<()> {
        self.attacks = self.attacks.checked_sub(1).filter(|_| self.to_node.len() < CHANNEL)?;
        Some(())
    }

    fn fault(&mut self) -> Option<()> {
        self.faults = self.faults.checked_sub(1)?;
        Some(())
    }

    fn after(&self, action: Action) -> Option<State> {
        let mut next = self.clone();
        match action {
            Action::ToNode(at) => {
                let packet = (at < next.to_node.len()).then(|| next.to_node.remove(at))?;
                next.node.receive(packet, next.now);
            }
            Action::ToHost(at) => {
                let packet = (at < next.to_host.len()).then(|| next.to_host.remove(at))?;
                next.host.receive(packet, next.now);
            }
            Action::DropToNode(at) => {
                next.fault()?;
                (at < next.to_node.len()).then(|| next.to_node.remove(at))?;
            }
            Action::DropToHost(at) => {
                next.fault()?;
                (at < next.to_host.len()).then(|| next.to_host.remove(at))?;
            }
            Action::TwiceToNode(at) => {
                next.fault()?;
                let packet = next.to_node.get(at)?.clone();
                next.node.receive(packet, next.now);
            }
            Action::TwiceToHost(at) => {
                next.fault()?;
                let packet = next.to_host.get(at)?.clone();
                next.host.receive(packet, next.now);
            }
            Action::NodeTimer => {
                if next.to_host.len() == CHANNEL || !next.may_fire(next.node.timer()) {
                    return None;
                }
                next.node.fire();
            }
            Action::HostTimer => {
                if next.to_node.len() == CHANNEL || !next.may_fire(next.host.timer()) {
                    return None;
                }
                next.host.fire();
            }
            Action::Minute => {
                next.minutes = next.minutes.checked_sub(1)?;
                next.now += MINUTE;
            }
            Action::Again(at) => {
                next.attack()?;
                let packet = next.heard.get(at)?.clone();
                next.to_node.push(packet);
            }
            Action::Opens => {
                next.attack()?;
                let session = Session { node: next.node.hello().nonce, host: STRANGER };
                next.to_node.push(Packet {
                    from: Side::Host,
                    session: None,
                    frame: Frame::Open { version: 1, session },
                });
            }
            Action::Forges(fresh) => {
                next.attack()?;
                let session = next.node.session()?;
                let kind = if fresh { Kind::Fresh } else { Kind::Sealed };
                next.forge(session, kind, object(session, YESTERDAY, next.now));
            }
            Action::Refuses => {
                next.attack()?;
                let session = next.node.session()?;
                next.forge(session, Kind::Refused, b"no".to_vec());
            }
            Action::Acknowledges => {
                next.attack()?;
                let session = next.host.session();
                let number = next.host.next_number().wrapping_sub(1);
                let frame = Frame::Ack { number, next: 1, later: 0 };
                next.host.receive(Packet { from: Side::Node, session, frame }, next.now);
            }
        }
        next.settle();
        if next.over && next.wrong.is_none() {
            // One end for all ways to it.
            next = State { over: true, ..start(&Net::default()) };
        }
        Some(next)
    }

    /// A whole object in this conversation, before anything else of the host: announcement and piece at once.
    fn forge(&mut self, session: Session, kind: Kind, bytes: Vec<u8>) {
        let (digest, length) = (imprint::digest::sha256(&bytes), u32::try_from(bytes.len()).unwrap());
        for number in [0, 1] {
            let announce = Announce { number, kind, chunk: 192, length, digest };
            for frame in [Frame::Announce(announce), Frame::Data { number, index: 0, bytes: bytes.clone() }] {
                self.node.receive(Packet { from: Side::Host, session: Some(session), frame }, self.now);
            }
        }
    }
}

impl Model for Net {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![start(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.over || state.wrong.is_some() {
            return;
        }
        for at in 0..CHANNEL {
            actions.extend([Action::ToNode(at), Action::ToHost(at), Action::DropToNode(at), Action::DropToHost(at)]);
            actions.extend([Action::TwiceToNode(at), Action::TwiceToHost(at)]);
        }
        actions.extend((0..state.heard.len()).map(Action::Again));
        actions.extend([Action::NodeTimer, Action::HostTimer, Action::Minute, Action::Opens, Action::Refuses]);
        actions.extend([Action::Forges(true), Action::Forges(false), Action::Acknowledges]);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        state.after(action)
    }

    fn properties(&self) -> Vec<Property<Net>> {
        vec![
            Property::always("nothing but what was signed for a challenge of the last minute", |_, state: &State| {
                state.wrong.is_none()
            }),
            Property::sometimes("delivered", |_, state: &State| state.over),
        ]
    }
}

fn start(net: &Net) -> State {
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce: Nonce([1; 8]),
        key: [1; 32],
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    let mut state = State {
        node: Node::new(hello, true, SHAPE).challenging([5; 32], true),
        host: Host::new(Nonce([50; 8]), false, SHAPE),
        to_node: Vec::new(),
        to_host: Vec::new(),
        heard: Vec::new(),
        now: 0,
        faults: net.faults,
        attacks: net.attacks,
        minutes: net.minutes,
        hasty: net.hasty,
        proof: net.proof,
        proven: false,
        sending: None,
        over: false,
        wrong: None,
    };
    state.settle();
    state
}

fn search(net: &Net) {
    let Net { faults, attacks, minutes, hasty, proof } = net;
    let words = format!(
        "a network, {faults} faults, {attacks} attacks, {minutes} minutes, {hasty} hasty timers, proof of a key {proof}"
    );
    reaches(net, |state| state.over, Action::is_fair, MOST, &words);
}

#[test]
fn a_network_that_loses_and_reorders() {
    search(&Net { faults: 2, ..Net::default() });
    search(&Net { faults: 1, proof: true, ..Net::default() });
}

#[test]
fn a_network_that_takes_a_minute() {
    search(&Net { minutes: 1, hasty: 1, ..Net::default() });
    search(&Net { minutes: 1, proof: true, ..Net::default() });
}

#[test]
fn a_network_with_an_attacker() {
    search(&Net { attacks: 2, ..Net::default() });
    search(&Net { attacks: 1, proof: true, ..Net::default() });
}

#[test]
fn a_network_with_an_attacker_that_takes_a_minute() {
    search(&Net { attacks: 1, minutes: 1, ..Net::default() });
}
