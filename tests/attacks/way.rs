//! The way between the ends of the simulation, which is the attacker's: what is sent arrives later, twice, elsewhere, changed, or comes
//! back. Never decides who answers a call; the world does.

use imprint::digest::sha256;
use imprint::line::frame::{Announce, Frame, Packet};
use imprint::line::{End, Kind, Session, Side};
use imprint_host::admission::Facts;

use super::attacker::{Attack, is_a_time, is_of_an_object, with_key};
use super::door::Whence;
use super::node::Peer;
use super::world::{Holds, SECOND, Said, To, World};

impl World<'_> {
    /// Says everything of yesterday again, at the same pace: to the node at its second address and, until he lets its packets pass,
    /// at the first; and to the door.
    pub(super) fn replay(&mut self, said: &[Said]) {
        self.visit(Whence::Nobody, "203.0.113.66", Facts::default());
        for (at, to_node, bytes) in said {
            self.out.repeated += 1;
            match to_node {
                true => {
                    for line in 0..2 {
                        self.send(*at, To::Line { node: 0, line, connection: 0 }, bytes.clone());
                    }
                }
                false => self.send(*at, To::Visit(0), bytes.clone()),
            }
        }
    }

    /// What a node has said passes the attacker.
    pub(super) fn of_a_node(&mut self, node: usize, line: usize, bytes: Vec<u8>) {
        let attacks = self.now < self.release;
        if line == 0 && node == 0 {
            self.said.push((self.now, false, bytes.clone()));
        }
        match self.nodes[node].lines[line].peer {
            Peer::Nobody => {}
            Peer::Evil(evil) => self.send(100, To::Evil(evil), bytes.clone()),
            Peer::Visit(visit) if self.case.attack == Attack::SwapsKeys && attacks => {
                let bytes = with_key(&bytes, self.evil_key.public());
                self.send(self.latency, To::Visit(visit), bytes);
            }
            Peer::Visit(visit) => self.passes(To::Visit(visit), &bytes, None),
        }
        if self.case.attack == Attack::Echoes {
            self.out.echoed += 1;
            let connection = self.nodes[node].lines[line].connection;
            self.send(100, To::Line { node, line, connection }, bytes.clone());
        }
        // The other node's connection gets it, too.
        if self.case.attack == Attack::Relays && attacks && self.seed.below(self.crosses) == 0 {
            self.out.crossed += 1;
            let other = self.nodes[1 - node].lines[0].peer;
            if let Peer::Visit(visit) = other {
                self.send(self.latency, To::Visit(visit), bytes);
            }
        }
    }

    pub(super) fn of_a_visit(&mut self, visit: usize, bytes: Vec<u8>) {
        match self.visits[visit].whence {
            Whence::Nobody => {}
            Whence::Guise(guise) => self.send(100, To::Guise(guise), bytes),
            Whence::Line { node, line, connection } => {
                if line == 0 && node == 0 {
                    self.said.push((self.now, true, bytes.clone()));
                }
                let session = self.visits[visit].wire.end().session();
                let to = To::Line { node, line, connection };
                self.passes(to, &bytes, session);
                if self.case.attack == Attack::Echoes {
                    self.out.echoed += 1;
                    self.send(100, To::Visit(visit), bytes.clone());
                }
                if self.case.attack == Attack::Relays && self.now < self.release && self.seed.below(self.crosses) == 0 {
                    self.out.crossed += 1;
                    let connection = self.nodes[1 - node].lines[0].connection;
                    self.send(self.latency, To::Line { node: 1 - node, line: 0, connection }, bytes);
                }
            }
        }
    }

    /// What goes between a node and the site's door.
    fn passes(&mut self, to: To, bytes: &[u8], session: Option<Session>) {
        let attacks = self.now < self.release;
        for text in imprint::line::ether::frames(bytes) {
            let mut after = self.latency;
            if self.case.attack == Attack::Delays && attacks {
                let held = match self.holds {
                    Holds::All => self.seed.below(self.hold + 1),
                    Holds::Objects if is_of_an_object(text, session) => self.hold,
                    Holds::Times if is_a_time(text, session) => self.hold,
                    Holds::Objects | Holds::Times => 0,
                };
                after += held;
                self.out.held += usize::from(held > 0);
            }
            if self.case.attack == Attack::AnswersFirst {
                self.forges_time(to, text, session);
            }
            self.send(after, to, text.to_vec());
            let wants = self.nodes.iter().all(|node| node.used.is_none());
            if let (Attack::Injects, Some(session)) = (self.case.attack, session.filter(|_| attacks && wants))
                && self.seed.below(4) == 0
            {
                self.injects(to, session);
            }
            if self.case.attack == Attack::Delays && attacks && self.holds == Holds::Objects {
                self.keeps_alive(to, text, session);
            }
            if self.case.attack == Attack::Replays && self.seed.below(4) == 0 {
                self.out.repeated += 1;
                let later = self.seed.below(90 * SECOND);
                self.send(later, to, text.to_vec());
            }
        }
    }

    /// Before the door's answer to the question for the time comes his own, with a proof that he has heard and without one.
    fn forges_time(&mut self, to: To, text: &[u8], session: Option<Session>) {
        let digits = text.strip_prefix(b"#").unwrap_or(text).trim_ascii_end();
        let Some(Packet { from, session, frame: Frame::ProvenTime { number, received, held, tag } }) =
            Packet::decode(digits, session)
        else {
            return;
        };
        // Within the age of the challenge, or far from it.
        let off = if self.seed.below(2) == 0 { SECOND / 100 } else { 86_400 * SECOND };
        let received = received + 1 + self.seed.below(off);
        self.forged.push(received);
        for frame in [Frame::Time { number, received, held }, Frame::ProvenTime { number, received, held, tag }] {
            let mut bytes = Vec::new();
            Packet { from, session, frame }.encode(&mut bytes);
            self.out.forged += 1;
            self.send(self.latency - 100, to, bytes);
        }
    }

    /// An object for the node, which refuses it, or cannot open it.
    fn injects(&mut self, to: To, session: Session) {
        let kind = [Kind::Report, Kind::Sealed, Kind::Fresh][usize::try_from(self.seed.below(3)).unwrap()];
        let number = self.seed.bytes::<1>()[0] % 3;
        let bytes = vec![number; 100];
        let announce = Announce { number, kind, chunk: 192, length: 100, digest: sha256(&bytes) };
        let mut out = Vec::new();
        for frame in [Frame::Announce(announce), Frame::Data { number, index: 0, bytes }] {
            Packet { from: Side::Host, session: Some(session), frame }.encode(&mut out);
        }
        self.out.injected += 1;
        self.send(100, to, out);
    }

    /// While he holds an object, he repeats OPEN, so that neither end takes the other for gone.
    fn keeps_alive(&mut self, to: To, text: &[u8], session: Option<Session>) {
        let digits = text.strip_prefix(b"#").unwrap_or(text).trim_ascii_end();
        let packet = Packet::decode(digits, session);
        if matches!(packet, Some(Packet { from: Side::Host, frame: Frame::Open { .. }, .. })) {
            for step in 1..self.hold / SECOND {
                self.send(step * SECOND, to, text.to_vec());
            }
        }
    }
}
