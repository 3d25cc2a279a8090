//! The lists of revoked certificates: made by a thread of their own and served from memory. However often a list is
//! asked for and however much is revoked, the store is looked at once in [`EVERY`], and the thread that decides about
//! certificates is never asked. Revokes nothing.

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

/// A revocation is in the list at most this much later.
pub const EVERY: Duration = Duration::from_secs(5);
/// A list is made anew after this time, so that whoever fetches it has it for almost its whole validity.
const AGE: Duration = Duration::from_secs(3600);
/// So many ask for a list that is being looked at; others wait until there is room.
const QUEUE: usize = 64;

/// A list that was made.
#[derive(Clone)]
pub(super) struct List {
    /// Each is one more than the one before.
    pub(super) number: u64,
    /// When it was made.
    pub(super) made_at: Timestamp,
    /// DER.
    pub(super) der: Bytes,
    /// How many certificates of the issuer were revoked when it was made, those included that have expired since. That
    /// number only grows, so that another one means another list.
    revoked: u64,
}

/// What is answered to whoever asks for a list.
#[derive(Clone)]
pub(super) enum Found {
    /// The list.
    List(List),
    /// There is no such intermediate.
    NoIssuer,
    /// The store or the CA has a fault; its words are for the server's own log.
    Fault(String),
}

/// The lists that were asked for, by key identifier of their intermediate, and when each was looked at.
type Memory = Mutex<HashMap<String, (Timestamp, Found)>>;

struct Job {
    issuer: String,
    reply: oneshot::Sender<Found>,
}

/// The lists, and the way to the thread that makes them.
pub(super) struct Lists {
    memory: Arc<Memory>,
    clock: Clock,
    jobs: mpsc::Sender<Job>,
}

impl Lists {
    /// Starts the thread. It ends once nobody can ask any more.
    pub(super) fn start(state: State, clock: Clock, metrics: Arc<Metrics>) -> Result<Lists, ServeError> {
        let (jobs, waits) = mpsc::channel(QUEUE);
        let memory = Arc::new(Memory::default());
        let thread = std::thread::Builder::new().name("lists".to_owned());
        let worker = Worker { state, memory: memory.clone(), clock: clock.clone(), metrics };
        thread.spawn(move || worker.run(waits)).map_err(ServeError::Runtime)?;
        Ok(Lists { memory, clock, jobs })
    }

    /// The list of an intermediate, by its key identifier in hexadecimal digits.
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

/// What is known of a list that was looked at a short while ago; not if the clock went back since.
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
            // Many may wait for the same one: the first of them has it looked at.
            let found = fresh(&self.memory, &issuer, now).unwrap_or_else(|| self.look(&issuer, now));
            // Whoever asked may be gone.
            let _ = reply.send(found);
        }
    }

    /// What fails is kept as well: asking again does not make it try again at once.
    fn look(&mut self, issuer: &str, now: Timestamp) -> Found {
        // One stat(2), if the CA is as it was.
        if self.state.ca.intermediate_of(issuer).is_none()
            && let Err(error) = self.state.refresh()
        {
            return Found::Fault(chain(&error));
        }
        let State { ca, store, .. } = &mut self.state;
        // Not kept: nobody knows how many such names are asked for.
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
            // On a full disk, for example. To somebody who has no list yet, one that is a little old says more than none.
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

/// The last list if it still says everything, else another one. The store is read without holding it, and held only to
/// keep the number: nothing that is decided meanwhile waits for a long list.
fn current(store: &mut Store, issuer: &Intermediate, last: Option<&List>, now: Timestamp) -> Result<List, Error> {
    let id = issuer.id();
    // Counted before they are read: what is revoked in between is found again the next time.
    let revoked = store.count_revoked(&id)?;
    if let Some(last) = last
        && last.revoked == revoked
        && last.made_at <= now
        && now < last.made_at.plus(AGE)
    {
        return Ok(last.clone());
    }
    // RFC 5280 §3.3: an entry is there in at least one list that was made after the certificate expired.
    let entries: Vec<Revoked> = store.revoked(&id, now.minus(AGE.saturating_mul(2)))?;
    let number = store.crl_number(&id)?.saturating_add(1);
    let der = issuer.crl(number, &entries, now)?;
    // Before anybody sees the list: another one with its number must never be made, whatever stops this program.
    let changes = store.changes()?;
    changes.put_crl(&id, &CrlRow { number, made_at: now })?;
    changes.commit()?;
    Ok(List { number, made_at: now, der: der.into(), revoked })
}
