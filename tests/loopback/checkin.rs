//! Tests of the check-in against a server with one fault in each test. All times are fixed: nothing depends on the
//! machine's clock.

mod forms;
mod issued;
mod kept;
mod line;
mod odd;
mod trust;
mod waiting;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use imprint::checkin::{
    AnswerError, Ask, AskError, Attempt, CheckinError, Context, Failure, Issued, Progress, Reply, Step, enroll,
};
use imprint::digest::sha256;
use imprint::est::EstError;
use imprint::http::{HttpError, MAX_BODY};
use imprint::https::{HttpsError, Phase};
use imprint::identity::Identity;
use imprint::key_code::KeyCode;
use imprint::payload::{
    Attribute, CaCertificate, CertificateNames, DnsName, EnrolmentToken, EstUrl, KeyType, NodeName, Subject,
    SubjectAttribute, Token, TokenMode,
};
use imprint::plan::{ClockPlan, ClockQuality, Server, SubjectPlan};
use imprint::pool::Seeded;
use imprint::time::{Deadline, Timestamp};
use imprint::tls::{ClientCertificate, Reason, TlsError};
use imprint_tests::ca::{Ca, Leaf, certs_only, spki_of_csr};
use imprint_tests::est_server::{EstServer, Request, date_field, reply};
use imprint_tests::patience::{PATIENCE, patiently};
use imprint_tests::ports::Reserved;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, ProtocolVersion, ServerConfig};

const DAY: u64 = 86_400;
const YEAR: u64 = 365 * DAY;
/// 2030-01-01: when the payload was made. It expires a day later.
const COMPOSED: u64 = 1_893_456_000;
const EXPIRY: u64 = COMPOSED + DAY;
/// What time it is.
const NOW: u64 = COMPOSED + 3600;
/// The validity of what is valid.
const GOOD: (u64, u64) = (COMPOSED - YEAR, COMPOSED + 10 * YEAR);
/// The validity of what is issued.
const FRESH: (u64, u64) = (NOW - 60, NOW + DAY);
const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A root, an intermediate that signs, and a node that wants a certificate.
struct World {
    root: Ca,
    signer: Arc<Ca>,
    identity: Identity,
    issuers: Vec<[u8; 32]>,
    composed: u64,
    quality: ClockQuality,
}

struct Run {
    result: Result<Issued, CheckinError>,
    asked: Vec<Ask>,
    told: Vec<String>,
}

impl World {
    fn new() -> World {
        World::with(KeyType::P256)
    }

    fn with(key: KeyType) -> World {
        let root = Ca::new("Root", GOOD);
        let signer = Arc::new(root.intermediate("Signer", GOOD));
        let names = CertificateNames {
            subject: Subject(vec![SubjectAttribute::new(Attribute::CommonName, "node1").unwrap()]),
            dns: vec![DnsName::try_from("node1.example").unwrap(), DnsName::try_from("n1.example").unwrap()],
            ..CertificateNames::default()
        };
        let seeded = Seeded::ready(Deadline::after(PATIENCE)).unwrap();
        let identity = Identity::generate(&SubjectPlan { names, key }, &seeded).unwrap();
        World { root, signer, identity, issuers: Vec::new(), composed: COMPOSED, quality: ClockQuality::Unknown }
    }

    /// What is asked for, in another order.
    fn leaf(&self) -> Leaf {
        Leaf::node("node1", &["n1.example", "node1.example"], FRESH)
    }

