//! Locks a hand-over folder, so that one program at a time works in it. The lock is flock(2): the kernel releases it
//! when the program that holds it ends in any way, so no stale lock is left. The lock is on a file that only the owner
//! can open, because every reader of the folder could lock the folder itself. Never waits for a lock: a folder in use
//! is an error.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};

use super::{HandoverError, NODE, discard, generation, is_complete, private_is_ours, staged};

/// A locked folder: no other imprint writes into it while this value exists.
#[must_use]
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

/// The lock file, which is never removed: one program could hold the lock of the removed file while another locks a new
/// file.
const LOCK: &str = ".lock";

impl Folder {
    /// Locks a folder that an earlier run has left. Writes nothing into any other folder, not even a lock file.
    pub fn open(path: &Path) -> Result<Folder, HandoverError> {
        let is_there = |name: &str| fs::symlink_metadata(path.join(name)).is_ok();
        if ![LOCK, generation::CURRENT, NODE].into_iter().any(is_there) {
            let missing = if path.is_dir() { path.join(NODE) } else { path.to_owned() };
            return Err(HandoverError::Read { path: missing, source: io::Error::from(Errno::ENOENT) });
        }
        Folder::lock(path)
    }

    fn lock(path: &Path) -> Result<Folder, HandoverError> {
        let file = path.join(LOCK);
        let failed = |source| HandoverError::Write { path: file.clone(), source };
        let flags = nix::libc::O_NOFOLLOW;
        let opened = OpenOptions::new().write(true).create(true).mode(0o600).custom_flags(flags).open(&file);
        let lock = Flock::lock(opened.map_err(failed)?, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(opened, errno)| match errno {
            Errno::EWOULDBLOCK => HandoverError::Busy { path: path.to_owned(), holder: holder(&opened) },
            _ => failed(errno.into()),
        })?;
        generation::settle(path)?;
        Ok(Folder { path: path.to_owned(), _lock: lock })
    }

    /// Locks a folder that holds no certificates or keys of others, and makes the folder if it does not exist. Call
    /// this before asking a server for a certificate: the certificate would be lost if the folder could not be used.
    pub fn make(path: &Path) -> Result<Folder, HandoverError> {
        make(path)?;
        let folder = Folder::lock(path)?;
        private_is_ours(path)?;
        generation::nothing_of_others(path)?;
        Ok(folder)
    }

    /// Locks the folder for a run that makes an identity; `None`: the folder already holds a complete one, and its bundle, if it has
    /// one, is in the root.
    pub fn begin(path: &Path) -> Result<Option<Folder>, HandoverError> {
        if is_done(path) {
            return Ok(None);
        }
        let folder = Folder::make(path)?;
        // Another run may have completed just before the lock; or it was killed before it wrote `ready`, which `settle`
        // has now written.
        if is_done(path) {
            return Ok(None);
        }
        if is_complete(path) {
            // The bundle could not be laid over the root, so a person has this run get another one. Should it get none, nothing that
            // is left may look like a boot without a bundle: hence the mark, before anything is removed.
            staged::begin_anew(path)?;
            discard(path)?;
        }
        // A bundle of a run that was killed: this run may be for another node, or for none.
        staged::discard(path)?;
        Ok(Some(folder))
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether nothing is left to do for a run.
fn is_done(path: &Path) -> bool {
    is_complete(path) && !staged::waits(path)
}

/// Makes a folder that everybody may read. A folder that exists keeps its mode.
pub(super) fn make(path: &Path) -> Result<(), HandoverError> {
    let failed = |source| HandoverError::Write { path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(failed) // whatever the umask
}

/// The process ID of the lock holder, where the kernel tells it.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    holder_in(&fs::read_to_string("/proc/locks").ok()?, metadata.dev(), metadata.ino())
}

/// proc_locks(5): `1: FLOCK  ADVISORY  WRITE 1234 00:2f:5678 0 EOF`, with the device in hexadecimal. A process of
/// another PID namespace has the number 0. A line with `->` before the word FLOCK is of a process that waits for the
/// lock.
fn holder_in(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let wanted = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [_, "FLOCK", _, _, pid, file, ..] if *file == wanted => pid.parse().ok().filter(|pid| *pid != 0),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::makedev;

    use super::*;

    /// /proc/locks of a Debian 12, with one waiter and a foreign namespace added by hand.
    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 411 00:19:1013 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 900 fd:01:77 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 901 fd:01:77 0 EOF\n\
                         3: FLOCK  ADVISORY  WRITE 0 fd:01:78 0 EOF\n";

    #[test]
    fn the_holder_is_named_where_the_kernel_tells() {
        let device = makedev(0xfd, 1);
        assert_eq!(holder_in(LOCKS, device, 77), Some(900));
        assert_eq!(holder_in(LOCKS, device, 78), None, "of another namespace");
        assert_eq!(holder_in(LOCKS, makedev(0, 0x19), 1013), None, "another kind of lock");
        assert_eq!(holder_in(LOCKS, device, 7), None);
    }

    /// Without the lock both programs would write, and the last one to finish would overwrite the other's identity.
    #[test]
    fn the_second_one_is_told_who_is_at_work() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        let first = Folder::make(&path).unwrap();
        let HandoverError::Busy { path: busy, holder } = Folder::make(&path).unwrap_err() else {
            panic!("two at once")
        };
        assert_eq!((busy, holder), (path.clone(), Some(std::process::id())));
        drop(first);
        let _again = Folder::open(&path).unwrap();
    }

    /// Accident: a bundle that does not fit the root, and a folder that says "complete" for ever. And a run that gets no bundle after
    /// that must not look like one that needs none.
    #[test]
    fn a_bundle_that_the_root_does_not_have_lets_a_run_begin_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        drop(Folder::make(&path).unwrap());
        let ready = || fs::write(path.join("ready"), "").unwrap();
        ready();
        assert!(Folder::begin(&path).unwrap().is_none(), "an identity, and no bundle");
        let text = r#"{"version":1,"node":"n","counter":7,"sha256":"","code":"","signer":"","approver":"","signed":"","units":[],"url":""}"#;
        for description in [text, "damaged"] {
            ready();
            fs::write(path.join(staged::DESCRIPTION), description).unwrap();
            drop(Folder::begin(&path).unwrap().unwrap());
            assert!(!is_complete(&path) && staged::is_anew(&path) && staged::read(&path).unwrap().is_none());
        }
        ready();
        fs::write(path.join(staged::DESCRIPTION), text).unwrap();
        fs::write(path.join(staged::APPLIED), "7").unwrap();
        assert!(Folder::begin(&path).unwrap().is_none(), "the root has it");
    }

    /// flock(2) needs read access only, and everybody may read the folder: a lock on the folder must not keep imprint
    /// out.
    #[test]
    fn who_may_only_read_keeps_nobody_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        drop(Folder::make(&path).unwrap());
        assert_eq!(fs::metadata(path.join(LOCK)).unwrap().mode() & 0o777, 0o600);
        let _other = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        let _folder = Folder::open(&path).unwrap();
    }
}
