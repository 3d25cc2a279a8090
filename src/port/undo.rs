//! What is changed for as long as a line is held, on a list of its own. Whoever holds a line gives it back when it is
//! dropped; a program that ends by a panic drops nothing, and gives back what is on the list.

use std::fs::File;
use std::sync::{Mutex, PoisonError, Weak};

use nix::sys::termios::{FlushArg, tcflush};

use super::quiet::Console;
use crate::sys;

/// Something that was changed. It is gone once it was given back.
pub(super) enum Change {
    Terminal(Weak<Before>),
    Console(Weak<Console>),
}

/// A terminal with the settings that it had.
pub(super) struct Before {
    pub(super) terminal: File,
    pub(super) settings: sys::Terminal,
}

impl Before {
    pub(super) fn give_back(&self) {
        // What came for us is no command for whoever reads next.
        let _ = tcflush(&self.terminal, FlushArg::TCIFLUSH);
        let _ = sys::set_terminal(&self.terminal, &self.settings);
    }
}

static CHANGES: Mutex<Vec<Change>> = Mutex::new(Vec::new());

/// To be called before the change is made.
pub(super) fn register(change: Change) {
    let mut changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    changes.retain(|change| match change {
        Change::Terminal(before) => before.strong_count() > 0,
        Change::Console(console) => console.strong_count() > 0,
    });
    changes.push(change);
}

/// Gives everything back, at the end of the program: from here on whoever wants to change something more waits for ever.
pub fn give_everything_back() {
    let Some(changes) = sys::lock_soon(&CHANGES) else { return };
    for change in changes.iter() {
        match change {
            Change::Terminal(before) => before.upgrade().iter().for_each(|before| before.give_back()),
            Change::Console(console) => console.upgrade().iter().for_each(|console| console.give_back()),
        }
    }
    std::mem::forget(changes);
}
