//! The network of the simulation, with its own clock. Everything that is sent passes the attacker, who decides when it arrives and
//! where. Ends when the node is done, or when it should have been.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::line::frame::{Frame, Packet};
use imprint::line::{End, LineKey, Nonce, Session, Side};
use imprint::time::Timestamp;
use imprint_host::admission::Facts;

use super::attacker::{Attack, Evil, Guise, Loot, is_of_an_object, loot, own_key, with_key};
use super::door::{Standing, Visit, Whence};
use super::node::{Node, Peer, Without, says};
use super::site::{Admit, Seed, Site, machines};

const SECOND: u64 = 1_000_000;
/// From when the attacker lets the packets of the node pass, it has so long: a minute for the administrator, the longest time
/// between two calls, and the time that a whole conversation needs.
const HONEST: u64 = 600 * SECOND;
/// More turns than any run needs. A run that has not ended then hangs.
const TURNS: usize = 400_000;

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) attack: Attack,
    pub(crate) run: usize,
    /// Defences of the node that are left out.
    pub(crate) without: Without,
    /// The defence of the host is left out: the administrator admits any code, the hypervisor names the attacker's port, the
    /// attacker has a stick, the node is not heard.
    pub(crate) unguarded: bool,
}

/// What a run has come to.
#[derive(Default, Debug)]
pub(crate) struct Outcome {
    pub(crate) done: bool,
    /// Payloads used that were not made for this node in this run.
    pub(crate) wrong: usize,
    /// Payloads of the node that were sealed for a key of the attacker.
    pub(crate) secrets: usize,
    /// The node was believed to be another one.
    pub(crate) mistaken: usize,
    /// The clock was set, and how often it was beyond the age of the challenge.
    pub(crate) clocks: usize,
    pub(crate) clocks_off: usize,
    /// The payload was signed for a challenge that was older than a minute.
    pub(crate) old: usize,
    pub(crate) hung: bool,
    pub(crate) faults: Vec<String>,
    /// What came of the attack: payloads that the node was given and did not use, or could not open, or refused as old.
    pub(crate) given: usize,
    pub(crate) not_used: usize,
    pub(crate) unsealed: usize,
    pub(crate) stale: usize,
    /// Callers of the attacker that the door has met, and proofs that it did not take.
    pub(crate) met: usize,
    pub(crate) bad_proofs: usize,
    /// Packets that were held for more than a second, said again, or brought elsewhere.
    pub(crate) held: usize,
    pub(crate) repeated: usize,
    pub(crate) crossed: usize,
    /// Answers about the time that came before the door's.
    pub(crate) forged: usize,
    pub(crate) turns: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum To {
    Line { node: usize, line: usize, connection: usize },
    Visit(usize),
    Evil(usize),
    Guise(usize),
}

/// When it arrives, its place among those of the same moment, for whom, and the bytes.
type Due = (u64, u64, To, Vec<u8>);

struct World<'a> {
    site: &'a mut Site,
    case: Case,
    seed: Seed,
    now: u64,
    /// From when the attacker lets everything pass at the site's address.
    release: u64,
    latency: u64,
    /// The longest that he holds a packet; and whether he holds objects only.
    hold: u64,
    holds_objects: bool,
    swaps_on_the_way: bool,
    evil_key: LineKey,
    /// Keys that the attacker can open with.
    evil_keys: Vec<[u8; 32]>,
    nodes: Vec<Node>,
    visits: Vec<Visit>,
    evils: Vec<Evil>,
    guises: Vec<Guise>,
    loot: Option<Loot>,
    queue: BinaryHeap<Reverse<Due>>,
    count: u64,
    /// What both ends have said: when, whether to the node, and the bytes.
    said: Vec<(u64, bool, Vec<u8>)>,
    administrator_at: u64,
    out: Outcome,
}

