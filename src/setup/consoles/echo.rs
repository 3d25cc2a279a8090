//! Notices a line that sends back what was written to it: a loop, or a peer that echoes. Pure, and never keeps what a person types.

/// So many characters in a row, from the beginning of a text that was written, are no accident. Nobody types the dialogue's own words.
const PROOF: usize = 8;
/// The most that is remembered.
const MOST: usize = 4096;

/// What one console was shown, and how much of it has come back.
#[derive(Default)]
pub(super) struct Echo {
    /// The printable characters of what was written, the oldest first.
    shown: Vec<u8>,
    /// Where a line of it begins.
    lines: Vec<usize>,
    /// Where what has come may stand in `shown`: the beginning, and the end.
    back: Vec<(usize, usize)>,
    is_one: bool,
}

impl Echo {
    /// Whether nobody types there.
    pub(super) fn is_one(&self) -> bool {
        self.is_one
    }

    /// This was written. What stands before the first line end is the echo of what a person types.
    pub(super) fn shown(&mut self, bytes: &[u8]) {
        if self.shown.len() > MOST {
            *self = Echo { is_one: self.is_one, ..Echo::default() };
        }
        for text in bytes.split(|byte| *byte == b'\n').skip(1) {
            let text = printable(text);
            if text.len() >= PROOF {
                self.lines.push(self.shown.len());
                self.shown.extend(text);
            }
        }
    }

    /// This has come.
    pub(super) fn heard(&mut self, bytes: &[u8]) {
        for byte in printable(bytes) {
            self.back.extend(self.lines.iter().map(|begin| (*begin, *begin)));
            self.back.retain(|(_, end)| self.shown.get(*end) == Some(&byte));
            for (_, end) in &mut self.back {
                *end = end.saturating_add(1);
            }
            self.is_one |= self.back.iter().any(|(begin, end)| end.saturating_sub(*begin) >= PROOF);
        }
    }
}

/// Line ends may be translated on the way.
fn printable(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| (0x20..=0x7e).contains(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_an_echo_and_what_a_person_types_is_none() {
        let question = b"\r\nhost name [node1.example.org]: ";
        // As a slow line brings it, and as a fast one does, with other line ends, and behind noise.
        for (noise, piece) in [("", 1), ("", 64), ("ho~", 3)] {
            let mut echo = Echo::default();
            echo.shown(question);
            echo.heard(noise.as_bytes());
            let back: Vec<u8> = question.iter().copied().filter(|byte| *byte != b'\r').collect();
            back.chunks(piece).for_each(|piece| echo.heard(piece));
            assert!(echo.is_one(), "{noise} {piece}");
        }
        // What the brackets show may be typed, and so may a part of the question.
        let mut echo = Echo::default();
        echo.shown(question);
        for typed in [&b"node1.example.org\r"[..], b"host\r", b"hosthos\r", b"192.0.2.53\r", b"192.0.2.53\r"] {
            echo.heard(typed);
            echo.shown(&[&typed[..typed.len() - 1], question].concat());
        }
        assert!(!echo.is_one());
    }
}
