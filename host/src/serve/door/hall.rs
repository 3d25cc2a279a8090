//! What all visits at the doors share: the way to the server's desk, places for callers, the clock, and the news that an
//! administrator has changed the store. Talks to no node.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use imprint::line::{Challenge, Hello};
use imprint::payload::PayloadId;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admission::{Admission, Caller, Level};
use crate::compose::Options;
use crate::enrol::{Answer, Refusal};
use crate::serve::Shared;
use crate::serve::desk::{Asked as Question, Said};
use crate::serve::guests::{Guest, Guests};
use crate::serve::pace::{A_SECOND, AT_ONCE, Pace};
use crate::store::CertificateRow;
use crate::talk::{Asked, Decided, Office, Payload, Signed, Trouble};

/// How often the store is looked at for decisions of administrators, if anybody waits for one.
const LOOK: Duration = Duration::from_millis(500);
/// The most questions of callers at the desk at a time. Others wait for their turn here, so that the desk's queue always has
/// places for EST.
const TURNS: usize = 128;
/// A difference between the system's clock and this process's own that means that the system's clock was set.
const SET: u64 = 250_000;
/// How long open conversations may go on when the server stops.
const CLOSING: Duration = Duration::from_secs(2);
/// A call that was turned away is told at most this often.
const TOLD: Duration = Duration::from_secs(60);
/// So long a payload is sent again to the line key that it was made for, signed anew.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// The most payloads that are kept. One has about two kilobytes.
const KEPT: usize = 16_384;
const NO_ROOM: &str = "the server's disk is full; make room there, then nodes can go on";

/// What all visits share.
pub(super) struct Hall {
    pub(super) shared: Arc<Shared>,
    guests: Arc<Guests<String>>,
    pace: Pace<String>,
    away: Mutex<Away>,
    turns: Semaphore,
    began: Instant,
    /// Microseconds from 1970 to `began`.
    epoch: AtomicU64,
    news: watch::Sender<News>,
    /// Visits that an administrator may decide about.
    followed: AtomicU64,
    kept: Mutex<HashMap<[u8; 32], Kept>>,
}

/// Calls that were turned away, for the log.
#[derive(Default)]
struct Away {
    /// When one was told last.
    told: Option<Instant>,
    /// How many were not told since.
    more: u64,
}

/// What visits are woken for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct News {
    /// Counts changes of the store by other programs.
    pub(super) changes: u64,
    /// Counts how often the system's clock was set.
    pub(super) set: u64,
    /// The server stops.
    pub(super) closed: bool,
}

/// A payload by the line key that it was made for. Anybody can say a HELLO again that was heard, and a node may call at two
/// addresses of this host at once: were each sent a payload of its own, the second would make the first void.
struct Kept {
    node: String,
    level: Option<Level>,
    at: Instant,
    /// Empty while it is being made.
    payload: Arc<OnceCell<Payload>>,
}

/// A visit that has to learn of decisions of administrators. It counts until it is dropped.
pub(super) struct Follower {
    hall: Arc<Hall>,
    /// It waits for one; the others are let in.
    waits: bool,
}

impl Hall {
    /// `places`: the most callers at a time.
    pub(super) fn new(shared: Arc<Shared>, places: usize) -> Arc<Hall> {
        Arc::new(Hall {
            shared,
            guests: Guests::new(places, 0),
            pace: Pace::default(),
            away: Mutex::default(),
            turns: Semaphore::new(TURNS),
            began: Instant::now(),
            epoch: AtomicU64::new(since_1970()),
            news: watch::channel(News::default()).0,
            followed: AtomicU64::new(0),
            kept: Mutex::default(),
        })
    }

    /// A place for one more caller of this origin; `None`: there is none, and it is turned away.
    pub(super) fn place(&self, source: &str) -> Option<Guest<String>> {
        let place = self.guests.admit(source.to_owned());
        if place.is_none() {
            self.turned_away(source, "door", "it has half of the places that others leave free, or all are taken");
        }
        place
    }

