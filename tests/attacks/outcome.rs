//! A run: what is tried in it, and what it has come to. Says what counts as a wrong payload, as a secret given away and as a wrong
//! clock. Never takes part in a run.

use std::time::Duration;

use super::attacker::{Attack, Evil};
use super::door::{Visit, Whence};
use super::node::Node;
use super::site::Site;

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) attack: Attack,
    pub(crate) run: usize,
    /// A defence that is left out, to show that the attack works without it.
    pub(crate) without: Option<Defence>,
}

/// A defence, of the node or of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Defence {
    /// The node looks at signatures.
    Judge,
    /// The node takes no answer to a challenge that is older than a minute.
    Age,
    /// Each boot has a key, a nonce and challenges of its own.
    Boot,
    /// The pin names the CA beside the signer.
    Ca,
    /// The console shows the node's own code, and no other.
    Console,
    /// An answer about the time has a proof.
    Proof,
    /// What admits a node at the host is right: the administrator compares codes, the hypervisor names the node's port, nobody else
    /// has the stick; and the host hears the node that he pretends to be.
    Admission,
}

impl Case {
    /// Nobody at the host is on guard.
    pub(crate) fn is_unguarded(&self) -> bool {
        self.without == Some(Defence::Admission)
    }
}

/// What a run has come to.
#[derive(Clone, Default, Debug)]
pub(crate) struct Outcome {
    /// All nodes have their certificates, and have reported.
    pub(crate) done: bool,
    /// Payloads used that were not made for this node in this run.
    pub(crate) wrong: usize,
    /// Payloads of the node that were sealed for a key of the attacker.
    pub(crate) secrets: usize,
    /// The same, where the rule is the port of the node and he has changed its frames at that port: what `wire` rests on is his then.
    pub(crate) handed: usize,
    /// The node was believed to be another one.
    pub(crate) mistaken: usize,
    /// The clock was set, and how often it was beyond the age of the challenge.
    pub(crate) clocks: usize,
    pub(crate) clocks_off: usize,
    /// Answers about the time that counted, and that the door did not give like that.
    pub(crate) believed: usize,
    /// The payload was signed for a challenge that was older than a minute.
    pub(crate) old: usize,
    /// A line where nothing came but what the node itself had said, and the node took it for a host.
    pub(crate) echoes_heard: usize,
    pub(crate) hung: bool,
    pub(crate) faults: Vec<String>,
    /// What came of the attack: payloads that the node was given and did not use, or could not open, or refused as old.
    pub(crate) given: usize,
    pub(crate) not_used: usize,
    pub(crate) unsealed: usize,
    pub(crate) stale: usize,
    /// Callers of the attacker that the door has met, and proofs that it did not take.
    pub(crate) met: usize,
    pub(crate) bad_proofs: usize,
    /// Packets that were held, said again, brought elsewhere, sent back, or put in between.
    pub(crate) held: usize,
    pub(crate) repeated: usize,
    pub(crate) crossed: usize,
    pub(crate) echoed: usize,
    pub(crate) injected: usize,
    /// Answers about the time that came before the door's.
    pub(crate) forged: usize,
    pub(crate) turns: usize,
}

impl Outcome {
    /// What must not happen.
    pub(crate) fn bad(&self) -> usize {
        let Outcome { wrong, secrets, mistaken, clocks_off, believed, old, echoes_heard, hung, .. } = self;
        wrong + secrets + mistaken + clocks_off + believed + old + echoes_heard + usize::from(*hung)
    }

    /// Looks at a node when the run is over. `forged`: the times that the attacker has told.
    pub(crate) fn of_node(&mut self, site: &Site, node: &Node, forged: &[u64]) {
        self.not_used += node.not_used;
        self.unsealed += node.unsealed;
        self.stale += node.stale;
        self.believed += node.told_by.iter().filter(|received| forged.contains(received)).count();
        self.faults.extend(node.faults.clone());
        let Some(used) = &node.used else { return };
        let own = site.made.get(&used.payload.id.0) == Some(&node.machine.name)
            && used.line == 0
            && (site.at(0)..=site.at(used.at)).contains(&used.payload.composed);
        self.wrong += usize::from(!own);
        self.old += usize::from(used.fresh.age() > Duration::from_secs(60));
        for (at, clock) in &node.clocks {
            let right = site.at(*at);
            let off = right.since(*clock).max(clock.since(right));
            self.clocks += 1;
            self.clocks_off += usize::from(off > used.fresh.age() + Duration::from_millis(5));
        }
    }

    /// Looks at a visit. `evil_keys`: those that the attacker can open with.
    pub(crate) fn of_visit(&mut self, nodes: &[Node], visit: &Visit, evil_keys: &[[u8; 32]]) {
        let at_its_port =
            matches!(visit.whence, Whence::Line { .. }) && visit.facts.tap == Some(nodes[0].machine.tap.clone());
        self.bad_proofs += visit.bad_proofs;
        let of_him = !matches!(visit.whence, Whence::Line { .. })
            || visit.hello.as_ref().is_some_and(|hello| evil_keys.contains(&hello.key));
        self.met += usize::from(of_him && visit.hello.is_some());
        let name = &nodes[0].machine.name;
        let his = visit.sealed.iter().filter(|(key, node)| evil_keys.contains(key) && node == name).count();
        *(if at_its_port { &mut self.handed } else { &mut self.secrets }) += his;
        if let Whence::Line { node, .. } = visit.whence {
            let honest = &nodes[node];
            let others = |(key, name): &&([u8; 32], String)| *key == honest.hello().key && *name != honest.machine.name;
            self.mistaken += visit.sealed.iter().filter(others).count();
        }
    }

    pub(crate) fn of_evils(&mut self, evils: &[Evil]) {
        self.given += evils.iter().map(|evil| evil.sent).sum::<usize>();
    }
}
