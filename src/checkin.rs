//! Has the CSR signed by an EST server. Trusts the CA of the payload and nothing else, never believes a server's Date
//! outside the payload's life, and gives out a certificate only if it is the one that was asked for.
//!
//! The first visit to a URL begins with a probe (design: clock). The probe carries no secret, and accepts a server
//! certificate that was valid at some moment of the payload's life. The Date of the answer is taken for the time of
//! day. The server's certificate is verified once more at that time, which confirms the time. Only then are token and
//! CSR sent: over the same connection, or over another one if the server closed that. A node that waits for an
//! administrator's approval comes back without a probe, with the same key and CSR.

mod context;
mod error;
mod site;
mod telling;
mod visit;
mod wait;

use std::time::Duration;

pub use context::{Ask, Context, Line, Progress, Reply};
pub use error::{AskError, Attempt, CheckinError, Failure, Step, Unapproved};

use crate::certificate::CertificateFacts;
use crate::dialogue::{Answer, NoAnswer};
use crate::est::{self, Operation, Outcome, RetryAfter};
use crate::https::{HttpsError, Phase, pause};
pub use crate::identity::AnswerError;
use crate::identity::verify;
use crate::line::{Kind, Stage};
use crate::order;
use crate::payload::EstUrl;
use crate::plan::ClockQuality;
use crate::shown::Printable;
use crate::time::{Clock, Deadline, Timestamp, since_boot};
use site::{Confirmed, Held, Site, Stop, Visited};
use visit::{Cas, Probed, Visit, alive};

/// A certificate that was verified: for our key, with exactly our names, from a CA that the payload allows. Only this
/// module makes one.
#[derive(Clone, Debug)]
pub struct Issued {
    chain: Vec<Vec<u8>>,
    facts: CertificateFacts,
    clock: Clock,
    url: EstUrl,
    server: String,
}

impl Issued {
    /// The node's certificate, DER.
    pub fn leaf(&self) -> &[u8] {
        self.chain.first().map(Vec::as_slice).unwrap_or_default()
    }

    /// DER, leaf first, each certificate signed by the next, without the root.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Subject, names and validity of the leaf.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The time of day that the certificate was verified at: by the server's Date (right to within a second), by the
    /// host on the line, or by this machine's own clock where neither told a time.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// URL of the server.
    pub fn url(&self) -> &EstUrl {
        &self.url
    }

    /// URL and address of the server.
    pub fn server(&self) -> &str {
        &self.server
    }
}

