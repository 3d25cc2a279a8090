//! Proves in each conversation that the node has its admission keys, one after the other. A proof is made anew each time,
//! since it is over the nonce of the host. Never reads a key, and never knows whether a host lets the node in for it.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use nix::sys::eventfd::EventFd;

use super::worker::Worker;
use super::{Command, Dialogue, Proves, Told};
use crate::key_code::KeyCode;
use crate::line::admission::{AdmissionKey, MOST_KEYS};
use crate::line::{End, Kind, Stage};

/// Brings admission keys to a dialogue from another thread. Once the dialogue is over, it does nothing.
pub struct Prover {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

impl Prover {
    /// From now on the node proves that it has this key, too. `from`: where it was read, for people.
    pub fn prove(&self, key: AdmissionKey, from: String) {
        self.command(Command::Prove(Box::new(Proves { key, from })));
    }

    /// Tells the person at the console, for example why no key was read.
    pub fn tell(&self, words: String) {
        self.command(Command::Tell(Told::NoKey(words)));
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

impl Dialogue {
    /// A way to bring admission keys.
    pub fn prover(&self) -> Prover {
        Prover { commands: self.commands.clone(), wake: Arc::clone(&self.wake) }
    }
}

impl Worker {
    /// A key was read. In a conversation that goes on it is proven, too: a host may have the node wait for it.
    pub(super) fn proves(&mut self, proves: Proves) {
        let public = proves.key.public();
        self.tell(Told::Key { code: KeyCode::of(&public), from: proves.from });
        // The image and a stick may have the same key.
        if self.proves.iter().all(|known| known.public() != public) && self.proves.len() < MOST_KEYS {
            self.proves.push(proves.key);
            (0..self.lines.len()).for_each(|index| self.prove(index));
        }
    }

    /// Proves the next key on this line, if a host there may still decide whom it lets in. One proof follows when the other has
    /// arrived: which of the keys is the right one, the host knows.
    pub(super) fn prove(&mut self, index: usize) {
        let Some(line) = self.lines.get_mut(index).filter(|line| !line.lost && !line.proving) else { return };
        let Some(key) = self.proves.get(line.proven) else { return };
        let node = line.wire.end_mut();
        if let (Some(session), Stage::Payload) = (node.session(), node.stage()) {
            let proof = key.prove(node.hello(), session.host);
            node.say(Kind::Admission, proof);
            line.proven = line.proven.saturating_add(1);
            line.proving = true;
        }
    }
}
