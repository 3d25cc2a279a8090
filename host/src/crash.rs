//! Named places where a test ends the program as a power cut would. In a release build there are none.

/// Between a request and its answer, in this order. `IMPRINT_HOST_CRASH=NAME` ends the program there.
pub const POINTS: [&str; 4] = [
    // The request was read, nothing is decided.
    "asked",   // Signed and written, in changes that do not last yet.
    "decided", // The changes last, nobody was told.
    "booked",  // The answer was handed to TLS.
    "answered",
];

/// While the CA gets another intermediate.
pub const ROTATION: [&str; 2] = [
    // There is a key, and nothing else.
    "key made", // The new one is the current one.
    "rotated",
];

/// Ends the program with SIGKILL if this is the place.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    debug_assert!(POINTS.contains(&name) || ROTATION.contains(&name), "{name}");
    if std::env::var_os("IMPRINT_HOST_CRASH").is_some_and(|wanted| wanted == name) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &str) {}
