//! Why a command failed: the errors of all commands and their messages. Prints nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::bundles::BundleError;
use crate::image::ImageError;
use crate::load::LoadError;
use crate::output::OutputError;
use crate::record::RecordError;
use crate::serve::{ServeError, WebhookError};
use crate::{cpio, enrol, gpt, iso, state, vfat};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The state directory, the CA, the store or a record.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A file that the command was given cannot be read.
    #[error("reading {}", Path::display(.path))]
    Read {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The output file or drive (`-o`) cannot be written.
    #[error(transparent)]
    Write(OutputError),
    /// A secret binary payload would go to a terminal.
    #[error("a payload is binary and secret, not for a terminal; give -o FILE")]
    Terminal,
    /// `--as userpass` with `--credentials`: such a payload has no token.
    #[error("a payload with --credentials has no token; leave that out with --as userpass")]
    NoToken,
    /// `--as qemu` without `-o`.
    #[error(
        "--as qemu writes the payload to a file and prints an argument that names the file, because every user of this \
         machine can read QEMU's arguments; give -o FILE"
    )]
    QemuStandardOutput,
    /// `--as qemu`, and `-o` names a device, a FIFO or a drive.
    #[error("{} is not a file, and QEMU reads the payload from one; give -o FILE", .0.display())]
    QemuNoFile(PathBuf),
    /// `--as qemu`, and the name of `-o` cannot stand in an argument that somebody copies.
    #[error(
        "{} has characters that cannot be copied from a terminal into QEMU's arguments; give -o another name",
        .0.display()
    )]
    QemuName(PathBuf),
    /// Standard output cannot be written.
    #[error("writing to standard output")]
    Output(#[source] io::Error),
    /// The payload does not fit into an ISO image.
    #[error(transparent)]
    Iso(iso::TooLong),
    /// The payload does not fit into a FAT image.
    #[error(transparent)]
    Vfat(vfat::TooLong),
    /// The payload does not fit into a partition.
    #[error(transparent)]
    Gpt(gpt::TooLong),
    /// The payload does not fit into a cpio archive.
    #[error(transparent)]
    Cpio(cpio::TooLong),
    /// The server, or the runtime of `serve` or `inject`, cannot start.
    #[error(transparent)]
    Serve(ServeError),
    /// `approve` or `deny` found no such request, or could not store the decision.
    #[error(transparent)]
    Decide(enrol::Decided),
    /// `admit` decided nothing.
    #[error(transparent)]
    Admit(Box<state::AdmitError>),
    /// An admission key was not made, taken or forgotten.
    #[error(transparent)]
    Key(state::KeyError),
    /// The file of `key add` holds no public key.
    #[error("admission key {}", Path::display(.path))]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: state::KeyError,
    },
    /// A medium for an admission key, without a place to write it to.
    #[error("this form of a key is binary and secret; give -o FILE, or the drive of the stick")]
    KeyToFile,
    /// `revoke` found no such certificate, or could not store the revocation.
    #[error(transparent)]
    Revoke(enrol::RevokeError),
    /// A decision about a bundle failed.
    #[error(transparent)]
    Bundle(Box<BundleError>),
    /// `--webhook` cannot be used.
    #[error(transparent)]
    Webhook(WebhookError),
    /// The file with the network of an image is invalid.
    #[error(transparent)]
    Network(RecordError),
    /// An image was not made.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// The file of `--lines` is invalid.
    #[error(transparent)]
    Lines(RecordError),
    /// A storm did not start.
    #[error(transparent)]
    Load(Box<LoadError>),
    /// After a storm some nodes have no certificate, or more than one.
    #[error("{failed} nodes have no certificate, or are not available; {doubled} have two")]
    Stormed {
        /// Nodes without a certificate.
        failed: usize,
        /// Nodes with more than one certificate.
        doubled: usize,
    },
    /// The folder for console logs (`--log` with `--lines`) cannot be made.
    #[error("making {}; with --lines --log is a folder", Path::display(.path))]
    LogFolder {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `inject` failed for some nodes.
    #[error("{failed} of {of} nodes failed; see above")]
    Injected {
        /// Nodes that failed.
        failed: usize,
        /// All nodes.
        of: usize,
    },
}

impl From<BundleError> for CliError {
    fn from(error: BundleError) -> CliError {
        CliError::Bundle(Box::new(error))
    }
}
