//! Tests of using one connection for the probe and for secrets: when it is kept, and that no secret goes over it before the
//! server was verified at the time of its own Date.

use imprint::payload::UrlHost;
use imprint::time::Clock;
use imprint::tls;
use imprint_tests::est_server::Ending;
use std::net::TcpStream;

use super::*;

/// Both ways that a CSR may go: over the connection of the probe, or over another one, since the server closes the first.
const ROADS: [Ending; 2] = [Ending::Keep, Ending::Notify];

/// Operation and connection of each request.
fn course(server: &EstServer) -> Vec<(String, usize)> {
    server.requests().iter().map(|request| (request.operation().to_owned(), request.connection)).collect()
}

fn on(operations: &[(&str, usize)]) -> Vec<(String, usize)> {
    operations.iter().map(|(operation, connection)| ((*operation).to_owned(), *connection)).collect()
}

/// Whether a token or a CSR came to the server.
fn secret_came(server: &EstServer) -> bool {
    server.requests().iter().any(|request| !request.body.is_empty() || request.head.contains("Authorization"))
}

fn run(world: &World, server: &EstServer) -> Run {
    world.run(&world.server_plan(&[server.url()]), PATIENCE, None, &mut |_| Reply::NothingMore)
}

#[test]
fn a_server_that_keeps_the_connection_gets_everything_over_it() {
    for version in [&TLS13, &TLS12] {
        let world = World::new();
        let tls = world.signer.server(&Leaf::server(LOCALHOST, GOOD), &[version]);
        let server = EstServer::ending(vec![tls], Ending::Keep, world.good(NOW));
        let run = run(&world, &server);
        assert_eq!(run.result.unwrap().chain()[1], world.signer.der());
        assert_eq!(course(&server), on(&[("cacerts", 0), ("simpleenroll", 0)]));
        assert!(matches!(run.asked[..], [Ask::SetClock(_)]), "{:?}", run.asked);
    }
}

/// A server's certificate, and what is wrong with it at one time, which the probe cannot see.
struct Attack {
    what: &'static str,
    /// Validities of the server's certificate, of the one between, and of the CA.
    leaf: (u64, u64),
    signer: (u64, u64),
    root: (u64, u64),
    /// The server's Date at which the certificate is good, so that the token goes out.
    premise: u64,
    /// The one at which it must not. `None`: there is none, and the node's own clock is right.
    date: Option<u64>,
    reason: fn(&Reason) -> bool,
}

/// The node's clock says what the machine's clock says.
fn attacks(now: u64) -> Vec<Attack> {
    let good = (now - YEAR, now + YEAR);
    // The payload was made half an hour ago, so this lies within its life.
    let over = (now - YEAR, now - 900);
    let [before, after] = [now - 1200, now];
    let intermediate = |reason: &Reason| *reason == Reason::IntermediateValidity;
    vec![
        Attack {
            what: "an old key, whose certificate has expired, of a server that does not say what time it is",
            leaf: over,
            signer: good,
            root: good,
            premise: before,
            date: None,
            reason: |reason| matches!(reason, Reason::NotNow(_)),
        },
        Attack {
            what: "a key that an intermediate has certified which has expired, with the right time",
            leaf: good,
            signer: over,
            root: good,
            premise: before,
            date: Some(after),
            reason: intermediate,
        },
        Attack {
            what: "the same with a Date that is a lie, hours later",
            leaf: good,
            signer: over,
            root: good,
            premise: before,
            date: Some(now + 7200),
            reason: intermediate,
        },
        Attack {
            what: "an intermediate that is not valid yet, with a Date that is a lie, earlier",
            leaf: good,
            signer: (now - 600, now + YEAR),
            root: good,
            premise: after,
            date: Some(now - 1500),
            reason: intermediate,
        },
        Attack {
            what: "a CA that has ended",
            leaf: good,
            signer: good,
            root: over,
            premise: before,
            date: Some(after),
            reason: |reason| matches!(reason, Reason::CaValidity(..)),
        },
    ]
}

