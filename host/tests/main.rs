//! All tests of the host tool as one program: it is linked once, and not once for each file. Contains one test itself, of
//! the list below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

mod admission_keys;
mod alarms;
mod books;
mod bundle_disk;
mod bundle_kills;
mod bundle_payloads;
mod bundle_rules;
mod bundles;
mod callers;
mod callers_at_random;
mod callers_served;
mod cli;
mod deciding;
mod disk;
mod est;
mod gate;
mod hostile;
mod image;
mod kills;
mod lists;
mod older_store;
mod output;
mod owner;
mod payload_forms;
mod serve;
mod server_certificate;
mod signers;
mod standing;
mod words;

/// The accident: a new file that nobody lists here is not compiled, and its tests never run.
#[test]
fn every_file_of_tests_is_listed() {
    let listed = include_str!("main.rs");
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap();
    let files = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = files.filter_map(|file| file.strip_suffix(".rs").map(str::to_owned)).collect();
    assert!(names.len() > 20, "{names:?}: is this the right folder?");
    for name in names.iter().filter(|name| *name != "main") {
        assert!(listed.contains(&format!("\nmod {name};\n")), "{name}.rs is not listed in main.rs");
    }
}
