//! Removes a payload for one boot from the medium that keeps it. `run` calls this only after the hand-over: after a
//! failure the payload stays where it is. Never decides which medium that is.
//!
//! The file is unlinked, not overwritten: flash memory and file systems with a journal keep the old bytes in any case.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::medium::Medium;
use crate::source::{efivar, root_file};
use crate::sys;

/// A payload for one boot could not be removed.
#[derive(Debug)]
pub struct SpentError {
    /// Where the payload is.
    pub path: PathBuf,
    /// The error of the kernel.
    pub source: io::Error,
}

/// Removes the payload. It is not an error if the payload is gone already.
pub fn remove(root: &Path, medium: Medium) -> Result<(), SpentError> {
    match medium {
        Medium::RootFile => {
            let path = root.join(root_file::PATH);
            super::file::remove(&path).and_then(|()| sync_folder(&path)).map_err(|source| SpentError { path, source })
        }
        Medium::EfiVariable => {
            let failed = |path: PathBuf| move |source| SpentError { path, source };
            let variables = efivar::Variables::open(root);
            let Some(variables) = variables.map_err(io::Error::other).map_err(failed(efivar::NAME.into()))? else {
                return Ok(());
            };
            let path = variables.payload();
            mutable(&path).and_then(|()| super::file::remove(&path)).map_err(failed(path))
        }
        _ => Ok(()),
    }
}

/// Writes the removal to the disk. Without that, a power cut could bring the file back, and the next boot would use it
/// again although its token is spent.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Clears the immutable flag. efivarfs sets it on every variable that the kernel does not know, so that `rm -r` does
/// not break the firmware (Documentation/filesystems/efivarfs.rst).
fn mutable(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    match sys::make_mutable(&File::open(path)?) {
        // This file system has no such flags.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(()),
        result => result,
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
    use super::*;

    /// A root with a payload on both media, and a file beside each.
    fn root() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let variable = root.path().join("sys/firmware/efi/efivars").join(efivar::NAME);
        let file = root.path().join(root_file::PATH);
        for path in [&variable, &file] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
            fs::write(path.with_file_name("other"), b"x").unwrap();
        }
        (root, file, variable)
    }

    #[test]
    fn the_payload_goes_and_nothing_else() {
        let (root, file, variable) = root();
        remove(root.path(), Medium::ConfigDrive).unwrap();
        assert!(file.exists() && variable.exists());
        remove(root.path(), Medium::RootFile).unwrap();
        assert!(!file.exists() && variable.exists());
        remove(root.path(), Medium::EfiVariable).unwrap();
        assert!(!variable.exists());
        assert!(file.with_file_name("other").exists() && variable.with_file_name("other").exists());
        for again in [Medium::RootFile, Medium::EfiVariable] {
            remove(root.path(), again).unwrap();
        }
    }

    /// A folder in the place of the file stands for a file that cannot be removed: root ignores permissions, and a test
    /// cannot make a file system read-only.
    #[test]
    fn what_cannot_be_removed_is_told() {
        let (root, file, variable) = root();
        for (path, medium) in [(file, Medium::RootFile), (variable, Medium::EfiVariable)] {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            let error = remove(root.path(), medium).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "the payload {} was for this boot and cannot be removed; remove it by hand, or the next boot uses it \
                     again",
                    path.display()
                )
            );
            assert_eq!(error.source.kind(), io::ErrorKind::IsADirectory);
        }
    }
}
