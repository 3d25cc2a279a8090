//! Named crash points: at each one, a test can end the program as a power cut would. A release build has no crash points.

/// Crash points between a request and its answer, in this order. `IMPRINT_HOST_CRASH=NAME` ends the program there.
/// `asked`: the request was read, nothing is decided. `decided`: the certificate is signed and stored in a transaction that
/// is not committed. `booked`: the transaction is committed, the answer is not sent. `answered`: TLS has the answer.
pub const POINTS: [&str; 4] = ["asked", "decided", "booked", "answered"];

/// Crash points while `ca rotate` replaces the intermediate. `key made`: the new key is on disk, its certificate is not.
/// `rotated`: the new intermediate is the current one.
pub const ROTATION: [&str; 2] = ["key made", "rotated"];

/// Crash points of a bundle that a node sends, or an administrator decides about, in this order. `bundle read`: it has come whole,
/// nothing is decided. `bundle decided`: it is in a transaction that is not committed. `bundle booked`: the transaction is
/// committed, nobody knows. `bundle told`: a program was told, and the store does not say so yet.
pub const BUNDLES: [&str; 4] = ["bundle read", "bundle decided", "bundle booked", "bundle told"];

/// Ends the program with SIGKILL if `IMPRINT_HOST_CRASH` has this name.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    let known = [&POINTS[..], &ROTATION, &BUNDLES].concat();
    debug_assert!(known.contains(&name), "{name}");
    if std::env::var_os("IMPRINT_HOST_CRASH").is_some_and(|wanted| wanted == name) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &str) {}
