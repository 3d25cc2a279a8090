//! Paths of the programs that the tests run. Builds nothing.

use std::path::PathBuf;

/// The agent, built by `cargo build --workspace --bins` in the test's target folder.
pub fn agent() -> PathBuf {
    program("imprint")
}

/// The host tool, built in the same way.
pub fn host() -> PathBuf {
    program("imprint-host")
}

/// The program that holds a line (tests/hold.rs), for the tests of signals.
pub fn hold() -> PathBuf {
    program("hold")
}

/// The program that tries what a hostile medium would try (tests/probe.rs).
pub fn probe() -> PathBuf {
    program("probe")
}

/// Where scripts/install-needs puts what the tests need.
pub fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache"));
    cache.join("imprint")
}

/// The Python with the packages of tests/python/requirements.txt.
pub fn python() -> PathBuf {
    let python = cache().join("python/bin/python3");
    assert!(python.exists(), "{} is missing: run scripts/install-needs python", python.display());
    python
}

fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/TEST
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join(name);
    assert!(path.exists(), "{} is missing: run cargo build --workspace --bins", path.display());
    path
}
