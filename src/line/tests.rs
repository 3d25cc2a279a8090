//! The two ends with nothing between them; whole sessions on bad lines are in tests/pure/line.rs.

use super::frame::{Announce, Frame, Packet};
use super::*;
use crate::digest::sha256;

fn node(plain: bool) -> Node {
    let versions = Versions::OURS;
    let hello = Hello {
        heard: None,
        versions,
        plain,
        nonce: Nonce([1; 8]),
        key: [2; 32],
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    Node::new(hello, true, Shape::default())
}

/// Carries all that is to be said, but frames of the node that `lost` takes; then fires the host's timer once.
fn talk(node: &mut Node, host: &mut Host, mut lost: impl FnMut(&Frame) -> bool) {
    for fired in [false, true] {
        if fired {
            host.fire();
        }
        loop {
            let (up, down) = (node.packet(0), host.packet(0));
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

/// The answer is lost, too, and what comes after it has the next number at both ends.
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

/// From a host that cannot hear, so that all have the same number.
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
        // It could not be used.
        node.set_stage(Stage::Payload);
    }
}
