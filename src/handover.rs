//! Hands key, certificate and network over to whatever boots next, in one folder (docs/status.md). A folder with
//! `ready` in it is complete; after a failure it has neither key nor certificate. Talks to nobody.

pub mod memory;

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::apply::file;
use crate::checkin::Issued;
use crate::identity::Identity;
use crate::payload::CaCertificate;
use crate::pem;
use crate::status::{Node, Outcome, Status};

/// Names in the folder.
const STATUS: &str = "status.json";
const NODE: &str = "node.json";
const CERT: &str = "cert.pem";
const CHAIN: &str = "chain.pem";
const CA: &str = "ca.pem";
const READY: &str = "ready";
const PRIVATE: &str = "private";
const KEY: &str = "key.pem";

/// Where the private key lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Private {
    /// On a memory file system of its own that is never swapped out: the boot.
    Mount,
    /// In a plain folder, wherever the operator put it: `imprint enroll --out`. Mounting there would hide the key from
    /// other mount namespaces, and `enroll` needs no privilege.
    Directory,
}

/// What was issued, in DER, and the trust anchor that it chains to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Certificates<'a> {
    /// The node's own.
    pub leaf: &'a [u8],
    /// What lies between it and the trust anchor, issuer first.
    pub intermediates: &'a [Vec<u8>],
    /// The payload's trust anchor.
    pub ca: &'a [u8],
}

impl<'a> Certificates<'a> {
    /// Of an answer that was verified.
    pub fn new(issued: &'a Issued, ca: &'a CaCertificate) -> Certificates<'a> {
        let intermediates = issued.chain().get(1..).unwrap_or_default();
        Certificates { leaf: issued.leaf(), intermediates, ca: ca.der() }
    }
}

/// Why nothing was handed over.
#[derive(Debug)]
pub enum HandoverError {
    /// A file or folder cannot be written.
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The memory file system for the key cannot be mounted.
    Mount {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder for the key is somebody else's.
    NotOurs {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// JSON cannot be written.
    Json(serde_json::Error),
}

/// Everything is in place but `status.json` and `ready`.
#[must_use = "nothing has been handed over before finish()"]
pub struct Pending {
    directory: PathBuf,
}

/// Writes everything that the next stage may use, the private key last. The identity is gone afterwards, whatever
/// happens; after an error so are the files.
pub fn write(
    directory: &Path,
    private: Private,
    identity: Identity,
    certificates: &Certificates<'_>,
    node: &Node,
) -> Result<Pending, HandoverError> {
    let written = write_all(directory, private, identity, certificates, node);
    if written.is_err() {
        let _ = discard(directory); // the first error is the one to tell
    }
    written.map(|()| Pending { directory: directory.to_owned() })
}

impl Pending {
    /// Writes the status, and then `ready`.
    pub fn finish(self, status: &Status) -> Result<(), HandoverError> {
        let finished = write_status(&self.directory, status).and_then(|()| put(&self.directory, READY, b"", 0o644));
        if finished.is_err() {
            let _ = discard(&self.directory);
        }
        finished
    }
}

/// Whether a run has handed everything over here.
pub fn is_complete(directory: &Path) -> bool {
    directory.join(READY).exists()
}

/// Writes the status of a run that hands nothing over, and removes what an earlier one did: credentials beside a status
/// that says `failed` would be believed by whoever looks at one of the two.
pub fn fail(directory: &Path, status: &Status) -> Result<(), HandoverError> {
    debug_assert!(status.outcome != Outcome::Done);
    folder(directory)?;
    discard(directory)?;
    write_status(directory, status)
}

fn write_all(
    directory: &Path,
    private: Private,
    identity: Identity,
    certificates: &Certificates<'_>,
    node: &Node,
) -> Result<(), HandoverError> {
    folder(directory)?;
    // From here to the end the folder is not complete.
    remove(&directory.join(READY))?;
    let secret = private_folder(directory, private)?;
    let leaf = pem::encode("CERTIFICATE", certificates.leaf);
    // What TLS sends (RFC 8446 §4.4.2): the leaf, its issuer and so on, without the trust anchor.
    let mut chain = leaf.to_string();
    for certificate in certificates.intermediates.iter().filter(|certificate| *certificate != certificates.ca) {
        chain.push_str(&pem::encode("CERTIFICATE", certificate));
    }
    put(directory, CA, pem::encode("CERTIFICATE", certificates.ca).as_bytes(), 0o644)?;
    put(directory, CHAIN, chain.as_bytes(), 0o644)?;
    put(directory, CERT, leaf.as_bytes(), 0o644)?;
    put(directory, NODE, &json(node)?, 0o644)?;
    put(&secret, KEY, identity.into_private_key_pem().as_bytes(), 0o600)
}

/// Removes whatever says or shows that there is an identity. All of it is tried; the first error is returned.
fn discard(directory: &Path) -> Result<(), HandoverError> {
    let key = directory.join(PRIVATE).join(KEY);
    let others = [READY, CERT, CHAIN, NODE].map(|name| directory.join(name));
    let removed: Vec<_> = std::iter::once(key).chain(others).map(|path| remove(&path)).collect();
    removed.into_iter().collect()
}

fn write_status(directory: &Path, status: &Status) -> Result<(), HandoverError> {
    put(directory, STATUS, &json(status)?, 0o644)
}

/// One line for each item, so that people can read it, too.
fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, HandoverError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(HandoverError::Json)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn put(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), HandoverError> {
    file::replace(directory, name, bytes, mode)
        .map_err(|source| HandoverError::Write { path: directory.join(name), source })
}

fn remove(path: &Path) -> Result<(), HandoverError> {
    match file::remove(path) {
        // Nothing is below a path that leads through a file.
        Err(source) if source.kind() != io::ErrorKind::NotADirectory => {
            Err(HandoverError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes the folder that everybody may read. The mode of one that is there already is its owner's business.
fn folder(directory: &Path) -> Result<(), HandoverError> {
    let failed = |source| HandoverError::Write { path: directory.to_owned(), source };
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(failed)?;
    fs::set_permissions(directory, Permissions::from_mode(0o755)).map_err(failed) // whatever the umask
}

/// Makes the folder that nobody else may read.
fn private_folder(directory: &Path, private: Private) -> Result<PathBuf, HandoverError> {
    let path = directory.join(PRIVATE);
    let failed = |source| HandoverError::Write { path: path.clone(), source };
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // Not through a symbolic link, and not into a folder that somebody else can open to themselves.
    let metadata = fs::symlink_metadata(&path).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(HandoverError::NotOurs { path, what: "not a folder" });
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(HandoverError::NotOurs { path, what: "another user's folder" });
    }
    if private == Private::Mount {
        memory::mount(&path, memory::TMPFS_OPTIONS)?;
    }
    fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(failed)?;
    Ok(path)
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandoverError::Write { path, .. } => write!(f, "writing {}", path.display()),
            HandoverError::Mount { path, source } => {
                write!(f, "mounting a memory file system on {}", path.display())?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str(", which takes CAP_SYS_ADMIN; run it as root"),
                    _ => Ok(()),
                }
            }
            HandoverError::NotOurs { path, what } => {
                write!(f, "{} is {what}; remove it, or name another place", path.display())
            }
            HandoverError::Json(_) => f.write_str("writing JSON"),
        }
    }
}

impl std::error::Error for HandoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HandoverError::Write { source, .. } | HandoverError::Mount { source, .. } => Some(source),
            HandoverError::Json(source) => Some(source),
            HandoverError::NotOurs { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