/// The probe takes each of these servers, and each of them gets the token at the time at which its certificate is good:
/// nothing but the strict verification keeps it back at another one.
#[test]
fn no_secret_goes_out_before_the_strict_verification_on_either_road() {
    let now = Timestamp::system().as_secs();
    for attack in attacks(now) {
        for road in ROADS {
            let mut world = World::new();
            (world.composed, world.quality) = (now - 1800, ClockQuality::Rtc);
            world.root = Ca::new("Root", attack.root);
            world.signer = Arc::new(world.root.intermediate("Signer", attack.signer));
            let serve = |date: Option<u64>| {
                let tls = world.signer.server(&Leaf::server(LOCALHOST, attack.leaf), &[&TLS13]);
                let cacerts = base64(&certs_only(&world.cacerts()));
                EstServer::ending(vec![tls], road, move |request| match request.operation() {
                    "cacerts" => {
                        reply("200 OK", &date.map(date_field).into_iter().collect::<Vec<_>>(), cacerts.as_bytes())
                    }
                    _ => reply("403 Forbidden", &[], b"no\n"),
                })
            };
            let case = format!("{}, {road:?}", attack.what);
            // The premise.
            let server = serve(Some(attack.premise));
            world.fails(&server);
            assert!(secret_came(&server), "{case}: the token does not go out anyway");
            // The defence.
            let server = serve(attack.date);
            let run = run(&world, &server);
            let attempts = match run.result {
                Err(CheckinError::Failed { attempts }) => attempts,
                other => panic!("{case}: {other:?}"),
            };
            let [
                Attempt {
                    step: Step::Enrol, failure: Failure::Https(HttpsError::Tls(TlsError::Refused(refused))), ..
                },
            ] = &attempts[..]
            else {
                panic!("{case}: {attempts:?}");
            };
            assert!((attack.reason)(&refused.reason), "{case}: {:?}", refused.reason);
            assert!(!secret_came(&server), "{case}: a secret came to the server");
            assert_eq!(course(&server), on(&[("cacerts", 0)]), "{case}");
            assert!(run.asked.is_empty(), "{case}: the clock was set: {:?}", run.asked);
        }
    }
}

