//! Named places where a test ends the program as a power cut would. In a release build there are none.

/// In this order. `IMPRINT_CRASH=NAME` ends the program there.
///
/// - `adopted`: plain files of an earlier version have become a generation; their names do not lead to it yet
/// - `key`: a new key is written, and no certificate beside it
/// - `beside`: the new generation is whole, and nobody is led to it
/// - `linked`: every name leads through `current`, which is what it was
/// - `switched`: `current` is the new generation; `ready` does not say so yet
/// - `ready`: all but the removal of the generation before
pub const POINTS: [&str; 6] = ["adopted", "key", "beside", "linked", "switched", "ready"];

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
