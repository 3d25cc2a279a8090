//! Simulates a serial line with both ends of the line protocol in virtual time, with speed and faults. The same seed gives
//! the same events. Uses no clock and no devices.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "virtual times and sizes are small")]

use std::collections::VecDeque;

use imprint::line::frame::{Hello, Nonce, Session};
use imprint::line::{
    Distortion, Host, HostEvent, Kind, LineKey, Node, NodeEvent, Parity, Shape, Stage, Versions, Wire, seal,
};
use imprint::pool::Seeded;
use imprint::secret::Secret;

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `below` - 1.
    pub fn below(&mut self, below: u64) -> u64 {
        self.word() % below.max(1)
    }

    /// True `parts` times in a million.
    pub fn millionths(&mut self, parts: u64) -> bool {
        self.below(1_000_000) < parts
    }

    /// Bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.word() >> 56) as u8).collect()
    }
}

/// The faults of a line. Chances are in millionths for each byte, unless a field says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub drop: u64,
    pub flip: u64,
    /// A run of up to 40 bytes comes twice.
    pub duplicate: u64,
    /// Two runs of up to 40 bytes are swapped.
    pub reorder: u64,
    /// A kernel message is inserted into the node's output.
    pub printk: u64,
    /// In each direction, one frame in this many has a byte changed; 0: no frame.
    pub frame_in: u64,
    /// Bytes to the node are echoed until the node has heard a frame.
    pub echo: bool,
    /// After each 256 bytes the line pauses for this many milliseconds.
    pub stall_ms: u64,
    /// Bytes arrive in groups of random length, each at the time of its last byte.
    pub split: bool,
    /// Another reader takes half of the bytes for the node, from the first to the second time in milliseconds.
    pub thief_ms: Option<(u64, u64)>,
    /// The node starts again at this millisecond, if it is not done.
    pub node_restarts_ms: Option<u64>,
    /// The host starts again at this millisecond, if it is not done.
    pub host_restarts_ms: Option<u64>,
    /// Delay of each direction in milliseconds.
    pub delay_ms: u64,
    /// (to the node?, first frame, count): these frames are lost.
    pub lost: Option<(bool, u64, u64)>,
    /// How many payloads the node cannot open; it asks again for each.
    pub unopened: u8,
    /// Neither end knows the speed of the line.
    pub unknown_speed: bool,
    /// Both ends believe that the line has this speed, in bits a second.
    pub named: Option<u32>,
    /// Bytes in the send buffer; bytes beyond them are lost. 0: unlimited.
    pub buffer: u64,
    /// Columns after which a terminal on the way breaks lines, to the node and from it; 0: it does not.
    pub wrap: (u64, u64),
    /// The node takes only a payload that is signed for a challenge of the last minute.
    pub fresh: bool,
    /// The bytes that the terminal breaks lines with; `None`: it drops what does not fit.
    pub wrap_with: Option<&'static [u8]>,
    /// Bit 7 of every character is a parity bit.
    pub parity: Option<Parity>,
}

/// One direction of a line.
struct Pipe {
    /// Microseconds for a byte.
    byte: f64,
    free_at: f64,
    sent: u64,
    /// Bytes on the way, with their times of arrival.
    queue: VecDeque<(u64, u8)>,
    faults: Faults,
    to_node: bool,
    random: Random,
    /// How many frames have begun.
    frames: u64,
    /// Column of the terminal on the way.
    column: u64,
}

const PRINTK: &[u8] = b"[    3.141592] virtio_net virtio0 enp0s2: renamed from eth0 #1 SMP\r\n";

impl Pipe {
    fn write(&mut self, bytes: &[u8], now: u64) {
        let bytes = self.spoil(bytes);
        for byte in bytes {
            let waiting = (self.free_at - now as f64) / self.byte;
            if self.faults.buffer > 0 && waiting > self.faults.buffer as f64 {
                continue;
            }
            self.free_at = self.free_at.max(now as f64) + self.byte;
            self.sent += 1;
            if self.faults.stall_ms > 0 && self.sent.is_multiple_of(256) {
                self.free_at += (self.faults.stall_ms * 1000) as f64;
            }
            let at = self.free_at as u64 + self.faults.delay_ms * 1000;
            let stolen = self.to_node
                && self.faults.thief_ms.is_some_and(|(from, until)| (from..until).contains(&(at / 1000)))
                && self.random.below(2) == 0;
            if !stolen {
                self.queue.push_back((at, byte));
            }
        }
    }

    fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let bytes = self.wrap(bytes);
        let mut out = self.lose(&bytes);
        if let Some(parity) = self.faults.parity {
            let set = |byte: &mut u8| {
                *byte &= 0x7f;
                let ones = byte.count_ones() % 2 == 1;
                let set = match parity {
                    Parity::Even => ones,
                    Parity::Odd => !ones,
                    Parity::Mark => true,
                };
                *byte |= if set { 0x80 } else { 0 };
            };
            out.iter_mut().for_each(set);
        }
        out
    }

    /// Breaks lines as a terminal does that is narrower than a frame.
    fn wrap(&mut self, bytes: &[u8]) -> Vec<u8> {
        let columns = if self.to_node { self.faults.wrap.0 } else { self.faults.wrap.1 };
        let mut out = Vec::new();
        for byte in bytes {
            let printed = !b"\r\n".contains(byte);
            if printed && columns > 0 && self.column >= columns {
                match self.faults.wrap_with {
                    Some(line_break) => {
                        out.extend(line_break);
                        self.column = 0;
                    }
                    None => continue,
                }
            }
            self.column = if printed { self.column + 1 } else { 0 };
            out.push(*byte);
        }
        out
    }

    fn lose(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Pipe { faults, random, to_node, frames, .. } = self;
        let mut out: Vec<u8> = Vec::new();
        let mut frame_spoilt_at = None;
        for (index, byte) in bytes.iter().enumerate() {
            if *byte == b'#' && faults.frame_in > 0 && random.below(faults.frame_in) == 0 {
                frame_spoilt_at = Some(index + 1 + random.below(10) as usize);
            }
            *frames += u64::from(*byte == b'#');
            if faults
                .lost
                .is_some_and(|(down, first, more)| down == *to_node && (first..=first + more).contains(frames))
            {
                continue;
            }
            if !*to_node && random.millionths(faults.printk) {
                out.extend(PRINTK);
            }
            if random.millionths(faults.drop) {
                continue;
            }
            let flip = frame_spoilt_at == Some(index) || random.millionths(faults.flip);
            out.push(if flip { byte ^ (1 << random.below(8)) } else { *byte });
            if random.millionths(faults.duplicate) {
                let run = out[out.len() - (random.below(40) as usize).min(out.len())..].to_vec();
                out.extend(run);
            }
            if random.millionths(faults.reorder) {
                let run = (random.below(40) as usize).min(out.len() / 2);
                let middle = out.len() - run;
                out[middle - run..].rotate_left(run);
            }
        }
        out
    }

    fn next(&self) -> Option<u64> {
        self.queue.front().map(|(at, _)| *at)
    }

    fn read(&mut self, now: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.queue.front().is_some_and(|(at, _)| *at <= now) {
            bytes.extend(self.queue.pop_front().map(|(_, byte)| byte));
        }
        bytes
    }
}

/// The objects of a session.
#[derive(Clone)]
pub struct Objects {
    pub payload: Vec<u8>,
    pub request: Vec<u8>,
    pub certificates: Vec<u8>,
    pub report: Vec<u8>,
}

/// The result of a session.
#[derive(Debug, Default)]
pub struct Course {
    /// Milliseconds of virtual time until the node was done.
    pub took_ms: f64,
    /// Milliseconds from the payload's first byte until the host heard of its arrival.
    pub delivery_ms: f64,
    pub retransmits: u64,
    /// All bytes that were sent in both directions, without the faults.
    pub capture: Vec<u8>,
    pub second_keys: u64,
    /// Distortions that the node has noticed, and those that the host has noticed.
    pub odd: (Vec<Distortion>, Vec<Distortion>),
}

struct NodeSide {
    wire: Wire<Node>,
    key: LineKey,
    deadline: Option<u64>,
    heard: bool,
    done: bool,
    unopened: u8,
    /// The clock of the node's line.
    now: u64,
}

struct HostSide {
    wire: Wire<Host>,
    deadline: Option<u64>,
    hello: Option<Hello>,
    done: bool,
    /// The conversation that the payload is being sent in.
    sending: Option<Session>,
    now: u64,
}

/// The latest end of the simulation: an hour, in microseconds.
const END: u64 = 3_600_000_000;

