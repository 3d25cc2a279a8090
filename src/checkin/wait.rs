//! Decides whether there is time for another round, and when to report failures. Pure but for the clock: it never waits
//! itself.

use std::time::Duration;

use super::Progress;
use super::error::Attempt;
use crate::https::pause::backoff;
use crate::time::{Deadline, since_boot};

/// The last try begins this long before the end, when there is time for one.
const LAST_TRY: Duration = Duration::from_secs(2);
/// How long a visit takes on a slow network: four or five round trips, and as many again if the server closes the
/// connection after each answer. With less time left no visit begins, except the first one at each URL.
pub(super) const ENOUGH: Duration = Duration::from_secs(1);
/// A report that has not changed is repeated after this long.
const REPEAT: Duration = Duration::from_secs(60);
/// How often the leases are looked at while the check-in waits.
const LEASES: Duration = Duration::from_secs(10);

/// Counts the waits, and remembers the last report.
pub(super) struct Waiter {
    round: u32,
    said: Option<(String, Duration)>,
    leases: Duration,
}

impl Waiter {
    pub(super) fn new() -> Waiter {
        Waiter { round: 0, said: None, leases: since_boot() }
    }

    /// The wait until the next round, and whether that round is the last; `None` when there is no time left for one.
    /// `asked`: the wait that the servers asked for, which counts instead of the usual one.
    pub(super) fn next(&mut self, asked: Option<Duration>, until: Deadline) -> Option<(Duration, bool)> {
        let left = until.remaining();
        let delay = asked.unwrap_or_else(|| backoff(self.round));
        self.round = self.round.saturating_add(1);
        if delay.saturating_add(ENOUGH) <= left {
            return Some((delay, false));
        }
        Some((left.saturating_sub(LAST_TRY), true)).filter(|(left, _)| !left.is_zero())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_last_try_before_the_end() {
        let mut waiter = Waiter::new();
        let late = Duration::from_secs(1000);
        let (wait, last) = waiter.next(Some(late), Deadline::after(Duration::from_secs(10))).unwrap();
        assert!(last && !wait.is_zero() && wait.as_millis() <= 8000, "{wait:?}");
        assert_eq!(waiter.next(Some(late), Deadline::after(Duration::from_secs(1))), None);
    }

    /// Otherwise the round would only report that there was no time.
    #[test]
    fn a_round_has_enough_time_or_is_not_begun() {
        let mut waiter = Waiter::new();
        let (asked, limit) = (Duration::from_millis(99_500), Duration::from_secs(100));
        let (wait, last) = waiter.next(Some(asked), Deadline::after(limit)).unwrap();
        assert!(last && wait <= limit - LAST_TRY, "{wait:?}");
        assert_eq!(waiter.next(Some(Duration::from_millis(100)), Deadline::after(ENOUGH)), None);
    }
}
