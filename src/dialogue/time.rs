//! The time of day as a host on a line tells it. Nobody vouches for the host, so its time has to lie within the
//! payload's life before it is used: only [`LineTime::within`] gives the clock out. Never sets a clock.

use std::fmt;
use std::time::Duration;

use crate::time::{Clock, Timestamp};

/// The time of day that a host tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineTime {
    clock: Clock,
    bound: Duration,
}

/// The error of a timestamp in milliseconds, and of the moment at which it was taken.
const ROUNDING: Duration = Duration::from_millis(1);

/// The time of day from a host, within the life of a payload. Only [`LineTime::within`] makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CredibleTime(LineTime);

/// A host's time that cannot be the time of day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outside {
    /// Before the payload was made.
    Before(Timestamp),
    /// After the payload expired.
    After(Timestamp),
}

impl LineTime {
    /// The time of `clock`, give or take `bound`.
    pub fn new(clock: Clock, bound: Duration) -> LineTime {
        LineTime { clock, bound }
    }

    /// The time from an answer to a question. `sent` and `arrived`: when the question was sent and its answer came, in microseconds
    /// since boot. `received` and `held`: when the host had the question, in microseconds since 1970, and for how long before it
    /// answered. The answer took half of the round trip, give or take that half (RFC 5905 §8). `None`: no clock shows such a time.
    pub fn answered(sent: u64, arrived: u64, received: u64, held: u64) -> Option<LineTime> {
        let round = arrived.checked_sub(sent)?.checked_sub(held)?;
        let at_arrival = received.checked_add(held)?.checked_add(round / 2)?;
        // Rounded to the millisecond that a timestamp has.
        let value = Timestamp::from_millis(at_arrival.checked_add(500)? / 1000)?;
        let bound = Duration::from_micros(round.div_ceil(2)).saturating_add(ROUNDING);
        Some(LineTime { clock: Clock::at(Duration::from_micros(arrived), value), bound })
    }

    /// The time as it was told, moved on to the present.
    pub fn told(&self) -> Timestamp {
        self.clock.now()
    }

    /// How far the time may be off, by the round trip.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// The time of day, if it lies in the interval, both ends included. The possible error does not widen the interval:
    /// the host itself decides how long its answers take.
    pub fn within(self, floor: Timestamp, expiry: Timestamp) -> Result<CredibleTime, Outside> {
        match self.clock.now() {
            now if now < floor => Err(Outside::Before(now)),
            now if now > expiry => Err(Outside::After(now)),
            _ => Ok(CredibleTime(self)),
        }
    }
}

impl LineTime {
    /// The time of day, if its possible error reaches into the interval that begins at `low` and is `width` long. A time beside
    /// the interval is moved to its edge. `at`: the moment since boot at which the interval is this one.
    pub fn refines(self, at: Duration, low: Timestamp, width: Duration) -> Option<CredibleTime> {
        let (now, high) = (self.clock.then(at), low.plus(width));
        let reaches = now.plus(self.bound) >= low && now.minus(self.bound) <= high;
        reaches.then(|| CredibleTime(LineTime { clock: Clock::at(at, now.clamp(low, high)), ..self }))
    }
}

impl CredibleTime {
    /// The clock. It goes on past the expiry, so its users check it again later.
    pub fn clock(&self) -> Clock {
        self.0.clock
    }
}

impl fmt::Display for LineTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = self.bound.as_secs_f64() * 1000.0;
        write!(f, "{} by the line, to within {bound:.1} ms", self.clock.now())
    }
}

impl fmt::Display for CredibleTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: u64 = 1_800_000_000;
    const EXPIRY: u64 = FLOOR + 3600;

    /// A host that answers late may be off by seconds. That lets in no time from outside the interval.
    #[test]
    fn the_clock_comes_out_within_the_interval_only() {
        let at = |secs| {
            let time = LineTime::new(Clock::starting_at(Timestamp::from_secs(secs)), Duration::from_secs(3));
            time.within(Timestamp::from_secs(FLOOR), Timestamp::from_secs(EXPIRY)).map(|time| time.clock().now())
        };
        // The clock goes on while the test runs.
        assert!(matches!(at(FLOOR), Ok(now) if now >= Timestamp::from_secs(FLOOR)));
        assert!(matches!(at(EXPIRY - 600), Ok(now) if now >= Timestamp::from_secs(EXPIRY - 600)));
        assert!(matches!(at(FLOOR - 600), Err(Outside::Before(now)) if now < Timestamp::from_secs(FLOOR)));
        assert!(matches!(at(1_420_070_400), Err(Outside::Before(now)) if now < Timestamp::from_secs(FLOOR)));
        assert!(matches!(at(EXPIRY + 1), Err(Outside::After(now)) if now > Timestamp::from_secs(EXPIRY)));
        assert!(matches!(at(u64::MAX), Err(Outside::After(now)) if now == Timestamp::MAX));
    }
}
