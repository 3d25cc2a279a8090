//! One URL in the course of a check-in: what is known about its server, and when to ask it again. Never connects.

use std::time::Duration;

use super::Issued;
use super::error::{Attempt, CheckinError};
use crate::est::Lines;
use crate::https::pause;
use crate::payload::EstUrl;
use crate::time::{Clock, Deadline};

/// One URL, and what was learned about its server.
pub(super) struct Site<'a> {
    pub(super) url: &'a EstUrl,
    pub(super) habits: Habits,
    /// From the last probe whose Date was confirmed.
    pub(super) confirmed: Option<Confirmed>,
    /// The URL was visited.
    pub(super) tried: bool,
    /// What went wrong. It is kept until a visit goes better, so that every failed check-in has a reason to report.
    pub(super) failed: Option<Attempt>,
    /// Another visit is of no use.
    pub(super) over: bool,
    /// The last failure was one of TLS: another server may be there, or the server does not accept this node.
    pub(super) stranger: bool,
    /// The URL is not visited before this moment since boot, because its server asked for a wait.
    pub(super) not_before: Option<Duration>,
}

impl Site<'_> {
    pub(super) fn new(url: &EstUrl) -> Site<'_> {
        let (tried, over, stranger) = (false, false, false);
        Site { url, habits: Habits::default(), confirmed: None, tried, failed: None, over, stranger, not_before: None }
    }

    /// Whether there is time for a visit. A visit that cannot finish tells nothing, and may leave the server with half
    /// a request. The first visit is always made, and a look for an answer on the line takes no time.
    pub(super) fn has_enough(&self, until: Deadline) -> bool {
        !self.tried || *self.url == EstUrl::Line || until.remaining() >= pause::ENOUGH
    }

    /// Forgets what may be different on another network, where another server may have the same name, or a busy server
    /// may be reached another way. A refusal by a server that proved to be the right one holds there, too.
    pub(super) fn on_another_network(&mut self) {
        self.not_before = None;
        self.over &= !self.stranger;
    }
}

/// What visits have shown about a server's HTTP.
pub(super) struct Habits {
    /// The layout of a request's body that the server takes.
    pub(super) lines: Lines,
    /// A connection that the server keeps open carries another request, as far as is known.
    pub(super) keeps: bool,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits { lines: Lines::Of64, keeps: true }
    }
}

/// What a server said about itself on a connection that was verified at the time that it told.
pub(super) struct Confirmed {
    pub(super) clock: Clock,
    pub(super) cas: Certificates,
}

/// Certificates in DER.
pub(super) type Certificates = Vec<Vec<u8>>;

/// A request that a server holds until an administrator approves it.
pub(super) struct Held<'a> {
    pub(super) url: &'a EstUrl,
    pub(super) since: Duration,
    pub(super) until: Deadline,
}

pub(super) enum Visited {
    Issued(Box<Issued>),
    Held(Option<Duration>),
}

/// Why a visit ended: with this URL's failure, or with that of the whole check-in.
pub(super) enum Stop {
    Here(Box<Attempt>),
    Everything(Box<CheckinError>),
}
