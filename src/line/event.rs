//! What the ends of a line tell their drivers. Decides nothing.

use super::frame::{Hello, Kind, NotTaken, Session, Stage, Versions};

/// The events of the node's end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NodeEvent {
    /// The first frame of a host was heard: there is a host on this line.
    Heard,
    /// A conversation has begun.
    Opened(Session),
    /// The host speaks other versions of the protocol only.
    Foreign(Versions),
    /// An object has arrived whole.
    Object {
        /// The kind of the object.
        kind: Kind,
        /// The number of the object, to which its seal is bound.
        number: u8,
        /// The conversation that the object came in; `None`: it is from a host that cannot hear.
        session: Option<Session>,
        /// When its announcement had come, by the node's clock.
        announced: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A part of an object came from a host that cannot hear. `missing`: the first pieces that have not come yet;
    /// `None`: the announcement has not come, so no piece can be kept.
    Broadcast {
        /// Numbers of pieces.
        missing: Option<Vec<u16>>,
    },
    /// The statement has arrived at the host.
    Sent(Kind),
    /// The host refuses the statement.
    Refused(Kind, NotTaken),
    /// The host said what time it is.
    Time {
        /// When the question was sent, by the node's clock.
        sent: u64,
        /// When the answer had arrived, by the node's clock.
        arrived: u64,
        /// When the question had arrived, by the host's clock.
        received: u64,
        /// Microseconds from then until the host answered.
        held: u64,
    },
}

/// The events of the host's end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HostEvent {
    /// A node said HELLO. It may be gone, since consoles repeat old output. Until a node has answered, the last one
    /// that is heard counts.
    Hello(Hello),
    /// A HELLO that is not of the node that has answered: the node was started again, or somebody else writes to the
    /// line. The host does not speak with it until [`super::Host::accept`].
    Second(Hello),
    /// The node speaks other versions of the protocol only.
    Foreign(Versions),
    /// A conversation has begun; nothing of an earlier one is on its way any more.
    Opened(Session, Stage),
    /// The node has reached another stage.
    Stage(Stage),
    /// The node has sent another challenge: [`super::Host::challenge`].
    Challenged,
    /// An object has arrived at the node.
    Delivered(Kind),
    /// The node refuses an object.
    Refused(Kind, NotTaken),
    /// An object of the node has arrived whole.
    Object(Kind, Vec<u8>),
    /// The node does not answer any more.
    Lost,
}