/// One run. `seed` decides everything but the keys.
pub(crate) fn run(site: &mut Site, case: Case, seed: u64) -> Outcome {
    let mut seed = Seed(seed);
    // Yesterday's boot, which somebody has listened to.
    let yesterday = matches!(case.attack, Attack::Replays | Attack::AnothersPayload).then(|| {
        let mut world = World::new(site, Case { without: Without::default(), unguarded: false, ..case }, &mut seed);
        world.release = 0;
        world.begin(None, true);
        world.go();
        assert!(world.nodes[0].done, "yesterday nobody was in the way");
        let signed = world.nodes[0].used.as_ref().map(|used| used.signed.clone());
        (world.said, signed)
    });
    site.later();
    let (said, signed) = yesterday.map_or((None, None), |(said, signed)| (Some(said), signed));
    let mut world = World::new(site, case, &mut seed);
    let names = machines(case.run).map(|machine| machine.name);
    let other_hello = says(&machines(case.run)[1], &own_key(), Nonce(world.seed.bytes()));
    if case.attack != Attack::Relays {
        let loot = loot(world.site, &other_hello, [&names[0], &names[1]], signed, &mut world.seed);
        world.loot = Some(loot);
    }
    world.begin(said, false);
    world.go();
    world.outcome()
}

impl<'a> World<'a> {
    fn new(site: &'a mut Site, case: Case, seed: &mut Seed) -> World<'a> {
        let mut seed = Seed(seed.next());
        // What comes by the node's own port is a fact: nobody but the hypervisor can change it there.
        let swaps_on_the_way = seed.below(2) == 0 && site.admit != Admit::Wire;
        let calls = case.attack.calls(swaps_on_the_way) || case.attack == Attack::SwapsKeys;
        let release = match site.admit {
            _ if case.unguarded => 120 * SECOND,
            // The window is for who calls first, if nobody else calls within seconds: docs/door.md says so.
            Admit::Armed if calls => seed.below(SECOND / 2),
            _ => seed.below(120 * SECOND),
        };
        let evil_key = own_key();
        let count = if case.attack == Attack::Relays { 2 } else { 1 };
        let lines = if case.attack.has_a_door() || case.attack == Attack::Replays { 2 } else { 1 };
        let mut nodes = Vec::new();
        for machine in machines(case.run).into_iter().take(count) {
            // The battery is empty, or the clock is right, or a day fast.
            let epoch = site.epoch;
            let rtc = [Timestamp::from_secs(1_546_300_800), epoch, epoch.plus(Duration::from_secs(86_400))];
            let rtc = rtc[usize::try_from(seed.below(3)).unwrap()];
            let stick = (site.admit == Admit::Key).then(|| site.stick.clone());
            let node = Node::new(machine, &site.pin, lines, &mut seed, rtc);
            nodes.push(node.without(case.without).with_stick(stick));
        }
        let holds = [SECOND / 5, SECOND, 3 * SECOND, 10 * SECOND, 30 * SECOND];
        let holds_objects = seed.below(2) == 0;
        let hold = match holds_objects {
            true => [30, 58, 70, 90, 180][usize::try_from(seed.below(5)).unwrap()] * SECOND,
            false => holds[usize::try_from(seed.below(5)).unwrap()],
        };
        let latency = 200 + seed.below(50_000);
        World {
            evil_keys: vec![evil_key.public()],
            site,
            case,
            now: 0,
            release,
            latency,
            hold,
            holds_objects,
            swaps_on_the_way,
            evil_key,
            nodes,
            visits: Vec::new(),
            evils: Vec::new(),
            guises: Vec::new(),
            loot: None,
            queue: BinaryHeap::new(),
            count: 0,
            said: Vec::new(),
            administrator_at: 5 * SECOND,
            out: Outcome::default(),
            seed,
        }
    }

    /// `said`: what was said yesterday. `yesterday`: this is yesterday, and nobody attacks.
    fn begin(&mut self, said: Option<Vec<(u64, bool, Vec<u8>)>>, yesterday: bool) {
        if self.site.admit == Admit::Armed {
            for machine in self.nodes.iter().map(|node| node.machine.name.clone()) {
                self.site.state.arm(&machine, Duration::from_secs(600), self.site.at(0)).unwrap();
            }
        }
        if yesterday {
            self.case.attack = Attack::Delays;
            (self.hold, self.holds_objects) = (0, false);
            return;
        }
        let [node, other] = machines(self.case.run);
        if self.case.attack.calls(self.swaps_on_the_way) {
            let way = if self.case.attack == Attack::SwapsKeys || self.case.unguarded { 0 } else { self.seed.below(4) };
            let key = own_key();
            self.evil_keys.push(key.public());
            let mut hello = says(&node, &key, Nonce(self.seed.bytes()));
            let heard = self.nodes[0].hello().clone();
            match way {
                0 => {}
                // The node's key, which can be heard, with other words, in another HELLO, and in the same.
                1 => (hello.key, hello.serial) = (heard.key, Some(other.serial)),
                2 => hello.key = heard.key,
                _ => hello = heard,
            }
            // Long before the node, at the same time, or later.
            let latest =
                if self.site.admit == Admit::Armed || self.case.unguarded { SECOND } else { 2 * self.release + SECOND };
            let at = self.seed.below(latest);
            let mut guise = Guise::new(hello, (way == 0).then_some(key), at, &mut self.seed);
            guise.stick = (self.case.unguarded && self.site.admit == Admit::Key).then(|| self.site.stick.clone());
            self.guises.push(guise);
        }
        if let Some(said) = said {
            self.replay(&said);
        }
    }

    /// Says everything of yesterday again, at the same pace: to the node at its second address and, until he lets its packets pass,
    /// at the first; and to the door.
    fn replay(&mut self, said: &[(u64, bool, Vec<u8>)]) {
        self.visit(Whence::Nobody, "203.0.113.66", Facts::default());
        for (at, to_node, bytes) in said {
            self.out.repeated += 1;
            match to_node {
                true => {
                    for line in 0..2 {
                        self.send(*at, To::Line { node: 0, line, connection: 0 }, bytes.clone());
                    }
                }
                false => self.send(*at, To::Visit(0), bytes.clone()),
            }
        }
    }

    fn send(&mut self, after: u64, to: To, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.count += 1;
            self.queue.push(Reverse((self.now + after, self.count, to, bytes)));
        }
    }

