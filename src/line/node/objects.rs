//! Objects at the node's end: which kinds are taken at which stage, and what becomes of those that come and those that are sent.
//! Never sends a frame by itself.

use super::super::Answered;
use super::super::event::NodeEvent;
use super::super::frame::{Announce, Frame, Kind, NotTaken, Session, Stage};
use super::super::transfer::{Receiver, Taken};
use super::{Ask, Node};

impl Node {
    /// Whether an object of this kind is taken now.
    pub(super) fn wants(&self, kind: Kind) -> Result<(), NotTaken> {
        match (kind, self.stage) {
            (Kind::Sealed | Kind::Plain, Stage::Payload) if self.far => Err(NotTaken::NotSealed),
            (Kind::Plain, Stage::Payload) if !self.hello.plain => Err(NotTaken::NotSealed),
            (Kind::Sealed | Kind::Plain, Stage::Payload) => Ok(()),
            (Kind::Fresh, Stage::Payload) if self.challenges.is_some() => Ok(()),
            // An administrator has to admit the node first, or nobody will.
            (Kind::Pending | Kind::Refused, Stage::Payload) if self.far => Ok(()),
            (Kind::Certificates | Kind::Pending | Kind::Refused, Stage::Request) => Ok(()),
            _ => Err(NotTaken::Unwanted),
        }
    }

    pub(super) fn taken(&mut self, taken: Taken, number: u8, session: Option<Session>) {
        if session.is_some() {
            self.out.extend(taken.answer);
        } else if self.broadcast.progress().is_none() {
            // The object has arrived or was refused. The next object of a host that cannot hear has the same number.
            self.broadcast = Receiver::default();
        }
        let Some((kind, bytes)) = taken.object else { return };
        self.pending = kind == Kind::Pending;
        match kind {
            Kind::Sealed | Kind::Plain | Kind::Fresh => self.stage = Stage::Busy,
            Kind::Certificates | Kind::Refused if self.stage == Stage::Request => {
                // The request is answered, so a later host need not be asked.
                self.stage = Stage::Busy;
                self.statement = None;
                self.sender = None;
                self.held = false;
            }
            _ => {}
        }
        let announced = self.announced.map(|(_, at)| at).unwrap_or_default();
        self.events.push_back(NodeEvent::Object { kind, number, session, announced, bytes });
    }

    pub(super) fn announced(&mut self, announce: &Announce, session: Option<Session>, now: u64) {
        let wanted = match session {
            Some(_) => self.wants(announce.kind),
            // Outside a conversation only a payload that is not sealed can come: a seal is bound to a conversation.
            None if announce.kind == Kind::Plain => self.wants(announce.kind),
            None => Err(NotTaken::Unwanted),
        };
        let receiver = if session.is_some() { &mut self.receiver } else { &mut self.broadcast };
        let taken = receiver.announced(announce, |_| wanted);
        if session.is_some() && matches!(taken.answer, Some(Frame::Ack { .. })) {
            // Said again, it is still the one that came first.
            if self.announced.is_none_or(|(before, _)| before != *announce) {
                self.announced = Some((*announce, now));
            }
            // A host that knows of a narrow terminal on the way sends short pieces; the node then does the same.
            self.shape.chunk = announce.chunk.min(self.most);
        }
        self.taken(taken, announce.number, session);
    }

    pub(super) fn tell_broadcast(&mut self) {
        if self.stage == Stage::Payload && self.hello.plain {
            self.events.push_back(NodeEvent::Broadcast { missing: self.broadcast.missing() });
        }
    }

    pub(super) fn acknowledged(&mut self, number: u8, next: u16, later: u32) {
        let Some(sender) = self.sender.as_mut().filter(|sender| sender.announce().number == number) else { return };
        self.answered = sender.acknowledged(next, later).or(self.answered);
        self.unproven = 0;
        if sender.is_done() {
            let kind = sender.announce().kind;
            self.sender = None;
            self.events.push_back(NodeEvent::Sent(kind));
            self.follow();
        }
    }

    /// Sends the statement that waited for the end of a proof.
    pub(super) fn follow(&mut self) {
        self.unproven = 0;
        if std::mem::take(&mut self.held) {
            self.state();
        }
    }

    pub(super) fn refused(&mut self, number: u8, reason: NotTaken) {
        let Some(sender) = self.sender.as_mut().filter(|sender| sender.announce().number == number) else { return };
        match reason {
            NotTaken::Unknown => sender.unknown(),
            // Begin another conversation: old acknowledgements must not count for the object when it is sent again.
            NotTaken::Digest => {
                self.leave();
                self.greet();
            }
            reason => {
                let kind = sender.announce().kind;
                self.sender = None;
                self.events.push_back(NodeEvent::Refused(kind, reason));
                self.follow();
            }
        }
    }

    /// The answer to the question that was sent last.
    pub(super) fn told(&mut self, number: u8, received: u64, held: u32, now: u64) {
        if let Some(Ask { number: asked, sent: Some((sent, frame)) }) = self.ask
            && asked == number
        {
            self.ask = None;
            self.answered = Some(Answered::Once(frame));
            self.events.push_back(NodeEvent::Time { sent, arrived: now, received, held: u64::from(held) });
        }
    }
}
