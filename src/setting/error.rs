//! Why a setting is refused. The text leaves the key out: the caller names it, with its place. Never shows a password or a hash.

use std::fmt;

use super::{Key, SETTINGS};
use crate::payload::Problem;
use crate::shown::Printable;

/// Why a setting is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SettingError {
    /// There is no such setting.
    Unknown(&'static str),
    /// The setting does not take this value.
    Value {
        /// The value; empty if it is not shown.
        given: Printable,
        /// What the setting takes.
        want: &'static str,
    },
    /// The items of a link do not fit together.
    Link {
        /// The value.
        given: Printable,
        /// The rule of links in a payload.
        problem: Problem,
    },
    /// A setting with one value has two.
    Twice,
    /// There are more values than these.
    TooMany(usize),
    /// A search domain without a name server.
    NoNameServer,
    /// A password or a hash on the kernel command line.
    Secret,
}

impl SettingError {
    /// The value is not shown: a word that is misspelt may be a password.
    pub(super) fn unknown(word: &str) -> SettingError {
        let word = word.to_lowercase();
        let common = |known: &str| known.bytes().zip(word.bytes()).take_while(|(one, other)| one == other).count();
        let aliases =
            [("passwd", "password"), ("root", "password"), ("key", "ssh"), ("time", "timezone"), ("name", "hostname")];
        let meant = aliases.iter().find(|(alias, _)| word.contains(alias)).map(|(_, meant)| *meant);
        let nearest = SETTINGS.iter().map(|row| row.word).max_by_key(|known| (common(known), usize::MAX - known.len()));
        SettingError::Unknown(meant.or(nearest).unwrap_or("hostname"))
    }

    pub(super) fn value(key: Key, given: &str) -> SettingError {
        let shown = key != Key::Password && key != Key::Storage;
        let given = Printable::up_to(if shown { given } else { "" }, 80);
        SettingError::Value { given, want: key.row().takes }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingError::Unknown(nearest) => write!(f, "there is no such setting; the nearest that is known is {nearest}"),
            SettingError::Value { given, want } if given.is_empty() => write!(f, "not valid: want {want}"),
            SettingError::Value { given, want } => write!(f, "\"{given}\" is not valid: want {want}"),
            SettingError::Link { given, problem } => write!(f, "\"{given}\" is no link that works: {problem}"),
            SettingError::Twice => f.write_str("given twice, with different values; remove one"),
            SettingError::TooMany(most) => write!(f, "more than {most} values; remove some"),
            SettingError::NoNameServer => f.write_str("search domains need a name server; give dns, or leave search out"),
            SettingError::Secret => f.write_str(
                "every user of the node can read the kernel command line, so no password and no hash may stand there; type it in \
                 the dialogue (imprint setup), or put it into the node's record",
            ),
        }
    }
}

impl std::error::Error for SettingError {}
