//! Proves in each conversation that the node has an admission key, if it has one. The proof is made anew each time, since it is
//! over the nonce of the host. Never reads a key, and never knows whether a host lets the node in for it.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use nix::sys::eventfd::EventFd;

use super::worker::Worker;
use super::{Command, Dialogue, Proves, Told};
use crate::key_code::KeyCode;
use crate::line::admission::AdmissionKey;
use crate::line::{End, Kind, Stage};

/// Brings admission keys to a dialogue from another thread. Once the dialogue is over, it does nothing.
pub struct Prover {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

impl Prover {
    /// From now on the node proves that it has this key, and no other. `from`: where it was read, for people.
    pub fn prove(&self, key: AdmissionKey, from: String) {
        self.command(Command::Prove(Box::new(Proves { key, from })));
    }

    /// Tells the person at the console why no key was read.
    pub fn tell(&self, words: String) {
        self.command(Command::Tell(words));
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
    /// A key was read. In a conversation that goes on it is proven at once: a host may have the node wait for it.
    pub(super) fn proves(&mut self, proves: Proves) {
        let code = KeyCode::of(&proves.key.public());
        let before = self.proves.replace(proves).map(|before| before.from);
        let from = self.proves.as_ref().map(|proves| proves.from.clone()).unwrap_or_default();
        self.tell(Told::Key { code, from, before });
        (0..self.lines.len()).for_each(|index| self.prove(index));
    }

    /// Proves the key on this line, if a host there may still decide whom it lets in.
    pub(super) fn prove(&mut self, index: usize) {
        let (Some(Proves { key, .. }), Some(line)) = (&self.proves, self.lines.get_mut(index)) else { return };
        let node = line.wire.end_mut();
        if let (Some(session), Stage::Payload, false) = (node.session(), node.stage(), line.lost) {
            let proof = key.prove(node.hello(), session.host);
            node.say(Kind::Admission, proof);
        }
    }
}
