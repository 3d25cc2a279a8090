//! One line, from HELLO to report: opens it, talks to the node, and opens it again when it breaks. Never decides about
//! payloads and certificates; `compose` and `enrol` do.

mod keys;
mod silence;
mod turn;

use std::io::Write;
use std::time::Duration;

use imprint::line::{Distortion, Host, HostEvent, Kind, Nonce, Shape, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::transport::{Line, WAITING};
use super::{Job, Shared, power};
use crate::admission::Admit;
use crate::record::Record;
use crate::talk::{Office, Outcome, Talk, Terms, failed, shown, stage_name};
use crate::{output, x509};

/// After the outcome, the longest time that the host answers repeats of the report. Later bytes are the console of the
/// booting machine.
const LINGER_MOST: Duration = Duration::from_secs(10);
/// The longest wait before a lost line is opened again.
const REOPEN: Duration = Duration::from_secs(10);
/// How often the host looks in the store for the decision about a waiting request.
const APPROVAL: Duration = Duration::from_secs(2);
/// Bytes of the latest console output that are kept for error messages, like "no such host".
const TAIL: usize = 500;
/// A command that is a line counts as up when it still runs `SAID` after its first output, or after `SILENT` without
/// output.
const SAID: Duration = Duration::from_millis(300);
const SILENT: Duration = Duration::from_secs(1);
const CLOSED: &str = "the other end closed it";
/// The agent's words on the console. A host without `--call` calls when it reads them.
const AGENT: &[u8] = b"imprint: ";

struct Session<'a> {
    job: &'a Job,
    shared: &'a Shared,
    talk: Talk<'a, Shared>,
    record: Record,
    /// Whether the node has answered.
    met: bool,
    /// Set while the node is silent or the line is lost: when to check whether the node still needs anything, and how many
    /// frames had been heard when the silence began.
    gone: Option<(Instant, u64)>,
    /// A HELLO with other protocol versions was heard, perhaps from old console output: since when, and the words for it.
    foreign: Option<(Instant, String)>,
    /// The latest distortion of the line.
    odd: Option<Distortion>,
    log: Option<std::fs::File>,
    tail: Vec<u8>,
    /// No console output has come since the line was opened.
    mute: bool,
    /// By this time the node must have sent HELLO and answered; then, by a later one, it must be done. Not checked while a
    /// request waits for an administrator.
    deadline: Instant,
}

/// Runs one line to its end.
pub(super) async fn run(job: Job, shared: &Shared) -> Outcome {
    match Session::new(&job, shared).await {
        Ok(session) => session.run().await,
        Err(why) => Outcome::Failed(why),
    }
}

