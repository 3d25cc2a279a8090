//! A kernel command line, as it is read from /proc/cmdline, and the payload on it. Whatever it says, the error neither
//! floods nor drives the console that it is printed on.
#![cfg_attr(fuzzing, no_main)]

use imprint::options::{Mode, Options};
use imprint::source::cmdline;

fn printable(text: &str) {
    assert!(text.len() < 1000 && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{text}");
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let line = String::from_utf8_lossy(bytes);
    match Options::parse(&line) {
        Ok(options) => {
            assert!((1..=86_400).contains(&options.timeout.as_secs()));
            assert!(options.approval_timeout.is_none_or(|wait| (1..=2_592_000).contains(&wait.as_secs())));
            // Said once more in front of all the rest, it means the same or is a contradiction; off stays off.
            if options.mode == Mode::Off {
                assert_eq!(Options::parse(&format!("imprint=auto {line}")).map(|again| again.mode), Ok(Mode::Off));
            }
            let Some(payload) = &options.payload else { return };
            match cmdline::find(payload) {
                // Three bytes for four characters.
                Ok(found) => assert_eq!(found.bytes.expose().len(), payload.text.expose().len() * 3 / 4),
                Err(error) => printable(&error.to_string()),
            }
        }
        Err(error) => printable(&error.to_string()),
    }
});
