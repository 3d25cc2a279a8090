//! What is changed for as long as a line is held, on a list of its own. Whoever holds a line gives it back when it is
//! dropped; a program that ends by a panic drops nothing, and gives back what is on the list.

use std::sync::{Mutex, PoisonError, Weak};

use crate::sys;

/// Something that was changed. It is gone once it was given back.
pub(super) trait Change: Send + Sync {
    /// As it was before.
    fn give_back(&self);
}

static CHANGES: Mutex<Vec<Weak<dyn Change>>> = Mutex::new(Vec::new());

/// To be called before the change is made.
pub(super) fn register(change: Weak<dyn Change>) {
    let mut changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    changes.retain(|change| change.strong_count() > 0);
    changes.push(change);
}

/// Gives everything back, at the end of the program: from here on whoever wants to change something more waits for ever.
pub fn give_everything_back() {
    let Some(changes) = sys::lock_soon(&CHANGES) else { return };
    changes.iter().filter_map(Weak::upgrade).for_each(|change| change.give_back());
    std::mem::forget(changes);
}
