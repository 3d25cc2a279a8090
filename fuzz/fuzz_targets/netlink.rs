//! Datagrams of rtnetlink. Whatever they say, a link has a name that a payload could say, and lengths add up.
#![cfg_attr(fuzzing, no_main)]

use std::path::Path;

use imprint::facts::link_facts;
use imprint::netlink::message::{Answer, decode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(messages) => {
            assert!(messages.len() <= bytes.len() / 16 + 1);
            for message in messages {
                match message.answer {
                    Answer::Link(link) => {
                        if let Some(facts) = link_facts(&link, Path::new("/nonexistent"), &[]) {
                            assert!((1..16).contains(&facts.name.as_str().len()));
                        }
                    }
                    Answer::Address { prefix: Some(prefix), .. } => {
                        assert!(prefix.length() <= if prefix.address().is_ipv4() { 32 } else { 128 });
                    }
                    Answer::UserOptions(body) => assert!(body.len() <= bytes.len()),
                    _ => {}
                }
            }
        }
        Err(error) => assert!(error.to_string().is_ascii()),
    }
});
