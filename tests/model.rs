//! Model checking of the line protocol: searches every order in which frames arrive, are lost or are duplicated, timers
//! fire, and an end restarts. The state machines and packets are those of src/line. Leaves out bytes, sealing and time.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail tests by panicking"
)]

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use imprint::line::frame::{Frame, Hello, Nonce, Packet, Stage, Versions};
use imprint::line::{End, Host, HostEvent, Kind, Node, NodeEvent, Shape, Timer};
use stateright::{Checker, Model, Property};

mod model {
    mod challenge;
}

/// The faults that a line and its ends may have.
#[derive(Clone)]
struct Line {
    /// The node speaks first.
    beacon: bool,
    /// Packets that are lost or duplicated.
    faults: u8,
    /// Restarts of an end.
    restarts: u8,
    /// Timers that fire while a packet is still on its way. Without a packet on its way, any number of timers may fire.
    hasty: u8,
}

/// Packets on their way in each direction.
const CHANNEL: usize = 3;
/// One byte in a frame, and at most two unacknowledged frames.
const SHAPE: Shape = Shape { chunk: 1, window: 2 };
/// A node's shape with longer pieces, until it hears the shape of its host.
const LONGER: Shape = Shape { chunk: 2, ..SHAPE };

const PAYLOAD: [u8; 3] = [1, 2, 3];
const REQUEST: [u8; 2] = [4, 5];
const CERTIFICATES: [u8; 2] = [6, 7];
const REPORT: [u8; 1] = [8];

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    node: Node,
    host: Host,
    to_node: VecDeque<Packet>,
    to_host: VecDeque<Packet>,
    faults: u8,
    restarts: u8,
    hasty: u8,
    /// How often the node was started.
    started: u8,
    /// The node has heard that its report arrived, and is gone.
    gone: bool,
    /// The host has the report.
    reported: bool,
    /// An object arrived that was not sent.
    wrong: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    ToNode,
    ToHost,
    DropToNode,
    DropToHost,
    TwiceToNode,
    TwiceToHost,
    NodeTimer,
    HostTimer,
    RestartNode,
    RestartHost,
}

impl Action {
    /// The actions of a line without further faults.
    const FAIR: [Action; 4] = [Action::ToNode, Action::ToHost, Action::NodeTimer, Action::HostTimer];
}

fn node(started: u8, beacon: bool) -> Node {
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: false,
        nonce: Nonce([started; 8]),
        key: [started; 32],
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    Node::new(hello, beacon, LONGER)
}

impl State {
    /// Sends packets while the channel has room, and handles the ends' events, until there are no more.
    fn settle(&mut self) {
        loop {
            let mut idle = true;
            while self.to_host.len() < CHANNEL
                && !self.gone
                && let Some(packet) = self.node.packet(0, 0)
            {
                if matches!(&packet.frame, Frame::Data { bytes, .. } if bytes.len() > usize::from(SHAPE.chunk)) {
                    self.wrong = Some(format!("node: a longer piece than the host's: {packet:?}"));
                }
                self.to_host.push_back(packet);
                idle = false;
            }
            while self.to_node.len() < CHANNEL
                && let Some(packet) = self.host.packet(0, 0)
            {
                self.to_node.push_back(packet);
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
                return;
            }
        }
    }

    fn node_told(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Object { kind: Kind::Sealed, bytes, .. } if bytes == PAYLOAD => {
                self.node.set_stage(Stage::Request);
                self.node.say(Kind::Request, REQUEST.to_vec());
            }
            NodeEvent::Object { kind: Kind::Certificates, bytes, .. } if bytes == CERTIFICATES => {
                self.node.set_stage(Stage::Done);
                self.node.say(Kind::Report, REPORT.to_vec());
            }
            NodeEvent::Sent(Kind::Report) => self.gone = true,
            NodeEvent::Object { .. } | NodeEvent::Refused(..) => self.wrong = Some(format!("node: {event:?}")),
            _ => {}
        }
    }

    fn host_told(&mut self, event: HostEvent) {
        match event {
            HostEvent::Second(hello) => self.host.accept(hello),
            HostEvent::Opened(_, Stage::Payload) => self.host.send(Kind::Sealed, PAYLOAD.to_vec()),
            HostEvent::Object(Kind::Request, bytes) if bytes == REQUEST => {
                self.host.send(Kind::Certificates, CERTIFICATES.to_vec());
            }
            HostEvent::Object(Kind::Report, bytes) if bytes == REPORT => self.reported = true,
            HostEvent::Object(..) => self.wrong = Some(format!("host: {event:?}")),
            _ => {}
        }
    }

    fn is_over(&self) -> bool {
        self.gone && self.reported
    }

    /// Whether a timer may fire. With a packet on its way, the timer is hasty and uses up one of [`Line::hasty`].
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

    fn fault(&mut self) -> Option<()> {
        self.faults = self.faults.checked_sub(1)?;
        Some(())
    }

    fn after(&self, action: Action, beacon: bool) -> Option<State> {
        let mut next = self.clone();
        match action {
            Action::ToNode => {
                let packet = next.to_node.pop_front()?;
                if !next.gone {
                    next.node.receive(packet, 0);
                }
            }
            Action::ToHost => {
                let packet = next.to_host.pop_front()?;
                next.host.receive(packet, 0);
            }
            Action::DropToNode => {
                next.fault()?;
                next.to_node.pop_front()?;
            }
            Action::DropToHost => {
                next.fault()?;
                next.to_host.pop_front()?;
            }
            Action::TwiceToNode => {
                next.fault()?;
                let packet = next.to_node.front()?.clone();
                next.to_node.push_front(packet);
            }
            Action::TwiceToHost => {
                next.fault()?;
                let packet = next.to_host.front()?.clone();
                next.to_host.push_front(packet);
            }
            Action::NodeTimer => {
                // With a full channel, the end's packets are not sent yet, so it cannot miss their answers.
                if next.gone || next.to_host.len() == CHANNEL || !next.may_fire(next.node.timer()) {
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
            Action::RestartNode => {
                next.restarts = next.restarts.checked_sub(1).filter(|_| !next.gone)?;
                next.started += 1;
                next.node = node(next.started, beacon);
            }
            Action::RestartHost => {
                // A host that has the report is done and is not restarted.
                next.restarts = next.restarts.checked_sub(1).filter(|_| !next.reported)?;
                next.host = Host::new(Nonce([100; 8]), !beacon, SHAPE);
            }
        }
        next.settle();
        Some(next)
    }
}

impl Model for Line {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            node: node(1, self.beacon),
            host: Host::new(Nonce([50; 8]), !self.beacon, SHAPE),
            to_node: VecDeque::new(),
            to_host: VecDeque::new(),
            faults: self.faults,
            restarts: self.restarts,
            hasty: self.hasty,
            started: 1,
            gone: false,
            reported: false,
            wrong: None,
        };
        state.settle();
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // Do not search beyond the end.
        if state.is_over() || state.wrong.is_some() {
            return;
        }
        actions.extend(Action::FAIR);
        actions.extend([Action::DropToNode, Action::DropToHost, Action::TwiceToNode, Action::TwiceToHost]);
        actions.extend([Action::RestartNode, Action::RestartHost]);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        state.after(action, self.beacon)
    }

    fn properties(&self) -> Vec<Property<Line>> {
        vec![
            Property::always("no wrong object", |_, state: &State| state.wrong.is_none()),
            Property::sometimes("delivered", |_, state: &State| state.is_over()),
        ]
    }
}

