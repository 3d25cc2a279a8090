//! Named points where a test can kill the program, as a power cut would. Does nothing in a release build.

use crate::trial;

/// The points, in the order in which a hand-over reaches them. `IMPRINT_CRASH=NAME` kills the program there.
///
/// - `adopted`: plain files of an earlier version have become a generation; no name leads to it yet
/// - `key`: a new key is written, its certificate is not
/// - `beside`: the new generation is whole; no name leads to it
/// - `linked`: every name leads through `current`, which has not changed yet
/// - `switched`: `current` leads to the new generation; `ready` is not renewed yet
/// - `ready`: only the removal of the previous generation is left to do
pub const POINTS: [&str; 6] = ["adopted", "key", "beside", "linked", "switched", "ready"];

/// Kills the program with SIGKILL if `IMPRINT_CRASH` names this point.
pub(super) fn point(name: &str) {
    debug_assert!(POINTS.contains(&name), "{name}");
    trial::crash(name);
}
