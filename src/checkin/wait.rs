//! How long to wait between two rounds, and when to say so. Pure but for the clock and one random number.

use std::time::Duration;

use super::Progress;
use super::error::{Attempt, Failure};
use crate::time::{Deadline, since_boot};

/// The longest ceiling of the waits that nobody asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest Retry-After that is honoured: of a server that cannot answer now, and of one that waits for an
/// administrator.
const LONGEST_RETRY: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];
/// The shortest: a server that says 0 is not flooded.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);
/// The last try before the end is this long before it, when there is time for one.
const LAST_TRY: Duration = Duration::from_secs(2);
/// What does not change is said again after this long.
const REPEAT: Duration = Duration::from_secs(60);
/// How often leases are looked at while the check-in waits.
const LEASES: Duration = Duration::from_secs(10);

/// Remembers how often was waited, and what was said.
pub(super) struct Waiter {
    round: u32,
    said: Option<(String, Duration)>,
    leases: Duration,
}

impl Waiter {
    pub(super) fn new() -> Waiter {
        Waiter { round: 0, said: None, leases: since_boot() }
    }

    /// Until the next round; `None` when there is no time left for one. `told` is a Retry-After.
    pub(super) fn next(&mut self, told: Option<Duration>, held: bool, until: Deadline) -> Option<Duration> {
        let left = until.remaining();
        let delay = delay(self.round, told, held, random());
        self.round = self.round.saturating_add(1);
        if delay < left {
            return Some(delay);
        }
        Some(left.saturating_sub(LAST_TRY)).filter(|left| !left.is_zero())
    }

    /// Says what failed, unless it has just been said.
    pub(super) fn tell(&mut self, attempts: &[Attempt], delay: Duration, progress: &mut dyn FnMut(Progress<'_>)) {
        let text: String = attempts.iter().map(ToString::to_string).collect();
        let now = since_boot();
        if self.said.as_ref().is_some_and(|(said, at)| *said == text && now.saturating_sub(*at) < REPEAT) {
            return;
        }
        self.said = Some((text, now));
        progress(Progress::Waiting { attempts, delay });
    }

    /// Whether leases have to be looked at before the next round: every few seconds, and at once when an address or a
    /// route is gone.
    pub(super) fn lease_is_due(&mut self, attempts: &[Attempt]) -> bool {
        let now = since_boot();
        let due = now.saturating_sub(self.leases) >= LEASES
            || attempts
                .iter()
                .any(|attempt| matches!(&attempt.failure, Failure::Connect(_)) && attempt.failure.unreachable());
        if due {
            self.leases = now;
        }
        due
    }
}

/// Full jitter: anything up to a ceiling that doubles, so that ten thousand nodes that boot at once spread out. What a
/// server asked for is at least waited for, and a quarter more at most, for the same reason.
fn delay(round: u32, told: Option<Duration>, held: bool, part: f64) -> Duration {
    let [busy, pending] = LONGEST_RETRY;
    match told {
        Some(told) => {
            let told = told.clamp(SHORTEST_RETRY, if held { pending } else { busy });
            told + (told / 4).mul_f64(part)
        }
        None => {
            let ceiling = Duration::from_millis(500).saturating_mul(1 << round.min(8)).min(LONGEST_WAIT);
            Duration::from_millis(50) + ceiling.mul_f64(part)
        }
    }
}

/// From 0 to 1. Without randomness the ceiling itself is a fine wait.
fn random() -> f64 {
    let mut random = [0; 4];
    match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let ceilings: Vec<u128> = (0..9).map(|round| delay(round, None, false, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [550, 1050, 2050, 4050, 8050, 16_050, 30_050, 30_050, 30_050]);
        assert_eq!(delay(u32::MAX, None, true, 0.0), Duration::from_millis(50));
    }

    #[test]
    fn what_a_server_asks_for_is_honoured_and_capped() {
        let secs = Duration::from_secs;
        assert_eq!(delay(0, Some(secs(20)), false, 0.0), secs(20));
        assert_eq!(delay(9, Some(secs(20)), true, 1.0), secs(25));
        assert_eq!(delay(0, Some(Duration::ZERO), true, 0.0), secs(1));
        assert_eq!(delay(0, Some(secs(u64::MAX)), false, 0.0), secs(60));
        assert_eq!(delay(0, Some(secs(u64::MAX)), true, 1.0), secs(375));
    }

    #[test]
    fn there_is_a_last_try_before_the_end() {
        let mut waiter = Waiter::new();
        let late = Duration::from_secs(1000);
        let wait = waiter.next(Some(late), true, Deadline::after(Duration::from_secs(10))).unwrap();
        assert!((7000..=8000).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(waiter.next(Some(late), true, Deadline::after(Duration::from_secs(1))), None);
    }
}