/// Gets a certificate. Tries each URL in order, and all of them again until the deadline. A URL whose failure is
/// permanent is not tried again. A server that holds the request for an administrator has the approval timeout instead
/// of the deadline.
pub fn enroll(
    context: &Context<'_>,
    ask: &mut dyn FnMut(Ask) -> Result<Reply, AskError>,
    progress: &mut dyn FnMut(Progress<'_>),
    deadline: Deadline,
) -> Result<Issued, CheckinError> {
    let mut sites: Vec<Site<'_>> = Vec::new();
    for url in &context.server.urls {
        if !sites.iter().any(|site| site.url == url) {
            sites.push(Site::new(url));
        }
    }
    let begun = since_boot();
    // From here on the floor, the earliest possible time, advances with the time since boot.
    let floor = Clock::starting_at(context.clock.floor);
    let mut checkin = Checkin { context, floor, ask, progress, deadline, asked: false };
    let mut waiter = wait::Waiter::new();
    let mut held: Option<Held<'_>> = None;
    let mut last = false;
    loop {
        let (mut told, mut answered) = (None, false);
        // The server that holds the request is asked first.
        let holds = |site: &Site<'_>| held.as_ref().is_some_and(|held| held.url == site.url);
        order::sort(&mut sites, |one, other| holds(one) && !holds(other));
        for site in &mut sites {
            // Only a server that holds the request has more time than the others.
            let holds = held.as_ref().filter(|held| held.url == site.url);
            let until = holds.map_or(deadline, |held| held.until);
            let early = !last && site.not_before.is_some_and(|moment| since_boot() < moment);
            if site.over || early || until.expired() || !site.has_enough(until) {
                continue;
            }
            (site.not_before, site.tried) = (None, true);
            let failed = match checkin.visit(site, until.at_most(ATTEMPT)) {
                Ok(Visited::Issued(issued)) => return Ok(*issued),
                Ok(Visited::Held(retry_after)) => {
                    site.failed = None;
                    held = Some(checkin.held(held, site.url));
                    (told, answered) = (retry_after, true);
                    break;
                }
                Err(Stop::Everything(error)) => return Err(*error),
                Err(Stop::Here(attempt)) => *attempt,
            };
            answered |= !failed.failure.unreachable();
            site.over = failed.failure.lasts();
            site.stranger = matches!(failed.failure, Failure::Https(HttpsError::Tls(_)));
            if site.over && holds.is_some() {
                // The request was denied there. The other servers have what is left of their own time.
                held = None;
            }
            let wait = failed.failure.retry_after().map(|told| pause::honoured(told, false));
            site.not_before = wait.map(|wait| since_boot().saturating_add(wait));
            site.failed = Some(telling::more_telling(site.failed.take(), failed));
        }
        if sites.iter().all(|site| site.over) {
            return Err(CheckinError::Failed { attempts: failures(sites) });
        }
        let until = held.as_ref().map_or(deadline, |held| held.until);
        // If every server asked for a wait, the shortest wait counts. While one server holds the request, only that
        // server's wait counts.
        let open = || sites.iter().filter(|site| !site.over);
        let asked = match (&held, open().map(|site| site.not_before).min()) {
            (None, Some(Some(moment))) => Some(moment.saturating_sub(since_boot())),
            _ => told.map(|told| pause::honoured(told, true)),
        };
        let Some((delay, is_last)) = waiter.rounds.next(asked, until) else { break };
        last = is_last;
        if sites.iter().any(|site| site.failed.is_some()) {
            let attempts: Vec<&Attempt> = sites.iter().filter_map(|site| site.failed.as_ref()).collect();
            waiter.tell(&attempts, delay, checkin.progress);
        }
        if checkin.wait(until.at_most(delay), until.or_later(deadline), answered, &mut waiter)? {
            for site in &mut sites {
                site.on_another_network();
            }
        }
    }
    if let Some(Held { url, since, .. }) = held {
        let (node, code) = (context.server.name.clone(), context.identity.code());
        let (waited, renewal) = (since_boot().saturating_sub(since), context.renews.is_some());
        let failed = sites.into_iter().find(|site| site.url == url).and_then(|site| site.failed);
        let (url, failed) = (url.clone(), failed.map(|attempt| attempt.failure));
        return Err(CheckinError::NotApproved(Box::new(Unapproved { url, node, code, waited, renewal, failed })));
    }
    Err(CheckinError::GaveUp { waited: since_boot().saturating_sub(begun), attempts: failures(sites) })
}

/// The most telling failure of each URL.
fn failures(sites: Vec<Site<'_>>) -> Vec<Attempt> {
    sites.into_iter().filter_map(|site| site.failed).collect()
}

/// The longest that one URL may take before the next gets its turn.
const ATTEMPT: Duration = Duration::from_secs(30);
/// The longest that renewing a lease may delay the next try.
const RENEWAL: Duration = Duration::from_secs(5);
/// The pause before the next round when another link has come up.
const BREATH: Duration = Duration::from_millis(50);

/// What all visits share.
struct Checkin<'a> {
    context: &'a Context<'a>,
    floor: Clock,
    ask: &'a mut dyn FnMut(Ask) -> Result<Reply, AskError>,
    progress: &'a mut dyn FnMut(Progress<'_>),
    deadline: Deadline,
    /// The request was sent on the line.
    asked: bool,
}

