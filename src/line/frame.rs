//! Frames to and from bytes (docs/line-protocol.md, "Frames"). No state, no I/O.
//!
//! A frame is `#`, base-85 digits, and any byte that is not a digit; imprint writes a line feed. A reader finds a frame
//! wherever it starts. A byte that is lost, changed or inserted costs that frame alone.

pub use super::code::{CHALLENGE_LEN, Kind, NotTaken, Side, Stage};
use super::code::{KINDS, REASONS, STAGES, code, value};
use crate::base85;
use crate::checksum::crc32;
use crate::digest::sha256;

/// Begins a frame, and stands nowhere else in one. A shell that takes a frame for a command sees a comment.
pub const MARK: u8 = b'#';

/// The most characters between mark and line end. A whole frame then fits 256 bytes, the least that IPMI
/// implementations take in one packet.
pub const MAX_DIGITS: usize = 250;

/// The most object bytes in one DATA frame: with four bytes of head and four of CRC, 250 digits.
pub const MAX_CHUNK: u8 = 192;

/// The version of the protocol that this code speaks.
pub const VERSION: u8 = 1;

/// Eight bytes of one end. A node draws them when it starts; a host does, too, and counts them up for each
/// conversation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Nonce(pub [u8; 8]);

/// Random bytes of a node: a signature over them was made after them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Challenge(pub [u8; CHALLENGE_LEN]);

/// Bytes of the proof in a frame with the time.
pub const TAG_LEN: usize = 16;

/// The conversation that a frame belongs to. The CRC covers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Session {
    /// The node's nonce.
    pub node: Nonce,
    /// The host's nonce.
    pub host: Nonce,
}

/// A frame with all that its CRC covers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Packet {
    /// The side that sent the frame.
    pub from: Side,
    /// `None`: outside any conversation.
    pub session: Option<Session>,
    /// The frame.
    pub frame: Frame,
}

/// The message of a frame.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Frame {
    /// Host: is a node there? Outside any conversation.
    Call(Versions),
    /// Node: here I am. Outside any conversation.
    Hello(Hello),
    /// Host: this is our conversation. OPEN is sent outside any conversation, since the node does not know the host's
    /// nonce yet.
    Open {
        /// The version that both speak.
        version: u8,
        /// The conversation.
        session: Session,
    },
    /// Node: the answer to OPEN, and the node's stage.
    Ready(Stage),
    /// An object comes.
    Announce(Announce),
    /// A piece of the object that was announced.
    Data {
        /// The number of the object.
        number: u8,
        /// The number of the piece, from 0.
        index: u16,
        /// `chunk` bytes, fewer in the last piece.
        bytes: Vec<u8>,
    },
    /// The pieces of an object that have arrived. An acknowledgement confirms the announcement of the object, too.
    Ack {
        /// The number of the object.
        number: u8,
        /// All pieces before this one have arrived.
        next: u16,
        /// Bit n, counted from the least significant: piece `next + 1 + n` has arrived.
        later: u32,
    },
    /// The receiver refuses an object.
    Refuse {
        /// The number of the object.
        number: u8,
        /// The reason.
        reason: NotTaken,
    },
    /// Node: what time is it?
    Ask {
        /// The number of the question; the answer repeats it.
        number: u8,
    },
    /// Node: a payload of kind [`Kind::Fresh`] must be signed for this, too.
    Challenge(Challenge),
    /// Host: the time, with a proof that the host has the payload of this conversation.
    ProvenTime {
        /// The number of the question.
        number: u8,
        /// As in [`Frame::Time`].
        received: u64,
        /// As in [`Frame::Time`].
        held: u32,
        /// The first bytes of an HMAC-SHA256.
        tag: [u8; TAG_LEN],
    },
    /// Host: the time.
    Time {
        /// The number of the question.
        number: u8,
        /// Microseconds since 1970-01-01T00:00:00Z when the question had arrived.
        received: u64,
        /// Microseconds from then until this answer was sent.
        held: u32,
    },
}

/// The versions that an end speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Versions {
    /// The lowest.
    pub lowest: u8,
    /// The highest.
    pub highest: u8,
}

/// A node's description of itself, which stays the same as long as the node's program runs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Hello {
    /// The message as it came, if this program would have encoded it differently. A payload is sealed to the message,
    /// with the items that this program does not know.
    pub heard: Option<Vec<u8>>,
    /// The versions that the node speaks.
    pub versions: Versions,
    /// The node takes a payload that is not sealed.
    pub plain: bool,
    /// The node sends challenges, and takes a payload that is signed for one of them.
    pub fresh: bool,
    /// Made when the node's program started.
    pub nonce: Nonce,
    /// X25519 public key, made when the node's program started.
    pub key: [u8; 32],
    /// SMBIOS system UUID, in the order in which sysfs prints it.
    pub uuid: Option<[u8; 16]>,
    /// SMBIOS system serial number; cut at 32 bytes.
    pub serial: Option<String>,
    /// Hardware addresses of 6 or 20 bytes; as many as fit.
    pub macs: Vec<Vec<u8>>,
}

