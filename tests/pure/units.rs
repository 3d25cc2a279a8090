//! systemd's opinion of the units that are installed.

use std::process::Command;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd");

fn analyze(words: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(words).output();
    let output = output.unwrap_or_else(|error| panic!("systemd-analyze: {error}: run scripts/install-needs test"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The bar is 2.5 of 10; what is printed is the figure.
#[test]
fn the_server_can_do_little_but_serve() {
    let unit = format!("{FOLDER}/imprint-host.service");
    let (within, text) = analyze(&["security", "--offline=true", "--threshold=25", &unit]);
    println!("{}", text.lines().last().unwrap_or_default());
    assert!(within && text.contains("Overall exposure level for imprint-host.service: "), "{text}");
}
