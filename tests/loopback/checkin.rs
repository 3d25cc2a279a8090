//! Check-in against a server that does everything wrong, once each. All times are made up: nothing here depends on
//! the clock of the machine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use imprint::apply::entropy::Seeded;
use imprint::checkin::{AnswerError, Ask, AskError, Attempt, CheckinError, Context, Failure, Issued, Step, enroll};
use imprint::est::{EstError, MAX_BODY};
use imprint::identity::{Identity, KeyCode, sha256};
use imprint::payload::{
    Attribute, CaCertificate, CertificateNames, DnsName, EnrolmentToken, EstUrl, KeyType, NodeName, Subject,
    SubjectAttribute, Token, TokenMode,
};
use imprint::plan::{ClockPlan, ClockQuality, Server, SubjectPlan};
use imprint::time::{Deadline, Timestamp};
use imprint::tls::{Reason, TlsError};
use imprint_tests::ca::{Ca, Leaf, certs_only, spki_of_csr};
use imprint_tests::est_server::{EstServer, Request, date_field, reply};
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
}

impl World {
    fn new() -> World {
        let root = Ca::new("Root", GOOD);
        let signer = Arc::new(root.intermediate("Signer", GOOD));
        let names = CertificateNames {
            subject: Subject(vec![SubjectAttribute::new(Attribute::CommonName, "node1").unwrap()]),
            dns: vec![DnsName::try_from("node1.example").unwrap(), DnsName::try_from("n1.example").unwrap()],
            ..CertificateNames::default()
        };
        let seeded = Seeded::ready(Deadline::after(Duration::from_secs(60))).unwrap();
        let identity = Identity::generate(&SubjectPlan { names, key: KeyType::P256 }, &seeded).unwrap();
        World { root, signer, identity, issuers: Vec::new(), composed: COMPOSED }
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
        let url = |url: &String| match EstUrl::try_from(url.as_str()).unwrap() {
            EstUrl::Https(url) => url,
            EstUrl::Line => panic!("https"),
        };
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
        let server = self.server_plan(urls);
        let clock = ClockPlan {
            floor: Timestamp::from_secs(self.composed),
            expiry: Timestamp::from_secs(self.composed + DAY),
            quality: ClockQuality::Unknown,
        };
        let context =
            Context { server: &server, clock: &clock, identity: &self.identity, user_agent: "imprint/test (loopback)" };
        let mut asked = Vec::new();
        let mut ask = |ask: Ask| -> Result<(), AskError> {
            asked.push(ask);
            Ok(())
        };
        let result = enroll(&context, &mut ask, &mut |_| {}, Deadline::after(deadline));
        (result, asked)
    }

