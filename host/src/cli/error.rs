//! Why a command failed: the errors of all commands and their messages. Prints nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::load::LoadError;
use crate::output::OutputError;
use crate::record::RecordError;
use crate::serve::ServeError;
use crate::{cpio, enrol, gpt, iso, state, vfat};

/// Why a command failed.
#[derive(Debug)]
pub enum CliError {
    /// The state directory, the CA, the store or a record.
    State(state::Error),
    /// A file that the command was given cannot be read.
    Read {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The output file or drive (`-o`) cannot be written.
    Write(OutputError),
    /// A secret binary payload would go to a terminal.
    Terminal,
    /// `--as userpass` with `--credentials`: such a payload has no token.
    NoToken,
    /// `--as qemu` without `-o`.
    QemuStandardOutput,
    /// `--as qemu`, and `-o` names a device, a FIFO or a drive.
    QemuNoFile(PathBuf),
    /// `--as qemu`, and the name of `-o` cannot stand in an argument that somebody copies.
    QemuName(PathBuf),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The payload does not fit into an ISO image.
    Iso(iso::TooLong),
    /// The payload does not fit into a FAT image.
    Vfat(vfat::TooLong),
    /// The payload does not fit into a partition.
    Gpt(gpt::TooLong),
    /// The payload does not fit into a cpio archive.
    Cpio(cpio::TooLong),
    /// The server, or the runtime of `serve` or `inject`, cannot start.
    Serve(ServeError),
    /// `approve` or `deny` found no such request, or could not store the decision.
    Decide(enrol::Decided),
    /// `revoke` found no such certificate, or could not store the revocation.
    Revoke(enrol::RevokeError),
    /// The file of `--lines` is invalid.
    Lines(RecordError),
    /// A storm did not start.
    Load(LoadError),
    /// After a storm some nodes have no certificate, or more than one.
    Stormed {
        /// Nodes without a certificate.
        failed: usize,
        /// Nodes with more than one certificate.
        doubled: usize,
    },
    /// The folder for console logs (`--log` with `--lines`) cannot be made.
    LogFolder {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `inject` failed for some nodes.
    Injected {
        /// Nodes that failed.
        failed: usize,
        /// All nodes.
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
            CliError::QemuStandardOutput => write!(
                f,
                "--as qemu writes the payload to a file and prints an argument that names the file, because every user of \
                 this machine can read QEMU's arguments; give -o FILE"
            ),
            CliError::QemuNoFile(path) => {
                write!(f, "{} is no file, and QEMU reads the payload from one; give -o FILE", path.display())
            }
            CliError::QemuName(path) => write!(
                f,
                "{} has characters that cannot be copied from a terminal into QEMU's arguments; give -o another name",
                path.display()
            ),
            CliError::Output(_) => write!(f, "writing to standard output"),
            CliError::Iso(error) => error.fmt(f),
            CliError::Vfat(error) => error.fmt(f),
            CliError::Gpt(error) => error.fmt(f),
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
            | CliError::QemuStandardOutput
            | CliError::QemuNoFile(_)
            | CliError::QemuName(_)
            | CliError::Gpt(_)
            | CliError::Iso(_)
            | CliError::Vfat(_)
            | CliError::Cpio(_)
            | CliError::Lines(_)
            | CliError::Stormed { .. }
            | CliError::Injected { .. } => None,
        }
    }
}
