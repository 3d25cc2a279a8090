//! What time it may be, and whose word on it counts (design: clock). Every time from outside lies within the life of the
//! payload before it is used for anything. Sets no clock.

use super::PlanError;
use crate::dialogue::{CredibleTime, Outside};
use crate::facts::Facts;
use crate::payload::Payload;
use crate::time::Timestamp;
use crate::tls::SKEW;

/// What is known about the time of day before a server was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClockPlan {
    /// The earliest that it can be: when the payload was made, less [`SKEW`].
    pub floor: Timestamp,
    /// The payload's expiry.
    pub expiry: Timestamp,
    /// Who is believed.
    pub quality: ClockQuality,
}

/// How far the system clock is to be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockQuality {
    /// Inside the interval: plausible, and kept until a server says better.
    Rtc,
    /// Outside it: set to the floor until a server says better.
    Unknown,
    /// A host on a line has said what time it is, inside the interval, and nobody else is asked.
    Line(CredibleTime),
}

/// Whose word counts, and what a host said that does not count.
pub(super) fn decide(payload: &Payload, facts: &Facts) -> Result<(ClockPlan, Option<Timestamp>), PlanError> {
    // The clock of the host that made the payload may be as fast as that of a CA may be; a node whose own clock is
    // right is not to be set by it, nor a server's Date refused.
    let (floor, expiry) = (payload.composed.minus(SKEW), payload.expiry);
    let own = if (floor..=expiry).contains(&facts.now) { ClockQuality::Rtc } else { ClockQuality::Unknown };
    let (quality, disbelieved) = match facts.line_time.map(|time| time.within(floor, expiry)) {
        None => (own, None),
        Some(Ok(time)) => (ClockQuality::Line(time), None),
        // Whoever could set the clock back could have the token sent to a server whose certificate ended long ago. So the
        // node goes on as if nobody had said anything, and asks a server.
        Some(Err(Outside::Before(told))) => (own, Some(told)),
        // Nothing is gained by it but a boot that stops, which whoever is on the line can have in many ways.
        Some(Err(Outside::After(told))) => return Err(PlanError::ExpiredByLine { expiry, told }),
    };
    Ok((ClockPlan { floor, expiry, quality }, disbelieved))
}

impl ClockPlan {
    /// The time that certificate and key of the payload are verified at. No server will be asked, so the machine's own
    /// clock has the last word where no host has: one that is behind is set forward, but one that is ahead may be right,
    /// and then the payload is an old one.
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
