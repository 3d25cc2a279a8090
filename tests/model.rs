//! The line protocol's state machines, searched to the end: every order in which frames arrive, are lost or come twice,
//! timers fire, and an end starts again. What the machines send are the very packets of src/line; bytes, sealing and
//! time are left out.
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

/// What a line and its ends may do.
#[derive(Clone)]
struct Line {
    /// The node speaks first.
    beacon: bool,
    /// Packets that are lost or come twice.
    faults: u8,
    /// Ends that start again.
    restarts: u8,
    /// Timers that fire while something is still on its way. When nothing is, they fire as often as they like.
    hasty: u8,
}

/// Packets on their way in each direction.
const CHANNEL: usize = 3;
/// One byte in a frame, two frames on their way.
const SHAPE: Shape = Shape { chunk: 1, window: 2 };
/// A node whose pieces are longer, until it hears how long those of its host are.
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
    /// Something arrived that nobody sent.
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
    /// What a line that is fair from now on may still do.
    const FAIR: [Action; 4] = [Action::ToNode, Action::ToHost, Action::NodeTimer, Action::HostTimer];
}

fn node(started: u8, beacon: bool) -> Node {
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        nonce: Nonce([started; 8]),
        key: [started; 32],
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    Node::new(hello, beacon, LONGER)
}

impl State {
    /// Sends what fits, and acts on what the ends tell, until neither has anything more.
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

    /// A timer fires in its own time when nothing is on its way; else it is hasty.
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
                // What waits for room in the channel has not been sent yet, so nothing can be missed.
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
                // One that had its report is done, and is not started again.
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
        // Nothing more is of interest once it is over.
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

fn hash(state: &State) -> u128 {
    use std::hash::{DefaultHasher, Hasher};
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// From every state that can be reached, a line that is fair from then on leads to the end: what can reach the end by
/// fair steps alone, looked for backwards from it.
fn search(line: &Line) {
    let began = std::time::Instant::now();
    let checker = line.clone().checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    let (states, unique, depth) = (checker.state_count(), checker.unique_state_count(), checker.max_depth());
    let searched = began.elapsed();
    drop(checker);

    let mut ids: HashMap<u128, u32> = HashMap::new();
    let mut before: Vec<Vec<u32>> = Vec::new();
    let mut open: VecDeque<(u32, State)> = VecDeque::new();
    let mut over: Vec<u32> = Vec::new();
    let mut meet = |state: State, open: &mut VecDeque<(u32, State)>, before: &mut Vec<Vec<u32>>| {
        let next = u32::try_from(before.len()).unwrap();
        *ids.entry(hash(&state)).or_insert_with(|| {
            before.push(Vec::new());
            if state.is_over() {
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
            let Some(next) = line.next_state(&state, action) else { continue };
            let to = meet(next, &mut open, &mut before);
            if Action::FAIR.contains(&action) {
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
        "beacon {}, {} faults, {} restarts, {} hasty timers: {states} states, {unique} of them different, depth {depth}, \
         {:.0} s; from {} of {} a fair line leads to the end; {memory}",
        line.beacon,
        line.faults,
        line.restarts,
        line.hasty,
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

/// Timers that fire again and again while all that was sent is still on its way, until both ends have given the other up:
/// what happens when a line is slower than anybody thinks.
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
