//! The node's side of lines. Pipes and protocol run in a thread of their own, so that a host is answered while the node is
//! busy with its network. Lines are read and written here and nowhere else. Never looks into a payload.

mod call;
mod standing;
mod payload;
mod proving;
mod seeker;
mod time;
mod told;
mod worker;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::key_code::KeyCode;
use crate::line::admission::AdmissionKey;
use crate::line::frame::NotTaken;
use crate::line::fresh::Seeds;
use crate::line::seal::SealError;
use crate::line::{Distortion, Fresh, Hello, Kind, LineKey, Stage, TimeKey, Versions};
use crate::pipe::{Pipe, PipeError, Target};
use crate::port::{Held, Place, Quiet, Signals};
use crate::secret::Secret;
use crate::time::{Deadline, since_boot};
use crate::uevent::Stir;
use call::Calls;
pub use proving::Prover;
use seeker::Progress;
pub use seeker::Seeker;
use standing::Standing;
pub use time::{CredibleTime, LineTime, Outside};
pub use told::Words;
use worker::{Spoken, Worker};

/// A conversation with a host, or the wait for one.
pub struct Dialogue {
    commands: Sender<Command>,
    told: Receiver<Told>,
    /// Wakes the thread.
    wake: Arc<EventFd>,
    /// Readable once the thread has reported an event.
    came: Arc<EventFd>,
    hello: Hello,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
    /// Holds signals back until the lines are given back.
    _held: Held,
}

/// A pipe, and how to use it.
pub struct Line {
    /// Where the bytes go.
    pub pipe: Pipe,
    /// The node speaks first on this line.
    pub beacon: bool,
    /// Others than the one at the end of a cable, or the hypervisor, may answer. So the payload has to be signed for this node
    /// and this moment, and the search goes on after a payload that is not.
    pub far: bool,
}

/// Decides whether a payload that came on a far line is used. The error says why it is not.
pub type Judge = Box<dyn Fn(&Secret, &Fresh) -> Result<(), String> + Send>;

/// Lines that do not exist yet and may still appear.
pub struct Awaited {
    /// Tells when to look for them again.
    pub stir: Stir,
    /// The virtio port imprint.0.
    pub virtio: bool,
    /// Lines that were asked for by name.
    pub places: Vec<Place>,
    /// A payload is required, so the node speaks first on such a line.
    pub insist: bool,
}

impl Awaited {
    fn names(&self) -> Vec<String> {
        self.places.iter().map(|place| place.name.clone()).collect()
    }
}

/// What the thread and its owner both see.
#[derive(Default)]
struct Shared {
    /// A host has begun a conversation.
    open: bool,
    /// The usable lines. When none is left, the last lines that were usable.
    names: Vec<String>,
    /// How many lines are usable.
    lines: usize,
    /// How many places are called at.
    calls: usize,
    /// Each place that is called at, and what happened there last.
    tried: Vec<(String, String)>,
    /// The search for more places.
    sought: Progress,
    /// A line may still appear.
    awaited: bool,
    /// The names of lines that were asked for and do not exist.
    missing: Vec<String>,
    /// Why the last lost line was lost.
    why: Option<String>,
    /// When another part of an object last came from a host, since boot.
    progress: Option<Duration>,
    /// When a host was last heard, since boot.
    heard: Option<Duration>,
    /// A host has this node wait for an administrator.
    waits: Option<Waits>,
}

/// That a host has this node wait for an administrator. Nothing proves it.
#[derive(Clone, Debug)]
pub struct Waits {
    /// Since when a host does, since boot.
    pub since: Duration,
    /// When such a host was last heard, since boot.
    pub heard: Duration,
    /// What an administrator has to do.
    pub words: String,
    /// One of them has heard another line key than this node's.
    alarm: bool,
}

/// An admission key, and where it was read, for people.
struct Proves {
    key: AdmissionKey,
    from: String,
}

enum Command {
    Stage(Stage),
    Say(Kind, Vec<u8>),
    AskTime(Option<TimeKey>),
    AskNoMore,
    CallAnew,
    Call(Vec<Target>),
    Tell(Told),
    LeaveLinks,
    Prove(Box<Proves>),
    End,
}

