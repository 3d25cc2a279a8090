//! `imprint-host inject`: sends payloads down serial lines, takes requests, and sends certificates. Drives the host end of
//! the line protocol. Never decides who gets what; `enrol` and `compose` do.

pub mod command;
mod lines;
mod machine;
mod power;
mod session;
pub mod telnet;
pub mod transport;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use imprint::line::{Challenge, Hello};
use imprint::time::Timestamp;
use tokio::task::JoinHandle;

use command::Script;
pub use lines::jobs;
pub use power::Pace;
use power::Turns;
use transport::LineSpec;

use crate::compose::Options;
use crate::enrol::{self, Request};
use crate::state::State;
use crate::store::CertificateRow;
pub use crate::talk::Outcome;
use crate::talk::{Asked, Decided, Office, Payload, Signed, Trouble, failed};

/// A node and its line.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name of the record.
    pub node: String,
    /// The node's line.
    pub line: LineSpec,
    /// The command that switches the node on, run once the line is open.
    pub power: Option<Script>,
    /// The file for console output: everything on the line that is not a frame.
    pub log: Option<PathBuf>,
}

/// How to inject.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a node may take to send HELLO and to answer.
    pub window: Duration,
    /// How long the node may take after that.
    pub timeout: Duration,
    /// Call at once, before the agent was heard.
    pub call: bool,
    /// Send the payload unsealed, to nodes that accept this.
    pub plain: bool,
    /// Send the payload without a signature.
    pub unsigned: bool,
    /// How long a payload is valid.
    pub expires: Duration,
    /// Print events as JSON.
    pub json: bool,
    /// How fast nodes are switched on.
    pub pace: Pace,
}

/// One event under `--json`. It is published: an item may be added, none may change.
#[derive(serde::Serialize)]
struct Told<'a> {
    node: &'a str,
    event: &'a str,
    detail: &'a str,
    seconds: f64,
}

/// State that all lines share.
pub(crate) struct Shared {
    state: Arc<tokio::sync::Mutex<State>>,
    config: Config,
    began: Instant,
    /// Microseconds since 1970 at the start. Later times add the monotonic clock to this, so that setting the clock moves
    /// no timer.
    epoch: u64,
    shown: Mutex<bool>,
    turns: Turns,
}

