//! Brings the dialogue to every console of the machine at once: serial lines, screens with a keyboard, or the terminal of the person
//! who started the program. Whoever types first has it. Every way out restores the terminals. Decides nothing about questions and
//! answers.

mod echo;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use echo::Echo;

use super::script::{End, Script, Start};
use crate::console;
use crate::port::{self, Place, Port, PortError, Quiet, Signals};
use crate::sys;
use crate::time::{Deadline, since_boot};

/// What the dialogue brought.
#[derive(Debug)]
pub enum Answer<T> {
    /// The person's answers.
    End(End),
    /// What made the dialogue needless.
    Instead(T),
}

/// Why nobody answered.
#[derive(Debug)]
pub enum SetupError {
    /// There is nothing to ask on.
    NoConsole,
    /// Nobody has said yes by the deadline.
    Unanswered(Duration),
    /// The terminal of the person who started the program is gone.
    Gone,
    /// The consoles cannot be watched.
    Watch(io::Error),
    /// The terminal cannot be used.
    Port(PortError),
}

/// How long the dialogue may go on, and how often `still_wanted` is asked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without one, there is no limit.
    pub limit: Option<Duration>,
    /// The time between two questions to `still_wanted`.
    pub every: Duration,
}

/// A person who types is not held up by [`Limits::every`]: what is asked there may take long.
const TYPING: Duration = Duration::from_secs(10);
/// How often a console that is gone is looked for.
const AGAIN: Duration = Duration::from_secs(1);
/// A console at 9600 bits a second takes everything that the dialogue ever sends at once in this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Every console of the machine: lines and screens. `but`: the name of a line that something else uses.
pub fn places(root: &Path, cmdline: &str, but: Option<&str>) -> Vec<Place> {
    let all = port::consoles(root, cmdline).into_iter().chain(port::screens(root, cmdline));
    all.filter(|place| but != Some(place.name.as_str())).collect()
}

/// Asks on the terminal of standard input.
pub fn ask_here(root: &Path, start: Start) -> Result<End, SetupError> {
    // ^C is a key of the dialogue.
    let place = port::terminal().map(|place| Place { keys: false, ..place }).ok_or(SetupError::NoConsole)?;
    let limits = Limits { limit: None, every: Duration::MAX };
    match run(root, vec![place], start, limits, true, &mut || None::<()>)? {
        Answer::End(end) => Ok(end),
        Answer::Instead(()) => Err(SetupError::Gone),
    }
}

/// Asks on all these consoles. Without any it waits for what `still_wanted` brings. What that returns makes the dialogue needless and
/// ends it.
pub fn ask<T>(
    root: &Path,
    places: Vec<Place>,
    start: Start,
    limits: Limits,
    still_wanted: &mut dyn FnMut() -> Option<T>,
) -> Result<Answer<T>, SetupError> {
    run(root, places, start, limits, false, still_wanted)
}

struct Console {
    place: Place,
    port: Option<Port>,
    /// It took nothing the last time.
    stalled: bool,
    echo: Echo,
}

struct Consoles<'a> {
    root: &'a Path,
    all: Vec<Console>,
    quiet: Quiet,
    owner: Option<usize>,
    /// The question at which the owner has taken the dialogue.
    since: Option<usize>,
}

