//! One attempt at one EST server: the probe that gets the time, and the requests that follow once the server was
//! verified at that time, over the same connection if the server keeps it open. Never decides when to try again: the
//! check-in does.

use std::net::SocketAddr;
use std::time::Duration;

use super::error::{Attempt, CheckinError, Failure, Step};
use super::site::{Certificates, Habits, Stop};
use super::{Context, Progress};
use crate::certificate::CertificateFacts;
use crate::est::{self, Basic, EstError, Lines, Operation};
use crate::http::Address;
use crate::https::{self, Answer, Open};
use crate::payload::{EstUrl, HttpsUrl};
use crate::plan::ClockQuality;
use crate::shown::Printable;
use crate::time::{Clock, Deadline, Timestamp};
use crate::tls::{Strict, Tentative};

/// The result of a probe.
pub(super) struct Probed {
    pub(super) clock: Clock,
    /// The time comes from a Date, so the system clock has to be set to it.
    pub(super) told: bool,
    pub(super) cas: Cas,
    /// The connection, if the server keeps it open.
    pub(super) kept: Option<Open<Tentative>>,
}

/// The CA certificates of a server.
pub(super) enum Cas {
    Given(Certificates),
    /// The certificates were not asked for, or the server gives them only to clients with credentials. `basic`: the
    /// server wants HTTP Basic.
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
    /// Gets the time and the CA certificates.
    pub(super) fn probe(&self, from: Timestamp, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Probed, Stop> {
        let expiry = self.context.clock.expiry;
        let stopped = |failed| self.stopped(Step::Probe, failed);
        let open = https::probe(self.url, &self.context.server.ca, (from, expiry), self.deadline).map_err(stopped)?;
        let server = open.server().clone();
        let (answer, kept) = open.ask(&est::ca_certs(&self.address())).map_err(stopped)?;
        let failed = |failure| self.failed(Step::Probe, &answer, failure);
        let cas = match est::certificates(&answer.response) {
            Ok(cas) => Cas::Given(cas),
            // A probe carries no credentials, so 401 is not a failure here. The Date still counts.
            Err(EstError::Unauthorized { .. }) => Cas::Wanted { basic: answer.response.offers_basic() },
            Err(error) => return Err(failed(Failure::Est(error))),
        };
        if answer.response.date.is_none()
            && self.context.clock.quality == ClockQuality::Rtc
            && let Some(clock) = self.own_clock(from)
        {
            // RFC 9110 §6.6.1 lets a server without a clock leave the Date out, and cisco/libest does. This machine's
            // own clock is used then, because nothing contradicts it.
            return Ok(Probed { clock, told: false, cas, kept });
        }
        let date = credible(answer.response.date.as_ref().map(Printable::as_str), &server, from).map_err(failed)?;
        let server = format!("{} ({})", self.url, answer.address);
        if date > expiry {
            return Err(Stop::Everything(Box::new(CheckinError::Expired { expiry, date, server })));
        }
        progress(Progress::Clock { server: &server, date });
        // A Date is cut to the second. So the middle of that second is off by half a second at most, plus the time on
        // the way. If the payload's life begins in that second, its beginning is the earliest time that counts. A time
        // past the payload's last second is used for nothing.
        let time = date.plus(Duration::from_millis(500)).max(from);
        Ok(Probed { clock: Clock::starting_at(time), told: true, cas, kept })
    }

    /// The system clock, if its time lies within the payload's life.
    fn own_clock(&self, floor: Timestamp) -> Option<Clock> {
        let now = Timestamp::system();
        (floor..=self.context.clock.expiry).contains(&now).then(|| Clock::starting_at(now))
    }

    /// Requests at the time of `clock`, over the probe's connection if the server's certificate is valid at that time.
    /// A renewal needs another connection: it shows a client certificate, and a probe does not say which node asks.
    pub(super) fn requests(self, clock: Clock, kept: Option<Open<Tentative>>) -> Requests<'a> {
        let kept = kept.filter(|_| self.context.renews.is_none());
        Requests { visit: self, clock, open: kept.and_then(|kept| kept.confirm(clock)) }
    }

    fn address(&self) -> Address<'a> {
        let Visit { context, url, .. } = *self;
        Address { authority: url.authority(), path: url.path(), user_agent: context.user_agent }
    }

    pub(super) fn failed(&self, step: Step, answer: &Answer, failure: Failure) -> Stop {
        self.at(step, Some(answer.address), failure)
    }

    fn stopped(&self, step: Step, (address, error): https::Failed) -> Stop {
        self.at(step, address, Failure::Https(error))
    }

    fn at(&self, step: Step, address: Option<SocketAddr>, failure: Failure) -> Stop {
        Stop::Here(Box::new(Attempt::new(EstUrl::Https(self.url.clone()), address, step, failure)))
    }
}

/// Requests to one server over connections that are verified at one time.
pub(super) struct Requests<'a> {
    visit: Visit<'a>,
    clock: Clock,
    /// The connection for the next request; `None`: a new one is made.
    open: Option<Open<Strict>>,
}

impl Requests<'_> {
    /// Sends a request and reads the answer. `confirm` is called before anything is sent, each time. Credentials go
    /// with a CSR at once: each further connection costs a second on a slow network, and no server is known that minds.
    /// The request is repeated if the server takes no wrapped body, wants credentials that it did not get, or does not
    /// answer on a connection that it kept open. `basic`: the server has said before that it wants credentials.
    pub(super) fn ask(
        &mut self,
        step: Step,
        operation: Operation<'_>,
        basic: bool,
        habits: &mut Habits,
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
                None => https::open(visit.url, &server.ca, self.clock, visit.context.renews, visit.deadline)
                    .map_err(|failed| visit.stopped(step, failed))?,
            };
            confirm()?;
            let request = est::request(operation, habits.lines, &visit.address(), token.as_ref().filter(|_| sent));
            let asked = open.ask(&request).map_err(|failed| visit.stopped(step, failed))?;
            // There is no answer. The next connection is a new one, on which this cannot happen.
            let Some((answer, kept)) = asked else {
                habits.keeps = false;
                continue;
            };
            self.open = kept.filter(|_| habits.keeps);
            match answer.response.status {
                400 if has_body && habits.lines == Lines::Of64 => habits.lines = Lines::One,
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

/// Design §7: a payload is refused once it has expired by the server's time, even if the server told that time long
/// ago.
pub(super) fn alive(url: &EstUrl, clock: Clock, expiry: Timestamp) -> Result<(), Stop> {
    let date = clock.now();
    if date <= expiry {
        return Ok(());
    }
    let server = format!("{url} (confirmed time)");
    Err(Stop::Everything(Box::new(CheckinError::Expired { expiry, date, server })))
}

/// A probe's Date, if the server's certificate and the payload allow it. The caller decides whether the payload has
/// expired by that Date: a Date must be credible before it can end a boot.
pub(super) fn credible(date: Option<&str>, server: &CertificateFacts, floor: Timestamp) -> Result<Timestamp, Failure> {
    let text = date.ok_or(Failure::NoDate)?;
    let date = est::date(text).ok_or_else(|| Failure::NotADate(text.into()))?;
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