    fn enroll(&self, server: &EstServer) -> Result<Issued, CheckinError> {
        self.enroll_at(&[server.url()], Duration::from_secs(60)).0
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
            (step, Failure::Tls(TlsError::Refused(refused))) => (step, refused.reason),
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
        let (result, asked) = world.enroll_at(&[server.url()], Duration::from_secs(60));
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
fn the_key_exchange_is_hybrid() {
    let world = World::new();
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    world.enroll(&server).unwrap();
    assert!(server.requests().iter().all(|request| request.group == NamedGroup::X25519MLKEM768));
}

#[test]
fn the_probe_carries_no_secret_and_the_request_carries_them_all() {
    let world = World::new();
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    world.enroll(&server).unwrap();
    let [probe, request] = &server.requests()[..] else { panic!("two requests") };
    assert_eq!(
        probe.head,
        format!(
            "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: {}\r\nUser-Agent: imprint/test (loopback)\r\nAccept: \
             application/pkcs7-mime\r\nConnection: close",
            server.address()
        )
    );
    assert_eq!(probe.body, b"");
    assert_ne!(probe.connection, request.connection);
    // printf node1:s3cret | base64
    assert!(request.head.contains("\r\nAuthorization: Basic bm9kZTE6czNjcmV0\r\n"), "{}", request.head);
    assert_eq!(request.csr(), world.identity.csr());
}

#[test]
fn a_certificate_from_another_ca_is_refused_before_anything_is_said() {
    let world = World::new();
    // The same names, another key: somebody ran `init` again.
    let other = Ca::new("Root", GOOD).intermediate("Signer", GOOD);
    let server = EstServer::start(vec![other.server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13])], world.good(NOW));
    let (result, asked) = world.enroll_at(&[server.url()], Duration::from_secs(60));
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "fetching CA certificates and time from {} ({}): the server's certificate does not chain to the CA in the \
             payload, \"CN=Root\" (it is CN=est server, for ip:127.0.0.1, from CN=Signer, valid 2029-01-01T00:00:00Z \
             to 2039-12-30T00:00:00Z); make the payload with this server's CA, or correct its URL",
            server.url(),
            server.address()
        )
    );
    assert!(asked.is_empty());
    assert!(server.requests().is_empty());
    let stranger = Ca::new("Stranger", GOOD);
    let tls = stranger.server(&Leaf::server(LOCALHOST, GOOD), &[&TLS12]);
    let server = EstServer::start(vec![tls], world.good(NOW));
    assert_eq!(world.refused(&server), (Step::Probe, Reason::OtherCa));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let world = World::new();
    let mut leaf = Leaf::server(LOCALHOST, GOOD);
    leaf.names = vec![SanType::DnsName("est.example".try_into().unwrap())];
    let server = EstServer::start(vec![world.signer.server(&leaf, &[&TLS13])], world.good(NOW));
    assert_eq!(world.refused(&server), (Step::Probe, Reason::OtherName("127.0.0.1".to_owned())));
}

#[test]
fn a_certificate_that_is_not_for_servers_is_refused() {
    let world = World::new();
    let mut leaf = Leaf::server(LOCALHOST, GOOD);
    leaf.usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let server = EstServer::start(vec![world.signer.server(&leaf, &[&TLS13])], world.good(NOW));
    assert_eq!(world.refused(&server), (Step::Probe, Reason::Purpose));
}

#[test]
fn a_server_certificate_must_overlap_the_life_of_the_payload() {
    let world = World::new();
    for validity in [(COMPOSED - YEAR, COMPOSED - 1), (EXPIRY + 1, EXPIRY + YEAR)] {
        let tls = world.signer.server(&Leaf::server(LOCALHOST, validity), &[&TLS13]);
        let server = EstServer::start(vec![tls], world.good(NOW));
        let (step, reason) = world.refused(&server);
        let Reason::NeverWithin(from, to) = reason else { panic!("{reason:?}") };
        assert_eq!((step, to), (Step::Probe, secs(EXPIRY)));
        assert!(from >= secs(COMPOSED), "the floor advances with the machine");
    }
    // It begins within: the earliest possible moment is its own beginning.
    let tls = world.signer.server(&Leaf::server(LOCALHOST, (NOW - 60, NOW + YEAR)), &[&TLS13]);
    let server = EstServer::start(vec![tls], world.good(NOW));
    world.enroll(&server).unwrap();
    // An intermediate that ended before the certificate below it began.
    let signer = world.root.intermediate("Signer", (COMPOSED - YEAR, COMPOSED + 60));
    let tls = signer.server(&Leaf::server(LOCALHOST, (COMPOSED + 120, NOW + YEAR)), &[&TLS13]);
    let server = EstServer::start(vec![tls], world.good(NOW));
    assert_eq!(world.refused(&server), (Step::Probe, Reason::IntermediateValidity));
}

