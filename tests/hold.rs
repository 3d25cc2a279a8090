//! Holds a line as the agent does, for tests of the line's state after the agent was ended. Speaks no protocol.
//!   usage: hold held|over TERMINAL
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails them by panicking")]

use std::path::Path;
use std::time::Duration;

use imprint::dialogue::{Dialogue, Line};
use imprint::line::LineKey;
use imprint::line::frame::{Hello, Nonce, Versions};
use imprint::pool::Seeded;
use imprint::port::{Place, Port, Signals};
use imprint::time::Deadline;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, path] = words.try_into().unwrap();
    let (name, path) = ("line".to_owned(), path.into());
    let place = Place { name, path, baud: None, set: true, console: false, virtio: false, keys: false };
    let mut port = Port::open(place).unwrap().unwrap();
    let deadline = Deadline::after(Duration::from_secs(60));
    let key = LineKey::generate(&Seeded::ready(deadline).unwrap()).unwrap();
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: false,
        nonce: Nonce([7; 8]),
        key: key.public(),
        uuid: None,
        serial: None,
        macs: Vec::new(),
    };
    let signals = Signals::catch().unwrap();
    port.prepare().unwrap();
    let dialogue = Dialogue::start(
        signals,
        vec![Line { pipe: port.into(), beacon: true, far: false }],
        key,
        hello,
        None,
        None,
        Path::new("/nowhere"),
    )
    .unwrap();
    println!("{mode}");
    match mode.as_str() {
        "held" => while dialogue.hear(deadline).is_some() {},
        "over" => {
            drop(dialogue);
            println!("given back");
            // Until a signal or the test ends this program.
            std::io::stdin().lines().for_each(drop);
        }
        _ => panic!("held or over, not {mode}"),
    }
}
