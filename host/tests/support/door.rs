//! A site's state, and nodes that call at its door. No server and no sockets.
#![allow(dead_code, unreachable_pub)]

use std::cell::{Cell, RefCell, RefMut};
use std::path::PathBuf;
use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::line::{Hello, Nonce, Versions, seal};
use imprint::payload::{Enrolment, EstUrl, Payload};
use imprint::secret::Secret;
use imprint::time::Timestamp;
use imprint_host::admission::{Admission, Caller, Facts, Level};
use imprint_host::compose::{Composed, Medium, Options};
use imprint_host::csr::Csr;
use imprint_host::enrol::{self, Answer, Credentials, Proof, Request};
use imprint_host::list;
use imprint_host::state::{Adding, AdmitError, Error, LetIn, State};
use imprint_host::store::{AdmissionKeyRow, CallerRow};
use imprint_host::x509::CrlReason;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rusqlite::Connection;

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// What a node says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Says {
    pub serial: Option<&'static str>,
    pub uuid: Option<[u8; 16]>,
    pub macs: &'static [[u8; 6]],
}

impl Says {
    pub const NOTHING: Says = Says { serial: None, uuid: None, macs: &[] };
}

/// The state, and its clock.
pub struct Door {
    dir: tempfile::TempDir,
    state: RefCell<State>,
    now: Cell<Timestamp>,
}

pub fn code(caller: &Caller) -> String {
    KeyCode::of(&caller.hello.key).to_string()
}

pub fn spoken(node: &str, level: Level) -> Admission {
    Admission::Admitted { node: node.to_owned(), level }
}

/// What a node has that got its payload: its token, and a request for a certificate.
pub struct Got {
    node: String,
    token: Secret,
    csr: Vec<u8>,
}

impl Got {
    fn of(node: &str, made: &Composed) -> Got {
        let Enrolment::Csr(wanted) = Payload::unwrapped(&made.bytes).unwrap().enrolment else { panic!("credentials") };
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node);
        let csr = params.serialize_request(&pair).unwrap().der().to_vec();
        let token = Secret::new(wanted.token.unwrap().secret.expose().as_bytes().to_vec());
        Got { node: node.to_owned(), token, csr }
    }
}

#[track_caller]
fn issued(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Issued { der, .. } => der,
        other => panic!("{other:?}"),
    }
}

impl Door {
    pub fn new(records: &[String]) -> Door {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(Timestamp::system().as_secs());
        let url = EstUrl::try_from("https://est.example.org/.well-known/est").unwrap();
        let mut state = State::init(&dir.path().join("state"), &[url], now).unwrap();
        state.add_nodes(&files(records), false, now).unwrap();
        Door { dir, state: RefCell::new(state), now: Cell::new(now) }
    }

