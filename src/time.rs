//! Points in time, deadlines, and the agent's own estimate of the time. Never sets a clock; `apply::clock` does.

use std::fmt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted (POSIX time).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last millisecond of the last four-digit year: 9999-12-31T23:59:59.999Z.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999);

    /// `None` after [`Timestamp::MAX`]. X.509 certificates cannot express later times either.
    pub fn from_millis(millis: u64) -> Option<Timestamp> {
        (millis <= Timestamp::MAX.0).then_some(Timestamp(millis))
    }

    /// Seconds since the epoch; saturates at [`Timestamp::MAX`].
    pub fn from_secs(secs: u64) -> Timestamp {
        Timestamp(secs.saturating_mul(1000).min(Timestamp::MAX.0))
    }

    /// Milliseconds since the epoch.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This much later; saturates at [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, duration: Duration) -> Timestamp {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(millis).min(Timestamp::MAX.0))
    }

    /// This much earlier; saturates at the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Timestamp {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_sub(millis))
    }

    /// The time from `earlier` to this; zero if this is before `earlier`.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The time of the system clock (CLOCK_REALTIME); the epoch if the clock is before it.
    pub fn system() -> Timestamp {
        let now = clock_gettime(ClockId::CLOCK_REALTIME).map(Duration::from).unwrap_or_default();
        Timestamp(0).plus(now)
    }

    /// (year, month, day, hour, minute, second) in UTC; month and day count from 1.
    pub fn civil(self) -> (u64, u64, u64, u64, u64, u64) {
        let secs = self.as_secs();
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days, for days ≥ 0.
        let z = secs / 86_400 + 719_468;
        let (era, doe) = (z / 146_097, z % 146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        (year, month, day, secs / 3600 % 24, secs / 60 % 60, secs % 60)
    }
}

/// RFC 3339 in UTC, whole seconds: `2026-11-22T23:46:08Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, hour, minute, second) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Time since boot, suspend included (CLOCK_BOOTTIME). All durations are measured by this clock, because nothing ever
/// sets it.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// A point in the future by which something must have happened. A run makes its deadline once and passes it on; other
/// waits are limited by it ([`Deadline::at_most`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    at: Duration,
}

impl Deadline {
    /// The deadline is this long from now.
    pub fn after(duration: Duration) -> Deadline {
        Deadline { at: since_boot().saturating_add(duration) }
    }

    /// The time that is left; zero once the deadline has passed.
    pub fn remaining(self) -> Duration {
        self.at.saturating_sub(since_boot())
    }

    /// Whether the deadline has passed.
    pub fn expired(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of this deadline and a moment since boot ([`since_boot`]).
    #[must_use]
    pub fn at(self, moment: Duration) -> Deadline {
        Deadline { at: self.at.min(moment) }
    }

    /// The later of the two deadlines.
    #[must_use]
    pub fn or_later(self, other: Deadline) -> Deadline {
        Deadline { at: self.at.max(other.at) }
    }

    /// The earlier of this deadline and `duration` from now: a shorter wait inside a longer one.
    #[must_use]
    pub fn at_most(self, duration: Duration) -> Deadline {
        Deadline { at: self.at.min(Deadline::after(duration).at) }
    }
}

/// The agent's own estimate of the time of day: a value that was right at one moment, plus the time since then by the
/// boot clock. It does not depend on the system clock, so `enroll` can verify certificates without setting that clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    at_boot: Duration,
    value: Timestamp,
}

impl Clock {
    /// A clock that shows `value` now.
    pub fn starting_at(value: Timestamp) -> Clock {
        Clock { at_boot: since_boot(), value }
    }

    /// A clock that showed `value` at this moment since boot.
    pub fn at(at_boot: Duration, value: Timestamp) -> Clock {
        Clock { at_boot, value }
    }

    /// The time of day by this clock.
    pub fn now(&self) -> Timestamp {
        self.then(since_boot())
    }

    /// The time of day by this clock at this moment since boot.
    pub fn then(&self, at_boot: Duration) -> Timestamp {
        self.value.plus(at_boot.saturating_sub(self.at_boot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_utc() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"), // date -u -d @951782400
            (1_795_391_168, "2026-11-22T23:46:08Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from_secs(secs).to_string(), text);
        }
        assert_eq!(Timestamp::from_millis(Timestamp::MAX.0 + 1), None);
    }

    #[test]
    fn a_shorter_wait_inside_a_longer_one_never_outlasts_it() {
        let outer = Deadline::after(Duration::from_secs(1));
        assert_eq!(outer.at_most(Duration::from_secs(60)), outer);
        assert!(outer.at_most(Duration::ZERO).expired());
    }
}
