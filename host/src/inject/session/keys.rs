//! Handles HELLOs, which may come from the node, from old console output, or from somebody else. A line key counts only
//! after its holder has answered; then the HELLO is compared with the record's binding. Sends no payload.

use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::line::{Hello, Versions};
use tokio::time::Instant;

use super::Session;
use crate::inject::machine;

/// A HELLO with other versions that still comes after this time is not old console output.
const REPLAYED: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// A HELLO came, perhaps from old console output. Whether it is this node is checked when it answers.
    pub(super) fn hello(&mut self, hello: Hello) {
        let code = KeyCode::of(&hello.key);
        let uuid = hello.uuid.map_or("none".to_owned(), |uuid| imprint::hex::uuid(&uuid));
        let serial = hello.serial.clone().unwrap_or_else(|| "none".to_owned());
        self.tell("hello", &format!("line key {code}, UUID {uuid}, serial number {serial}"));
        self.talk.met(hello);
    }

    /// The node has answered. Its time limit starts at the first answer.
    pub(super) fn answers(&mut self) -> Result<(), String> {
        if !std::mem::replace(&mut self.met, true) {
            self.deadline = Instant::now() + self.shared.config.timeout;
        }
        match &self.talk.hello {
            Some(hello) => machine::is_named(self.record.binding.as_ref(), hello),
            None => Ok(()),
        }
    }

    pub(super) fn foreign(&mut self, versions: Versions) {
        let words = format!(
            "the node speaks versions {} to {} of the line protocol, and this program does not; bring both to the same \
             release",
            versions.lowest, versions.highest
        );
        match &self.foreign {
            None => {
                self.tell("hello", &words);
                self.foreign = Some((Instant::now(), words));
            }
            Some((at, _)) if at.elapsed() >= REPLAYED && !self.talk.wire.end().counts() => self.talk.fail(words),
            Some(_) => {}
        }
    }

    /// A HELLO with another line key than the one of this session.
    pub(super) fn second(&mut self, hello: &Hello) {
        let code = KeyCode::of(&hello.key);
        // This session has switched the power, so the node may have started again, and no payload was sent yet.
        if self.job.power.is_some() && self.talk.payload.is_none() {
            self.tell("hello", &format!("again, line key {code}"));
            self.talk.hello = Some(hello.clone());
            self.talk.wire.end_mut().accept(hello.clone());
            return;
        }
        let first = self.talk.hello.as_ref().map(|hello| KeyCode::of(&hello.key).to_string()).unwrap_or_default();
        self.talk.fail(format!(
            "a second line key, {code}, after {first}: the node was started again, or somebody else writes to the line. \
             Compare the key on the node's console, and run inject again"
        ));
    }
}
