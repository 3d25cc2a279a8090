//! Tests which issued certificates the check-in accepts, and in which messages.

use super::*;

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
            why: "the certificate of its issuer is missing"
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
