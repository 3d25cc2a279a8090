//! Why the CA cannot be made, opened or used, in words.

use std::fmt;
use std::io;
use std::path::PathBuf;

use imprint::payload::CaError;
use imprint::time::Timestamp;

use crate::users;
use crate::x509::X509Error;

/// Why the CA cannot be made, opened or used.
#[derive(Debug)]
pub enum StateError {
    /// `init` and `backup` overwrite nothing.
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// A file or directory.
    Io {
        /// What was done with it.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This user may not.
    Denied {
        /// What was to be done.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What is there of it, and who has that.
        holder: Option<(PathBuf, u32)>,
    },
    /// There is no CA here.
    Absent(PathBuf),
    /// A file that should hold a certificate or key does not.
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The root is no trust anchor.
    Root(CaError),
    /// The root's key is not there.
    RootKey(PathBuf),
    /// A key that is not the root's.
    NotTheRoot(PathBuf),
    /// Outside the validity of the intermediate.
    Intermediate {
        /// First second of its validity.
        not_before: Timestamp,
        /// Last second of its validity.
        not_after: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// Making a certificate.
    X509(X509Error),
    /// Making a key.
    Key(rcgen::Error),
}

impl From<X509Error> for StateError {
    fn from(error: X509Error) -> StateError {
        StateError::X509(error)
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::NotEmpty { dir, found } => {
                write!(f, "{} holds {found}; nothing is overwritten, give an empty directory", dir.display())
            }
            StateError::Io { action, path, .. } => write!(f, "{action} {}", path.display()),
            StateError::Denied { action, path, holder: None } => {
                write!(f, "{action} {}: permission denied; run the command as root", path.display())
            }
            StateError::Denied { action, path, holder: Some((holder, uid)) } => {
                write!(f, "{action} {}: permission denied; ", path.display())?;
                if holder != path {
                    write!(f, "{} ", holder.display())?;
                }
                write!(f, "belongs to {}: run the command as root", users::described(*uid))?;
                match users::name(*uid).filter(|_| *uid != 0) {
                    Some(name) => write!(f, ", or as that user (sudo -u {name} imprint-host …)"),
                    None => Ok(()),
                }
            }
            StateError::Absent(dir) => {
                write!(f, "no CA in {}; make one with imprint-host init, or give its --dir", dir.display())
            }
            StateError::File { path, why } => write!(f, "{}: {why}; restore it from a backup", path.display()),
            StateError::Root(_) => write!(f, "root.pem is no trust anchor"),
            StateError::RootKey(path) => write!(
                f,
                "the root's key is not at {}; bring it back for this one command, or say where it is with --root-key",
                path.display()
            ),
            StateError::NotTheRoot(path) => write!(f, "{} is not the key of root.pem", path.display()),
            StateError::Intermediate { not_before, not_after, now } => {
                write!(
                    f,
                    "intermediate CA is valid from {not_before} to {not_after}, clock is {now}; set the clock, or make \
                     another one with imprint-host ca rotate"
                )
            }
            StateError::X509(_) => write!(f, "making a certificate"),
            StateError::Key(_) => write!(f, "making a key"),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StateError::Io { source, .. } => Some(source),
            StateError::Root(error) => Some(error),
            StateError::X509(error) => Some(error),
            StateError::Key(error) => Some(error),
            _ => None,
        }
    }
}