fn run<T>(
    root: &Path,
    places: Vec<Place>,
    start: Start,
    limits: Limits,
    one: bool,
    still_wanted: &mut dyn FnMut() -> Option<T>,
) -> Result<Answer<T>, SetupError> {
    let (mut signals, held) = Signals::catch().map_err(SetupError::Watch)?;
    let all =
        places.into_iter().map(|place| Console { place, port: None, stalled: false, echo: Echo::default() }).collect();
    let mut consoles = Consoles { root, all, quiet: Quiet::default(), owner: None, since: None };
    let mut script = Script::new(start);
    let mut log = Log::open(root);
    let deadline = limits.limit.map(Deadline::after);
    let (mut ask, mut typed) = (Deadline::after(limits.every), None::<Duration>);
    let mut said = console::said();
    loop {
        consoles.open(&script, one)?;
        if let Some(caught) = wait(&mut signals, &consoles, log.as_ref(), ask, deadline)? {
            drop(consoles);
            caught.end();
            // The signal was ignored after all, or is handled elsewhere.
            drop(held);
            return Err(SetupError::Gone);
        }
        // The program's own lines may be on the same console, too.
        let lines = console::said();
        if log.as_mut().is_some_and(Log::was_shown) || lines != std::mem::replace(&mut said, lines) {
            script.disturbed();
        }
        for number in 0..consoles.all.len() {
            let mut bytes = zeroize::Zeroizing::new([0; 256]);
            let count = match consoles.read(number, &mut *bytes) {
                Ok(count) => count,
                Err(_) if one => return Err(SetupError::Gone),
                Err(_) => {
                    if consoles.owner == Some(number) {
                        consoles.owner = None;
                        script.away();
                        let words = format!("{} is gone; Enter goes on here", consoles.name(number));
                        consoles.tell(|other| other != number, &words);
                    }
                    0
                }
            };
            let bytes = bytes.get(..count).unwrap_or_default();
            if bytes.is_empty() || !consoles.is_a_person(number, bytes, &mut script) {
                continue;
            }
            if !one && !consoles.is_for(number, bytes, &mut script) {
                continue;
            }
            typed = Some(since_boot());
            let mut out = Vec::new();
            let end = script.typed(bytes, &mut out);
            consoles.write(number, &out);
            if let Some(end) = end {
                consoles.tell(|_| true, "done");
                return Ok(Answer::End(end));
            }
        }
        let is_typing = typed.is_some_and(|at| since_boot().saturating_sub(at) < TYPING);
        if ask.expired() && !is_typing {
            if let Some(instead) = still_wanted() {
                consoles.tell(|_| true, "no answers are needed any more");
                return Ok(Answer::Instead(instead));
            }
            ask = Deadline::after(limits.every);
        }
        if let Some(limit) = limits.limit.filter(|_| deadline.is_some_and(Deadline::expired)) {
            consoles.tell(|_| true, "the time for answers is over");
            return Err(SetupError::Unanswered(limit));
        }
    }
}

/// Waits until something has to be done. Returns the signal that is to end the program.
fn wait(
    signals: &mut Signals,
    consoles: &Consoles<'_>,
    log: Option<&Log>,
    ask: Deadline,
    deadline: Option<Deadline>,
) -> Result<Option<port::Caught>, SetupError> {
    let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    fds.extend(
        consoles
            .all
            .iter()
            .filter_map(|console| console.port.as_ref())
            .map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN)),
    );
    fds.extend(log.map(|log| PollFd::new(log.0.as_fd(), PollFlags::POLLIN)));
    // One that is due already waits for a person who types.
    let ask = if ask.expired() { Deadline::after(AGAIN) } else { ask };
    let mut until = if consoles.all.iter().any(|console| console.port.is_none()) { ask.at_most(AGAIN) } else { ask };
    if let Some(deadline) = deadline {
        until = until.at_most(deadline.remaining());
    }
    sys::poll(&mut fds, until).map_err(SetupError::Watch)?;
    Ok(signals.take())
}

