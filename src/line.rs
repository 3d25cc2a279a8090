//! The serial line protocol, both ends: docs/line-protocol.md. Bytes and timers in, bytes and events out; no I/O, no
//! clock, no randomness in here.
//!
//! ```text
//! base85    bytes ↔ characters
//! frame     frames ↔ bytes
//! scan      finding frames in what else a line carries
//! odd       what a line does to all frames, for people
//! transfer  one object: pieces, acknowledgements, what is sent again
//! node      the node's end: HELLO, a payload down, a request up, certificates down, a report up
//! host      the host's end
//! pace      how long an answer is waited for
//! wire      around either end: bytes, timers
//! seal      payloads for the node that said HELLO, and for no other
//! ```

pub mod base85;
mod code;
pub mod frame;
pub mod scan;
mod odd;
pub mod transfer;
pub mod node;
pub mod host;
mod pace;
pub mod wire;
pub mod seal;

pub use frame::{Hello, Kind, Nonce, NotTaken, Session, Side, Stage, VERSION, Versions};
pub use host::{Host, HostEvent};
pub use node::{Node, NodeEvent};
pub use odd::{Distortion, Parity};
pub use seal::{LineKey, SEAL_LEN};
pub use transfer::Shape;
pub use wire::{Polled, Wire};

/// What an end waits for, if nothing is heard before. How long that is, [`wire`] decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Timer {
    /// For nothing.
    None,
    /// To say again that it is there: HELLO of a node.
    Call,
    /// To call again: a node with imprint=auto listens for a second only.
    Hail,
    /// To send again what was not acknowledged.
    Retransmit,
    /// To see whether the other end is still there: the host asks.
    Keepalive(Patience),
    /// To take it that the other end is gone: the node says HELLO.
    Watch(Patience),
}

/// How long silence is borne.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Patience {
    /// Things are moving.
    Short,
    /// An administrator is waited for.
    Long,
}

/// What the other end has answered, for [`wire`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answered {
    /// What was sent once only, so that the answer can be to no other: what a round trip is measured with. The number of
    /// its frame, of several the newest.
    Once(u64),
    /// What was sent again; the answer may be to each of them.
    Again,
}

/// Either end, for [`wire`]: both are driven the same way.
pub trait End {
    /// What it tells whoever drives it.
    type Event;

    /// Which end it is: what the other end did not send is an echo.
    const SIDE: Side;

    /// Takes what the other end sent. `now` is in microseconds: for a host since 1970, for a node of any clock that is
    /// never set.
    fn receive(&mut self, packet: frame::Packet, now: u64);

    /// Something came that looks like a frame and is none of this conversation: damaged, or of another.
    fn stranger(&mut self);

    /// The time that [`End::timer`] named is over.
    fn fire(&mut self);

    /// The next thing to send, if there is one. `frame` is its number: how many this end has sent before.
    fn packet(&mut self, now: u64, frame: u64) -> Option<frame::Packet>;

    /// What it waits for.
    fn timer(&self) -> Timer;

    /// The conversation that it is in.
    fn session(&self) -> Option<Session>;

    /// One that it was about to begin before, and that may still come about.
    fn earlier(&self) -> Option<Session> {
        None
    }

    /// Those that it has left a moment ago: what was said in them may still be on its way.
    fn left(&self) -> impl Iterator<Item = Session> {
        std::iter::empty()
    }

    /// The next thing that it has to tell.
    fn event(&mut self) -> Option<Self::Event>;

    /// What has just been answered.
    fn answered(&mut self) -> Option<Answered>;
}

#[cfg(test)]
mod tests;
