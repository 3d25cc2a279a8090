//! Decides which times are possible, and which clock the node believes (design: clock). Every time from outside is
//! checked against the life of the payload before it is used. Never sets a clock.

use super::PlanError;
use crate::dialogue::{CredibleTime, Outside};
use crate::facts::Facts;
use crate::payload::Payload;
use crate::time::Timestamp;
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
}

/// Decides which clock is believed. The second value is the time of a host that is not believed.
pub(super) fn decide(payload: &Payload, facts: &Facts) -> Result<(ClockPlan, Option<Timestamp>), PlanError> {
    // The clock of the host that made the payload may be fast by up to `SKEW`. Without this tolerance the node would
    // set a correct clock of its own wrong, and would refuse a server's correct Date.
    let (floor, expiry) = (payload.composed.minus(SKEW), payload.expiry);
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

impl ClockPlan {
    /// The time at which the certificate of the payload has to be valid. No server will be asked, so the machine's own
    /// clock counts unless a host on a line told the time. A clock before the floor is set to the floor. A clock after
    /// the expiry may be right and the payload old, so that is an error.
    pub(super) fn without_a_server(&self, facts: &Facts) -> Result<Timestamp, PlanError> {
        let now = match self.quality {
            ClockQuality::Line(time) => time.clock().now(),
            ClockQuality::Rtc | ClockQuality::Unknown => facts.now,
        };
        if now > self.expiry {
            return Err(PlanError::Expired { expiry: self.expiry, now });
        }
        Ok(now.max(self.floor))
    }
}
