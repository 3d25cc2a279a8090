//! What a node says on all its lines alike, so that a line which is made later says it, too. Decides nothing.

use crate::line::{Kind, Node, Stage, TimeKey};

/// What all lines of a node say alike. A line that is made later says it, too.
pub(super) struct Standing {
    pub(super) stage: Stage,
    pub(super) statement: Option<(Kind, Vec<u8>)>,
    /// The time was asked for, and has not come.
    pub(super) asks: bool,
    /// What a host proves with that it has the payload.
    pub(super) believes: Option<TimeKey>,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing { stage: Stage::Payload, statement: None, asks: false, believes: None }
    }
}

impl Standing {
    /// Brings a new line to what the others say.
    pub(super) fn tell(&self, node: &mut Node) {
        if self.stage != Stage::Payload {
            node.set_stage(self.stage);
        }
        if let Some((kind, bytes)) = &self.statement {
            node.say(*kind, bytes.clone());
        }
        if let Some(key) = &self.believes {
            node.believe(key.clone());
        }
        if self.asks {
            node.ask_time();
        }
    }
}
