//! Tests of challenges, of what is signed for them, and of proofs, with nothing between the two ends.

use super::*;
use crate::line::frame::Challenge;
use crate::line::seal::{is_time_proof, time_proof};

const SECOND: u64 = 1_000_000;

fn node(fresh: bool, far: bool) -> Node {
    let hello = Hello { fresh, ..super::node(true).hello().clone() };
    Node::new(hello, true, Shape::default()).challenging([9; 32], far)
}

fn host() -> Host {
    Host::new(Nonce([3; 8]), false, Shape::default())
}

/// Carries every frame between the ends at `now`; returns those of the node and of the host.
fn carry(node: &mut Node, host: &mut Host, now: u64) -> (Vec<Frame>, Vec<Frame>) {
    let (mut said, mut told) = (Vec::new(), Vec::new());
    loop {
        let (up, down) = (node.packet(now, 0), host.packet(now, 0));
        if up.is_none() && down.is_none() {
            return (said, told);
        }
        said.extend(up.iter().map(|packet| packet.frame.clone()));
        told.extend(down.iter().map(|packet| packet.frame.clone()));
        up.into_iter().for_each(|packet| host.receive(packet, now));
        down.into_iter().for_each(|packet| node.receive(packet, now));
    }
}

fn objects(node: &mut Node) -> Vec<(Kind, u64)> {
    let object = |event| match event {
        NodeEvent::Object { kind, announced, .. } => Some((kind, announced)),
        _ => None,
    };
    events(node).into_iter().filter_map(object).collect()
}

#[test]
fn a_challenge_stands_right_behind_ready_as_long_as_a_payload_is_wanted() {
    let (mut node, mut host) = (node(true, false), host());
    let (said, _) = carry(&mut node, &mut host, 0);
    let [Frame::Hello(hello), Frame::Ready(Stage::Payload), Frame::Challenge(first)] = &said[..] else {
        panic!("{said:?}")
    };
    assert!(hello.fresh && host.challenge() == Some((*first, 0)));
    assert!(matches!(&events(&mut host)[..], [HostEvent::Hello(_), HostEvent::Opened(..), HostEvent::Challenged]));
    // Asked again at once, it is the same; later it is another.
    for (now, same) in [(SECOND, true), (3 * SECOND, false)] {
        host.renew();
        let (said, _) = carry(&mut node, &mut host, now);
        let [Frame::Ready(Stage::Payload), Frame::Challenge(again)] = &said[..] else { panic!("{said:?}") };
        assert_eq!(again == first, same);
        assert_eq!(events(&mut host) == [HostEvent::Challenged], !same);
    }
    // By itself when it has become old, and not again at once.
    for (now, count) in [(32 * SECOND, 0), (34 * SECOND, 1), (35 * SECOND, 0)] {
        assert_eq!(carry(&mut node, &mut host, now).0.len(), count, "{now}");
    }
    // Not behind any other READY, and not by itself once there is a payload.
    node.set_stage(Stage::Busy);
    assert_eq!(carry(&mut node, &mut host, 99 * SECOND).0, [Frame::Ready(Stage::Busy)]);
}

/// A host of before knows nothing of challenges: to it nothing has changed.
#[test]
fn without_a_signer_a_node_sends_none() {
    let (mut node, mut host) = (node(false, false), host());
    let (said, _) = carry(&mut node, &mut host, 0);
    assert!(matches!(&said[..], [Frame::Hello(_), Frame::Ready(Stage::Payload)]), "{said:?}");
    events(&mut host);
    host.send(Kind::Fresh, vec![7; 80]);
    carry(&mut node, &mut host, 0);
    assert_eq!(events(&mut host), [HostEvent::Refused(Kind::Fresh, NotTaken::Unwanted)]);
    host.send(Kind::Sealed, vec![7; 80]);
    carry(&mut node, &mut host, 0);
    assert_eq!(objects(&mut node), [(Kind::Sealed, 0)]);
}

