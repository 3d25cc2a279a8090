//! The door of the simulation: what `imprint_host::serve::door` does with a caller, without its tasks and sockets. Who is let in,
//! what is in a payload and who gets a certificate is the state's own decision.

use imprint::line::admission::Proof;
use imprint::line::fresh::to_sign_for;
use imprint::line::{End, Hello, Host, HostEvent, Kind, Nonce, Session, Shape, Stage, TimeKey, Wire, seal};
use imprint_host::admission::{Admission, Caller, Facts};
use imprint_host::compose::{Medium, Options};
use imprint_host::csr::Csr;
use imprint_host::enrol::{self, Answer, Credentials, Request};
use imprint_host::est;

use super::site::{Seed, Site};

const MEET: u64 = 15_000_000;
const AGAIN: u64 = 60_000_000;
const SOON: u64 = 1_000_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    New,
    Waits(u64),
    In(String),
    Out,
}

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whence {
    Nobody,
    Line { node: usize, line: usize, connection: usize },
    Guise(usize),
}

pub(crate) struct Visit {
    pub(crate) wire: Wire<Host>,
    pub(crate) whence: Whence,
    from: String,
    source: String,
    pub(crate) facts: Facts,
    begun: u64,
    met: bool,
    keys: Vec<[u8; 32]>,
    pub(crate) hello: Option<Hello>,
    pub(crate) standing: Standing,
    payload: Option<(Vec<u8>, TimeKey)>,
    sending: Option<Session>,
    delivered: bool,
    deliveries: u8,
    pub(crate) next: Option<u64>,
    pub(crate) dirty: bool,
    pub(crate) closed: bool,
    /// Proofs of admission keys that were for another HELLO or another conversation.
    pub(crate) bad_proofs: usize,
    /// All proofs that came: whoever listens has them, too.
    pub(crate) proofs: Vec<Vec<u8>>,
    /// The line keys that a payload was sealed for, each with the name of the node.
    pub(crate) sealed: Vec<([u8; 32], String)>,
    pub(crate) served: bool,
}

impl Visit {
    pub(crate) fn new(whence: Whence, source: &str, facts: Facts, now: u64, seed: &mut Seed) -> Visit {
        Visit {
            wire: Wire::new(Host::new(Nonce(seed.bytes()), true, Shape::default()), None),
            whence,
            from: format!("tcp:{source}:{}", 1024 + seed.below(60_000)),
            source: source.to_owned(),
            facts,
            begun: now,
            met: false,
            keys: Vec::new(),
            hello: None,
            standing: Standing::New,
            payload: None,
            sending: None,
            delivered: false,
            deliveries: 0,
            next: None,
            dirty: true,
            closed: false,
            bad_proofs: 0,
            proofs: Vec::new(),
            sealed: Vec::new(),
            served: false,
        }
    }

    pub(crate) fn push(&mut self, site: &Site, bytes: &[u8], now: u64) {
        self.wire.push(bytes, micros(site, now));
        self.dirty = true;
    }

    /// What the door sends.
    pub(crate) fn poll(&mut self, site: &mut Site, now: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while !self.closed {
            let polled = self.wire.poll(micros(site, now));
            out.extend(polled.bytes);
            let wire = polled.next.map(|at| at.saturating_sub(micros(site, 0)));
            if polled.events.is_empty() {
                let again = if let Standing::Waits(again) = self.standing { Some(again) } else { None };
                let meet = (!self.met).then_some(self.begun + MEET);
                if again.is_some_and(|at| at <= now) {
                    self.ask(site, now);
                    continue;
                }
                self.closed |= meet.is_some_and(|at| at <= now);
                self.next = [wire, again, meet].into_iter().flatten().min();
                self.dirty = false;
                break;
            }
            polled.events.into_iter().for_each(|event| self.happened(site, event, now));
        }
        out
    }

    fn happened(&mut self, site: &mut Site, event: HostEvent, now: u64) {
        match event {
            HostEvent::Hello(hello) => self.hello = Some(hello),
            HostEvent::Second(_) | HostEvent::Lost => self.closed = true,
            HostEvent::Opened(_, stage) | HostEvent::Stage(stage) => {
                self.met = true;
                if self.standing == Standing::New {
                    self.ask(site, now);
                } else if stage == Stage::Payload {
                    self.deliver(site, now);
                }
            }
            HostEvent::Challenged => self.deliver(site, now),
            HostEvent::Delivered(Kind::Fresh) => (self.sending, self.delivered) = (None, true),
            HostEvent::Refused(Kind::Fresh, _) => self.closed = true,
            HostEvent::Object(Kind::Admission, proof) => {
                let (Some(hello), Some(session)) = (&self.hello, self.wire.end().session()) else { return };
                self.proofs.push(proof.clone());
                match Proof::decode(&proof).and_then(|proof| proof.key(hello, session.host)) {
                    Some(public) => self.keys.push(public),
                    None => self.bad_proofs += 1,
                }
                if matches!(self.standing, Standing::New | Standing::Waits(_)) {
                    self.ask(site, now);
                }
            }
            HostEvent::Object(Kind::Request, request) => self.decide(site, &request, now),
            HostEvent::Object(Kind::Report, _) => self.served = true,
            _ => {}
        }
    }

