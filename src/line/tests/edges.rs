//! Tests of rare cases in docs/line-protocol.md: numbers that wrap, pieces that nobody announced, objects of no bytes.

use super::super::transfer::{Receiver, Sender, Taken};
use super::*;

fn announced(number: u8, chunk: u8, length: u32, digest: [u8; 32]) -> Announce {
    Announce { number, kind: Kind::Sealed, chunk, length, digest }
}

fn refused(number: u8, reason: NotTaken) -> Taken {
    Taken { answer: Some(Frame::Refuse { number, reason }), object: None }
}

fn acknowledged(number: u8, next: u16) -> Taken {
    Taken { answer: Some(Frame::Ack { number, next, later: 0 }), object: None }
}

const NOTHING: Taken = Taken { answer: None, object: None };

/// A length that no piece can have, and more pieces than DATA has numbers for. An earlier version accepted 65,560
/// pieces of one byte, which could never all arrive.
#[test]
fn lengths_that_there_are_not_are_refused_and_use_the_number_up() {
    let mut receiver = Receiver::default();
    let most = u32::try_from(Kind::Sealed.max_len()).unwrap();
    let bad = [(0, 100), (193, 100), (255, 100), (192, most + 1), (192, u32::MAX), (1, 65_536), (1, 65_560)];
    for (number, (chunk, length)) in (0..).zip(bad) {
        let taken = receiver.announced(&announced(number, chunk, length, [0; 32]), |_| Ok(()));
        assert_eq!(taken, refused(number, NotTaken::TooLong), "{length} bytes in pieces of {chunk}");
        // Every later frame of the object gets the same answer.
        assert_eq!(receiver.piece(number, 0, &[1; 100]), refused(number, NotTaken::TooLong));
        assert_eq!(receiver.wants(), number + 1);
    }
    for (chunk, length) in [(1, 65_535), (192, most)] {
        let number = receiver.wants();
        let taken = receiver.announced(&announced(number, chunk, length, [0; 32]), |_| Ok(()));
        assert_eq!(taken, acknowledged(number, 0));
    }
}

/// An object that is not wanted is refused as unwanted, however long it is.
#[test]
fn whether_it_is_wanted_is_asked_before_its_length() {
    let mut receiver = Receiver::default();
    let taken = receiver.announced(&announced(0, 0, u32::MAX, [0; 32]), |_| Err(NotTaken::Unwanted));
    assert_eq!(taken, refused(0, NotTaken::Unwanted));
}

#[test]
fn an_object_of_no_bytes_is_there_with_its_announcement() {
    let mut receiver = Receiver::default();
    let taken = receiver.announced(&announced(0, 192, 0, sha256(b"")), |_| Ok(()));
    let answer = Some(Frame::Ack { number: 0, next: 0, later: 0 });
    assert_eq!(taken, Taken { answer, object: Some((Kind::Sealed, Vec::new())) });
    let taken = receiver.announced(&announced(1, 192, 0, [7; 32]), |_| Ok(()));
    assert_eq!((taken, receiver.wants()), (refused(1, NotTaken::Digest), 1));
}

/// Reason 1 is for the number that is wanted. A frame with any other number but the last belongs to no known object: the ends have lost
/// count.
#[test]
fn pieces_of_objects_that_nobody_announced() {
    let mut receiver = Receiver::default();
    for number in 1..=u8::MAX {
        let lost_count = refused(number, NotTaken::Digest);
        assert_eq!(receiver.piece(number, 0, &[1]), lost_count);
        assert_eq!(receiver.announced(&announced(number, 192, 1, [0; 32]), |_| Ok(())), lost_count);
    }
    assert_eq!(receiver.piece(0, 0, &[1]), refused(0, NotTaken::Unknown));
    assert_eq!(receiver.announced(&announced(0, 2, 3, sha256(b"abc")), |_| Ok(())), acknowledged(0, 0));
    // Pieces of a wrong length for their place, and pieces behind the last.
    for (index, bytes) in [(0, &b"a"[..]), (0, b"abc"), (1, b"cd"), (2, b"e"), (u16::MAX, b"e")] {
        assert_eq!(receiver.piece(0, index, bytes), NOTHING, "{index} {bytes:?}");
    }
    assert_eq!(receiver.piece(0, 0, b"ab"), acknowledged(0, 1));
    // Another announcement replaces the first, and the pieces of the first are dropped.
    assert_eq!(receiver.announced(&announced(0, 3, 3, sha256(b"xyz")), |_| Ok(())), acknowledged(0, 0));
    assert!(receiver.piece(0, 0, b"xyz").object.is_some());
}

/// Objects with all 256 numbers are refused. After number 255 comes 0, and the receiver tells it from the object that
/// had 0 before.
#[test]
fn numbers_begin_again_after_255() {
    let (mut node, mut host) = (node(false), Host::new(Nonce([3; 8]), false, Shape::default()));
    talk(&mut node, &mut host, |_| false);
    for _ in 0..=u8::MAX {
        host.send(Kind::Plain, b"all may read this".to_vec());
        talk(&mut node, &mut host, |_| false);
    }
    let told = events(&mut host);
    let refusals = told.iter().filter(|event| **event == HostEvent::Refused(Kind::Plain, NotTaken::NotSealed));
    assert_eq!(refusals.count(), 256);
    events(&mut node);
    assert_eq!(host.next_number(), 0);
    host.send(Kind::Sealed, vec![0; 1000]);
    // The answer to the last piece is lost. The piece comes again, and is answered again.
    let mut last = true;
    talk(&mut node, &mut host, |frame| matches!(frame, Frame::Ack { next: 6, .. }) && std::mem::take(&mut last));
    assert!(!last);
    assert!(events(&mut host).contains(&HostEvent::Delivered(Kind::Sealed)));
    let objects: Vec<_> =
        events(&mut node).into_iter().filter(|event| matches!(event, NodeEvent::Object { .. })).collect();
    assert!(matches!(&objects[..], [NodeEvent::Object { number: 0, bytes, .. }] if bytes.len() == 1000), "{objects:?}");
}

