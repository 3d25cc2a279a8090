//! How long tests wait, so that a slow machine fails none of them. What has to happen is waited for as long as any machine
//! may take. Where a limit has to pass, whatever should miss it never comes, and what has to come before it gets a longer
//! limit until that is enough.

use std::time::Duration;

/// Long enough for everything that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Tries with this limit, then with twice as much, and so on: the shortest costs a fast machine no time, and a slow one
/// needs more before the limit passes. An attempt that was too slow says what did not happen.
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
