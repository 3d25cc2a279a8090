//! Removes a payload for one boot from the medium that keeps it. `run` calls this only after the hand-over: after a
//! failure the payload stays where it is. Never decides which medium that is.
//!
//! The file is unlinked, not overwritten: flash memory and file systems with a journal keep the old bytes in any case.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use zeroize::Zeroizing;

use crate::digest::sha256;
use crate::medium::Medium;
use crate::payload::MAX_LEN;
use crate::source::{efivar, root_file};
use crate::sys;

/// A payload that was used, and the medium that keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spent {
    /// The medium.
    pub medium: Medium,
    /// SHA-256 of the payload as it was read.
    pub sha256: [u8; 32],
}

/// What became of a payload that was used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Removed {
    /// It is not there any more.
    Gone,
    /// Something else is in its place, which stays there.
    Replaced(PathBuf),
}

/// A payload that was for one boot is still there.
#[derive(Debug)]
pub struct SpentError {
    /// Where the payload is.
    pub path: PathBuf,
    /// The error of the kernel.
    pub source: io::Error,
}

/// Removes the payload. One that somebody else has removed is no error.
pub fn remove(root: &Path, spent: &Spent) -> Result<Removed, SpentError> {
    let failed = |path: PathBuf| move |source| SpentError { path, source };
    match spent.medium {
        Medium::RootFile => {
            let path = root.join(root_file::PATH);
            unlink(&path, &spent.sha256, 0, |_| Ok(()))
                .and_then(|removed| sync_folder(&path).map(|()| removed))
                .map_err(failed(path))
        }
        Medium::EfiVariable => {
            let variables = efivar::Variables::open(root);
            let Some(variables) = variables.map_err(io::Error::other).map_err(failed(efivar::NAME.into()))? else {
                return Ok(Removed::Gone);
            };
            let path = variables.payload();
            unlink(&path, &spent.sha256, efivar::HEADER, mutable).map_err(failed(path))
        }
        _ => Ok(Removed::Gone),
    }
}

/// Removes a file that still has the content that was read, behind a header of `header` bytes. `prepare` makes a file
/// removable.
fn unlink(
    path: &Path,
    read: &[u8; 32],
    header: usize,
    prepare: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<Removed> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    // O_NONBLOCK: opening a FIFO would wait for a writer.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let opened = open(folder, flags | OFlag::O_DIRECTORY, Mode::empty())
        .and_then(|folder| openat(&folder, name, flags, Mode::empty()).map(|file| (folder, File::from(file))));
    let (folder, file) = match opened {
        Ok(opened) => opened,
        Err(Errno::ENOENT) => return Ok(Removed::Gone),
        // open(2): a symbolic link, no folder, a socket.
        Err(Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO) => return Ok(Removed::Replaced(path.to_owned())),
        Err(errno) => return Err(errno.into()),
    };
    let compared = fstat(&file)?;
    if !file.metadata()?.is_file() || digest(&file, header)? != Some(*read) {
        return Ok(Removed::Replaced(path.to_owned()));
    }
    prepare(&file)?;
    let gone = unlink_same(&folder, name, &compared)?;
    Ok(if gone { Removed::Gone } else { Removed::Replaced(path.to_owned()) })
}

/// SHA-256 of what is behind the header. `None`: the file is shorter than that, or longer than any payload.
fn digest(file: &File, header: usize) -> io::Result<Option<[u8; 32]>> {
    let most = header.saturating_add(MAX_LEN);
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    // The buffer has its full size from the start: a buffer that grows would leave a copy of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most.saturating_add(1)));
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes.get(header..).filter(|_| bytes.len() <= most).map(sha256))
}

/// Removes a name if it is still that of the file that was compared, unchanged. The kernel has no call that does both at once,
/// so the comparison is the last thing before the removal. Returns `false` if the name stays.
fn unlink_same(folder: &OwnedFd, name: &OsStr, compared: &FileStat) -> io::Result<bool> {
    let version = |stat: &FileStat| (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(true),
        Err(errno) => return Err(errno.into()),
        Ok(now) if version(&now) != version(compared) => return Ok(false),
        Ok(_) => {}
    }
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes the removal to the disk. Without that, a power cut could bring the file back, and the next boot would use it
/// again although its token is spent.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().map(File::open) {
        Some(Ok(folder)) => folder.sync_all(),
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The kernel makes variables that it does not know immutable, so that `rm -r` does not break the firmware.
fn mutable(file: &File) -> io::Result<()> {
    match sys::make_mutable(file) {
        // A file system without such flags.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(()),
        result => result,
    }
}

/// For the status, without the medium.
impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removed::Gone => f.write_str("the payload was removed"),
            Removed::Replaced(path) => write!(
                f,
                "{} was replaced or changed after this boot had read it, so it was not removed; the next boot reads what is \
                 there now",
                path.display()
            ),
        }
    }
}

impl fmt::Display for SpentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the payload {} was for this boot and cannot be removed; remove it by hand, or the next boot uses it again",
            self.path.display()
        )
    }
}

