//! Where the programs are that the tests run. Builds nothing.

use std::path::PathBuf;

/// The agent that `cargo build --workspace --bins` made beside this test.
pub fn agent() -> PathBuf {
    program("imprint")
}

/// The host tool, made in the same way.
pub fn host() -> PathBuf {
    program("imprint-host")
}

/// What holds a line, for the tests of signals.
pub fn hold() -> PathBuf {
    program("hold")
}

/// What tries what a hostile medium would.
pub fn probe() -> PathBuf {
    program("probe")
}

fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/TEST
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join(name);
    assert!(path.exists(), "{} is missing: run cargo build --workspace --bins", path.display());
    path
}
