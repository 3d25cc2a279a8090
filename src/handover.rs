//! Hands key and certificates over to the next boot stage, in one folder (docs/status.md), the network configuration in the
//! folders of the network managers ([`network`]), the CA alone as a credential ([`credential`]), the bundle for the real root
//! ([`staged`]), and units for its systemd ([`units`]). A folder with `ready` in it is complete. A new identity replaces an old
//! one in one step or not at all; a failure in a folder without an identity leaves none. Never uses the network.

pub mod crash;
pub mod credential;
pub mod memory;
pub mod network;
pub mod reload;
pub mod staged;
pub mod units;
mod folder;
mod generation;

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use folder::Folder;

use crate::apply::file;
use crate::checkin::Issued;
use crate::identity::PrivateKeyPem;
use crate::payload::CaCertificate;
use crate::pem;
use crate::secret::Secret;
use crate::status::{Node, Outcome, Status};
use crate::swap::SwapError;

/// Names in the hand-over folder.
const STATUS: &str = "status.json";
const NODE: &str = "node.json";
const CERT: &str = "cert.pem";
const CHAIN: &str = "chain.pem";
const CA: &str = "ca.pem";
const READY: &str = "ready";
const PRIVATE: &str = "private";
const KEY: &str = "key.pem";

/// How long the previous certificate and key stay after new ones have replaced them.
const GRACE: Duration = Duration::from_millis(200);

/// Where the private key is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Private {
    /// On a memory file system of its own that is never swapped out: the boot uses this.
    Mount,
    /// In a plain folder that the operator chose: `imprint enroll --out`. A mount there would hide the key from other
    /// mount namespaces, and would need privilege, which `enroll` does not need.
    Directory,
}

/// The issued certificates and the trust anchor that they chain to, in DER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Certificates<'a> {
    /// The node's certificate.
    pub leaf: &'a [u8],
    /// The certificates between the leaf and the trust anchor, the leaf's issuer first.
    pub intermediates: &'a [Vec<u8>],
    /// The payload's trust anchor.
    pub ca: &'a [u8],
}

impl<'a> Certificates<'a> {
    /// The certificates of a verified answer.
    pub fn new(issued: &'a Issued, ca: &'a CaCertificate) -> Certificates<'a> {
        Certificates::of(issued.chain(), ca)
    }

    /// The certificates of a verified chain, leaf first.
    pub fn of(chain: &'a [Vec<u8>], ca: &'a CaCertificate) -> Certificates<'a> {
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        Certificates { leaf, intermediates: chain.get(1..).unwrap_or_default(), ca: ca.der() }
    }
}

/// The reasons that a hand-over fails, or that its files cannot be used.
#[derive(Debug)]
pub enum HandoverError {
    /// A file or folder cannot be written.
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The memory file system for the key cannot be mounted.
    Mount {
        /// The mount point.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Something that imprint did not make is in the way.
    NotOurs {
        /// The path.
        path: PathBuf,
        /// What is at the path.
        what: &'static str,
    },
    /// JSON cannot be written.
    Json(serde_json::Error),
    /// A file of an earlier run cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file of an earlier run was damaged or replaced.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        why: String,
    },
    /// This node.json names no EST server: the certificate came with the payload, or from a version that did not record
    /// where it came from.
    NotRenewable(PathBuf),
    /// Another process holds the lock of the folder.
    Busy {
        /// The folder.
        path: PathBuf,
        /// The process ID of the lock holder, where the kernel tells it.
        holder: Option<u32>,
    },
    /// Swap space for the next stage.
    Swap(SwapError),
    /// Services were not told of a renewal.
    Reload(reload::ReloadError),
}

/// The files that an earlier run handed over.
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

/// A new identity that is written but not yet in place; only `status.json` is missing.
#[must_use = "nothing has been handed over before finish()"]
pub struct Pending {
    directory: PathBuf,
    beside: generation::Beside,
    /// The root below which the CA was left for services.
    left: Option<PathBuf>,
}

