//! Decides when to report failures, and when to look at the leases. Pure but for the clock: it never waits itself.

use std::time::Duration;

use super::Progress;
use super::error::Attempt;
use crate::https::pause::Rounds;
use crate::time::since_boot;

/// A report that has not changed is repeated after this long.
const REPEAT: Duration = Duration::from_secs(60);
/// How often the leases are looked at while the check-in waits.
const LEASES: Duration = Duration::from_secs(10);

/// Counts the waits, and remembers the last report.
pub(super) struct Waiter {
    pub(super) rounds: Rounds,
    said: Option<(String, Duration)>,
    leases: Duration,
}

impl Waiter {
    pub(super) fn new() -> Waiter {
        Waiter { rounds: Rounds::default(), said: None, leases: since_boot() }
    }

    /// Reports what failed, unless it has just reported the same.
    pub(super) fn tell(&mut self, attempts: &[&Attempt], delay: Duration, progress: &mut dyn FnMut(Progress<'_>)) {
        let text: String = attempts.iter().map(ToString::to_string).collect();
        let now = since_boot();
        if self.said.as_ref().is_some_and(|(said, at)| *said == text && now.saturating_sub(*at) < REPEAT) {
            return;
        }
        self.said = Some((text, now));
        progress(Progress::Waiting { attempts, delay });
    }

    /// How long until the leases have to be looked at, if nothing happens.
    pub(super) fn until_leases(&self) -> Duration {
        LEASES.saturating_sub(since_boot().saturating_sub(self.leases))
    }

    /// Whether the leases have to be looked at: every few seconds, and at once when something may be wrong with them
    /// (`suspicious`).
    pub(super) fn lease_is_due(&mut self, suspicious: bool) -> bool {
        let now = since_boot();
        let due = suspicious || now.saturating_sub(self.leases) >= LEASES;
        if due {
            self.leases = now;
        }
        due
    }
}
