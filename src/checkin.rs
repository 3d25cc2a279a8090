//! Has the CSR signed by an EST server. Trusts the CA of the payload and nothing else, believes a server's Date only
//! within the payload's life, and gives out a certificate only when it is the one that was asked for.
//!
//! Each attempt at a URL is two connections (design: clock). The first is a probe: it carries no secret and takes a
//! server certificate that was valid at some moment of the payload's life. Its Date sets the clock. The second is
//! verified at that time, and carries token and CSR.

mod error;
mod exchange;
mod verify;

use std::net::SocketAddr;
use std::time::Duration;

pub use error::{AnswerError, AskError, Attempt, CheckinError, Failure, Step};

use crate::est::{self, Basic, EstError, Operation, Outcome, RetryAfter};
use crate::identity::Identity;
use crate::payload::HttpsUrl;
use crate::plan::{ClockPlan, Server};
use crate::time::{Clock, Deadline, Timestamp, since_boot};
use crate::tls::{CertificateFacts, ClientCertificate, When};

/// What the check-in may ask of the privileged half, by value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Set system clock and real-time clock to this time, which is right to within a second.
    SetClock(Timestamp),
}

/// What is going on, for a console.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A server said what time it is, and the time is credible.
    Clock {
        /// URL and address.
        server: &'a str,
        /// Its Date.
        date: Timestamp,
    },
    /// Nothing worked yet.
    Waiting {
        /// The last failure of each URL.
        attempts: &'a [Attempt],
        /// Until the next try.
        delay: Duration,
    },
}

/// What a check-in needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whom to ask, and whom to trust.
    pub server: &'a Server,
    /// What is known about the time of day.
    pub clock: &'a ClockPlan,
    /// Key and CSR.
    pub identity: &'a Identity,
    /// The certificate that is to be renewed, with its key; `None` asks for the first one.
    pub renews: Option<&'a ClientCertificate>,
    /// User-Agent header field.
    pub user_agent: &'a str,
}

/// A certificate that was verified: for our key, with exactly our names, from a CA that the payload allows. Only this
/// module makes one.
#[derive(Clone, Debug)]
pub struct Issued {
    chain: Vec<Vec<u8>>,
    facts: CertificateFacts,
    clock: Clock,
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

    /// The time of day by the server's Date, to within a second.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// URL and address of the server.
    pub fn server(&self) -> &str {
        &self.server
    }
}

/// Gets a certificate. Tries each URL in order, and all of them again until the deadline; a URL whose failure will
/// not mend by itself is not tried again.
pub fn enroll(
    context: &Context<'_>,
    ask: &mut dyn FnMut(Ask) -> Result<(), AskError>,
    progress: &mut dyn FnMut(Progress<'_>),
    deadline: Deadline,
) -> Result<Issued, CheckinError> {
    let begun = since_boot();
    // From here on the earliest possible time advances with the machine.
    let floor = Clock::starting_at(context.clock.floor);
    let mut attempts: Vec<Attempt> = Vec::new();
    for round in 0u32.. {
        for url in &context.server.urls {
            let earlier = attempts.iter().position(|attempt| attempt.url == *url);
            if earlier.and_then(|index| attempts.get(index)).is_some_and(|attempt| attempt.failure.lasts()) {
                continue;
            }
            if deadline.expired() {
                break;
            }
            let visit = Visit { context, url, deadline: deadline.at_most(ATTEMPT) };
            match visit.run(&floor, ask, progress) {
                Ok(issued) => return Ok(issued),
                Err(Stop::Everything(error)) => return Err(*error),
                Err(Stop::Here(attempt)) => match earlier.and_then(|index| attempts.get_mut(index)) {
                    Some(slot) => *slot = *attempt,
                    None => attempts.push(*attempt),
                },
            }
        }
        let over = |url: &HttpsUrl| attempts.iter().any(|attempt| attempt.url == *url && attempt.failure.lasts());
        if context.server.urls.iter().all(over) {
            return Err(CheckinError::Failed { attempts });
        }
        let delay = backoff(round, &attempts);
        if deadline.remaining() <= delay {
            break;
        }
        progress(Progress::Waiting { attempts: &attempts, delay });
        std::thread::sleep(delay);
    }
    Err(CheckinError::GaveUp { waited: since_boot().saturating_sub(begun), attempts })
}

/// The longest that one URL may take before the next gets its turn.
const ATTEMPT: Duration = Duration::from_secs(30);
/// The longest wait between two rounds, and the longest Retry-After that is honoured.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Full jitter: anything up to a ceiling that doubles, so that ten thousand nodes that boot at once spread out. A
/// server that says when to come back is heard.
fn backoff(round: u32, attempts: &[Attempt]) -> Duration {
    let ceiling = Duration::from_millis(500).saturating_mul(1 << round.min(8)).min(LONGEST_WAIT);
    let mut random = [0; 4];
    // Without randomness the ceiling itself is a fine wait.
    let part = match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    };
    let told = attempts.iter().filter_map(|attempt| match &attempt.failure {
        Failure::Est(EstError::Busy { retry_after: Some(RetryAfter::Delay(delay)), .. }) => Some(*delay),
        _ => None,
    });
    let told = told.min().unwrap_or_default().min(LONGEST_WAIT);
    told + Duration::from_millis(50) + ceiling.mul_f64(part)
}

