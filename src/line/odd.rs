//! What a line does to all frames, as far as the frames show it (broken lines, parity, damage), in words that tell a
//! person what to set. Never changes anything on the line.

use std::collections::VecDeque;
use std::fmt;

use crate::base85;

/// What a line does to more than one frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Distortion {
    /// The line breaks text after so many columns. The scanner puts frames together again.
    Broken {
        /// The longest line that came through whole.
        columns: usize,
    },
    /// Bit 7 of each character is a parity bit. The scanner clears it.
    Parity(Parity),
    /// The same frame has come several times, each time spoilt in the same way.
    Spoilt {
        /// Columns of the frame as it came.
        columns: usize,
    },
}

/// The parity in bit 7 on a line with seven data bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Parity {
    /// The number of ones is even.
    Even,
    /// The number of ones is odd.
    Odd,
    /// The bit is always one.
    Mark,
}

impl Parity {
    /// Every parity that shows. A parity bit that is always zero changes nothing.
    pub(super) const ALL: [Parity; 3] = [Parity::Even, Parity::Odd, Parity::Mark];

    /// Whether bit 7 of this byte fits this parity.
    pub(super) fn fits(self, byte: u8) -> bool {
        match self {
            Parity::Even => byte.count_ones().is_multiple_of(2),
            Parity::Odd => !byte.count_ones().is_multiple_of(2),
            Parity::Mark => byte & 0x80 != 0,
        }
    }
}

impl fmt::Display for Distortion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: &str = "set the terminal or console server on the way to 255 columns or more";
        match self {
            Distortion::Broken { columns } => write!(
                f,
                "something on the way breaks lines after {columns} columns; broken frames are joined again, but {WIDTH}"
            ),
            Distortion::Parity(parity) => {
                let parity = match parity {
                    Parity::Even => "even",
                    Parity::Odd => "odd",
                    Parity::Mark => "mark",
                };
                write!(
                    f,
                    "characters come with {parity} parity in bit 7, which is cleared; set the other end and each console \
                     server on the way to 8 bits and no parity (8N1)"
                )
            }
            Distortion::Spoilt { columns } => write!(
                f,
                "the same frame came {ALIKE} times with the same damage, at {columns} columns: something on the way \
                 cuts lines or changes characters; {WIDTH}, and make it pass every character unchanged"
            ),
        }
    }
}

/// The distortions that were seen on a line. Each kind is reported once.
#[derive(Clone, Default)]
pub(super) struct Oddities {
    told: Vec<std::mem::Discriminant<Distortion>>,
    news: VecDeque<Distortion>,
    /// Spoilt frames, the latest first, and how often each of them came.
    spoilt: VecDeque<(Vec<u8>, u8)>,
}

/// This many spoilt frames that are alike have one cause.
const ALIKE: u8 = 3;
/// How many different spoilt frames are remembered: two pieces that are on their way, and frames that come between
/// them.
const REMEMBERED: usize = 4;
/// The number of digits of a frame that may have been cut. A shorter frame fits every terminal. A frame of 250 digits
/// is a whole longest piece, of another conversation.
const DIGITS: std::ops::Range<usize> = 40..250;
/// Types of the frames that can be longer than a line of a terminal (docs/line-protocol.md).
const HELLO: u8 = 2;
const DATA: u8 = 6;

impl Oddities {
    pub(super) fn saw(&mut self, oddity: Distortion) {
        let kind = std::mem::discriminant(&oddity);
        if !self.told.contains(&kind) {
            self.told.push(kind);
            self.news.push_back(oddity);
        }
    }

    /// Takes the digits of a spoilt frame. `inside`: the reader is in a conversation. Outside one, a piece may be of
    /// another conversation and not spoilt.
    pub(super) fn missed(&mut self, digits: &[u8], inside: bool) {
        let head = digits.get(..5).and_then(base85::decode).unwrap_or_default();
        let long = head.first() == Some(&HELLO) || (inside && head.first() == Some(&DATA));
        if !long || !DIGITS.contains(&digits.len()) {
            return;
        }
        let mut count = 1;
        if let Some(at) = self.spoilt.iter().position(|(known, _)| known == digits) {
            count = self.spoilt.remove(at).map_or(1, |(_, before)| before.saturating_add(1));
        }
        if count >= ALIKE {
            self.saw(Distortion::Spoilt { columns: digits.len().saturating_add(1) });
        }
        self.spoilt.push_front((digits.to_vec(), count));
        self.spoilt.truncate(REMEMBERED);
    }

    /// The next distortion that was not reported yet.
    pub(super) fn news(&mut self) -> Option<Distortion> {
        self.news.pop_front()
    }
}