    /// How long a call of this origin, or something else that takes work, has to wait for its turn. `None`: it has called too
    /// often, and is turned away.
    pub(super) fn turn(&self, source: &str) -> Option<Duration> {
        let turn = self.pace.turn(source.to_owned(), Instant::now());
        if turn.is_err() {
            let why = format!("it may call {AT_ONCE} times at once and then {A_SECOND} times a second");
            self.turned_away(source, "door-rate", &why);
        }
        turn.ok()
    }

    /// Counts a call that was turned away, and says so once a minute: whoever calls without a pause does not fill the log.
    fn turned_away(&self, source: &str, reason: &'static str, why: &str) {
        self.shared.metrics.turned_away(reason);
        let now = Instant::now();
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.told.is_some_and(|at| now.saturating_duration_since(at) < TOLD) {
            away.more = away.more.saturating_add(1);
            return;
        }
        away.told = Some(now);
        let more = match std::mem::take(&mut away.more) {
            0 => String::new(),
            more => format!("; {more} more calls were turned away since the last line like this"),
        };
        drop(away);
        tracing::warn!("door: turned away a call from {source}: {why}{more}");
    }

    pub(super) fn news(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// Looks for decisions of administrators, until the answer is dropped.
    pub(super) fn follow(self: &Arc<Hall>, waits: bool) -> Follower {
        self.followed.fetch_add(1, Ordering::Relaxed);
        if waits {
            self.shared.metrics.callers_waiting.inc();
        }
        Follower { hall: Arc::clone(self), waits }
    }

    /// The place of the payload for this line key, as this node and let in like this.
    fn kept(&self, key: [u8; 32], node: &str, level: Option<Level>) -> Arc<OnceCell<Payload>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |found: &&Kept| found.node == node && found.level == level && found.at.elapsed() < KEPT_FOR;
        if let Some(found) = kept.get(&key).filter(same) {
            return Arc::clone(&found.payload);
        }
        let payload = Arc::default();
        if kept.len() < KEPT || kept.contains_key(&key) {
            let new = Kept { node: node.to_owned(), level, at: Instant::now(), payload: Arc::clone(&payload) };
            kept.insert(key, new);
        }
        payload
    }

    /// Forgets a payload that an administrator, or a newer one, has made void.
    fn drop_kept(&self, key: &[u8; 32], id: PayloadId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.get(key).is_some_and(|kept| kept.payload.get().is_some_and(|payload| payload.id == id)) {
            kept.remove(key);
        }
    }

    /// Forgets the payloads that are too old to be sent again.
    fn forget(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| kept.at.elapsed() < KEPT_FOR);
    }

    /// Asks whether a node is let in.
    pub(super) async fn call(&self, caller: Caller) -> Result<Admission, Trouble> {
        let peer = caller.from.clone();
        match self.ask(Question::Call { caller: Box::new(caller) }, peer).await? {
            Said::Admission(admission) => Ok(admission),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, question: Question, peer: String) -> Result<Said, Trouble> {
        let _turn = self.turns.acquire().await.map_err(|_| Trouble::Failed("the server stops".to_owned()))?;
        match self.shared.desk.ask(question, peer).await {
            Said::Fault(why) => {
                tracing::error!("door: {why}");
                Err(Trouble::Failed("the server has a fault; see its log".to_owned()))
            }
            Said::Full => Err(Trouble::Later("the server has too much to do".to_owned())),
            Said::NoRoom => Err(Trouble::Later(NO_ROOM.to_owned())),
            Said::Ended => Err(Trouble::Ended),
            said => Ok(said),
        }
    }

    /// Wakes all visits for the last time, and gives them a moment to end.
    pub(super) async fn close(&self) {
        self.news.send_modify(|news| news.closed = true);
        let _ = timeout(CLOSING, self.news.closed()).await;
    }
}

