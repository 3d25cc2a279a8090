//! How long tests wait, so that they do not fail on a slow machine. A test waits for an event with [`PATIENCE`]. A test
//! that needs a limit to pass retries with longer limits ([`patiently`]). Never proves that something is fast.

use std::time::Duration;

/// Long enough, on any machine, for everything that will happen at all.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Tries with this limit, then with twice as much, and so on: a fast machine passes with the shortest limit, and a slow one
/// gets more time. A failed attempt returns what did not happen.
#[track_caller]
pub fn patiently<T>(shortest: Duration, mut attempt: impl FnMut(Duration) -> Result<T, String>) -> T {
    let mut limit = shortest;
    loop {
        match attempt(limit) {
            Ok(value) => return value,
            Err(missed) => assert!(limit < PATIENCE / 2, "not even within {limit:?}: {missed}"),
        }
        limit *= 2;
    }
}