/// An event that the thread reports.
#[derive(Debug)]
pub enum Told {
    /// A line that was asked for and did not exist has appeared.
    Came {
        /// The line.
        line: String,
    },
    /// A host was heard for the first time.
    Heard {
        /// The line.
        line: String,
        /// The node has called there.
        called: bool,
    },
    /// A payload has come. From now on its line is the only one.
    Payload {
        /// The line.
        line: String,
        /// The payload was sealed for this node.
        sealed: bool,
        /// What its signature has to cover, if it says that it was signed for this node and a challenge.
        fresh: Option<Fresh>,
        /// The bytes.
        bytes: Secret,
    },
    /// A payload that was signed for an unknown challenge, or for one that is too old. Told once for each line.
    Stale {
        /// The line.
        line: String,
    },
    /// A payload that is not used. The search goes on.
    NotUsed {
        /// The line.
        line: String,
        /// Why not.
        why: String,
    },
    /// What a host says to a node that it does not give a payload yet, or never.
    Waits {
        /// The line.
        line: String,
        /// An administrator decides; otherwise nobody will.
        pending: bool,
        /// The code of the node's own line key.
        code: KeyCode,
        /// What the host says to it.
        words: Words,
    },
    /// The node proves to hosts that it has this admission key.
    Key {
        /// The code of the public key.
        code: KeyCode,
        /// Where it was read.
        from: String,
    },
    /// What a person should know of admission keys, for example why one is not used.
    NoKey(String),
    /// A payload that this node's key does not open.
    Unsealed(SealError),
    /// The time of day, from the host.
    Time(LineTime),
    /// The host's answer to the request.
    Answer(Answer),
    /// The host has received this object.
    Sent(Kind),
    /// The host does not take this object.
    NotTaken(Kind, NotTaken),
    /// The host speaks other versions of the protocol.
    Foreign(Versions),
    /// A line changes everything that it carries.
    Odd {
        /// The line.
        line: String,
        /// How the line changes it, and the remedy.
        what: Distortion,
    },
    /// Lines of a text were pasted.
    Pasted {
        /// The first missing lines, counted from 1; empty: none is missing.
        missing: Vec<usize>,
    },
    /// What somebody typed or pasted at `imprint console` and is not a frame.
    Typed(Secret),
    /// Nobody takes what is said on a line; it is tried again, and this told once.
    Stalled(PipeError),
    /// A line cannot be used any more.
    Lost(PipeError),
    /// What happened at a place that is called at. It is called again later, and the same is told once.
    Missed {
        /// The line.
        line: String,
        /// What happened.
        why: String,
    },
    /// How the search for places to call at is going.
    Sought(String),
}

/// Why there will be no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// The host does not take a request.
    NotTaken(NotTaken),
    /// There is no line any more.
    Lost(String),
}

/// The host's answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// Certificates, as certs-only CMS.
    Certificates(Vec<u8>),
    /// An administrator has to approve.
    Pending(String),
    /// The host refuses, in these words.
    Refused(String),
}

/// How often the time is asked for. The best answer counts.
const QUESTIONS: u32 = 3;