    fn visit(&mut self, whence: Whence, source: &str, facts: Facts) -> usize {
        let visit = Visit::new(whence, source, facts, self.now, &mut self.seed);
        self.visits.push(visit);
        self.visits.len() - 1
    }

    fn go(&mut self) {
        let end = if self.case.unguarded { self.release } else { self.release + HONEST };
        let mut released = false;
        while self.out.turns < TURNS {
            self.out.turns += 1;
            self.polls();
            if self.nodes.iter().all(|node| node.done) && self.guises.is_empty() {
                return;
            }
            let queued = self.queue.peek().map(|Reverse((at, ..))| *at);
            let lines = self.nodes.iter().flat_map(|node| &node.lines).filter(|line| !line.closed);
            let lines = lines.flat_map(|line| [line.calls_at, line.next.filter(|_| line.calls_at.is_none())]).flatten();
            let guises =
                self.guises.iter().flat_map(|guise| [guise.calls_at, guise.next.filter(|_| guise.visit.is_some())]);
            let visits = self.visits.iter().filter(|visit| !visit.closed).filter_map(|visit| visit.next);
            let evils = self.evils.iter().filter_map(|evil| evil.next);
            let timers = lines.chain(guises.flatten()).chain(visits).chain(evils).chain([self.administrator_at]);
            let timers = timers.chain((!released).then_some(self.release)).min();
            let next = [queued, timers].into_iter().flatten().min().unwrap_or(end).max(self.now);
            if next >= end {
                return;
            }
            self.now = next;
            if !released && self.now >= self.release {
                released = true;
                self.let_pass();
            }
            if self.administrator_at <= self.now {
                self.administrator_at += 5 * SECOND;
                self.administrator();
            }
            self.calls();
            while let Some(Reverse((at, ..))) = self.queue.peek()
                && *at <= self.now
                && let Some(Reverse((_, _, to, bytes))) = self.queue.pop()
            {
                self.arrives(to, &bytes);
            }
        }
        self.out.hung = true;
    }

    fn arrives(&mut self, to: To, bytes: &[u8]) {
        match to {
            To::Line { node, line, connection } => {
                let end = &mut self.nodes[node].lines[line];
                // A replayed conversation has no connection of its own.
                let here = end.connection == connection || (connection == 0 && end.peer == Peer::Nobody);
                if here && !end.closed && end.calls_at.is_none() {
                    self.nodes[node].push(line, bytes, self.now);
                }
            }
            To::Visit(visit) => {
                if !self.visits[visit].closed {
                    self.visits[visit].push(self.site, bytes, self.now);
                }
            }
            To::Evil(evil) => self.evils[evil].push(self.site, bytes, self.now),
            To::Guise(guise) => self.guises[guise].push(bytes, self.now),
        }
    }

