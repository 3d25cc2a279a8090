//! Somebody on the network: doors of his own that answer nodes, nodes of his own that call at the door, and what he knows.

use std::sync::Arc;
use std::time::Duration;

use imprint::line::admission::AdmissionKey;
use imprint::line::frame::{Frame, Packet};
use imprint::line::{
    self, Challenge, End, Hello, Host, HostEvent, Kind, LineKey, Node, NodeEvent, Nonce, Session, Shape, Stage, Wire,
    seal,
};
use imprint::payload::Payload;
use imprint::payload::signed::{self, Signed};
use imprint::secret::Secret;
use imprint::time::Timestamp;
use imprint_tests::caller::seeded;
use imprint_tests::signer::Key;

use super::site::{Seed, Site};

/// What he does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attack {
    /// A door of his own answers before the site's does, with payloads that are signed by nobody, by himself, or without the
    /// challenge, and tells wrong times.
    AnswersFirst,
    /// He holds what passes, for seconds or for minutes.
    Delays,
    /// He repeats everything that both ends said yesterday, and later what they say today.
    Replays,
    /// He connects two nodes crosswise, and gives each frame to both.
    Relays,
    /// He puts a line key of his own into HELLO, on the way or as a door and a node of his own.
    SwapsKeys,
    /// He has another node of the site, and gives its payload to this one.
    AnothersPayload,
    /// He calls at the door with the serial number and the MAC of the node, with a key of his own or with the node's.
    Spoofs,
    /// He puts objects of his own into the conversation of the node with its door, until the node has its payload.
    Injects,
    /// No attacker: a door of another site, which has the same signer and another CA, answers first.
    AnotherCa,
    /// No attacker: a switch sends each frame back to where it came from, and the node's second address is behind that switch and
    /// nothing else.
    Echoes,
}

impl Attack {
    pub(crate) const ALL: [Attack; 10] = [
        Attack::AnswersFirst,
        Attack::Delays,
        Attack::Replays,
        Attack::Relays,
        Attack::SwapsKeys,
        Attack::AnothersPayload,
        Attack::Spoofs,
        Attack::Injects,
        Attack::AnotherCa,
        Attack::Echoes,
    ];

    /// Whether he has a door at the node's second address.
    pub(crate) fn has_a_door(self) -> bool {
        matches!(self, Attack::AnswersFirst | Attack::AnothersPayload | Attack::AnotherCa)
    }

    /// Whether the node has two addresses to call at.
    pub(crate) fn has_two_lines(self) -> bool {
        self.has_a_door() || matches!(self, Attack::Replays | Attack::Echoes)
    }

    /// Whether a door of his own answers at the site's address, until he lets the node's packets pass.
    pub(crate) fn is_the_door(self, swaps_on_the_way: bool) -> bool {
        self.has_a_door() || (self == Attack::SwapsKeys && !swaps_on_the_way)
    }

    pub(crate) fn calls(self, swaps_on_the_way: bool) -> bool {
        self == Attack::Spoofs || (self == Attack::SwapsKeys && !swaps_on_the_way)
    }
}

/// Payloads that an attacker has.
pub(crate) struct Loot {
    /// The payload of another node, as its door has made it; and the HELLO that it was signed for.
    pub(crate) other: Vec<u8>,
    pub(crate) other_hello: Hello,
    pub(crate) other_challenge: Challenge,
    /// The node's own of yesterday, signed for yesterday's HELLO.
    pub(crate) yesterday: Option<Vec<u8>>,
    /// The node's own of last week, signed as a file.
    pub(crate) file: Vec<u8>,
    pub(crate) stranger: Key,
    /// The code of a line key of his.
    pub(crate) code: String,
}

