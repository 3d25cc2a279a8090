//! The network of the simulation, with its own clock: who is there, and what happens next. Who calls whom is in
//! `calls`; what is sent passes the attacker first, in `way`. Ends when the node is done, or when it should have been.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::line::{LineKey, Nonce};
use imprint::time::Timestamp;
use imprint_host::admission::Facts;

use super::attacker::{Attack, Evil, Guise, Loot, loot, own_key};
use super::door::{Standing, Visit, Whence};
use super::node::{Born, Node, Peer, says};
use super::outcome::{Case, Defence, Outcome};
use super::site::{Admit, Seed, Site, machines};

pub(super) const SECOND: u64 = 1_000_000;
/// From when the attacker lets the packets of the node pass, it has so long: a minute for the administrator, the longest time
/// between two calls, and the time that a whole conversation needs.
const HONEST: u64 = 600 * SECOND;
/// More turns than any run needs. A run that has not ended then hangs.
const TURNS: usize = 400_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum To {
    Line { node: usize, line: usize, connection: usize },
    Visit(usize),
    Evil(usize),
    Guise(usize),
}

/// What he holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holds {
    All,
    /// Objects, and nothing else.
    Objects,
    /// Answers about the time: a payload that came at once leaves little room for a wrong clock.
    Times,
}

/// When it arrives, its place among those of the same moment, for whom, and the bytes.
type Due = (u64, u64, To, Vec<u8>);

/// What one end has said: when, whether to the node, and the bytes.
pub(super) type Said = (u64, bool, Vec<u8>);

/// What the next boot of the same machine is attacked with.
struct Yesterday {
    said: Vec<Said>,
    signed: Option<Vec<u8>>,
    born: Born,
}

pub(super) struct World<'a> {
    pub(super) site: &'a mut Site,
    pub(super) case: Case,
    pub(super) seed: Seed,
    pub(super) now: u64,
    /// From when the attacker lets everything pass at the site's address.
    pub(super) release: u64,
    pub(super) latency: u64,
    /// The longest that he holds a packet; and which.
    pub(super) hold: u64,
    pub(super) holds: Holds,
    pub(super) swaps_on_the_way: bool,
    /// The machine behind the second node's port passes on what the first one says.
    pub(super) other_port: bool,
    /// Of so many packets he brings one to the other node, too.
    pub(super) crosses: u64,
    pub(super) evil_key: LineKey,
    /// Keys that the attacker can open with.
    evil_keys: Vec<[u8; 32]>,
    pub(super) nodes: Vec<Node>,
    pub(super) visits: Vec<Visit>,
    pub(super) evils: Vec<Evil>,
    pub(super) guises: Vec<Guise>,
    loot: Option<Loot>,
    queue: BinaryHeap<Reverse<Due>>,
    count: u64,
    pub(super) said: Vec<Said>,
    /// The times that he has told in answers to the node's question.
    pub(super) forged: Vec<u64>,
    administrator_at: u64,
    pub(super) out: Outcome,
}

/// One run. `seed` decides everything but the keys.
pub(crate) fn run(site: &mut Site, case: Case, seed: u64) -> Outcome {
    let mut seed = Seed(seed);
    // Yesterday's boot, which somebody has listened to.
    let yesterday = matches!(case.attack, Attack::Replays | Attack::AnothersPayload).then(|| {
        let mut world = World::new(site, Case { without: None, ..case }, &mut seed, None);
        world.release = 0;
        world.begin(None, true);
        world.go();
        assert!(world.nodes[0].done, "yesterday nobody was in the way");
        let node = &world.nodes[0];
        Yesterday {
            signed: node.used.as_ref().map(|used| used.signed.clone()),
            born: node.born.clone(),
            said: world.said,
        }
    });
    site.later();
    // Without a lot of its own each machine of an image is born alike, at each boot.
    let born = match (case.without, &yesterday) {
        (Some(Defence::Boot), Some(Yesterday { born, .. })) => Some(born.clone()),
        (Some(Defence::Boot), None) => Some(Born::new(lines(case.attack), &mut seed)),
        _ => None,
    };
    let mut world = World::new(site, case, &mut seed, born);
    let names = machines(case.run).map(|machine| machine.name);
    let other_hello = says(&machines(case.run)[1], &own_key(), Nonce(world.seed.bytes()));
    let (said, signed) = yesterday.map_or((None, None), |yesterday| (Some(yesterday.said), yesterday.signed));
    if case.attack != Attack::Relays {
        let loot = loot(world.site, &other_hello, [&names[0], &names[1]], signed, &mut world.seed);
        world.loot = Some(loot);
    }
    world.begin(said, false);
    world.go();
    world.outcome()
}

fn lines(attack: Attack) -> usize {
    if attack.has_two_lines() { 2 } else { 1 }
}

