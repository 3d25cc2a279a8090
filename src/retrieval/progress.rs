//! What a retrieval shows while it goes on, in words for a console. Never shows it itself.

use std::fmt;
use std::time::Duration;

use super::Attempt;

/// An event, for a console.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A transfer that takes long.
    Transfer {
        /// Bytes that have come.
        have: usize,
        /// Bytes that there are.
        want: usize,
    },
    /// An image comes.
    Image {
        /// Bytes that have come.
        have: usize,
        /// Bytes that there are.
        want: usize,
    },
    /// No server has answered yet. Reported when something changed, and every minute.
    Waiting {
        /// The last failure of each URL.
        attempts: &'a [&'a Attempt],
        /// The wait until the next try.
        delay: Duration,
    },
}

/// `3 of 16 KiB of the bundle have come`, `120 of 200 MiB of the root have come`
impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Progress::Transfer { have, want } => {
                write!(f, "{} of {} KiB of the bundle have come", have / 1024, want.div_ceil(1024))
            }
            Progress::Image { have, want } => {
                write!(f, "{} of {} MiB of the root have come", have >> 20, want.div_ceil(1 << 20))
            }
            Progress::Waiting { attempts, delay } => {
                attempts.iter().try_for_each(|attempt| write!(f, "{attempt}; "))?;
                write!(f, "trying again in {:.1} s", delay.as_secs_f64())
            }
        }
    }
}
