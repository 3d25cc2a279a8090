//! Carries one object from one end to the other: pieces, selective acknowledgement, retransmission. Pure: never knows
//! conversations or time, but passes on which frame a piece was sent in.

use zeroize::Zeroize;

use super::Answered;
use super::frame::{Announce, Frame, Kind, MAX_CHUNK, NotTaken};
use crate::digest::sha256;

/// The most pieces on their way at first.
const FIRST_WINDOW: u8 = 2;

/// The most pieces on their way. Eight frames are 2 KiB, half of what a tty holds for a reader that is slow
/// (include/linux/tty.h, N_TTY_BUF_SIZE: 4096).
pub const MAX_WINDOW: u8 = 8;

/// Bytes of a DATA frame besides the piece: head and CRC.
const AROUND: usize = 8;

/// The most missing pieces that are named.
const NAMED: usize = 20;

/// How an object is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Bytes in each piece: 1 to [`MAX_CHUNK`].
    pub chunk: u8,
    /// The most pieces on their way: 1 to [`MAX_WINDOW`].
    pub window: u8,
}

/// The shape for real lines. A model checker uses a smaller one.
impl Default for Shape {
    fn default() -> Shape {
        Shape { chunk: MAX_CHUNK, window: MAX_WINDOW }
    }
}

impl Shape {
    /// The same shape with pieces whose frames fit lines of so many columns. The last column stays free, because some
    /// terminals begin a new line as soon as it is written.
    #[must_use]
    pub fn within(self, columns: usize) -> Shape {
        // The mark, and the column that stays free.
        let digits = columns.saturating_sub(2);
        let whole = digits / 5;
        let bytes = whole.saturating_mul(4).saturating_add((digits % 5).saturating_sub(1));
        let fits = u8::try_from(bytes.saturating_sub(AROUND)).unwrap_or(MAX_CHUNK);
        Shape { chunk: self.chunk.min(fits.max(1)), ..self }
    }
}

/// The sending half.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Sender {
    announce: Announce,
    bytes: Vec<u8>,
    announced: Sent,
    pieces: Vec<Sent>,
    window: u8,
    most: u8,
    /// Counts the frames, so that a frame is known that a later one has overtaken.
    order: u32,
    /// Pieces that were on their way when the other end first refused one for want of the announcement. It will refuse
    /// each of the others, too; those refusals are ignored.
    refused: usize,
}

/// The state of the announcement or of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Sent {
    /// To be sent; if `again`, not for the first time.
    No { again: bool },
    /// On its way.
    Flying {
        order: u32,
        /// Number of the frame.
        frame: u64,
        again: bool,
    },
    /// Arrived.
    Arrived,
}

impl Sender {
    /// `number` is the object number that the other end expects. `None`: the object has more pieces than there are
    /// piece numbers.
    pub fn new(number: u8, kind: Kind, bytes: Vec<u8>, shape: Shape) -> Option<Sender> {
        let chunk = shape.chunk.clamp(1, MAX_CHUNK);
        let length = u32::try_from(bytes.len()).ok()?;
        let announce = Announce { number, kind, chunk, length, digest: sha256(&bytes) };
        let count = usize::from(announce.count());
        (count.saturating_mul(usize::from(chunk)) >= bytes.len()).then(|| Sender {
            announce,
            bytes,
            announced: Sent::No { again: false },
            pieces: vec![Sent::No { again: false }; count],
            window: FIRST_WINDOW.min(shape.window.max(1)),
            most: shape.window.clamp(1, MAX_WINDOW),
            order: 0,
            refused: 0,
        })
    }

    /// The announcement of the object that is being sent.
    pub fn announce(&self) -> &Announce {
        &self.announce
    }

    /// The next frame to send, if one may be sent now.
    pub fn next(&mut self, frame: u64) -> Option<Frame> {
        if let Sent::No { again } = self.announced {
            self.announced = self.flying(frame, again);
            return Some(Frame::Announce(self.announce));
        }
        if self.flying_count() >= usize::from(self.window) {
            return None;
        }
        let waiting = |again: bool| self.pieces.iter().position(|sent| *sent == Sent::No { again });
        let at = waiting(true).or_else(|| waiting(false))?;
        let flying = self.flying(frame, self.pieces.get(at) == Some(&Sent::No { again: true }));
        *self.pieces.get_mut(at)? = flying;
        let chunk = usize::from(self.announce.chunk);
        let bytes = self.bytes.chunks(chunk).nth(at)?.to_vec();
        Some(Frame::Data { number: self.announce.number, index: u16::try_from(at).ok()?, bytes })
    }

    fn flying(&mut self, frame: u64, again: bool) -> Sent {
        self.order = self.order.wrapping_add(1);
        Sent::Flying { order: self.order, frame, again }
    }