impl<'a> World<'a> {
    /// `born`: what the nodes have, instead of a lot of their own.
    fn new(site: &'a mut Site, case: Case, seed: &mut Seed, born: Option<Born>) -> World<'a> {
        let mut seed = Seed(seed.next());
        let swaps_on_the_way = seed.below(2) == 0;
        let passes_on = matches!(case.attack, Attack::Relays | Attack::SwapsKeys) && site.admit == Admit::Wire;
        let other_port = passes_on && seed.below(2) == 0;
        let calls = case.attack.calls(swaps_on_the_way) || case.attack == Attack::SwapsKeys;
        let release = match site.admit {
            _ if case.is_unguarded() => 120 * SECOND,
            // The window is for who calls first, if nobody else calls within seconds: docs/door.md says so.
            Admit::Armed if calls => seed.below(SECOND / 2),
            _ => seed.below(120 * SECOND),
        };
        let evil_key = own_key();
        let count = if case.attack == Attack::Relays { 2 } else { 1 };
        // Without the CA in the pin, the signer's word counts.
        let mut pin = site.pin.clone();
        if case.without == Some(Defence::Ca) {
            pin.cas.clear();
        }
        let mut nodes = Vec::new();
        for machine in machines(case.run).into_iter().take(count) {
            // The battery is empty, or the clock is right, or a day fast.
            let epoch = site.epoch;
            let rtc = [Timestamp::from_secs(1_546_300_800), epoch, epoch.plus(Duration::from_secs(86_400))];
            let rtc = rtc[usize::try_from(seed.below(3)).unwrap()];
            let stick = (site.admit == Admit::Key).then(|| site.stick.clone());
            let born = born.clone().unwrap_or_else(|| Born::new(lines(case.attack), &mut seed));
            nodes.push(Node::new(machine, born, &pin, case.without, &mut seed, rtc).with_stick(stick));
        }
        let holds = [Holds::All, Holds::Objects, Holds::Times][usize::try_from(seed.below(3)).unwrap()];
        let hold = match holds {
            Holds::All => [SECOND / 5, SECOND, 3 * SECOND, 10 * SECOND, 30 * SECOND],
            Holds::Objects => [30, 58, 70, 90, 180].map(|seconds| seconds * SECOND),
            // Longer, and the node would ask again.
            Holds::Times => [10, 50, 100, 200, 500].map(|part| part * SECOND / 1000),
        };
        let hold = hold[usize::try_from(seed.below(5)).unwrap()];
        let latency = 200 + seed.below(50_000);
        World {
            evil_keys: vec![evil_key.public()],
            site,
            case,
            now: 0,
            release,
            latency,
            hold,
            holds,
            swaps_on_the_way,
            other_port,
            crosses: [1, 2, 4, 4][usize::try_from(seed.below(4)).unwrap()],
            evil_key,
            nodes,
            visits: Vec::new(),
            evils: Vec::new(),
            guises: Vec::new(),
            loot: None,
            queue: BinaryHeap::new(),
            count: 0,
            said: Vec::new(),
            forged: Vec::new(),
            administrator_at: 5 * SECOND,
            out: Outcome::default(),
            seed,
        }
    }

    /// `said`: what was said yesterday. `yesterday`: this is yesterday, and nobody attacks.
    fn begin(&mut self, said: Option<Vec<Said>>, yesterday: bool) {
        if self.site.admit == Admit::Armed {
            for machine in self.nodes.iter().map(|node| node.machine.name.clone()) {
                self.site.state.arm(&machine, Duration::from_secs(600), self.site.at(0)).unwrap();
            }
        }
        if yesterday {
            self.case.attack = Attack::Delays;
            (self.hold, self.holds) = (0, Holds::All);
            return;
        }
        let [node, other] = machines(self.case.run);
        if self.case.attack.calls(self.swaps_on_the_way) {
            let way =
                if self.case.attack == Attack::SwapsKeys || self.case.is_unguarded() { 0 } else { self.seed.below(4) };
            let key = own_key();
            if let Some(loot) = &mut self.loot {
                loot.code = KeyCode::of(&key.public()).to_string();
            }
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
            let latest = if self.site.admit == Admit::Armed || self.case.is_unguarded() {
                SECOND
            } else {
                2 * self.release + SECOND
            };
            let at = self.seed.below(latest);
            let mut guise = Guise::new(hello, (way == 0).then_some(key), at, &mut self.seed);
            guise.stick = (self.case.is_unguarded() && self.site.admit == Admit::Key).then(|| self.site.stick.clone());
            self.guises.push(guise);
        }
        if let Some(said) = said {
            self.replay(&said);
        }
    }

    pub(super) fn send(&mut self, after: u64, to: To, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.count += 1;
            self.queue.push(Reverse((self.now + after, self.count, to, bytes)));
        }
    }

    pub(super) fn visit(&mut self, whence: Whence, source: &str, facts: Facts) -> usize {
        let visit = Visit::new(whence, source, facts, self.now, &mut self.seed);
        self.visits.push(visit);
        self.visits.len() - 1
    }

    fn go(&mut self) {
        let end = if self.case.is_unguarded() { self.release } else { self.release + HONEST };
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

    /// Reads the codes on the nodes' consoles, and admits those of them that wait.
    fn administrator(&mut self) {
        let now = self.site.at(self.now);
        let mut admitted = false;
        let mut codes: Vec<(String, String)> = Vec::new();
        for node in self.nodes.iter().filter(|node| node.used.is_none()) {
            codes.extend(on_the_console(&node.console).map(|code| (code, node.machine.name.clone())));
        }
        if self.case.is_unguarded() && self.site.admit == Admit::Approve {
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
        self.nodes.iter().for_each(|node| out.of_node(self.site, node, &self.forged));
        self.visits.iter().for_each(|visit| out.of_visit(&self.nodes, visit, &self.evil_keys));
        out.of_evils(&self.evils);
        if self.case.attack == Attack::Echoes {
            out.echoes_heard = usize::from(self.nodes[0].lines[1].wire.heard() > 0);
        }
        out
    }
}

/// The code that a person at the console is told to admit, or that the node has waited with from the start.
fn on_the_console(line: &str) -> Option<String> {
    let told = line.split_once("imprint-host admit ").or_else(|| line.split_once("line key "));
    let code = told.filter(|_| !line.contains("ADMIT NOBODY"))?.1.split([' ', ';', ',']).next();
    code.map(str::to_owned)
}