/// An object that is about to come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Announce {
    /// Counts the objects of one direction in one conversation, from 0.
    pub number: u8,
    /// The kind of the object.
    pub kind: Kind,
    /// Bytes in each piece but the last: 1 to [`MAX_CHUNK`].
    pub chunk: u8,
    /// Bytes in all.
    pub length: u32,
    /// SHA-256 of the bytes as they are sent.
    pub digest: [u8; 32],
}

impl Versions {
    /// The versions that this code speaks.
    pub const OURS: Versions = Versions { lowest: VERSION, highest: VERSION };

    /// The highest version that both speak.
    pub fn common(self, other: Versions) -> Option<u8> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }
}

impl Announce {
    /// How many pieces the object has.
    pub fn count(&self) -> u16 {
        let count = self.length.div_ceil(u32::from(self.chunk.max(1)));
        u16::try_from(count).unwrap_or(u16::MAX)
    }
}

const CALL: u8 = 1;
const HELLO: u8 = 2;
const OPEN: u8 = 3;
const READY: u8 = 4;
const ANNOUNCE: u8 = 5;
const DATA: u8 = 6;
const ACK: u8 = 7;
const REFUSE: u8 = 8;
const ASK: u8 = 9;
const TIME: u8 = 10;
const CHALLENGE: u8 = 11;
const PROVEN_TIME: u8 = 12;

/// Bits in the flags of HELLO.
const FLAG_PLAIN: u8 = 1;
const FLAG_FRESH: u8 = 2;
/// Tags of the items that may follow in HELLO. Unknown items are skipped.
const TAG_UUID: u8 = 1;
const TAG_SERIAL: u8 = 2;
const TAG_MAC: u8 = 3;

/// Bytes of the CRC at the end of a message.
const CRC_LEN: usize = 4;
/// The most bytes that a message has, its CRC included.
const MAX_MESSAGE: usize = MAX_DIGITS / 5 * 4;
const MAX_SERIAL: usize = 32;

impl Hello {
    /// The message of HELLO without its CRC. A payload is sealed to it.
    pub fn message(&self) -> Vec<u8> {
        if let Some(heard) = &self.heard {
            return heard.clone();
        }
        let flags = if self.plain { FLAG_PLAIN } else { 0 } | if self.fresh { FLAG_FRESH } else { 0 };
        let mut out = vec![HELLO, self.versions.lowest, self.versions.highest, flags];
        out.extend(self.nonce.0);
        out.extend(self.key);
        let mut item = |tag: u8, bytes: &[u8]| {
            let Ok(length) = u8::try_from(bytes.len()) else { return };
            if out.len().saturating_add(bytes.len()).saturating_add(2 + CRC_LEN) <= MAX_MESSAGE {
                out.extend([tag, length]);
                out.extend(bytes);
            }
        };
        if let Some(uuid) = &self.uuid {
            item(TAG_UUID, uuid);
        }
        // A serial number that hosts refuse is left out: they would refuse the whole HELLO.
        if let Some(serial) = self.serial.as_deref().map(cut_serial).filter(|text| printable(text.as_bytes()).is_some())
        {
            item(TAG_SERIAL, serial.as_bytes());
        }
        for mac in &self.macs {
            item(TAG_MAC, mac);
        }
        out
    }

    /// SHA-256 of the message.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.message())
    }

    fn parse(mut rest: &[u8]) -> Option<Hello> {
        let heard = [&[HELLO], rest].concat();
        let [lowest, highest, flags] = take(&mut rest)?;
        let mut hello = Hello {
            heard: None,
            versions: Versions { lowest, highest },
            plain: flags & FLAG_PLAIN != 0,
            fresh: flags & FLAG_FRESH != 0,
            nonce: Nonce(take(&mut rest)?),
            key: take(&mut rest)?,
            uuid: None,
            serial: None,
            macs: Vec::new(),
        };
        while !rest.is_empty() {
            let [tag, length] = take(&mut rest)?;
            let (bytes, after) = rest.split_at_checked(usize::from(length))?;
            rest = after;
            match tag {
                TAG_UUID => hello.uuid = Some(bytes.try_into().ok()?),
                TAG_SERIAL => hello.serial = Some(printable(bytes)?),
                TAG_MAC if matches!(bytes.len(), 6 | 20) => hello.macs.push(bytes.to_vec()),
                _ => {}
            }
        }
        hello.heard = Some(heard).filter(|heard| *heard != hello.message());
        Some(hello)
    }
}

