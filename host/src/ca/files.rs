//! Reads and writes the CA's files. A file appears whole or not at all, with its mode before its first byte. Interprets no
//! certificate.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use imprint::pem;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access, geteuid};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::StateError;

pub(super) fn refuse_used(dir: &Path) -> Result<(), StateError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("reading directory", dir)(error)),
    };
    for entry in entries {
        let found = entry.map_err(io_error("reading directory", dir))?.file_name();
        // The top directory of an ext file system has lost+found from the start.
        if found != "lost+found" {
            return Err(StateError::NotEmpty { dir: dir.to_owned(), found: found.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

/// The lock of a state directory, held while the CA's files are changed or copied. The kernel releases it when the process
/// ends.
pub(crate) type Held = Flock<File>;

/// Called with the directory before a wait for its lock begins. The wait may be long.
pub(crate) type Waits<'a> = &'a mut dyn FnMut(&Path);

/// Waits for the lock of this directory. The directory itself is locked: a lock file would need an owner.
pub(super) fn hold(dir: &Path, waits: Waits<'_>) -> Result<Held, StateError> {
    let failed = |errno: Errno| io_error("locking directory", dir)(errno.into());
    let folder = File::open(dir).map_err(io_error("opening directory", dir))?;
    match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(held),
        Err((folder, Errno::EWOULDBLOCK)) => {
            waits(dir);
            Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno))
        }
        Err((_, errno)) => Err(failed(errno)),
    }
}

pub(super) fn read_certificate(path: &Path) -> Result<Vec<u8>, StateError> {
    let text = fs::read(path).map_err(io_error("reading", path))?;
    match CertificateDer::from_pem_slice(&text) {
        Ok(certificate) => Ok(certificate.to_vec()),
        Err(error) => Err(StateError::File { path: path.to_owned(), why: error.to_string() }),
    }
}

pub(super) fn write_key(path: &Path, key: &KeyPair) -> Result<(), StateError> {
    let der = Zeroizing::new(key.serialize_der());
    write(path, 0o600, pem::encode("PRIVATE KEY", &der).as_bytes())
}

pub(super) fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), StateError> {
    let file = NewFile::create(path, mode)?;
    owned_like_its_folder(&file.new)?;
    file.finish(bytes)
}

/// Gives a file that root made to the owner of the state directory: `serve` runs as that user.
fn owned_like_its_folder(path: &Path) -> Result<(), StateError> {
    given_away(path).map_err(io_error("giving away", path))
}

/// As [`owned_like_its_folder`], with a plain I/O error. Call it before SQLite makes files beside this one: SQLite copies
/// the owner.
pub(crate) fn given_away(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|_| geteuid().is_root()) else { return Ok(()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let owner = fs::metadata(folder)?;
    std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))
}

/// A file of the CA's own folder that appears whole or not at all: made beside its place, then renamed. It has its mode
/// before its first byte.
struct NewFile {
    file: File,
    new: PathBuf,
    path: PathBuf,
}

impl NewFile {
    fn create(path: &Path, mode: u32) -> Result<NewFile, StateError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("replacing", &new)(error)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new);
        Ok(NewFile { file: file.map_err(io_error("making", &new))?, new, path: path.to_owned() })
    }

    /// Writes the bytes, then renames the file to its path.
    fn finish(mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.file.write_all(bytes).and_then(|()| self.file.sync_all()).map_err(io_error("writing", &self.new))?;
        fs::rename(&self.new, &self.path).map_err(io_error("writing", &self.path))?;
        // A rename is durable only after an fsync of the directory.
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_error("writing", parent))
    }
}

/// A file that was not finished leaves nothing behind.
impl Drop for NewFile {
    fn drop(&mut self) {
        // After a rename no file has this name, and the error is ignored.
        let _ = fs::remove_file(&self.new);
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => StateError::Denied { action, holder: holder(&path), path },
        _ => StateError::Io { action, path, source },
    }
}

/// The nearest part of the path that exists and can be seen, with its owner's user ID.
fn holder(path: &Path) -> Option<(PathBuf, u32)> {
    path.ancestors().find_map(|part| Some((part.to_owned(), fs::metadata(part).ok()?.uid())))
}

/// An error if this user may not read and write a database file. SQLite itself would only say that it cannot open the file.
/// Uses access(2) and does not open the file: closing it would release this process's locks on it (fcntl(2), F_SETLK).
pub(crate) fn may_change(path: &Path) -> Result<(), StateError> {
    match access(path, AccessFlags::R_OK | AccessFlags::W_OK) {
        Err(Errno::EACCES) => Err(io_error("opening", path)(io::ErrorKind::PermissionDenied.into())),
        _ => Ok(()),
    }
}

pub(super) fn read_key(path: &Path) -> Result<Zeroizing<KeyPair>, StateError> {
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(io_error("reading", path))?;
    let key = KeyPair::from_pem(&text).map(Zeroizing::new);
    key.map_err(|error| StateError::File { path: path.to_owned(), why: error.to_string() })
}

/// Makes a directory if there is none, and sets its mode to 0700.
pub(super) fn private_directory(path: &Path) -> Result<(), StateError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(io_error("making directory", path))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(path, mode).map_err(io_error("restricting", path))
}

/// As [`private_directory`], for a folder inside the state directory: it gets the owner of that directory.
pub(super) fn private_folder(path: &Path) -> Result<(), StateError> {
    private_directory(path)?;
    owned_like_its_folder(path)
}