impl Shared {
    /// Works with the state on a blocking thread, because the store may wait for other writers. One line at a time.
    pub(crate) async fn books<T, W>(&self, work: W) -> T
    where
        T: Send + 'static,
        W: FnOnce(&mut State) -> T + Send + 'static,
    {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        match tokio::task::spawn_blocking(move || work(&mut state)).await {
            Ok(done) => done,
            // The task is never cancelled, so the error is a panic.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.now() / 1000).unwrap_or(Timestamp::MAX)
    }

    /// Shows progress on a terminal. The next output replaces this line.
    pub(crate) fn tell_progress(&self, node: &str, text: &str) {
        if !self.config.json && io::stderr().is_terminal() {
            let mut partial = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            *partial = true;
            let _ = write!(io::stderr(), "\r\x1b[K{node}: {}", imprint::shown::line(text));
        }
    }
}

impl Office for Shared {
    fn now(&self) -> u64 {
        self.epoch.saturating_add(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// One line for people on standard error, or one JSON object for programs on standard output.
    fn tell(&self, node: &str, event: &str, detail: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        let detail = if self.config.json { detail.to_owned() } else { imprint::shown::line(detail) };
        let mut partial = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        // A failed write is ignored: there is nowhere to report it.
        let _ = if self.config.json {
            let told = Told { node, event, detail: &detail, seconds };
            writeln!(io::stdout(), "{}", crate::json::line(&told))
        } else {
            let clear = if std::mem::take(&mut *partial) { "\r\x1b[K" } else { "" };
            writeln!(io::stderr(), "{clear}{node}: {event}{}{detail}", if detail.is_empty() { "" } else { ": " })
        };
    }

    async fn compose(&self, node: &str, _: &Hello, options: Options) -> Result<Payload, Trouble> {
        let (node, now) = (node.to_owned(), self.timestamp());
        let made = self.books(move |state| state.payload(&node, &options, now)).await;
        Ok(Payload::from(made.map_err(failed)?))
    }

    async fn fresh(&self, _: &str, made: &Payload, hello: &Hello, at: Challenge) -> Result<Signed, Trouble> {
        let (payload, hello, now) = (made.bytes.clone(), hello.clone(), self.timestamp());
        let signed = self.books(move |state| state.fresh(payload.expose(), &hello, &at, now)).await.map_err(failed)?;
        Ok(signed.map_or(Signed::NoSigner, Signed::Payload))
    }

    async fn enroll(&self, asked: Asked) -> Result<Decided, Trouble> {
        let now = self.timestamp();
        self.books(move |state| {
            let Asked { csr, credentials, peer } = &asked;
            let request = Request { csr: csr.as_ref(), credentials: Some(credentials), peer };
            state.refresh().map_err(failed)?;
            let decision = state.decide(now, |desk| enrol::simple_enroll(desk, &request)).map_err(failed)?;
            Ok::<_, String>(Decided { answer: decision.answer, intermediate: state.ca.intermediate().to_vec() })
        })
        .await
        .map_err(Trouble::from)
    }

    async fn latest(&self, node: &str) -> Result<Option<CertificateRow>, Trouble> {
        let node = node.to_owned();
        let (latest, _) = self.books(move |state| state.store.latest(&node)).await.map_err(failed)?;
        Ok(latest)
    }
}

/// Blocking threads, for the state and for DNS lookups.
const BLOCKING: usize = 4;

/// The outcomes of all jobs, in the order of the jobs.
pub type Outcomes = Vec<(String, Outcome)>;

/// Runs all lines at once, until each has its outcome.
pub fn run(state: State, jobs: Vec<Job>, config: Config) -> io::Result<Outcomes> {
    let epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let epoch = u64::try_from(epoch.as_micros()).unwrap_or(u64::MAX);
    let turns = Turns::new(config.pace);
    let shared = Arc::new(Shared {
        state: Arc::new(tokio::sync::Mutex::new(state)),
        config,
        began: Instant::now(),
        epoch,
        shown: Mutex::new(false),
        turns,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()?;
    Ok(runtime.block_on(async move {
        let mut tasks = Vec::new();
        for job in jobs {
            let (node, shared) = (job.node.clone(), Arc::clone(&shared));
            let task = tokio::spawn(async move {
                let node = job.node.clone();
                let session = Arc::clone(&shared);
                let outcome = ended(tokio::spawn(async move { session::run(job, &session).await })).await;
                shared.tell(&node, outcome.word(), &outcome.to_string());
                outcome
            });
            tasks.push((node, task));
        }
        let mut outcomes = Vec::new();
        for (node, task) in tasks {
            outcomes.push((node, ended(task).await));
        }
        outcomes
    }))
}

/// The outcome of a line's task. A task that panicked has failed.
async fn ended(task: JoinHandle<Outcome>) -> Outcome {
    task.await.unwrap_or_else(|error| {
        let panic = error.try_into_panic().ok();
        let words = panic.as_ref().and_then(|words| {
            words.downcast_ref::<String>().map(String::as_str).or_else(|| words.downcast_ref::<&str>().copied())
        });
        let words = words.unwrap_or("it ended early");
        Outcome::Failed(format!("a defect in imprint-host: {words}; please report it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_panics_has_failed() {
        let failed = |words: &str| Outcome::Failed(format!("a defect in imprint-host: {words}; please report it"));
        let (node, line) = ("node1", 7);
        assert_eq!(ended(tokio::spawn(async { panic!("for an example") })).await, failed("for an example"));
        assert_eq!(ended(tokio::spawn(async move { panic!("{node}, {line}") })).await, failed("node1, 7"));
        let task = tokio::spawn(std::future::pending());
        task.abort();
        assert_eq!(ended(task).await, failed("it ended early"));
    }
}
