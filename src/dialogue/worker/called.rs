//! The lines that calls make: connections, and the hosts on a link. Decides when such a line is over. Never judges a payload, and never
//! reads or writes a frame.
//!
//! Whoever owns the network between decides what comes on these lines.

use std::time::Duration;

use super::super::call::{Event, everybody, one};
use super::super::{Line, Told, locked};
use super::{Spoken, Worker};
use crate::line::ether::Mac;
use crate::line::{End, Stage};
use crate::payload::InterfaceName;
use crate::pipe::ether::Link;
use crate::pipe::stream::Seen;
use crate::pipe::{Fault, Pipe};

/// How long a place that is called at may take to its first word, and from one word to the next. A host that an administrator keeps
/// waiting asks for the node every 20 s (docs/line-protocol.md, "Timers").
const FIRST_WORD: Duration = Duration::from_secs(30);
const NEXT_WORD: Duration = Duration::from_secs(75);
/// How long a conversation may lead to nothing while the node wants something of the host, and while the host has it wait for an
/// administrator. Somebody on the way may have acknowledged what one end sent, so that neither sends anything more.
const STUCK: Duration = Duration::from_secs(120);
const STUCK_WAITING: Duration = Duration::from_secs(600);
/// So many bytes without a frame are no line.
const NOISE: usize = 16 * 1024;
/// The most hosts that are answered on one link.
const PEERS: usize = 8;
/// A host in a conversation that was not heard for so long gives its place on the link up.
const LEFT: Duration = Duration::from_secs(25);

impl Spoken {
    /// Whether the line is that of a call: it is called again when it is lost.
    pub(in super::super) fn is_called(&self) -> bool {
        self.call.is_some()
    }

    /// The host that this line leads to, where a link has a line to each.
    fn peer(&self) -> Option<(u32, Mac)> {
        match &self.pipe {
            Pipe::Ether(peer) => peer.mac().map(|mac| (peer.index(), mac)),
            _ => None,
        }
    }

    /// The host that this line leads to, and the name of the link.
    pub(in super::super) fn host_on_link(&self) -> Option<(InterfaceName, Mac)> {
        match &self.pipe {
            Pipe::Ether(peer) => peer.mac().map(|mac| (peer.link().clone(), mac)),
            _ => None,
        }
    }

    /// Why the node hangs up, if it does: it has heard no frame for too long. A person who decides about a node takes hours, but
    /// the host asks for the node meanwhile.
    fn tires(&self, now: u64) -> Option<Fault> {
        let Pipe::Stream(stream) = &self.pipe else { return None };
        let seen = stream.seen();
        if self.tires_at()? <= now {
            return Some(Fault::Silent(seen));
        }
        let other = matches!(seen, Seen::Tls | Seen::Http | Seen::Ssh);
        (other || self.noise > NOISE).then_some(Fault::NoLine(if seen == Seen::Line { Seen::Other } else { seen }))
    }

    /// When the node hangs up if it hears nothing more. A link is never hung up on.
    pub(super) fn tires_at(&self) -> Option<u64> {
        let patience = if self.wire.heard() == 0 { FIRST_WORD } else { NEXT_WORD };
        let patience = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        matches!(self.pipe, Pipe::Stream(_)).then(|| self.last.saturating_add(patience))
    }
}

impl Spoken {
    /// When the node begins another conversation, if this one leads to nothing until then.
    pub(super) fn stuck_at(&self) -> Option<u64> {
        let node = self.wire.end();
        let wants = matches!(node.stage(), Stage::Payload | Stage::Request) && node.session().is_some();
        let patience = if self.waits { STUCK_WAITING } else { STUCK };
        let patience = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        (node.is_far() && wants && !self.lost).then(|| self.led.saturating_add(patience))
    }

    /// Whether a newcomer on a full link may take this place, and the order in which places are given up: that which has led to
    /// nothing for longest first. Anybody can send frames with as many addresses as he likes, so a host has a place for good only
    /// once it has shown that it has heard this node: it is in a conversation. One that is silent then, or has led to nothing for too
    /// long, comes last.
    fn gives_way(&self, now: u64) -> Option<(bool, u64)> {
        let talks = self.wire.end().session().is_some();
        let passed = |since: u64, long: Duration| {
            now.saturating_sub(since) > u64::try_from(long.as_micros()).unwrap_or(u64::MAX)
        };
        (!talks || passed(self.last, LEFT) || passed(self.led, NEXT_WORD)).then_some((talks, self.led))
    }
}

impl Worker {
    /// Leaves the place that this line was called at, and calls it again later: it is out of reach, or brought nothing that
    /// can be used. Told once. On a link, the host that the line leads to is not answered for a while.
    pub(in super::super) fn hang_up(&mut self, index: usize, why: String) {
        let now = (self.clock)();
        let Some(line) = self.lines.get_mut(index) else { return };
        line.lost = true;
        let (call, peer) = (line.call, line.peer());
        let news = call.and_then(|call| self.calls.hung_up(call, peer, why, now));
        self.rename();
        self.came(news);
    }

