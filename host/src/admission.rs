//! Who is let in at the door: what a caller says, what the door knows of it, and what the record asks for. Pure: never talks to a
//! node, and never reads the store.
//!
//! The words, here and in `state`, `store` and `serve`:
//!
//! - A *caller* is one HELLO. How it stands, and what ends that it is let in, is in `store::callers`.
//! - What it *said* (serial number, UUID, MAC) is a *claim*: it can be compared, and proves nothing.
//! - The *facts* are what the door knows through the hypervisor, whatever is said.
//! - An admission key is a *proof*: of the key, and of nothing else.
//! - A *candidate* is a node that the caller may be. It is *meant* if the facts are those of its record, or if the claims are.
//! - A *rule* is a record's `admit`. It is asked about callers that wait, and about no others.
//! - A *level* is what a caller was let in for.
//! - A *rival* is another line key that calls as the same node.

mod rule;
mod said;

pub use rule::{Candidate, ListedKey, QUIET, RECENT, RULED, Rival, Ruling, Window, contradicts, counts_since, judge};
pub use said::{Differs, Said, differs};

use std::fmt;
use std::time::Duration;

use imprint::key_code::KeyCode;
use imprint::line::Hello;
use serde::{Deserialize, Serialize};

/// A node that calls at the door.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// What it says of itself. Whoever says it has answered, and need not have the key in it: only what is sealed for that key
    /// shows who has.
    pub hello: Hello,
    /// Where it calls from, for people: `tcp:192.0.2.1:40000`, `vsock:3`, `ether:tap0 52:54:00:12:34:56`.
    pub from: String,
    /// Whose places it takes: an IPv4 address, an IPv6 network, a virtual machine, a port of a bridge.
    pub source: String,
    /// What the door knows, whatever the node says.
    pub facts: Facts,
    /// The admission keys (Ed25519) that the node has proven to have.
    pub keys: Vec<[u8; 32]>,
}

/// What the hypervisor knows of the node. As JSON it is in the store.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// The context id of its vsock device (vsock(7)).
    pub cid: Option<u32>,
    /// The port that its frames come from: a tap device, a port of a bridge.
    pub tap: Option<String>,
    /// The name of the virtual machine, as the path of its Unix socket has it.
    pub vm: Option<String>,
}

/// What a record says about whoever calls as its node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Rule {
    /// What lets the node in.
    pub admit: Admit,
    /// A node that was let in for its own words may get key material of this host, too.
    pub claims_suffice: bool,
    /// Admission keys, one of which the node must have.
    pub keys: Vec<KeyName>,
    /// What the hypervisor must know of the node.
    pub facts: Facts,
}

/// An admission key, as a record names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyName {
    /// The Ed25519 public key itself.
    Public([u8; 32]),
    /// The name of a key that this host knows.
    Named(String),
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
    /// It has a key that this host has noted as that of a stick.
    Stick,
    /// It has a key that this host has noted as that of an image, or does not know.
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
        /// Ask again after this time, also without news: then a rule may let it in.
        again: Option<Duration>,
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

impl Admit {
    /// The word for it in a record.
    pub fn word(self) -> &'static str {
        Admit::ALL.iter().find(|(admit, _)| *admit == self).map_or("", |(_, word)| word)
    }
}

impl Facts {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Facts::default()
    }
}

/// `vsock CID 3, tap tap0`
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cid = self.cid.map(|cid| format!("vsock CID {cid}"));
        let tap = self.tap.as_ref().map(|tap| format!("tap {tap}"));
        let vm = self.vm.as_ref().map(|vm| format!("virtual machine {vm}"));
        let all: Vec<String> = [cid, tap, vm].into_iter().flatten().collect();
        if all.is_empty() { f.write_str("nothing") } else { f.write_str(&all.join(", ")) }
    }
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

    /// Every level.
    pub const ALL: [Level; 7] =
        [Level::Approved, Level::Armed, Level::Wire, Level::Stick, Level::ImageKey, Level::ApprovedOnce, Level::Known];

    /// The level with this word.
    pub fn of(word: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.word() == word)
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