#[test]
fn the_second_connection_is_verified_at_the_time_of_the_first() {
    let world = World::new();
    let at = |validity| world.signer.server(&Leaf::server(LOCALHOST, validity), &[&TLS13]);
    // Within the payload's life, but over by now.
    let server = EstServer::start(vec![at(GOOD), at((COMPOSED, NOW - 1))], world.good(NOW));
    let (step, reason) = world.refused(&server);
    let Reason::NotNow(now) = reason else { panic!("{reason:?}") };
    assert_eq!(step, Step::Enrol);
    assert!(now >= secs(NOW) && server.requests().len() == 1, "no token went out");
    // RFC 5280 has no tolerance; CAs and nodes do not agree on the second.
    let server = EstServer::start(vec![at(GOOD), at((NOW + 240, NOW + YEAR))], world.good(NOW));
    world.enroll(&server).unwrap();
    let server = EstServer::start(vec![at(GOOD), at((NOW + 400, NOW + YEAR))], world.good(NOW));
    assert!(matches!(world.refused(&server), (Step::Enrol, Reason::NotNow(_))));
}

#[test]
fn a_clock_that_is_slow_or_fast_follows_the_date() {
    // The machine's clock is years before the one payload and years after the other.
    for composed in [COMPOSED + 20 * YEAR, 1_577_836_800] {
        let mut world = World::new();
        let now = composed + 7200;
        let good = (composed - YEAR, composed + 10 * YEAR);
        world.composed = composed;
        world.root = Ca::new("Root", good);
        world.signer = Arc::new(world.root.intermediate("Signer", good));
        let (signer, leaf) = (Arc::clone(&world.signer), Leaf { validity: (now - 60, now + DAY), ..world.leaf() });
        let tls = world.signer.server(&Leaf::server(LOCALHOST, good), &[&TLS13]);
        let answer = world.issuing(now, move |spki| vec![signer.issue(&leaf, spki)]);
        let server = EstServer::start(vec![tls], answer);
        let (result, asked) = world.enroll_at(&[server.url()], Duration::from_secs(60));
        result.unwrap();
        let [Ask::SetClock(clock)] = asked[..] else { panic!("{asked:?}") };
        assert!((secs(now)..secs(now + 60)).contains(&clock), "{clock}");
    }
}