/// Writes a new identity beside the one in place, which stays in use whatever happens.
pub fn write(
    folder: &Folder,
    private: Private,
    key: impl Into<PrivateKeyPem>,
    certificates: &Certificates<'_>,
    node: &Node,
) -> Result<Pending, HandoverError> {
    let directory = folder.path().to_owned();
    private_folder(&directory, private)?;
    let beside = beside(&directory, &key.into(), certificates, node)?;
    Ok(Pending { directory, beside, left: None })
}

impl Pending {
    /// Leaves the trust anchor, DER, for services of the real root. If the run hands nothing over in the end, the trust anchor
    /// is removed again.
    pub fn leave_ca(&mut self, root: &Path, ca: &[u8]) -> Result<credential::Left, HandoverError> {
        let left = credential::leave(root, pem::encode("CERTIFICATE", ca).as_bytes())?;
        self.left = (left == credential::Left::Ours).then(|| root.to_owned());
        Ok(left)
    }

    /// Writes the status, puts the new identity in place in one step, and then writes `ready`. After an error the
    /// folder holds a whole identity, the previous or the new one; or none, if it held none before.
    pub fn finish(self, status: &Status) -> Result<(), HandoverError> {
        let Pending { directory, beside, left } = self;
        let done = match json(status).and_then(|status| beside.add(&directory, STATUS, &status)) {
            Ok(()) => beside.switch(&directory, GRACE),
            Err(error) => Err(beside.removed(&directory, error)),
        };
        if let (Err(_), Some(root)) = (&done, left) {
            let _ = credential::take_back(&root); // the first error is the one to report
        }
        done
    }
}

/// Replaces the status of a complete hand-over, for what a run does after it.
pub fn restate(directory: &Path, status: &Status) -> Result<(), HandoverError> {
    put(&directory.join(generation::CURRENT), STATUS, &json(status)?, 0o644)
}

/// Whether a run has completed its hand-over in this folder.
pub fn is_complete(directory: &Path) -> bool {
    directory.join(READY).exists()
}

/// Whether the folder holds an identity that a service may be using: a complete one, or at least a certificate or a
/// key.
fn holds_identity(directory: &Path) -> bool {
    is_complete(directory) || directory.join(CERT).exists() || directory.join(PRIVATE).join(KEY).exists()
}

/// Writes the status of a run that hands nothing over. If the folder holds an identity, its status stays: a status
/// `failed` beside credentials that work would be wrong.
pub fn fail(directory: &Path, status: &Status) -> Result<(), HandoverError> {
    debug_assert!(status.outcome != Outcome::Done);
    folder::make(directory)?;
    if holds_identity(directory) {
        return Ok(());
    }
    discard(directory)?;
    put(directory, STATUS, &json(status)?, 0o644)
}

/// Reads the files that an earlier run handed over.
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

/// Replaces certificate and key by renewed ones in one step: a reader finds either all old files or all new ones, at
/// any moment and after any crash. `status.json` keeps its contents. `ready` is written again, so that programs that
/// watch it notice the renewal.
pub fn replace(
    folder: &Folder,
    key: impl Into<PrivateKeyPem>,
    certificates: &Certificates<'_>,
    node: &Node,
) -> Result<(), HandoverError> {
    let directory = folder.path();
    let beside = beside(directory, &key.into(), certificates, node)?;
    let kept = match fs::read(directory.join(STATUS)) {
        Ok(status) => beside.add(directory, STATUS, &status),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(HandoverError::Read { path: directory.join(STATUS), source }),
    };
    match kept {
        Ok(()) => beside.switch(directory, GRACE),
        Err(error) => Err(beside.removed(directory, error)),
    }
}

fn beside(
    directory: &Path,
    key: &PrivateKeyPem,
    certificates: &Certificates<'_>,
    node: &Node,
) -> Result<generation::Beside, HandoverError> {
    let (cert, chain) = pems(certificates);
    let (ca, node) = (pem::encode("CERTIFICATE", certificates.ca), json(node)?);
    let files = [(CERT, cert.as_bytes()), (CHAIN, chain.as_bytes()), (CA, ca.as_bytes()), (NODE, node.as_slice())];
    generation::write(directory, &files, key.expose().as_bytes())
}

