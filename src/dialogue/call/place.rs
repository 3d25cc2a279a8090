//! One place that is called at: its connection or its links, step by step, and what is told of it. Every step is told the time, and
//! none waits. Never looks into a frame, and knows nothing of the other places.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::{Event, micros};
use crate::line::ether::Mac;
use crate::payload::InterfaceName;
use crate::pipe::ether::{Link, Raised, Received, links};
use crate::pipe::stream::Calling;
use crate::pipe::{Fault, PipeError, Target};

/// How long a connection may take.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// The first pause before a place is called again. It doubles up to the last.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(10));
/// How often it is looked for links: until there is one, and afterwards.
pub(super) const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The most different messages about one place.
pub(super) const MESSAGES: usize = 4;
/// The most frames of one link that are read before the other lines get their turn.
pub(super) const AT_ONCE: usize = 15;

/// A place that is called at.
pub(super) struct Call {
    pub(super) number: usize,
    pub(super) target: Target,
    pub(super) state: State,
    /// Calls in a row that brought nothing.
    pub(super) failed: u32,
    /// What happened last.
    pub(super) last: Option<String>,
    /// What was told already.
    pub(super) told: Vec<String>,
    /// Hosts on a link that are not answered before a moment.
    pub(super) shut: Vec<(u32, Mac, u64)>,
}

pub(super) enum State {
    /// Called at this moment.
    Waiting(u64),
    /// The connection is being made, until this moment.
    Connecting(Calling, u64),
    /// There is a connection, since this moment.
    Open(u64),
    /// These links are listened on. At this moment it is looked for others.
    Listening(Vec<Link>, u64),
}

impl Call {
    /// Since when it waits for its turn. The future: it does not.
    pub(super) fn since(&self) -> u64 {
        match self.state {
            State::Waiting(at) => at,
            _ => u64::MAX,
        }
    }

    /// `kept`: a payload was accepted, and this is the link that it came on.
    pub(super) fn step(
        &mut self,
        root: &Path,
        now: u64,
        raised: &mut Vec<Raised>,
        kept: Option<Option<&InterfaceName>>,
        came: &mut Vec<Event>,
    ) {
        let state = std::mem::replace(&mut self.state, State::Waiting(u64::MAX));
        match state {
            State::Waiting(at) if at <= now => match Calling::begin(&self.target) {
                Some(Ok(calling)) => self.state = State::Connecting(calling, now.saturating_add(micros(CONNECT))),
                Some(Err(error)) => came.extend(self.failed(words(&error), now)),
                None => {
                    self.state = State::Listening(Vec::new(), now);
                    self.step(root, now, raised, kept, came);
                }
            },
            State::Connecting(calling, until) => {
                if is_writable(&calling) {
                    match calling.finish() {
                        Ok(stream) => {
                            self.state = State::Open(now);
                            self.last = None;
                            came.push(Event::Stream(self.number, stream));
                        }
                        Err(error) => came.extend(self.failed(words(&error), now)),
                    }
                } else if until <= now {
                    let timed_out = std::io::Error::from_raw_os_error(nix::libc::ETIMEDOUT);
                    came.extend(self.failed(Fault::Connect(timed_out).to_string(), now));
                } else {
                    self.state = State::Connecting(calling, until);
                }
            }
            State::Listening(mut open, at) => {
                let count = open.len();
                open.retain(|link| match listen(self.number, link, came) {
                    Ok(()) => true,
                    Err(error) => {
                        came.push(Event::Gone(link.index()));
                        came.extend(self.news(words(&error)));
                        false
                    }
                });
                let lost = count != open.len();
                let mut next = at;
                let looks = match kept {
                    None => true,
                    Some(kept) => kept.is_some() && open.is_empty(),
                };
                if (at <= now || lost) && looks {
                    self.look(root, raised, kept.flatten(), &mut open, came);
                    let pause = if open.is_empty() { LOOK.0 } else { LOOK.1 };
                    next = now.saturating_add(micros(pause));
                }
                self.state = State::Listening(open, next);
            }
            state => self.state = state,
        }
    }

    /// Looks for links that are not listened on yet.
    pub(super) fn look(
        &mut self,
        root: &Path,
        raised: &mut Vec<Raised>,
        kept: Option<&InterfaceName>,
        open: &mut Vec<Link>,
        came: &mut Vec<Event>,
    ) {
        let Target::Ether(named) = &self.target else { return };
        // A link that is gone need not say so.
        open.retain(|link| {
            let there = link.is_there();
            if !there {
                came.push(Event::Gone(link.index()));
            }
            there
        });
        let found = match links(root, kept.or(named.as_ref())) {
            Ok(found) => found,
            Err(error) => {
                came.extend(self.missed(Fault::Link(error.to_string())));
                return;
            }
        };
        if found.is_empty() && open.is_empty() {
            let fault = if named.is_some() { Fault::NoLink } else { Fault::NoLinks };
            came.extend(self.missed(fault));
        }
        for message in found {
            if open.iter().any(|link| link.index() == message.index) {
                continue;
            }
            match Link::open(&message, root) {
                Ok((link, up)) => {
                    raised.extend(up);
                    self.last = None;
                    came.push(Event::Link(self.number, link.clone()));
                    open.push(link);
                }
                Err(PipeError::Far { fault, .. }) => came.extend(self.missed(fault)),
                Err(error @ PipeError::Port(_)) => came.extend(self.news(words(&error))),
            }
        }
    }

    pub(super) fn missed(&mut self, fault: Fault) -> Option<Event> {
        let why = fault.to_string();
        self.last = Some(why.clone());
        self.news(why)
    }

    /// Waits before the next call.
    pub(super) fn failed(&mut self, why: String, now: u64) -> Option<Event> {
        let pause = micros(PAUSE.0.saturating_mul(1 << self.failed.min(8)).min(PAUSE.1));
        // Half of it and up to all of it, so that nodes that began together do not stay together.
        let wait = (pause / 2).saturating_add((pause / 2).saturating_mul(random()) / 0xffff);
        self.failed = self.failed.saturating_add(1);
        self.state = State::Waiting(now.saturating_add(wait));
        self.last = Some(why.clone());
        self.news(why)
    }

    /// What is to be told, if it was not told before.
    pub(super) fn news(&mut self, why: String) -> Option<Event> {
        if self.told.contains(&why) || self.told.len() >= MESSAGES {
            return None;
        }
        self.told.push(why.clone());
        Some(Event::Missed { line: self.target.to_string(), why })
    }
}

/// A number of 16 bits. Without randomness it is the greatest: the longest pause is a good one.
fn random() -> u64 {
    let mut random = [0xff; 2];
    let _ = aws_lc_rs::rand::fill(&mut random);
    u64::from(u16::from_le_bytes(random))
}

/// Reads the frames that have come on a link, some at once.
fn listen(number: usize, link: &Link, came: &mut Vec<Event>) -> Result<(), PipeError> {
    for _ in 0..AT_ONCE {
        match link.receive()? {
            Received::Nothing => break,
            Received::Dropped => {}
            Received::Frame(mac, text) => came.push(Event::Frame(number, link.clone(), mac, text)),
        }
    }
    Ok(())
}

/// What is wrong, without the name of the place.
fn words(error: &PipeError) -> String {
    match error {
        PipeError::Far { fault, .. } => fault.to_string(),
        error => crate::chain::chain(error),
    }
}

fn is_writable(calling: &Calling) -> bool {
    let mut fds = [PollFd::new(calling.as_fd(), PollFlags::POLLOUT)];
    // An error is an event, too: then the connection has failed.
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).is_ok_and(|count| count > 0)
}
