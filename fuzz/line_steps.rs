//! Fuzz input → pieces of what comes on a line, and the time before each. A piece is raw bytes, or a message that gets
//! its right CRC in the conversation that is given, so that the fuzzer gets past it.

use imprint::line::Session;
use imprint::line::frame::{Side, seal_message};

/// Calls `step` with each piece and with microseconds.
pub fn each(mut input: &[u8], from: Side, session: Session, mut step: impl FnMut(&[u8], u64)) {
    for _ in 0..200 {
        let Some(([how, length], rest)) = input.split_first_chunk::<2>() else { return };
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        input = rest;
        // Sometimes long enough for every timer.
        let wait = if how & 0x40 != 0 { 10_000_000 } else { u64::from(*how) * 100 };
        if how & 0x80 != 0 {
            step(piece, wait);
            continue;
        }
        let session = (how & 0x20 == 0).then_some(session);
        step(&seal_message(piece, from, session), wait);
    }
}