impl Checkin<'_> {
    fn ask(&mut self, what: Ask) -> Result<Reply, CheckinError> {
        (self.ask)(what).map_err(CheckinError::Ask)
    }

    /// Records that the server at `url` holds the request, for the first time or still.
    fn held<'s>(&mut self, before: Option<Held<'_>>, url: &'s EstUrl) -> Held<'s> {
        let (since, until) = match &before {
            Some(before) => (before.since, before.until),
            // A node that renews still has its old certificate and can come back later, so the deadline stays.
            None if self.context.renews.is_some() => (since_boot(), self.deadline),
            // The only deadline that is made here: it begins with the server's answer.
            None => (since_boot(), Deadline::after(self.context.approval_timeout.unwrap_or(Duration::MAX))),
        };
        if before.is_none_or(|before| before.url != url) {
            let (node, code) = (&self.context.server.name, self.context.identity.code());
            (self.progress)(Progress::Approval { url, node, code });
        }
        Held { url, since, until }
    }

    /// Waits for the next round, and renews leases meanwhile. When no server could be reached, it also asks for another
    /// link, and returns true when there is one. `end` is the end of the whole check-in, which an approval may put off:
    /// a lease that is renewed after the deadline needs time, too.
    fn wait(
        &mut self,
        until: Deadline,
        end: Deadline,
        answered: bool,
        waiter: &mut wait::Waiter,
    ) -> Result<bool, CheckinError> {
        loop {
            if waiter.lease_is_due(false) {
                self.ask(Ask::RenewLease(end.at_most(RENEWAL)))?;
            }
            let slice = until.at_most(waiter.until_leases());
            if !answered && self.ask(Ask::NextLink(slice))? == Reply::Done {
                std::thread::sleep(BREATH);
                return Ok(true);
            }
            std::thread::sleep(slice.remaining());
            if until.expired() {
                break;
            }
        }
        // If no server answered, an address or a route may be gone, so the leases are due at once.
        if waiter.lease_is_due(!answered) {
            self.ask(Ask::RenewLease(end.at_most(RENEWAL)))?;
        }
        Ok(false)
    }

    /// Sends the request over the line, or looks for the answer again.
    fn visit_line(&mut self, url: &EstUrl, deadline: Deadline) -> Result<Visited, Stop> {
        let failed = |failure| Stop::Here(Box::new(Attempt::new(url.clone(), None, Step::Enrol, failure)));
        let Some(line) = self.context.line else { return Err(failed(Failure::NoLine)) };
        if !self.asked {
            line.dialogue.stage(Stage::Request);
            line.dialogue.say(Kind::Request, line.request.to_vec());
            self.asked = true;
        }
        let certificates = match line.dialogue.answer(deadline) {
            Ok(Some(Answer::Certificates(bytes))) => {
                est::certs_only(&bytes).map_err(|error| failed(Failure::Est(error)))?
            }
            Ok(Some(Answer::Pending(_))) => return Ok(Visited::Held(None)),
            Ok(Some(Answer::Refused(text))) => return Err(failed(Failure::LineRefused(Printable::of(&text)))),
            Ok(None) => return Err(failed(Failure::Https(HttpsError::TimedOut(Phase::Answer)))),
            Err(NoAnswer::NotTaken(reason)) => return Err(failed(Failure::LineNotTaken(reason))),
            Err(NoAnswer::Lost(why)) => return Err(failed(Failure::LineLost(why))),
        };
        let clock = self.context.clock.quality.told().unwrap_or_else(|| self.own_clock());
        alive(url, clock, self.context.clock.expiry)?;
        let wanted = self.wanted(clock);
        let (chain, facts) =
            verify::choose(&certificates, &[], &wanted).map_err(|error| failed(Failure::Answer(Box::new(error))))?;
        let server = format!("line: ({})", line.dialogue.names());
        Ok(Visited::Issued(Box::new(Issued { chain, facts, clock, url: url.clone(), server })))
    }

    /// The machine's own clock, for a host that did not say what time it is. It never gives a time before the floor.
    /// A clock within the payload's life at the start may expire the payload later. Any other clock may not.
    fn own_clock(&self) -> Clock {
        let (system, floor) = (Timestamp::system(), self.floor.now());
        let believed = self.context.clock.quality == ClockQuality::Rtc || system <= self.context.clock.expiry;
        Clock::starting_at(if believed { system.max(floor) } else { floor })
    }

    /// The properties that the certificate must have.
    fn wanted(&self, clock: Clock) -> verify::Wanted<'_> {
        verify::Wanted {
            spki: self.context.identity.spki(),
            names: Some(self.context.identity.names()),
            ca: &self.context.server.ca,
            issuers: &self.context.server.issuers,
            now: clock.now(),
        }
    }

    /// One attempt at one URL.
    fn visit(&mut self, site: &mut Site<'_>, deadline: Deadline) -> Result<Visited, Stop> {
        let url = match site.url {
            EstUrl::Https(url) => url,
            EstUrl::Line => return self.visit_line(site.url, deadline),
        };
        let visit = Visit { context: self.context, url, deadline };
        let from = self.floor.now();
        let expiry = self.context.clock.expiry;
        if from > expiry {
            // The payload expired during the check-in.
            let server = "this node's own timer".to_owned();
            return Err(Stop::Everything(Box::new(CheckinError::Expired { expiry, date: from, server })));
        }
        // Taken out of the site, so that a failure from here on brings the next visit back to the probe.
        let Probed { clock, told: mut tell, cas, kept } = match site.confirmed.take() {
            Some(Confirmed { clock, cas }) => {
                alive(site.url, clock, expiry)?;
                Probed { clock, told: false, cas: Cas::Given(cas), kept: None }
            }
            // The host on the line told the time, or the signature of the payload did, so no probe is needed.
            None if let Some(clock) = self.context.clock.quality.told() => {
                alive(site.url, clock, expiry)?;
                Probed { clock, told: false, cas: Cas::Wanted { basic: false }, kept: None }
            }
            None => visit.probe(from, self.progress)?,
        };
        let mut confirm = || {
            alive(site.url, clock, expiry)?;
            if std::mem::take(&mut tell) {
                (self.ask)(Ask::SetClock(clock.now()))
                    .map_err(|error| Stop::Everything(Box::new(CheckinError::Ask(error))))?;
            }
            Ok(())
        };
        let mut requests = visit.requests(clock, kept.filter(|_| site.habits.keeps));
        let cas = match cas {
            Cas::Given(cas) => cas,
            Cas::Wanted { basic } => {
                let answer = requests.ask(Step::CaCerts, Operation::CaCerts, basic, &mut site.habits, &mut confirm)?;
                est::certificates(&answer.response)
                    .map_err(|error| error.counted_from(clock.now()))
                    .map_err(|error| visit.failed(Step::CaCerts, &answer, Failure::Est(error)))?
            }
        };
        let csr = match self.context.renews {
            None => Operation::SimpleEnroll(self.context.identity.csr()),
            Some(_) => Operation::SimpleReenroll(self.context.identity.csr()),
        };
        let answer = requests.ask(Step::Enrol, csr, true, &mut site.habits, &mut confirm)?;
        let failed = |failure| visit.failed(Step::Enrol, &answer, failure);
        let certificates = match est::outcome(&answer.response)
            .map_err(|error| failed(Failure::Est(error.counted_from(clock.now()))))?
        {
            Outcome::Issued(certificates) => certificates,
            Outcome::RetryAfter(when) => {
                site.confirmed = Some(Confirmed { clock, cas });
                return Ok(Visited::Held(when.map(|when| match when {
                    RetryAfter::Delay(delay) => delay,
                    RetryAfter::At(at) => at.since(clock.now()),
                })));
            }
        };
        alive(site.url, clock, expiry)?;
        let (chain, facts) = verify::choose(&certificates, &cas, &self.wanted(clock))
            .map_err(|error| failed(Failure::Answer(Box::new(error))))?;
        let server = format!("{url} ({})", answer.address);
        Ok(Visited::Issued(Box::new(Issued { chain, facts, clock, url: site.url.clone(), server })))
    }
}
