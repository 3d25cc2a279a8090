//! Events of a dialogue in words for the console. Decides what of a host's own words a person may see: whoever is in the network can
//! write them, and the person compares codes. Decides nothing else.

use std::fmt;

use super::Told;
use crate::chain::chain;
use crate::key_code::{KeyCode, may_hold_a_code};
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
            Told::Waits { line, pending: true, code, words } => {
                write!(f, "the host on {line} lets this node wait: {}", words.of_one_that_waits(*code))
            }
            Told::Waits { line, pending: false, words, .. } => {
                write!(f, "the host on {line} has no payload for this node{}", words.unproven())
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

/// What a host says to a node that it gives no payload. Nothing proves these words: everybody on the way can write others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Words {
    /// Safe to show.
    Shown(String),
    /// They may have something that a person could compare with, or enter.
    Hidden,
    /// They have the code of another line key, plain to see.
    OtherKey,
}

impl Words {
    /// `text`: safe for a terminal. `code`: that of the node's own line key.
    pub fn of(text: String, code: KeyCode) -> Words {
        if code.is_contradicted(&text) {
            return Words::OtherKey;
        }
        // Commands are this program's own to give.
        let commands = text.to_ascii_lowercase().contains("imprint-host");
        if commands || may_hold_a_code(&text) { Words::Hidden } else { Words::Shown(text) }
    }

    /// What an administrator has to do, with the node's own code.
    pub(super) fn of_one_that_waits(&self, code: KeyCode) -> String {
        match self {
            Words::OtherKey => ALARM.to_owned(),
            words => format!("{}{}", admission(code), words.unproven()),
        }
    }

    /// The words themselves, after a sentence of this program.
    pub(super) fn unproven(&self) -> String {
        match self {
            Words::Shown(text) if text.trim().is_empty() => String::new(),
            Words::Shown(text) => format!("; it says, and nothing proves it: {text}"),
            Words::Hidden => "; what it says is not shown, as it looks like a code or a command".to_owned(),
            Words::OtherKey => format!("; {ALARM}"),
        }
    }
}

/// `an administrator has to admit this node: where imprint-host nodes shows line key CODE, run imprint-host admit CODE`
pub(super) fn admission(code: KeyCode) -> String {
    format!(
        "an administrator has to admit this node: where imprint-host nodes shows line key {code}, run imprint-host admit {code}"
    )
}

/// A host that names another line key has heard another HELLO than this node's.
const ALARM: &str = "ADMIT NOBODY: it names a line key that is not this node's, so somebody changes what this node says on its way \
                     there, or it is no host of this site; look at the network between the two first";
