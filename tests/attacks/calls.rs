//! Calls in the simulation: who calls, who answers there, and who hangs up. Nothing of what is said on a connection is looked at here.

use imprint_host::admission::Facts;

use super::attacker::{Attack, Evil, MODES, WORDS};
use super::door::Whence;
use super::node::Peer;
use super::site::{Admit, machines};
use super::world::{SECOND, World};

impl World<'_> {
    /// The node leaves the connection, and calls again later.
    pub(super) fn hang_up(&mut self, node: usize, line: usize) {
        let end = &mut self.nodes[node].lines[line];
        let peer = std::mem::replace(&mut end.peer, Peer::Nobody);
        end.wire.end_mut().part();
        end.connection += 1;
        end.calls_at = Some(self.now + end.backoff);
        end.backoff = (end.backoff * 2).min(10 * SECOND);
        if let Peer::Visit(visit) = peer {
            self.visits[visit].closed = true;
        }
    }

    /// The door leaves the connection.
    pub(super) fn closed(&mut self, visit: usize) {
        match self.visits[visit].whence {
            Whence::Nobody => {}
            Whence::Guise(guise) => {
                let again = self.now + 2 * SECOND;
                let guise = &mut self.guises[guise];
                guise.visit = None;
                guise.wire.end_mut().part();
                guise.calls_at = (guise.calls < 20).then_some(again);
            }
            Whence::Line { node, line, connection } => {
                if self.nodes[node].lines[line].connection == connection {
                    self.hang_up(node, line);
                }
            }
        }
    }

    /// Nodes and the attacker's nodes that call.
    pub(super) fn calls(&mut self) {
        for node in 0..self.nodes.len() {
            for line in 0..self.nodes[node].lines.len() {
                let end = &self.nodes[node].lines[line];
                if end.closed || end.calls_at.is_none_or(|at| at > self.now) {
                    continue;
                }
                let connection = end.connection;
                let peer = self.answers(node, line, connection);
                let end = &mut self.nodes[node].lines[line];
                (end.calls_at, end.peer, end.dirty) = (None, peer, true);
            }
        }
        for guise in 0..self.guises.len() {
            if self.guises[guise].calls_at.is_some_and(|at| at <= self.now) {
                // He has a port of his own, or calls at a door that knows no ports.
                let tap = match self.site.admit == Admit::Wire {
                    true if self.case.is_unguarded() => Some(self.nodes[0].machine.tap.clone()),
                    true => ["evil0".to_owned()].into_iter().find(|_| self.seed.below(2) == 0),
                    false => None,
                };
                let facts = Facts { tap, ..Facts::default() };
                let visit = self.visit(Whence::Guise(guise), "203.0.113.66", facts);
                // What he has heard of the node.
                let heard = self.visits.iter().flat_map(|visit| visit.proofs.clone());
                let heard: Vec<Vec<u8>> = heard.chain(self.evils.iter().flat_map(|evil| evil.proofs.clone())).collect();
                let guise = &mut self.guises[guise];
                guise.stolen = heard;
                (guise.visit, guise.calls_at, guise.dirty) = (Some(visit), None, true);
                guise.calls += 1;
            }
        }
    }

    /// Who answers at the address that a node calls at.
    fn answers(&mut self, node: usize, line: usize, connection: usize) -> Peer {
        let attacks = self.now < self.release;
        // The host must not hear the node that he pretends to be: it would see two.
        let unheard = attacks && self.case.is_unguarded() && self.case.attack == Attack::Spoofs;
        if unheard || (self.case.attack == Attack::Echoes && line == 1) {
            return Peer::Nobody;
        }
        let his = line == 1 || (attacks && self.case.attack.is_the_door(self.swaps_on_the_way));
        if self.case.attack == Attack::Replays && (line == 1 || attacks) {
            return Peer::Nobody;
        }
        if his {
            // Whoever has put his key into HELLO wants to have it admitted.
            let words = self.case.attack == Attack::SwapsKeys && self.seed.below(2) == 0;
            let mode = if words { WORDS } else { self.seed.below(MODES) };
            let mode = (self.case.attack != Attack::AnotherCa).then_some(mode);
            self.evils.push(Evil::new((node, line, connection), mode, &mut self.seed));
            return Peer::Evil(self.evils.len() - 1);
        }
        let facts = match self.site.admit {
            Admit::Wire => {
                let other = usize::from(node == 0 && attacks && self.other_port);
                let tap = machines(self.case.run)[node.max(other)].tap.clone();
                Facts { tap: Some(tap), ..Facts::default() }
            }
            _ => Facts::default(),
        };
        let source = format!("192.0.2.{}", node + 1);
        Peer::Visit(self.visit(Whence::Line { node, line, connection }, &source, facts))
    }

    /// From now on he lets pass what goes between the nodes and the site's door. Connections that were his end.
    pub(super) fn let_pass(&mut self) {
        for node in 0..self.nodes.len() {
            if !matches!(self.case.attack, Attack::Delays | Attack::Spoofs | Attack::Injects)
                && !self.nodes[node].lines[0].closed
            {
                if let Peer::Evil(evil) = self.nodes[node].lines[0].peer {
                    self.evils[evil].next = None;
                }
                self.hang_up(node, 0);
            }
        }
    }
}
