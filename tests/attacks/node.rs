//! A node of the simulation: its lines by `imprint::line`, and its decisions by the functions that the agent decides with.

use std::sync::Arc;
use std::time::Duration;

use imprint::dialogue::{Judge, LineTime, Told, Words};
use imprint::facts::{Dmi, Facts, LinkFacts};
use imprint::identity::Identity;
use imprint::key_code::KeyCode;
use imprint::line;
use imprint::line::admission::AdmissionKey;
use imprint::line::{
    Challenge, Fresh, Hello, Kind, LineKey, NodeEvent, Nonce, Session, Shape, Stage, TimeKey, Versions, Wire, seal,
};
use imprint::payload::signed::Signed;
use imprint::payload::{Enrolment, HardwareAddress, InterfaceName, Payload};
use imprint::plan::{self, Scope, SubjectPlan};
use imprint::secret::Secret;
use imprint::site::{self, SitePin};
use imprint::source::{self, Origin};
use imprint::time::Timestamp;
use imprint_tests::caller::seeded;

use super::outcome::Defence;
use super::site::{Machine, Seed};

/// The node's own clock at the begin of a run. Later than the time since boot of the machine that runs the test, so that a
/// [`Clock`] shows what was put into it.
const BOOTED: u64 = 1 << 50;

/// The other end of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Nobody,
    Visit(usize),
    Evil(usize),
}

pub(crate) struct Line {
    pub(crate) wire: Wire<line::Node>,
    pub(crate) peer: Peer,
    /// Counts connections: what is on its way on an earlier one never comes.
    pub(crate) connection: usize,
    /// When to call again, after the connection has ended; and how long to wait then.
    pub(crate) calls_at: Option<u64>,
    pub(crate) backoff: u64,
    pub(crate) next: Option<u64>,
    pub(crate) dirty: bool,
    pub(crate) closed: bool,
}

/// What a boot draws by lot.
#[derive(Clone)]
pub(crate) struct Born {
    key: Arc<LineKey>,
    nonce: Nonce,
    seeds: Vec<[u8; 32]>,
}

/// The payload that the node uses.
pub(crate) struct Used {
    pub(crate) payload: Payload,
    pub(crate) signed: Vec<u8>,
    pub(crate) fresh: Fresh,
    pub(crate) line: usize,
    pub(crate) at: u64,
}

pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) born: Born,
    hello: Hello,
    judge: Judge,
    without: Option<Defence>,
    stick: Option<Arc<AdmissionKey>>,
    /// The machine's clock when the run begins.
    rtc: Timestamp,
    pub(crate) lines: Vec<Line>,
    pub(crate) used: Option<Used>,
    /// The clock that it believes, each with the moment.
    pub(crate) clocks: Vec<(u64, Timestamp)>,
    /// The answers about the time that counted, each by when the host says that it had the question.
    pub(crate) told_by: Vec<u64>,
    pub(crate) certificates: Option<Vec<u8>>,
    pub(crate) done: bool,
    pub(crate) not_used: usize,
    pub(crate) stale: usize,
    pub(crate) unsealed: usize,
    /// What its console says last: that it waits, or of a host that has it wait.
    pub(crate) console: String,
    /// A payload that is as it should be, and that it does not use all the same: a fault.
    pub(crate) faults: Vec<String>,
}

impl Born {
    pub(crate) fn new(lines: usize, seed: &mut Seed) -> Born {
        let key = Arc::new(LineKey::generate(&seeded()).unwrap());
        Born { key, nonce: Nonce(seed.bytes()), seeds: (0..lines).map(|_| seed.bytes()).collect() }
    }
}

