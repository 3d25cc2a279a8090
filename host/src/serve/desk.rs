//! The thread that makes decisions. Requests that arrive while it waits for the disk are decided together, in one
//! transaction with one write. Its queue is bounded: when it is full, clients are told to come back. The rules are
//! `enrol`'s: this thread never makes its own.

pub(super) mod bundles;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use imprint::line::{Challenge, Hello};
use imprint::payload::KeyType;
use imprint::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use super::outbox::Outbox;
use super::{Clock, ServeError};
use crate::admission::{Admission, Caller};
use crate::compose::Options;
use crate::crash;
use crate::csr::{Csr, CsrError};
use crate::enrol::{self, Alarm, Answer, Credentials, Decision, Desk as Bench, EnrolError, Proof, Refusal, Request};
use crate::room;
use crate::state::{self, State};
use crate::store::{self, Books, CertificateRow, StoreError};
use crate::talk::{Decided, Payload, Signed};

/// The most requests that wait. At a few hundred microseconds each, the last one waits a fraction of a second.
const QUEUE: usize = 512;
/// The most requests in one transaction, so that none waits long for the others.
const TOGETHER: usize = 64;

/// A CSR whose signature was checked, or why it is invalid. The connection's task checks it, not the desk's thread.
pub(super) type Checked = Result<Csr, CsrError>;

/// A question to the desk.
pub(super) enum Asked {
    /// A first certificate.
    First { csr: Checked, credentials: Option<Credentials> },
    /// A renewed certificate.
    Renewal { csr: Checked, certificate: Option<Arc<[u8]>> },
    /// The type of key that a CSR should have.
    Key { credentials: Option<Credentials>, certificate: Option<Arc<[u8]>> },
    /// A client has shown a certificate in a handshake.
    Shown { certificate: Arc<[u8]> },
    /// A node calls at a door: is it let in?
    Call { caller: Box<Caller> },
    /// A payload for the caller with this HELLO, which was let in as this node.
    Payload { node: String, hello: [u8; 32], options: Box<Options> },
    /// A payload that was made for a caller, signed for its HELLO, its challenge and this moment.
    Fresh { node: String, payload: Box<Payload>, hello: Box<Hello>, challenge: Challenge },
    /// A first certificate for a caller that was let in.
    Line { csr: Checked, credentials: Box<Credentials> },
    /// The latest certificate of a node.
    Latest { node: String },
    /// Whether somebody else has changed the store.
    Version,
    /// A node asks about bundles.
    Bundle(Box<bundles::Ask>),
    /// How many bundles wait, and how many nodes are available.
    Counts,
}

/// The desk's answer.
pub(super) enum Said {
    /// The answer to a request for a certificate.
    Answer(Answer),
    /// The type of key that a CSR should have, or why the question is refused.
    Key(Result<KeyType, Refusal>),
    /// The shown certificate was noted.
    Noted,
    /// Whether the node that called is let in.
    Admission(Admission),
    /// The payload, or why there is none.
    Payload(Result<Box<Payload>, String>),
    /// The signed payload, or why there is none.
    Fresh(Result<Signed, String>),
    /// The caller is not let in, or not any more. Nothing was decided.
    Ended,
    /// The answer to a request over a line, and the intermediate CA that goes with it.
    Decided(Box<Decided>),
    /// The latest certificate.
    Latest(Option<Box<CertificateRow>>),
    /// A number that changes when another program changes the store.
    Version(i64),
    /// The answer to a node that asks about bundles.
    Bundle(Box<bundles::Answered>),
    /// How many bundles wait, and how many nodes are available.
    Counts(i64, i64),
    /// The store or the CA failed. The text is for the server's own log.
    Fault(String),
    /// The queue is full.
    Full,
    /// The disk is full; nothing was decided.
    NoRoom,
}

struct Job {
    asked: Asked,
    peer: String,
    reply: oneshot::Sender<Said>,
}