/// A door of the attacker.
pub(crate) struct Evil {
    pub(crate) wire: Wire<Host>,
    pub(crate) node: usize,
    pub(crate) line: usize,
    pub(crate) connection: usize,
    /// How wrong its clock is, in microseconds.
    skew: u64,
    /// What it gives next. `None`: it is a door of another site, and gives that site's payload.
    mode: Option<u64>,
    sent_in: Option<Session>,
    pub(crate) next: Option<u64>,
    pub(crate) dirty: bool,
    pub(crate) sent: usize,
    pub(crate) proofs: Vec<Vec<u8>>,
}

/// So many payloads and words he has for a node.
pub(crate) const MODES: u64 = 13;
/// Which of them is what an administrator at the node's console is to do.
pub(crate) const WORDS: u64 = 11;

/// The clock of an attacker's door begins here; it may be days off in both directions.
const DAYS: u64 = 30 * 86_400 * 1_000_000;

impl Evil {
    pub(crate) fn new((node, line, connection): (usize, usize, usize), mode: Option<u64>, seed: &mut Seed) -> Evil {
        let wire = Wire::new(Host::new(Nonce(seed.bytes()), true, Shape::default()), None);
        let skew = seed.below(2 * DAYS);
        Evil {
            wire,
            node,
            line,
            connection,
            skew,
            mode,
            sent_in: None,
            next: None,
            dirty: true,
            sent: 0,
            proofs: Vec::new(),
        }
    }

    fn clock(&self, site: &Site, now: u64) -> u64 {
        site.epoch.as_millis() * 1000 - DAYS + self.skew + now
    }

    pub(crate) fn push(&mut self, site: &Site, bytes: &[u8], now: u64) {
        let clock = self.clock(site, now);
        self.wire.push(bytes, clock);
        self.dirty = true;
    }

