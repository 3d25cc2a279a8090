//! The node's side of serial lines: ports and protocol in a thread of its own, so that a host is answered while the
//! node is busy with its network. Bytes go in and out here and nowhere else; what a payload says is not known here.

mod time;
mod worker;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::chain::chain;
use crate::key_code::KeyCode;
use crate::line::frame::NotTaken;
use crate::line::seal::SealError;
use crate::line::{Distortion, Hello, Kind, LineKey, Stage, Versions};
use crate::port::{Held, Place, Port, PortError, Quiet, Signals};
use crate::secret::Secret;
use crate::time::{Deadline, since_boot};
use crate::uevent::Stir;
pub use time::{CredibleTime, LineTime, Outside};
use worker::{Spoken, Worker};

/// A conversation, or the hope for one.
pub struct Dialogue {
    commands: Sender<Command>,
    told: Receiver<Told>,
    /// Wakes the thread.
    wake: Arc<EventFd>,
    /// Readable once something was told.
    came: Arc<EventFd>,
    hello: Hello,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
    /// Until the lines are given back.
    _held: Held,
}

/// A port, and how to use it.
pub struct Line {
    /// Where the bytes go.
    pub port: Port,
    /// The node speaks first.
    pub beacon: bool,
}

/// Lines that are not there and may still come.
pub struct Awaited {
    /// Tells when to look again.
    pub stir: Stir,
    /// The virtio port imprint.0.
    pub virtio: bool,
    /// Lines that were named.
    pub places: Vec<Place>,
}

impl Awaited {
    fn names(&self) -> Vec<String> {
        self.places.iter().map(|place| place.name.clone()).collect()
    }
}

/// What both sides look at.
struct Shared {
    /// A host has begun a conversation.
    open: bool,
    /// The lines that are of use, or the last that were.
    names: Vec<String>,
    /// How many are.
    lines: usize,
    /// A line may still come.
    awaited: bool,
    /// The names of lines that were named and are not there.
    missing: Vec<String>,
    /// Why the last line that was lost was.
    why: Option<String>,
    /// When more of something came that a host sends, since boot.
    progress: Option<Duration>,
    /// When a host was heard last, since boot.
    heard: Option<Duration>,
}

enum Command {
    Stage(Stage),
    Say(Kind, Vec<u8>),
    AskTime,
    End,
}

/// What the thread tells.
#[derive(Debug)]
pub enum Told {
    /// A line that was named and was not there has come.
    Came {
        /// Which.
        line: String,
    },
    /// A host was heard for the first time.
    Heard {
        /// On which line.
        line: String,
    },
    /// A payload has come. From now on there is this line only.
    Payload {
        /// On which line.
        line: String,
        /// It was sealed for this node.
        sealed: bool,
        /// The bytes.
        bytes: Secret,
    },
    /// A payload that was sealed for somebody else.
    Unsealed(SealError),
    /// What time it is.
    Time(LineTime),
    /// What became of the request.
    Answer(Answer),
    /// The host has this now.
    Sent(Kind),
    /// The host does not take this.
    NotTaken(Kind, NotTaken),
    /// The host speaks other versions.
    Foreign(Versions),
    /// A line does something to all that it carries.
    Odd {
        /// Which line.
        line: String,
        /// What it does, and what helps.
        what: Distortion,
    },
    /// Lines of a text were pasted. `missing`: the first that are not there yet, from 1.
    Pasted {
        /// Empty: all are there.
        missing: Vec<usize>,
    },
    /// What somebody typed or pasted at `imprint console` that is no frame.
    Typed(Secret),
    /// Nobody takes what is said on a line; it is tried again, and this told once.
    Stalled(PortError),
    /// A line is of no use any more.
    Lost(PortError),
}

/// Why there will be no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// The host takes no request.
    NotTaken(NotTaken),
    /// There is no line any more.
    Lost(String),
}

/// What a host says to a request.
#[derive(Debug)]
pub enum Answer {
    /// Certificates, as certs-only CMS.
    Certificates(Vec<u8>),
    /// An administrator has to approve.
    Pending(String),
    /// No.
    Refused(String),
}

/// Questions about the time: the best of so many answers counts.
const QUESTIONS: u32 = 3;

