//! Named places where a test ends the program as a power cut would. In a release build there are none.

/// In this order. `IMPRINT_CRASH=NAME` ends the program there.
pub const POINTS: [&str; 6] = [
    // Plain files of an earlier version have become a generation; their names do not lead to it yet.
    "adopted",  // The new key is written, and no certificate beside it.
    "key",      // The new generation is whole. Nobody is led to it.
    "beside",   // Every name leads through `current`, which is what it was.
    "linked",   // `current` is the new generation; `ready` does not say so yet.
    "switched", // All but the removal of the generation before.
    "ready",
];

/// Ends the program with SIGKILL if this is the place.
#[cfg(debug_assertions)]
pub(super) fn point(name: &str) {
    debug_assert!(POINTS.contains(&name), "{name}");
    if std::env::var_os("IMPRINT_CRASH").is_some_and(|wanted| wanted == name) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn point(_: &str) {}
