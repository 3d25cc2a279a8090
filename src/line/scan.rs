//! Finds frames among the other bytes of a line. Never decodes what a frame says.
//!
//! The scanner undoes two things that terminals do to frames: a line break after a number of columns, and a parity bit
//! in bit 7. The frame's CRC shows whether that was right. [`Scanner::odd`] reports what was undone.

use super::frame::{MARK, MAX_DIGITS};
use super::odd::{Distortion, Parity};
use crate::base85;

/// Finds frames among the other bytes of a line.
#[derive(Clone, Default)]
pub struct Scanner {
    /// The bytes since a mark, as they came; empty: no mark was seen.
    held: Vec<u8>,
    /// The digits among the held bytes, with bit 7 clear.
    digits: Vec<u8>,
    /// How many of the digits stand in the current line.
    in_line: usize,
    /// Characters of a line break after the last digit.
    breaks: usize,
    /// Columns of the longest line that was broken; 0: no line was broken.
    broken: usize,
    /// Bit 7 was set in a held byte, and is parity in all of them.
    parity: bool,
    /// A frame has just ended, and the rest of its line end belongs to it. `true`: bit 7 of the frame was parity.
    ending: Option<bool>,
    /// Characters since the last line break.
    column: usize,
    odd: Option<Distortion>,
}

/// A line break after fewer digits is not that of a terminal: no terminal has so few columns.
const LEAST_IN_LINE: usize = 10;
/// The most characters of a line break. CR CR LF: the sender and a terminal have each written CR before LF.
const LINE_BREAK: usize = 3;

impl Scanner {
    /// Takes the next bytes. `frame` gets each candidate's digits, and says whether they were a frame. `text` gets all
    /// other bytes: a candidate that was not a frame, too, with its mark. A candidate that a line break has ended is
    /// given to `frame` again with the digits of the next line.
    pub fn push(&mut self, bytes: &[u8], mut frame: impl FnMut(&[u8]) -> bool, mut text: impl FnMut(&[u8])) {
        for byte in bytes {
            let goes_on = !self.held.is_empty() && self.goes_on(*byte, &mut frame);
            if !goes_on {
                if !self.held.is_empty() {
                    text(&self.held);
                    self.forget();
                }
                self.outside(*byte, &mut text);
            }
            self.column = if matches!(byte & 0x7f, b'\r' | b'\n') { 0 } else { self.column.saturating_add(1) };
        }
    }

    /// The distortion of the frame that was found last, if there was one. Told once.
    pub fn odd(&mut self) -> Option<Distortion> {
        self.odd.take()
    }

    /// Returns the bytes that were held because a frame may have begun, and gives that candidate up.
    pub fn flush(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.forget();
        held
    }

    /// A byte that is part of no frame, or begins one.
    fn outside(&mut self, byte: u8, text: &mut impl FnMut(&[u8])) {
        let seen = if self.ending == Some(true) { byte & 0x7f } else { byte };
        match (self.ending, seen) {
            // The line end after a frame is part of the frame.
            (Some(_), b'\r') => return,
            (Some(_), b'\n') => {}
            _ if byte & 0x7f == MARK => {
                self.held.push(byte);
                self.parity = byte != MARK;
            }
            _ => text(&[byte]),
        }
        self.ending = None;
    }

    /// Whether the byte belongs to the held candidate. If it does not, and the candidate was a frame, nothing is held
    /// any more.
    fn goes_on(&mut self, byte: u8, frame: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let low = byte & 0x7f;
        // A byte with bit 7 set ends a frame, unless the whole frame has parity.
        if byte != low && !self.parity && self.ends(frame) {
            return false;
        }
        let parity = self.parity || byte != low;
        let seen = if parity && !self.has_parity(byte) { 0 } else { low };
        if base85::is_digit(seen) && self.digits.len() <= MAX_DIGITS {
            self.digits.push(seen);
            self.in_line = self.in_line.saturating_add(1);
            self.breaks = 0;
        } else if self.ends(frame) {
            return false;
        } else if matches!(seen, b'\r' | b'\n') && self.may_be_broken() {
            if self.breaks == 0 {
                self.broken = self.broken.max(self.column);
                self.in_line = 0;
            }
            self.breaks = self.breaks.saturating_add(1);
        } else {
            return false;
        }
        self.parity = parity;
        self.held.push(byte);
        true
    }

    /// Whether the held candidate is a frame. A candidate that was asked about before a line break is not asked about
    /// again.
    fn ends(&mut self, frame: &mut impl FnMut(&[u8]) -> bool) -> bool {
        if self.breaks > 0 || self.digits.is_empty() || !frame(&self.digits) {
            return false;
        }
        if self.parity {
            let fits = |parity: &Parity| self.held.iter().all(|byte| parity.fits(*byte));
            self.odd = Parity::ALL.into_iter().find(fits).map(Distortion::Parity);
        } else if self.broken > 0 {
            self.odd = Some(Distortion::Broken { columns: self.broken });
        }
        self.ending = Some(self.parity);
        self.held.clear();
        self.forget();
        true
    }

    /// Whether bit 7 of all held bytes and of this byte is parity.
    fn has_parity(&self, byte: u8) -> bool {
        let fits = |parity: &Parity| parity.fits(byte) && self.held.iter().all(|held| parity.fits(*held));
        Parity::ALL.iter().any(fits)
    }

    /// Whether a line break may stand here inside a frame.
    fn may_be_broken(&self) -> bool {
        match self.breaks {
            0 => self.in_line >= LEAST_IN_LINE && self.digits.len() < MAX_DIGITS,
            breaks => breaks < LINE_BREAK,
        }
    }

    fn forget(&mut self) {
        self.held.clear();
        self.digits.clear();
        (self.in_line, self.breaks, self.broken, self.parity) = (0, 0, 0, false);
    }
}