impl Node {
    pub(crate) fn new(
        machine: Machine,
        born: Born,
        pin: &SitePin,
        without: Option<Defence>,
        seed: &mut Seed,
        rtc: Timestamp,
    ) -> Node {
        let hello = says(&machine, &born.key, born.nonce);
        let far = without != Some(Defence::Proof);
        let mut line = |own: &[u8; 32]| Line {
            wire: Wire::new(line::Node::new(hello.clone(), true, Shape::default()).challenging(*own, far), None),
            peer: Peer::Nobody,
            connection: 0,
            calls_at: Some(seed.below(300_000)),
            backoff: 300_000,
            next: None,
            dirty: true,
            closed: false,
        };
        let lines = born.seeds.iter().map(&mut line).collect();
        let dmi = Dmi { uuid: None, serial: Some(machine.serial.clone()) };
        let macs: Vec<HardwareAddress> = HardwareAddress::new(&machine.mac).into_iter().collect();
        let fits = move |payload: &Payload, _: &Fresh| {
            plan::fits(payload, Duration::ZERO, &dmi, &macs).map_err(|error| error.to_string())
        };
        let judge = source::judge(pin, Box::new(fits)).unwrap();
        let begins = format!("no payload yet; line key {}", KeyCode::of(&hello.key));
        Node {
            machine,
            born,
            judge,
            without,
            stick: None,
            rtc,
            lines,
            hello,
            used: None,
            clocks: Vec::new(),
            told_by: Vec::new(),
            certificates: None,
            done: false,
            not_used: 0,
            stale: 0,
            unsealed: 0,
            console: begins,
            faults: Vec::new(),
        }
    }

    pub(crate) fn with_stick(mut self, stick: Option<Arc<AdmissionKey>>) -> Node {
        self.stick = stick;
        self
    }

    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    pub(crate) fn push(&mut self, line: usize, bytes: &[u8], now: u64) {
        let line = &mut self.lines[line];
        line.wire.push(bytes, BOOTED + now);
        line.dirty = true;
    }

