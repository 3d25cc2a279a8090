//! A kernel command line, as it is read from /proc/cmdline. Whatever it says, the error neither floods nor drives the
//! console that it is printed on.
#![no_main]

use imprint::options::{Mode, Options};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let cmdline = String::from_utf8_lossy(bytes);
    match Options::parse(&cmdline) {
        Ok(options) => {
            assert!((1..=86_400).contains(&options.timeout.as_secs()));
            // Said once more in front of all the rest, it means the same or is a contradiction; off stays off.
            if options.mode == Mode::Off {
                assert_eq!(Options::parse(&format!("imprint=auto {cmdline}")).map(|again| again.mode), Ok(Mode::Off));
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 1000 && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{text}");
        }
    }
});
