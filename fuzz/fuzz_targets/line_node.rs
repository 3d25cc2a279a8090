//! A node whose host says anything at all, in frames that are right and in bytes that are none, at any time.
#![cfg_attr(fuzzing, no_main)]

use imprint::line::frame::Side;
use imprint::line::{Hello, Kind, Node, NodeEvent, Nonce, Session, Shape, Stage, TimeKey, Versions, Wire};
use libfuzzer_sys::fuzz_target;

#[path = "../line_steps.rs"]
mod line_steps;

fuzz_target!(|bytes: &[u8]| {
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: bytes.first().is_some_and(|byte| byte & 1 == 1),
        fresh: bytes.first().is_some_and(|byte| byte & 2 == 2),
        nonce: Nonce([1; 8]),
        key: [2; 32],
        uuid: None,
        serial: None,
        macs: vec![vec![0; 6]],
    };
    let far = bytes.first().is_some_and(|byte| byte & 4 == 4);
    let node = Node::new(hello, true, Shape::default()).challenging([5; 32], far);
    let mut wire = Wire::new(node, Some(115_200));
    let mut now = 0;
    let session = Session { node: Nonce([1; 8]), host: Nonce([3; 8]) };
    line_steps::each(bytes, Side::Host, session, |piece, wait| {
        now += wait;
        wire.push(piece, now);
        for event in wire.poll(now).events {
            match event {
                NodeEvent::Object { kind: kind @ (Kind::Sealed | Kind::Plain | Kind::Fresh), .. } => {
                    assert!(kind == Kind::Fresh || !far);
                    wire.end_mut().set_stage(Stage::Request);
                    if kind == Kind::Fresh {
                        wire.end_mut().believe(TimeKey::of(b"token"));
                    }
                    wire.end_mut().say(Kind::Request, vec![7; 300]);
                    wire.end_mut().ask_time();
                }
                NodeEvent::Object { kind: Kind::Certificates, .. } => wire.end_mut().set_stage(Stage::Done),
                _ => {}
            }
        }
    });
});