/// Runs one whole session: payload, request, certificates, report. Panics if an object arrives changed, or if the session
/// does not end. `beacon`: the node speaks first, else the host.
pub fn session(objects: &Objects, faults: &Faults, baud: u32, beacon: bool, seed: u64, seeded: &Seeded) -> Course {
    let mut random = Random(seed);
    let byte = 10_000_000.0 / f64::from(baud);
    let pipe = |to_node: bool, random: &mut Random| Pipe {
        byte,
        free_at: 0.0,
        sent: 0,
        queue: VecDeque::new(),
        faults: faults.clone(),
        to_node,
        random: Random(random.word()),
        frames: 0,
        column: 0,
    };
    let speed = (!faults.unknown_speed).then_some(faults.named.unwrap_or(baud));
    let (mut down, mut up) = (pipe(true, &mut random), pipe(false, &mut random));
    let mut node = start_node(&mut random, seeded, speed, beacon, faults.fresh);
    node.unopened = faults.unopened;
    let mut host = start_host(&mut random, speed, !beacon);
    let (mut node_restart, mut host_restart) = (faults.node_restarts_ms, faults.host_restarts_ms);
    let mut course = Course::default();
    let (mut sent_payload, mut now) = (None, 0);
    loop {
        if node_restart.is_some_and(|at| at * 1000 <= now) {
            node_restart = None;
            node = start_node(&mut random, seeded, speed, beacon, faults.fresh);
        }
        if host_restart.is_some_and(|at| at * 1000 <= now) {
            host_restart = None;
            host = start_host(&mut random, speed, !beacon);
        }
        let bytes = down.read(now);
        if faults.echo && !node.heard {
            up.write(&bytes, now);
        }
        (node.now, host.now) = (now + 17_000_000, now);
        node.wire.push(&bytes, now + 17_000_000);
        host.wire.push(&up.read(now), now);
        course.odd.0.extend(std::iter::from_fn(|| node.wire.odd()));
        while let Some(odd) = host.wire.odd() {
            // imprint-host inject does the same.
            if let Distortion::Broken { columns } = odd {
                host.wire.end_mut().narrow(columns);
            }
            course.odd.1.push(odd);
        }
        loop {
            let polled = node.wire.poll(now + 17_000_000);
            node.deadline = polled.next.map(|at| at - 17_000_000);
            up.write(&polled.bytes, now);
            course.capture.extend(&polled.bytes);
            if polled.bytes.is_empty() && polled.events.is_empty() {
                break;
            }
            polled.events.into_iter().for_each(|event| node_event(&mut node, event, objects));
        }
        loop {
            let polled = host.wire.poll(now);
            host.deadline = polled.next;
            down.write(&polled.bytes, now);
            course.capture.extend(&polled.bytes);
            if polled.bytes.is_empty() && polled.events.is_empty() {
                break;
            }
            for event in polled.events {
                match &event {
                    HostEvent::Opened(_, Stage::Payload) => sent_payload = Some(now),
                    HostEvent::Delivered(Kind::Sealed | Kind::Fresh) => {
                        course.delivery_ms = (now - sent_payload.unwrap_or(now)) as f64 / 1000.0;
                    }
                    HostEvent::Second(_) => course.second_keys += 1,
                    _ => {}
                }
                host_event(&mut host, event, objects);
            }
        }
        if node.done && host.done {
            course.took_ms = now as f64 / 1000.0;
            course.retransmits = node.wire.sent().0 + host.wire.sent().0;
            return course;
        }
        let restarts = [node_restart, host_restart].into_iter().flatten().map(|at| at * 1000);
        let next = [down.next(), up.next(), node.deadline, host.deadline].into_iter().flatten().chain(restarts).min();
        let mut next = next.unwrap_or_else(|| panic!("seed {seed}: nothing will ever happen again; {faults:?}"));
        if faults.split {
            next += random.below(3000);
        }
        now = next.max(now + 1);
        assert!(
            now < END,
            "seed {seed}: not done after an hour; {faults:?}; node {:?} host {:?}",
            node.wire.end(),
            host.wire.end()
        );
    }
}

fn start_node(random: &mut Random, seeded: &Seeded, baud: Option<u32>, beacon: bool, fresh: bool) -> NodeSide {
    let key = LineKey::generate(seeded).expect("a key");
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh,
        nonce: Nonce(random.word().to_be_bytes()),
        key: key.public(),
        uuid: Some([7; 16]),
        serial: Some("SN-0042".to_owned()),
        macs: vec![vec![0x52, 0x54, 0, 0x12, 0x34, 0x56]],
    };
    let mut node = Node::new(hello, beacon, Shape::default());
    if fresh {
        let mut seed = [0; 32];
        seed.copy_from_slice(&random.bytes(32));
        node = node.challenging(seed, true);
    }
    let wire = Wire::new(node, baud);
    NodeSide { wire, key, deadline: Some(0), heard: false, done: false, unopened: 0, now: 0 }
}