/// Somebody in the network answers first, with a payload of an earlier time that he has seen, or with one of his own.
#[test]
fn on_a_far_line_nothing_is_taken_that_was_not_signed_for_a_challenge() {
    for (far, kind) in [(false, Kind::Sealed), (false, Kind::Plain), (true, Kind::Sealed), (true, Kind::Plain)] {
        let (mut node, mut host) = (node(true, far), host());
        carry(&mut node, &mut host, 0);
        events(&mut host);
        host.send(kind, vec![7; 80]);
        carry(&mut node, &mut host, 0);
        if far {
            assert_eq!(events(&mut host), [HostEvent::Refused(kind, NotTaken::NotSealed)]);
            assert!(objects(&mut node).is_empty());
            host.send(Kind::Fresh, vec![7; 80]);
            carry(&mut node, &mut host, SECOND);
            assert_eq!(objects(&mut node), [(Kind::Fresh, SECOND)]);
        } else {
            // Premise: it is the line that makes the difference.
            assert_eq!(objects(&mut node), [(kind, 0)]);
        }
    }
}

/// The same outside any conversation, which needs no answer of the node.
#[test]
fn on_a_far_line_nothing_is_taken_from_a_host_that_cannot_hear() {
    for far in [false, true] {
        let mut node = node(true, far);
        let bytes = b"payload".to_vec();
        let (digest, length) = (sha256(&bytes), u32::try_from(bytes.len()).unwrap());
        let announce = Announce { number: 0, kind: Kind::Plain, chunk: 192, length, digest };
        for frame in [Frame::Announce(announce), Frame::Data { number: 0, index: 0, bytes }] {
            node.receive(Packet { from: Side::Host, session: None, frame }, 0);
        }
        assert_eq!(objects(&mut node).len(), usize::from(!far));
    }
}

/// An approval may take days: the node waits, and then takes its payload in the same conversation.
#[test]
fn a_door_says_that_an_administrator_has_to_admit_the_node() {
    for far in [false, true] {
        let (mut node, mut host) = (node(true, far), host());
        carry(&mut node, &mut host, 0);
        events(&mut host);
        host.send(Kind::Pending, b"compare the code".to_vec());
        carry(&mut node, &mut host, 0);
        if !far {
            assert_eq!(events(&mut host), [HostEvent::Refused(Kind::Pending, NotTaken::Unwanted)]);
            continue;
        }
        assert_eq!((objects(&mut node), node.stage()), (vec![(Kind::Pending, 0)], Stage::Payload));
        assert_eq!((node.timer(), host.timer()), (Timer::Watch(Patience::Long), Timer::Keepalive(Patience::Long)));
        // Two days later. An answer to the question for another challenge is not waited for in the same way.
        let now = 172_800 * SECOND;
        host.renew();
        assert_eq!(host.timer(), Timer::Keepalive(Patience::Short));
        carry(&mut node, &mut host, now);
        let (challenge, heard) = host.challenge().unwrap();
        assert_eq!((heard, node.made(&challenge)), (now, Some(now)));
        host.send(Kind::Fresh, vec![7; 80]);
        carry(&mut node, &mut host, now);
        assert_eq!(objects(&mut node), [(Kind::Fresh, now)]);
    }
}

/// A door that serves another site, or a forged one. The node leaves, and the same conversation does not lead back.
#[test]
fn a_door_that_refuses_is_left() {
    let (mut node, mut host) = (node(true, true), host());
    carry(&mut node, &mut host, 0);
    host.send(Kind::Refused, b"no such node".to_vec());
    carry(&mut node, &mut host, 0);
    assert_eq!((objects(&mut node), node.stage()), (vec![(Kind::Refused, 0)], Stage::Payload));
    node.part();
    assert!(node.session().is_none() && node.timer() == Timer::Call);
    host.renew();
    carry(&mut node, &mut host, 0);
    assert!(node.session().is_none());
    // Another door is heard.
    let mut other = Host::new(Nonce([77; 8]), false, Shape::default());
    node.fire();
    carry(&mut node, &mut other, 0);
    assert_eq!(other.stage(), Some(Stage::Payload));
}