    fn tls(&self) -> Arc<ServerConfig> {
        self.signer.server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13, &TLS12])
    }

    fn cacerts(&self) -> Vec<Vec<u8>> {
        vec![self.root.der(), self.signer.der()]
    }

    /// A server that does everything right, at this time.
    fn good(&self, now: u64) -> impl Fn(&Request) -> Vec<u8> + Send + 'static {
        let (signer, leaf) = (Arc::clone(&self.signer), self.leaf());
        self.issuing(now, move |spki| vec![signer.issue(&leaf, spki)])
    }

    /// A server that answers a CSR with these certificates.
    fn issuing(
        &self,
        now: u64,
        issue: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> impl Fn(&Request) -> Vec<u8> + Send + 'static {
        let cacerts = self.cacerts();
        move |request| {
            let certificates = match request.operation() {
                "cacerts" => cacerts.clone(),
                _ => issue(&spki_of_csr(&request.csr())),
            };
            reply("200 OK", &[date_field(now), PKCS7.to_owned()], base64(&certs_only(&certificates)).as_bytes())
        }
    }

    fn server_plan(&self, urls: &[String]) -> Server {
        let url = |url: &String| EstUrl::try_from(url.as_str()).unwrap();
        Server {
            urls: urls.iter().map(url).collect(),
            name: NodeName::try_from("node1").unwrap(),
            token: Some(EnrolmentToken {
                secret: Token::try_from("s3cret".to_owned()).unwrap(),
                mode: TokenMode::Once,
            }),
            ca: CaCertificate::new(self.root.der()).unwrap(),
            issuers: self.issuers.clone(),
        }
    }

    fn enroll_at(&self, urls: &[String], deadline: Duration) -> (Result<Issued, CheckinError>, Vec<Ask>) {
        let run = self.run(&self.server_plan(urls), deadline, None, &mut |_| Reply::NothingMore);
        (run.result, run.asked)
    }

    /// A check-in, what it asked for and what it told.
    fn run(
        &self,
        server: &Server,
        deadline: Duration,
        approval_timeout: Option<Duration>,
        door: &mut dyn FnMut(Ask) -> Reply,
    ) -> Run {
        let clock = self.clock();
        let context = Context { approval_timeout, ..self.context(server, &clock) };
        let (mut asked, mut told) = (Vec::new(), Vec::new());
        let mut ask = |ask: Ask| -> Result<Reply, AskError> {
            asked.push(ask);
            Ok(door(ask))
        };
        let mut progress = |progress: Progress<'_>| told.push(progress.to_string());
        let result = enroll(&context, &mut ask, &mut progress, Deadline::after(deadline));
        Run { result, asked, told }
    }

    /// The life of the payload.
    fn clock(&self) -> ClockPlan {
        ClockPlan { floor: secs(self.composed), expiry: secs(self.composed + DAY), quality: self.quality }
    }

    fn context<'a>(&'a self, server: &'a Server, clock: &'a ClockPlan) -> Context<'a> {
        let (identity, user_agent) = (&self.identity, "imprint/test (loopback)");
        Context { server, clock, identity, renews: None, user_agent, approval_timeout: None, line: None }
    }

    /// A renewal of a certificate that the node has, with another key.
    fn renew(&self, server: &EstServer, deadline: Duration) -> Result<Issued, CheckinError> {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = self.signer.issue(&self.leaf(), &rcgen::PublicKeyData::subject_public_key_info(&key));
        let client = ClientCertificate::new(&[leaf], &key.serialize_der()).unwrap();
        let (plan, clock) = (self.server_plan(&[server.url()]), self.clock());
        let context = Context { renews: Some(&client), ..self.context(&plan, &clock) };
        enroll(&context, &mut |_| Ok(Reply::NothingMore), &mut |_| (), Deadline::after(deadline))
    }

    fn enroll(&self, server: &EstServer) -> Result<Issued, CheckinError> {
        self.enroll_at(&[server.url()], PATIENCE).0
    }

    /// The one failure of a check-in that must fail at once.
    fn fails(&self, server: &EstServer) -> (Step, Failure) {
        let Attempt { address, step, failure, .. } = match self.enroll(server) {
            Err(CheckinError::Failed { mut attempts }) if attempts.len() == 1 => attempts.remove(0),
            other => panic!("{other:?}"),
        };
        assert_eq!(address, Some(server.address()));
        (step, failure)
    }

    /// Why the server's certificate was refused.
    fn refused(&self, server: &EstServer) -> (Step, Reason) {
        match self.fails(server) {
            (step, Failure::Https(HttpsError::Tls(TlsError::Refused(refused)))) => (step, refused.reason),
            other => panic!("{other:?}"),
        }
    }

    /// Why the issued certificates were refused.
    fn answer_error(&self, issue: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> AnswerError {
        let server = EstServer::start(vec![self.tls()], self.issuing(NOW, issue));
        match self.fails(&server) {
            (Step::Enrol, Failure::Answer(error)) => *error,
            other => panic!("{other:?}"),
        }
    }

    /// Why a leaf that differs from what was asked for was refused.
    fn leaf_error(&self, change: impl Fn(&mut Leaf)) -> AnswerError {
        let (signer, mut leaf) = (Arc::clone(&self.signer), self.leaf());
        change(&mut leaf);
        self.answer_error(move |spki| vec![signer.issue(&leaf, spki)])
    }
}

