//! A telnet server that sends anything: no panic, bounded answers, and what we send arrives at a peer unchanged.
#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;

// By its file: the host tool's dependencies have no business here.
#[path = "../../host/src/inject/telnet.rs"]
mod telnet;

fuzz_target!(|bytes: &[u8]| {
    let (mut ours, first) = telnet::Telnet::new();
    let (mut data, mut answer) = (Vec::new(), Vec::new());
    ours.receive(bytes, &mut data, &mut answer);
    assert!(data.len() <= bytes.len() && answer.len() <= bytes.len() * 3);
    let (mut theirs, mut wire) = (telnet::Telnet::new().0, first);
    let (mut seen, mut ignored) = (Vec::new(), Vec::new());
    telnet::Telnet::new().0.send(bytes, &mut wire);
    theirs.receive(&wire, &mut seen, &mut ignored);
    assert_eq!(seen, bytes);
});
