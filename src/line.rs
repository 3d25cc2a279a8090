//! The serial line protocol, both ends: docs/line-protocol.md. Takes bytes and timers, returns bytes and events. Never
//! does I/O and never reads a clock; only [`seal`] uses random numbers.
//!
//! ```text
//! base85    bytes ↔ characters
//! frame     frames ↔ bytes
//! scan      finds frames among the other bytes of a line
//! odd       what a line does to all frames, in words for people
//! event     what both ends tell
//! fresh     challenges of a node, and how fresh a payload is
//! transfer  one object: pieces, acknowledgements, retransmission
//! node      the node's end: HELLO, a payload down, a request up, certificates down, a report up
//! host      the host's end
//! pace      how long to wait for an answer
//! wire      drives either end: bytes to frames and back, timers
//! seal      seals payloads so that only the node that said HELLO can open them
//! admission proves that a node has an admission key
//! ether     frames ↔ Ethernet frames
//! ```

pub use crate::base85;
mod code;
pub mod frame;
pub mod scan;
mod odd;
pub mod fresh;
mod event;
pub mod transfer;
pub mod node;
pub mod host;
mod pace;
pub mod wire;
pub mod seal;
pub mod admission;
pub mod ether;

pub use event::{HostEvent, NodeEvent};
pub use frame::{Challenge, Hello, Kind, Nonce, NotTaken, Session, Side, Stage, VERSION, Versions};
pub use fresh::Fresh;
pub use host::Host;
pub use node::Node;
pub use odd::{Distortion, Parity};
pub use seal::{LineKey, SEAL_LEN, TimeKey};
pub use transfer::Shape;
pub use wire::{Polled, Wire};

/// What an end does next if it hears nothing. [`wire`] runs the timer, and the module `pace` decides how long it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Timer {
    /// Nothing.
    None,
    /// The node sends HELLO again.
    Call,
    /// The host sends CALL again: a node with imprint=auto listens for one second only.
    Hail,
    /// Either end sends again what was not acknowledged.
    Retransmit,
    /// The host asks whether the node is still there.
    Keepalive(Patience),
    /// The node takes the host for gone, and sends HELLO.
    Watch(Patience),
}

/// How long an end tolerates silence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Patience {
    /// Answers come at once, without a person.
    Short,
    /// An administrator must decide first.
    Long,
}

/// What the other end has just answered, for [`wire`] to measure the line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answered {
    /// A frame that was sent once only, so the answer measures a round trip. The value is the number of the frame; if
    /// the answer is to several frames, of the newest.
    Once(u64),
    /// A frame that was sent more than once: the answer may be to any of the copies.
    Again,
}

/// One end of a line. [`wire`] drives both ends in the same way.
pub trait End {
    /// What the end tells the driver.
    type Event;

    /// Which end this is. A frame from the same side is an echo.
    const SIDE: Side;

    /// Takes a packet of the other end. `now` is in microseconds: for a host since 1970, for a node by any clock that
    /// is never set.
    fn receive(&mut self, packet: frame::Packet, now: u64);

    /// Takes notice of something that looks like a frame but is damaged, or belongs to another conversation.
    fn stranger(&mut self);

    /// The timer that [`End::timer`] named has expired.
    fn fire(&mut self);

    /// The next packet to send, if there is one. `frame` is its number: how many frames this end has sent before.
    fn packet(&mut self, now: u64, frame: u64) -> Option<frame::Packet>;

    /// The timer that is to run now.
    fn timer(&self) -> Timer;

    /// The conversation that this end is in.
    fn session(&self) -> Option<Session>;

    /// An earlier conversation that this end offered, and that the other end may still begin.
    fn earlier(&self) -> Option<Session> {
        None
    }

    /// The conversations that this end has left lately. Frames of theirs may still be on their way.
    fn left(&self) -> impl Iterator<Item = Session> {
        std::iter::empty()
    }

    /// The next event.
    fn event(&mut self) -> Option<Self::Event>;

    /// What the other end has just answered. Told once.
    fn answered(&mut self) -> Option<Answered>;
}

#[cfg(test)]
mod tests;
