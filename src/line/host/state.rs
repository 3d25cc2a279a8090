//! How far the host's end is, and which nodes it has passed over. Only types.

use crate::line::frame::{Hello, Session, Stage};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Passed {
    pub(super) hello: Hello,
    /// When this node was first heard after another node had answered.
    pub(super) heard: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum State {
    /// No node has been heard, or the node has gone silent.
    Calling,
    /// OPEN was sent.
    Opening(Session),
    /// READY was heard.
    Open(Session, Stage),
}
