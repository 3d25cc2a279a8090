//! Decides which times are possible, and which clock the node believes (design: clock). Every time from outside is
//! checked against the life of the payload before it is used. Never sets a clock.

use std::fmt;
use std::time::Duration;

use super::PlanError;
use crate::dialogue::{CredibleTime, Outside};
use crate::facts::Facts;
use crate::line::Fresh;
use crate::payload::Payload;
use crate::time::{Clock, Timestamp};
use crate::tls::SKEW;

/// What is known about the time of day before a server is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClockPlan {
    /// The earliest possible time: when the payload was made, less [`SKEW`].
    pub floor: Timestamp,
    /// The payload's expiry.
    pub expiry: Timestamp,
    /// Which clock is believed.
    pub quality: ClockQuality,
}

/// Which clock is believed. The interval is from the floor to the expiry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockQuality {
    /// The system clock is inside the interval: it is plausible, and kept until a server tells the time.
    Rtc,
    /// The system clock is outside the interval: it is set to the floor until a server tells the time.
    Unknown,
    /// A host on a line has told a time inside the interval. No server is asked.
    Line(CredibleTime),
    /// The payload was signed for a challenge of this node, so its signature tells the time. No server is asked.
    Signed(SignedTime),
}

/// The time of day by the signature of a payload: it was made after the node's challenge, and before the payload came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignedTime {
    /// The time of day.
    pub clock: Clock,
    /// How far the time may be off.
    pub bound: Duration,
    /// It is the machine's own clock, which lies inside the interval and stays as it is.
    pub own: bool,
}

/// Decides which clock is believed. The second value is the time of a host that is not believed.
pub(super) fn decide(payload: &Payload, facts: &Facts) -> Result<(ClockPlan, Option<Timestamp>), PlanError> {
    // The clock of the host that made the payload may be fast by up to `SKEW`. Without this tolerance the node would
    // set a correct clock of its own wrong, and would refuse a server's correct Date.
    let (floor, expiry) = (payload.composed.minus(SKEW), payload.expiry);
    if let Some(fresh) = &facts.fresh {
        let (quality, disbelieved) = signed(fresh, payload, facts)?;
        return Ok((ClockPlan { floor, expiry, quality }, disbelieved));
    }
    let own = if (floor..=expiry).contains(&facts.now) { ClockQuality::Rtc } else { ClockQuality::Unknown };
    let (quality, disbelieved) = match facts.line_time.map(|time| time.within(floor, expiry)) {
        None => (own, None),
        Some(Ok(time)) => (ClockQuality::Line(time), None),
        // An attacker who sets the clock back could make the node send its token to a server whose certificate expired
        // long ago. So the node ignores this time and asks a server.
        Some(Err(Outside::Before(told))) => (own, Some(told)),
        // A time after the expiry stops the boot. An attacker on the line gains nothing: they can stop the boot anyway.
        Some(Err(Outside::After(told))) => return Err(PlanError::ExpiredByLine { expiry, told }),
    };
    Ok((ClockPlan { floor, expiry, quality }, disbelieved))
}

/// Now lies between the moment of the signature and that plus the age of the challenge. A host on the line can only tell a time
/// inside this interval.
fn signed(fresh: &Fresh, payload: &Payload, facts: &Facts) -> Result<(ClockQuality, Option<Timestamp>), PlanError> {
    let (width, expiry) = (fresh.age().saturating_add(ROUNDING), payload.expiry);
    let low = payload.composed.plus(facts.now_at.saturating_sub(fresh.came));
    if low > expiry {
        return Err(PlanError::ExpiredByLine { expiry, told: low });
    }
    let told = facts.line_time.map(|time| (time, time.refines(facts.now_at, low, width)));
    if let Some((_, Some(time))) = told {
        return Ok((ClockQuality::Line(time), None));
    }
    let own = (low..=low.plus(width)).contains(&facts.now);
    let (now, bound) = if own { (facts.now, width) } else { (low.plus(width / 2), width / 2) };
    let time = SignedTime { clock: Clock::at(facts.now_at, now), bound, own };
    Ok((ClockQuality::Signed(time), told.map(|(time, _)| time.told())))
}

/// Times are rounded down to milliseconds: that of the signature, that of the clock, and what has passed between.
const ROUNDING: Duration = Duration::from_millis(3);

impl ClockQuality {
    /// The time of day, if somebody has told it whom the node believes.
    pub fn told(&self) -> Option<Clock> {
        match self {
            ClockQuality::Line(time) => Some(time.clock()),
            ClockQuality::Signed(time) => Some(time.clock),
            ClockQuality::Rtc | ClockQuality::Unknown => None,
        }
    }
}

/// `2026-11-23T00:00:00Z by the signature of the payload, to within 15.0 ms`
impl fmt::Display for SignedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = self.bound.as_secs_f64() * 1000.0;
        match self.own {
            true => write!(f, "confirmed by the signature of the payload, to within {bound:.1} ms"),
            false => write!(f, "{} by the signature of the payload, to within {bound:.1} ms", self.clock.now()),
        }
    }
}

impl ClockPlan {
    /// The time at which the certificate of the payload has to be valid. No server will be asked, so the machine's own
    /// clock counts unless a host on a line told the time. A clock before the floor is set to the floor. A clock after
    /// the expiry may be right and the payload old, so that is an error.
    pub(super) fn without_a_server(&self, facts: &Facts) -> Result<Timestamp, PlanError> {
        let now = self.quality.told().map_or(facts.now, |clock| clock.now());
        if now > self.expiry {
            return Err(PlanError::Expired { expiry: self.expiry, now });
        }
        Ok(now.max(self.floor))
    }
}