impl Dialogue {
    /// Starts to listen, and to speak first on the lines that ask for it. `hello` is what the node says of itself.
    /// `judge`: without it no payload of a far line is used. `awaited`: lines that are used once they appear.
    pub fn start(
        (signals, held): (Signals, Held),
        lines: Vec<Line>,
        key: LineKey,
        hello: Hello,
        judge: Option<Judge>,
        awaited: Option<Awaited>,
        root: &Path,
    ) -> std::io::Result<Dialogue> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(std::io::Error::other)?;
        let mut seeds = Seeds::new(seed);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let (wake, came) = (Arc::new(EventFd::from_flags(flags)?), Arc::new(EventFd::from_flags(flags)?));
        let (commands, orders) = channel();
        let (tell, told) = channel();
        let names: Vec<_> = lines.iter().map(|line| line.pipe.label()).collect();
        let shared = Arc::new(Mutex::new(Shared {
            lines: names.len(),
            names,
            awaited: awaited.is_some(),
            missing: awaited.iter().flat_map(Awaited::names).collect(),
            ..Shared::default()
        }));
        let worker = Worker {
            lines: lines.into_iter().map(|line| Spoken::new(line, &hello, seeds.another(), worker::now())).collect(),
            seeds,
            judge,
            key,
            orders,
            tell,
            wake: Arc::clone(&wake),
            came: Arc::clone(&came),
            shared: Arc::clone(&shared),
            awaited,
            hello: hello.clone(),
            signals,
            quiet: Quiet::default(),
            root: root.to_owned(),
            calls: Calls::default(),
            proves: Vec::new(),
            standing: Standing::default(),
            clock: worker::now,
        };
        let thread = std::thread::Builder::new().name("line".to_owned()).spawn(move || worker.run())?;
        Ok(Dialogue { commands, told, wake, came, hello, shared, thread: Some(thread), _held: held })
    }

    /// The names of the lines, for messages. When no line is left, the names stay.
    pub fn names(&self) -> String {
        locked(&self.shared).names.join(", ")
    }

    /// The lines that were asked for and do not exist yet, for messages.
    pub fn missing(&self) -> Vec<String> {
        locked(&self.shared).missing.clone()
    }

    /// Whether there is no usable line, no place that is called at, and none is searched for.
    pub fn is_empty(&self) -> bool {
        let shared = locked(&self.shared);
        shared.lines == 0 && shared.calls == 0 && !shared.sought.goes_on
    }

    /// Whether no host can be heard any more: there is no line, none can appear, and nobody is called or searched for.
    pub fn is_over(&self) -> bool {
        !locked(&self.shared).awaited && self.is_empty()
    }

    /// The code of the key that payloads are sealed with. The host shows the same code.
    pub fn code(&self) -> KeyCode {
        KeyCode::of(&self.hello.key)
    }

    /// What the node says of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Readable once there is an event that [`Dialogue::news`] has not returned.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.came.as_fd()
    }

    /// The next event that was reported already.
    pub fn news(&self) -> Option<Told> {
        // Cleared first, so that an event that is reported now makes the descriptor readable again.
        let _ = self.came.read();
        self.told.try_recv().ok()
    }

    /// Whether a host has begun a conversation, as far as is known.
    pub fn is_open(&self) -> bool {
        locked(&self.shared).open
    }

    /// When another part of an object last came from a host, since boot.
    pub fn progress(&self) -> Option<Duration> {
        locked(&self.shared).progress
    }

    /// Whether a host has this node wait for an administrator, or did so before it was lost.
    pub fn waits(&self) -> Option<Waits> {
        locked(&self.shared).waits.clone()
    }

    /// The next event. Waits until the deadline, or until no event can come any more.
    pub fn hear(&self, until: Deadline) -> Option<Told> {
        // A lost line is recorded in `shared` before its event is sent. So a caller that waits meanwhile does not wait
        // on.
        let wait = if self.is_over() { Duration::ZERO } else { until.remaining() };
        self.told.recv_timeout(wait).ok()
    }

    /// Tells the host how far the node is.
    pub fn stage(&self, stage: Stage) {
        self.command(Command::Stage(stage));
    }

    /// Sends an object, until another object replaces it.
    pub fn say(&self, kind: Kind, bytes: Vec<u8>) {
        self.command(Command::Say(kind, bytes));
    }

    /// Asks for the time a few times. The quickest answer counts. `key`: what the host has to prove its answers with. Behind the
    /// deadline the host is asked no more.
    pub fn time(&self, key: Option<TimeKey>, until: Deadline) -> Option<LineTime> {
        let best = self.best_time(key, until);
        // A host that never proves the time would be asked until the end of the run.
        self.command(Command::AskNoMore);
        best
    }

    fn best_time(&self, key: Option<TimeKey>, until: Deadline) -> Option<LineTime> {
        let mut best: Option<LineTime> = None;
        for _ in 0..QUESTIONS {
            self.command(Command::AskTime(key.clone()));
            let time = loop {
                match self.hear(until) {
                    Some(Told::Time(time)) => break time,
                    Some(_) => continue,
                    // The answers so far are good all the same.
                    None => return best,
                }
            };
            if best.is_none_or(|best| time.bound() < best.bound()) {
                best = Some(time);
            }
        }
        best
    }

    /// The host's answer to the request; `None`: it has not come by the deadline.
    pub fn answer(&self, until: Deadline) -> Result<Option<Answer>, NoAnswer> {
        while let Some(told) = self.hear(until) {
            match told {
                Told::Answer(answer) => return Ok(Some(answer)),
                Told::NotTaken(Kind::Request, reason) => return Err(NoAnswer::NotTaken(reason)),
                _ => {}
            }
        }
        if !self.is_over() {
            return Ok(None);
        }
        Err(NoAnswer::Lost(locked(&self.shared).why.clone().unwrap_or_else(|| "this program closed it".to_owned())))
    }

    /// Sends the last object: the report of how the run ended. Returns when the host has received it, when the host has
    /// been silent for `silence`, or at the deadline; returns at once when no host is there. A host that is heard extends
    /// the wait, because a slow line takes its time, and a host whose line was interrupted comes back.
    pub fn report(self, stage: Stage, report: Vec<u8>, silence: Duration, until: Deadline) {
        if !self.is_open() {
            return;
        }
        self.command(Command::Stage(stage));
        self.command(Command::Say(Kind::Report, report));
        let begun = since_boot();
        loop {
            let last = locked(&self.shared).heard.map_or(begun, |heard| heard.max(begun));
            let wait = silence.saturating_sub(since_boot().saturating_sub(last));
            if wait.is_zero() || until.remaining().is_zero() || self.is_over() {
                return;
            }
            if let Some(Told::Sent(Kind::Report) | Told::NotTaken(Kind::Report, _)) =
                self.hear(Deadline::after(wait.min(until.remaining())))
            {
                return;
            }
        }
    }

    fn command(&self, command: Command) {
        // A thread that has ended has nothing left to do.
        if self.commands.send(command).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// Gives the lines back as they were.
impl Drop for Dialogue {
    fn drop(&mut self) {
        self.command(Command::End);
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, so its result is ignored.
            drop(thread.join());
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