impl Consoles<'_> {
    /// Opens what is not open, and shows where the dialogue is. A console that cannot be used is left alone; `one`: it is the only one.
    fn open(&mut self, script: &Script, one: bool) -> Result<(), SetupError> {
        for number in 0..self.all.len() {
            let Some(console) = self.all.get_mut(number).filter(|console| console.port.is_none()) else { continue };
            let opened = Port::open(console.place.clone())
                .and_then(|port| port.map(|mut port| port.take(self.root, &mut self.quiet).map(|()| port)).transpose());
            match opened {
                Ok(Some(port)) => (console.port, console.echo) = (Some(port), Echo::default()),
                Ok(None) if one => return Err(SetupError::NoConsole),
                Err(error) if one => return Err(SetupError::Port(error)),
                _ => continue,
            }
            match self.owner {
                None => {
                    let mut out = Vec::new();
                    script.greet(&mut out);
                    self.write(number, &out);
                }
                Some(owner) => self.tell(|other| other == number, &self.elsewhere(owner)),
            }
        }
        Ok(())
    }

    fn read(&mut self, number: usize, bytes: &mut [u8]) -> Result<usize, PortError> {
        let Some(console) = self.all.get_mut(number) else { return Ok(0) };
        let Some(port) = &mut console.port else { return Ok(0) };
        port.read(bytes).inspect_err(|_| console.port = None)
    }

    /// Whether somebody types here. A line that sends back what it gets has nobody, and must not answer the questions.
    fn is_a_person(&mut self, number: usize, bytes: &[u8], script: &mut Script) -> bool {
        let Some(console) = self.all.get_mut(number) else { return false };
        if console.echo.is_one() {
            return false;
        }
        console.echo.heard(bytes);
        if !console.echo.is_one() {
            return true;
        }
        if self.owner == Some(number) {
            self.owner = None;
            // What it has sent so far is no answer, and its line ends took no defaults.
            script.typed(b"\x15", &mut Vec::new());
            script.back_to(self.since);
            script.away();
        }
        self.tell(|other| other == number, "this line sends back what it gets, so nothing that it sends is an answer");
        false
    }

    /// Whether what was typed on this console counts. The first that types has the dialogue; a character on another one takes it
    /// over, and is no answer. Neither is a line end before anything else: lines send some by themselves.
    fn is_for(&mut self, number: usize, bytes: &[u8], script: &mut Script) -> bool {
        if self.owner == Some(number) {
            return true;
        }
        let first = self.owner.is_none();
        let character = bytes.iter().any(|byte| matches!(byte, 0x20..=0x7e | 0x80..));
        if !first && !character {
            return false;
        }
        (self.owner, self.since) = (Some(number), script.question());
        if self.all.len() > 1 {
            self.tell(|other| other != number, &self.elsewhere(number));
        }
        if first && character {
            return true;
        }
        script.away();
        let mut out = Vec::new();
        script.typed(b"\r", &mut out);
        self.write(number, &out);
        false
    }

    fn elsewhere(&self, owner: usize) -> String {
        format!("the answers are typed at {}; type a letter here to take over", self.name(owner))
    }

    fn name(&self, number: usize) -> &str {
        self.all.get(number).map_or("another console", |console| console.place.name.as_str())
    }

    fn tell(&mut self, whom: impl Fn(usize) -> bool, words: &str) {
        for number in (0..self.all.len()).filter(|number| whom(*number)) {
            self.write(number, format!("\r\nimprint: {words}\r\n").as_bytes());
        }
    }

    /// A console that takes nothing is waited for once.
    fn write(&mut self, number: usize, bytes: &[u8]) {
        let Some(console) = self.all.get_mut(number) else { return };
        let Some(port) = &mut console.port else { return };
        let patience = if console.stalled { Duration::ZERO } else { PATIENCE };
        match port.write_all(bytes, Deadline::after(patience)) {
            Ok(()) => {
                console.stalled = false;
                console.echo.shown(bytes);
            }
            Err(PortError::Stalled(_)) => console.stalled = true,
            // Reading says so, too.
            Err(_) => {}
        }
    }
}

/// The kernel's log, to know what it has written to the consoles.
struct Log(File, std::path::PathBuf);

impl Log {
    fn open(root: &Path) -> Option<Log> {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(root.join("dev/kmsg")).ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Log(file, root.join("proc/sys/kernel/printk")))
    }

    /// Whether one of the messages that have come was shown (Documentation/ABI/testing/dev-kmsg).
    fn was_shown(&mut self) -> bool {
        let printk = std::fs::read_to_string(&self.1).unwrap_or_default();
        let console = printk.split_whitespace().next().and_then(|level| level.parse::<u32>().ok()).unwrap_or(0);
        let mut shown = false;
        // A record does not fit more (include/linux/printk.h, CONSOLE_EXT_LOG_MAX).
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return shown,
                Ok(count) => {
                    let text = record.get(..count).unwrap_or_default();
                    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
                    let level = digits.fold(0u32, |sum, byte| sum.wrapping_mul(10).wrapping_add(u32::from(byte & 15)));
                    shown |= level & 7 < console;
                }
                // Records were overwritten before they were read.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(_) => return shown,
            }
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::NoConsole => f.write_str(
                "no terminal to ask on; start imprint setup on one, or give imprint.set. words on the kernel command line, or make the \
                 bundle at the server (imprint-host bundle make)",
            ),
            SetupError::Unanswered(limit) => {
                write!(f, "nobody has answered the questions on the console within {:.0} s; boot again", limit.as_secs_f64())
            }
            SetupError::Gone => f.write_str("the terminal with the questions is gone; start imprint setup again"),
            SetupError::Watch(_) => f.write_str("watching the consoles"),
            SetupError::Port(_) => f.write_str("asking on this terminal"),
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SetupError::Watch(source) => Some(source),
            SetupError::Port(source) => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
