//! The reserve: a file of zeros in the state directory. It keeps disk space for the administrator's commands. When the disk
//! is full, `revoke`, `deny`, `approve`, `nodes` and `log` shorten the reserve; `serve` signs nothing until the reserve has
//! its full size again. This module never deletes or shortens any other file.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::statvfs::statvfs;
use rusqlite::ErrorCode;

use crate::ca;

/// Full size of the reserve. A revocation needs about a tenth of a `STEP`.
pub const BYTES: u64 = 1024 * 1024;
const STEP: u64 = BYTES / 4;
/// With fewer free bytes than this the disk counts as full: SQLite's shared memory alone takes half of them.
const NOTHING: u64 = 64 * 1024;

fn file(dir: &Path) -> PathBuf {
    dir.join("reserve")
}

/// No symlinks: root runs these commands, too, and the directory's owner must not make root shorten another file.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}

/// Grows the reserve to its full size, or as far as the disk allows. The error says why the reserve is not at full size.
/// `beyond`: bytes that have to be free besides, also beside a reserve that is whole. Without them, a server that restores the reserve at once would take the
/// space from the command that has just freed it.
pub fn restore(dir: &Path, beyond: u64) -> io::Result<()> {
    let path = file(dir);
    let mut reserve = options().create(true).truncate(false).mode(0o600).open(&path)?;
    let mut len = reserve.metadata()?.len();
    if len == 0 {
        ca::given_away(&path)?;
    }
    if beyond > 0 && free(dir).is_some_and(|free| free < BYTES.saturating_sub(len).saturating_add(beyond)) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    while len < BYTES {
        let more = len.saturating_add(STEP).min(BYTES);
        if let Err(error) = grow(&mut reserve, len, more) {
            reserve.set_len(len)?;
            return Err(error);
        }
        len = more;
    }
    Ok(())
}

/// Allocates blocks of the disk; a longer length alone (a sparse file) would reserve nothing.
fn grow(reserve: &mut File, from: u64, to: u64) -> io::Result<()> {
    let offset = i64::try_from(from).map_err(io::Error::other)?;
    let len = i64::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    match fallocate(&*reserve, FallocateFlags::empty(), offset, len) {
        // This file system has no fallocate(2), like older NFS: write zeros.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            io::Seek::seek(reserve, io::SeekFrom::Start(from))?;
            let zeros = [0; 4096];
            let mut left = usize::try_from(len).map_err(io::Error::other)?;
            while left > 0 {
                let part = zeros.get(..left.min(zeros.len())).unwrap_or_default();
                reserve.write_all(part)?;
                left = left.saturating_sub(part.len());
            }
            reserve.sync_data()
        }
        other => other.map_err(io::Error::from),
    }
}

/// Whether the reserve has its full size.
pub fn is_whole(dir: &Path) -> bool {
    std::fs::metadata(file(dir)).is_ok_and(|found| found.len() >= BYTES)
}

/// Shortens the reserve by one step. False: there was nothing left to give.
pub fn give_up(dir: &Path) -> io::Result<bool> {
    let reserve = match options().open(file(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let len = reserve.metadata()?.len();
    reserve.set_len(len.saturating_sub(STEP))?;
    Ok(len > 0)
}

/// Whether a full disk is the reason for this error.
pub fn is_missing(error: &(dyn Error + 'static), dir: &Path) -> bool {
    let mut reasons = std::iter::successors(Some(error), |error| (**error).source());
    reasons.any(|reason| {
        let io = reason.downcast_ref::<io::Error>().map(io::Error::kind);
        if io.is_some_and(is_no_room) {
            return true;
        }
        match reason.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code) {
            Some(ErrorCode::DiskFull) => true,
            // SQLite reports these two when it cannot create its shared memory or its log.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => is_full(dir),
            _ => false,
        }
    })
}

/// Whether this kind of I/O error means that the disk or the quota is full.
pub fn is_no_room(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn is_full(dir: &Path) -> bool {
    free(dir).is_some_and(|free| free < NOTHING)
}

fn free(dir: &Path) -> Option<u64> {
    statvfs(dir).ok().map(|found| found.blocks_available().saturating_mul(found.fragment_size()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    /// Attack: the directory's owner replaces the reserve by a symlink to a file of root's.
    #[test]
    fn no_other_file_is_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "of somebody else").unwrap();
        std::os::unix::fs::symlink(&other, file(dir.path())).unwrap();
        assert!(give_up(dir.path()).is_err() && restore(dir.path(), 0).is_err());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "of somebody else");
    }

    #[test]
    fn it_is_given_up_in_parts_and_made_whole_again() {
        let restore = |dir: &Path| restore(dir, 0);
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_whole(dir.path()) && !give_up(dir.path()).unwrap());
        restore(dir.path()).unwrap();
        let found = std::fs::metadata(file(dir.path())).unwrap();
        assert_eq!((found.len(), found.permissions().mode() & 0o777), (BYTES, 0o600));
        assert!(found.blocks() * 512 >= BYTES, "blocks, not a hole");
        for _ in 0..4 {
            assert!(is_whole(dir.path()) || std::fs::metadata(file(dir.path())).unwrap().len() > 0);
            assert!(give_up(dir.path()).unwrap());
            assert!(!is_whole(dir.path()));
        }
        assert!(!give_up(dir.path()).unwrap(), "nothing is left");
        restore(dir.path()).unwrap();
        assert!(is_whole(dir.path()));
        // With less free space than `beyond`, the reserve does not grow.
        give_up(dir.path()).unwrap();
        let refused = super::restore(dir.path(), u64::MAX / 2).unwrap_err().kind();
        assert_eq!((refused, is_whole(dir.path())), (io::ErrorKind::StorageFull, false));
    }

    #[test]
    fn what_says_that_there_is_no_room() {
        let full = crate::store::StoreError::Create { path: "x".into(), source: io::ErrorKind::StorageFull.into() };
        let other = crate::store::StoreError::Create { path: "x".into(), source: io::ErrorKind::NotFound.into() };
        let dir = Path::new("/");
        assert!(is_missing(&full, dir) && !is_missing(&other, dir));
    }
}
