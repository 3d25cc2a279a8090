//! One attempt at one EST server: the probe that tells the time, and requests that go out once the server was verified at
//! that time, over the same connection where the server keeps it.
//! When to try again, the check-in decides.

use std::time::Duration;

use super::error::{Attempt, CheckinError, Failure, Step};
use super::exchange::{self, Answer, Open};
use super::site::{Certificates, Stop};
use super::{Context, Progress};
use crate::certificate::CertificateFacts;
use crate::est::{self, Address, Basic, EstError, Lines, Operation};
use crate::payload::{EstUrl, HttpsUrl};
use crate::plan::ClockQuality;
use crate::time::{Clock, Deadline, Timestamp};
use crate::tls::{Strict, Tentative};

/// What a probe gave.
pub(super) struct Probed {
    pub(super) clock: Clock,
    /// By a Date, so that it is news to the rest of the machine.
    pub(super) told: bool,
    pub(super) cas: Cas,
    /// The connection, where the server keeps it.
    pub(super) kept: Option<Open<Tentative>>,
}

/// The CA certificates of a server.
pub(super) enum Cas {
    Given(Certificates),
    /// They were not asked for, or the server gives them only to whoever shows credentials. Whether it wants HTTP Basic.
    Wanted {
        basic: bool,
    },
}

/// One attempt at one URL.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) url: &'a HttpsUrl,
    pub(super) deadline: Deadline,
}

impl<'a> Visit<'a> {
    /// The time and the CA certificates.
    pub(super) fn probe(&self, from: Timestamp, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Probed, Stop> {
        let expiry = self.context.clock.expiry;
        let stopped = |failed| self.stopped(Step::Probe, failed);
        let open =
            exchange::probe(self.url, &self.context.server.ca, (from, expiry), self.deadline).map_err(stopped)?;
        let server = open.server().clone();
        let (answer, kept) = open.ask(&est::ca_certs(self.address())).map_err(stopped)?;
        let failed = |failure| self.failed(Step::Probe, &answer, failure);
        let cas = match est::certificates(&answer.response) {
            Ok(cas) => Cas::Given(cas),
            // A probe carries no secret. The Date is as good as any other.
            Err(EstError::Unauthorized { .. }) => Cas::Wanted { basic: answer.response.offers_basic() },
            Err(error) => return Err(failed(Failure::Est(error))),
        };
        if answer.response.date.is_none()
            && self.context.clock.quality == ClockQuality::Rtc
            && let Some(clock) = self.own_clock(from)
        {
            // RFC 9110 §6.6.1 lets a server without a clock leave it out, and cisco/libest does. What is believed
            // then is this machine's own clock, which nothing speaks against.
            return Ok(Probed { clock, told: false, cas, kept });
        }
        let date = credible(answer.response.date.as_deref(), &server, from).map_err(failed)?;
        let server = format!("{} ({})", self.url, answer.address);
        if date > expiry {
            return Err(Stop::Everything(Box::new(CheckinError::Expired { expiry, date, server })));
        }
        progress(Progress::Clock { server: &server, date });
        // A Date is cut to the second, so the middle of that second is off by half a second at most, plus the way. Of the
        // payload's first second only a part may lie within its life; past its last, nobody is told the time.
        let time = date.plus(Duration::from_millis(500)).max(from);
        Ok(Probed { clock: Clock::starting_at(time), told: true, cas, kept })
    }

    /// The system clock, while it is one that the payload allows.
    fn own_clock(&self, floor: Timestamp) -> Option<Clock> {
        let now = Timestamp::system();
        (floor..=self.context.clock.expiry).contains(&now).then(|| Clock::starting_at(now))
    }

    /// Requests at the time of `clock`, over the connection that a probe has left, if the server's certificate is valid
    /// at that time. A renewal needs another one: it shows a certificate, and a probe says nothing about who asks.
    pub(super) fn requests(self, clock: Clock, kept: Option<Open<Tentative>>) -> Requests<'a> {
        let kept = kept.filter(|_| self.context.renews.is_none());
        Requests { visit: self, clock, open: kept.and_then(|kept| kept.confirm(clock)) }
    }

    fn address(&self) -> Address<'a> {
        let Visit { context, url, .. } = *self;
        Address { authority: url.authority(), path: url.path(), user_agent: context.user_agent }
    }

    pub(super) fn failed(&self, step: Step, answer: &Answer, failure: Failure) -> Stop {
        self.stopped(step, (Some(answer.address), failure))
    }

    fn stopped(&self, step: Step, (address, failure): exchange::Failed) -> Stop {
        Stop::Here(Box::new(Attempt::new(EstUrl::Https(self.url.clone()), address, step, failure)))
    }
}

/// Requests to one server over connections that are verified at one time.
pub(super) struct Requests<'a> {
    visit: Visit<'a>,
    clock: Clock,
    /// The connection that the next request goes over. Without one another is made.
    open: Option<Open<Strict>>,
}

impl Requests<'_> {
    /// A request and its answer; `confirm` is called before anything is sent, each time. Credentials go with a CSR at
    /// once: each connection more is a second of a slow network, and no server is known that minds. A server that takes
    /// no wrapped body, or wants credentials that it did not get, is asked once more, and so is one that had closed the
    /// connection meanwhile. `basic`: it has said already that it wants credentials.
    pub(super) fn ask(
        &mut self,
        step: Step,
        operation: Operation<'_>,
        basic: bool,
        lines: &mut Lines,
        confirm: &mut dyn FnMut() -> Result<(), Stop>,
    ) -> Result<Answer, Stop> {
        let visit = self.visit;
        let server = &visit.context.server;
        let token = server.token.as_ref().map(|token| Basic { name: &server.name, token: &token.secret });
        let has_body = !matches!(operation, Operation::CaCerts);
        let mut sent = (has_body || basic) && token.is_some();
        loop {
            let open = match self.open.take() {
                Some(open) => open,
                None => exchange::open(visit.url, &server.ca, self.clock, visit.context.renews, visit.deadline)
                    .map_err(|failed| visit.stopped(step, failed))?,
            };
            confirm()?;
            let request = est::request(operation, *lines, visit.address(), token.as_ref().filter(|_| sent));
            let asked = open.ask(&request).map_err(|failed| visit.stopped(step, failed))?;
            // Nothing of an answer has come. The next connection is a new one, on which this does not happen again.
            let Some((answer, kept)) = asked else { continue };
            self.open = kept;
            match answer.response.status {
                400 if has_body && *lines == Lines::Of64 => *lines = Lines::One,
                401 if !sent && token.is_some() && answer.response.offers_basic() => sent = true,
                401 => {
                    let (schemes, text) = (answer.response.schemes(), answer.response.text());
                    let failure = Failure::Credentials { sent, token: token.is_some(), schemes, text };
                    return Err(visit.failed(step, &answer, failure));
                }
                _ => return Ok(answer),
            }
        }
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
