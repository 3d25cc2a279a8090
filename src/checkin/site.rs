//! One URL in the course of a check-in: what is known about its server, and when to ask it again.

use std::time::Duration;

use super::Issued;
use super::error::{Attempt, CheckinError};
use super::wait;
use crate::est::Lines;
use crate::payload::EstUrl;
use crate::time::{Clock, Deadline};

/// One URL, and what was learned about its server.
pub(super) struct Site<'a> {
    pub(super) url: &'a EstUrl,
    /// What the server takes.
    pub(super) lines: Lines,
    /// From the last probe whose Date was confirmed.
    pub(super) confirmed: Option<Confirmed>,
    /// It was visited.
    pub(super) tried: bool,
    /// What went wrong; kept until something better is known, so that no end is without its reason.
    pub(super) failed: Option<Attempt>,
    /// Asking again is of no use.
    pub(super) over: bool,
    /// What went wrong last was that it is not the right server, or does not take this node for the right one.
    pub(super) stranger: bool,
    /// Not asked again before this moment since boot: its server said so.
    pub(super) not_before: Option<Duration>,
}

impl Site<'_> {
    pub(super) fn new(url: &EstUrl) -> Site<'_> {
        let (tried, over, stranger) = (false, false, false);
        Site { url, lines: Lines::Of64, confirmed: None, tried, failed: None, over, stranger, not_before: None }
    }

    /// A visit that cannot come to its end tells nothing, and may leave the server with half a request. The first one is
    /// always made, and a look for an answer on the line takes no time.
    pub(super) fn has_enough(&self, until: Deadline) -> bool {
        !self.tried || *self.url == EstUrl::Line || until.remaining() >= wait::ENOUGH
    }

    /// Another network may have another server by the same name, and a way that is not full. What a server said that
    /// proved to be the right one, holds there, too.
    pub(super) fn on_another_network(&mut self) {
        self.not_before = None;
        self.over &= !self.stranger;
    }
}

/// What a server said about itself on a connection that was verified at the time that it told.
pub(super) struct Confirmed {
    pub(super) clock: Clock,
    pub(super) cas: Certificates,
}

/// DER, each.
pub(super) type Certificates = Vec<Vec<u8>>;

/// A request that a server holds until an administrator approves it.
pub(super) struct Held<'a> {
    pub(super) url: &'a EstUrl,
    pub(super) since: Duration,
    pub(super) until: Deadline,
}

pub(super) enum Visited {
    Issued(Issued),
    Held(Option<Duration>),
}

/// Why a visit ended: this URL, or everything.
pub(super) enum Stop {
    Here(Box<Attempt>),
    Everything(Box<CheckinError>),
}
