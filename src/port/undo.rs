//! A global list of the changes to lines that have to be undone. Normally dropping a `Port` undoes its changes. A panic
//! ends the program without drops; the panic handler then undoes everything on the list. Never makes a change itself.

use std::sync::{Mutex, PoisonError, Weak};

use crate::sys;

/// A change that can be undone.
pub(super) trait Change: Send + Sync {
    /// Undoes the change.
    fn give_back(&self);
}

static CHANGES: Mutex<Vec<Weak<dyn Change>>> = Mutex::new(Vec::new());

/// Puts a change on the list. Call it before the change is made.
pub(super) fn register(change: Weak<dyn Change>) {
    let mut changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    changes.retain(|change| change.strong_count() > 0);
    changes.push(change);
}

/// Undoes all changes, at the end of the program. The list stays locked, so a thread that wants to register another
/// change waits for ever.
pub fn give_everything_back() {
    let Some(changes) = sys::lock_soon(&CHANGES) else { return };
    changes.iter().filter_map(Weak::upgrade).for_each(|change| change.give_back());
    std::mem::forget(changes);
}