/// The signature was made before the digest in the announcement, however long the pieces take after that.
#[test]
fn the_announcement_tells_how_old_the_challenge_was() {
    let (mut node, mut host) = (node(true, true), host());
    carry(&mut node, &mut host, 0);
    let (challenge, _) = host.challenge().unwrap();
    host.send(Kind::Fresh, vec![7; 500]);
    let announce = host.packet(0, 0).unwrap();
    node.receive(announce.clone(), 5 * SECOND);
    // Said again, and asked for another challenge meanwhile: neither changes what the object answers.
    node.receive(announce, 50 * SECOND);
    let open = Frame::Open { version: VERSION, session: host.session().unwrap() };
    node.receive(Packet { from: Side::Host, session: None, frame: open }, 55 * SECOND);
    carry(&mut node, &mut host, 300 * SECOND);
    assert_eq!(objects(&mut node), [(Kind::Fresh, 5 * SECOND)]);
    assert_eq!((node.made(&challenge), host.challenge()), (Some(0), Some((challenge, 0))));
    assert_eq!(node.made(&Challenge([0; 16])), None);
}

fn asks(node: &mut Node, key: Option<&TimeKey>) {
    node.set_stage(Stage::Busy);
    key.into_iter().for_each(|key| node.believe(key.clone()));
    node.ask_time();
}

fn time(node: &mut Node) -> Option<u64> {
    events(node).into_iter().find_map(|event| match event {
        NodeEvent::Time { received, .. } => Some(received),
        _ => None,
    })
}

/// Somebody in the network answers first, with another time.
#[test]
fn on_a_far_line_only_a_host_with_the_payload_tells_the_time() {
    let (key, other) = (TimeKey::of(b"token"), TimeKey::of(b"guess"));
    for (far, believes, proves, told) in [
        (false, None, None, true),
        (false, Some(&key), None, false),
        (false, Some(&key), Some(&key), true),
        (true, None, None, false),
        (true, Some(&key), None, false),
        (true, Some(&key), Some(&other), false),
        (true, Some(&key), Some(&key), true),
        (true, None, Some(&key), false),
    ] {
        let (mut node, mut host) = (node(true, far), host());
        carry(&mut node, &mut host, 0);
        proves.into_iter().for_each(|key| host.prove_time(key.clone()));
        asks(&mut node, believes);
        let (_, answers) = carry(&mut node, &mut host, 7);
        assert_eq!(matches!(answers[..], [Frame::ProvenTime { .. }]), proves.is_some(), "{answers:?}");
        assert_eq!(time(&mut node), told.then_some(7), "{far} {believes:?} {proves:?}");
        // What was ignored has not answered the question: the right answer still counts.
        if !told && believes.is_some() {
            host.prove_time(key.clone());
            node.fire();
            carry(&mut node, &mut host, 8);
            assert_eq!(time(&mut node), Some(8));
        }
    }
}

/// A host that cannot prove the time was asked again and again until the end of the run, and each question kept the line busy. Once
/// the node goes on without the time, nothing is asked, in no conversation, and a late answer does not count.
#[test]
fn a_host_that_does_not_prove_the_time_is_asked_no_more() {
    let key = TimeKey::of(b"token");
    let (mut node, mut host) = (node(true, true), host());
    carry(&mut node, &mut host, 0);
    asks(&mut node, Some(&key));
    for round in 1..5 {
        let (said, _) = carry(&mut node, &mut host, round);
        assert_eq!(said.iter().filter(|frame| matches!(frame, Frame::Ask { .. })).count(), 1, "{said:?}");
        assert!(node.timer() == Timer::Retransmit && time(&mut node).is_none());
        node.fire();
    }
    // The question is on its way, and another is about to be sent.
    let Some(Packet { frame: Frame::Ask { number }, .. }) = node.packet(9, 0) else { panic!("no question") };
    node.ask_time();
    node.ask_no_more();
    assert_ne!(node.timer(), Timer::Retransmit);
    let session = node.session().unwrap();
    let tag = time_proof(&key, node.hello(), session, (number, 1, 0));
    let late = Frame::ProvenTime { number, received: 1, held: 0, tag };
    node.receive(Packet { from: Side::Host, session: Some(session), frame: late }, 10);
    assert_eq!(time(&mut node), None);
    for next in 4..7 {
        node.fire();
        let (said, _) = carry(&mut node, &mut Host::new(Nonce([next; 8]), false, Shape::default()), 20);
        assert!(!said.iter().any(|frame| matches!(frame, Frame::Ask { .. })), "{said:?}");
    }
    // It may be asked again.
    node.ask_time();
    assert!(carry(&mut node, &mut host, 30).0.iter().any(|frame| matches!(frame, Frame::Ask { .. })));
}