    pub fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("state/imprint.db")
    }

    pub fn replace(&self, records: &[String]) {
        let adding = Adding { replace: true, ..Adding::default() };
        self.state().add_nodes_as(&files(records), &adding, self.now()).unwrap();
    }

    /// As when the server is started again.
    pub fn reopen(&self) {
        *self.state.borrow_mut() = State::open(&self.dir.path().join("state")).unwrap();
    }

    pub fn now(&self) -> Timestamp {
        self.now.get()
    }

    pub fn pass(&self, duration: Duration) {
        self.now.set(self.now.get().plus(duration));
    }

    /// A node with line key `number`.
    pub fn caller(&self, number: u8, says: Says) -> Caller {
        self.from(number, says, "192.0.2.1")
    }

    pub fn from(&self, number: u8, says: Says, address: &str) -> Caller {
        let from = format!("tcp:{address}:{}", 40_000 + u16::from(number));
        Caller { source: address.to_owned(), ..self.over(number, says, &from) }
    }

    pub fn over(&self, number: u8, says: Says, from: &str) -> Caller {
        self.knows(number, says, from, Facts::default())
    }

    pub fn knows(&self, number: u8, says: Says, from: &str, facts: Facts) -> Caller {
        let hello = Hello {
            heard: None,
            versions: Versions::OURS,
            plain: false,
            fresh: true,
            nonce: Nonce([number; 8]),
            key: [number; 32],
            uuid: says.uuid,
            serial: says.serial.map(str::to_owned),
            macs: says.macs.iter().map(|mac| mac.to_vec()).collect(),
        };
        Caller { hello, from: from.to_owned(), source: from.to_owned(), facts, keys: Vec::new() }
    }

    pub fn call(&self, caller: &Caller) -> Admission {
        self.state().call(caller, self.now()).unwrap()
    }

    pub fn waits(&self, caller: &Caller) -> bool {
        matches!(self.call(caller), Admission::Waits { .. })
    }

    /// Calls, and stays until words would be believed.
    pub fn settle(&self, caller: &Caller) {
        self.call(caller);
        self.pass(imprint_host::admission::QUIET);
    }

    pub fn admit(&self, caller: &Caller, node: Option<&str>) -> Result<LetIn, AdmitError> {
        self.state().admit(&code(caller).to_lowercase(), node, self.now())
    }

    pub fn arm(&self, node: &str, within: Duration) -> Result<Timestamp, AdmitError> {
        self.state().arm(node, within, self.now()).map(|(until, _)| until)
    }

    pub fn deny(&self, caller: &Caller) -> usize {
        self.state().deny_callers(&code(caller), self.now()).unwrap().0.len()
    }

    pub fn revoke(&self, node: &str) {
        enrol::revoke(&mut self.state().store, node, None, CrlReason::Superseded, self.now()).unwrap();
    }

    pub fn key(&self, name: &str, public: u8, in_image: bool) {
        let row = AdmissionKeyRow { name: name.to_owned(), public: [public; 32], in_image, made_at: self.now() };
        let mut state = self.state();
        let changes = state.store.changes().unwrap();
        assert!(changes.put_admission_key(&row).unwrap());
        changes.commit().unwrap();
    }

    pub fn listed(&self) -> Vec<CallerRow> {
        list::callers(&self.state(), self.now()).unwrap()
    }

    pub fn text(&self) -> String {
        list::callers_text(&self.listed())
    }

    pub fn log(&self) -> Vec<String> {
        let rows = self.state().store.log(1_000_000).unwrap();
        rows.into_iter()
            .map(|row| format!("{} {}: {}", row.event, row.node.unwrap_or("-".into()), row.detail))
            .collect()
    }

    pub fn lines(&self, event: &str) -> usize {
        self.log().iter().filter(|line| line.starts_with(event)).count()
    }

    pub fn live(&self, node: &str) -> usize {
        self.state().store.live_certificates(node, self.now()).unwrap().len()
    }

    /// Delivers the payload, and signs what the node sends back. The certificate.
    #[track_caller]
    pub fn serve(&self, caller: &Caller, node: &str) -> Vec<u8> {
        let got = self.payload(caller, node).unwrap();
        issued(self.request(&got, caller))
    }

    /// Delivers a payload that was not made for a caller, and signs what the node asks for over its network.
    #[track_caller]
    pub fn enroll(&self, node: &str) -> Vec<u8> {
        let options = Options { medium: Medium::Line, ..Options::default() };
        let made = self.state().payload(node, &options, self.now()).unwrap();
        issued(self.request_over_network(&Got::of(node, &made)))
    }

    /// A caller that is let in gets its payload.
    #[track_caller]
    pub fn payload(&self, caller: &Caller, node: &str) -> Result<Got, Error> {
        let options = Options { medium: Medium::Line, ..Options::default() };
        let made = self.state().payload_for(&caller.hello.digest(), node, &options, self.now())?;
        Ok(Got::of(node, &made))
    }

    /// The node asks for its certificate over the line.
    pub fn request(&self, got: &Got, caller: &Caller) -> Answer {
        let sent = seal::request(got.token.expose(), &caller.hello, &got.csr);
        let (tag, csr) = seal::open_request(&sent).unwrap();
        let proof = Proof::Line { tag: *tag, hello: Box::new(caller.hello.clone()) };
        self.ask(&got.node, proof, csr, &caller.from)
    }

    /// The node asks for its certificate over its network.
    pub fn request_over_network(&self, got: &Got) -> Answer {
        self.ask(&got.node, Proof::Token(Secret::new(got.token.expose().to_vec())), &got.csr, "192.0.2.1")
    }

    fn ask(&self, node: &str, proof: Proof, csr: &[u8], peer: &str) -> Answer {
        let credentials = Credentials { name: node.to_owned(), proof };
        let csr = Csr::parse(csr);
        let request = Request { csr: csr.as_ref(), credentials: Some(&credentials), peer };
        self.state().decide(self.now(), |desk| enrol::simple_enroll(desk, &request)).unwrap().answer
    }

    /// Shows a certificate in a handshake.
    pub fn show(&self, certificate: &[u8]) {
        let State { ca, store, urls } = &mut *self.state();
        let changes = store.changes().unwrap();
        let desk = enrol::Desk { changes: &changes, ca, urls, now: self.now() };
        assert!(enrol::shown_in_a_handshake(&desk, certificate, "192.0.2.1").unwrap().is_none());
        changes.commit().unwrap();
    }

    /// So many callers wait already, all of this source; or each of a source of its own: `%x` stands for its number.
    pub fn fill(&self, source: &str, count: usize) {
        let net = imprint_host::origin::wide(&source.replace("%x", "1"));
        let net = if net == source.replace("%x", "1") { source } else { &net };
        let sql = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
             INSERT INTO callers (hello, key, code, said, facts, source, net, peer, why, first_at, last_at, state, since)
             SELECT CAST(printf('%032d', i) AS BLOB), CAST(printf('%032d', i) AS BLOB), 'F' || i,
             '{{\"uuid\":null,\"serial\":null,\"macs\":[],\"by\":\"tcp\"}}', '{{\"cid\":null,\"tap\":null,\"vm\":null}}',
             printf('{source}', i), printf('{net}', i), 'tcp:{source}:1', 'x', {at}, {at}, 'waits', {at} FROM n",
            at = self.now().as_millis()
        );
        Connection::open(self.path()).unwrap().execute_batch(&sql).unwrap();
    }
}

fn files(records: &[String]) -> Vec<(String, String)> {
    (1..).zip(records).map(|(number, text)| (format!("{number}.toml"), text.clone())).collect()
}

/// Numbers from a seed (splitmix64).
pub struct Seed(pub u64);

impl Seed {
    pub fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(most).unwrap()).unwrap()
    }
}