/// Why an attempt ended: this URL, or everything.
enum Stop {
    Here(Box<Attempt>),
    Everything(Box<CheckinError>),
}

/// One attempt at one URL.
struct Visit<'a> {
    context: &'a Context<'a>,
    url: &'a HttpsUrl,
    deadline: Deadline,
}

impl Visit<'_> {
    fn run(
        &self,
        floor: &Clock,
        ask: &mut dyn FnMut(Ask) -> Result<(), AskError>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Issued, Stop> {
        let server = self.context.server;
        let expiry = self.context.clock.expiry;
        let from = floor.now();
        if from > expiry {
            // Its life ended while it was being used.
            let server = "this machine's own count".to_owned();
            return Err(Stop::Everything(Box::new(CheckinError::Expired { expiry, date: from, server })));
        }

        let probe =
            est::request(Operation::CaCerts, &self.url.authority(), self.url.path(), None, self.context.user_agent);
        let answer = self.exchange(Step::Probe, When::Within { from, to: expiry }, &probe)?;
        let failed = |failure| self.failed(Step::Probe, Some(answer.address), failure);
        let known_cas = est::certificates(&answer.response).map_err(|error| failed(Failure::Est(error)))?;
        let date = credible(answer.response.date.as_deref(), &answer.server, from).map_err(failed)?;
        let name = format!("{} ({})", self.url, answer.address);
        if date > expiry {
            return Err(Stop::Everything(Box::new(CheckinError::Expired { expiry, date, server: name })));
        }
        // A Date is cut to the second, so the middle of that second is off by half a second at most, plus the way.
        let clock = Clock::starting_at(date.plus(Duration::from_millis(500)));
        progress(Progress::Clock { server: &name, date });
        ask(Ask::SetClock(clock.now())).map_err(|error| Stop::Everything(Box::new(CheckinError::Ask(error))))?;

        let basic = server.token.as_ref().map(|token| Basic { name: &server.name, token: &token.secret });
        let request = est::request(
            match self.context.renews {
                None => Operation::SimpleEnroll(self.context.identity.csr()),
                Some(_) => Operation::SimpleReenroll(self.context.identity.csr()),
            },
            &self.url.authority(),
            self.url.path(),
            basic.as_ref(),
            self.context.user_agent,
        );
        let answer = self.exchange(Step::Enrol, When::Now(clock), &request)?;
        let failed = |failure| self.failed(Step::Enrol, Some(answer.address), failure);
        let certificates = match est::outcome(&answer.response).map_err(|error| failed(Failure::Est(error)))? {
            Outcome::Issued(certificates) => certificates,
            Outcome::RetryAfter(_) => return Err(failed(Failure::Pending(self.context.identity.code()))),
        };
        let wanted = verify::Wanted {
            spki: self.context.identity.spki(),
            names: self.context.identity.names(),
            ca: &server.ca,
            issuers: &server.issuers,
            now: clock.now(),
        };
        let (chain, facts) = verify::choose(&certificates, &known_cas, &wanted)
            .map_err(|error| failed(Failure::Answer(Box::new(error))))?;
        Ok(Issued { chain, facts, clock, server: format!("{} ({})", self.url, answer.address) })
    }

    fn exchange(&self, step: Step, when: When, request: &[u8]) -> Result<exchange::Answer, Stop> {
        // A probe says nothing about who asks.
        let client = if step == Step::Enrol { self.context.renews } else { None };
        exchange::exchange(self.url, &self.context.server.ca, when, client, request, self.deadline)
            .map_err(|(address, failure)| self.failed(step, address, failure))
    }

    fn failed(&self, step: Step, address: Option<SocketAddr>, failure: Failure) -> Stop {
        Stop::Here(Box::new(Attempt { url: self.url.clone(), address, step, failure }))
    }
}

/// A probe's Date, if it is one that the probe's own certificate and the payload allow. Whether the payload has
/// expired by it is the caller's question: a Date must be credible before it can end a boot.
fn credible(date: Option<&str>, server: &CertificateFacts, floor: Timestamp) -> Result<Timestamp, Failure> {
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