    pub(crate) fn poll(&mut self, site: &Site, loot: &Loot, now: u64) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let clock = self.clock(site, now);
            let polled = self.wire.poll(clock);
            out.extend(polled.bytes);
            (self.dirty, self.next) = (false, polled.next.map(|at| now + at.saturating_sub(clock)));
            if polled.events.is_empty() {
                return out;
            }
            for event in polled.events {
                match event {
                    HostEvent::Challenged | HostEvent::Opened(..) | HostEvent::Stage(Stage::Payload) => {
                        self.give(site, loot, now)
                    }
                    HostEvent::Object(Kind::Admission, proof) => self.proofs.push(proof),
                    HostEvent::Refused(..) => (self.sent_in, self.mode) = (None, self.mode.map(|mode| mode + 1)),
                    HostEvent::Delivered(_) => self.mode = self.mode.map(|mode| mode + 1),
                    _ => {}
                }
            }
        }
    }

    fn give(&mut self, site: &Site, loot: &Loot, now: u64) {
        let end = self.wire.end();
        let (Some(hello), Some(session), Some((challenge, _))) = (end.node().cloned(), end.session(), end.challenge())
        else {
            return;
        };
        if end.stage() != Some(Stage::Payload) || self.sent_in == Some(session) {
            return;
        }
        self.sent_in = Some(session);
        self.sent += 1;
        let mine = |payload: &[u8]| {
            let mut payload = Payload::unwrapped(payload).unwrap();
            let wrong = site.at(now).plus(Duration::from_secs(86_400));
            (payload.composed, payload.expiry) = (wrong, wrong.plus(Duration::from_secs(86_400)));
            // The node that it is for is left out: only the signature says whose it is.
            payload.binding = None;
            payload.encode().to_vec()
        };
        let aad = signed::aad(Some((&hello.digest(), &challenge.0)));
        let by_me = |payload: &[u8], aad: &[u8]| {
            let signer = loot.stranger.signer();
            loot.stranger.sign_as(&signer, aad, &mine(payload))
        };
        let as_the_site = |signed: &[u8]| {
            // Signed with the key id of the site's signer.
            let kid = Signed::decode(signed).unwrap().kid;
            let signer = site.pin.signers.iter().find(|signer| signer.kid() == kid).unwrap();
            loot.stranger.sign_as(signer, &aad, &mine(signed))
        };
        let by_the_site = |payload: &[u8], hello: &Hello, challenge: &Challenge| {
            let signed = site.state.fresh(payload, hello, challenge, site.at(now)).unwrap().unwrap();
            signed.expose()[challenge.0.len()..].to_vec()
        };
        let for_other = |challenge: &Challenge| by_the_site(&loot.other, &loot.other_hello, challenge);
        let Some(mode) = self.mode else {
            let payload = by_the_site(site.elsewhere.expose(), &hello, &challenge);
            return self.send(&hello, session, Kind::Fresh, [&challenge.0[..], &payload].concat());
        };
        let (kind, challenge, payload) = match mode % MODES {
            0 => (Kind::Fresh, challenge, by_me(&loot.other, &aad)),
            1 => (Kind::Fresh, challenge, mine(&loot.other)),
            2 => (Kind::Fresh, challenge, for_other(&loot.other_challenge)),
            3 => (Kind::Fresh, loot.other_challenge, for_other(&loot.other_challenge)),
            4 => (Kind::Fresh, challenge, loot.yesterday.clone().unwrap_or_else(|| loot.file.clone())),
            5 => (Kind::Sealed, challenge, loot.file.clone()),
            6 => (Kind::Plain, challenge, loot.file.clone()),
            7 => (Kind::Fresh, challenge, loot.file.clone()),
            // His own node has said the challenge of this one.
            8 => (Kind::Fresh, challenge, for_other(&challenge)),
            9 => (Kind::Fresh, challenge, as_the_site(&loot.file)),
            // What the site has signed for this HELLO and another challenge, from somebody who could read it.
            12 => (Kind::Fresh, challenge, by_the_site(&loot.other, &hello, &loot.other_challenge)),
            10 => (Kind::Refused, challenge, b"go away".to_vec()),
            _ => (Kind::Pending, challenge, format!("run imprint-host admit {}", loot.code).into_bytes()),
        };
        let object = match kind {
            Kind::Fresh => [&challenge.0[..], &payload].concat(),
            _ => payload,
        };
        self.send(&hello, session, kind, object);
    }

    fn send(&mut self, hello: &Hello, session: Session, kind: Kind, object: Vec<u8>) {
        let number = self.wire.end().next_number();
        let object = match kind {
            Kind::Fresh | Kind::Sealed => seal::seal(&Secret::new(object), hello, session, kind, number).unwrap(),
            _ => object,
        };
        self.wire.end_mut().send(kind, object);
        self.dirty = true;
    }
}

/// A node of the attacker, which calls at the site's door.
pub(crate) struct Guise {
    pub(crate) wire: Wire<Node>,
    /// `None`: the key is the node's, and he can open nothing.
    pub(crate) key: Option<LineKey>,
    pub(crate) visit: Option<usize>,
    pub(crate) calls_at: Option<u64>,
    pub(crate) calls: usize,
    pub(crate) next: Option<u64>,
    pub(crate) dirty: bool,
    /// Proofs that he has heard, to say again as his own.
    pub(crate) stolen: Vec<Vec<u8>>,
    /// A stick of his.
    pub(crate) stick: Option<Arc<AdmissionKey>>,
    /// Payloads that he has opened, each with the time.
    pub(crate) opened: Vec<Payload>,
    pub(crate) waits: usize,
}

impl Guise {
    pub(crate) fn new(hello: Hello, key: Option<LineKey>, calls_at: u64, seed: &mut Seed) -> Guise {
        let node = line::Node::new(hello, true, Shape::default()).challenging(seed.bytes(), true);
        Guise {
            wire: Wire::new(node, None),
            key,
            visit: None,
            calls_at: Some(calls_at),
            calls: 0,
            next: None,
            dirty: true,
            stolen: Vec::new(),
            stick: None,
            opened: Vec::new(),
            waits: 0,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8], now: u64) {
        self.wire.push(bytes, now);
        self.dirty = true;
    }