/// Yesterday's proof, or that of another question, of another node, of another time.
#[test]
fn a_proof_of_the_time_is_good_for_one_answer() {
    let key = TimeKey::of(b"token");
    let hello = node(true, true).hello().clone();
    let session = Session { node: hello.nonce, host: Nonce([3; 8]) };
    let tag = time_proof(&key, &hello, session, (1, 2, 3));
    assert!(is_time_proof(&tag, &TimeKey::of_hash(sha256(b"token")), &hello, session, (1, 2, 3)));
    let others = [
        is_time_proof(&tag, &TimeKey::of(b"other"), &hello, session, (1, 2, 3)),
        is_time_proof(&tag, &key, &Hello { nonce: Nonce([8; 8]), ..hello.clone() }, session, (1, 2, 3)),
        is_time_proof(&tag, &key, &hello, Session { host: Nonce([4; 8]), ..session }, (1, 2, 3)),
        is_time_proof(&tag, &key, &hello, Session { node: Nonce([4; 8]), ..session }, (1, 2, 3)),
        is_time_proof(&tag, &key, &hello, session, (0, 2, 3)),
        is_time_proof(&tag, &key, &hello, session, (1, 1, 3)),
        is_time_proof(&tag, &key, &hello, session, (1, 2, 4)),
        is_time_proof(&[0; 16], &key, &hello, session, (1, 2, 3)),
    ];
    assert!(!others.contains(&true), "{others:?}");
    assert!(!format!("{key:?}").contains(|c: char| c.is_ascii_digit()), "{key:?}");
}

/// A proof is over the host's nonce: in another conversation it would be somebody else's.
#[test]
fn a_proof_of_an_admission_key_is_of_one_conversation() {
    let (mut node, mut host) = (node(true, true), host());
    carry(&mut node, &mut host, 0);
    events(&mut host);
    node.say(Kind::Admission, vec![1; 100]);
    let (said, _) = carry(&mut node, &mut host, 0);
    assert!(matches!(&said[..], [Frame::Announce(announce), ..] if announce.number == 0), "{said:?}");
    assert_eq!(events(&mut host), [HostEvent::Object(Kind::Admission, vec![1; 100])]);
    assert!(events(&mut node).contains(&NodeEvent::Sent(Kind::Admission)));
    let mut other = Host::new(Nonce([88; 8]), false, Shape::default());
    node.part();
    node.fire();
    let (said, _) = carry(&mut node, &mut other, 0);
    assert!(!said.iter().any(|frame| matches!(frame, Frame::Announce(_))), "{said:?}");
    node.say(Kind::Admission, vec![2; 100]);
    carry(&mut node, &mut other, 0);
    assert!(events(&mut other).contains(&HostEvent::Object(Kind::Admission, vec![2; 100])));
}

/// A host takes one object after the other: the request must not overtake a proof that is on its way, or it would wait for the
/// proof for ever.
#[test]
fn a_request_comes_behind_a_proof_that_is_on_its_way() {
    let (mut node, mut host) = (node(true, true), host());
    carry(&mut node, &mut host, 0);
    events(&mut host);
    node.say(Kind::Admission, vec![1; 100]);
    let lost = node.packet(0, 0).unwrap();
    assert!(matches!(lost.frame, Frame::Announce(_)));
    node.set_stage(Stage::Request);
    node.say(Kind::Request, vec![2; 100]);
    carry(&mut node, &mut host, 0);
    let told = events(&mut host);
    let objects: Vec<Kind> = told
        .iter()
        .filter_map(|event| match event {
            HostEvent::Object(kind, _) => Some(*kind),
            _ => None,
        })
        .collect();
    assert_eq!(objects, [Kind::Admission, Kind::Request], "{told:?}");
}

