//! Line frames in Ethernet frames: whatever is next to a link can send any bytes. What is taken is written back the same, and the
//! node's end of a line takes any text that comes so.
#![cfg_attr(fuzzing, no_main)]

use imprint::line::ether::{Capsule, LEAST, MOST, frames};
use imprint::line::frame::Hello;
use imprint::line::{Node, Nonce, Shape, Side, Versions, Wire};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(capsule) = Capsule::decode(bytes) else { return };
    let again = capsule.encode().expect("what was taken can be sent");
    assert!((LEAST..=MOST).contains(&again.len()));
    assert_eq!(Capsule::decode(&again), Some(capsule));
    if capsule.from != Side::Host {
        return;
    }
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce: Nonce([7; 8]),
        key: [9; 32],
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    let mut wire = Wire::new(Node::new(hello, true, Shape::default()).challenging([1; 32], true), None);
    wire.push(capsule.text, 0);
    // Whatever the node answers fits Ethernet frames.
    let polled = wire.poll(0);
    for text in frames(&polled.bytes) {
        assert!(Capsule { from: Side::Node, to: capsule.to, text }.encode().is_some());
    }
});
