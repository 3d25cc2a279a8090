//! CRLs: made by a thread of their own and served from memory. Whatever the number of requests and revocations, the store
//! is read at most once in [`EVERY`] for each CRL. Never uses the desk's thread; revokes nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use imprint::chain::chain;
use imprint::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use super::{Clock, ServeError};
use crate::ca::{CRL_VALIDITY, Intermediate};
use crate::state::{Error, State};
use crate::store::{CrlRow, Store};
use crate::x509::Revoked;

/// A revocation is in the CRL after this time at the latest.
pub const EVERY: Duration = Duration::from_secs(5);
/// A CRL is made anew after this time, so that a client gets it with almost its whole validity left.
const AGE: Duration = Duration::from_secs(3600);
/// The most requests in the thread's queue; others wait until there is room.
const QUEUE: usize = 64;

/// A CRL that was made.
#[derive(Clone)]
pub(super) struct List {
    /// The CRL number, one more than the number before.
    pub(super) number: u64,
    /// When it was made.
    pub(super) made_at: Timestamp,
    /// DER.
    pub(super) der: Bytes,
    /// How many certificates of the issuer were revoked when the CRL was made, expired ones included. This number only
    /// grows, so a different number means that a new CRL is needed.
    revoked: u64,
}

/// The answer to a request for a CRL.
#[derive(Clone)]
pub(super) enum Found {
    /// The CRL.
    List(List),
    /// There is no such intermediate.
    NoIssuer,
    /// The store or the CA failed. The text is for the server's own log.
    Fault(String),
}

/// The CRLs that were asked for, by key identifier of their intermediate, with the time of the last look at the store.
type Memory = Mutex<HashMap<String, (Timestamp, Found)>>;

struct Job {
    issuer: String,
    reply: oneshot::Sender<Found>,
}

/// The CRLs, and a handle to the thread that makes them.
pub(super) struct Lists {
    memory: Arc<Memory>,
    clock: Clock,
    jobs: mpsc::Sender<Job>,
}

impl Lists {
    /// Starts the thread. It ends when the handle is dropped.
    pub(super) fn start(state: State, clock: Clock, metrics: Arc<Metrics>) -> Result<Lists, ServeError> {
        let (jobs, waits) = mpsc::channel(QUEUE);
        let memory = Arc::new(Memory::default());
        let thread = std::thread::Builder::new().name("lists".to_owned());
        let worker = Worker { state, memory: memory.clone(), clock: clock.clone(), metrics };
        thread.spawn(move || worker.run(waits)).map_err(ServeError::Runtime)?;
        Ok(Lists { memory, clock, jobs })
    }

    /// The CRL of an intermediate, by its key identifier in hexadecimal digits.
    pub(super) async fn get(&self, issuer: &str) -> Found {
        if let Some(found) = fresh(&self.memory, issuer, (self.clock)()) {
            return found;
        }
        let (reply, answer) = oneshot::channel();
        let gone = || Found::Fault("the thread that makes lists of revoked certificates has ended".to_owned());
        match self.jobs.send(Job { issuer: issuer.to_owned(), reply }).await {
            Ok(()) => answer.await.unwrap_or_else(|_| gone()),
            Err(_) => gone(),
        }
    }
}

/// The remembered answer, if it is younger than [`EVERY`]. `None` also if the clock was set back since.
fn fresh(memory: &Memory, issuer: &str, now: Timestamp) -> Option<Found> {
    let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    let (at, found) = memory.get(issuer)?;
    (*at <= now && now < at.plus(EVERY)).then(|| found.clone())
}

struct Worker {
    state: State,
    memory: Arc<Memory>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Worker {
    fn run(mut self, mut waits: mpsc::Receiver<Job>) {
        while let Some(Job { issuer, reply }) = waits.blocking_recv() {
            let now = (self.clock)();
            // Many requests may wait for the same CRL: only the first one reads the store.
            let found = fresh(&self.memory, &issuer, now).unwrap_or_else(|| self.look(&issuer, now));
            // The connection may have ended; then nobody receives the answer.
            let _ = reply.send(found);
        }
    }

    /// Reads the store for a CRL, and remembers the answer. Errors are remembered as well, so that requests do not make it
    /// retry at once.
    fn look(&mut self, issuer: &str, now: Timestamp) -> Found {
        // If the CA has not changed, this is one stat(2).
        if self.state.ca.intermediate_of(issuer).is_none()
            && let Err(error) = self.state.refresh()
        {
            return Found::Fault(chain(&error));
        }
        let State { ca, store, .. } = &mut self.state;
        // Not remembered: clients can ask for any number of unknown names.
        let Some(intermediate) = ca.intermediate_of(issuer) else { return Found::NoIssuer };
        let last = match self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(issuer) {
            Some((_, Found::List(list))) => Some(list.clone()),
            _ => None,
        };
        let found = match (current(store, intermediate, last.as_ref(), now), last) {
            (Ok(list), last) => {
                if last.is_none_or(|last| last.number != list.number) {
                    self.metrics.lists.inc();
                }
                Found::List(list)
            }
            // The new CRL could not be made, for example because the disk is full. An old CRL is better than none.
            (Err(error), Some(last)) if last.made_at <= now && now < last.made_at.plus(CRL_VALIDITY) => {
                tracing::error!("the list of revoked certificates stays as it was: {}", chain(&error));
                Found::List(last)
            }
            (Err(error), _) => Found::Fault(chain(&error)),
        };
        let kept = (now, found.clone());
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).insert(issuer.to_owned(), kept);
        found
    }
}

/// The last CRL if it is still complete, else a new one. Reads the store without the writers' lock and takes the lock only
/// to store the number, so that decisions do not wait for a long CRL.
fn current(store: &mut Store, issuer: &Intermediate, last: Option<&List>, now: Timestamp) -> Result<List, Error> {
    let id = issuer.id();
    // Count first, then read: the next look then finds a revocation that happened in between.
    let revoked = store.count_revoked(&id)?;
    if let Some(last) = last
        && last.revoked == revoked
        && last.made_at <= now
        && now < last.made_at.plus(AGE)
    {
        return Ok(last.clone());
    }
    // RFC 5280 §3.3: an entry stays until it was in one CRL that was made after the certificate expired.
    let entries: Vec<Revoked> = store.revoked(&id, now.minus(AGE.saturating_mul(2)))?;
    let number = store.crl_number(&id)?.saturating_add(1);
    let der = issuer.crl(number, &entries, now)?;
    // The number is stored before anybody sees the CRL: even after a crash, no other CRL may have the same number.
    let changes = store.changes()?;
    changes.put_crl(&id, &CrlRow { number, made_at: now })?;
    changes.commit()?;
    Ok(List { number, made_at: now, der: der.into(), revoked })
}