/// A host of an older release does not know the object, and says nothing about it. What the node says next reaches it all the
/// same, in another conversation.
#[test]
fn a_host_that_does_not_know_proofs_still_gets_the_request() {
    let (mut node, mut host) = (node(true, true), host());
    carry(&mut node, &mut host, 0);
    events(&mut host);
    node.say(Kind::Admission, vec![1; 96]);
    // Each frame of the proof is lost at this host.
    let deaf = |node: &mut Node| while node.packet(0, 0).is_some() {};
    deaf(&mut node);
    node.set_stage(Stage::Request);
    deaf(&mut node);
    node.say(Kind::Request, vec![2; 100]);
    for _ in 0..3 {
        node.fire();
        // Premise: until then the request waits for the proof.
        let kinds = std::iter::from_fn(|| node.packet(0, 0)).filter_map(|packet| match packet.frame {
            Frame::Announce(announce) => Some(announce.kind),
            _ => None,
        });
        assert_eq!(kinds.collect::<Vec<_>>(), [Kind::Admission]);
    }
    node.fire();
    let mut told = Vec::new();
    for _ in 0..4 {
        carry(&mut node, &mut host, 0);
        told.extend(events(&mut host));
    }
    assert!(told.contains(&HostEvent::Object(Kind::Request, vec![2; 100])), "{told:?}");
    assert!(!told.iter().any(|event| matches!(event, HostEvent::Object(Kind::Admission, _))), "{told:?}");
}

/// A stick is plugged in while the proof of another key is on its way: both arrive.
#[test]
fn a_second_proof_comes_behind_the_first() {
    let (mut node, mut host) = (node(true, true), host());
    carry(&mut node, &mut host, 0);
    events(&mut host);
    node.say(Kind::Admission, vec![1; 96]);
    node.packet(0, 0).unwrap();
    node.say(Kind::Admission, vec![2; 96]);
    for _ in 0..3 {
        node.fire();
        carry(&mut node, &mut host, 0);
    }
    let told = events(&mut host);
    let proofs: Vec<&HostEvent> =
        told.iter().filter(|event| matches!(event, HostEvent::Object(Kind::Admission, _))).collect();
    assert_eq!(
        proofs,
        [&HostEvent::Object(Kind::Admission, vec![1; 96]), &HostEvent::Object(Kind::Admission, vec![2; 96])]
    );
}

/// The values were made by another program. If this test fails, do not change it: you have changed version 1 of the line
/// protocol.
#[test]
fn the_proof_on_the_page_is_ours() {
    use super::super::admission::{AdmissionKey, Proof};
    let page = page();
    let (hello, session) = example(&page);
    let hello = Hello { fresh: true, ..hello };
    assert_eq!(hello.message(), vector(&page, "HELLO's message with flag 1"));
    let private = vector(&page, "admission key, Ed25519");
    let der = [&b"\x30\x2e\x02\x01\0\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..], &private].concat();
    let key = AdmissionKey::parse(crate::pem::encode("PRIVATE KEY", &der).as_bytes()).unwrap();
    let object = vector(&page, "object of kind 18");
    assert_eq!(key.prove(&hello, session.host), object);
    assert_eq!(Proof::decode(&object).unwrap().key(&hello, session.host), Some(key.public()));
}

/// The values were made by another program. If this test fails, do not change it: you have changed version 1 of the line
/// protocol.
#[test]
fn the_fresh_payload_on_the_page_is_ours() {
    use crate::payload::signed::{Algorithm, Signed, Signer};
    let page = page();
    let (hello, session) = example(&page);
    let hello = Hello { fresh: true, ..hello };
    assert_eq!(hello.message(), vector(&page, "HELLO's message with flag 1"));
    let key = LineKey::given(vector(&page, "node's private key").try_into().unwrap(), hello.key);
    let object = vector(&page, "object of kind 6");
    let (challenge, signed) = seal::answer(&key.open(&object, &hello, session, Kind::Fresh, 0).unwrap()).unwrap();
    assert_eq!(challenge.0.to_vec(), vector(&page, "challenge, the first of the node"));
    assert_eq!(signed.expose(), vector(&page, "signed payload"));
    let [made, came] = [std::time::Duration::ZERO; 2];
    let fresh = Fresh { hello: hello.digest(), challenge, made, came };
    assert_eq!(fresh.aad(), vector(&page, "`external_aad`"));
    let pair =
        aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&vector(&page, "signer's private key")).unwrap();
    let signer = Signer::of_point(Algorithm::EdDsa, aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref()).unwrap();
    let signed = Signed::decode(signed.expose()).unwrap();
    assert_eq!(signed.payload, b"hello, node");
    assert!(signed.is_by(&signer, &fresh.aad()) && !signed.is_by(&signer, &crate::payload::signed::aad(None)));
    let tag = time_proof(&TimeKey::of(b"token"), &hello, session, (1, NOW, 0));
    assert_eq!(tag.to_vec(), vector(&page, "proof of the time"));
    let proof = vector(&page, "fresh proof of the CSR");
    assert_eq!(seal::request(b"token", &hello, b"a request"), [&proof[..], b"a request"].concat());
}

