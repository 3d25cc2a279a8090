//! Hooks for tests, in debug builds only: environment variables that change the root folder and cause a panic at a
//! named place. A release build never reads these variables.

use std::path::PathBuf;

/// The root folder of the machine's files. A test sets its own with IMPRINT_ROOT.
#[cfg(debug_assertions)]
pub fn root() -> PathBuf {
    std::env::var_os("IMPRINT_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// The root folder of the machine's files.
#[cfg(not(debug_assertions))]
pub fn root() -> PathBuf {
    PathBuf::from("/")
}

/// Panics if IMPRINT_FAULT is `name`: a step of the run, or `line`. The place `line` is in the thread of the lines,
/// when it hears a host for the first time.
#[cfg(debug_assertions)]
#[allow(clippy::panic, reason = "what a test has asked for")]
pub(crate) fn point(name: &str) {
    if std::env::var_os("IMPRINT_FAULT").is_some_and(|wanted| wanted == name) {
        panic!("a test has asked for {name}");
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &str) {}