    /// What the line sends. The second value: the node hangs up.
    pub(crate) fn poll(&mut self, index: usize, now: u64) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        loop {
            let polled = self.lines[index].wire.poll(BOOTED + now);
            out.extend(polled.bytes);
            let line = &mut self.lines[index];
            (line.dirty, line.next) = (false, polled.next.map(|at| at.saturating_sub(BOOTED)));
            if polled.events.is_empty() {
                return (out, false);
            }
            for event in polled.events {
                if self.told(index, event, now).is_err() {
                    return (out, true);
                }
            }
        }
    }

    /// An error: what was said is not used, and the node hangs up.
    fn told(&mut self, index: usize, event: NodeEvent, now: u64) -> Result<(), ()> {
        match event {
            NodeEvent::Opened(session) => self.prove(index, session),
            NodeEvent::Object { kind: Kind::Fresh, number, session: Some(session), announced, bytes } => {
                let node = self.lines[index].wire.end();
                let Ok(opened) = self.born.key.open(&bytes, node.hello(), session, Kind::Fresh, number) else {
                    self.unsealed += 1;
                    return self.again(index);
                };
                let Some((challenge, signed)) = seal::answer(&opened) else { return self.again(index) };
                let fresh = node.fresh(challenge, announced).or_else(|| self.takes_anyway(index, challenge, announced));
                let Some(fresh) = fresh else {
                    self.stale += 1;
                    self.lines[index].wire.end_mut().set_stage(Stage::Payload);
                    return Ok(());
                };
                self.came(index, &signed, fresh, now)?;
            }
            NodeEvent::Object { kind: kind @ (Kind::Fresh | Kind::Sealed | Kind::Plain), .. } => {
                assert_eq!(self.without, Some(Defence::Proof), "a far line takes no {kind:?}");
                return self.again(index);
            }
            NodeEvent::Object { kind: Kind::Certificates, bytes, .. } => {
                self.certificates = Some(bytes);
                let node = self.lines[index].wire.end_mut();
                node.set_stage(Stage::Done);
                node.say(Kind::Report, b"{}".to_vec());
            }
            NodeEvent::Object { kind: Kind::Pending, bytes, .. } => {
                let text = imprint::shown::printable(&String::from_utf8_lossy(&bytes));
                let code = KeyCode::of(&self.hello.key);
                let words = Words::of(text.clone(), code);
                let told = Told::Waits { line: "tcp".to_owned(), pending: true, code, words };
                self.console = if self.without == Some(Defence::Console) { text } else { told.to_string() };
            }
            // It calls again later.
            NodeEvent::Object { kind: Kind::Refused, .. } if self.used.is_none() => return Err(()),
            NodeEvent::Time { sent, arrived, received, held } => self.time(sent, arrived, received, held, now),
            NodeEvent::Sent(Kind::Report) => self.done = true,
            _ => {}
        }
        Ok(())
    }

    fn again(&mut self, index: usize) -> Result<(), ()> {
        self.lines[index].wire.end_mut().set_stage(Stage::Payload);
        Err(())
    }

    fn prove(&mut self, index: usize, session: Session) {
        let node = self.lines[index].wire.end_mut();
        if let (Some(stick), Stage::Payload) = (&self.stick, node.stage()) {
            let proof = stick.prove(node.hello(), session.host);
            node.say(Kind::Admission, proof);
        }
    }

    /// How fresh an answer is for a node without a defence.
    fn takes_anyway(&self, index: usize, challenge: Challenge, announced: u64) -> Option<Fresh> {
        let node = self.lines[index].wire.end();
        let made = match self.without? {
            Defence::Judge => node.made(&challenge).unwrap_or(announced),
            Defence::Age => node.made(&challenge)?,
            _ => return None,
        };
        let [made, came] = [made, announced].map(Duration::from_micros);
        Some(Fresh { hello: node.hello().digest(), challenge, made, came })
    }

    /// A payload came: is it used?
    fn came(&mut self, index: usize, bytes: &Secret, fresh: Fresh, now: u64) -> Result<(), ()> {
        if self.without != Some(Defence::Judge) && (self.judge)(bytes, &fresh).is_err() {
            self.not_used += 1;
            return self.again(index);
        }
        let bytes = bytes.expose();
        let payload = Signed::decode(bytes).map_or_else(|_| bytes.to_vec(), |signed| signed.payload.to_vec());
        let payload = Payload::decode(&payload).unwrap();
        self.used = Some(Used { payload: payload.clone(), signed: bytes.to_vec(), fresh, line: index, at: now });
        self.clock(None, now);
        let (token, key, names) = match payload.enrolment {
            Enrolment::Csr(csr) => (csr.token.unwrap().secret, csr.key, csr.names),
            Enrolment::Credentials(_) => panic!("a door gives no certificate away"),
        };
        for (other, line) in self.lines.iter_mut().enumerate() {
            line.closed |= other != index;
        }
        let identity = Identity::generate(&SubjectPlan { names, key }, &seeded()).unwrap();
        let node = self.lines[index].wire.end_mut();
        if self.without != Some(Defence::Proof) {
            node.believe(TimeKey::of(token.expose().as_bytes()));
        }
        node.ask_time();
        let request = seal::request(token.expose().as_bytes(), node.hello(), identity.csr());
        node.set_stage(Stage::Request);
        node.say(Kind::Request, request);
        Ok(())
    }

    /// The clock that the agent's plan decides for.
    fn clock(&mut self, line_time: Option<LineTime>, now: u64) {
        let Used { payload, fresh, .. } = self.used.as_ref().unwrap();
        let Machine { serial, mac, .. } = &self.machine;
        let facts = Facts {
            confidential: None,
            origin: Origin::Line { name: "tcp".to_owned(), sealed: true },
            site_pin: None,
            signed: site::SignedBy::Nobody,
            fresh: Some(*fresh),
            now: self.rtc.plus(Duration::from_micros(now)),
            now_at: Duration::from_micros(BOOTED + now),
            line_time,
            links: vec![LinkFacts {
                index: 2,
                name: InterfaceName::try_from("eth0").unwrap(),
                mac: HardwareAddress::new(mac),
                driver: None,
                carrier: true,
                controller: false,
                device: Default::default(),
            }],
            dmi: Dmi { uuid: None, serial: Some(serial.clone()) },
            bootif: None,
            cmdline: Default::default(),
        };
        match plan::plan(payload.clone(), &facts, Scope::Boot) {
            Ok(plan) => self.clocks.push((now, plan.clock.quality.told().expect("the signature tells the time").now())),
            Err(error) => self.faults.push(error.to_string()),
        }
    }

    fn time(&mut self, sent: u64, arrived: u64, received: u64, held: u64, now: u64) {
        self.told_by.push(received);
        if let Some(time) = LineTime::answered(sent, arrived, received, held) {
            self.clock(Some(time), now);
        }
    }
}

/// What a machine says of itself with this line key.
pub(crate) fn says(machine: &Machine, key: &LineKey, nonce: Nonce) -> Hello {
    Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce,
        key: key.public(),
        uuid: None,
        serial: Some(machine.serial.clone()),
        macs: vec![machine.mac.to_vec()],
    }
}
