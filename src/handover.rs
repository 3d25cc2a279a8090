//! Hands key, certificate and network over to whatever boots next, in one folder (docs/status.md). A folder with
//! `ready` in it is complete; after a failure it has neither key nor certificate. Talks to nobody.

pub mod memory;
pub mod network;
mod generation;

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apply::file;
use crate::checkin::Issued;
use crate::identity::PrivateKeyPem;
use crate::payload::CaCertificate;
use crate::pem;
use crate::secret::Secret;
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

/// For how long a certificate and key stay once others have taken their places.
const GRACE: Duration = Duration::from_millis(200);

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
        Certificates::of(issued.chain(), ca)
    }

    /// Of a chain that was verified, leaf first.
    pub fn of(chain: &'a [Vec<u8>], ca: &'a CaCertificate) -> Certificates<'a> {
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        Certificates { leaf, intermediates: chain.get(1..).unwrap_or_default(), ca: ca.der() }
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
    /// What an earlier run handed over cannot be read.
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What an earlier run handed over is not what it left there.
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate came with the payload, or from a version that did not write down where it came from.
    NotRenewable(PathBuf),
    /// Somebody else is renewing.
    Busy(PathBuf),
}

/// What an earlier run handed over.
#[derive(Debug)]
pub struct HandedOver {
    /// node.json
    pub node: Node,
    /// The leaf and every certificate between it and the trust anchor, DER; never empty.
    pub chain: Vec<Vec<u8>>,
    /// The trust anchor.
    pub ca: CaCertificate,
    /// PKCS#8, DER.
    pub key: Secret,
}

/// Everything is in place but `status.json` and `ready`.
#[must_use = "nothing has been handed over before finish()"]
pub struct Pending {
    directory: PathBuf,
}

/// Writes everything that the next stage may use, the private key last. That is gone afterwards, whatever
/// happens; after an error so are the files.
pub fn write(
    directory: &Path,
    private: Private,
    key: impl Into<PrivateKeyPem>,
    certificates: &Certificates<'_>,
    node: &Node,
) -> Result<Pending, HandoverError> {
    let written = write_all(directory, private, &key.into(), certificates, node);
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

/// Reads what an earlier run handed over.
pub fn read(directory: &Path) -> Result<HandedOver, HandoverError> {
    let text = |name: &str| {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, zeroize::Zeroizing::new(text))),
            Err(source) => Err(HandoverError::Read { path, source }),
        }
    };
    let blocks = |name: &str, label: &str| {
        let (path, text) = text(name)?;
        match pem::decode(label, &text) {
            Some(blocks) if !blocks.is_empty() => Ok((path, blocks)),
            _ => Err(HandoverError::Damaged { path, why: format!("no {label} in PEM") }),
        }
    };
    let (path, json) = text(NODE)?;
    let node = serde_json::from_str(&json).map_err(|error| HandoverError::Damaged { path, why: error.to_string() })?;
    let (_, chain) = blocks(CHAIN, "CERTIFICATE")?;
    let (path, mut cas) = blocks(CA, "CERTIFICATE")?;
    let ca = CaCertificate::new(cas.remove(0).to_vec())
        .map_err(|error| HandoverError::Damaged { path, why: error.to_string() })?;
    let (_, mut keys) = blocks(&format!("{PRIVATE}/{KEY}"), "PRIVATE KEY")?;
    let key = Secret::new(std::mem::take(&mut *keys.remove(0)));
    Ok(HandedOver { node, chain: chain.iter().map(|der| der.to_vec()).collect(), ca, key })
}

/// Nobody else renews what is in this folder while this is there.
#[must_use]
pub struct Lock {
    _folder: nix::fcntl::Flock<fs::File>,
}

/// Takes the lock of a folder, or says that somebody else has it.
pub fn lock(directory: &Path) -> Result<Lock, HandoverError> {
    let path = || directory.to_owned();
    let folder = fs::File::open(directory).map_err(|source| HandoverError::Read { path: path(), source })?;
    match nix::fcntl::Flock::lock(folder, nix::fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(folder) => Ok(Lock { _folder: folder }),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(HandoverError::Busy(path())),
        Err((_, errno)) => Err(HandoverError::Read { path: path(), source: errno.into() }),
    }
}