/// Looks at the store for changes by administrators, and at the system's clock. Ends with the server.
pub(super) async fn watch(hall: Arc<Hall>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut version = None;
    loop {
        ticks.tick().await;
        hall.forget();
        let now = hall.now();
        let right = since_1970();
        if now.abs_diff(right) > SET {
            let began = u64::try_from(hall.began.elapsed().as_micros()).unwrap_or_default();
            hall.epoch.store(right.saturating_sub(began), Ordering::Relaxed);
            hall.news.send_modify(|news| news.set = news.set.wrapping_add(1));
            tracing::info!("door: the clock of this machine was set; nodes begin their conversations again");
        }
        // A change that comes before the next follower is no news to it, and does no harm.
        if hall.followed.load(Ordering::Relaxed) == 0 {
            continue;
        }
        // Errors are those of the next question, too: it tells them.
        if let Ok(Said::Version(found)) = hall.ask(Question::Version, String::new()).await
            && version.replace(found).is_none_or(|before| before != found)
        {
            hall.news.send_modify(|news| news.changes = news.changes.wrapping_add(1));
        }
    }
}

impl Office for Hall {
    fn now(&self) -> u64 {
        let began = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.epoch.load(Ordering::Relaxed).saturating_add(began)
    }

    fn tell(&self, node: &str, event: &str, detail: &str) {
        let between = if detail.is_empty() { "" } else { ": " };
        // Anybody can cause the others by calling.
        if matches!(event, "refused" | "not taken" | "pending" | "admitted" | "ended" | "waits" | "done" | "failed") {
            tracing::info!("door {node}: {event}{between}{detail}");
        } else {
            tracing::debug!("door {node}: {event}{between}{detail}");
        }
    }

    async fn compose(&self, node: &str, hello: &Hello, options: Options) -> Result<Payload, Trouble> {
        let kept = self.kept(hello.key, node, options.admitted);
        let made = kept.get_or_try_init(|| async {
            let question =
                Question::Payload { node: node.to_owned(), hello: hello.digest(), options: Box::new(options) };
            match self.ask(question, String::new()).await? {
                Said::Payload(made) => Ok(*made?),
                other => Err(unexpected(&other)),
            }
        });
        made.await.cloned()
    }

    async fn fresh(&self, node: &str, made: &Payload, hello: &Hello, at: Challenge) -> Result<Signed, Trouble> {
        let (node, payload, id) = (node.to_owned(), Box::new(made.clone()), made.id);
        let question = Question::Fresh { node, payload, hello: Box::new(hello.clone()), challenge: at };
        match self.ask(question, String::new()).await? {
            Said::Fresh(Ok(Signed::Void)) => {
                self.drop_kept(&hello.key, id);
                Ok(Signed::Void)
            }
            Said::Fresh(signed) => Ok(signed?),
            other => Err(unexpected(&other)),
        }
    }

    async fn enroll(&self, asked: Asked) -> Result<Decided, Trouble> {
        let Asked { csr, credentials, peer } = asked;
        if let Err(error) = &csr
            && !self.shared.bad.turn(Instant::now())
        {
            self.shared.metrics.refused();
            let answer = Answer::Refused(Refusal::Csr(error.clone()));
            return Ok(Decided { answer, intermediate: Vec::new() });
        }
        match self.ask(Question::Line { csr, credentials: Box::new(credentials) }, peer).await? {
            Said::Decided(decided) => Ok(*decided),
            other => Err(unexpected(&other)),
        }
    }

    async fn latest(&self, node: &str) -> Result<Option<CertificateRow>, Trouble> {
        match self.ask(Question::Latest { node: node.to_owned() }, String::new()).await? {
            Said::Latest(latest) => Ok(latest.map(|latest| *latest)),
            other => Err(unexpected(&other)),
        }
    }
}

/// The desk answers each question in its own form, so this is a defect.
fn unexpected(_: &Said) -> Trouble {
    let why = "a defect in imprint-host: the desk's answer is to another question; please report it";
    Trouble::Failed(why.to_owned())
}

/// Microseconds from 1970 until now, by the system's clock.
fn since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.hall.followed.fetch_sub(1, Ordering::Relaxed);
        if self.waits {
            self.hall.shared.metrics.callers_waiting.dec();
        }
    }
}
