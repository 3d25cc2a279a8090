//! The handle of a search for places to call at, which goes on in a thread of its own while the lines are heard. Never searches
//! itself, and never decides whether a payload is used.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use nix::sys::eventfd::EventFd;

use super::{Command, Dialogue, Shared, Told, locked};
use crate::pipe::Target;

/// A person is told of so many places at once.
const SAID: usize = 4;

/// Adds places to call at. As long as it exists, a host may still be heard.
pub struct Seeker {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
}

/// How a search for places is going.
#[derive(Default)]
pub(super) struct Progress {
    /// The search goes on.
    pub(super) goes_on: bool,
    /// What is searched for, and what came of it so far.
    pub(super) state: Option<(String, String)>,
}

impl Dialogue {
    /// A handle for a search that goes on beside the dialogue.
    pub fn seeker(&self) -> Seeker {
        locked(&self.shared).sought.goes_on = true;
        Seeker { commands: self.commands.clone(), wake: Arc::clone(&self.wake), shared: Arc::clone(&self.shared) }
    }
}

impl Seeker {
    /// Calls at these places, too ([`Dialogue::call`]).
    pub fn call(&self, targets: Vec<Target>) {
        self.command(Command::Call(targets));
    }

    /// What `what` has come to, for the message when no payload comes. No words: there is nothing to say.
    pub fn is_at(&self, what: &str, words: String) {
        locked(&self.shared).sought.state = (!words.is_empty()).then(|| (what.to_owned(), words));
    }

    /// Tells a person.
    pub fn tell(&self, words: String) {
        self.command(Command::Tell(Told::Sought(words)));
    }

    /// Each place that is called at, and what happened there last, in one line.
    pub fn tried(&self) -> String {
        let tried = &locked(&self.shared).tried;
        let said: Vec<String> = tried.iter().take(SAID).map(|(place, words)| format!("{place}: {words}")).collect();
        let more = match tried.len().saturating_sub(SAID) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        said.join("; ") + &more
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// The search is over. What it came to is still known.
impl Drop for Seeker {
    fn drop(&mut self) {
        locked(&self.shared).sought.goes_on = false;
    }
}