impl Dialogue {
    /// Begins to listen, and to speak where that is wanted. `hello` is what the node says of itself. `awaited`: lines that
    /// are taken when they come.
    pub fn start(
        (signals, held): (Signals, Held),
        lines: Vec<Line>,
        key: LineKey,
        hello: Hello,
        awaited: Option<Awaited>,
        root: &Path,
    ) -> std::io::Result<Dialogue> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let (wake, came) = (Arc::new(EventFd::from_flags(flags)?), Arc::new(EventFd::from_flags(flags)?));
        let (commands, orders) = channel();
        let (tell, told) = channel();
        let names: Vec<_> = lines.iter().map(|line| line.port.label()).collect();
        let shared = Arc::new(Mutex::new(Shared {
            open: false,
            lines: names.len(),
            names,
            awaited: awaited.is_some(),
            missing: awaited.iter().flat_map(Awaited::names).collect(),
            why: None,
            progress: None,
            heard: None,
        }));
        let worker = Worker {
            lines: lines.into_iter().map(|line| Spoken::new(line, &hello)).collect(),
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
            openings: 0,
        };
        let thread = std::thread::Builder::new().name("line".to_owned()).spawn(move || worker.run())?;
        Ok(Dialogue { commands, told, wake, came, hello, shared, thread: Some(thread), _held: held })
    }

    /// The lines, for messages; also when none of them is left.
    pub fn names(&self) -> String {
        locked(&self.shared).names.join(", ")
    }

    /// Lines that were named and are not there yet, for messages.
    pub fn missing(&self) -> Vec<String> {
        locked(&self.shared).missing.clone()
    }

    /// Whether there is no line at all.
    pub fn is_empty(&self) -> bool {
        locked(&self.shared).lines == 0
    }

    /// Whether nobody can be heard any more: there is no line, and none can come.
    pub fn is_over(&self) -> bool {
        let shared = locked(&self.shared);
        shared.lines == 0 && !shared.awaited
    }

    /// The code of the key that payloads are sealed with: the host shows it, too.
    pub fn code(&self) -> KeyCode {
        KeyCode::of(&self.hello.key)
    }

    /// What the node says of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Readable once something was told that [`Dialogue::news`] was not asked for yet.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.came.as_fd()
    }

    /// The next thing that was told already.
    pub fn news(&self) -> Option<Told> {
        // First, so that what is told now wakes whoever waits.
        let _ = self.came.read();
        self.told.try_recv().ok()
    }

    /// Whether a host is there, as far as is known.
    pub fn is_open(&self) -> bool {
        locked(&self.shared).open
    }

    /// When more of something that a host sends has come last, since boot.
    pub fn progress(&self) -> Option<Duration> {
        locked(&self.shared).progress
    }

    /// The next thing that is told, until then at the latest, or until nobody is left to say anything.
    pub fn hear(&self, until: Deadline) -> Option<Told> {
        // The loss of the last line is told after it is known here, so that whoever waits meanwhile does not wait on.
        let wait = if self.is_over() { Duration::ZERO } else { until.remaining() };
        self.told.recv_timeout(wait).ok()
    }

    /// How far the node is.
    pub fn stage(&self, stage: Stage) {
        self.command(Command::Stage(stage));
    }

    /// Says something, until it says something else.
    pub fn say(&self, kind: Kind, bytes: Vec<u8>) {
        self.command(Command::Say(kind, bytes));
    }

    /// Asks for the time, a few times; the answer that was quickest counts.
    pub fn time(&self, until: Deadline) -> Option<LineTime> {
        let mut best: Option<LineTime> = None;
        for _ in 0..QUESTIONS {
            self.command(Command::AskTime);
            let time = loop {
                match self.hear(until) {
                    Some(Told::Time(time)) => break time,
                    Some(_) => continue,
                    // What was answered is good all the same.
                    None => return best,
                }
            };
            if best.is_none_or(|best| time.bound() < best.bound()) {
                best = Some(time);
            }
        }
        best
    }

    /// What the host says to the request, until then at the latest.
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
        Err(NoAnswer::Lost(locked(&self.shared).why.clone().unwrap_or_else(|| "it was given back".to_owned())))
    }

    /// The last word: how it ended. Returns when the host has it, or has not been heard for as long as `silence`, or then
    /// at the latest; no longer than a moment when nobody is there. A slow line takes its time for a report, and a host
    /// whose line was interrupted comes back.
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
        // A thread that has ended has nothing to do any more.
        if self.commands.send(command).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// The lines are given back as they were.
impl Drop for Dialogue {
    fn drop(&mut self) {
        self.command(Command::End);
        if let Some(thread) = self.thread.take() {
            // It did not panic: it cannot.
            drop(thread.join());
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For the console.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Came { line } => write!(f, "{line} is there now, and is listened to"),
            Told::Heard { line } => write!(f, "a host speaks on {line}"),
            Told::Payload { line, sealed, .. } => {
                write!(f, "a payload came on {line}{}", if *sealed { "" } else { ", not sealed" })
            }
            Told::Unsealed(error) => f.write_str(&chain(error)),
            Told::Time(time) => time.fmt(f),
            Told::Answer(_) => f.write_str("the host has answered"),
            Told::Sent(kind) => write!(f, "the host has the {kind:?}"),
            Told::NotTaken(kind, reason) => write!(f, "the host does not take the {kind:?}: {reason}"),
            Told::Foreign(Versions { lowest, highest }) => write!(
                f,
                "the host speaks versions {lowest} to {highest} of the line protocol, this program {} to {}; bring both \
                 to the same release",
                Versions::OURS.lowest,
                Versions::OURS.highest
            ),
            Told::Odd { line, what } => write!(f, "{line}: {what}"),
            Told::Pasted { .. } => f.write_str("more lines are to come"),
            Told::Typed(_) => f.write_str("something was typed that is no line of a payload"),
            Told::Stalled(error) | Told::Lost(error) => f.write_str(&chain(error)),
        }
    }
}
