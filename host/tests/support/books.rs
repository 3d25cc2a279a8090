//! A site's state, and nodes whose keys are made here. No server and no TLS.
#![allow(dead_code, unreachable_pub)]

use std::cell::{Cell, RefCell};
use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::secret::Secret;
use imprint::time::Timestamp;
use imprint_host::compose::Options;
use imprint_host::csr::Csr;
use imprint_host::enrol::{self, Answer, Credentials, Decision, Proof, Refusal, Request};
use imprint_host::state::State;
use imprint_host::x509::CrlReason;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

pub const DAY: Duration = Duration::from_secs(86_400);
/// Where the node is, and where somebody else is.
pub const HOME: &str = "192.0.2.10";
pub const AWAY: &str = "203.0.113.66";

/// The books of a site with two nodes, and its clock.
pub struct Books {
    pub dir: tempfile::TempDir,
    pub state: RefCell<State>,
    pub now: Cell<Timestamp>,
}

/// A key, and a request for a certificate of it.
pub struct Key {
    pub pair: KeyPair,
    pub csr: Vec<u8>,
    pub code: KeyCode,
}

pub fn key() -> Key {
    let pair = KeyPair::generate().unwrap();
    let csr = csr(&pair, "node1");
    let code = Csr::parse(&csr).unwrap().code();
    Key { pair, csr, code }
}

pub fn csr(pair: &KeyPair, name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serialize_request(pair).unwrap().der().to_vec()
}

#[track_caller]
pub fn issued(decision: Decision) -> Vec<u8> {
    match decision.answer {
        Answer::Issued { der, .. } => der,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn refused(decision: Decision) -> Refusal {
    match decision.answer {
        Answer::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

pub fn waits(decision: &Decision) -> bool {
    matches!(decision.answer, Answer::Pending { .. })
}

impl Books {
    pub fn new(mode: &str) -> Books {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(Timestamp::system().as_secs());
        let url = EstUrl::try_from("https://est.example.org/.well-known/est").unwrap();
        let mut state = State::init(&dir.path().join("state"), &[url], now).unwrap();
        let record = |name| {
            let text =
                format!("name = \"{name}\"\nsubject = [\"CN={name}\"]\nenrol = \"{mode}\"\nvalidity = \"90d\"\n");
            (format!("{name}.toml"), text)
        };
        state.add_nodes(&[record("node1"), record("node2")], false, now).unwrap();
        Books { dir, state: RefCell::new(state), now: Cell::new(now) }
    }

    pub fn pass(&self, duration: Duration) {
        self.now.set(self.now.get().plus(duration));
    }

    /// As when the server is started again.
    pub fn reopen(&self) {
        *self.state.borrow_mut() = State::open(&self.dir.path().join("state")).unwrap();
    }

    pub fn token(&self, node: &str, keep: bool) -> String {
        let options = Options { expires: 30 * DAY, keep, ..Options::default() };
        let made = self.state.borrow_mut().payload(node, &options, self.now.get()).unwrap();
        match Payload::unwrapped(&made.bytes).unwrap().enrolment {
            Enrolment::Csr(csr) => csr.token.unwrap().secret.expose().to_owned(),
            Enrolment::Credentials(_) => panic!("a payload with credentials"),
        }
    }

    /// A certificate that came with its payload.
    pub fn credentials(&self) -> Vec<u8> {
        let options = Options { credentials: true, ..Options::default() };
        self.state.borrow_mut().payload("node1", &options, self.now.get()).unwrap();
        self.live("node1").pop().unwrap()
    }

    pub fn ask(&self, name: &str, token: Option<&str>, csr: &[u8], peer: &str) -> Decision {
        let proof = token.map(|token| Proof::Token(Secret::new(token.as_bytes().to_vec())));
        let credentials = proof.map(|proof| Credentials { name: name.to_owned(), proof });
        let csr = Csr::parse(csr);
        let request = Request { csr: csr.as_ref(), credentials: credentials.as_ref(), peer };
        self.state.borrow_mut().decide(self.now.get(), |desk| enrol::simple_enroll(desk, &request)).unwrap()
    }

    pub fn first(&self, token: &str, key: &Key, peer: &str) -> Decision {
        self.ask("node1", Some(token), &key.csr, peer)
    }

    pub fn renew(&self, certificate: &[u8], csr: &[u8], peer: &str) -> Decision {
        let (mut state, csr) = (self.state.borrow_mut(), Csr::parse(csr));
        state
            .decide(self.now.get(), |desk| enrol::simple_reenroll(desk, csr.as_ref(), Some(certificate), peer))
            .unwrap()
    }

    /// In a handshake. Whether there is an alarm.
    pub fn show(&self, certificate: &[u8], peer: &str) -> bool {
        let State { ca, store, urls } = &mut *self.state.borrow_mut();
        let changes = store.changes().unwrap();
        let desk = enrol::Desk { changes: &changes, ca, urls, now: self.now.get() };
        let alarm = enrol::shown_in_a_handshake(&desk, certificate, peer).unwrap();
        changes.commit().unwrap();
        alarm.is_some()
    }

    pub fn live(&self, node: &str) -> Vec<Vec<u8>> {
        let state = self.state.borrow();
        let live = state.store.live_certificates(node, self.now.get()).unwrap();
        live.into_iter().map(|row| row.der).collect()
    }

    pub fn events(&self, event: &str) -> usize {
        let rows = self.state.borrow().store.log(1_000_000).unwrap();
        rows.iter().filter(|row| row.event == event).count()
    }

    pub fn lines(&self) -> usize {
        self.state.borrow().store.log(1_000_000).unwrap().len()
    }

    pub fn last(&self) -> String {
        let row = self.state.borrow().store.log(1).unwrap().remove(0);
        format!("{} {}: {}", row.event, row.node.unwrap_or("-".into()), row.detail)
    }

    pub fn waiting(&self) -> Vec<String> {
        let rows = self.state.borrow().store.waiting("node1", self.now.get()).unwrap();
        rows.into_iter().map(|row| row.key_code).collect()
    }

    pub fn approve(&self, key: &Key) {
        enrol::approve(&mut self.state.borrow_mut().store, "node1", &key.code.to_string(), self.now.get()).unwrap();
    }

    pub fn deny(&self) -> usize {
        enrol::deny(&mut self.state.borrow_mut().store, "node1", self.now.get()).unwrap().len()
    }

    pub fn revoke(&self, code: Option<&KeyCode>) {
        let code = code.map(KeyCode::to_string);
        let store = &mut self.state.borrow_mut().store;
        enrol::revoke(store, "node1", code.as_deref(), CrlReason::KeyCompromise, self.now.get()).unwrap();
    }

    /// The node's certificate, which it has used.
    pub fn node(&self) -> Vec<u8> {
        let certificate = issued(self.first(&self.token("node1", false), &key(), HOME));
        assert!(!self.show(&certificate, HOME));
        self.pass(DAY);
        certificate
    }
}
