//! Words for people about a line: its outcome, the node's stage, kinds of objects. Decides nothing.

use std::fmt;
use std::time::Duration;

use imprint::line::{Kind, Stage};

/// The outcome of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The node has its certificate.
    Done {
        /// Code of the node's key.
        key_code: String,
        /// Bytes of the payload.
        payload: usize,
        /// How many frames were sent again.
        retransmits: u64,
        /// Time from HELLO to the end, in milliseconds.
        millis: u64,
        /// Whether the node has reported success. False: it has its certificate, but the report is lost.
        reported: bool,
    },
    /// The node says that it failed.
    NodeFailed {
        /// Stage and reason, as the node says them.
        reason: String,
    },
    /// This host failed, or the node was not heard.
    Failed(String),
}

impl Outcome {
    /// Whether the node has its certificate.
    pub fn is_done(&self) -> bool {
        matches!(self, Outcome::Done { .. })
    }

    pub(crate) fn word(&self) -> &'static str {
        if self.is_done() { "done" } else { "failed" }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done { key_code, payload, retransmits, millis, reported } => {
                let seconds = Duration::from_millis(*millis).as_secs_f64();
                write!(f, "key {key_code}, payload {payload} bytes, {retransmits} retransmits, {seconds:.2} s")?;
                if *reported { Ok(()) } else { f.write_str("; it has its certificate, and its report was lost") }
            }
            Outcome::NodeFailed { reason } => write!(f, "the node says: {reason}"),
            Outcome::Failed(why) => f.write_str(why),
        }
    }
}

/// A text of the other end, made safe for a terminal: printable, and at most 500 characters.
pub(crate) fn shown(text: &str) -> String {
    imprint::shown::printable_up_to(text, 500)
}

pub(crate) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Payload => "wants its payload",
        Stage::Busy => "has its payload and is busy",
        Stage::Request => "wants its certificate",
        Stage::Done => "is done",
        Stage::Failed => "has failed",
    }
}

pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Sealed => "payload, sealed",
        Kind::Plain => "payload, not sealed",
        Kind::Certificates => "certificates",
        Kind::Pending => "word that it waits for approval",
        Kind::Refused => "refusal",
        Kind::Request => "request",
        Kind::Report => "report",
        Kind::Fresh => "payload, sealed and signed for this node",
        Kind::Admission => "proof of an admission key",
    }
}