    fn polls(&mut self) {
        for node in 0..self.nodes.len() {
            for line in 0..self.nodes[node].lines.len() {
                let end = &self.nodes[node].lines[line];
                let due = end.dirty || end.next.is_some_and(|at| at <= self.now);
                if end.closed || end.calls_at.is_some() || !due {
                    continue;
                }
                let (bytes, hangs_up) = self.nodes[node].poll(line, self.now);
                self.of_a_node(node, line, bytes);
                if hangs_up {
                    self.hang_up(node, line);
                }
            }
        }
        for visit in 0..self.visits.len() {
            let end = &self.visits[visit];
            if end.closed || !(end.dirty || end.next.is_some_and(|at| at <= self.now)) {
                continue;
            }
            let bytes = self.visits[visit].poll(self.site, self.now);
            self.of_a_visit(visit, bytes);
            if self.visits[visit].closed {
                self.closed(visit);
            }
        }
        for evil in 0..self.evils.len() {
            let end = &self.evils[evil];
            if !(end.dirty || end.next.is_some_and(|at| at <= self.now)) {
                continue;
            }
            let Some(loot) = &self.loot else { continue };
            let (node, line, connection) = (end.node, end.line, end.connection);
            let bytes = self.evils[evil].poll(self.site, loot, self.now);
            let gone = self.nodes[node].lines[line].connection != connection;
            if gone {
                self.evils[evil].next = None;
            } else {
                // He is nearer than the site's door.
                self.send(100, To::Line { node, line, connection }, bytes);
            }
        }
        for guise in 0..self.guises.len() {
            let end = &self.guises[guise];
            let due = end.dirty || end.next.is_some_and(|at| at <= self.now);
            if let (Some(visit), true) = (end.visit, due) {
                let bytes = self.guises[guise].poll(self.now);
                self.send(100, To::Visit(visit), bytes);
            }
        }
    }

    /// What a node has said passes the attacker.
    fn of_a_node(&mut self, node: usize, line: usize, bytes: Vec<u8>) {
        let attacks = self.now < self.release;
        if line == 0 && node == 0 {
            self.said.push((self.now, false, bytes.clone()));
        }
        match self.nodes[node].lines[line].peer {
            Peer::Nobody => {}
            Peer::Evil(evil) => self.send(100, To::Evil(evil), bytes.clone()),
            Peer::Visit(visit) if self.case.attack == Attack::SwapsKeys && attacks => {
                let bytes = with_key(&bytes, self.evil_key.public());
                self.send(self.latency, To::Visit(visit), bytes);
            }
            Peer::Visit(visit) => self.passes(To::Visit(visit), &bytes, None),
        }
        // The other node's connection gets it, too.
        if self.case.attack == Attack::Relays && attacks && self.seed.below(4) == 0 {
            self.out.crossed += 1;
            let other = self.nodes[1 - node].lines[0].peer;
            if let (Peer::Visit(visit), true) = (other, self.site.admit != Admit::Wire) {
                self.send(self.latency, To::Visit(visit), bytes);
            }
        }
    }

    fn of_a_visit(&mut self, visit: usize, bytes: Vec<u8>) {
        match self.visits[visit].whence {
            Whence::Nobody => {}
            Whence::Guise(guise) => self.send(100, To::Guise(guise), bytes),
            Whence::Line { node, line, connection } => {
                if line == 0 && node == 0 {
                    self.said.push((self.now, true, bytes.clone()));
                }
                let session = self.visits[visit].wire.end().session();
                let to = To::Line { node, line, connection };
                self.passes(to, &bytes, session);
                if self.case.attack == Attack::Relays && self.now < self.release && self.seed.below(4) == 0 {
                    self.out.crossed += 1;
                    let connection = self.nodes[1 - node].lines[0].connection;
                    self.send(self.latency, To::Line { node: 1 - node, line: 0, connection }, bytes);
                }
            }
        }
    }

    /// What goes between a node and the site's door.
    fn passes(&mut self, to: To, bytes: &[u8], session: Option<Session>) {
        let attacks = self.now < self.release;
        for text in imprint::line::ether::frames(bytes) {
            let mut after = self.latency;
            if self.case.attack == Attack::Delays && attacks {
                let holds = !self.holds_objects || is_of_an_object(text, session);
                after += if holds {
                    self.seed.below(self.hold + 1).max(if self.holds_objects { self.hold } else { 0 })
                } else {
                    0
                };
                self.out.held += usize::from(after > SECOND);
            }
            if self.case.attack == Attack::AnswersFirst {
                self.forges_time(to, text, session);
            }
            self.send(after, to, text.to_vec());
            if self.case.attack == Attack::Delays && attacks && self.holds_objects {
                self.keeps_alive(to, text, session);
            }
            if self.case.attack == Attack::Replays && self.seed.below(4) == 0 {
                self.out.repeated += 1;
                let later = self.seed.below(90 * SECOND);
                self.send(later, to, text.to_vec());
            }
        }
    }

