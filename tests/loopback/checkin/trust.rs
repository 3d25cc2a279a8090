//! Tests which servers the check-in trusts, and which of their Dates it believes.

use super::*;

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
             application/pkcs7-mime",
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
    let (result, asked) = world.enroll_at(&[server.url()], PATIENCE);
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "fetching CA certificates and time from {} ({}): the server's certificate does not chain to this node's \
             CA, \"CN=Root\" (the server's certificate: CN=est server, for ip:127.0.0.1, from CN=Signer, valid \
             2029-01-01T00:00:00Z to 2039-12-30T00:00:00Z); give the node a payload with this server's CA, or correct \
             its URL",
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
        let (result, asked) = world.enroll_at(&[server.url()], PATIENCE);
        result.unwrap();
        let [Ask::SetClock(clock)] = asked[..] else { panic!("{asked:?}") };
        assert!((secs(now)..secs(now + 60)).contains(&clock), "{clock}");
    }
}

#[test]
fn a_date_after_the_expiry_means_that_the_payload_has_expired() {
    let world = World::new();
    let server = EstServer::start(vec![world.tls()], world.good(EXPIRY + 1));
    let (result, asked) = world.enroll_at(&[server.url()], PATIENCE);
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "the payload expired at 2030-01-02T00:00:00Z, and the time is 2030-01-02T00:00:01Z according to {} ({}); \
             make a new payload with imprint-host payload",
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
    let (result, asked) = world.enroll_at(&[early.url()], PATIENCE);
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
fn a_ca_that_has_ended_is_no_anchor() {
    let mut world = World::new();
    let validity = (COMPOSED - YEAR, NOW - 1);
    world.root = Ca::new("Root", validity);
    world.signer = Arc::new(world.root.intermediate("Signer", GOOD));
    let server = EstServer::start(vec![world.tls()], world.good(NOW));
    // It was valid when the payload was made, so the probe is taken; webpki would take the rest, too.
    assert_eq!(world.refused(&server), (Step::Enrol, Reason::CaValidity(secs(validity.0), secs(validity.1))));
}

/// What an operator reads on the console, to the letter.
#[test]
fn a_server_certificate_that_is_refused_is_described() {
    let world = World::new();
    let text = |configs: Vec<Arc<ServerConfig>>| {
        let server = EstServer::start(configs, world.good(NOW));
        let error = world.enroll(&server).unwrap_err().to_string();
        let (url, address) = (server.url(), server.address().to_string());
        error.replace(&url, "URL").replace(&address, "ADDRESS")
    };
    let at = |validity| world.signer.server(&Leaf::server(LOCALHOST, validity), &[&TLS13]);
    // The seconds that have passed since the Date came: none or one.
    let either = |text: String, want: &dyn Fn(u64) -> String| {
        assert!((0..5).any(|second| text == want(second)), "{text}\n{}", want(0));
    };
    either(text(vec![at(GOOD), at((COMPOSED, NOW - 60))]), &|second| {
        format!(
            "asking for a certificate at URL (ADDRESS): the server's certificate expired at 2030-01-01T00:59:00Z, and \
             the time is 2030-01-01T01:00:0{second}Z (the server's certificate: CN=est server, for ip:127.0.0.1, from \
             CN=Signer, valid 2030-01-01T00:00:00Z to 2030-01-01T00:59:00Z); renew the server's certificate"
        )
    });
    either(text(vec![at(GOOD), at((NOW + 600, NOW + DAY))]), &|second| {
        format!(
            "asking for a certificate at URL (ADDRESS): the server's certificate begins at 2030-01-01T01:10:00Z, and \
             the time is 2030-01-01T01:00:0{second}Z (the server's certificate: CN=est server, for ip:127.0.0.1, from \
             CN=Signer, valid 2030-01-01T01:10:00Z to 2030-01-02T01:00:00Z); renew the server's certificate"
        )
    });
    let mut leaf = Leaf::server(LOCALHOST, GOOD);
    leaf.names = vec![SanType::DnsName("est.example".try_into().unwrap())];
    assert_eq!(
        text(vec![world.signer.server(&leaf, &[&TLS13])]),
        "fetching CA certificates and time from URL (ADDRESS): the server's certificate is not for 127.0.0.1, the name \
         in the URL (the server's certificate: CN=est server, for dns:est.example, from CN=Signer, valid \
         2029-01-01T00:00:00Z to 2039-12-30T00:00:00Z); correct the URL, or give the server a certificate for that \
         name"
    );
}

/// The clock of the host that made the payload may be fast; `plan` allows for that, and the check-in goes by it.
#[test]
fn a_clock_is_set_once_it_is_confirmed_and_never_before() {
    let world = World::new();
    // What certifies the server's certificate is over: its Date is not confirmed.
    let signer = world.root.intermediate("Signer", (COMPOSED, NOW - 1));
    let over = signer.server(&Leaf::server(LOCALHOST, GOOD), &[&TLS13]);
    let server = EstServer::start(vec![over], world.good(NOW));
    let (result, asked) = world.enroll_at(&[server.url()], PATIENCE);
    assert!(matches!(result, Err(CheckinError::Failed { .. })) && asked.is_empty(), "{result:?} {asked:?}");
    // Confirmed before a CSR is sent: what comes of that is another matter.
    let cacerts = base64(&certs_only(&world.cacerts()));
    let server = EstServer::start(vec![world.tls()], move |request| match request.operation() {
        "cacerts" => reply("200 OK", &[date_field(NOW)], cacerts.as_bytes()),
        _ => reply("403 Forbidden", &[], b""),
    });
    let (result, asked) = world.enroll_at(&[server.url()], PATIENCE);
    assert!(matches!(result, Err(CheckinError::Failed { .. })));
    assert!(matches!(asked[..], [Ask::SetClock(_)]), "{asked:?}");
}

/// By name: it is looked up, what it stands for is tried in turn, and the certificate has to be for the name.
#[test]
fn a_server_with_a_name() {
    let world = World::new();
    let mut leaf = Leaf::server(LOCALHOST, GOOD);
    leaf.names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    let server = EstServer::start(vec![world.signer.server(&leaf, &[&TLS13])], world.good(NOW));
    let url = format!("https://localhost:{}/.well-known/est", server.address().port());
    let issued = world.enroll_at(std::slice::from_ref(&url), PATIENCE).0.unwrap();
    assert_eq!(issued.server(), format!("{url} ({})", server.address()));
    assert!(server.requests().iter().all(|request| request.head.contains("\r\nHost: localhost:")));
}
