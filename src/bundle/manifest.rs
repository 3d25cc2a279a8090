//! The manifest of a bundle to and from text. Never runs a unit.

use std::fmt;

use crate::payload::{NameError, NodeName, UnitName};
use crate::shown::Printable;

/// What is done with a unit. The order is that of the manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verb {
    /// It is enabled until the next boot, and started.
    Enable,
    /// It is restarted.
    Restart,
    /// It is reloaded, or restarted where it cannot be reloaded.
    Reload,
}

impl Verb {
    /// Every verb, in order.
    pub const ALL: [Verb; 3] = [Verb::Enable, Verb::Restart, Verb::Reload];

    /// The word in the manifest.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Enable => "enable",
            Verb::Restart => "restart",
            Verb::Reload => "reload",
        }
    }
}

/// One unit and what is done with it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UnitAction {
    /// What is done.
    pub verb: Verb,
    /// With which unit.
    pub unit: UnitName,
}

/// `restart chrony.service`
impl fmt::Display for UnitAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.word(), self.unit)
    }
}

/// What a manifest says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Manifest {
    pub(super) node: NodeName,
    pub(super) counter: u64,
    pub(super) units: Vec<UnitAction>,
}

/// The rule that a line of a manifest breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestError {
    /// The text is not UTF-8, or its last line has no end.
    Text,
    /// The first line is not `imprint-bundle 1`.
    Version(Printable),
    /// A line is missing: `node NAME` or `counter N`.
    Missing(&'static str),
    /// The name of the node or a unit.
    Name(NameError),
    /// The counter is not a number from 1 to [`super::MAX_COUNTER`], without zeros before it.
    Counter(Printable),
    /// A line that is none of the three verbs and a unit.
    Line(Printable),
    /// The units are not in order: by verb, then by name, each once.
    Order(Printable),
    /// More units than [`super::MAX_UNITS`].
    TooMany,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Text => f.write_str("the manifest is not lines of UTF-8"),
            ManifestError::Version(line) => {
                write!(f, "the manifest begins with \"{line}\", want \"{HEAD}\"; update the image if it is newer")
            }
            ManifestError::Missing(what) => write!(f, "the manifest has no line {what} at its place"),
            ManifestError::Name(error) => write!(f, "in the manifest, {error}"),
            ManifestError::Counter(text) => {
                write!(f, "counter \"{text}\" in the manifest, want 1 to {}", super::MAX_COUNTER)
            }
            ManifestError::Line(line) => {
                write!(f, "line \"{line}\" in the manifest, want enable, restart or reload, and a unit")
            }
            ManifestError::Order(line) => {
                write!(f, "\"{line}\" in the manifest is not at its place: by verb, then by name, each once")
            }
            ManifestError::TooMany => write!(f, "the manifest has more than {} units", super::MAX_UNITS),
        }
    }
}

impl std::error::Error for ManifestError {}

const HEAD: &str = "imprint-bundle 1";

/// The text of a manifest. The units are in order.
pub(super) fn write(node: &NodeName, counter: u64, units: &[UnitAction]) -> String {
    let mut text = format!("{HEAD}\nnode {node}\ncounter {counter}\n");
    for unit in units {
        text.push_str(unit.verb.word());
        text.push(' ');
        text.push_str(unit.unit.as_str());
        text.push('\n');
    }
    text
}

/// Reads a text that [`write`] could have written.
pub(super) fn read(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('\n')).ok_or(ManifestError::Text)?;
    // Not `lines`, which would take a carriage return for a part of the line's end.
    let mut lines = text.split('\n');
    match lines.next() {
        Some(HEAD) => {}
        other => return Err(ManifestError::Version(shown(other.unwrap_or_default()))),
    }
    let mut need = |word: &str, what| {
        let line = lines.next().and_then(|line| line.strip_prefix(word));
        line.ok_or(ManifestError::Missing(what))
    };
    let node = NodeName::try_from(need("node ", "node NAME")?).map_err(ManifestError::Name)?;
    let counter = need("counter ", "counter N")?;
    let counter = number(counter).ok_or_else(|| ManifestError::Counter(shown(counter)))?;
    let mut units: Vec<UnitAction> = Vec::new();
    for line in lines {
        if units.len() >= super::MAX_UNITS {
            return Err(ManifestError::TooMany);
        }
        let verb =
            Verb::ALL.into_iter().find_map(|verb| Some((verb, line.strip_prefix(verb.word())?.strip_prefix(' ')?)));
        let (verb, name) = verb.ok_or_else(|| ManifestError::Line(shown(line)))?;
        let unit = UnitAction { verb, unit: UnitName::try_from(name).map_err(ManifestError::Name)? };
        if units.last().is_some_and(|before| *before >= unit) {
            return Err(ManifestError::Order(shown(line)));
        }
        units.push(unit);
    }
    Ok(Manifest { node, counter, units })
}

fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    // Neither a sign nor zeros before it.
    (super::COUNTERS.contains(&number) && number.to_string() == text).then_some(number)
}

fn shown(line: &str) -> Printable {
    Printable::up_to(line, 80)
}