    fn flying_count(&self) -> usize {
        self.pieces.iter().filter(|sent| matches!(sent, Sent::Flying { .. })).count()
    }

    /// Takes an acknowledgement of this object. Returns what is newly acknowledged.
    pub fn acknowledged(&mut self, next: u16, later: u32) -> Option<Answered> {
        self.refused = 0;
        let (mut once, mut progress, mut newest) = (None, false, None);
        let mut arrived = |sent: &mut Sent| {
            if let Sent::Flying { order, frame, again } = *sent {
                newest = newest.max(Some(order));
                if !again {
                    once = once.max(Some(frame));
                }
            }
            progress |= *sent != Sent::Arrived;
            *sent = Sent::Arrived;
        };
        arrived(&mut self.announced);
        for (index, sent) in self.pieces.iter_mut().enumerate() {
            let Ok(index) = u16::try_from(index) else { break };
            let bit = index.checked_sub(next).and_then(|beyond| beyond.checked_sub(1));
            let later = bit.is_some_and(|bit| later.checked_shr(u32::from(bit)).is_some_and(|bits| bits & 1 == 1));
            if index < next || later {
                arrived(sent);
            }
        }
        // A line does not reorder frames: a piece on its way that was sent before another that has arrived is lost.
        let mut lost = false;
        for sent in &mut self.pieces {
            if let Sent::Flying { order, .. } = *sent
                && newest.is_some_and(|newest| order < newest)
            {
                *sent = Sent::No { again: true };
                lost = true;
            }
        }
        if lost {
            self.window = self.window.saturating_sub(1).max(FIRST_WINDOW.min(self.most));
        } else if once.is_some() {
            // A piece that was sent again does not show how much the line takes: the answer may be to the first copy.
            self.window = self.window.saturating_add(1).min(self.most);
        }
        once.map(Answered::Once).or(progress.then_some(Answered::Again))
    }

    /// Nothing has been heard for a while: all frames on their way count as lost.
    pub fn timed_out(&mut self) {
        self.refused = 0;
        for sent in std::iter::once(&mut self.announced).chain(&mut self.pieces) {
            if matches!(sent, Sent::Flying { .. }) {
                *sent = Sent::No { again: true };
            }
        }
        self.window = FIRST_WINDOW.min(self.most);
    }

    /// The other end does not know the object: announces it again, and sends again what is on its way, since it was not
    /// kept.
    pub fn unknown(&mut self) {
        if let Some(fewer) = self.refused.checked_sub(1) {
            self.refused = fewer;
            return;
        }
        let others = self.flying_count().saturating_sub(1);
        self.announced = Sent::No { again: true };
        self.timed_out();
        self.refused = others;
    }

    /// Whether the whole object has arrived.
    pub fn is_done(&self) -> bool {
        self.announced == Sent::Arrived && self.pieces.iter().all(|sent| *sent == Sent::Arrived)
    }

    /// Bytes that have arrived, and bytes in all.
    pub fn progress(&self) -> (usize, usize) {
        let arrived = self.pieces.iter().filter(|sent| **sent == Sent::Arrived).count();
        let bytes = arrived.saturating_mul(usize::from(self.announce.chunk));
        (bytes.min(self.bytes.len()), self.bytes.len())
    }
}

/// The receiving half: one object at a time, in order of their numbers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Receiver {
    /// The number of the object that is wanted next.
    next: u8,
    current: Option<Incoming>,
    /// The outcome of the object before: a sender that still sends that object did not hear the answer.
    last: Option<Last>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Last {
    /// Arrived, with so many pieces.
    Arrived(u16),
    Refused(NotTaken),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Incoming {
    announce: Announce,
    pieces: Vec<Option<Vec<u8>>>,
}

/// Wipes the pieces: they may be of a payload.
impl Drop for Incoming {
    fn drop(&mut self) {
        self.pieces.zeroize();
    }
}

/// The receiver's reaction to a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The answer, if there is one.
    pub answer: Option<Frame>,
    /// An object that is complete.
    pub object: Option<(Kind, Vec<u8>)>,
}

impl Taken {
    fn answer(answer: Frame) -> Taken {
        Taken { answer: Some(answer), object: None }
    }

    const NOTHING: Taken = Taken { answer: None, object: None };
}

impl Receiver {
    /// Number of the object that is wanted next.
    pub fn wants(&self) -> u8 {
        self.next
    }

    /// Bytes that have arrived of the object that is coming, and its length.
    pub fn progress(&self) -> Option<(usize, usize)> {
        let incoming = self.current.as_ref()?;
        let bytes = incoming.pieces.iter().flatten().map(Vec::len).sum();
        Some((bytes, usize::try_from(incoming.announce.length).unwrap_or(usize::MAX)))
    }