fn start_host(random: &mut Random, baud: Option<u32>, calling: bool) -> HostSide {
    let host = Host::new(Nonce(random.word().to_be_bytes()), calling, Shape::default());
    HostSide {
        wire: Wire::new(host, baud).keeping_text(),
        deadline: Some(0),
        hello: None,
        done: false,
        sending: None,
        now: 0,
    }
}

fn node_event(side: &mut NodeSide, event: NodeEvent, objects: &Objects) {
    let node = side.wire.end_mut();
    match event {
        NodeEvent::Heard => side.heard = true,
        NodeEvent::Object { kind: kind @ (Kind::Sealed | Kind::Fresh), number, session, announced, bytes } => {
            assert_eq!(kind == Kind::Fresh, node.is_far());
            let session: Session = session.expect("sealed objects come in a conversation");
            if side.unopened > 0 {
                side.unopened -= 1;
                return node.set_stage(Stage::Payload);
            }
            let mut opened = side.key.open(&bytes, node.hello(), session, kind, number).expect("opens");
            if kind == Kind::Fresh {
                let (challenge, payload) = seal::answer(&opened).expect("a challenge");
                let made = node.made(&challenge).expect("a challenge of this node");
                assert!(announced >= made && announced <= side.now);
                if announced - made > 60_000_000 {
                    return node.set_stage(Stage::Payload);
                }
                opened = payload;
            }
            assert!(opened.expose() == objects.payload, "another payload");
            node.set_stage(Stage::Request);
            node.say(Kind::Request, objects.request.clone());
        }
        NodeEvent::Object { kind: Kind::Certificates, bytes, .. } => {
            assert!(bytes == objects.certificates, "other certificates");
            node.set_stage(Stage::Done);
            node.say(Kind::Report, objects.report.clone());
        }
        NodeEvent::Sent(Kind::Report) => side.done = true,
        NodeEvent::Object { kind, .. } => panic!("nobody sent {kind:?}"),
        NodeEvent::Refused(kind, reason) => panic!("{kind:?} refused: {reason:?}"),
        NodeEvent::Foreign(versions) => panic!("{versions:?}"),
        NodeEvent::Opened(_) | NodeEvent::Sent(_) | NodeEvent::Time { .. } | NodeEvent::Broadcast { .. } => {}
    }
}

fn host_event(side: &mut HostSide, event: HostEvent, objects: &Objects) {
    match event {
        HostEvent::Hello(hello) => side.hello = Some(hello),
        // The host accepts the second key.
        HostEvent::Second(hello) => {
            side.hello = Some(hello.clone());
            side.wire.end_mut().accept(hello);
        }
        HostEvent::Opened(_, Stage::Payload) | HostEvent::Stage(Stage::Payload) | HostEvent::Challenged => {
            if side.wire.end().stage() != Some(Stage::Payload) {
                return;
            }
            let session = imprint::line::End::session(side.wire.end()).expect("a conversation");
            let number = side.wire.end().next_number();
            let hello = side.hello.as_ref().expect("HELLO comes first");
            if side.sending == Some(session) {
                return;
            }
            // imprint-host inject does the same.
            let (kind, before) = match side.wire.end().challenge().filter(|(_, at)| side.now - at <= 2_000_000) {
                Some((challenge, _)) => (Kind::Fresh, challenge.0.to_vec()),
                None if hello.fresh => return side.wire.end_mut().renew(),
                None => (Kind::Sealed, Vec::new()),
            };
            let payload = Secret::new([before, objects.payload.clone()].concat());
            let sealed = seal::seal(&payload, hello, session, kind, number).expect("seals");
            side.sending = Some(session);
            side.wire.end_mut().send(kind, sealed);
        }
        HostEvent::Object(Kind::Request, bytes) => {
            assert!(bytes == objects.request, "another request");
            side.wire.end_mut().send(Kind::Certificates, objects.certificates.clone());
        }
        HostEvent::Object(Kind::Report, bytes) => {
            assert!(bytes == objects.report, "another report");
            side.done = true;
        }
        HostEvent::Object(kind, _) => panic!("nobody sent {kind:?}"),
        HostEvent::Foreign(versions) => panic!("{versions:?}"),
        HostEvent::Delivered(Kind::Sealed | Kind::Fresh) => side.sending = None,
        HostEvent::Opened(..) | HostEvent::Stage(_) | HostEvent::Delivered(_) | HostEvent::Lost => {}
        // A late answer to a request that was answered before.
        HostEvent::Refused(..) => {}
    }
}
