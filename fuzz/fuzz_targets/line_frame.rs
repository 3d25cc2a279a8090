//! Whatever a line carries: no panic, and what is taken for a frame is what this program writes for it.
#![cfg_attr(fuzzing, no_main)]

use imprint::line::frame::Packet;
use imprint::line::scan::Scanner;
use imprint::line::{Nonce, Session};
use libfuzzer_sys::fuzz_target;

const SESSION: Session = Session { node: Nonce(*b"nodenode"), host: Nonce(*b"hosthost") };

fuzz_target!(|bytes: &[u8]| {
    let (mut scanner, mut frames, mut text) = (Scanner::default(), 0, 0);
    scanner.push(
        bytes,
        |digits| {
            let Some(packet) = Packet::decode(digits, Some(SESSION)) else { return false };
            let mut again = Vec::new();
            packet.encode(&mut again);
            let written = &again[1..again.len() - 1];
            let written = written.strip_suffix(b"\r").unwrap_or(written);
            // HELLO may carry items that this version does not know.
            assert!(matches!(packet.frame, imprint::line::frame::Frame::Hello(_)) || canonical(&packet, written, digits));
            frames += digits.len() + 1;
            true
        },
        |other| text += other.len(),
    );
    assert!(frames + text + scanner.flush().len() <= bytes.len());
});

/// Reserved bytes are ignored, so what is written back may differ from what was read; it reads the same.
fn canonical(packet: &Packet, written: &[u8], digits: &[u8]) -> bool {
    written == digits || Packet::decode(written, Some(SESSION)).as_ref() == Some(packet)
}