impl std::error::Error for SpentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, SystemTime};

    use super::*;

    const READ: &[u8] = b"the payload of this boot";
    const NEXT: &[u8] = b"the payload of the next!";

    /// A root with a payload on both media, and a file beside each.
    struct Tree(tempfile::TempDir);

    const BOTH: [Medium; 2] = [Medium::RootFile, Medium::EfiVariable];

    impl Tree {
        fn new() -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            for medium in BOTH {
                fs::create_dir_all(tree.path(medium).parent().unwrap()).unwrap();
                tree.put(medium, READ);
                fs::write(tree.path(medium).with_file_name("other"), READ).unwrap();
            }
            tree
        }

        fn path(&self, medium: Medium) -> PathBuf {
            match medium {
                Medium::RootFile => self.0.path().join(root_file::PATH),
                _ => self.0.path().join("sys/firmware/efi/efivars").join(efivar::NAME),
            }
        }

        /// Writes a payload as the medium has it.
        fn put(&self, medium: Medium, payload: &[u8]) {
            let header: &[u8] = if medium == Medium::EfiVariable { &[7, 0, 0, 0] } else { &[] };
            fs::write(self.path(medium), [header, payload].concat()).unwrap();
        }

        /// What a boot does that has read [`READ`].
        fn remove(&self, medium: Medium) -> Removed {
            remove(self.0.path(), &Spent { medium, sha256: sha256(READ) }).unwrap()
        }
    }

    #[test]
    fn the_payload_goes_and_nothing_else() {
        let tree = Tree::new();
        let [file, variable] = BOTH.map(|medium| tree.path(medium));
        tree.remove(Medium::ConfigDrive);
        assert!(file.exists() && variable.exists());
        assert_eq!(tree.remove(Medium::RootFile), Removed::Gone);
        assert!(!file.exists() && variable.exists());
        assert_eq!(tree.remove(Medium::EfiVariable), Removed::Gone);
        assert!(!variable.exists());
        assert!(file.with_file_name("other").exists() && variable.with_file_name("other").exists());
        for again in BOTH {
            assert_eq!(tree.remove(again), Removed::Gone);
        }
        fs::remove_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(tree.remove(Medium::RootFile), Removed::Gone, "without its folder");
    }

    /// Accident: a deployer puts the payload of the next boot there while this boot enrols. It must not be lost unread, however
    /// it was written.
    #[test]
    fn a_payload_that_was_not_read_stays() {
        for medium in BOTH {
            let (tree, other) = (Tree::new(), PathBuf::from("new"));
            let path = tree.path(medium);
            let kept = |how: &str| {
                let before = fs::read(&path).unwrap();
                assert_eq!(tree.remove(medium), Removed::Replaced(path.clone()), "{how}");
                assert_eq!(fs::read(&path).unwrap(), before, "{how}");
            };
            tree.put(medium, NEXT);
            kept("in place, with the same length");
            tree.put(medium, READ);
            fs::rename(&path, path.with_file_name(&other)).unwrap();
            tree.put(medium, NEXT);
            kept("another file");
            tree.put(medium, &[READ, b"\n"].concat());
            kept("more behind it");
            tree.put(medium, &READ[1..]);
            kept("less");
            tree.put(medium, b"");
            kept("nothing yet: the deployer has only begun to write");
            tree.put(medium, &vec![0; MAX_LEN + 1]);
            kept("longer than any payload");
            // The same bytes again are the same payload: its token is spent.
            tree.put(medium, READ);
            assert_eq!(tree.remove(medium), Removed::Gone);
        }
    }

    /// A folder in the place of the file stands for a file that cannot be removed: root ignores permissions, and a test
    /// cannot make a file system read-only.
    #[test]
    fn what_is_no_file_stays() {
        for medium in BOTH {
            let tree = Tree::new();
            let path = tree.path(medium);
            let kept = || assert_eq!(tree.remove(medium), Removed::Replaced(path.clone()));
            fs::remove_file(&path).unwrap();
            symlink(path.with_file_name("other"), &path).unwrap();
            kept();
            fs::remove_file(&path).unwrap();
            nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
            kept();
            fs::remove_file(&path).unwrap();
            let socket = UnixListener::bind(&path).unwrap();
            kept();
            drop(socket);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            kept();
            assert!(path.is_dir() && path.with_file_name("other").exists());
        }
    }

    /// Accident: the replacement comes between the comparison and the removal.
    #[test]
    fn a_file_that_changes_after_the_comparison_stays() {
        let tree = Tree::new();
        let path = tree.path(Medium::RootFile);
        let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
        let opened = OwnedFd::from(File::open(folder).unwrap());
        let compared = |path: &Path| {
            let file = File::open(path).unwrap();
            (fstat(&file).unwrap(), file)
        };
        let (stat, _held) = compared(&path);
        fs::write(folder.join("new"), READ).unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        assert!(!unlink_same(&opened, name, &stat).unwrap(), "another file");
        let (stat, held) = compared(&path);
        held.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
        assert!(!unlink_same(&opened, name, &stat).unwrap(), "written to");
        assert!(path.exists());
        let (stat, _held) = compared(&path);
        assert!(unlink_same(&opened, name, &stat).unwrap() && !path.exists());
        assert!(unlink_same(&opened, name, &stat).unwrap(), "somebody else has removed it");
    }

    #[test]
    fn what_is_told() {
        let path = || PathBuf::from("/etc/imprint/payload");
        let error = SpentError { path: path(), source: io::ErrorKind::ReadOnlyFilesystem.into() };
        assert_eq!(
            error.to_string(),
            "the payload /etc/imprint/payload was for this boot and cannot be removed; remove it by hand, or the next boot \
             uses it again"
        );
        assert_eq!(
            Removed::Replaced(path()).to_string(),
            "/etc/imprint/payload was replaced or changed after this boot had read it, so it was not removed; the next boot \
             reads what is there now"
        );
    }
}