/// A serial number as HELLO carries it: cut at 32 bytes.
pub fn cut_serial(serial: &str) -> &str {
    let ends = serial.char_indices().map(|(at, c)| at.saturating_add(c.len_utf8()));
    let end = ends.take_while(|end| *end <= MAX_SERIAL).last().unwrap_or(0);
    serial.get(..end).unwrap_or_default()
}

/// The text, unless it could flood or control the console that shows it.
fn printable(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let sound = text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    (sound && bytes.len() <= MAX_SERIAL).then(|| text.to_owned())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

impl Frame {
    /// Whether the frame stands outside any conversation.
    pub fn is_outside(&self) -> bool {
        matches!(self, Frame::Call(_) | Frame::Hello(_) | Frame::Open { .. })
    }

    fn message(&self) -> Vec<u8> {
        match self {
            Frame::Call(versions) => vec![CALL, versions.lowest, versions.highest, 0],
            Frame::Hello(hello) => hello.message(),
            Frame::Open { version, session } => {
                let mut out = vec![OPEN, *version, 0, 0];
                out.extend(session.node.0);
                out.extend(session.host.0);
                out
            }
            Frame::Ready(stage) => vec![READY, code(&STAGES, *stage), 0, 0],
            Frame::Announce(announce) => {
                let mut out = vec![ANNOUNCE, announce.number, announce.kind.code(), announce.chunk];
                out.extend(announce.length.to_be_bytes());
                out.extend(announce.digest);
                out
            }
            Frame::Data { number, index, bytes } => {
                let mut out = Vec::with_capacity(bytes.len().saturating_add(4 + CRC_LEN));
                out.extend([DATA, *number]);
                out.extend(index.to_be_bytes());
                out.extend(bytes);
                out
            }
            Frame::Ack { number, next, later } => {
                let mut out = vec![ACK, *number];
                out.extend(next.to_be_bytes());
                out.extend(later.to_be_bytes());
                out
            }
            Frame::Refuse { number, reason } => vec![REFUSE, *number, code(&REASONS, *reason), 0],
            // ASK is as long as its answer, so that both take the same time on the line.
            Frame::Ask { number } => [&[ASK, *number][..], &[0; 14]].concat(),
            Frame::Time { number, received, held } => {
                let mut out = vec![TIME, *number, 0, 0];
                out.extend(received.to_be_bytes());
                out.extend(held.to_be_bytes());
                out
            }
            Frame::Challenge(challenge) => [&[CHALLENGE, 0, 0, 0][..], &challenge.0].concat(),
            Frame::ProvenTime { number, received, held, tag } => {
                let mut out = vec![PROVEN_TIME, *number, 0, 0];
                out.extend(received.to_be_bytes());
                out.extend(held.to_be_bytes());
                out.extend(tag);
                out
            }
        }
    }

    fn parse(message: &[u8]) -> Option<Frame> {
        let (kind, mut rest) = message.split_first()?;
        let frame = match *kind {
            CALL => {
                let [lowest, highest, _] = take(&mut rest)?;
                Frame::Call(Versions { lowest, highest })
            }
            HELLO => return Hello::parse(rest).map(Frame::Hello),
            OPEN => {
                let [version, _, _] = take(&mut rest)?;
                let session = Session { node: Nonce(take(&mut rest)?), host: Nonce(take(&mut rest)?) };
                Frame::Open { version, session }
            }
            READY => {
                let [stage, _, _] = take(&mut rest)?;
                Frame::Ready(value(&STAGES, stage)?)
            }
            ANNOUNCE => {
                let [number, kind, chunk] = take(&mut rest)?;
                let length = u32::from_be_bytes(take(&mut rest)?);
                let (kind, digest) = (value(&KINDS, kind)?, take(&mut rest)?);
                Frame::Announce(Announce { number, kind, chunk, length, digest })
            }
            DATA => {
                let [number] = take(&mut rest)?;
                let index = u16::from_be_bytes(take(&mut rest)?);
                let bytes = std::mem::take(&mut rest).to_vec();
                if bytes.is_empty() || bytes.len() > usize::from(MAX_CHUNK) {
                    return None;
                }
                Frame::Data { number, index, bytes }
            }
            ACK => {
                let [number] = take(&mut rest)?;
                let (next, later) = (u16::from_be_bytes(take(&mut rest)?), u32::from_be_bytes(take(&mut rest)?));
                Frame::Ack { number, next, later }
            }
            REFUSE => {
                let [number, reason, _] = take(&mut rest)?;
                Frame::Refuse { number, reason: value(&REASONS, reason)? }
            }
            ASK => {
                let [number] = take(&mut rest)?;
                let _: [u8; 14] = take(&mut rest)?;
                Frame::Ask { number }
            }
            TIME => {
                let [number, _, _] = take(&mut rest)?;
                let (received, held) = (u64::from_be_bytes(take(&mut rest)?), u32::from_be_bytes(take(&mut rest)?));
                Frame::Time { number, received, held }
            }
            CHALLENGE => {
                let _: [u8; 3] = take(&mut rest)?;
                Frame::Challenge(Challenge(take(&mut rest)?))
            }
            PROVEN_TIME => {
                let [number, _, _] = take(&mut rest)?;
                let (received, held) = (u64::from_be_bytes(take(&mut rest)?), u32::from_be_bytes(take(&mut rest)?));
                Frame::ProvenTime { number, received, held, tag: take(&mut rest)? }
            }
            _ => return None,
        };
        rest.is_empty().then_some(frame)
    }
}

impl Packet {
    /// Appends mark, digits and line feed. A node writes a carriage return before the line feed, so that a person can
    /// read the console.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut message = self.frame.message();
        let crc = self.crc(&message);
        message.extend(crc.to_be_bytes());
        out.push(MARK);
        base85::encode(&message, out);
        out.extend(match self.from {
            Side::Node => &b"\r\n"[..],
            Side::Host => b"\n",
        });
    }

    /// Decodes the digits of a frame, without mark and line end. `session` is the conversation that the reader is in.
    pub fn decode(digits: &[u8], session: Option<Session>) -> Option<Packet> {
        if digits.len() > MAX_DIGITS {
            return None;
        }
        let bytes = base85::decode(digits)?;
        let (message, crc) = bytes.split_last_chunk::<CRC_LEN>()?;
        let frame = Frame::parse(message)?;
        let session = if frame.is_outside() { None } else { session };
        // Objects may come outside any conversation, too: from a host that cannot hear.
        let contexts = [session, None].into_iter().take(if session.is_some() { 2 } else { 1 });
        let mut packets = contexts
            .flat_map(|session| [Side::Node, Side::Host].map(|from| Packet { from, session, frame: frame.clone() }));
        packets.find(|packet| packet.crc(message).to_be_bytes() == *crc)
    }

    fn crc(&self, message: &[u8]) -> u32 {
        crc(message, self.from, self.session)
    }
}

