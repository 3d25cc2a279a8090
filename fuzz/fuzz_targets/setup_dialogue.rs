//! What somebody types at the dialogue on a console: whatever it is, only text, line ends, backspace and the bell come back, nothing that
//! was typed as a password is shown, and settings that come out mean the same when they are written and read.
#![cfg_attr(fuzzing, no_main)]

use imprint::payload::{HardwareAddress, InterfaceName};
use imprint::setting::{SETTINGS, Settings};
use imprint::setup::{End, Port, Script, Start};

fn port(name: &str, last: u8, carrier: bool) -> Port {
    let (name, mac) = (InterfaceName::try_from(name).unwrap(), HardwareAddress::new(&[2, 0, 0, 0, 0, last]));
    Port { name, mac, words: "driver, carrier".to_owned(), carrier }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let links = vec![port("eth0", 1, true), port("eth1", 2, false)];
    let start = Start { node: "n".to_owned(), links, defaults: Settings::default(), salt: [1; 16], may_quit: true };
    let mut script = Script::new(start);
    let mut out = Vec::new();
    script.greet(&mut out);
    // 0xfe and 0xff stand for what happens beside the typing.
    for piece in bytes.chunk_by(|one, other| *one < 0xfe && *other < 0xfe) {
        let end = match piece {
            [0xfe] => {
                script.disturbed();
                None
            }
            [0xff] => {
                script.away();
                None
            }
            typed => script.typed(typed, &mut out),
        };
        assert!(out.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | 7 | 8)));
        out.clear();
        match end {
            None => {}
            Some(End::Quit) => return,
            Some(End::Settings(settings)) => {
                let mut again = Settings::default();
                for row in &SETTINGS {
                    for text in settings.texts(row.key) {
                        again.add(row.key, &text).unwrap();
                    }
                }
                assert!(again == *settings && settings.check().is_ok());
                return;
            }
        }
    }
});
