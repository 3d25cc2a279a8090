//! A payload that came on a line: opens its seal, and asks the judge about it where others than the one at the end of a cable may
//! have sent it. Never reads what is in a payload.

use super::worker::{Came, Worker};
use super::{Told, Waits, Words, locked};
use crate::key_code::KeyCode;
use crate::line::seal::{self, SealError};
use crate::line::{Fresh, Kind, Stage};
use crate::secret::Secret;
use crate::shown::printable;
use crate::time::since_boot;

/// After so many payloads that cannot be opened, the node gives a line up.
const OPENINGS: u8 = 3;

/// What came of an object with a payload.
enum Opened {
    Payload(Secret, Option<Fresh>),
    /// It was signed for no challenge of the last minute.
    Stale,
}

impl Worker {
    /// A payload came on this line.
    pub(super) fn payload(&mut self, index: usize, came: Came) {
        let sealed = came.kind != Kind::Plain;
        let opened = self.open(index, came);
        let Some(line) = self.lines.get_mut(index) else { return };
        let (name, far) = (line.pipe.name().to_owned(), line.wire.end().is_far());
        let (bytes, fresh) = match opened {
            Ok(Opened::Payload(bytes, fresh)) => (bytes, fresh),
            Ok(Opened::Stale) => {
                line.wire.end_mut().set_stage(Stage::Payload);
                // Each line says it once, and so does each place that is called again.
                let (new, call) = (!std::mem::replace(&mut line.stale, true), line.call);
                let words = "its payload was signed for no challenge of the last minute";
                if new && call.is_none_or(|call| self.says(call, words.to_owned())) {
                    self.tell(Told::Stale { line: name });
                }
                return;
            }
            Err(error) => {
                line.openings = line.openings.saturating_add(1);
                line.wire.end_mut().set_stage(Stage::Payload);
                match line.openings {
                    _ if line.is_called() => self.hang_up(index, printable(&error.to_string())),
                    ..OPENINGS => self.tell(Told::Unsealed(error)),
                    // Somebody else may be in the way: whoever can open it is still let in.
                    _ if far => self.not_used(index, name, printable(&error.to_string())),
                    _ => self.give_up(index, Told::Unsealed(error)),
                }
                return;
            }
        };
        if far && let Err(why) = self.judged(&bytes, fresh.as_ref()) {
            self.wants_again(index);
            return self.not_used(index, name, why);
        }
        self.standing.stage = Stage::Busy;
        let (call, host) = self.lines.get(index).map_or((None, None), |line| (line.call, line.host_on_link()));
        self.calls.settle(call, host);
        self.awaited = None;
        // The other lines are given back as they were.
        for (other, line) in self.lines.iter_mut().enumerate() {
            line.lost |= other != index;
        }
        self.rename();
        self.tell(Told::Payload { line: name, sealed, fresh, bytes });
    }

    fn open(&self, index: usize, came: Came) -> Result<Opened, SealError> {
        let Came { kind, number, session, announced, bytes } = came;
        let (Some(session), true, Some(line)) = (session, kind != Kind::Plain, self.lines.get(index)) else {
            return Ok(Opened::Payload(Secret::new(bytes), None));
        };
        let node = line.wire.end();
        let opened = self.key.open(&bytes, node.hello(), session, kind, number)?;
        if kind != Kind::Fresh {
            return Ok(Opened::Payload(opened, None));
        }
        let (challenge, signed) = seal::answer(&opened).ok_or(SealError::Short)?;
        Ok(match node.fresh(challenge, announced) {
            Some(fresh) => Opened::Payload(signed, Some(fresh)),
            None => Opened::Stale,
        })
    }

    fn judged(&self, bytes: &Secret, fresh: Option<&Fresh>) -> Result<(), String> {
        match (&self.judge, fresh) {
            (Some(judge), Some(fresh)) => judge(bytes, fresh),
            // Neither happens: a far line takes nothing else, and is not used without a judge.
            _ => Err("nobody judges it".to_owned()),
        }
    }

    fn wants_again(&mut self, index: usize) {
        if let Some(line) = self.lines.get_mut(index) {
            line.wire.end_mut().set_stage(Stage::Payload);
        }
    }

    /// Leaves the conversation on a far line whose host has nothing that this node takes. Told once in the same words.
    fn not_used(&mut self, index: usize, name: String, why: String) {
        let Some(line) = self.lines.get_mut(index) else { return };
        if line.is_called() {
            return self.hang_up(index, format!("its payload is not used: {why}"));
        }
        let told = line.not_used.replace(why.clone());
        self.part(index);
        if told.as_ref() != Some(&why) {
            self.tell(Told::NotUsed { line: name, why });
        }
    }

    /// The host says that an administrator has to admit the node first, or that nobody will.
    pub(super) fn turned_away(&mut self, index: usize, pending: bool, text: &[u8]) {
        let code = KeyCode::of(&self.hello.key);
        let words = Words::of(printable(&String::from_utf8_lossy(text)), code);
        let Some(line) = self.lines.get_mut(index) else { return };
        line.waits = pending;
        let (name, call) = (line.pipe.name().to_owned(), line.call);
        let told = Told::Waits { line: name, pending, code, words: words.clone() };
        let news = line.not_used.replace(told.to_string()) != line.not_used;
        if pending {
            self.waits(words.of_one_that_waits(code), words == Words::OtherKey);
        }
        let new = match (pending, call) {
            // The same door says the same again when it is called again.
            (true, Some(call)) => self.says(call, words.of_one_that_waits(code)),
            (false, Some(_)) => {
                return self.hang_up(index, format!("it does not serve this node{}", words.unproven()));
            }
            (_, None) => news,
        };
        if !pending {
            self.part(index);
        }
        if new {
            self.tell(told);
        }
    }

    /// A host has this node wait for an administrator. `alarm`: one that heard another key than this node's. That stays said.
    fn waits(&self, words: String, alarm: bool) {
        let (mut shared, now) = (locked(&self.shared), since_boot());
        let before = shared.waits.take();
        let since = before.as_ref().map_or(now, |before| before.since);
        let kept = before.filter(|before| before.alarm && !alarm);
        shared.waits = Some(match kept {
            Some(before) => Waits { heard: now, ..before },
            None => Waits { since, heard: now, words, alarm },
        });
    }

    /// What is said of a place that is called at, from now on. Whether that is new.
    pub(super) fn says(&mut self, call: usize, words: String) -> bool {
        let new = self.calls.says(call, words);
        self.rename();
        new
    }

    /// Leaves the conversation on this line: the search goes on elsewhere, and here again later.
    fn part(&mut self, index: usize) {
        if let Some(line) = self.lines.get_mut(index) {
            line.wire.end_mut().part();
        }
        locked(&self.shared).open = false;
    }
}