    /// The numbers of the first missing pieces of an announced object: as many as a person reads.
    pub fn missing(&self) -> Option<Vec<u16>> {
        let incoming = self.current.as_ref()?;
        let missing = incoming.pieces.iter().enumerate().filter(|(_, piece)| piece.is_none());
        Some(missing.filter_map(|(index, _)| u16::try_from(index).ok()).take(NAMED).collect())
    }

    /// Takes an announcement. `wanted` says whether an object of this kind is taken now.
    pub fn announced(&mut self, announce: &Announce, wanted: impl FnOnce(Kind) -> Result<(), NotTaken>) -> Taken {
        if announce.number != self.next {
            return self.repeated(announce.number);
        }
        if self.current.as_ref().is_some_and(|incoming| incoming.announce == *announce) {
            return self.acknowledge();
        }
        if let Err(reason) = wanted(announce.kind) {
            return self.refuse(reason);
        }
        let length = usize::try_from(announce.length).unwrap_or(usize::MAX);
        let countable = usize::from(announce.count()).saturating_mul(usize::from(announce.chunk)) >= length;
        if length > announce.kind.max_len() || !(1..=MAX_CHUNK).contains(&announce.chunk) || !countable {
            return self.refuse(NotTaken::TooLong);
        }
        let pieces = vec![None; usize::from(announce.count())];
        self.current = Some(Incoming { announce: *announce, pieces });
        // An object of no bytes is complete at once.
        self.complete().unwrap_or_else(|| self.acknowledge())
    }

    /// Takes a piece.
    pub fn piece(&mut self, number: u8, index: u16, bytes: &[u8]) -> Taken {
        if number != self.next {
            return self.repeated(number);
        }
        let Some(incoming) = &mut self.current else {
            return Taken::answer(Frame::Refuse { number, reason: NotTaken::Unknown });
        };
        let announce = &incoming.announce;
        let start = u32::from(index).saturating_mul(u32::from(announce.chunk));
        let want = announce.length.saturating_sub(start).min(u32::from(announce.chunk));
        match incoming.pieces.get_mut(usize::from(index)) {
            Some(piece) if u32::try_from(bytes.len()) == Ok(want) => *piece = Some(bytes.to_vec()),
            // The piece is of another object with the same number, from another sender than the announcement.
            _ => return Taken::NOTHING,
        }
        self.complete().unwrap_or_else(|| self.acknowledge())
    }

    /// Repeats the answer to the object before the one that is wanted. Of any other number the two ends have lost count, because
    /// somebody else has sent objects or acknowledgements in this conversation: the sender, if it still sends that object, has to
    /// begin another one. A late copy of an earlier frame is refused, too, and its sender ignores that.
    fn repeated(&self, number: u8) -> Taken {
        match self.last.filter(|_| number == self.next.wrapping_sub(1)) {
            Some(Last::Arrived(count)) => Taken::answer(Frame::Ack { number, next: count, later: 0 }),
            Some(Last::Refused(reason)) => Taken::answer(Frame::Refuse { number, reason }),
            None => Taken::answer(Frame::Refuse { number, reason: NotTaken::Digest }),
        }
    }

    /// Refuses the object that is wanted. Its number is used up.
    fn refuse(&mut self, reason: NotTaken) -> Taken {
        let number = self.next;
        self.current = None;
        self.next = number.wrapping_add(1);
        self.last = Some(Last::Refused(reason));
        Taken::answer(Frame::Refuse { number, reason })
    }

    fn acknowledge(&self) -> Taken {
        let Some(incoming) = &self.current else { return Taken::NOTHING };
        let next = incoming.pieces.iter().take_while(|piece| piece.is_some()).count();
        let beyond = incoming.pieces.iter().skip(next.saturating_add(1)).take(32).enumerate();
        let later = beyond.filter(|(_, piece)| piece.is_some()).fold(0u32, |bits, (bit, _)| {
            bits | u32::try_from(bit).ok().and_then(|bit| 1u32.checked_shl(bit)).unwrap_or(0)
        });
        Taken::answer(Frame::Ack { number: self.next, next: u16::try_from(next).unwrap_or(u16::MAX), later })
    }

    fn complete(&mut self) -> Option<Taken> {
        let incoming = self.current.as_ref()?;
        if incoming.pieces.iter().any(Option::is_none) {
            return None;
        }
        let (number, count, kind) = (self.next, incoming.announce.count(), incoming.announce.kind);
        let bytes: Vec<u8> = incoming.pieces.iter().flatten().flatten().copied().collect();
        let sound = sha256(&bytes) == incoming.announce.digest;
        self.current = None;
        if !sound {
            return Some(Taken::answer(Frame::Refuse { number, reason: NotTaken::Digest }));
        }
        self.next = self.next.wrapping_add(1);
        self.last = Some(Last::Arrived(count));
        let answer = Frame::Ack { number, next: count, later: 0 };
        Some(Taken { answer: Some(answer), object: Some((kind, bytes)) })
    }
}
