//! Who is let in at the door: what is known of a node that calls, and what the record asks for. A machine's own words (serial
//! number, UUID, MAC) are a claim; what the hypervisor knows is a fact; an admission key is a proof. Pure: never talks to a
//! node, and never reads the store.

use std::fmt;

use imprint::key_code::KeyCode;
use imprint::line::Hello;

/// A node that calls at the door.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// What it says of itself. The line key in it has answered.
    pub hello: Hello,
    /// Where it calls from, for people: `tcp:192.0.2.1:40000`, `vsock:3`, `ether:tap0 52:54:00:12:34:56`.
    pub from: String,
    /// Whose places it takes: an IPv4 address, an IPv6 network, a virtual machine, a port of a bridge.
    pub source: String,
    /// What the door knows, whatever the node says.
    pub facts: Facts,
    /// SHA-256 of the SubjectPublicKeyInfo of the admission key that the node has proven to have.
    pub key: Option<ProvenKey>,
}

/// What the hypervisor knows of the node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Facts {
    /// The context id of its vsock device (vsock(7)).
    pub cid: Option<u32>,
    /// The port that its frames come from: a tap device, a port of a bridge.
    pub tap: Option<String>,
    /// The name of the virtual machine, as the path of its Unix socket has it.
    pub vm: Option<String>,
}

/// An admission key, and where the node says that it has it from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProvenKey {
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// The key is in the image: everybody who has the image has the key.
    pub in_image: bool,
}

/// `admit` of a record: what lets its node in.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Admit {
    /// `approve`: an administrator compares the code of the line key, for every boot.
    #[default]
    Approve,
    /// `armed`: a window that an administrator or a power command of ours has opened.
    Armed,
    /// `wire`: the binding is a fact of the hypervisor.
    Wire,
    /// `key`: an admission key.
    Key,
    /// `approve-once`: an administrator, the first time; then whoever says the same.
    ApproveOnce,
    /// `known`: whoever says the same.
    Known,
}

/// How a node was let in, from an administrator's decision to its own words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// An administrator approved this boot's line key.
    Approved,
    /// The window was open.
    Armed,
    /// The hypervisor knows it.
    Wire,
    /// It has the key of a stick.
    Stick,
    /// It has the key of the image.
    ImageKey,
    /// An administrator approved it once, and it says the same as then.
    ApprovedOnce,
    /// It says what the record says.
    Known,
}

/// The decision about a node that calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is this node.
    Admitted {
        /// Name of the record.
        node: String,
        /// Why it was let in.
        level: Level,
    },
    /// An administrator must decide.
    Waits {
        /// The code of its line key, which its console shows, too.
        code: KeyCode,
        /// Why it waits, and what the administrator can do; one line.
        why: String,
    },
    /// It is not let in.
    Refused {
        /// Why, and what the administrator can do; one line.
        why: String,
    },
}

impl Admit {
    /// Every value with its word in a record.
    pub const ALL: [(Admit, &str); 6] = [
        (Admit::Approve, "approve"),
        (Admit::Armed, "armed"),
        (Admit::Wire, "wire"),
        (Admit::Key, "key"),
        (Admit::ApproveOnce, "approve-once"),
        (Admit::Known, "known"),
    ];
}

impl Level {
    /// The word for it in status.json, in the log and in the list of nodes.
    pub fn word(self) -> &'static str {
        match self {
            Level::Approved => "approved",
            Level::Armed => "armed",
            Level::Wire => "wire",
            Level::Stick => "stick",
            Level::ImageKey => "image-key",
            Level::ApprovedOnce => "approved-once",
            Level::Known => "known",
        }
    }

    /// Whether it rests on what the node says of itself.
    pub fn is_claim(self) -> bool {
        matches!(self, Level::ApprovedOnce | Level::Known)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