    /// Before the door's answer to the question for the time comes his own, with a proof that he has heard and without one.
    fn forges_time(&mut self, to: To, text: &[u8], session: Option<Session>) {
        let digits = text.strip_prefix(b"#").unwrap_or(text).trim_ascii_end();
        let Some(Packet { from, session, frame: Frame::ProvenTime { number, received, held, tag } }) =
            Packet::decode(digits, session)
        else {
            return;
        };
        let received = received + self.seed.below(86_400 * SECOND);
        for frame in [Frame::Time { number, received, held }, Frame::ProvenTime { number, received, held, tag }] {
            let mut bytes = Vec::new();
            Packet { from, session, frame }.encode(&mut bytes);
            self.out.forged += 1;
            self.send(self.latency - 100, to, bytes);
        }
    }

    /// While he holds an object, he repeats OPEN, so that neither end takes the other for gone.
    fn keeps_alive(&mut self, to: To, text: &[u8], session: Option<Session>) {
        let digits = text.strip_prefix(b"#").unwrap_or(text).trim_ascii_end();
        let packet = Packet::decode(digits, session);
        if matches!(packet, Some(Packet { from: Side::Host, frame: Frame::Open { .. }, .. })) {
            for step in 1..self.hold / SECOND {
                self.send(step * SECOND, to, text.to_vec());
            }
        }
    }

    /// The node leaves the connection, and calls again later.
    fn hang_up(&mut self, node: usize, line: usize) {
        let end = &mut self.nodes[node].lines[line];
        let peer = std::mem::replace(&mut end.peer, Peer::Nobody);
        end.wire.end_mut().part();
        end.connection += 1;
        end.calls_at = Some(self.now + end.backoff);
        end.backoff = (end.backoff * 2).min(10 * SECOND);
        if let Peer::Visit(visit) = peer {
            self.visits[visit].closed = true;
        }
    }

    /// The door leaves the connection.
    fn closed(&mut self, visit: usize) {
        match self.visits[visit].whence {
            Whence::Nobody => {}
            Whence::Guise(guise) => {
                let again = self.now + 2 * SECOND;
                let guise = &mut self.guises[guise];
                guise.visit = None;
                guise.wire.end_mut().part();
                guise.calls_at = (guise.calls < 20).then_some(again);
            }
            Whence::Line { node, line, connection } => {
                if self.nodes[node].lines[line].connection == connection {
                    self.hang_up(node, line);
                }
            }
        }
    }

    /// Nodes and the attacker's nodes that call.
    fn calls(&mut self) {
        for node in 0..self.nodes.len() {
            for line in 0..self.nodes[node].lines.len() {
                let end = &self.nodes[node].lines[line];
                if end.closed || end.calls_at.is_none_or(|at| at > self.now) {
                    continue;
                }
                let connection = end.connection;
                let peer = self.answers(node, line, connection);
                let end = &mut self.nodes[node].lines[line];
                (end.calls_at, end.peer, end.dirty) = (None, peer, true);
            }
        }
        for guise in 0..self.guises.len() {
            if self.guises[guise].calls_at.is_some_and(|at| at <= self.now) {
                let tap = match self.case.unguarded && self.site.admit == Admit::Wire {
                    true => self.nodes[0].machine.tap.clone(),
                    false => "evil0".to_owned(),
                };
                let facts = if self.site.admit == Admit::Wire {
                    Facts { tap: Some(tap), ..Facts::default() }
                } else {
                    Facts::default()
                };
                let visit = self.visit(Whence::Guise(guise), "203.0.113.66", facts);
                // What he has heard of the node.
                let heard = self.visits.iter().flat_map(|visit| visit.proofs.clone());
                let heard: Vec<Vec<u8>> = heard.chain(self.evils.iter().flat_map(|evil| evil.proofs.clone())).collect();
                let guise = &mut self.guises[guise];
                guise.stolen = heard;
                (guise.visit, guise.calls_at, guise.dirty) = (Some(visit), None, true);
                guise.calls += 1;
            }
        }
    }

