//! One attempt at one EST server: the probe that tells the time, and requests over connections that are verified at it.
//! When to try again, the check-in decides.

use std::time::Duration;

use super::error::{Attempt, CheckinError, Failure, Step};
use super::{Certificates, Context, Progress, Stop, exchange};
use crate::certificate::CertificateFacts;
use crate::est::{self, Basic, EstError, Lines, Operation};
use crate::payload::{EstUrl, HttpsUrl};
use crate::plan::ClockQuality;
use crate::time::{Clock, Deadline, Timestamp};
use crate::tls::When;

/// What a probe gave.
pub(super) struct Probed {
    pub(super) clock: Clock,
    /// By a Date, so that it is news to the rest of the machine.
    pub(super) told: bool,
    /// `None` when the server gives them only to whoever shows credentials.
    pub(super) cas: Option<Certificates>,
}

/// One attempt at one URL.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) url: &'a HttpsUrl,
    pub(super) deadline: Deadline,
}

impl Visit<'_> {
    /// The time and the CA certificates.
    pub(super) fn probe(&self, from: Timestamp, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Probed, Stop> {
        let expiry = self.context.clock.expiry;
        let open = self.open(Step::Probe, When::Within { from, to: expiry })?;
        let answer = open
            .talk(&self.bytes(Operation::CaCerts, Lines::Of64, None))
            .map_err(|failed| self.stopped(Step::Probe, failed))?;
        let failed = |failure| self.failed(Step::Probe, &answer, failure);
        let cas = match est::certificates(&answer.response) {
            Ok(cas) => Some(cas),
            // A probe carries no secret. The Date is as good as any other.
            Err(EstError::Unauthorized { .. }) => None,
            Err(error) => return Err(failed(Failure::Est(error))),
        };
        if answer.response.date.is_none()
            && self.context.clock.quality == ClockQuality::Rtc
            && let Some(clock) = self.own_clock(from)
        {
            // RFC 9110 §6.6.1 lets a server without a clock leave it out, and cisco/libest does. What is believed
            // then is this machine's own clock, which nothing speaks against.
            return Ok(Probed { clock, told: false, cas });
        }
        let date = credible(answer.response.date.as_deref(), &answer.server, from).map_err(failed)?;
        let server = format!("{} ({})", self.url, answer.address);
        if date > expiry {
            return Err(Stop::Everything(Box::new(CheckinError::Expired { expiry, date, server })));
        }
        progress(Progress::Clock { server: &server, date });
        // A Date is cut to the second, so the middle of that second is off by half a second at most, plus the way. Of the
        // payload's first second only a part may lie within its life; past its last, nobody is told the time.
        let time = date.plus(Duration::from_millis(500)).max(from);
        Ok(Probed { clock: Clock::starting_at(time), told: true, cas })
    }

    /// The system clock, while it is one that the payload allows.
    fn own_clock(&self, floor: Timestamp) -> Option<Clock> {
        let now = Timestamp::system();
        (floor..=self.context.clock.expiry).contains(&now).then(|| Clock::starting_at(now))
    }

    /// A request over connections that are verified at the time of `clock`; `confirm` is called once the first one
    /// was. Credentials go with a CSR at once: each connection more is a second of a slow network, and no server is
    /// known that minds. A server that takes no wrapped body, or wants credentials that it did not get, is asked once
    /// more.
    pub(super) fn request(
        &self,
        step: Step,
        operation: Operation<'_>,
        clock: Clock,
        lines: &mut Lines,
        confirm: &mut dyn FnMut() -> Result<(), Stop>,
    ) -> Result<exchange::Answer, Stop> {
        let server = self.context.server;
        let token = server.token.as_ref().map(|token| Basic { name: &server.name, token: &token.secret });
        let has_body = !matches!(operation, Operation::CaCerts);
        let mut sent = has_body && token.is_some();
        loop {
            let open = self.open(step, When::Now(clock))?;
            confirm()?;
            let request = self.bytes(operation, *lines, token.as_ref().filter(|_| sent));
            let answer = open.talk(&request).map_err(|failed| self.stopped(step, failed))?;
            match answer.response.status {
                400 if has_body && *lines == Lines::Of64 => *lines = Lines::One,
                401 if !sent && token.is_some() && answer.response.offers_basic() => sent = true,
                401 => {
                    let (schemes, text) = (answer.response.schemes(), answer.response.text());
                    let failure = Failure::Credentials { sent, token: token.is_some(), schemes, text };
                    return Err(self.failed(step, &answer, failure));
                }
                _ => return Ok(answer),
            }
        }
    }

    fn bytes(&self, operation: Operation<'_>, lines: Lines, basic: Option<&Basic<'_>>) -> zeroize::Zeroizing<Vec<u8>> {
        est::request(operation, lines, &self.url.authority(), self.url.path(), basic, self.context.user_agent)
    }

    fn open(&self, step: Step, when: When) -> Result<exchange::Open, Stop> {
        // A probe says nothing about who asks.
        let client = if step == Step::Probe { None } else { self.context.renews };
        exchange::open(self.url, &self.context.server.ca, when, client, self.deadline)
            .map_err(|failed| self.stopped(step, failed))
    }

    pub(super) fn failed(&self, step: Step, answer: &exchange::Answer, failure: Failure) -> Stop {
        self.stopped(step, (Some(answer.address), failure))
    }

    fn stopped(&self, step: Step, (address, failure): exchange::Failed) -> Stop {
        Stop::Here(Box::new(Attempt::new(EstUrl::Https(self.url.clone()), address, step, failure)))
    }
}

/// Design §7: past its expiry, by the server's time, a payload is refused, however long ago the server was asked.
pub(super) fn alive(url: &EstUrl, clock: Clock, expiry: Timestamp) -> Result<(), Stop> {
    let date = clock.now();
    if date <= expiry {
        return Ok(());
    }
    let server = format!("{url}, whose time was confirmed");
    Err(Stop::Everything(Box::new(CheckinError::Expired { expiry, date, server })))
}

/// A probe's Date, if it is one that the probe's own certificate and the payload allow. Whether the payload has
/// expired by it is the caller's question: a Date must be credible before it can end a boot.
pub(super) fn credible(date: Option<&str>, server: &CertificateFacts, floor: Timestamp) -> Result<Timestamp, Failure> {
    let text = date.ok_or(Failure::NoDate)?;
    let date = est::date(text).ok_or_else(|| Failure::NotADate(text.to_owned()))?;
    if !(server.not_before..=server.not_after).contains(&date) {
        let server = Box::new(server.clone());
        return Err(Failure::DateOutsideCertificate { date, server });
    }
    // A Date has no fraction, so it may lie up to a second before a floor that has one.
    if date.plus(Duration::from_millis(999)) < floor {
        return Err(Failure::DateBeforeFloor { date, floor });
    }
    Ok(date)
}
