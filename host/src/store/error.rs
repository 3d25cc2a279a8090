//! Why the store does not do what it is asked, in words.

use std::fmt;
use std::io;
use std::path::PathBuf;

use imprint::payload::UrlError;

use super::schema::VERSION;

/// Why the store does not do what it is asked.
#[derive(Debug)]
pub enum StoreError {
    /// SQLite's own.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The file cannot be made.
    Create {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Made by a newer program.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// `init` was not finished.
    Unfinished {
        /// The file.
        path: PathBuf,
        /// `missing`, `empty`
        what: &'static str,
    },
    /// A URL that this program does not understand.
    Url(UrlError),
    /// There is a node of this name.
    NodeExists(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Sqlite { path, .. } => write!(f, "store {}", path.display()),
            StoreError::Create { path, .. } => write!(f, "making {}", path.display()),
            StoreError::Newer { path, version } => write!(
                f,
                "store {} has version {version}, this program knows versions up to {VERSION}; use a newer imprint-host",
                path.display()
            ),
            StoreError::Unfinished { path, what } => {
                write!(f, "{} is {what}: init was not finished; remove the directory and run it again", path.display())
            }
            StoreError::Url(_) => write!(f, "URL in the store"),
            StoreError::NodeExists(name) => {
                write!(f, "there is a node {name} already; give its record another name, or use --replace")
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Sqlite { source, .. } => Some(source),
            StoreError::Create { source, .. } => Some(source),
            StoreError::Url(error) => Some(error),
            _ => None,
        }
    }
}
