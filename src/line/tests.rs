//! Tests of the two ends with nothing between them. Whole sessions on bad lines are in tests/pure/line.rs.

mod edges;
mod fresh;

use super::frame::{Announce, Frame, Packet};
use super::*;
use crate::digest::sha256;

fn node(plain: bool) -> Node {
    let versions = Versions::OURS;
    let hello = Hello {
        heard: None,
        versions,
        plain,
        fresh: false,
        nonce: Nonce([1; 8]),
        key: [2; 32],
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    Node::new(hello, true, Shape::default())
}

/// Carries every frame between the ends, except frames of the node for which `lost` is true. Then fires the host's
/// timer once.
fn talk(node: &mut Node, host: &mut Host, mut lost: impl FnMut(&Frame) -> bool) {
    for fired in [false, true] {
        if fired {
            host.fire();
        }
        loop {
            let (up, down) = (node.packet(0, 0), host.packet(0, 0));
            if up.is_none() && down.is_none() {
                break;
            }
            up.into_iter().filter(|packet| !lost(&packet.frame)).for_each(|packet| host.receive(packet, 0));
            down.into_iter().for_each(|packet| node.receive(packet, 0));
        }
    }
}

fn events<E: End>(end: &mut E) -> Vec<E::Event> {
    std::iter::from_fn(|| end.event()).collect()
}

/// The answer is lost, too. The object after it has the next number at both ends.
#[test]
fn after_an_object_that_is_refused_comes_the_next() {
    let (mut node, mut host) = (node(false), Host::new(Nonce([3; 8]), false, Shape::default()));
    talk(&mut node, &mut host, |_| false);
    host.send(Kind::Plain, b"all may read this".to_vec());
    let mut first = true;
    talk(&mut node, &mut host, |frame| matches!(frame, Frame::Refuse { .. }) && std::mem::take(&mut first));
    assert!(!first);
    assert!(events(&mut host).contains(&HostEvent::Refused(Kind::Plain, NotTaken::NotSealed)));

    host.send(Kind::Sealed, vec![0; 1000]);
    talk(&mut node, &mut host, |_| false);
    assert!(events(&mut host).contains(&HostEvent::Delivered(Kind::Sealed)));
    let objects: Vec<_> =
        events(&mut node).into_iter().filter(|event| matches!(event, NodeEvent::Object { .. })).collect();
    assert!(matches!(&objects[..], [NodeEvent::Object { number: 1, bytes, .. }] if bytes.len() == 1000), "{objects:?}");
}

/// Objects of a host that cannot hear all have the same number.
#[test]
fn one_can_be_pasted_after_another() {
    let mut node = node(true);
    for text in ["first", "second"] {
        let bytes = text.as_bytes().to_vec();
        let digest = sha256(&bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        let announce = Announce { number: 0, kind: Kind::Plain, chunk: 192, length, digest };
        for frame in [Frame::Announce(announce), Frame::Data { number: 0, index: 0, bytes: bytes.clone() }] {
            node.receive(Packet { from: Side::Host, session: None, frame }, 0);
        }
        let arrived =
            |event: &NodeEvent| matches!(event, NodeEvent::Object { bytes: arrived, .. } if *arrived == bytes);
        assert!(events(&mut node).iter().any(arrived), "{text}");
        // The node could not use the payload, and wants another.
        node.set_stage(Stage::Payload);
    }
}

fn of_key(key: u8) -> Node {
    let hello = Hello { nonce: Nonce([key; 8]), key: [key; 32], ..node(false).hello().clone() };
    Node::new(hello, true, Shape::default())
}

/// The next packet of a node that has just been started, with its HELLO.
fn said(node: &mut Node) -> Packet {
    let packet = node.packet(0, 0).unwrap();
    assert!(matches!(packet.frame, Frame::Hello(_)));
    packet
}

/// Consoles repeat old output when they are attached to.
#[test]
fn the_last_hello_before_an_answer_counts() {
    let (mut old, mut live, mut host) = (of_key(1), of_key(2), Host::new(Nonce([3; 8]), false, Shape::default()));
    host.receive(said(&mut old), 0);
    host.receive(said(&mut live), 0);
    assert!(!host.counts());
    talk(&mut live, &mut host, |_| false);
    let told = events(&mut host);
    assert!(host.counts() && host.node() == Some(live.hello()));
    assert!(!told.iter().any(|event| matches!(event, HostEvent::Second(_))), "{told:?}");
    assert!(matches!(told.last(), Some(HostEvent::Opened(..))), "{told:?}");
}

/// OPEN was sent to both nodes; the one in old output cannot answer.
#[test]
fn the_one_that_answers_counts_whoever_said_hello_behind_it() {
    let (mut old, mut live, mut host) = (of_key(1), of_key(2), Host::new(Nonce([3; 8]), false, Shape::default()));
    host.receive(said(&mut live), 0);
    live.receive(host.packet(0, 0).unwrap(), 0);
    host.receive(said(&mut old), 0);
    assert_eq!(host.node(), Some(old.hello()));
    // The driver finds the answer by the conversation that the host began before.
    let answer = live.packet(0, 1).unwrap();
    assert_eq!(answer.session, host.earlier());
    host.receive(answer, 0);
    assert!(host.counts() && host.node() == Some(live.hello()));
    // The old HELLO is repeated, at once or after the line was opened again: the host knows that node, and that it is
    // gone.
    old = of_key(1);
    host.receive(said(&mut old), 1_000_000);
    host.attached();
    old = of_key(1);
    host.receive(said(&mut old), 90_000_000);
    assert!(!events(&mut host).iter().any(|event| matches!(event, HostEvent::Second(_))));
}

/// Another node was quicker to answer. The first node is there, and goes on saying HELLO.
#[test]
fn one_that_was_passed_over_and_goes_on_speaking_is_a_second_key() {
    let (mut first, mut other, mut host) = (of_key(1), of_key(2), Host::new(Nonce([3; 8]), false, Shape::default()));
    host.receive(said(&mut first), 0);
    host.receive(said(&mut other), 0);
    talk(&mut other, &mut host, |_| false);
    assert!(host.counts() && host.node() == Some(other.hello()));
    events(&mut host);
    for (now, second) in [(5_000_000, false), (6_000_000, false), (7_000_000, true)] {
        host.receive(said(&mut of_key(1)), now);
        let told = events(&mut host);
        assert_eq!(told.contains(&HostEvent::Second(first.hello().clone())), second, "{now}");
    }
    // A node that was never heard before is reported at once.
    host.receive(said(&mut of_key(7)), 7_000_000);
    assert!(matches!(&events(&mut host)[..], [HostEvent::Second(_)]));
    assert_eq!(host.node(), Some(other.hello()));
}

/// The accident: a host that was held up for some seconds gives a conversation up and begins another. Then it hears the
/// node's frames of the first one. An earlier version wrote these frames to the log of the console, and reported that
/// the line damages frames.
#[test]
fn what_comes_late_of_a_conversation_that_is_over_is_no_text() {
    let mut host = Wire::new(Host::new(Nonce([3; 8]), false, Shape::default()), None).keeping_text();
    let mut node = Wire::new(node(false), None);
    let mut now = 0;
    while host.end().stage().is_none() {
        assert!(now < 60_000_000, "no conversation has begun");
        host.push(&node.poll(now).bytes, now);
        node.push(&host.poll(now).bytes, now);
        now += 10_000;
    }
    let first = host.end().session().unwrap();
    node.end_mut().set_stage(Stage::Request);
    node.end_mut().say(Kind::Request, vec![7; 100]);
    // Neither hears the other.
    let (mut late, mut given_up) = (Vec::new(), false);
    while !given_up {
        assert!(now < 600_000_000, "nobody gives up");
        late.extend(node.poll(now).bytes);
        given_up = host.poll(now).events.contains(&HostEvent::Lost);
        now += 10_000;
    }
    // Premise: the same frame several times, good in the first conversation and in no other.
    let frames: Vec<&[u8]> = late.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
    let again = |frame: &&&[u8]| frame.len() > 60 && frames.iter().filter(|other| other == frame).count() >= 3;
    let frame = frames.iter().find(again).unwrap().strip_prefix(b"#").unwrap();
    assert!(Packet::decode(frame, Some(first)).is_some() && Packet::decode(frame, host.end().session()).is_none());

    late.extend(b"login: ");
    host.push(&late, now);
    assert_eq!(String::from_utf8(host.text()).unwrap(), "login: ");
    assert_eq!(host.odd(), None);
    // It was heard in no conversation, and the two begin another one.
    while host.end().stage() != Some(Stage::Request) {
        assert!(now < 1_200_000_000, "no other conversation has begun");
        node.push(&host.poll(now).bytes, now);
        host.push(&node.poll(now).bytes, now);
        now += 10_000;
    }
    assert_ne!(host.end().session(), Some(first));
}

/// A host that was held up begins another conversation. The question went with the one before, and a node without a clock of
/// its own went on without the time.
#[test]
fn a_question_about_the_time_is_asked_again_in_the_next_conversation() {
    for inside in [true, false] {
        let (mut node, mut host) = (node(false), Host::new(Nonce([3; 8]), false, Shape::default()));
        if inside {
            talk(&mut node, &mut host, |_| false);
        }
        node.ask_time();
        if inside {
            assert!(matches!(node.packet(0, 0).unwrap().frame, Frame::Ask { .. }), "it is lost");
            host.accept(node.hello().clone());
        }
        let numbers = std::cell::RefCell::new(Vec::new());
        talk(&mut node, &mut host, |frame| {
            numbers.borrow_mut().extend(if let Frame::Ask { number } = frame { Some(*number) } else { None });
            false
        });
        let told = events(&mut node).iter().filter(|event| matches!(event, NodeEvent::Time { .. })).count();
        // A number is not used twice.
        assert_eq!((told, numbers.into_inner()), (1, vec![2]), "{inside}");
        talk(&mut node, &mut host, |frame| {
            assert!(!matches!(frame, Frame::Ask { .. }), "it was told");
            false
        });
    }
}

/// The announcement is lost, and with it all that came behind it before the host knew. It is said again once.
#[test]
fn an_announcement_that_is_lost_is_said_again_once() {
    let mut sender = transfer::Sender::new(0, Kind::Sealed, vec![1; 600], Shape::default()).unwrap();
    let mut receiver = transfer::Receiver::default();
    let mut sent: Vec<Frame> = std::iter::from_fn(|| sender.next(0)).collect();
    assert!(matches!(sent.remove(0), Frame::Announce(_)));
    assert_eq!(sent.len(), 2);
    for (index, frame) in sent.into_iter().enumerate() {
        let Frame::Data { number, index: piece, bytes } = frame else { panic!("{frame:?}") };
        let answer = receiver.piece(number, piece, &bytes).answer;
        assert_eq!(answer, Some(Frame::Refuse { number: 0, reason: NotTaken::Unknown }));
        sender.unknown();
        let again = std::iter::from_fn(|| sender.next(0)).count();
        assert_eq!(again, if index == 0 { 3 } else { 0 });
    }
}

/// A slow line stays slow: the doubled wait stays until an answer shows how long is long enough.
#[test]
fn a_wait_that_was_doubled_stays_until_an_answer_is_measured() {
    let wait = |pace: &pace::Pace| pace.wait(Timer::Retransmit).unwrap().as_micros();
    let mut pace = pace::Pace::new(Some(115_200));
    pace.sent(0, 31, true, 0);
    pace.answered(0, 5000);
    pace.sent(1, 253, true, 10_000);
    let once = wait(&pace);
    pace.timed_out();
    pace.sent(2, 253, true, 20_000);
    // The frame was sent twice, so an answer may be to either copy: the ends report no time for it.
    assert_eq!(wait(&pace), 2 * once);
    pace.timed_out();
    pace.sent(3, 253, true, 30_000);
    assert_eq!(wait(&pace), 4 * once);
    pace.sent(4, 253, true, 30_000);
    pace.answered(4, 330_000);
    pace.sent(5, 253, true, 330_000);
    // The estimate is from the time that 506 bytes took: 253 take no longer.
    assert!((150_000..1_000_000).contains(&wait(&pace)), "{}", wait(&pace));
}

/// A time that was measured with few bytes holds for few; more bytes get more time, and never less than the line takes.
#[test]
fn a_wait_is_as_long_as_what_is_on_its_way() {
    for (byte, delay) in [(1042, 0), (1042, 200_000), (87, 0), (87, 200_000)] {
        let mut pace = pace::Pace::new(None);
        for (frame, load) in [31u64, 56, 300, 250, 800, 40].into_iter().enumerate() {
            let at = frame as u64 * 10_000_000;
            pace.sent(frame as u64, load as usize, true, at);
            pace.answered(frame as u64, at + delay + load * byte);
        }
        pace.idle();
        for load in [31u64, 253, 506, 2024] {
            pace.sent(100 + load, load as usize, true, 100_000_000);
            let wait = pace.wait(Timer::Retransmit).unwrap().as_micros() as u64;
            assert!(wait > delay + load * byte, "{load}: {wait}");
            pace.idle();
        }
    }
}

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/line-protocol.md")).unwrap()
}

/// The hexadecimal value at the end of a row of the page.
fn vector(page: &str, row: &str) -> Vec<u8> {
    let line = page.lines().find(|line| line.starts_with(&format!("| {row}"))).unwrap();
    let digits = line.strip_suffix("` |").unwrap().rsplit('`').next().unwrap();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The node of the page's examples, and its conversation.
fn example(page: &str) -> (Hello, Session) {
    let message = vector(page, "HELLO's message");
    let hello = Hello {
        heard: None,
        versions: Versions { lowest: 1, highest: 1 },
        plain: false,
        fresh: false,
        nonce: Nonce([1, 2, 3, 4, 5, 6, 7, 8]),
        key: message[12..44].try_into().unwrap(),
        uuid: Some(std::array::from_fn(|at| u8::try_from(at).unwrap())),
        serial: None,
        macs: vec![vec![0x52, 0x54, 0, 0x12, 0x34, 0x56]],
    };
    assert_eq!(hello.message(), message);
    let host = Nonce(vector(page, "host's nonce").try_into().unwrap());
    (hello.clone(), Session { node: hello.nonce, host })
}

/// The values were made by another program. If this test fails, do not change it: you have changed version 1 of the
/// line protocol.
#[test]
fn the_seal_and_the_proof_on_the_page_are_ours() {
    let page = page();
    let (hello, session) = example(&page);
    let text = [b"imprint line\x01", &session.node.0[..], &session.host.0, &sha256(&hello.message())].concat();
    assert_eq!(text, vector(&page, "`info`"));
    let key = LineKey::given(vector(&page, "node's private key").try_into().unwrap(), hello.key);
    let object = vector(&page, "object of kind 1");
    assert_eq!(key.open(&object, &hello, session, Kind::Sealed, 0).unwrap().expose(), b"hello, node");
    assert!(key.open(&object, &hello, session, Kind::Sealed, 1).is_err());
    let proof = vector(&page, "proof of the CSR");
    assert_eq!(seal::request(b"token", &hello, b"a request"), [&proof[..], b"a request"].concat());
}

/// If this test fails, do not change it: you have changed version 1 of the line protocol.
#[test]
fn the_conversation_on_the_page_is_ours() {
    const NOW: u64 = 1_795_392_000_000_000;
    let page = page();
    let (hello, session) = example(&page);
    let certificates = vec![0x30; 200];
    let request = [&vector(&page, "proof of the CSR")[..], b"a request"].concat();
    // The host counts its nonce up once before its first conversation.
    let before = Nonce((u64::from_be_bytes(session.host.0) - 1).to_be_bytes());
    let (mut node, mut host) = (Node::new(hello, true, Shape::default()), Host::new(before, false, Shape::default()));
    let (mut rows, mut reported) = (String::new(), false);
    loop {
        let up: Vec<Packet> = std::iter::from_fn(|| node.packet(0, 0)).collect();
        up.iter().for_each(|packet| host.receive(packet.clone(), NOW));
        for event in events(&mut host) {
            match event {
                HostEvent::Opened(_, Stage::Payload) => host.send(Kind::Sealed, vector(&page, "object of kind 1")),
                HostEvent::Object(Kind::Request, bytes) if bytes == request => {
                    host.send(Kind::Certificates, certificates.clone());
                }
                HostEvent::Object(Kind::Report, bytes) => reported = bytes == b"{}",
                _ => {}
            }
        }
        let down: Vec<Packet> = std::iter::from_fn(|| host.packet(NOW, 0)).collect();
        down.iter().for_each(|packet| node.receive(packet.clone(), 0));
        for event in events(&mut node) {
            match event {
                NodeEvent::Object { kind: Kind::Sealed, .. } => node.ask_time(),
                NodeEvent::Time { .. } => {
                    node.set_stage(Stage::Request);
                    node.say(Kind::Request, request.clone());
                }
                NodeEvent::Object { kind: Kind::Certificates, bytes, .. } if bytes == certificates => {
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
    let (_, rest) = page.split_once("| from | frame | on the line |\n|---|---|---|\n").unwrap();
    let found = rest.split_once("\n## Examples").unwrap().0;
    assert_eq!(found, rows, "\n{rows}");
}

fn named(frame: &Frame) -> String {
    match frame {
        Frame::Hello(_) => "HELLO".to_owned(),
        Frame::Open { .. } => "OPEN".to_owned(),
        Frame::Ready(stage) => format!("READY, {stage:?}").to_lowercase().replacen("ready", "READY", 1),
        Frame::Announce(announce) => {
            format!("ANNOUNCE {}, kind {}, {} bytes", announce.number, announce.kind.code(), announce.length)
        }
        Frame::Data { number, index, .. } => format!("DATA {number}, piece {index}"),
        Frame::Ack { number, next, later } => format!("ACK {number}, next {next}, later {later}"),
        Frame::Ask { number } => format!("ASK {number}"),
        Frame::Time { number, held, .. } => format!("TIME {number}, held {held}"),
        Frame::ProvenTime { number, held, .. } => format!("PROVEN TIME {number}, held {held}"),
        Frame::Challenge(_) => "CHALLENGE".to_owned(),
        other => panic!("{other:?}"),
    }
}
