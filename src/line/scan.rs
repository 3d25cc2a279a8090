//! Finding frames in whatever else a line carries. Does not know what they say.
//!
//! Two things that terminals do to frames are undone here: a line break after a number of columns, and a parity bit in
//! bit 7. Whether that was right, the frame's CRC says. [`Scanner::odd`] tells of it.

use super::base85;
use super::frame::{MARK, MAX_DIGITS};
use super::odd::{Distortion, Parity};

/// Finds frames in whatever else a line carries.
#[derive(Clone, Default)]
pub struct Scanner {
    /// What came since a mark, as it came; empty: no mark was seen.
    held: Vec<u8>,
    /// The digits in it, with bit 7 clear.
    digits: Vec<u8>,
    /// How many of them stand in the line that the last of them is in.
    in_line: usize,
    /// Characters of a line break behind the last of them.
    breaks: usize,
    /// The longest line of it that was broken; 0: none was.
    broken: usize,
    /// Bit 7 was set in some of it, and is the parity of all of it.
    parity: bool,
    /// A frame has just ended: the rest of its line end belongs to it. Its bit 7 was parity, or was not.
    ending: Option<bool>,
    /// Characters since the last line break.
    column: usize,
    odd: Option<Distortion>,
}

/// A line break behind fewer digits is not that of a terminal: none has so few columns.
const LEAST_IN_LINE: usize = 10;
/// CR CR LF: a terminal that writes CR for each LF, after a sender that did the same.
const LINE_BREAK: usize = 3;

impl Scanner {
    /// Takes the next bytes. `frame` gets each candidate's digits, and says whether they were a frame; `text` gets
    /// everything else, a candidate that was none with its mark. A candidate that a line break has ended is given to
    /// `frame` again with the digits of the next line.
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

    /// What the line did to the frame that was found last, if that is odd. Told once.
    pub fn odd(&mut self) -> Option<Distortion> {
        self.odd.take()
    }

    /// What is held back because a frame may have begun; it is over with that.
    pub fn flush(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.forget();
        held
    }

    /// A byte that is part of no frame, or begins one.
    fn outside(&mut self, byte: u8, text: &mut impl FnMut(&[u8])) {
        let seen = if self.ending == Some(true) { byte & 0x7f } else { byte };
        match (self.ending, seen) {
            // The line end of a frame is part of it.
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

    /// Whether the byte belongs to what is held. If not, and that was a frame, nothing is held any more.
    fn goes_on(&mut self, byte: u8, frame: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let low = byte & 0x7f;
        // A byte that is no ASCII ends a frame, unless all of the frame is with parity.
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

    /// Whether what is held is a frame. One that was asked about before is not asked about again.
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

    /// Whether bit 7 of all that is held and of this byte is parity.
    fn has_parity(&self, byte: u8) -> bool {
        let fits = |parity: &Parity| parity.fits(byte) && self.held.iter().all(|held| parity.fits(*held));
        Parity::ALL.iter().any(fits)
    }

    /// Whether a line break may stand here, and the frame go on behind it.
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
