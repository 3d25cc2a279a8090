//! Finding frames in whatever else a line carries. Does not know what they say.

use super::base85;
use super::frame::{MARK, MAX_DIGITS};

/// Finds frames in whatever else a line carries.
#[derive(Clone, Default)]
pub struct Scanner {
    /// What came since a mark; empty: no mark was seen.
    held: Vec<u8>,
    /// A frame has just ended: the rest of its line end belongs to it.
    ending: bool,
}

impl Scanner {
    /// Takes the next bytes. `frame` gets each candidate's digits, and says whether they were a frame; `text` gets
    /// everything else, a candidate that was none with its mark.
    pub fn push(&mut self, bytes: &[u8], mut frame: impl FnMut(&[u8]) -> bool, mut text: impl FnMut(&[u8])) {
        for byte in bytes {
            if let Some(digits) = self.held.get(1..) {
                if base85::is_digit(*byte) && digits.len() <= MAX_DIGITS {
                    self.held.push(*byte);
                    continue;
                }
                let taken = !digits.is_empty() && frame(digits);
                if !taken {
                    text(&self.held);
                }
                self.held.clear();
                self.ending = taken;
            }
            match (self.ending, *byte) {
                // The line end of a frame is part of it.
                (true, b'\r') => {}
                (true, b'\n') => self.ending = false,
                (_, MARK) => {
                    self.ending = false;
                    self.held.push(MARK);
                }
                (_, other) => {
                    self.ending = false;
                    text(&[other]);
                }
            }
        }
    }

    /// What is held back because a frame may have begun; it is over with that.
    pub fn flush(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}
