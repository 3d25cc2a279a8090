//! What firmware and boot loaders say of serial ports: an SPCR table, and `console=` words.
#![cfg_attr(fuzzing, no_main)]

use imprint::port::{console_baud, spcr};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(spcr) = spcr::parse(bytes) {
        assert!(spcr.address != 0 && spcr.baud != Some(0));
        // What lies behind the table is none of it.
        let length = bytes.get(4..8).and_then(|length| length.try_into().ok()).map(u32::from_le_bytes).unwrap();
        assert_eq!(spcr::parse(&bytes[..length as usize]), Some(spcr));
    }
    let line = String::from_utf8_lossy(bytes);
    let baud = console_baud(&line, "ttyS0");
    assert!(baud != Some(0));
    // The first one counts, and a screen's options are none of a line's.
    assert_eq!(console_baud(&format!("console=tty0,9600 {line}"), "ttyS0"), baud);
    assert_eq!(console_baud(&format!("console=ttyS0,300n8 {line}"), "ttyS0"), Some(300));
});
