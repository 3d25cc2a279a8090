//! Keeps what comes at `imprint console` and is not a line of a payload. Once nothing more comes, it names the form of
//! it, so that a person who pasted the wrong thing is not left waiting. Never decodes a payload.
//!
//! The person at the console vouches for it. It may be a payload, so it is wiped.

use zeroize::Zeroizing;

use crate::payload::Form;

/// What came since the last message about it.
pub(super) struct Typed(Zeroizing<Vec<u8>>);

/// The most bytes that are kept. The beginning tells the form, and a buffer that never grows leaves no copies behind.
const KEPT: usize = 8192;

impl Typed {
    pub(super) fn new() -> Typed {
        Typed(Zeroizing::new(Vec::with_capacity(KEPT)))
    }

    /// Adds bytes. A terminal sends a carriage return for each end of a line, which is kept as a line feed.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.0.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.0.extend(kept.iter().map(|byte| if *byte == b'\r' { b'\n' } else { *byte }));
    }

    /// Whether only blanks and ends of lines came: somebody pressed Enter.
    pub(super) fn is_blank(&self) -> bool {
        self.0.trim_ascii().is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The message: what came, and what is expected.
    pub(super) fn named(&self) -> String {
        let text = self.0.trim_ascii();
        let what = match Form::of_beginning(text) {
            // A whole frame does not come here, so none of these was whole.
            Some(Form::Pasted) => return DAMAGED.to_owned(),
            None if is_damaged(text) => return DAMAGED.to_owned(),
            Some(form) => form.name(),
            None => "something else".to_owned(),
        };
        format!("this was {what}, and was not taken; paste the lines that imprint-host payload NODE --as text prints")
    }
}

const DAMAGED: &str = "these lines did not arrive whole; paste all lines again";

/// Whether each line looks like a frame: the mark, and more characters than a CRC has (docs/line-protocol.md,
/// "Frames").
fn is_damaged(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines
        .all(|line| line.strip_prefix(b"#").is_some_and(|rest| rest.len() > 8 && rest.iter().all(u8::is_ascii_graphic)))
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};

    use super::*;

    const TYPICAL: &[u8] = include_bytes!("../../tests/data/payload-typical.cbor");

    fn named(pieces: &[&[u8]]) -> String {
        let mut typed = Typed::new();
        pieces.iter().for_each(|piece| typed.push(piece));
        assert!(!typed.is_blank());
        typed.named()
    }

    /// As a terminal sends it: with carriage returns, and in pieces of any length.
    #[test]
    fn what_was_pasted_is_named() {
        let base64 = Base64::encode_string(TYPICAL);
        let lines = base64.as_bytes().chunks(64).collect::<Vec<_>>().join(&b'\r');
        let armour = |label: &str| [format!("-----BEGIN {label}-----\r").as_bytes(), &lines, b"\r"].concat();
        for (text, what) in [
            (lines.clone(), "a payload in base64"),
            (format!("\r\r{base64}\r").into_bytes(), "a payload in base64"),
            (format!("imprint.payload={base64}").into_bytes(), "the word for a kernel command line"),
            (crate::hex::encode(TYPICAL).into_bytes(), "a payload in hexadecimal digits"),
            (armour("IMPRINT PAYLOAD"), "a PEM file, a certificate or a key"),
            (b"name = \"node1\"\r".to_vec(), "a node's record"),
            (b"hello\r".to_vec(), "something else"),
        ] {
            let want = format!(
                "this was {what}, and was not taken; paste the lines that imprint-host payload NODE --as text prints"
            );
            assert_eq!(named(&[&text]), want);
            assert_eq!(named(&text.chunks(7).collect::<Vec<_>>()), want);
        }
        assert_eq!(named(&[b"#0ae[rH%nSc\r"]), "these lines did not arrive whole; paste all lines again");
    }

    #[test]
    fn what_is_long_is_kept_as_far_as_it_is_needed() {
        let mut typed = Typed::new();
        let base64 = Base64::encode_string(&[TYPICAL, &[7; 60_000]].concat());
        base64.as_bytes().chunks(4096).for_each(|piece| typed.push(piece));
        assert_eq!((typed.0.len(), typed.0.capacity()), (KEPT, KEPT));
        assert!(typed.named().starts_with("this was a payload in base64, "), "{}", typed.named());
        typed.clear();
        assert!(typed.is_blank());
        typed.push(b" \r\r\n");
        assert!(typed.is_blank(), "somebody who presses Enter has pasted nothing");
    }
}