    /// Connections over a network that is another one now lead nowhere any more. Their places are called at anew, at once: the
    /// silence on such a connection would be noticed late.
    pub(super) fn call_anew(&mut self) {
        let calls = self.calls.call_anew((self.clock)());
        for line in &mut self.lines {
            line.lost |= line.call.is_some_and(|call| calls.contains(&call));
        }
        self.rename();
    }

    /// A link is gone. The call goes on, on other links and on this one if it comes back.
    pub(super) fn lose_link(&mut self, call: Option<usize>, index: u32, why: String) {
        let news = call.and_then(|call| self.calls.lose_link(call, index, why));
        self.lose_lines(index);
        self.rename();
        self.came(news);
    }

    /// The lines on a link are lost with it.
    fn lose_lines(&mut self, index: u32) {
        for line in &mut self.lines {
            line.lost |= matches!(&line.pipe, Pipe::Ether(peer) if peer.index() == index);
        }
    }

    /// Calls where it is time to, and takes what came of earlier calls.
    pub(super) fn call(&mut self) {
        let now = (self.clock)();
        for index in 0..self.lines.len() {
            let fault =
                self.lines.get(index).filter(|line| line.is_called() && !line.lost).and_then(|line| line.tires(now));
            if let Some(fault) = fault {
                self.hang_up(index, fault.to_string());
            }
        }
        for line in self.lines.iter_mut().filter(|line| line.stuck_at().is_some_and(|at| at <= now)) {
            line.wire.end_mut().begin_anew();
            line.led = now;
        }
        let (came, changed) = self.calls.step(&self.root, now);
        if changed {
            self.rename();
        }
        self.came(came);
    }

    fn came(&mut self, came: impl IntoIterator<Item = Event>) {
        for came in came {
            match came {
                Event::Stream(call, stream) => self.join(call, Pipe::Stream(stream), true),
                Event::Link(call, link) => self.join(call, everybody(&link), true),
                Event::Frame(call, link, mac, text) => self.deliver(call, &link, mac, &text),
                Event::Gone(index) => self.lose_lines(index),
                Event::Missed { line, why } => {
                    let told = Told::Missed { line, why };
                    locked(&self.shared).why = Some(told.to_string());
                    self.tell(told);
                }
            }
        }
    }

    /// A line that a call has made. It says what the other lines say.
    fn join(&mut self, call: usize, pipe: Pipe, beacon: bool) {
        let mut line = Spoken::new(Line { pipe, beacon, far: true }, &self.hello, self.seeds.another(), (self.clock)());
        line.call = Some(call);
        self.standing.tell(line.wire.end_mut());
        self.lines.push(line);
    }

    /// A frame of a host on a link goes to the line that leads to that host. The first one makes the line.
    fn deliver(&mut self, call: usize, link: &Link, mac: Mac, text: &[u8]) {
        let (now, host) = ((self.clock)(), Some((link.index(), mac)));
        let known = self.lines.iter().position(|line| !line.lost && line.call == Some(call) && line.peer() == host);
        if known.is_none() {
            if !self.calls.is_answered(mac) || self.calls.is_shut(call, link.index(), mac, now) {
                return;
            }
            let on_link =
                |line: &&mut Spoken| !line.lost && line.peer().is_some_and(|(index, _)| index == link.index());
            if self.lines.iter_mut().filter(on_link).count() >= PEERS {
                let on_link = self.lines.iter_mut().filter(on_link);
                let giving = on_link.filter_map(|line| line.gives_way(now).map(|order| (order, line)));
                let Some((_, first)) = giving.min_by_key(|(order, _)| *order) else { return };
                first.lost = true;
            }
            self.join(call, Pipe::Ether(one(link, mac)), false);
        }
        let to = self.lines.iter_mut().rev().find(|line| !line.lost && line.call == Some(call) && line.peer() == host);
        if let Some(Pipe::Ether(peer)) = to.map(|line| &mut line.pipe) {
            peer.take(text);
        }
    }

    /// Whether nothing is said on this line now: it leads to every host on a link, and one of them is in a conversation. To
    /// that host the node's HELLO would say that the conversation is over.
    pub(super) fn is_held_back(&self, index: usize) -> bool {
        let Some(Pipe::Ether(all)) = self.lines.get(index).map(|line| &line.pipe) else { return false };
        let (now, left) = ((self.clock)(), u64::try_from(LEFT.as_micros()).unwrap_or(u64::MAX));
        let talks = |line: &Spoken| {
            !line.lost
                && line.peer().is_some_and(|(link, _)| link == all.index())
                && line.wire.end().session().is_some()
                && now.saturating_sub(line.last) <= left
        };
        all.mac().is_none() && self.lines.iter().any(talks)
    }
}