/// 2026-11-23T00:00:00Z, in microseconds.
const NOW: u64 = 1_795_392_000_000_000;

/// If this test fails, do not change it: you have changed version 1 of the line protocol.
#[test]
fn the_conversation_with_a_fresh_payload_on_the_page_is_ours() {
    let page = page();
    let (hello, session) = example(&page);
    let node = Node::new(Hello { fresh: true, ..hello }, true, Shape::default()).challenging([0x5a; 32], true);
    let before = Nonce((u64::from_be_bytes(session.host.0) - 1).to_be_bytes());
    let (mut node, mut host) = (node, Host::new(before, false, Shape::default()));
    let request = [&vector(&page, "fresh proof of the CSR")[..], b"a request"].concat();
    let (mut rows, mut reported) = (String::new(), false);
    loop {
        let up: Vec<Packet> = std::iter::from_fn(|| node.packet(0, 0)).collect();
        up.iter().for_each(|packet| host.receive(packet.clone(), NOW));
        for event in events(&mut host) {
            match event {
                HostEvent::Challenged => {
                    let (challenge, _) = host.challenge().unwrap();
                    assert_eq!(challenge.0.to_vec(), vector(&page, "challenge, the first of the node"));
                    host.prove_time(TimeKey::of(b"token"));
                    host.send(Kind::Fresh, vector(&page, "object of kind 6"));
                }
                HostEvent::Object(Kind::Request, bytes) if bytes == request => {
                    host.send(Kind::Certificates, vec![0x30; 200]);
                }
                HostEvent::Object(Kind::Report, bytes) => reported = bytes == b"{}",
                _ => {}
            }
        }
        let down: Vec<Packet> = std::iter::from_fn(|| host.packet(NOW, 0)).collect();
        down.iter().for_each(|packet| node.receive(packet.clone(), 0));
        for event in events(&mut node) {
            match event {
                NodeEvent::Object { kind: Kind::Fresh, .. } => {
                    node.believe(TimeKey::of(b"token"));
                    node.ask_time();
                }
                NodeEvent::Time { .. } => {
                    node.set_stage(Stage::Request);
                    node.say(Kind::Request, request.clone());
                }
                NodeEvent::Object { kind: Kind::Certificates, .. } => {
                    node.set_stage(Stage::Done);
                    node.say(Kind::Report, b"{}".to_vec());
                }
                _ => {}
            }
        }
        for packet in up.iter().chain(&down) {
            let mut line = Vec::new();
            packet.encode(&mut line);
            let from = if packet.from == Side::Node { "node" } else { "host" };
            let text = String::from_utf8(line).unwrap();
            rows.push_str(&format!("| {from} | {} | `{}` |\n", named(&packet.frame), text.trim_end()));
        }
        if up.is_empty() && down.is_empty() {
            break;
        }
    }
    assert!(reported);
    let (_, rest) = page.split_once("| said by | frame | on the line |\n|---|---|---|\n").unwrap();
    let found = rest.split_once("\n## ").unwrap().0;
    assert_eq!(found, rows, "\n{rows}");
}
