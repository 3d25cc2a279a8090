//! A node that calls at a door, as far as the line protocol goes: it says HELLO, takes a payload that is signed for it, asks for
//! a certificate, and reports. Bytes in, bytes out: the caller of this module has the connection.

use imprint::identity::Identity;
use imprint::key_code::KeyCode;
use imprint::line::admission::AdmissionKey;
use imprint::line::frame::{Hello, Nonce, Versions};
use imprint::line::{Challenge, Fresh, Kind, LineKey, Node, NodeEvent, Shape, Stage, Wire, seal};
use imprint::payload::signed::Signed;
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::plan::SubjectPlan;
use imprint::pool::Seeded;
use imprint::secret::Secret;
use imprint::site::{self, SitePin};
use imprint::time::{Deadline, since_boot};
use std::sync::Arc;
use std::time::Duration;

use crate::patience::PATIENCE;

/// The node, and what has become of it.
pub struct Caller {
    pub wire: Wire<Node>,
    key: Arc<LineKey>,
    pin: SitePin,
    /// Code of the key that it has asked a certificate for.
    pub key_code: String,
    /// What it was told while it waits, the latest last.
    pub pending: Vec<String>,
    /// Why it is not served, or gets no certificate.
    pub refused: Option<String>,
    /// The payloads that came, with their `composed`, in the order in which they came.
    pub payloads: Vec<Payload>,
    pub certificates: Option<Vec<u8>>,
    /// Its report has arrived.
    pub over: bool,
    /// The admission key that it proves in each conversation.
    pub admission: Option<Arc<AdmissionKey>>,
    /// How many proofs have arrived.
    pub proofs: usize,
    /// Asks for nothing once it has its payload.
    pub lazy: bool,
}

pub fn seeded() -> Seeded {
    Seeded::ready(Deadline::after(PATIENCE)).unwrap()
}

/// Microseconds since boot.
pub fn now() -> u64 {
    u64::try_from(since_boot().as_micros()).unwrap()
}

/// What a node says of itself, with this line key.
pub fn hello(key: &LineKey, serial: &str) -> Hello {
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&key.public()[..8]);
    Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce: Nonce(nonce),
        key: key.public(),
        uuid: None,
        serial: Some(serial.to_owned()),
        macs: Vec::new(),
    }
}

impl Caller {
    /// A node that says that it has this serial number, and whose image has this site pin.
    pub fn new(serial: &str, pin: &SitePin) -> Caller {
        let key = Arc::new(LineKey::generate(&seeded()).unwrap());
        let hello = hello(&key, serial);
        Caller::with(key, hello, pin)
    }

    pub fn with(key: Arc<LineKey>, hello: Hello, pin: &SitePin) -> Caller {
        let seed = key.public();
        let node = Node::new(hello, true, Shape::default()).challenging(seed, true);
        Caller {
            wire: Wire::new(node, None),
            key,
            pin: pin.clone(),
            key_code: String::new(),
            pending: Vec::new(),
            refused: None,
            payloads: Vec::new(),
            certificates: None,
            over: false,
            admission: None,
            proofs: 0,
            lazy: false,
        }
    }

    /// The code of its line key, as its console shows it.
    pub fn code(&self) -> String {
        KeyCode::of(&self.key.public()).to_string()
    }

    /// Another connection of the same node: the end of the line goes on where it was.
    pub fn calls_again(&mut self) {
        self.wire.end_mut().part();
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.wire.push(bytes, now());
    }

    /// The bytes to send, and when to come again at the latest.
    pub fn poll(&mut self) -> (Vec<u8>, Option<Duration>) {
        let mut out = Vec::new();
        loop {
            let polled = self.wire.poll(now());
            out.extend(polled.bytes);
            if polled.events.is_empty() {
                let next = polled.next.map(|at| Duration::from_micros(at.saturating_sub(now())));
                return (out, next);
            }
            polled.events.into_iter().for_each(|event| self.told(event));
        }
    }

    fn told(&mut self, event: NodeEvent) {
        let node = self.wire.end_mut();
        match event {
            NodeEvent::Opened(session) => {
                let proof = self.admission.as_ref().map(|key| key.prove(node.hello(), session.host));
                if let Some(proof) = proof.filter(|_| node.stage() == Stage::Payload) {
                    node.say(Kind::Admission, proof);
                }
            }
            NodeEvent::Object { kind: Kind::Fresh, number, session, bytes, announced } => {
                let opened = self.key.open(&bytes, node.hello(), session.unwrap(), Kind::Fresh, number).unwrap();
                let (challenge, signed) = seal::answer(&opened).unwrap();
                let payload = self.judged(challenge, &signed, announced);
                let node = self.wire.end_mut();
                let Enrolment::Csr(csr) = &payload.enrolment else { panic!("a CSR") };
                assert_eq!(csr.urls, [EstUrl::Line], "the node has no network");
                let lazy = self.lazy;
                self.payloads.push(payload);
                if lazy {
                    node.set_stage(Stage::Busy);
                } else {
                    self.asks();
                }
            }
            NodeEvent::Object { kind: kind @ (Kind::Sealed | Kind::Plain), .. } => {
                panic!("a door sends fresh payloads only: {kind:?}")
            }
            NodeEvent::Object { kind: Kind::Certificates, bytes, .. } => {
                self.certificates = Some(bytes);
                node.set_stage(Stage::Done);
                node.say(Kind::Report, report(&self.key_code));
            }
            NodeEvent::Object { kind: Kind::Pending, bytes, .. } => {
                self.pending.push(String::from_utf8(bytes).unwrap())
            }
            NodeEvent::Object { kind: Kind::Refused, bytes, .. } => {
                self.refused = Some(String::from_utf8(bytes).unwrap())
            }
            NodeEvent::Sent(Kind::Admission) => self.proofs += 1,
            NodeEvent::Sent(Kind::Report) => self.over = true,
            _ => {}
        }
    }

    /// Asks for a certificate with the latest payload.
    pub fn asks(&mut self) {
        let Enrolment::Csr(csr) = &self.payloads.last().unwrap().enrolment else { panic!("a CSR") };
        let subject = SubjectPlan { names: csr.names.clone(), key: csr.key };
        let identity = Identity::generate(&subject, &seeded()).unwrap();
        let token = csr.token.as_ref().unwrap().secret.expose();
        self.key_code = identity.code().to_string();
        let node = self.wire.end_mut();
        let request = seal::request(token.as_bytes(), node.hello(), identity.csr());
        node.set_stage(Stage::Request);
        node.say(Kind::Request, request);
    }

    /// As the agent judges it: signed by a signer of the pin, for this HELLO and this challenge.
    fn judged(&self, challenge: Challenge, signed: &Secret, announced: u64) -> Payload {
        let node = self.wire.end();
        let made = node.made(&challenge).expect("a challenge of this node");
        let [made, came] = [made, announced].map(Duration::from_micros);
        let fresh = Fresh { hello: node.hello().digest(), challenge, made, came };
        let decoded = Signed::decode(signed.expose()).unwrap();
        site::judge(Some(&decoded), Some(&self.pin), &fresh.aad()).unwrap();
        Payload::decode(decoded.payload).unwrap()
    }
}

fn report(key_code: &str) -> Vec<u8> {
    format!(
        r#"{{"version":1,"outcome":"done","exit_code":0,"error":null,"origin":"line tcp","payload_id":null,
            "name":"node1","key_code":"{key_code}","steps":[]}}"#
    )
    .into_bytes()
}
