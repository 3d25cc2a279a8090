//! How long a search goes on when a host has said that an administrator has to admit this node first, and what the console says
//! meanwhile. Nothing proves what such a host says: whoever is in the network can hold a boot up with it, and can do nothing else. So
//! all other lines and media are looked at meanwhile, and a medium that is there is not waited with. Never decides what is used.

use std::cell::Cell;
use std::time::Duration;

use super::Notice;
use crate::dialogue::Dialogue;
use crate::options::Options;
use crate::time::{Deadline, since_boot};

/// How long after the last word of such a host the search still goes on, at least. The host asks for the node every 20 s
/// (docs/line-protocol.md, "Timers"), and is called again if it was started anew.
const PATIENCE: Duration = Duration::from_secs(90);
/// The console says so often at most what is awaited.
const MINUTE: Duration = Duration::from_secs(60);

/// The wait for an administrator.
pub(crate) struct Waiting<'a> {
    pub(super) dialogue: &'a Dialogue,
    /// How long an administrator may take; `None`: for ever.
    limit: Option<Duration>,
    patience: Duration,
    /// Nothing else can bring a payload at once.
    alone: bool,
    /// When the console was told last.
    told: Cell<Option<Duration>>,
}

impl<'a> Waiting<'a> {
    /// `alone`: no medium is there that brings a payload without a wait.
    pub(crate) fn new(dialogue: &'a Dialogue, options: &Options, alone: bool) -> Waiting<'a> {
        let patience = if options.insists() { options.timeout.max(PATIENCE) } else { PATIENCE };
        Waiting { dialogue, limit: options.approval_timeout, patience, alone, told: Cell::new(None) }
    }

    /// Until when the search goes on: until the deadline, or beyond it for an administrator. From then on the console is told so.
    pub(super) fn until(&self, deadline: Deadline, notice: &mut dyn FnMut(Notice<'_>)) -> Deadline {
        let Some(waits) = self.dialogue.waits().filter(|_| self.alone && deadline.expired()) else { return deadline };
        let now = since_boot();
        let end = end(waits.since, waits.heard, self.limit, self.patience);
        if end <= now {
            return deadline;
        }
        if self.told.get().is_none_or(|told| now.saturating_sub(told) >= MINUTE) {
            self.told.set(Some(now));
            let minutes = now.saturating_sub(waits.since).as_secs() / 60;
            notice(Notice::Admission(&format!(
                "no payload yet; a host has let this node wait for {minutes} min: {}",
                waits.words
            )));
        }
        Deadline::after(Duration::MAX).at(end)
    }
}

/// When the wait for an administrator ends: behind its limit, or when no host that has this node wait was heard for too long.
fn end(since: Duration, heard: Duration, limit: Option<Duration>, patience: Duration) -> Duration {
    since.saturating_add(limit.unwrap_or(Duration::MAX)).min(heard.saturating_add(patience))
}

/// For a wait of which the console is told each minute.
pub(super) fn within_a_minute(until: Deadline) -> Deadline {
    until.at_most(MINUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_has_the_limit_and_the_host_must_be_heard() {
        let s = Duration::from_secs;
        // No limit: as long as the host is heard.
        assert_eq!(end(s(10), s(10), None, s(300)), s(310));
        assert_eq!(end(s(10), s(86_400), None, s(300)), s(86_700));
        // The limit counts from the first such word, whatever is said later.
        assert_eq!(end(s(10), s(5000), Some(s(600)), s(300)), s(610));
        assert_eq!(end(s(10), s(20), Some(s(600)), s(90)), s(110));
    }
}