/// Puts a renewed certificate in the place of the one before, key and all, in one step: whoever looks sees either the
/// old files or the new ones, at any moment and after any crash. `ready` is written anew, last, for those who watch it.
pub fn replace(
    directory: &Path,
    _: &Lock,
    key: impl Into<PrivateKeyPem>,
    certificates: &Certificates<'_>,
    node: &Node,
) -> Result<(), HandoverError> {
    let (cert, chain) = pems(certificates);
    let (node, key) = (json(node)?, key.into());
    let files = [(CERT, cert.as_bytes()), (CHAIN, chain.as_bytes()), (NODE, node.as_slice())];
    generation::replace(directory, &files, key.expose().as_bytes(), GRACE)?;
    put(directory, READY, b"", 0o644)
}

/// cert.pem and chain.pem.
fn pems(certificates: &Certificates<'_>) -> (String, String) {
    let leaf = pem::encode("CERTIFICATE", certificates.leaf).to_string();
    // What TLS sends (RFC 8446 §4.4.2): the leaf, its issuer and so on, without the trust anchor.
    let mut chain = leaf.clone();
    for certificate in certificates.intermediates.iter().filter(|certificate| *certificate != certificates.ca) {
        chain.push_str(&pem::encode("CERTIFICATE", certificate));
    }
    (leaf, chain)
}

fn write_all(
    directory: &Path,
    private: Private,
    key: &PrivateKeyPem,
    certificates: &Certificates<'_>,
    node: &Node,
) -> Result<(), HandoverError> {
    folder(directory)?;
    // From here to the end the folder is not complete.
    remove(&directory.join(READY))?;
    let secret = private_folder(directory, private)?;
    generation::remove_all(directory)?;
    let (leaf, chain) = pems(certificates);
    put(directory, CA, pem::encode("CERTIFICATE", certificates.ca).as_bytes(), 0o644)?;
    put(directory, CHAIN, chain.as_bytes(), 0o644)?;
    put(directory, CERT, leaf.as_bytes(), 0o644)?;
    put(directory, NODE, &json(node)?, 0o644)?;
    put(&secret, KEY, key.expose().as_bytes(), 0o600)
}

/// Removes whatever says or shows that there is an identity. All of it is tried; the first error is returned.
fn discard(directory: &Path) -> Result<(), HandoverError> {
    let key = directory.join(PRIVATE).join(KEY);
    let others = [READY, CERT, CHAIN, NODE].map(|name| directory.join(name));
    let mut removed: Vec<_> = std::iter::once(key).chain(others).map(|path| remove(&path)).collect();
    removed.push(generation::remove_all(directory));
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
            HandoverError::Read { path, source } => {
                write!(f, "reading {}", path.display())?;
                match source.kind() {
                    io::ErrorKind::NotFound => f.write_str(", which imprint run or enroll leaves there"),
                    io::ErrorKind::PermissionDenied => f.write_str(", which only its owner may; run it as root"),
                    _ => Ok(()),
                }
            }
            HandoverError::Damaged { path, why } => {
                write!(f, "{} is not what imprint left there ({why}); enrol with a new payload", path.display())
            }
            HandoverError::NotRenewable(path) => write!(
                f,
                "{} names no EST server, so there is nobody to ask for a renewal; make a new payload",
                path.display()
            ),
            HandoverError::Busy(path) => {
                write!(f, "somebody else renews what is in {} right now; wait for that", path.display())
            }
        }
    }
}

impl std::error::Error for HandoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HandoverError::Write { source, .. }
            | HandoverError::Mount { source, .. }
            | HandoverError::Read { source, .. } => Some(source),
            HandoverError::Json(source) => Some(source),
            HandoverError::NotOurs { .. }
            | HandoverError::Damaged { .. }
            | HandoverError::NotRenewable(_)
            | HandoverError::Busy(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
