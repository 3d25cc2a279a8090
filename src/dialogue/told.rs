//! Events of a dialogue in words for the console. Decides nothing.

use std::fmt;

use super::Told;
use crate::chain::chain;
use crate::line::Versions;

/// For the console.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Came { line } => write!(f, "{line} has appeared and is used now"),
            Told::Heard { line, .. } => write!(f, "a host speaks on {line}"),
            Told::Payload { line, sealed, .. } => {
                write!(f, "a payload came on {line}{}", if *sealed { "" } else { ", not sealed" })
            }
            Told::Stale { line } => write!(
                f,
                "a payload came on {line} that was signed for no challenge of the last minute; it is not used, and the host has a \
                 new challenge"
            ),
            Told::NotUsed { line, why } => write!(f, "the payload that came on {line} is not used: {why}"),
            Told::Waits { line, pending: true, text } => {
                write!(f, "the host on {line} lets this node wait: {text}")
            }
            Told::Waits { line, pending: false, text } => {
                write!(f, "the host on {line} has no payload for this node: {text}")
            }
            Told::Key { code, from } => write!(f, "admission key {code} of {from}"),
            Told::NoKey(why) => f.write_str(why),
            Told::Unsealed(error) => f.write_str(&chain(error)),
            Told::Time(time) => time.fmt(f),
            Told::Answer(_) => f.write_str("the host has answered"),
            Told::Sent(kind) => write!(f, "the host has received the {kind:?}"),
            Told::NotTaken(kind, reason) => write!(f, "the host does not take the {kind:?}: {reason}"),
            Told::Foreign(Versions { lowest, highest }) => write!(
                f,
                "the host speaks versions {lowest} to {highest} of the line protocol, this program {} to {}; bring both \
                 to the same release",
                Versions::OURS.lowest,
                Versions::OURS.highest
            ),
            Told::Odd { line, what } => write!(f, "{line}: {what}"),
            Told::Pasted { .. } => f.write_str("more lines are to come"),
            Told::Typed(_) => f.write_str("something was typed that is no line of a payload"),
            Told::Stalled(error) | Told::Lost(error) => f.write_str(&chain(error)),
            Told::Missed { line, why } => write!(f, "{line}: {why}"),
            Told::Sought(words) => f.write_str(words),
        }
    }
}
