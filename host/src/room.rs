//! Room on the disk for an administrator's decisions: a file of the state directory that holds nothing. When the disk is
//! full, `revoke`, `deny`, `approve`, `nodes` and `log` give a part of it up; `serve` signs nothing until it is whole again.
//! Nothing else is deleted here.

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

/// A revocation takes about a tenth of a step.
pub const BYTES: u64 = 1024 * 1024;
const STEP: u64 = BYTES / 4;
/// Less than this is as good as nothing: SQLite's shared memory alone takes half of it.
const NOTHING: u64 = 64 * 1024;

fn file(dir: &Path) -> PathBuf {
    dir.join("reserve")
}

/// Root runs commands here as well: whoever has the directory must not make it cut another file short.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}

/// Makes it as large as the disk allows. An error says that it is not whole, and why. `beyond`: what has to be free besides; a
/// server that took everything back at once would take it from the decision that it was given up for.
pub fn restore(dir: &Path, beyond: u64) -> io::Result<()> {
    let path = file(dir);
    let mut reserve = options().create(true).truncate(false).mode(0o600).open(&path)?;
    let mut len = reserve.metadata()?.len();
    if len == 0 {
        ca::given_away(&path)?;
    }
    if len < BYTES
        && beyond > 0
        && free(dir).is_some_and(|free| free < BYTES.saturating_sub(len).saturating_add(beyond))
    {
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

/// Blocks of the disk, not only a length.
fn grow(reserve: &mut File, from: u64, to: u64) -> io::Result<()> {
    let offset = i64::try_from(from).map_err(io::Error::other)?;
    let len = i64::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    match fallocate(&*reserve, FallocateFlags::empty(), offset, len) {
        // A file system that cannot do that, like NFS.
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

/// Whether nothing was given up.
pub fn is_whole(dir: &Path) -> bool {
    std::fs::metadata(file(dir)).is_ok_and(|found| found.len() >= BYTES)
}

/// Gives a part up. Whether there was any.
pub fn give_up(dir: &Path) -> io::Result<bool> {
    let reserve = match options().open(file(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let len = reserve.metadata()?.len();
    reserve.set_len(len.saturating_sub(STEP))?;
    Ok(len > 0)
}

/// Whether a disk without room is the reason for this error.
pub fn is_missing(error: &(dyn Error + 'static), dir: &Path) -> bool {
    let mut reasons = std::iter::successors(Some(error), |error| (**error).source());
    reasons.any(|reason| {
        let io = reason.downcast_ref::<io::Error>().map(io::Error::kind);
        if io.is_some_and(is_no_room) {
            return true;
        }
        match reason.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code) {
            Some(ErrorCode::DiskFull) => true,
            // So it says when its shared memory or its log cannot be made.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => is_full(dir),
            _ => false,
        }
    })
}

/// Whether an error of the file system says that.
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

    /// The user whose directory it is puts a link to a file of root's in its place.
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
        // With less room than is wanted besides, nothing is taken.
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
