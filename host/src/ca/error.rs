//! Errors of the CA and its files, with their messages and remedies. Does no I/O but look up a user's name.

use std::io;
use std::path::{Path, PathBuf};

use imprint::payload::CaError;
use imprint::payload::signed::Kid;
use imprint::time::Timestamp;

use crate::users;
use crate::x509::X509Error;

/// Why the CA cannot be made, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// `init` and `backup` overwrite nothing.
    #[error("{} holds {found}; nothing is overwritten, give an empty directory", .dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// The system refused an operation on a file or directory.
    #[error("{action} {}", .path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Permission denied.
    #[error("{action} {}: permission denied; {}", .path.display(), remedy(.path, .holder.as_ref()))]
    Denied {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The nearest part of the path that exists, and the user ID of its owner.
        holder: Option<(PathBuf, u32)>,
    },
    /// There is no CA here.
    #[error("no CA in {}; make one with imprint-host init, or give its --dir", .0.display())]
    Absent(PathBuf),
    /// A file that should hold a certificate or key does not.
    #[error("{}: {why}; restore it from a backup", .path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// `root.pem` is not a valid trust anchor.
    #[error("root.pem is not a valid trust anchor; restore it from a backup")]
    Root(#[source] CaError),
    /// The root's key is not there.
    #[error(
        "the root's key is not at {}; bring it back for this one command, or say where it is with --root-key",
        .0.display()
    )]
    RootKey(PathBuf),
    /// A key that is not the root's.
    #[error("{} is not the key of root.pem", .0.display())]
    NotTheRoot(PathBuf),
    /// The clock is outside the validity of the intermediate.
    #[error(
        "intermediate CA is valid from {not_before} to {not_after}, clock is {now}; set the clock, or make another \
         one with imprint-host ca rotate"
    )]
    Intermediate {
        /// First second of its validity.
        not_before: Timestamp,
        /// Last second of its validity.
        not_after: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// A certificate cannot be made.
    #[error("making a certificate")]
    X509(#[from] X509Error),
    /// A key cannot be made.
    #[error("making a key")]
    Key(#[source] rcgen::Error),
    /// A file that should hold the key of a signer.
    #[error("{} is not the key of a signer; give one private key on P-256 or Ed25519, in PEM (PKCS#8)", .0.display())]
    SigningKey(PathBuf),
    /// The same, and openssl makes one of it.
    #[error("{} holds {}; convert it: openssl pkcs8 -topk8 -nocrypt -in {} -out NEW", .0.display(), .1, .0.display())]
    SigningKeyForm(PathBuf, &'static str),
    /// The crypto library did not sign.
    #[error("signing a payload")]
    Sign,
    /// No key signs payloads.
    #[error("no signer in {}; make one with imprint-host signer new", .0.display())]
    NoSigner(PathBuf),
    /// There is a signer, and another one was to be made.
    #[error("signer {0} signs already; to replace it, run imprint-host signer rotate")]
    SignerThere(Kid),
    /// Another signer is announced.
    #[error(
        "signer {0} is announced already; run imprint-host signer rotate to sign with it, or imprint-host signer retire {0} to drop it"
    )]
    SignerAnnounced(Kid),
    /// There is no such signer.
    #[error("there is no signer {0}; run imprint-host signer to list the signers")]
    UnknownSigner(String),
    /// The signer that signs cannot be retired.
    #[error("signer {0} signs the payloads now; run imprint-host signer rotate first, to replace it")]
    SignerSigns(Kid),
}

/// Says which user can run the command.
fn remedy(path: &Path, holder: Option<&(PathBuf, u32)>) -> String {
    let Some((holder, uid)) = holder else { return "run the command as root".to_owned() };
    let whose = if holder == path { String::new() } else { format!("{} ", holder.display()) };
    let words = format!("{whose}belongs to {}: run the command as root", users::described(*uid));
    match users::name(*uid).filter(|_| *uid != 0) {
        Some(name) => format!("{words}, or as that user (sudo -u {name} imprint-host …)"),
        None => words,
    }
}