#[test]
fn a_date_after_the_expiry_means_that_the_payload_has_expired() {
    let world = World::new();
    let server = EstServer::start(vec![world.tls()], world.good(EXPIRY + 1));
    let (result, asked) = world.enroll_at(&[server.url()], Duration::from_secs(60));
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "the payload expired at 2030-01-02T00:00:00Z, and it is 2030-01-02T00:00:01Z by {} ({}); make a new \
             payload with imprint-host payload",
            server.url(),
            server.address()
        )
    );
    assert!(asked.is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_date_that_is_not_credible_sets_no_clock() {
    let world = World::new();
    let early = EstServer::start(vec![world.tls()], world.good(COMPOSED - 60));
    let (result, asked) = world.enroll_at(&[early.url()], Duration::from_secs(60));
    let Err(CheckinError::Failed { attempts }) = result else { panic!("{result:?}") };
    let [Attempt { step: Step::Probe, failure: Failure::DateBeforeFloor { date, floor }, .. }] = &attempts[..] else {
        panic!("{attempts:?}")
    };
    assert_eq!(*date, secs(COMPOSED - 60));
    assert!(*floor >= secs(COMPOSED) && asked.is_empty());

    let tls = world.signer.server(&Leaf::server(LOCALHOST, (COMPOSED - YEAR, NOW - 1)), &[&TLS13]);
    let outside = EstServer::start(vec![tls], world.good(NOW));
    match world.fails(&outside) {
        (Step::Probe, Failure::DateOutsideCertificate { date, server }) => {
            assert_eq!((date, server.not_after), (secs(NOW), secs(NOW - 1)));
        }
        other => panic!("{other:?}"),
    }

    let cacerts = base64(&certs_only(&world.cacerts()));
    let body = cacerts.clone();
    let none = EstServer::start(vec![world.tls()], move |_| reply("200 OK", &[], body.as_bytes()));
    assert!(matches!(world.fails(&none), (Step::Probe, Failure::NoDate)));
    let fields = ["Date: yesterday".to_owned()];
    let bad = EstServer::start(vec![world.tls()], move |_| reply("200 OK", &fields, cacerts.as_bytes()));
    let (Step::Probe, Failure::NotADate(text)) = world.fails(&bad) else { panic!("not a date") };
    assert_eq!(text, "yesterday");
}

#[test]
fn redirects_are_not_followed() {
    let world = World::new();
    let elsewhere = "https://elsewhere.example/.well-known/est/cacerts";
    let fields = [date_field(NOW), format!("Location: {elsewhere}")];
    let server = EstServer::start(vec![world.tls()], move |_| reply("302 Found", &fields, b""));
    let (Step::Probe, Failure::Est(error)) = world.fails(&server) else { panic!("a redirect") };
    assert_eq!(error, EstError::Redirect { status: 302, location: Some(elsewhere.to_owned()) });
}

#[test]
fn oversized_answers_and_garbage_are_refused() {
    let world = World::new();
    let huge = reply("200 OK", &[date_field(NOW)], &[b'A'; MAX_BODY + 1]);
    let head = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 20_000]].concat();
    for (answer, want) in [
        (huge, EstError::BodyTooLong),
        (head, EstError::HeadTooLong),
        (b"220 mail.example ESMTP\r\n".to_vec(), EstError::NotHttp("no status line")),
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
    let error = world.enroll_at(&[url], Duration::from_secs(60)).0.unwrap_err().to_string();
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
fn approval_by_an_administrator_is_named() {
    let world = World::new();
    let cacerts = base64(&certs_only(&world.cacerts()));
    let server = EstServer::start(vec![world.tls()], move |request| match request.operation() {
        "cacerts" => reply("200 OK", &[date_field(NOW)], cacerts.as_bytes()),
        _ => b"HTTP/1.1 202 Accepted\r\nRetry-After: 5\r\n\r\n".to_vec(),
    });
    let (Step::Enrol, Failure::Pending(code)) = world.fails(&server) else { panic!("pending") };
    assert_eq!(code, world.identity.code());
}

#[test]
fn a_certificate_for_somebody_elses_key_is_refused() {
    let world = World::new();
    let other = World::new();
    let (signer, leaf, spki) = (Arc::clone(&world.signer), world.leaf(), other.identity.spki().to_vec());
    assert_eq!(
        world.answer_error(move |_| vec![signer.issue(&leaf, &spki)]),
        AnswerError::OtherKey {
            ours: world.identity.code(),
            have: vec![format!("\"CN=node1\" with key {}", KeyCode::of(other.identity.spki()))],
        }
    );
}

#[test]
fn other_names_than_those_asked_for_are_refused() {
    let world = World::new();
    assert_eq!(
        world.leaf_error(|leaf| leaf.cn = "node2".to_owned()),
        AnswerError::Subject { asked: "CN=node1".to_owned(), have: "CN=node2".to_owned() }
    );
    assert_eq!(
        world.leaf_error(|leaf| leaf.names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()))),
        AnswerError::NameAdded {
            name: "ip:192.0.2.1".to_owned(),
            asked: "dns:node1.example dns:n1.example".to_owned()
        }
    );
    assert_eq!(
        world.leaf_error(|leaf| drop(leaf.names.remove(0))),
        AnswerError::NameMissing { name: "dns:n1.example".to_owned(), have: "dns:node1.example".to_owned() }
    );
    assert_eq!(
        world.leaf_error(|leaf| leaf.names.clear()),
        AnswerError::NameMissing { name: "dns:node1.example".to_owned(), have: "none".to_owned() }
    );
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused() {
    let world = World::new();
    assert_eq!(world.leaf_error(|leaf| leaf.ca = true), AnswerError::IsCa);
    assert_eq!(
        world.leaf_error(|leaf| leaf.usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        AnswerError::Purpose("1.3.6.1.5.5.7.3.1".to_owned())
    );
    for validity in [(NOW - DAY, NOW - 1), (NOW + 400, NOW + DAY)] {
        let error = world.leaf_error(|leaf| leaf.validity = validity);
        let AnswerError::Validity { not_before, not_after, .. } = error else { panic!("{error:?}") };
        assert_eq!((not_before, not_after), (secs(validity.0), secs(validity.1)));
    }
}

#[test]
fn usages_that_include_clients_are_fine() {
    let world = World::new();
    for usages in [
        vec![],
        vec![ExtendedKeyUsagePurpose::Any],
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    ] {
        let (signer, leaf) = (Arc::clone(&world.signer), Leaf { usages, ..world.leaf() });
        let answer = world.issuing(NOW, move |spki| vec![signer.issue(&leaf, spki)]);
        let server = EstServer::start(vec![world.tls()], answer);
        world.enroll(&server).unwrap();
    }
}

#[test]
fn a_certificate_from_a_ca_outside_the_chain_is_refused() {
    let world = World::new();
    let stranger = Ca::new("Stranger", GOOD);
    let (chain, leaf) = (stranger.der(), world.leaf());
    let error = world.answer_error(move |spki| vec![stranger.issue(&leaf, spki), chain.clone()]);
    assert_eq!(
        error,
        AnswerError::Chain {
            issuer: "CN=Stranger".to_owned(),
            ca: "CN=Root".to_owned(),
            issuers: (0, 0),
            why: "UnknownIssuer".to_owned()
        }
    );
    // The right name is not enough.
    let forged = Ca::new("Signer", GOOD);
    let leaf = world.leaf();
    let error = world.answer_error(move |spki| vec![forged.issue(&leaf, spki)]);
    assert!(matches!(error, AnswerError::Chain { .. }), "{error:?}");
}

#[test]
fn a_listed_issuer_is_an_anchor_for_the_issued_certificate_only() {
    let mut world = World::new();
    let site = Ca::new("Site Root", GOOD);
    let nodes = Arc::new(site.intermediate("Node CA", GOOD));
    world.issuers = vec![sha256(&nodes.der())];
    let (leaf, signer, cacerts) = (world.leaf(), Arc::clone(&nodes), vec![world.root.der(), nodes.der()]);
    let answer = move |request: &Request| {
        let certificates = match request.operation() {
            "cacerts" => cacerts.clone(),
            _ => vec![signer.issue(&leaf, &spki_of_csr(&request.csr()))],
        };
        reply("200 OK", &[date_field(NOW)], &certs_only(&certificates))
    };
    let server = EstServer::start(vec![world.tls()], answer.clone());
    let issued = world.enroll(&server).unwrap();
    assert_eq!(issued.chain()[1..], [nodes.der()], "not a root, so it belongs to the chain");

    let tls = nodes.server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13]);
    let server = EstServer::start(vec![tls], answer.clone());
    assert_eq!(world.refused(&server), (Step::Probe, Reason::OtherCa));

    world.issuers = vec![sha256(&site.der())];
    let server = EstServer::start(vec![world.tls()], answer);
    match world.fails(&server) {
        (Step::Enrol, Failure::Answer(error)) => {
            assert!(matches!(*error, AnswerError::Chain { issuers: (1, 0), .. }), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_in_every_shape() {
    let world = World::new();
    let (leaf, signer) = (world.leaf(), Arc::clone(&world.signer));
    let chain = move |spki: &[u8]| [signer.issue(&leaf, spki), signer.der()];
    type Shape = fn([Vec<u8>; 2]) -> Vec<u8>;
    let shapes: [(&str, Shape); 8] = [
        ("64 columns", |[leaf, ca]| reply("200 OK", &[], base64(&certs_only(&[leaf, ca])).as_bytes())),
        ("leaf last", |[leaf, ca]| reply("200 OK", &[], base64(&certs_only(&[ca, leaf])).as_bytes())),
        ("leaf twice", |[leaf, _]| reply("200 OK", &[], base64(&certs_only(&[leaf.clone(), leaf])).as_bytes())),
        ("one line", |[leaf, ca]| reply("200 OK", &[], base64(&certs_only(&[leaf, ca])).replace('\n', "").as_bytes())),
        ("CRLF and a stray one", |[leaf, ca]| {
            let encoding = "content-transfer-encoding: base64".to_owned();
            let body = base64(&certs_only(&[leaf, ca])).replace('\n', "\r\n");
            [reply("200 OK", &[encoding], body.as_bytes()), b"\r\n".to_vec()].concat()
        }),
        ("raw DER", |[leaf, ca]| reply("200 OK", &[], &certs_only(&[leaf, ca]))),
        ("without a length", |[leaf, ca]| [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), certs_only(&[leaf, ca])].concat()),
        ("chunked", |[leaf, ca]| {
            let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for chunk in base64(&certs_only(&[leaf, ca])).as_bytes().chunks(100) {
                answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                answer.extend(chunk);
                answer.extend(b"\r\n");
            }
            answer.extend(b"0\r\n\r\n");
            answer
        }),
    ];
    for (name, shape) in shapes {
        let (cacerts, chain) = (base64(&certs_only(&world.cacerts())), chain.clone());
        let server = EstServer::start(vec![world.tls()], move |request| match request.operation() {
            "cacerts" => reply("200 OK", &[date_field(NOW)], cacerts.as_bytes()),
            _ => shape(chain(&spki_of_csr(&request.csr()))),
        });
        let issued = world.enroll(&server).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(issued.chain()[1..], [world.signer.der()], "{name}");
    }
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
    // Bound and closed: nobody listens there now.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stranger = Ca::new("Stranger", GOOD).server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13]);
    let other = EstServer::start(vec![stranger], |_| Vec::new());
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    let urls = [format!("https://{closed}/.well-known/est"), other.url(), server.url()];
    let issued = world.enroll_at(&urls, Duration::from_secs(60)).0.unwrap();
    assert_eq!(issued.server(), format!("{} ({})", server.url(), server.address()));
}

#[test]
fn a_ca_that_has_ended_is_no_anchor() {
    let mut world = World::new();
    let validity = (COMPOSED - YEAR, NOW - 1);
    world.root = Ca::new("Root", validity);
    world.signer = Arc::new(world.root.intermediate("Signer", GOOD));
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    // It was valid when the payload was made, so the probe is taken; webpki would take the rest, too.
    assert_eq!(world.refused(&server), (Step::Enrol, Reason::CaValidity(secs(validity.0), secs(validity.1))));
}

#[test]
fn a_server_that_never_answers_ends_at_the_deadline() {
    let world = World::new();
    // The kernel takes the connection; nobody else does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/.well-known/est", silent.local_addr().unwrap());
    let (result, _) = world.enroll_at(&[url], Duration::from_millis(200));
    let Err(CheckinError::GaveUp { attempts, .. }) = result else { panic!("{result:?}") };
    assert!(matches!(&attempts[..], [Attempt { step: Step::Probe, failure: Failure::TimedOut, .. }]), "{attempts:?}");
}

#[test]
fn a_server_that_is_not_there_is_tried_until_the_deadline() {
    let world = World::new();
    // tcpmux (RFC 1078), which nobody runs.
    let closed = "127.0.0.1:1";
    let (result, _) = world.enroll_at(&[format!("https://{closed}/.well-known/est")], Duration::from_millis(50));
    let error = result.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "gave up after 0 s; fetching CA certificates and time from https://{closed}/.well-known/est ({closed}): no \
             connection; check that the server listens there: Connection refused (os error 111)"
        )
    );
}

#[test]
fn a_deadline_that_has_passed_ends_it() {
    let world = World::new();
    let (result, _) = world.enroll_at(&["https://127.0.0.1:1/.well-known/est".to_owned()], Duration::ZERO);
    assert_eq!(result.unwrap_err().to_string(), "gave up after 0 s, before any server was tried");
}
