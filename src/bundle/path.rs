//! The path of an entry of a bundle, below the root of the machine; and its two fields in a tar. Never looks at a file system.

use std::fmt;

/// A path that stays below the root: `etc/hostname`. It has at least two names, so that the first is a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EntryPath(String);

/// Why a path is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathError {
    /// No path at all.
    Empty,
    /// It begins with a slash.
    Absolute,
    /// Two slashes in a row, or one at the end.
    EmptyName,
    /// A name is `.`.
    Dot,
    /// A name is `..`.
    DotDot,
    /// It has a NUL or another control character.
    Control,
    /// It is not UTF-8.
    NotUtf8,
    /// It has one name only.
    TopLevel,
    /// It does not fit the two fields of a tar.
    TooLong,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathError::Empty => "the path is empty",
            PathError::Absolute => "the path is absolute; paths count from the root, without a slash at the beginning",
            PathError::EmptyName => "the path has an empty name: two slashes in a row, or one at the end",
            PathError::Dot => "the path has the name .",
            PathError::DotDot => "the path has the name .., and would leave the root",
            PathError::Control => "the path has a control character",
            PathError::NotUtf8 => "the path is not UTF-8",
            PathError::TopLevel => "the path is directly at the top of the root; put the file into a directory",
            PathError::TooLong => {
                "the path is too long for a tar: at most 100 bytes, behind at most 155 that end at a slash"
            }
        })
    }
}

impl std::error::Error for PathError {}

/// What stands before each path in the tar.
pub(super) const ROOT: &str = "root/";
/// Lengths of the fields `name` and `prefix` (POSIX.1-1988, ustar).
pub(super) const NAME_LEN: usize = 100;
const PREFIX_LEN: usize = 155;

impl EntryPath {
    /// The path, without a slash at the beginning.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks the bytes of a path.
    pub fn from_bytes(bytes: &[u8]) -> Result<EntryPath, PathError> {
        EntryPath::try_from(std::str::from_utf8(bytes).map_err(|_| PathError::NotUtf8)?)
    }

    /// The fields `prefix` and `name` of the path with `root/` before it. The prefix is as short as it can be.
    pub(super) fn fields(&self) -> (String, String) {
        // `try_from` has made sure that it fits.
        fields(&self.0).unwrap_or_default()
    }
}

impl TryFrom<&str> for EntryPath {
    type Error = PathError;
    fn try_from(text: &str) -> Result<EntryPath, PathError> {
        let names = || text.split('/');
        let fault = if text.is_empty() {
            PathError::Empty
        } else if text.starts_with('/') {
            PathError::Absolute
        } else if text.chars().any(char::is_control) {
            PathError::Control
        } else if names().any(str::is_empty) {
            PathError::EmptyName
        } else if names().any(|name| name == ".") {
            PathError::Dot
        } else if names().any(|name| name == "..") {
            PathError::DotDot
        } else if names().count() < 2 {
            PathError::TopLevel
        } else if fields(text).is_none() {
            PathError::TooLong
        } else {
            return Ok(EntryPath(text.to_owned()));
        };
        Err(fault)
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fields(path: &str) -> Option<(String, String)> {
    let path = [ROOT, path].concat();
    if path.len() <= NAME_LEN {
        return Some((String::new(), path));
    }
    let splits = || path.match_indices('/').filter_map(|(at, _)| Some((path.get(..at)?, path.get(at + 1..)?)));
    let (prefix, name) = splits().find(|(_, name)| name.len() <= NAME_LEN)?;
    (prefix.len() <= PREFIX_LEN).then(|| (prefix.to_owned(), name.to_owned()))
}