const PKCS7: &str = "Content-Type: application/pkcs7-mime; smime-type=certs-only";

fn base64(der: &[u8]) -> String {
    imprint::pem::encode("X", der).lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("\n")
}

fn secs(at: u64) -> Timestamp {
    Timestamp::from_secs(at)
}

#[test]
fn a_certificate_over_tls_1_3_and_1_2() {
    for (version, name) in [(&TLS13, ProtocolVersion::TLSv1_3), (&TLS12, ProtocolVersion::TLSv1_2)] {
        let world = World::new();
        let tls = world.signer.server(&Leaf::server(LOCALHOST, GOOD), &[version]);
        let server = EstServer::start(vec![tls], world.good(NOW));
        let (result, asked) = world.enroll_at(&[server.url()], PATIENCE);
        let issued = result.unwrap();
        assert_eq!(issued.chain().len(), 2);
        assert_eq!(issued.chain()[0], issued.leaf());
        assert_eq!(issued.chain()[1], world.signer.der(), "from cacerts, since only the leaf came");
        assert_eq!(issued.facts().not_after, secs(FRESH.1));
        assert_eq!(issued.server(), format!("{} ({})", server.url(), server.address()));
        // The middle of the second that Date names, plus the time since.
        let [Ask::SetClock(clock)] = asked[..] else { panic!("{asked:?}") };
        assert!(clock >= secs(NOW).plus(Duration::from_millis(500)));
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        assert!(requests.iter().all(|request| request.version == name));
    }
}

#[test]
fn a_certificate_for_every_type_of_key() {
    for (key, name) in KeyType::ALL {
        let world = World::with(key);
        let server = EstServer::start(vec![world.tls()], world.good(NOW));
        let issued = world.enroll(&server).unwrap();
        let want = world.identity.spki();
        assert!(issued.leaf().windows(want.len()).any(|window| window == want), "{name}");
    }
}

#[test]
fn redirects_are_not_followed() {
    let world = World::new();
    let elsewhere = "https://elsewhere.example/.well-known/est/cacerts";
    let fields = [date_field(NOW), format!("Location: {elsewhere}")];
    let server = EstServer::start(vec![world.tls()], move |_| reply("302 Found", &fields, b""));
    let (Step::Probe, Failure::Est(error)) = world.fails(&server) else { panic!("a redirect") };
    assert_eq!(error, EstError::Redirect { status: 302, location: Some(elsewhere.into()) });
}

#[test]
fn oversized_answers_and_garbage_are_refused() {
    let world = World::new();
    let huge = reply("200 OK", &[date_field(NOW)], &[b'A'; MAX_BODY + 1]);
    let head = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 20_000]].concat();
    for (answer, want) in [
        (huge, HttpError::BodyTooLong(MAX_BODY)),
        (head, HttpError::HeadTooLong),
        (b"220 mail.example ESMTP\r\n".to_vec(), HttpError::NotHttp("no status line")),
    ] {
        let server = EstServer::start(vec![world.tls()], move |_| answer.clone());
        let (Step::Probe, Failure::Https(HttpsError::Http(error))) = world.fails(&server) else { panic!("{want:?}") };
        assert_eq!(error, want);
    }
    for (answer, want) in [
        (reply("200 OK", &[date_field(NOW)], b"<html>hello</html>"), EstError::NotBase64),
        (reply("200 OK", &[date_field(NOW)], base64(&certs_only(&[])).as_bytes()), EstError::Count(0)),
    ] {
        let server = EstServer::start(vec![world.tls()], move |_| answer.clone());
        let (Step::Probe, Failure::Est(error)) = world.fails(&server) else { panic!("{want:?}") };
        assert_eq!(error, want);
    }
}