/// Attack: somebody on the line sends objects that the node refuses, or acknowledges for it, in the conversation with its host. The ends
/// no longer count alike. Once the attacker is gone, the payload arrives; and so does the request, where the host's count is wrong.
#[test]
fn ends_that_have_lost_count_begin_another_conversation() {
    let (mut node, mut host) = (node(false), Host::new(Nonce([3; 8]), false, Shape::default()));
    talk(&mut node, &mut host, |_| false);
    let session = host.session();
    for number in 0..2 {
        let frame = Frame::Announce(Announce { kind: Kind::Report, ..announced(number, 192, 1, [0; 32]) });
        node.receive(Packet { from: Side::Host, session, frame }, 0);
    }
    while node.packet(0, 0).is_some() {}
    host.send(Kind::Sealed, vec![7; 300]);
    talk(&mut node, &mut host, |_| false);
    assert_ne!(host.session(), session);
    host.send(Kind::Sealed, vec![7; 300]);
    talk(&mut node, &mut host, |_| false);
    let arrived = |event: &NodeEvent| matches!(event, NodeEvent::Object { number: 0, bytes, .. } if bytes.len() == 300);
    assert!(events(&mut node).iter().any(arrived));
    // The same in the other direction: the node takes two statements for acknowledged, and the host has seen none.
    let session = host.session();
    node.set_stage(Stage::Request);
    for number in 0..2 {
        node.say(Kind::Request, vec![number; 5]);
        while node.packet(0, 0).is_some() {}
        let frame = Frame::Ack { number, next: 1, later: 0 };
        node.receive(Packet { from: Side::Host, session, frame }, 0);
    }
    node.say(Kind::Request, vec![9; 5]);
    talk(&mut node, &mut host, |_| false);
    assert_ne!(host.session(), session);
    assert!(events(&mut host).contains(&HostEvent::Object(Kind::Request, vec![9; 5])));
}

/// The lengths of the pieces that are sent.
fn pieces(end: &mut impl End) -> Vec<usize> {
    let frames = std::iter::from_fn(|| end.packet(0, 0));
    frames
        .filter_map(|packet| if let Frame::Data { bytes, .. } = packet.frame { Some(bytes.len()) } else { None })
        .collect()
}

/// The host knows of a terminal with 80 columns on the way. A node that did not know it would send lines that the
/// terminal breaks.
#[test]
fn a_node_sends_pieces_as_short_as_those_of_its_host() {
    let shape = Shape::default().within(80);
    assert_eq!(shape.chunk, 54);
    let (mut node, mut host) = (node(false), Host::new(Nonce([3; 8]), false, shape));
    talk(&mut node, &mut host, |_| false);
    host.send(Kind::Sealed, vec![0; 100]);
    talk(&mut node, &mut host, |_| false);
    node.set_stage(Stage::Request);
    node.say(Kind::Request, vec![1; 300]);
    assert_eq!(pieces(&mut node), [54, 54]);

    // The same holds in a conversation in which the host sends nothing.
    let mut host = Host::new(Nonce([9; 8]), false, Shape::default());
    host.receive(said_again(&mut node), 0);
    node.receive(host.packet(0, 0).unwrap(), 0);
    assert_eq!(pieces(&mut node), [54, 54]);

    // A refused object does not change the length of pieces; one that is taken, in longer pieces, does.
    let session = node.session();
    for (number, chunk, kind, longest) in
        [(0, 192, Kind::Sealed, 54), (1, 0, Kind::Pending, 54), (2, 192, Kind::Pending, 192)]
    {
        let announce = Announce { kind, ..announced(number, chunk, 3, sha256(b"why")) };
        node.receive(Packet { from: Side::Host, session, frame: Frame::Announce(announce) }, 0);
        node.say(Kind::Request, vec![1; 400]);
        assert_eq!(pieces(&mut node).first(), Some(&longest), "{number}");
    }
}

/// The HELLO of a node that is in a conversation, after a host has called.
fn said_again(node: &mut Node) -> Packet {
    while node.packet(0, 0).is_some() {}
    node.receive(Packet { from: Side::Host, session: None, frame: Frame::Call(Versions::OURS) }, 0);
    node.packet(0, 0).unwrap()
}

/// Frames with pieces fit so many columns, and leave the last column free.
#[test]
fn frames_fit_the_columns_that_were_named() {
    for columns in 62..=252 {
        let shape = Shape::default().within(columns);
        let mut sender = Sender::new(0, Kind::Sealed, vec![0xff; 400], shape).unwrap();
        let mut line = Vec::new();
        let mut longest = 0;
        while let Some(frame) = sender.next(0) {
            line.clear();
            Packet { from: Side::Host, session: None, frame }.encode(&mut line);
            longest = longest.max(line.len() - 1);
        }
        assert!(longest < columns && longest + 3 >= columns, "{longest} in {columns}");
    }
    for (columns, chunk) in [(0, 1), (10, 1), (80, 54), (132, 96), (252, 192), (10_000, 192)] {
        assert_eq!(Shape::default().within(columns).chunk, chunk, "{columns}");
    }
}