/// CRC-32 over the sending side, the conversation, and the message.
fn crc(message: &[u8], from: Side, session: Option<Session>) -> u32 {
    let from = match from {
        Side::Node => b'N',
        Side::Host => b'H',
    };
    let session = session.unwrap_or(Session { node: Nonce([0; 8]), host: Nonce([0; 8]) });
    !([&[from][..], &session.node.0, &session.host.0, message].into_iter().fold(u32::MAX, crc32))
}

/// Any message as a frame with a correct CRC, to test a peer with.
pub fn seal_message(message: &[u8], from: Side, session: Option<Session>) -> Vec<u8> {
    let mut bytes = message.to_vec();
    bytes.extend(crc(message, from, session).to_be_bytes());
    let mut out = vec![MARK];
    base85::encode(&bytes, &mut out);
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A later version may send an unknown item, and items in another order. Payloads are sealed to the message, byte
    /// for byte. Do not change this test.
    #[test]
    fn a_hello_is_kept_as_it_came() {
        let mut said = vec![HELLO, 1, 1, 0];
        said.extend([7; 8]);
        said.extend([8; 32]);
        said.extend([TAG_MAC, 6, 2, 0, 0, 0, 0, 1]);
        let plain = Hello::parse(&said[1..]).unwrap();
        assert_eq!((plain.heard.as_ref(), plain.message()), (None, said.clone()));
        said.extend([99, 2, 1, 2]);
        said.extend([TAG_SERIAL, 2, b'S', b'N']);
        let hello = Hello::parse(&said[1..]).unwrap();
        assert_eq!((hello.serial.as_deref(), hello.macs.len()), (Some("SN"), 1));
        assert_eq!(hello.message(), said);
    }

    /// Firmware may hold any text as a serial number. A HELLO without the item is better than no HELLO.
    #[test]
    fn a_serial_number_that_no_host_takes_is_left_out() {
        let mut said = vec![HELLO, 1, 1, 0];
        said.extend([7; 8]);
        said.extend([8; 32]);
        let hello = Hello { serial: Some("SN\x1b[2J".to_owned()), ..Hello::parse(&said[1..]).unwrap() };
        assert_eq!(hello.message(), said);
    }

    #[test]
    fn crc_of_the_nine_digits() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(!crc32(u32::MAX, b"123456789"), 0xcbf4_3926);
    }
}