    /// Asks whether the caller is let in, also when something has changed.
    pub(crate) fn ask(&mut self, site: &mut Site, now: u64) {
        let Some(hello) = self.hello.clone().filter(|_| self.met) else { return };
        let (from, source, facts) = (self.from.clone(), self.source.clone(), self.facts.clone());
        let caller = Caller { hello, from, source, facts, keys: self.keys.clone() };
        match site.state.call(&caller, site.at(now)).unwrap() {
            Admission::Admitted { node, .. } => {
                self.standing = Standing::In(node);
                self.deliver(site, now);
            }
            Admission::Waits { why, again, .. } => {
                let again = now + again.map_or(AGAIN, |after| micros_of(after).clamp(SOON, AGAIN));
                if !matches!(self.standing, Standing::Waits(_)) {
                    self.wire.end_mut().send(Kind::Pending, why.into_bytes());
                }
                self.standing = Standing::Waits(again);
            }
            Admission::Refused { why } => {
                if self.standing != Standing::Out {
                    self.wire.end_mut().send(Kind::Refused, why.into_bytes());
                }
                self.standing = Standing::Out;
            }
        }
        self.dirty = true;
    }

    fn deliver(&mut self, site: &mut Site, now: u64) {
        let (Some(hello), Some(session), Standing::In(node)) =
            (self.hello.clone(), self.wire.end().session(), self.standing.clone())
        else {
            return;
        };
        if self.wire.end().stage() != Some(Stage::Payload) || self.sending == Some(session) {
            return;
        }
        self.deliveries += u8::from(std::mem::take(&mut self.delivered));
        if self.deliveries >= 3 {
            self.closed = true;
            return;
        }
        if self.payload.is_none() {
            let keep = !site.sent.insert(hello.key);
            let options = Options {
                keep,
                seed: true,
                single_boot: true,
                medium: Medium::Line,
                unsigned: true,
                ..Options::default()
            };
            // It has ended meanwhile, or its key has its certificate already.
            let Ok(made) = site.state.payload_for(&hello.digest(), &node, &options, site.at(now)) else {
                self.closed = true;
                return;
            };
            site.made.insert(made.id.0, node.clone());
            self.payload = Some((made.bytes.to_vec(), TimeKey::of_hash(made.token_hash)));
        }
        let (payload, time_key) = self.payload.clone().unwrap();
        let Some(challenge) = to_sign_for(self.wire.end().challenge(), micros(site, now)) else {
            self.wire.end_mut().renew();
            self.dirty = true;
            return;
        };
        let signed = site.state.fresh(&payload, &hello, &challenge, site.at(now)).unwrap().unwrap();
        self.wire.end_mut().prove_time(time_key);
        let number = self.wire.end().next_number();
        self.sealed.push((hello.key, node));
        // A key that is no point: nothing can be sealed for it.
        let Ok(sealed) = seal::seal(&signed, &hello, session, Kind::Fresh, number) else { return };
        self.wire.end_mut().send(Kind::Fresh, sealed);
        self.sending = Some(session);
        self.dirty = true;
    }

    fn decide(&mut self, site: &mut Site, request: &[u8], now: u64) {
        let (Some(hello), Standing::In(node)) = (self.hello.clone(), self.standing.clone()) else { return };
        let Some((tag, csr)) = seal::open_request(request) else { return };
        let proof = enrol::Proof::Line { tag: *tag, hello: Box::new(hello) };
        let credentials = Credentials { name: node, proof };
        let csr = Csr::parse(csr);
        let request = Request { csr: csr.as_ref(), credentials: Some(&credentials), peer: &self.from };
        let decided = site.state.decide(site.at(now), |desk| enrol::simple_enroll(desk, &request)).unwrap();
        if let Answer::Issued { der, .. } = decided.answer {
            self.wire.end_mut().send(Kind::Certificates, est::certs_only(&[&der]).unwrap());
        }
    }
}

/// The host's clock, in microseconds since 1970.
fn micros(site: &Site, now: u64) -> u64 {
    site.epoch.as_millis() * 1000 + now
}

fn micros_of(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
