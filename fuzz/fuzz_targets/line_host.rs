//! A host whose node says anything at all, in frames that are right and in bytes that are none, at any time.
#![cfg_attr(fuzzing, no_main)]

use imprint::line::frame::Side;
use imprint::line::{Host, HostEvent, Kind, Nonce, Session, Shape, TimeKey, Wire};
use libfuzzer_sys::fuzz_target;

#[path = "../line_steps.rs"]
mod line_steps;

fuzz_target!(|bytes: &[u8]| {
    let mut wire = Wire::new(Host::new(Nonce([3; 8]), true, Shape::default()), None).keeping_text();
    let mut now = 1_800_000_000_000_000;
    // The host counts its nonce up before its first conversation.
    let session = Session { node: Nonce([1; 8]), host: Nonce([3, 3, 3, 3, 3, 3, 3, 4]) };
    line_steps::each(bytes, Side::Node, session, |piece, wait| {
        now += wait;
        wire.push(piece, now);
        for event in wire.poll(now).events {
            match event {
                HostEvent::Opened(..) => wire.end_mut().send(Kind::Sealed, vec![5; 700]),
                HostEvent::Challenged => {
                    wire.end_mut().prove_time(TimeKey::of(b"token"));
                    match wire.end().challenge() {
                        Some((_, heard)) if now - heard <= 2_000_000 => wire.end_mut().send(Kind::Fresh, vec![6; 700]),
                        _ => wire.end_mut().renew(),
                    }
                }
                HostEvent::Second(hello) => wire.end_mut().accept(hello),
                HostEvent::Object(Kind::Request, _) => wire.end_mut().send(Kind::Certificates, vec![9; 1200]),
                _ => {}
            }
        }
        let _ = wire.text();
    });
});