impl Job {
    /// Whether the job takes no part in the transaction of the others.
    fn is_alone(&self) -> bool {
        matches!(self.asked, Asked::Fresh { .. } | Asked::Version | Asked::Counts)
    }

    /// Whether a node asks about bundles.
    fn is_bundle(&self) -> bool {
        matches!(&self.asked, Asked::Bundle(ask) if !ask.what.only_reads())
    }
}

/// A handle to the thread.
pub(super) struct Desk {
    jobs: mpsc::Sender<Job>,
    waiting: Arc<AtomicUsize>,
}

impl Desk {
    /// Starts the thread. It ends when the handle is dropped.
    pub(super) fn start(
        state: State,
        clock: Clock,
        metrics: Arc<Metrics>,
        outbox: Arc<Outbox>,
    ) -> Result<Desk, ServeError> {
        let (jobs, waits) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::Builder::new().name("desk".to_owned());
        let worker = Worker { state, clock, metrics, waiting: waiting.clone(), full: false, outbox };
        thread.spawn(move || worker.run(waits)).map_err(ServeError::Runtime)?;
        Ok(Desk { jobs, waiting })
    }

    /// Asks, and waits for the answer. A decision is on the disk before its answer.
    pub(super) async fn ask(&self, asked: Asked, peer: String) -> Said {
        let (reply, answer) = oneshot::channel();
        match self.jobs.try_send(Job { asked, peer, reply }) {
            Ok(()) => self.waiting.fetch_add(1, Ordering::Relaxed),
            Err(mpsc::error::TrySendError::Full(_)) => return Said::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => return Said::Fault("the desk is closed".to_owned()),
        };
        answer.await.unwrap_or_else(|_| Said::Fault("the desk gave no answer".to_owned()))
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

struct Worker {
    state: State,
    clock: Clock,
    metrics: Arc<Metrics>,
    waiting: Arc<AtomicUsize>,
    /// The disk was full, and nothing was written since.
    full: bool,
    /// Which programs are told what happens.
    outbox: Arc<Outbox>,
}

impl Worker {
    fn run(mut self, mut waits: mpsc::Receiver<Job>) {
        while let Some(first) = waits.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < TOGETHER
                && let Ok(next) = waits.try_recv()
            {
                jobs.push(next);
            }
            self.waiting.fetch_sub(jobs.len(), Ordering::Relaxed);
            match self.state.refresh() {
                Ok(false) => {}
                Ok(true) => tracing::info!("signing with another intermediate from now on"),
                Err(error) => tracing::error!("opening the CA again: {}", imprint::chain::chain(&error)),
            }
            let room = self.has_room();
            let (alone, jobs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(Job::is_alone);
            let mut said: Vec<Said> = alone.iter().map(|job| self.alone(job)).collect();
            match room {
                true if jobs.is_empty() => {}
                true => said.extend(self.together(&jobs)),
                false => said.extend(jobs.iter().map(|job| self.without_room(job))),
            }
            for (job, said) in alone.into_iter().chain(jobs).zip(said) {
                // The connection may have ended; then nobody receives the answer.
                let _ = job.reply.send(said);
            }
        }
    }

    /// Whether something may be written: the reserve for the administrator's commands (`room`) is whole, and a disk that was
    /// full has more room than that. The server signs only then.
    fn has_room(&mut self) -> bool {
        let dir = self.state.ca.dir();
        let kept = if room::is_whole(dir) && !self.full { Ok(()) } else { room::restore(dir, room::BYTES) };
        match kept {
            Ok(()) => true,
            Err(error) if room::is_no_room(error.kind()) => {
                self.is_full();
                false
            }
            Err(error) => {
                tracing::warn!("keeping room on the disk of {}: {error}", dir.display());
                true
            }
        }
    }

    /// Notes that the disk is full, and says so once.
    fn is_full(&mut self) {
        if !std::mem::replace(&mut self.full, true) {
            let dir = self.state.ca.dir().display();
            tracing::error!(
                "the disk of {dir} is full: nothing is signed until there is room; revoke, deny and log still work"
            );
        }
    }

    /// Something was written: whatever the disk says of itself, there is room.
    fn was_written(&mut self) {
        if std::mem::take(&mut self.full) {
            tracing::info!("the disk of {} has room again", self.state.ca.dir().display());
        }
    }

    /// Answers on a full disk: questions that only read are still answered.
    fn without_room(&mut self, job: &Job) -> Said {
        match &job.asked {
            Asked::First { .. }
            | Asked::Renewal { .. }
            | Asked::Call { .. }
            | Asked::Payload { .. }
            | Asked::Fresh { .. }
            | Asked::Line { .. }
            | Asked::Version
            | Asked::Counts => Said::NoRoom,
            Asked::Bundle(ask) if !ask.what.only_reads() => Said::NoRoom,
            Asked::Shown { .. } => Said::Noted,
            Asked::Key { .. } | Asked::Latest { .. } | Asked::Bundle(_) => {
                self.together(std::slice::from_ref(job)).pop().unwrap_or(Said::NoRoom)
            }
        }
    }

    /// Answers a job that has transactions of its own, or none.
    fn alone(&mut self, job: &Job) -> Said {
        let fault = |error: &(dyn std::error::Error + 'static)| Said::Fault(imprint::chain::chain(error));
        match &job.asked {
            Asked::Fresh { node, payload, hello, challenge } => {
                let now = (self.clock)();
                let store = &self.state.store;
                match store.reading(|books| outdated(books, node, payload, &hello.digest(), now)) {
                    Ok(Some(said)) => return said,
                    Ok(None) => {}
                    Err(error) => return fault(&error),
                }
                let signed = self.state.fresh(payload.bytes.expose(), hello, challenge, now);
                let signed = signed.map(|signed| signed.map_or(Signed::NoSigner, Signed::Payload));
                Said::Fresh(signed.map_err(|error| imprint::chain::chain(&error)))
            }
            Asked::Counts => match self.state.store.count_bundles() {
                Ok((pending, available)) => Said::Counts(pending, available),
                Err(error) => fault(&error),
            },
            _ => self.state.store.data_version().map_or_else(|error| fault(&error), Said::Version),
        }
    }

    fn together(&mut self, jobs: &[Job]) -> Vec<Said> {
        match self.decide(jobs) {
            Ok(said) => said,
            // The whole transaction was rolled back. Each job alone then succeeds, but for the one at fault.
            Err(_) if jobs.len() > 1 => jobs.chunks(1).flat_map(|job| self.together(job)).collect(),
            Err(error) if room::is_missing(&error, self.state.ca.dir()) => {
                self.is_full();
                vec![Said::NoRoom]
            }
            Err(error) => vec![Said::Fault(imprint::chain::chain(&error))],
        }
    }

    /// Decides all jobs in one transaction and commits it. If one job fails, none is decided.
    fn decide(&mut self, jobs: &[Job]) -> Result<Vec<Said>, EnrolError> {
        let State { ca, store, urls } = &mut self.state;
        let changes = store.changes()?;
        let (mut said, mut told) = (Vec::new(), Vec::new());
        for job in jobs {
            let bench = Bench { changes: &changes, ca, urls, now: (self.clock)() };
            let (word, what) = one(&bench, job, self.outbox.told())?;
            said.push(word);
            told.push(what);
        }
        let bundles = jobs.iter().any(Job::is_bundle);
        crash::point("decided");
        if bundles {
            crash::point("bundle decided");
        }
        let writes = changes.writes();
        changes.commit()?;
        crash::point("booked");
        if bundles {
            crash::point("bundle booked");
        }
        if bundles && writes {
            self.outbox.look();
        }
        if writes {
            self.was_written();
        }
        for what in told {
            match what {
                Told::Decision(decision) => {
                    decision.tell();
                    self.metrics.decided(&decision);
                }
                Told::Alarm(alarm) => {
                    alarm.tell();
                    self.metrics.alarms.inc();
                }
                Told::Nothing => {}
            }
        }
        Ok(said)
    }
}

/// A decision for the server's log and counters, after the commit.
enum Told {
    Decision(Box<Decision>),
    Alarm(Alarm),
    Nothing,
}

fn one(bench: &Bench<'_>, job: &Job, tell: &[store::Told]) -> Result<(Said, Told), EnrolError> {
    let decided = |decision: Decision| (Said::Answer(decision.answer.clone()), Told::Decision(Box::new(decision)));
    match &job.asked {
        Asked::First { csr, credentials } => {
            let request = Request { csr: csr.as_ref(), credentials: credentials.as_ref(), peer: &job.peer };
            enrol::simple_enroll(bench, &request).map(decided)
        }
        Asked::Renewal { csr, certificate } => {
            enrol::simple_reenroll(bench, csr.as_ref(), certificate.as_deref(), &job.peer).map(decided)
        }
        Asked::Key { credentials, certificate } => {
            let key = enrol::key_wanted(bench, credentials.as_ref(), certificate.as_deref())?;
            Ok((Said::Key(key), Told::Nothing))
        }
        Asked::Shown { certificate } => {
            let alarm = enrol::shown_in_a_handshake(bench, certificate, &job.peer)?;
            Ok((Said::Noted, alarm.map_or(Told::Nothing, Told::Alarm)))
        }
        Asked::Call { caller } => {
            let admission = state::call_within(bench.changes, bench.urls, caller, bench.now)?;
            Ok((Said::Admission(admission), Told::Nothing))
        }
        Asked::Line { csr, credentials } => {
            // Whoever was denied meanwhile may have the payload already.
            if let Proof::Line { hello, .. } = &credentials.proof
                && state::stands(bench.changes, &hello.digest(), &credentials.name, bench.now)?.is_none()
            {
                return Ok((Said::Ended, Told::Nothing));
            }
            let request = Request { csr: csr.as_ref(), credentials: Some(credentials), peer: &job.peer };
            let decision = enrol::simple_enroll(bench, &request)?;
            let (answer, intermediate) = (decision.answer.clone(), bench.ca.intermediate().to_vec());
            Ok((Said::Decided(Box::new(Decided { answer, intermediate })), Told::Decision(Box::new(decision))))
        }
        Asked::Payload { node, hello, options } => match state::payload_for(bench, hello, node, options) {
            Ok(composed) => Ok((Said::Payload(Ok(Box::new(composed.into()))), Told::Nothing)),
            Err(state::Error::NotLetIn(_)) => Ok((Said::Ended, Told::Nothing)),
            // What was written of it must not be kept.
            Err(state::Error::Store(error)) => Err(error.into()),
            Err(error) => Ok((Said::Payload(Err(imprint::chain::chain(&error))), Told::Nothing)),
        },
        Asked::Bundle(ask) => {
            let (answer, alarm) = bundles::one(bench, ask, tell, &job.peer)?;
            Ok((Said::Bundle(Box::new(answer)), alarm.map_or(Told::Nothing, Told::Alarm)))
        }
        // These are answered alone.
        Asked::Fresh { .. } | Asked::Version | Asked::Counts => Ok((Said::Full, Told::Nothing)),
        Asked::Latest { node } => {
            let (latest, _) = bench.changes.latest(node)?;
            Ok((Said::Latest(latest.map(Box::new)), Told::Nothing))
        }
    }
}

/// Why a payload that was made for a caller must not be sent to it now: an administrator may have decided since.
fn outdated(
    books: &Books,
    node: &str,
    payload: &Payload,
    hello: &[u8; 32],
    now: Timestamp,
) -> Result<Option<Said>, StoreError> {
    if state::stands(books, hello, node, now)?.is_none() {
        return Ok(Some(Said::Ended));
    }
    let good = state::may_be_sent(books, payload.id, hello, node, now)?;
    Ok((!good).then_some(Said::Fresh(Ok(Signed::Void))))
}
