//! Records, as TOML and as rows of a CSV: an error that names a line, or something that a payload can be made of.
#![cfg_attr(fuzzing, no_main)]

use imprint::payload::{CaCertificate, EstUrl};
use imprint_host::record::{Record, csv};

const CA: &[u8] = include_bytes!("../../tests/data/ca.der");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let ca = CaCertificate::new(CA.to_vec()).unwrap();
    let urls = [EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap()];
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().count() + 1;
    // It makes a trial payload and decodes it.
    match Record::compile("node.toml", &text, &ca, &urls) {
        Ok(record) => assert_eq!(Record::of_store("node.toml", &text, &urls).unwrap(), record),
        Err(error) => assert!((1..=lines).contains(&error.line), "{error}"),
    }
    let (table, template) = text.split_once("\n---\n").unwrap_or((&text, ""));
    match csv::rows("nodes.csv", table.as_bytes(), ("node.toml", template)) {
        Ok(rows) => {
            for row in rows.iter().take(20) {
                assert!((1..=lines).contains(&row.line));
                let _ = Record::compile("nodes.csv", &row.record, &ca, &urls);
            }
        }
        Err(error) => assert!((1..=lines).contains(&error.line), "{error}"),
    }
});
