//! What a test may ask of the program by its environment: a tree of its own, and a panic at a named place. In a release
//! build there is nothing of it.

use std::path::PathBuf;

/// Where the machine's files are. A test has a tree of its own: IMPRINT_ROOT.
#[cfg(debug_assertions)]
pub fn root() -> PathBuf {
    std::env::var_os("IMPRINT_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// Where the machine's files are.
#[cfg(not(debug_assertions))]
pub fn root() -> PathBuf {
    PathBuf::from("/")
}

/// Panics if this is the place that a test has named: a step of the run, or `line`, where a host is heard for the first
/// time, in the thread that has the lines. IMPRINT_FAULT=NAME.
#[cfg(debug_assertions)]
#[allow(clippy::panic, reason = "what a test has asked for")]
pub(crate) fn point(name: &str) {
    if std::env::var_os("IMPRINT_FAULT").is_some_and(|wanted| wanted == name) {
        panic!("a test has asked for {name}");
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &str) {}