#[test]
fn a_server_without_tls_is_named_as_such() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/.well-known/est", listener.local_addr().unwrap());
    let plain = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Until the client has gone, so that its answer is not lost with a reset.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = world.enroll_at(&[url], PATIENCE).0.unwrap_err().to_string();
    assert!(error.ends_with(": the server does not speak TLS; check host and port of the URL"), "{error}");
    plain.join().unwrap();
}

#[test]
fn a_refusal_is_final_and_shows_what_the_server_says() {
    let world = World::new();
    let cacerts = base64(&certs_only(&world.cacerts()));
    let server = EstServer::start(vec![world.tls()], move |request| match request.operation() {
        "cacerts" => reply("200 OK", &[date_field(NOW)], cacerts.as_bytes()),
        _ => reply("403 Forbidden", &[], b"names differ from the record: dns:n1.example\n"),
    });
    let error = world.enroll(&server).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "asking for a certificate at {} ({}): the server refuses: 403 names differ from the record: dns:n1.example",
            server.url(),
            server.address()
        )
    );
}

#[test]
fn a_busy_server_is_asked_again() {
    let world = World::new();
    let good = world.good(NOW);
    let server = EstServer::start(vec![world.tls()], move |request| match request.connection {
        0 => reply("503 Service Unavailable", &[], b""),
        1 => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec(),
        _ => good(request),
    });
    world.enroll(&server).unwrap();
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn the_next_url_gets_its_turn() {
    let world = World::new();
    // Nobody listens there.
    let closed = Reserved::new();
    let stranger = Ca::new("Stranger", GOOD).server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13]);
    let other = EstServer::start(vec![stranger], |_| Vec::new());
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    let urls = [format!("https://{}/.well-known/est", closed.address()), other.url(), server.url()];
    let issued = world.enroll_at(&urls, PATIENCE).0.unwrap();
    assert_eq!(issued.server(), format!("{} ({})", server.url(), server.address()));
}

#[test]
fn a_server_that_never_answers_ends_at_the_deadline() {
    let world = World::new();
    // The kernel takes the connection; nobody else does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/.well-known/est", silent.local_addr().unwrap());
    patiently(Duration::from_millis(200), |limit| {
        let (result, _) = world.enroll_at(std::slice::from_ref(&url), limit);
        let Err(CheckinError::GaveUp { attempts, .. }) = result else { panic!("{result:?}") };
        match &attempts[..] {
            [Attempt { step: Step::Probe, failure: Failure::Https(HttpsError::TimedOut(Phase::Handshake)), .. }] => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_server_that_is_not_there_is_tried_until_the_deadline() {
    let world = World::new();
    // tcpmux (RFC 1078), which nobody runs.
    let closed = "127.0.0.1:1";
    let want = format!(
        " s; fetching CA certificates and time from https://{closed}/.well-known/est ({closed}): no connection; check that \
         the server listens there: Connection refused (os error 111)"
    );
    patiently(Duration::from_millis(50), |limit| {
        let (result, _) = world.enroll_at(&[format!("https://{closed}/.well-known/est")], limit);
        let error = result.unwrap_err().to_string();
        let waited = error.strip_prefix("gave up after ").and_then(|rest| rest.strip_suffix(&want));
        waited.and_then(|seconds| seconds.parse::<u64>().ok()).map(drop).ok_or(error)
    });
}

#[test]
fn a_deadline_that_has_passed_ends_it() {
    let world = World::new();
    let (result, _) = world.enroll_at(&["https://127.0.0.1:1/.well-known/est".to_owned()], Duration::ZERO);
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("gave up after ") && error.ends_with(" s, before any server was tried"), "{error}");
}
