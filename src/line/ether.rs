//! Frames of the line protocol in Ethernet frames (docs/line-protocol.md, "Ethernet"): bytes to values and back. No sockets
//! here. Whoever is next to a link can send such frames, so they prove nothing.

use super::Side;
use super::frame::MAX_DIGITS;

/// The type of the Ethernet frames: "local experimental" (IEEE 802, clause 9.2.3).
pub const ETHERTYPE: u16 = 0x88b5;

/// Where a node sends its frames to: a group address that no compliant bridge forwards (IEEE 802.1Q, table 8-1).
pub const GROUP: Mac = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

/// The least number of bytes behind the header of an Ethernet frame (IEEE 802.3, clause 3.2.8). Hardware pads shorter frames.
pub const LEAST: usize = 46;

/// The most bytes of a capsule: it fits in the smallest MTU that IPv4 allows, so there are no fragments.
pub const MOST: usize = HEADER + TEXT;

/// One frame of the line protocol, and whom it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capsule<'a> {
    /// The end that sent it.
    pub from: Side,
    /// The host that it is for. `None`: for every host that hears it. A frame of a host has `None`, because its Ethernet
    /// address says which node it is for.
    pub to: Option<Mac>,
    /// The frame, as on any other line, with its mark and its line end.
    pub text: &'a [u8],
}

/// The version of this encoding.
const VERSION: u8 = 1;
const NODE: u8 = b'N';
const HOST: u8 = b'H';
/// Version, side, length of the text, and the host's address.
const HEADER: usize = 10;
/// The longest frame: mark, digits, CR and LF.
const TEXT: usize = MAX_DIGITS + 3;
/// In place of a host's address: every host.
const EVERYBODY: Mac = [0; 6];

impl<'a> Capsule<'a> {
    /// The bytes behind the header of the Ethernet frame. `None`: the text is no frame, because it is empty or too long.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let length = u16::try_from(self.text.len()).ok().filter(|_| (1..=TEXT).contains(&self.text.len()))?;
        let mut out = Vec::with_capacity(LEAST.max(HEADER.saturating_add(self.text.len())));
        out.extend([VERSION, if self.from == Side::Node { NODE } else { HOST }]);
        out.extend(length.to_be_bytes());
        out.extend(self.to.unwrap_or(EVERYBODY));
        out.extend(self.text);
        if out.len() < LEAST {
            out.resize(LEAST, 0);
        }
        Some(out)
    }

    /// Decodes the bytes behind the header of an Ethernet frame. What stands behind the text is padding. `None`: another
    /// version, or not ours.
    pub fn decode(bytes: &'a [u8]) -> Option<Capsule<'a>> {
        let ([version, side, high, low, to @ ..], rest) = bytes.split_first_chunk::<HEADER>()?;
        let from = match *side {
            NODE => Side::Node,
            HOST => Side::Host,
            _ => return None,
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let text = rest.get(..length).filter(|text| *version == VERSION && (1..=TEXT).contains(&text.len()))?;
        Some(Capsule { from, to: Some(*to).filter(|to| *to != EVERYBODY), text })
    }
}

/// The frames in bytes that an end wants to send ([`super::Polled`]), each with its line end.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{Frame, Packet};
    use super::super::{Nonce, Session, Stage, Versions};
    use super::*;

    /// If this test fails, do not change it: you have changed version 1.
    #[test]
    fn frozen_bytes() {
        let mut text = Vec::new();
        Packet { from: Side::Host, session: None, frame: Frame::Call(Versions { lowest: 1, highest: 1 }) }
            .encode(&mut text);
        let bytes = Capsule { from: Side::Host, to: None, text: &text }.encode().unwrap();
        assert_eq!(text, b"#0rAi3fMK,G\n");
        let head = [&[1, b'H', 0, 12, 0, 0, 0, 0, 0, 0][..], b"#0rAi3fMK,G\n"].concat();
        assert_eq!((bytes.len(), bytes.strip_prefix(&head[..])), (LEAST, Some(&[0; 24][..])));
        let to = Some([2, 0, 0, 0, 0, 7]);
        let bytes = Capsule { from: Side::Node, to, text: b"#a\r\n" }.encode().unwrap();
        assert_eq!(bytes.get(..14), Some(&b"\x01N\x00\x04\x02\x00\x00\x00\x00\x07#a\r\n"[..]));
        assert_eq!(Capsule::decode(&bytes), Some(Capsule { from: Side::Node, to, text: b"#a\r\n" }));
    }

    /// A switch pads, a link with a trailer adds bytes: neither belongs to the frame. What is cut is no frame.
    #[test]
    fn padding_is_ignored_and_a_cut_frame_refused() {
        let capsule = Capsule { from: Side::Host, to: None, text: &[b'x'; 60] };
        let bytes = capsule.encode().unwrap();
        let padded = [&bytes[..], &[0xff; 9]].concat();
        assert_eq!(Capsule::decode(&padded), Some(capsule));
        for cut in 0..bytes.len() {
            assert_eq!(Capsule::decode(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn what_is_no_frame_of_ours_is_refused() {
        let good = Capsule { from: Side::Host, to: None, text: b"#frame\n" }.encode().unwrap();
        for (at, byte) in [(0, 0), (0, 2), (1, b'n'), (1, 0), (2, 1), (3, 0), (3, 200)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(Capsule::decode(&bytes), None, "{at}: {byte}");
        }
        assert_eq!(Capsule { from: Side::Node, to: None, text: b"" }.encode(), None);
        assert_eq!(Capsule { from: Side::Node, to: None, text: &[b'x'; TEXT + 1] }.encode(), None);
        // More than any frame has, with a length that says so.
        let long = [&[1, b'H'][..], &254u16.to_be_bytes(), &[0; 6], &[b'x'; 300]].concat();
        assert_eq!(Capsule::decode(&long), None);
    }

    /// The longest frame there is fits, and what an end sends at once is sent in as many Ethernet frames as it has frames.
    #[test]
    fn each_frame_fits_one_ethernet_frame() {
        let session = Some(Session { node: Nonce([1; 8]), host: Nonce([2; 8]) });
        let mut bytes = Vec::new();
        let longest = Frame::Data { number: 0, index: 0, bytes: vec![0xaa; super::super::frame::MAX_CHUNK.into()] };
        for frame in [Frame::Ready(Stage::Payload), longest] {
            Packet { from: Side::Node, session, frame }.encode(&mut bytes);
        }
        let lengths: Vec<usize> = frames(&bytes).map(<[u8]>::len).collect();
        assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
        assert_eq!(lengths.len(), 2);
        let sizes = frames(&bytes).map(|text| Capsule { from: Side::Node, to: None, text }.encode().unwrap().len());
        assert!(sizes.max() <= Some(MOST));
        // The smallest MTU that IPv4 allows (RFC 791).
        const { assert!(MOST <= 576) };
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_taken_is_whole(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Some(capsule) = Capsule::decode(&bytes) {
                let again = capsule.encode().unwrap();
                prop_assert_eq!(Capsule::decode(&again), Some(capsule));
            }
        }
    }
}
