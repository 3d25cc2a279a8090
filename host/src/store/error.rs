//! Errors of the store and their messages. Does no I/O.

use std::io;
use std::path::PathBuf;

use imprint::payload::UrlError;

use super::schema::VERSION;

/// Why an operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite reports an error.
    #[error("store {}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The file cannot be made.
    #[error("making {}", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A newer imprint-host has made or updated the store.
    #[error(
        "store {} has version {version}, this program knows versions up to {VERSION}; use a newer imprint-host",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// `init` was not finished.
    #[error("{} is {what}: init was not finished; remove the directory and run it again", .path.display())]
    Unfinished {
        /// The file.
        path: PathBuf,
        /// `missing`, `empty`
        what: &'static str,
    },
    /// The store has a URL that this version cannot read.
    #[error("the store holds an invalid URL")]
    Url(#[source] UrlError),
    /// There is a node of this name already.
    #[error("there is a node {0} already; give its record another name, or use --replace")]
    NodeExists(String),
}
