//! A line as it is typed on a terminal that knows nothing but line ends, backspace and the bell. Echoes what it takes. Pure: bytes in,
//! bytes out.

use zeroize::{Zeroize, Zeroizing};

/// No value is longer: an RSA key of 16384 bits has 2,800 characters.
const MOST: usize = 4096;

const BELL: u8 = 0x07;
const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_L: u8 = 0x0c;
const CTRL_R: u8 = 0x12;
const CTRL_U: u8 = 0x15;
const ESCAPE: u8 = 0x1b;

/// What was typed so far.
pub(super) struct Typed {
    line: Zeroizing<Vec<u8>>,
    /// Nothing is echoed.
    pub(super) secret: bool,
    /// The last byte was CR: an LF or a NUL after it is the same line end (RFC 854, "The NVT printer and keyboard").
    after_cr: bool,
    escape: Escape,
}

/// Where in a key's sequence the input is, as arrows send one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    No,
    Begun,
    Inside,
}

/// What a key means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// The end of the line.
    Enter,
    /// Begin anew.
    Interrupt,
    /// Show the line again.
    Redraw,
}

impl Typed {
    pub(super) fn new() -> Typed {
        // Allocated once: a buffer that grows leaves copies of a password behind.
        let line = Zeroizing::new(Vec::with_capacity(MOST));
        Typed { line, secret: false, after_cr: false, escape: Escape::No }
    }

    /// One byte. What the terminal is to show is added to `out`.
    pub(super) fn byte(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<Key> {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        if self.is_in_escape(byte) {
            return None;
        }
        match byte {
            b'\n' | 0 if after_cr => None,
            b'\r' | b'\n' => Some(Key::Enter),
            CTRL_C => Some(Key::Interrupt),
            CTRL_D | CTRL_L | CTRL_R => Some(Key::Redraw),
            CTRL_U if self.line.is_empty() => None,
            CTRL_U => {
                self.clear();
                Some(Key::Redraw)
            }
            0x08 | 0x7f => {
                self.erase(out);
                None
            }
            ESCAPE => {
                self.escape = Escape::Begun;
                None
            }
            b' '..=b'~' => {
                self.take(byte, out);
                None
            }
            // Passwords may have letters of every script; values have none.
            0x80.. if self.secret => {
                self.take(byte, out);
                None
            }
            0x80.. => {
                out.push(BELL);
                None
            }
            _ => None,
        }
    }

    /// ECMA-48 §5.4: ESC [, parameters, and a final byte; ESC O and one byte; or ESC and one byte.
    fn is_in_escape(&mut self, byte: u8) -> bool {
        let next = match (self.escape, byte) {
            (Escape::No, _) => return false,
            (Escape::Begun, b'[' | b'O') => Escape::Inside,
            (Escape::Inside, b' '..=b'?') => Escape::Inside,
            // A key that does something counts: ESC may have been typed alone.
            (_, 0..=0x1f | 0x7f) => {
                self.escape = Escape::No;
                return false;
            }
            _ => Escape::No,
        };
        self.escape = next;
        true
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.line.len() >= MOST {
            out.push(BELL);
            return;
        }
        self.line.push(byte);
        if !self.secret {
            out.push(byte);
        }
    }

    /// Takes the last character back; in UTF-8 it may have several bytes.
    fn erase(&mut self, out: &mut Vec<u8>) {
        let Some(mut last) = self.line.pop() else { return };
        while last & 0xc0 == 0x80 {
            let Some(before) = self.line.pop() else { break };
            last = before;
        }
        if !self.secret {
            out.extend_from_slice(b"\x08 \x08");
        }
    }

    /// Forgets the line.
    pub(super) fn clear(&mut self) {
        // Vec::zeroize wipes the whole capacity and keeps it.
        self.line.zeroize();
    }

    /// The line so far.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown, the line, and the keys.
    fn typed(bytes: &[u8], secret: bool) -> (Vec<u8>, Vec<u8>, Vec<Key>) {
        let (mut typed, mut out) = (Typed::new(), Vec::new());
        typed.secret = secret;
        let keys = bytes.iter().filter_map(|byte| typed.byte(*byte, &mut out)).collect();
        (out, typed.line().to_vec(), keys)
    }

    #[test]
    fn each_line_end_is_one() {
        use Key::Enter;
        for (bytes, ends) in [
            (&b"\r"[..], 1),
            (b"\n", 1),
            (b"\r\n", 1),
            (b"\r\0", 1),
            (b"\r\r", 2),
            (b"\n\n", 2),
            (b"\r\n\r\n", 2),
            (b"\n\r", 2),
        ] {
            assert_eq!(typed(bytes, false).2, vec![Enter; ends], "{bytes:?}");
        }
    }

    #[test]
    fn backspace_and_delete_take_back() {
        assert_eq!(typed(b"ab\x08c\x7fd", false).1, b"ad");
        assert_eq!(typed(b"ab\x08", false).0, b"ab\x08 \x08");
        assert_eq!(typed(b"\x08\x7f\x08a", false), (b"a".to_vec(), b"a".to_vec(), vec![]));
        assert_eq!(typed("ab\u{e9}\u{20ac}\x08\x08".as_bytes(), true).1, b"ab");
    }

    #[test]
    fn what_controls_a_terminal_is_not_sent_back() {
        // Arrows, Home, F5, Alt+x, a cursor report, tab.
        let keys = b"a\x1b[A\x1b[1;5C\x1bOH\x1b[15~\x1bx\x1b[12;40R\tb";
        assert_eq!(typed(keys, false), (b"ab".to_vec(), b"ab".to_vec(), vec![]));
        assert_eq!(typed(b"a\x1b\r", false).2, [Key::Enter], "ESC, typed alone");
        assert_eq!(typed("\u{e9}".as_bytes(), false), (vec![BELL; 2], vec![], vec![]));
        for byte in 0..=255u8 {
            let (out, ..) = typed(&[byte], false);
            assert!(out.iter().all(|byte| matches!(byte, b' '..=b'~' | &BELL)), "{byte}");
        }
    }

    #[test]
    fn a_secret_is_not_echoed() {
        assert_eq!(typed(b"hunter2\x08\x08", true), (vec![], b"hunte".to_vec(), vec![]));
    }

    #[test]
    fn ctrl_u_forgets_the_line() {
        assert_eq!(typed(b"abc\x15d", false), (b"abcd".to_vec(), b"d".to_vec(), vec![Key::Redraw]));
        assert_eq!(typed(b"\x15", false).2, []);
    }

    #[test]
    fn a_line_has_an_end() {
        let (out, line, _) = typed(&[b'x'; MOST + 3], false);
        assert_eq!((line.len(), out.len(), &out[MOST..]), (MOST, MOST + 3, &[BELL; 3][..]));
    }
}
