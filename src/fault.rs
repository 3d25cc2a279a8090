//! Ends the program after a panic, which is a fault in the program itself. Gives back what the program holds, writes
//! status.json where one is due, says where the fault is, and exits with a code of its own. Never prints the data that
//! the program worked on.

use std::panic::{Location, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::console;
use crate::handover;
use crate::port;
use crate::status::Record;
use crate::sys;

/// EX_SOFTWARE (sysexits.h): "an internal software error has been detected".
pub const EXIT_CODE: u8 = 70;

/// Where status.json is due, and what goes into it.
static DUE: Mutex<Option<(PathBuf, Record)>> = Mutex::new(None);

/// From here on a fault of the program writes status.json into `directory`, unless the hand-over there is complete by
/// then.
pub fn recorded_in(directory: &Path, record: Record) {
    *DUE.lock().unwrap_or_else(PoisonError::into_inner) = Some((directory.to_owned(), record));
}

/// From here on a panic ends the program as the head of this file says.
pub fn watch() {
    std::panic::set_hook(Box::new(|info| end(info)));
}

fn end(info: &PanicHookInfo<'_>) -> ! {
    // First, because a person may need the terminal to see anything at all.
    port::give_everything_back();
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), Location::to_string);
    // Only a literal message is printed. A message that was formatted may hold any data.
    let what = info.payload().downcast_ref::<&'static str>().map(|text| format!(": {text}")).unwrap_or_default();
    let words = format!("internal error at {place}{what}; please report it");
    console::complain(&words);
    if let Some((directory, record)) = sys::lock_soon(&DUE).and_then(|mut due| due.take())
        && !handover::is_complete(&directory)
        && let Some(status) = record.fault(EXIT_CODE, words)
    {
        // Errors are ignored here: nobody is left to be told.
        let _ = handover::fail(&directory, &status);
    }
    std::process::exit(i32::from(EXIT_CODE))
}
