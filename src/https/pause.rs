//! How long to wait before a server is asked again. Pure but for one random number: it never waits itself.

use std::time::Duration;

use crate::time::Deadline;

/// The highest ceiling of the waits that no server asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest Retry-After that is honoured: from a server that cannot answer now, and from a server that waits for an
/// administrator.
const LONGEST_RETRY: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];
/// The shortest Retry-After: a server that says 0 is not flooded.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);
/// The last try begins this long before the end, when there is time for one.
const LAST_TRY: Duration = Duration::from_secs(2);
/// How long a visit takes on a slow network: four or five round trips, and as many again if the server closes the
/// connection after each answer. With less time left no visit begins, except the first one at each URL.
pub const ENOUGH: Duration = Duration::from_secs(1);

/// Counts the rounds of tries.
#[derive(Default)]
pub struct Rounds(u32);

impl Rounds {
    /// The wait until the next round, and whether that round is the last; `None` when there is no time left for one.
    /// `asked`: the wait that the servers asked for, which counts instead of the usual one.
    pub fn next(&mut self, asked: Option<Duration>, until: Deadline) -> Option<(Duration, bool)> {
        let left = until.remaining();
        let delay = asked.unwrap_or_else(|| backoff(self.0));
        self.0 = self.0.saturating_add(1);
        if delay.saturating_add(ENOUGH) <= left {
            return Some((delay, false));
        }
        Some((left.saturating_sub(LAST_TRY), true)).filter(|(left, _)| !left.is_zero())
    }
}

/// Full jitter: a random wait up to a ceiling that doubles, so that ten thousand nodes that boot at once spread out.
fn backoff(round: u32) -> Duration {
    up_to_ceiling(round, random())
}

fn up_to_ceiling(round: u32, part: f64) -> Duration {
    let ceiling = Duration::from_millis(500).saturating_mul(1 << round.min(8)).min(LONGEST_WAIT);
    Duration::from_millis(50) + ceiling.mul_f64(part)
}

/// The wait for a server that asked for `told`, within the limits: at least that long, and up to a quarter longer, so
/// that nodes spread out here, too. `held`: the server waits for an administrator.
pub fn honoured(told: Duration, held: bool) -> Duration {
    spread(told, held, random())
}

fn spread(told: Duration, held: bool, part: f64) -> Duration {
    let [busy, pending] = LONGEST_RETRY;
    let told = told.clamp(SHORTEST_RETRY, if held { pending } else { busy });
    told + (told / 4).mul_f64(part)
}

/// A number from 0 to 1. Without randomness it is 1: the ceiling itself is a good wait.
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
        let ceilings: Vec<u128> = (0..9).map(|round| up_to_ceiling(round, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [550, 1050, 2050, 4050, 8050, 16_050, 30_050, 30_050, 30_050]);
        assert_eq!(up_to_ceiling(u32::MAX, 0.0), Duration::from_millis(50));
    }

    #[test]
    fn what_a_server_asks_for_is_honoured_and_capped() {
        let secs = Duration::from_secs;
        assert_eq!(spread(secs(20), false, 0.0), secs(20));
        assert_eq!(spread(secs(20), true, 1.0), secs(25));
        assert_eq!(spread(Duration::ZERO, true, 0.0), secs(1));
        assert_eq!(spread(secs(u64::MAX), false, 0.0), secs(60));
        assert_eq!(spread(secs(u64::MAX), true, 1.0), secs(375));
    }

    #[test]
    fn there_is_a_last_try_before_the_end() {
        let mut rounds = Rounds::default();
        let late = Duration::from_secs(1000);
        let (wait, last) = rounds.next(Some(late), Deadline::after(Duration::from_secs(10))).unwrap();
        assert!(last && !wait.is_zero() && wait.as_millis() <= 8000, "{wait:?}");
        assert_eq!(rounds.next(Some(late), Deadline::after(Duration::from_secs(1))), None);
    }

    /// Otherwise the round would only report that there was no time.
    #[test]
    fn a_round_has_enough_time_or_is_not_begun() {
        let mut rounds = Rounds::default();
        let (asked, limit) = (Duration::from_millis(99_500), Duration::from_secs(100));
        let (wait, last) = rounds.next(Some(asked), Deadline::after(limit)).unwrap();
        assert!(last && wait <= limit - LAST_TRY, "{wait:?}");
        assert_eq!(rounds.next(Some(Duration::from_millis(100)), Deadline::after(ENOUGH)), None);
    }
}