impl<'a> Session<'a> {
    async fn new(job: &'a Job, shared: &'a Shared) -> Result<Session<'a>, String> {
        let node = job.node.clone();
        let record = shared.books(move |state| state.record(&node)).await.map_err(failed)?;
        let nonce = Nonce(x509::random().map_err(failed)?);
        let shape = job.line.columns().map_or(Shape::default(), |columns| Shape::default().within(columns));
        let host = Host::new(nonce, shared.config.call, shape);
        let log = match &job.log {
            None => None,
            Some(path) => Some(output::append(path).map_err(|error| format!("--log: {}", failed(error)))?),
        };
        let config = &shared.config;
        let terms = Terms {
            plain: config.plain,
            unsigned: config.unsigned,
            fresh: false,
            expires: config.expires,
            admitted: None,
        };
        let wire = Wire::new(host, job.line.baud()).keeping_text();
        Ok(Session {
            job,
            shared,
            talk: Talk::new(shared, (job.node.clone(), job.line.to_string()), wire, terms),
            record,
            met: false,
            gone: None,
            foreign: None,
            odd: None,
            log,
            tail: Vec::new(),
            mute: true,
            deadline: Instant::now() + shared.config.window,
        })
    }

    fn tell(&self, event: &str, detail: &str) {
        self.talk.tell(event, detail);
    }

    async fn run(mut self) -> Outcome {
        let (mut wait, mut power) = (Duration::from_millis(200), self.job.power.as_ref());
        let mut told = String::new();
        while self.talk.outcome.is_none() {
            if self.deadline <= Instant::now() {
                self.time_is_over().await;
                break;
            }
            let job = self.job;
            let open = job.line.open();
            tokio::pin!(open);
            let opened = loop {
                tokio::select! {
                    opened = &mut open => break Some(opened),
                    () = sleep_until(self.until()) => self.look().await,
                }
                if self.talk.outcome.is_some() || self.deadline <= Instant::now() {
                    break None;
                }
            };
            let mut line = match opened {
                None => continue,
                Some(Ok(line)) => line,
                Some(Err(error)) => {
                    self.falls_silent();
                    let why = error.to_string();
                    if std::mem::replace(&mut told, why.clone()) != why {
                        self.tell("no line", &why);
                    }
                    sleep_until(self.until().min(Instant::now() + wait)).await;
                    wait = wait.saturating_mul(2).min(REOPEN);
                    self.look().await;
                    continue;
                }
            };
            self.tell("listening", &self.job.line.to_string());
            self.mute = true;
            self.talk.wire.end_mut().attached();
            let opened_at = Instant::now();
            let up = if power.is_some() { self.comes_up(&mut line).await } else { Ok(()) };
            let up = match (up, power) {
                (Ok(()), Some(command)) => match self.turn(&mut line).await {
                    Ok(turn) => {
                        power = None;
                        // Before, because a virtual machine may call before the command has ended.
                        self.arms().await;
                        if let Err(why) = power::switch(command, self.shared.config.window).await {
                            return Outcome::Failed(why);
                        }
                        drop(turn);
                        self.tell("power", "switched");
                        self.deadline = Instant::now() + self.shared.config.window;
                        Ok(())
                    }
                    Err(why) => Err(why),
                },
                (up, _) => up,
            };
            let spoken = match up {
                Ok(()) => self.speak(line).await,
                Err(why) => Err(why),
            };
            match spoken {
                Ok(()) => break,
                Err(why) if self.talk.outcome.is_none() => {
                    self.waited();
                    self.falls_silent();
                    let text = self.talk.wire.text();
                    self.console(&text);
                    let said = if self.mute { String::new() } else { self.last_words("; it said: ") };
                    self.tell("line lost", &format!("{why}{said}"));
                    if opened_at.elapsed() > REOPEN {
                        wait = Duration::from_millis(200);
                    }
                    sleep_until(self.until().min(Instant::now() + wait)).await;
                    wait = wait.saturating_mul(2).min(REOPEN);
                    self.look().await;
                }
                Err(_) => {}
            }
        }
        let rest = self.talk.wire.text();
        self.console(&rest);
        self.talk.outcome.take().unwrap_or_else(|| Outcome::Failed(self.silence()))
    }

    /// A node that this program switches on may call at a door, too: a record with `admit = "armed"` lets it in.
    async fn arms(&self) {
        if self.record.rule.admit != Admit::Armed {
            return;
        }
        let (node, window, now) = (self.job.node.clone(), self.shared.config.window, self.shared.timestamp());
        match self.shared.books(move |state| state.arm(&node, window, now)).await {
            Ok((until, _)) => self.tell("armed", &format!("a door lets the node in until {until}")),
            // The line itself still works.
            Err(error) => self.tell("not armed", &failed(error)),
        }
    }

    /// Waits until a command that is a line is up. With a wrong host name or password it ends at once; switching the node
    /// on then would be useless, as nobody would hear it.
    async fn comes_up(&mut self, line: &mut Line) -> Result<(), String> {
        if !matches!(line, Line::Exec(..)) {
            return Ok(());
        }
        let mut until = Instant::now() + SILENT;
        let mut buffer = [0; 2048];
        loop {
            tokio::select! {
                read = line.read(&mut buffer) => match read {
                    Ok(0) => return Err(CLOSED.to_owned()),
                    Ok(count) => {
                        self.talk.wire.push(buffer.get(..count).unwrap_or_default(), self.shared.now());
                        until = until.min(Instant::now() + SAID);
                    }
                    Err(error) => return Err(error.to_string()),
                },
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    /// Talks to the node until the session is over (`Ok`) or the line is lost (`Err`).
    async fn speak(&mut self, line: Line) -> Result<(), String> {
        let (mut reader, mut writer) = tokio::io::split(line);
        let mut buffer = [0; 2048];
        let mut out: Vec<u8> = Vec::new();
        let mut linger: Option<Instant> = None;
        let mut leave: Option<Instant> = None;
        let mut heard = false;
        loop {
            let polled = self.talk.wire.poll(self.shared.now());
            if std::mem::take(&mut heard) && !polled.bytes.is_empty() {
                linger = linger.map(|_| Instant::now() + self.linger());
            }
            out.extend(polled.bytes);
            let idle = polled.events.is_empty();
            for event in polled.events {
                self.happened(event).await;
            }
            if !idle {
                continue;
            }
            let text = self.talk.wire.text();
            self.console(&text);
            self.look_for_oddities();
            if let Some((bytes, all)) = self.talk.wire.end().progress() {
                let (retransmits, _) = self.talk.wire.sent();
                self.shared.tell_progress(&self.job.node, &format!("{bytes}/{all} bytes, {retransmits} retransmits"));
            }
            if self.talk.outcome.is_some() && linger.is_none() {
                linger = Some(Instant::now() + self.linger());
                leave = Some(Instant::now() + LINGER_MOST);
            }
            if linger.is_some()
                && out.is_empty()
                && !matches!(self.talk.outcome, Some(Outcome::Done { .. } | Outcome::NodeFailed { .. }))
            {
                return Ok(());
            }
            let next =
                polled.next.map(|at| Instant::now() + Duration::from_micros(at.saturating_sub(self.shared.now())));
            // Without a deadline: only the administrator's decision ends this wait.
            let until = match (&self.talk.pending, linger) {
                (Some((_, at)), None) => *at + APPROVAL,
                (_, Some(at)) => at,
                (None, None) => self.until(),
            };
            let wake = next.map_or(until, |next| next.min(until));
            tokio::select! {
                read = reader.read(&mut buffer), if out.len() <= WAITING => match read {
                    Ok(0) => return Err(CLOSED.to_owned()),
                    Ok(count) => {
                        self.talk.wire.push(buffer.get(..count).unwrap_or_default(), self.shared.now());
                        heard = true;
                    }
                    Err(error) => return Err(error.to_string()),
                },
                written = writer.write(&out), if !out.is_empty() => match written {
                    Ok(count) => drop(out.drain(..count.min(out.len()))),
                    Err(error) => return Err(error.to_string()),
                },
                () = sleep_until(wake) => {}
            }
            if linger.min(leave).is_some_and(|at| at <= Instant::now()) {
                return Ok(());
            }
            if self.talk.outcome.is_none() && self.talk.pending.is_none() && self.deadline <= Instant::now() {
                self.time_is_over().await;
            }
            self.look().await;
            let due = self.talk.pending.as_ref();
            let due = due.filter(|(_, at)| self.talk.outcome.is_none() && *at + APPROVAL <= Instant::now());
            if let Some(request) = due.map(|(request, _)| request.clone()) {
                self.decide(request, true).await;
            }
        }
    }

    /// Handles console output. If it has the agent's words, calls the agent.
    fn console(&mut self, text: &[u8]) {
        if self.keep(text) && !self.talk.wire.end().counts() && !self.shared.config.call {
            self.talk.wire.end_mut().call();
        }
    }

    /// Reports distortions of the line, and sends shorter frames if it breaks long lines.
    fn look_for_oddities(&mut self) {
        while let Some(odd) = self.talk.wire.odd() {
            if let Distortion::Broken { columns } = odd {
                self.talk.wire.end_mut().narrow(columns);
            }
            self.tell("line", &odd.to_string());
            self.odd = Some(odd);
        }
    }

    /// Writes console output to the log, and keeps its end for error messages. True: the agent's words were in it.
    fn keep(&mut self, text: &[u8]) -> bool {
        if text.is_empty() {
            return false;
        }
        if let Some(log) = &mut self.log
            && let Err(error) = log.write_all(text)
        {
            self.log = None;
            self.tell("log", &format!("{error}; nothing more is written there"));
        }
        if std::mem::take(&mut self.mute) {
            self.tail.clear();
        }
        // The agent's words may be split over two reads.
        let from = self.tail.len().saturating_sub(AGENT.len());
        self.tail.extend(text);
        let news = self.tail.get(from..).unwrap_or_default();
        let heard = news.windows(AGENT.len()).any(|window| window == AGENT);
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
        heard
    }

    async fn happened(&mut self, event: HostEvent) {
        match event {
            HostEvent::Hello(hello) => self.hello(hello),
            HostEvent::Second(hello) => self.second(&hello),
            HostEvent::Foreign(versions) => self.foreign(versions),
            HostEvent::Opened(_, stage) | HostEvent::Stage(stage) => {
                self.tell("node", stage_name(stage));
                if matches!(event, HostEvent::Opened(..))
                    && let Err(why) = self.answers()
                {
                    return self.talk.fail(why);
                }
                self.talk.reached(stage).await;
            }
            HostEvent::Object(Kind::Request, request) => self.decide(request, false).await,
            HostEvent::Challenged | HostEvent::Delivered(_) | HostEvent::Refused(..) | HostEvent::Object(..) => {
                self.talk.happened(event).await;
            }
            HostEvent::Lost => {
                self.waited();
                self.falls_silent();
                self.tell("silent", "the node does not answer; trying another conversation");
            }
        }
    }

    async fn decide(&mut self, request: Vec<u8>, again: bool) {
        self.waited();
        self.talk.decide(request, again).await;
    }
}
