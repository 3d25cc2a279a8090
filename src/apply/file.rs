//! Writes files that appear whole or not at all. Never chooses a name or a mode: its callers do.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes the file `name` in `directory` and replaces an older one. The mode is set before the first byte is written,
/// and the name appears after the last. The file is not synced to disk: /run and an initramfs are memory.
pub fn replace(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    remove(&temporary)?; // left over by a run that was killed
    let written = (|| {
        // create_new: never writes through a symbolic link that another process has made.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?; // regardless of the umask
        file.write_all(bytes)?;
        fs::rename(&temporary, directory.join(name))
    })();
    if written.is_err() {
        let _ = remove(&temporary); // errors of the clean-up are ignored: the first error is reported
    }
    written
}

/// Removes a file. A missing file is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_with_their_mode() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".f.new"), "left over").unwrap();
        for (text, mode) in [("one", 0o644), ("two", 0o600)] {
            replace(directory.path(), "f", text.as_bytes(), mode).unwrap();
            let path = directory.path().join("f");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn leaves_nothing_behind_when_it_fails() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("f")).unwrap();
        let error = replace(directory.path(), "f", b"x", 0o644).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
