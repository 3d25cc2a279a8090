//! The places that a node calls at: when to call, and when to call again. Every step is told the time, and none
//! waits. Never looks into a frame, and never judges a payload.
//!
//! Whoever owns the network between decides what answers, so nothing that happens here may end the search, hold up another
//! line, or fill the console.

mod place;

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::{Command, Dialogue, locked};
use crate::line::ether::Mac;
use crate::order;
use crate::payload::InterfaceName;
use crate::pipe::ether::{Link, Peer, Raised};
use crate::pipe::stream::Stream;
use crate::pipe::{Pipe, Target};
use place::{Call, PAUSE, State};

/// The places that are called at.
#[derive(Default)]
pub(super) struct Calls {
    all: Vec<Call>,
    /// Links that were brought up for a call.
    raised: Vec<Raised>,
    /// A payload was accepted: no other place is called at, and nobody else is answered.
    settled: bool,
    /// The host that it came from, if that is on a link, and the name of the link.
    giver: Option<(InterfaceName, Mac)>,
    /// The number of the next call.
    next: usize,
    /// The lines on which a host has spoken.
    spoken: Vec<String>,
}

/// What came of a step.
pub(super) enum Event {
    /// A connection is there.
    Stream(usize, Stream),
    /// A link is there.
    Link(usize, Link),
    /// A frame came on a link.
    Frame(usize, Link, Mac, Vec<u8>),
    /// A link is gone.
    Gone(u32),
    /// Something is to be told.
    Missed { line: String, why: String },
}

/// The calls at several places begin one after the other, so that the first in the order comes first (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// A connection that lasted this long has shown that the place can be called at.
const LASTED: Duration = Duration::from_secs(60);
/// The most places that are called at, and the most connections that are being made to them at once. Somebody may name many where
/// nobody is: each of the others gets its turn all the same.
const PLACES: usize = 128;
const AT_A_TIME: usize = 16;
/// The most lines that are remembered as spoken on. What more there are is not told.
const SPOKEN: usize = 32;
/// The most hosts of a link that are remembered as not to be answered.
const SHUT: usize = 16;

impl Dialogue {
    /// Calls at these places, too, until a payload has come: all of them, and each again after a pause where it does not
    /// answer, breaks, or brings nothing that can be used. Then only the place that brought the payload is called again.
    pub fn call(&self, targets: Vec<Target>) {
        // Counted at once, so that a caller that waits for an event next does wait.
        let mut shared = locked(&self.shared);
        shared.calls = shared.calls.saturating_add(targets.len());
        shared.tried.extend(targets.iter().map(|target| (target.to_string(), "not called yet".to_owned())));
        drop(shared);
        self.command(Command::Call(targets));
    }

    /// Each place that is called at, and what happened there last, for messages.
    pub fn tried(&self) -> Vec<(String, String)> {
        let shared = locked(&self.shared);
        shared.sought.state.iter().chain(&shared.tried).cloned().collect()
    }

    /// Tells that the payload's network is applied from now on: links that were brought up for a line and that the network uses
    /// stay up afterwards.
    pub fn leave_links(&self) {
        self.command(Command::LeaveLinks);
    }