    pub(crate) fn poll(&mut self, now: u64) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let polled = self.wire.poll(now);
            out.extend(polled.bytes);
            (self.dirty, self.next) = (false, polled.next);
            if polled.events.is_empty() {
                return out;
            }
            for event in polled.events {
                match event {
                    NodeEvent::Opened(session) => {
                        let node = self.wire.end();
                        let own = self.stick.as_ref().map(|stick| stick.prove(node.hello(), session.host));
                        if let Some(proof) = own.or_else(|| self.stolen.pop()) {
                            self.wire.end_mut().say(Kind::Admission, proof);
                        }
                    }
                    NodeEvent::Object { kind: Kind::Fresh, number, session: Some(session), bytes, .. } => {
                        let hello = self.wire.end().hello();
                        let opened = self
                            .key
                            .as_ref()
                            .and_then(|key| key.open(&bytes, hello, session, Kind::Fresh, number).ok());
                        if let Some((_, signed)) = opened.and_then(|opened| seal::answer(&opened)) {
                            self.opened.push(Payload::unwrapped(signed.expose()).unwrap());
                        }
                    }
                    NodeEvent::Object { kind: Kind::Pending, .. } => self.waits += 1,
                    _ => {}
                }
            }
        }
    }
}

/// The same frames, with this line key in HELLO.
pub(crate) fn with_key(bytes: &[u8], key: [u8; 32]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in line::ether::frames(bytes) {
        let digits = text.strip_prefix(b"#").unwrap_or(text).trim_ascii_end();
        match Packet::decode(digits, None) {
            Some(Packet { from, session, frame: Frame::Hello(hello) }) => {
                Packet { from, session, frame: Frame::Hello(Hello { key, ..hello }) }.encode(&mut out)
            }
            _ => out.extend(text),
        }
    }
    out
}

/// Whether a frame of the host's brings an object.
pub(crate) fn is_of_an_object(text: &[u8], session: Option<Session>) -> bool {
    let digits = text.strip_prefix(b"#").unwrap_or(text).trim_ascii_end();
    matches!(Packet::decode(digits, session), Some(Packet { frame: Frame::Announce(_) | Frame::Data { .. }, .. }))
}

/// Whether a frame of the host's tells the time.
pub(crate) fn is_a_time(text: &[u8], session: Option<Session>) -> bool {
    let digits = text.strip_prefix(b"#").unwrap_or(text).trim_ascii_end();
    matches!(Packet::decode(digits, session), Some(Packet { frame: Frame::Time { .. } | Frame::ProvenTime { .. }, .. }))
}

/// What the attacker has before the run begins. He owns the machine `other`, so he has its payload.
pub(crate) fn loot(
    site: &mut Site,
    other: &Hello,
    [node, other_node]: [&str; 2],
    yesterday: Option<Vec<u8>>,
    seed: &mut Seed,
) -> Loot {
    use imprint_host::compose::{Medium, Options};
    let (now, week): (Timestamp, _) = (site.at(0), Duration::from_secs(7 * 86_400));
    let line = Options { medium: Medium::Line, unsigned: true, ..Options::default() };
    let file = Options { expires: week * 2, keep: true, ..Options::default() };
    let made = site.state.payload(other_node, &line, now).unwrap();
    let file = match site.state.payload(node, &file, now.minus(week)) {
        Ok(made) => made.bytes.to_vec(),
        // A record without a binding has no such file: then that of another node.
        Err(_) => site
            .state
            .payload(other_node, &Options { medium: Medium::Line, ..Options::default() }, now)
            .unwrap()
            .bytes
            .to_vec(),
    };
    Loot {
        other: made.bytes.to_vec(),
        other_hello: other.clone(),
        other_challenge: Challenge(seed.bytes()),
        yesterday,
        file,
        stranger: Key::stranger(),
        code: String::new(),
    }
}

/// A line key of the attacker's.
pub(crate) fn own_key() -> LineKey {
    LineKey::generate(&seeded()).unwrap()
}