/// The contents of cert.pem and chain.pem.
fn pems(certificates: &Certificates<'_>) -> (String, String) {
    let leaf = pem::encode("CERTIFICATE", certificates.leaf).to_string();
    // The chain as TLS sends it (RFC 8446 §4.4.2): the leaf, its issuer and so on, without the trust anchor.
    let mut chain = leaf.clone();
    for certificate in certificates.intermediates.iter().filter(|certificate| *certificate != certificates.ca) {
        chain.push_str(&pem::encode("CERTIFICATE", certificate));
    }
    (leaf, chain)
}

/// Removes `ready` and every file of an identity that imprint wrote.
fn discard(directory: &Path) -> Result<(), HandoverError> {
    let removed = remove(&directory.join(READY));
    removed.and(staged::discard(directory)).and(generation::remove_all(directory))
}

/// JSON with one line for each item, so that people can read it, too.
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
        // ENOTDIR: a part of the path is a file, so there is nothing to remove.
        Err(source) if source.kind() != io::ErrorKind::NotADirectory => {
            Err(HandoverError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Refuses a private folder that is a symbolic link, or that belongs to another user, who could let others read it.
fn private_is_ours(directory: &Path) -> Result<(), HandoverError> {
    let path = directory.join(PRIVATE);
    let metadata = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(|source| HandoverError::Write { path: path.clone(), source })?,
    };
    if !metadata.is_dir() {
        return Err(HandoverError::NotOurs { path, what: "not a folder" });
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(HandoverError::NotOurs { path, what: "another user's folder" });
    }
    Ok(())
}

/// Makes the private folder, which only its owner may read.
fn private_folder(directory: &Path, private: Private) -> Result<(), HandoverError> {
    let path = directory.join(PRIVATE);
    let failed = |source| HandoverError::Write { path: path.clone(), source };
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    private_is_ours(directory)?;
    if private == Private::Mount {
        memory::mount(&path, memory::TMPFS_OPTIONS)?;
    }
    fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(failed)
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandoverError::Write { path, .. } => write!(f, "writing {}", path.display()),
            HandoverError::Mount { path, source } => {
                write!(f, "mounting a memory file system on {}", path.display())?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str(", which needs CAP_SYS_ADMIN; run imprint as root"),
                    _ => Ok(()),
                }
            }
            HandoverError::NotOurs { path, what } => {
                write!(f, "{} is {what}; remove it, or name another folder", path.display())
            }
            HandoverError::Json(_) => f.write_str("writing JSON"),
            HandoverError::Read { path, source } => {
                write!(f, "reading {}", path.display())?;
                match source.kind() {
                    io::ErrorKind::NotFound => f.write_str(
                        ", which imprint run or imprint enroll writes; run one of them first, or name their folder",
                    ),
                    io::ErrorKind::PermissionDenied => {
                        f.write_str(", which only its owner can read; run imprint as root")
                    }
                    _ => Ok(()),
                }
            }
            HandoverError::Damaged { path, why } => {
                write!(
                    f,
                    "{} was changed or damaged since imprint wrote it ({why}); enrol with a new payload",
                    path.display()
                )
            }
            HandoverError::NotRenewable(path) => write!(
                f,
                "{} names no EST server, so this certificate cannot be renewed; make a new payload",
                path.display()
            ),
            HandoverError::Busy { path, holder } => {
                write!(f, "another imprint is at work in {}", path.display())?;
                if let Some(process) = holder {
                    write!(f, " (process {process})")?;
                }
                f.write_str("; wait until it has ended, or end it, and try again")
            }
            HandoverError::Swap(_) => f.write_str("swap space"),
            HandoverError::Reload(error) => error.fmt(f),
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
            HandoverError::Swap(source) => Some(source),
            HandoverError::Reload(error) => error.source(),
            HandoverError::NotOurs { .. }
            | HandoverError::Damaged { .. }
            | HandoverError::NotRenewable(_)
            | HandoverError::Busy { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
