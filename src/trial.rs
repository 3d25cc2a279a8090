//! Hooks for tests, in debug builds only: environment variables that change the root folder, cause a panic at a named
//! place, and kill the program at one, as a power cut would. A release build never reads these variables.

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

/// Kills the program with SIGKILL if IMPRINT_CRASH names this place: `NAME`, or `NAME:3` for the third time that it comes here.
#[cfg(debug_assertions)]
pub(crate) fn crash(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    static PASSED: AtomicU32 = AtomicU32::new(0);
    let Some(wanted) = std::env::var("IMPRINT_CRASH").ok() else { return };
    let (place, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if place == name && PASSED.fetch_add(1, Ordering::Relaxed).saturating_add(1).to_string() == time {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn crash(_: &str) {}