    /// Who answers at the address that a node calls at.
    fn answers(&mut self, node: usize, line: usize, connection: usize) -> Peer {
        let attacks = self.now < self.release;
        let his = line == 1 || (attacks && self.case.attack.is_the_door(self.swaps_on_the_way));
        if self.case.attack == Attack::Replays && (line == 1 || attacks) {
            return Peer::Nobody;
        }
        if his {
            let mode = self.seed.below(12);
            self.evils.push(Evil::new((node, line, connection), mode, &mut self.seed));
            return Peer::Evil(self.evils.len() - 1);
        }
        let facts = match self.site.admit {
            Admit::Wire => Facts { tap: Some(self.nodes[node].machine.tap.clone()), ..Facts::default() },
            _ => Facts::default(),
        };
        let source = format!("192.0.2.{}", node + 1);
        Peer::Visit(self.visit(Whence::Line { node, line, connection }, &source, facts))
    }

    /// From now on he lets pass what goes between the nodes and the site's door. Connections that were his end.
    fn let_pass(&mut self) {
        for node in 0..self.nodes.len() {
            if !matches!(self.case.attack, Attack::Delays | Attack::Spoofs) && !self.nodes[node].lines[0].closed {
                if let Peer::Evil(evil) = self.nodes[node].lines[0].peer {
                    self.evils[evil].next = None;
                }
                self.hang_up(node, 0);
            }
        }
    }

    /// Compares the codes on the nodes' consoles with those that wait, and admits what is the same.
    fn administrator(&mut self) {
        let now = self.site.at(self.now);
        let mut admitted = false;
        let mut codes: Vec<(String, String)> = Vec::new();
        for node in self.nodes.iter().filter(|node| node.used.is_none()) {
            codes.push((KeyCode::of(&node.hello().key).to_string(), node.machine.name.clone()));
        }
        if self.case.unguarded && self.site.admit == Admit::Approve {
            let name = self.nodes[0].machine.name.clone();
            codes = self.evil_keys.iter().map(|key| (KeyCode::of(key).to_string(), name.clone())).collect();
        }
        let helps = match self.site.admit {
            Admit::Approve => true,
            // It is for nodes that were not alone in their window.
            Admit::Armed => self.now > 30 * SECOND,
            _ => false,
        };
        if helps {
            for (code, name) in codes {
                admitted |= self.site.state.admit(&code, Some(&name), now).is_ok();
            }
        }
        if admitted {
            for visit in 0..self.visits.len() {
                if !self.visits[visit].closed && matches!(self.visits[visit].standing, Standing::Waits(_)) {
                    self.visits[visit].ask(self.site, self.now);
                }
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        let mut out = std::mem::take(&mut self.out);
        out.done = self.nodes.iter().all(|node| node.done && node.certificates.is_some());
        for node in &self.nodes {
            let Some(used) = &node.used else { continue };
            let own = self.site.made.get(&used.payload.id.0) == Some(&node.machine.name)
                && used.line == 0
                && (self.site.at(0)..=self.site.at(used.at)).contains(&used.payload.composed);
            out.wrong += usize::from(!own);
            out.old += usize::from(used.fresh.age() > Duration::from_secs(60));
            for (at, clock) in &node.clocks {
                let right = self.site.at(*at);
                let off = right.since(*clock).max(clock.since(right));
                out.clocks += 1;
                out.clocks_off += usize::from(off > used.fresh.age() + Duration::from_millis(5));
            }
            out.faults.extend(node.faults.clone());
        }
        for node in &self.nodes {
            out.not_used += node.not_used;
            out.unsealed += node.unsealed;
            out.stale += node.stale;
        }
        for visit in &self.visits {
            out.bad_proofs += visit.bad_proofs;
            let of_him = !matches!(visit.whence, Whence::Line { .. })
                || visit.hello.as_ref().is_some_and(|hello| self.evil_keys.contains(&hello.key));
            out.met += usize::from(of_him && visit.hello.is_some());
            let name = &self.nodes[0].machine.name;
            out.secrets +=
                visit.sealed.iter().filter(|(key, node)| self.evil_keys.contains(key) && node == name).count();
            if let Whence::Line { node, .. } = visit.whence {
                let honest = &self.nodes[node];
                let others =
                    |(key, name): &&([u8; 32], String)| *key == honest.key.public() && *name != honest.machine.name;
                out.mistaken += visit.sealed.iter().filter(others).count();
            }
        }
        out.given = self.evils.iter().map(|evil| evil.sent).sum();
        out
    }
}