fn hash(state: &impl Hash) -> u128 {
    use std::hash::{DefaultHasher, Hasher};
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Searches a line, and prints what was searched.
fn search(line: &Line) {
    let Line { beacon, faults, restarts, hasty } = line;
    let words = format!("beacon {beacon}, {faults} faults, {restarts} restarts, {hasty} hasty timers");
    reaches(line, State::is_over, |action| Action::FAIR.contains(action), 100_000_000, &words);
}

/// Asserts that from every reachable state a line without further faults leads to the end: searches backwards from the end
/// by fair steps, and compares with all reachable states. `most`: the search takes fewer steps. With more of them an end counts
/// something up for ever, or goes round in a circle that never leads to the end.
fn reaches<M>(
    line: &M,
    is_over: impl Fn(&M::State) -> bool,
    is_fair: impl Fn(&M::Action) -> bool,
    most: usize,
    words: &str,
) where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + PartialEq + Hash + std::fmt::Debug + Send + Sync,
    M::Action: Clone + PartialEq + Hash + std::fmt::Debug + Send + Sync,
{
    let began = std::time::Instant::now();
    let checker = line.clone().checker().target_state_count(most).threads(2).spawn_bfs().join();
    assert!(checker.state_count() < most, "{words}: no end after {most} steps");
    checker.assert_properties();
    let (states, unique, depth) = (checker.state_count(), checker.unique_state_count(), checker.max_depth());
    let searched = began.elapsed();
    drop(checker);

    let mut ids: HashMap<u128, u32> = HashMap::new();
    let mut before: Vec<Vec<u32>> = Vec::new();
    let mut open: VecDeque<(u32, M::State)> = VecDeque::new();
    let mut over: Vec<u32> = Vec::new();
    let mut meet = |state: M::State, open: &mut VecDeque<(u32, M::State)>, before: &mut Vec<Vec<u32>>| {
        let next = u32::try_from(before.len()).unwrap();
        *ids.entry(hash(&state)).or_insert_with(|| {
            before.push(Vec::new());
            if is_over(&state) {
                over.push(next);
            }
            open.push_back((next, state));
            next
        })
    };
    for state in line.init_states() {
        meet(state, &mut open, &mut before);
    }
    while let Some((id, state)) = open.pop_front() {
        let mut actions = Vec::new();
        line.actions(&state, &mut actions);
        for action in actions {
            let fair = is_fair(&action);
            let Some(next) = line.next_state(&state, action) else { continue };
            let to = meet(next, &mut open, &mut before);
            if fair {
                before[usize::try_from(to).unwrap()].push(id);
            }
        }
    }
    let mut leads = vec![false; before.len()];
    let mut open = over;
    while let Some(id) = open.pop() {
        let id = usize::try_from(id).unwrap();
        if !std::mem::replace(&mut leads[id], true) {
            open.extend(&before[id]);
        }
    }
    let stuck = leads.iter().filter(|leads| !**leads).count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    println!(
        "{words}: {states} states, {unique} of them different, depth {depth}, {:.0} s; from {} of {} a fair line leads to \
         the end; {memory}",
        searched.as_secs_f64(),
        leads.len() - stuck,
        leads.len()
    );
    assert_eq!(unique, leads.len());
    assert_eq!(stuck, 0);
}

#[test]
fn a_node_that_speaks_first() {
    search(&Line { beacon: true, faults: 2, restarts: 1, hasty: 1 });
}

/// The accident: a line is slower than both ends think. Timers fire again and again while all packets are still on their
/// way, until both ends have given up.
#[test]
fn a_slow_line_on_which_the_node_speaks_first() {
    search(&Line { beacon: true, faults: 0, restarts: 0, hasty: 6 });
}

#[test]
fn a_slow_line_on_which_the_host_calls() {
    search(&Line { beacon: false, faults: 0, restarts: 0, hasty: 6 });
}

#[test]
fn a_host_that_calls() {
    search(&Line { beacon: false, faults: 2, restarts: 1, hasty: 1 });
}
