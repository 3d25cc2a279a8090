//! Why a command failed, in words.

use std::io;
use std::path::{Path, PathBuf};

use crate::load::LoadError;
use crate::output::OutputError;
use crate::record::RecordError;
use crate::serve::ServeError;
use crate::{cpio, enrol, iso, state, vfat};

/// Why a command failed.
#[derive(Debug)]
pub enum CliError {
    /// Something with the state.
    State(state::Error),
    /// A record cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was made cannot go where it should.
    Write(OutputError),
    /// Secrets for a screen.
    Terminal,
    /// Name and token of a payload that is to have no token.
    NoToken,
    /// Standard output.
    Output(io::Error),
    /// The image.
    Iso(iso::TooLong),
    /// The payload does not fit into a FAT image.
    Vfat(vfat::TooLong),
    /// The archive.
    Cpio(cpio::TooLong),
    /// The server.
    Serve(ServeError),
    /// A request that waits.
    Decide(enrol::Decided),
    /// Certificates that are to be revoked.
    Revoke(enrol::RevokeError),
    /// A file of lines is none.
    Lines(RecordError),
    /// A storm did not begin.
    Load(LoadError),
    /// A storm left nodes without a certificate, or with two.
    Stormed {
        /// How many without.
        failed: usize,
        /// How many with more than one.
        doubled: usize,
    },
    /// The folder for what comes on many lines.
    LogFolder {
        /// Which.
        path: PathBuf,
        /// Why there is none.
        source: io::Error,
    },
    /// Not every node has its certificate.
    Injected {
        /// How many have not.
        failed: usize,
        /// Of how many.
        of: usize,
    },
}

impl From<state::Error> for CliError {
    fn from(error: state::Error) -> CliError {
        CliError::State(error)
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CliError::State(error) => error.fmt(f),
            CliError::Read { path, .. } => write!(f, "reading {}", Path::display(path)),
            CliError::Write(error) => error.fmt(f),
            CliError::Terminal => write!(f, "a payload is binary and secret, not for a terminal; give -o FILE"),
            CliError::NoToken => {
                write!(f, "a payload with --credentials has no token; leave that out with --as userpass")
            }
            CliError::Output(_) => write!(f, "writing to standard output"),
            CliError::Iso(error) => error.fmt(f),
            CliError::Vfat(error) => error.fmt(f),
            CliError::Cpio(error) => error.fmt(f),
            CliError::Serve(error) => error.fmt(f),
            CliError::Decide(error) => error.fmt(f),
            CliError::Revoke(error) => error.fmt(f),
            CliError::Lines(error) => error.fmt(f),
            CliError::Load(error) => error.fmt(f),
            CliError::Stormed { failed, doubled } => {
                write!(f, "{failed} nodes have no certificate, {doubled} have two")
            }
            CliError::LogFolder { path, .. } => {
                write!(f, "making {}; with --lines --log is a folder", Path::display(path))
            }
            CliError::Injected { failed, of } => write!(f, "{failed} of {of} nodes failed; see above"),
        }
    }
}

impl std::error::Error for CliError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CliError::State(error) => error.source(),
            CliError::Read { source, .. } | CliError::LogFolder { source, .. } | CliError::Output(source) => {
                Some(source)
            }
            CliError::Write(error) => error.source(),
            CliError::Serve(error) => error.source(),
            CliError::Load(error) => error.source(),
            CliError::Decide(error) => error.source(),
            CliError::Revoke(error) => error.source(),
            CliError::Terminal
            | CliError::NoToken
            | CliError::Iso(_)
            | CliError::Vfat(_)
            | CliError::Cpio(_)
            | CliError::Lines(_)
            | CliError::Stormed { .. }
            | CliError::Injected { .. } => None,
        }
    }
}