/// What a kept connection is held to is what a new one is held to, whatever the validities and the time are.
#[test]
fn a_connection_is_confirmed_exactly_when_a_new_one_would_be_made() {
    let world = World::new();
    let host = UrlHost::Ip(LOCALHOST);
    let ends = [NOW - 7200, NOW - 600, NOW + 240, NOW + 600, NOW + YEAR];
    let validities: Vec<(u64, u64)> =
        ends.iter().flat_map(|from| ends.iter().filter(move |to| *to > from).map(move |to| (*from, *to))).collect();
    let mut seen = [0; 2];
    for leaf in &validities {
        for signer in [GOOD, (NOW - 600, NOW + YEAR), (NOW - YEAR, NOW + 120)] {
            let signer = world.root.intermediate("Signer", signer);
            let tls = signer.server(&Leaf::server(LOCALHOST, *leaf), &[&TLS13]);
            let server = EstServer::start(vec![tls], |_| Vec::new());
            let ca = CaCertificate::new(world.root.der()).unwrap();
            let connected = || TcpStream::connect(server.address()).unwrap();
            for time in [NOW - 3600, NOW - 1, NOW, NOW + 300, NOW + 900] {
                let life = (secs(NOW - DAY), secs(NOW + DAY));
                let Ok(tentative) = tls::probe(connected(), &host, &ca, life) else { continue };
                let kept = tentative.confirm(Clock::starting_at(secs(time))).map(drop);
                let new = tls::connect(connected(), &host, &ca, Clock::starting_at(secs(time)), None).map(drop);
                let same = match (&kept, &new) {
                    (Ok(()), Ok(())) => true,
                    (Err(kept), Err(TlsError::Refused(new))) => {
                        std::mem::discriminant(&kept.reason) == std::mem::discriminant(&new.reason)
                    }
                    _ => false,
                };
                assert!(same, "{leaf:?} at {time}: {kept:?}, {new:?}");
                seen[usize::from(kept.is_ok())] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
}

#[test]
fn a_new_connection_is_made_where_the_server_closes_the_first() {
    let world = World::new();
    let closing = |field: &'static str, version: &'static str| {
        let good = world.good(NOW);
        move |request: &Request| {
            let answer = String::from_utf8(good(request)).unwrap();
            answer
                .replacen("Content-Length", &format!("{field}Content-Length"), 1)
                .replacen("HTTP/1.1", version, 1)
                .into_bytes()
        }
    };
    let both = on(&[("cacerts", 0), ("simpleenroll", 1)]);
    for (ending, field, version) in [
        (Ending::Notify, "", "HTTP/1.1"),
        (Ending::Abrupt, "", "HTTP/1.1"),
        (Ending::Keep, "Connection: close\r\n", "HTTP/1.1"),
        (Ending::Open, "Connection: close\r\n", "HTTP/1.1"),
        (Ending::Open, "", "HTTP/1.0"),
    ] {
        let server = EstServer::ending(vec![world.tls()], ending, closing(field, version));
        let run = run(&world, &server);
        run.result.unwrap();
        assert_eq!(course(&server), both, "{ending:?} {field:?} {version}");
        assert!(server.unanswered().is_empty(), "{ending:?} {field:?} {version}");
        // At once, not after a wait.
        assert_eq!(run.told.len(), 1, "{:?}", run.told);
    }
}

/// A server, or a proxy before it, that keeps the socket open and answers one request on it, whatever its answer says.
#[test]
fn a_server_that_never_answers_a_second_request_is_asked_over_a_new_connection() {
    let world = World::new();
    for field in [None, Some("Connection: keep-alive".to_owned())] {
        let good = world.good(NOW);
        let cacerts = base64(&certs_only(&world.cacerts()));
        let server = EstServer::ending(vec![world.tls()], Ending::Open, move |request| match request.operation() {
            "cacerts" => {
                let fields: Vec<String> = field.clone().into_iter().chain([date_field(NOW)]).collect();
                reply("200 OK", &fields, cacerts.as_bytes())
            }
            // The first CSR that is answered is refused for its line breaks, the second for a while.
            _ if request.connection == 1 => reply("400 Bad Request", &[], b""),
            _ if request.connection == 2 => reply("503 Service Unavailable", &["Retry-After: 1".to_owned()], b""),
            _ => good(request),
        });
        let run = run(&world, &server);
        run.result.unwrap();
        // If there were one more connection than answers, the node would have waited for silence a second time.
        let visits = [("cacerts", 0), ("simpleenroll", 1), ("simpleenroll", 2), ("cacerts", 3), ("simpleenroll", 4)];
        assert_eq!(course(&server), on(&visits));
        let (answered, unanswered) = (server.requests(), server.unanswered());
        let [swallowed] = &unanswered[..] else { panic!("{unanswered:?}") };
        assert_eq!((swallowed.operation(), swallowed.connection), ("simpleenroll", 0));
        assert_eq!((&swallowed.head, &swallowed.body), (&answered[1].head, &answered[1].body), "the same key and CSR");
    }
}

/// The attack: another server answers the new connection that follows silence. The node verifies that connection like
/// any other, and sends no secret.
#[test]
fn silence_brings_no_secret_to_a_server_that_is_not_verified() {
    let world = World::new();
    let stranger = Ca::new("Stranger", GOOD).server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13]);
    let expired = world.signer.server(&Leaf::server(LOCALHOST, (NOW - YEAR, NOW - 900)), &[&TLS13]);
    for second in [stranger, expired] {
        let server = EstServer::ending(vec![world.tls(), second], Ending::Open, world.good(NOW));
        let (step, failure) = world.fails(&server);
        assert!(
            matches!((step, &failure), (Step::Enrol, Failure::Https(HttpsError::Tls(TlsError::Refused(_))))),
            "{failure:?}"
        );
        assert_eq!(course(&server), on(&[("cacerts", 0)]));
        let unanswered = server.unanswered();
        assert!(matches!(&unanswered[..], [Request { connection: 0, .. }]), "{unanswered:?}");
    }
}

/// Some servers close a connection while a request is under way to them. It was not answered, so it goes out again.
#[test]
fn a_request_that_was_surely_not_answered_goes_out_again_once() {
    let world = World::new();
    let server_that_drops = |which: fn(usize) -> bool| {
        let good = world.good(NOW);
        EstServer::ending(vec![world.tls()], Ending::Keep, move |request| {
            if request.operation() == "simpleenroll" && which(request.connection) { Vec::new() } else { good(request) }
        })
    };
    let server = server_that_drops(|connection| connection == 0);
    let first = run(&world, &server);
    first.result.unwrap();
    let requests = server.requests();
    assert_eq!(course(&server), on(&[("cacerts", 0), ("simpleenroll", 0), ("simpleenroll", 1)]));
    assert_eq!((&requests[1].head, &requests[1].body), (&requests[2].head, &requests[2].body), "the same key and CSR");
    assert_eq!(first.told.len(), 1, "{:?}", first.told);
    // A new connection that ends so is a failure like any other: there is a wait, and a visit from the beginning.
    let server = server_that_drops(|connection| connection <= 1);
    let second = run(&world, &server);
    second.result.unwrap();
    // The server has shown that a second request does not get through, so the next visit does not try it.
    let visits = [("cacerts", 0), ("simpleenroll", 0), ("simpleenroll", 1), ("cacerts", 2), ("simpleenroll", 3)];
    assert_eq!(course(&server), on(&visits));
    assert!(
        second.told.iter().any(|line| line.contains("closed without an answer; trying again")),
        "{:?}",
        second.told
    );
}

#[test]
fn a_request_that_was_answered_by_half_does_not_go_out_again_at_once() {
    let world = World::new();
    let good = world.good(NOW);
    let server = EstServer::ending(vec![world.tls()], Ending::Keep, move |request| {
        match (request.operation(), request.connection) {
            ("simpleenroll", 0) => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\nhalf".to_vec(),
            _ => good(request),
        }
    });
    let run = run(&world, &server);
    run.result.unwrap();
    let visits = [("cacerts", 0), ("simpleenroll", 0), ("cacerts", 1), ("simpleenroll", 1)];
    assert_eq!(course(&server), on(&visits));
    assert!(run.told.iter().any(|line| line.contains("the answer ended after 4 of 100 bytes")), "{:?}", run.told);
}

/// An answer to a question that was not asked yet: behind the answer to the probe stands one with a certificate for the
/// node's key, which would be taken for the answer to its CSR.
#[test]
fn what_comes_behind_the_first_answer_is_never_the_second_one() {
    let world = World::new();
    let forged = || {
        let certificate = world.signer.issue(&world.leaf(), world.identity.spki());
        reply("200 OK", &[date_field(NOW)], base64(&certs_only(&[certificate])).as_bytes())
    };
    let with = |behind: Vec<u8>| {
        let (good, taken) = (world.good(NOW), forged());
        EstServer::ending(vec![world.tls()], Ending::Keep, move |request| match request.operation() {
            "cacerts" => [good(request), behind.clone()].concat(),
            _ => taken.clone(),
        })
    };
    // The premise: as an answer to the CSR it is taken. And a stray CRLF is none.
    for nothing in [&b""[..], b"\r\n", b"\r\n\r\n"] {
        let server = with(nothing.to_vec());
        world.enroll(&server).unwrap();
        assert_eq!(course(&server), on(&[("cacerts", 0), ("simpleenroll", 0)]));
    }
    // Some proxies announce so that they close an idle connection.
    let idle = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec();
    for behind in [forged(), idle, b"\r\nx".to_vec(), [0; 5000].to_vec()] {
        let server = with(behind);
        world.enroll(&server).unwrap();
        assert_eq!(course(&server), on(&[("cacerts", 0), ("simpleenroll", 1)]), "the answer is that to the CSR");
    }
}

/// The announcement crosses the request on its way.
#[test]
fn a_server_that_says_it_gave_an_idle_connection_up_is_asked_once_more() {
    let world = World::new();
    let server_that_says_so = |which: fn(usize) -> bool| {
        let good = world.good(NOW);
        EstServer::ending(vec![world.tls()], Ending::Keep, move |request| {
            if request.operation() == "simpleenroll" && which(request.connection) {
                return reply("408 Request Timeout", &["Connection: close".to_owned()], b"");
            }
            good(request)
        })
    };
    let server = server_that_says_so(|connection| connection == 0);
    world.enroll(&server).unwrap();
    assert_eq!(course(&server), on(&[("cacerts", 0), ("simpleenroll", 0), ("simpleenroll", 1)]));
    // On a new connection 408 is the server's answer, like any other.
    let server = server_that_says_so(|_| true);
    let (step, failure) = world.fails(&server);
    assert!(
        matches!((step, &failure), (Step::Enrol, Failure::Est(EstError::Refused { status: 408, .. }))),
        "{failure:?}"
    );
    assert_eq!(course(&server), on(&[("cacerts", 0), ("simpleenroll", 0), ("simpleenroll", 1)]));
}

#[test]
fn a_renewal_shows_its_certificate_on_a_connection_of_its_own() {
    let world = World::new();
    let server = EstServer::ending(vec![world.tls()], Ending::Keep, world.good(NOW));
    world.renew(&server, PATIENCE).unwrap();
    assert_eq!(course(&server), on(&[("cacerts", 0), ("simplereenroll", 1)]));
}

#[test]
fn whoever_waits_for_an_approval_comes_back_over_one_connection_each_time() {
    let world = World::new();
    let good = world.good(NOW);
    let server = EstServer::ending(vec![world.tls()], Ending::Keep, move |request| {
        match (request.operation(), request.connection) {
            ("simpleenroll", 0 | 1) => reply("202 Accepted", &["Retry-After: 1".to_owned()], b""),
            _ => good(request),
        }
    });
    world.enroll(&server).unwrap();
    assert_eq!(course(&server), on(&[("cacerts", 0), ("simpleenroll", 0), ("simpleenroll", 1), ("simpleenroll", 2)]));
}

/// The server has said with its first answer what it wants.
#[test]
fn certificates_that_want_credentials_are_asked_for_with_them_over_the_same_connection() {
    let world = World::new();
    let good = world.good(NOW);
    let server = EstServer::ending(vec![world.tls()], Ending::Keep, move |request| {
        if request.head.contains("\r\nAuthorization: Basic ") {
            return good(request);
        }
        reply("401 Unauthorized", &[date_field(NOW), "WWW-Authenticate: Basic realm=\"est\"".to_owned()], b"")
    });
    let run = run(&world, &server);
    run.result.unwrap();
    assert_eq!(course(&server), on(&[("cacerts", 0), ("cacerts", 0), ("simpleenroll", 0)]));
    assert!(!server.requests()[0].head.contains("Authorization"), "nobody knows who that is by then");
    assert!(matches!(run.asked[..], [Ask::SetClock(_)]), "{:?}", run.asked);
}

/// As `imprint-host serve` sees it. Where the client's last message of the handshake and its first request are on their way apart,
/// the server's tickets may come between them and look like an answer. So the least of a few check-ins counts.
#[test]
fn a_check_in_is_one_handshake_and_four_round_trips() {
    let counted: Vec<Vec<usize>> = (0..5).map(|_| round_trips_of_a_check_in()).collect();
    // TCP; TLS 1.3; GET cacerts; POST simpleenroll.
    assert!(counted.iter().all(|connections| connections.len() == 1), "{counted:?}");
    assert_eq!(counted.iter().flatten().min(), Some(&4), "{counted:?}");
}

fn round_trips_of_a_check_in() -> Vec<usize> {
    let dir = tempfile::tempdir().unwrap();
    let way = imprint_tests::flights::Way::new();
    let url = format!("https://{}/.well-known/est", way.address());
    let base = EstUrl::try_from(url.as_str()).unwrap();
    let mut state = imprint_host::state::State::init(dir.path(), &[base], Timestamp::system()).unwrap();
    let record = "name = \"node1\"\nsubject = [\"CN=node1\"]\n".to_owned();
    state.add_nodes(&[("node1.toml".to_owned(), record)], false, Timestamp::system()).unwrap();
    let made = state.payload("node1", &imprint_host::compose::Options::default(), Timestamp::system()).unwrap();
    let file = dir.path().join("node1.cbor");
    std::fs::write(&file, &*made.bytes).unwrap();
    let config = imprint_host::serve::Config {
        dir: dir.path().to_owned(),
        listen: (LOCALHOST, 0).into(),
        metrics: None,
        doors: Vec::new(),
        layout: imprint_host::est::Layout::Wrapped,
        tell: Default::default(),
        clock: Arc::new(Timestamp::system),
    };
    let server = imprint_host::serve::Server::start(config).unwrap();
    way.leads_to(server.local_addr());
    let root = std::path::Path::new("/");
    imprint::run::enroll(root, &file, &dir.path().join("out"), PATIENCE, None).unwrap();
    way.round_trips()
}