    /// Tells that the machine's network is another one than before: connections are made anew.
    pub fn call_anew(&self) {
        self.command(Command::CallAnew);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Calls {
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether a host on a link with this address is answered.
    pub(super) fn is_answered(&self, mac: Mac) -> bool {
        !self.settled || self.giver.as_ref().is_some_and(|(_, giver)| *giver == mac)
    }

    /// Adds the places that are not called at yet. Where there are too many, the one that has failed most often gives its place up; a
    /// search that still finds it adds it again.
    pub(super) fn add(&mut self, targets: Vec<Target>, now: u64) {
        let new: Vec<Target> =
            targets.into_iter().filter(|target| !self.all.iter().any(|call| call.target == *target)).collect();
        for (place, target) in new.into_iter().take(PLACES).enumerate() {
            if self.all.len() >= PLACES {
                let waits = |call: &Call| matches!(call.state, State::Waiting(_)) && call.failed > 0;
                let Some(most) = self.all.iter().filter(|call| waits(call)).map(|call| call.failed).max() else {
                    break;
                };
                let given_up = self.all.iter().position(|call| waits(call) && call.failed == most);
                given_up.into_iter().for_each(|place| drop(self.all.remove(place)));
            }
            let later = u32::try_from(place).unwrap_or(u32::MAX);
            let state = State::Waiting(now.saturating_add(micros(STAGGER.saturating_mul(later))));
            let number = self.next;
            self.next = self.next.saturating_add(1);
            let (told, shut) = (Vec::new(), Vec::new());
            self.all.push(Call { number, target, state, failed: 0, last: None, told, shut });
        }
    }

    /// Keeps this call only. `None`: keeps none. `giver`: the host that has brought the payload, if it is on a link.
    pub(super) fn settle(&mut self, kept: Option<usize>, giver: Option<(InterfaceName, Mac)>) {
        self.all.retain(|call| Some(call.number) == kept);
        for call in &mut self.all {
            call.failed = 0;
            if let (State::Listening(links, _), Some((link, _))) = (&mut call.state, &giver) {
                links.retain(|open| open.name() == link);
            }
        }
        (self.settled, self.giver) = (true, giver);
    }

    /// The places that are called at over an address of this machine are called at now. Their numbers: what connections there
    /// are lead nowhere any more.
    pub(super) fn call_anew(&mut self, now: u64) -> Vec<usize> {
        let over_network = self.all.iter_mut().filter(|call| call.target.needs_network());
        over_network
            .map(|call| {
                (call.state, call.failed) = (State::Waiting(now), 0);
                call.number
            })
            .collect()
    }

    /// From now on the payload's network decides about the links.
    pub(super) fn leave_links(&mut self) {
        self.raised.iter_mut().for_each(Raised::leave);
    }

    /// Each place that is called at, and what happened there last.
    pub(super) fn tried(&self) -> Vec<(String, String)> {
        let words = |call: &Call| match (&call.last, &call.state) {
            (Some(last), _) => last.clone(),
            (None, State::Waiting(_)) => "not called yet".to_owned(),
            (None, State::Connecting(..)) => "no answer yet".to_owned(),
            (None, State::Open(_)) => "it sent no payload".to_owned(),
            (None, State::Listening(..)) => "no payload came".to_owned(),
        };
        self.all.iter().map(|call| (call.target.to_string(), words(call))).collect()
    }

    /// The name of the only call that is left.
    pub(super) fn settled_on(&self) -> Option<String> {
        self.all.first().filter(|_| self.settled).map(|call| call.target.to_string())
    }

    /// When to step again.
    pub(super) fn next(&self) -> Option<u64> {
        let full = self.connecting() >= AT_A_TIME;
        let at = |call: &Call| match &call.state {
            State::Waiting(_) if full && call.target.needs_network() => None,
            State::Waiting(at) | State::Connecting(_, at) => Some(*at),
            State::Listening(links, at) => Some(*at).filter(|_| !self.settled || links.is_empty()),
            State::Open(_) => None,
        };
        self.all.iter().filter_map(at).min()
    }

    /// What to wait for, beside the lines.
    pub(super) fn fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::new();
        for call in &self.all {
            match &call.state {
                State::Connecting(calling, _) => fds.push(PollFd::new(calling.as_fd(), PollFlags::POLLOUT)),
                State::Listening(links, _) => {
                    fds.extend(links.iter().map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
                }
                State::Waiting(_) | State::Open(_) => {}
            }
        }
        fds
    }

    /// Does what is due. The events, and whether what is to be said of a place has changed.
    pub(super) fn step(&mut self, root: &Path, now: u64) -> (Vec<Event>, bool) {
        let (mut came, mut changed) = (Vec::new(), false);
        let mut room = AT_A_TIME.saturating_sub(self.connecting());
        let last = self.turn(room, now);
        let Calls { all, raised, settled, giver, .. } = self;
        // Behind the payload, its link alone, if that comes back.
        let kept = settled.then_some(giver.as_ref().map(|(link, _)| link));
        for call in all {
            if matches!(call.state, State::Waiting(at) if at <= now) && call.target.needs_network() {
                if call.since() > last || room == 0 {
                    continue;
                }
                room = room.saturating_sub(1);
            }
            let before = std::mem::discriminant(&call.state);
            call.step(root, now, raised, kept, &mut came);
            changed |= before != std::mem::discriminant(&call.state);
        }
        changed |= !came.is_empty();
        (came, changed)
    }

    /// How many connections are being made.
    fn connecting(&self) -> usize {
        self.all.iter().filter(|call| matches!(call.state, State::Connecting(..))).count()
    }

    /// Of the places that are due, those that have waited longest come first: since when the last of so many is due.
    fn turn(&self, room: usize, now: u64) -> u64 {
        let due = self.all.iter().filter(|call| call.target.needs_network()).map(Call::since).filter(|at| *at <= now);
        let mut due: Vec<u64> = due.collect();
        order::sort(&mut due, |one, other| one < other);
        due.get(room.saturating_sub(1)).copied().unwrap_or(now)
    }

    /// The line of this call is over. What is to be told, if it was not told before. `peer`: the call goes on, and this host
    /// alone is not answered for a while.
    pub(super) fn hung_up(&mut self, number: usize, peer: Option<(u32, Mac)>, why: String, now: u64) -> Option<Event> {
        let call = self.all.iter_mut().find(|call| call.number == number)?;
        match peer {
            Some((index, mac)) => {
                call.shut.insert(0, (index, mac, now.saturating_add(micros(PAUSE.1))));
                call.shut.truncate(SHUT);
                call.last = Some(why.clone());
                call.news(why)
            }
            None => {
                if matches!(call.state, State::Open(since) if now.saturating_sub(since) >= micros(LASTED)) {
                    call.failed = 0;
                }
                call.failed(why, now)
            }
        }
    }

    /// A link is gone. What is to be told, if it was not told before.
    pub(super) fn lose_link(&mut self, number: usize, index: u32, why: String) -> Option<Event> {
        let call = self.all.iter_mut().find(|call| call.number == number)?;
        if let State::Listening(links, at) = &mut call.state {
            links.retain(|link| link.index() != index);
            // Another may come in its place.
            *at = 0;
        }
        call.last = Some(why.clone());
        call.news(why)
    }

    /// Whether a host on a link is not to be answered now.
    pub(super) fn is_shut(&self, number: usize, index: u32, mac: Mac, now: u64) -> bool {
        let call = self.all.iter().find(|call| call.number == number);
        call.is_some_and(|call| {
            call.shut.iter().any(|(link, host, until)| (*link, *host) == (index, mac) && *until > now)
        })
    }

    /// What is to be said of a place, as of now. Whether that is new.
    pub(super) fn says(&mut self, number: usize, words: String) -> bool {
        let call = self.all.iter_mut().find(|call| call.number == number);
        call.is_some_and(|call| {
            call.last = Some(words.clone());
            call.news(words).is_some()
        })
    }

    /// Whether it is new that a host speaks on this line.
    pub(super) fn speaks(&mut self, line: &str) -> bool {
        let new = !self.spoken.iter().any(|known| known == line) && self.spoken.len() < SPOKEN;
        if new {
            self.spoken.push(line.to_owned());
        }
        new
    }
}

/// A pipe for a link as a whole, on which the node says who it is.
pub(super) fn everybody(link: &Link) -> Pipe {
    Pipe::Ether(link.peer(None))
}

/// A pipe to one host on a link.
pub(super) fn one(link: &Link, mac: Mac) -> Peer {
    link.peer(Some(mac))
}

#[cfg(test)]
mod tests;
