//! Leaves the CA for services of the real root, as the credential `imprint.ca`. systemd 254 and later import the folder
//! `/run/credentials/@initrd` when they take over from an initramfs (docs/CREDENTIALS.md of systemd). Earlier versions
//! leave the folder where it is.
//!
//! Never puts the certificate or the key there. systemd copies the folder once, at the boot. After the first renewal a
//! service would still use that copy, and the use of a superseded certificate raises an alarm at the server. The CA is
//! no secret, and a renewal does not change it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{HandoverError, network, remove};
use crate::apply::file;
use crate::facts;

/// The folder that systemd imports and then removes (src/core/import-creds.c, import_credentials_initrd).
const FOLDER: &str = "run/credentials/@initrd";
/// The folder of the credentials that systemd imported before, from the hypervisor, the firmware or the boot loader.
/// systemd keeps the first of two credentials with the same name.
const IMPORTED: &str = "run/credentials/@system";
/// The credential's name for `ImportCredential=` and `LoadCredential=`.
pub const NAME: &str = "imprint.ca";

/// What services of the real root find under the name `imprint.ca`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Left {
    /// The CA of this run.
    Ours,
    /// Nothing: this is not an initramfs, so nobody imports anything.
    Nothing,
    /// A file with other contents, which came to the machine from outside.
    Foreign(PathBuf),
}

/// Leaves `ca`, in PEM.
pub(super) fn leave(root: &Path, ca: &[u8]) -> Result<Left, HandoverError> {
    if !facts::is_initramfs(root) {
        return Ok(Left::Nothing);
    }
    let imported = root.join(IMPORTED).join(NAME);
    match fs::read(&imported) {
        Ok(bytes) if bytes == ca => return Ok(Left::Ours),
        // ENOTDIR: a path leads through a file.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        _ => return Ok(Left::Foreign(imported)),
    }
    let folder = root.join(FOLDER);
    let failed = |path: PathBuf| move |source| HandoverError::Write { path, source };
    // systemd does not follow a link here.
    if fs::symlink_metadata(&folder).is_ok_and(|metadata| !metadata.is_dir()) {
        return Err(HandoverError::NotOurs { path: folder, what: "not a folder" });
    }
    network::made(&folder, 0o700).map_err(failed(folder.clone()))?;
    // An earlier run of this boot may have left another CA. It is replaced, because the name is imprint's.
    file::replace(&folder, NAME, ca, 0o400).map_err(failed(folder.join(NAME)))?;
    Ok(Left::Ours)
}

/// Removes what [`leave`] wrote. A run calls this if it hands nothing over in the end.
pub(super) fn take_back(root: &Path) -> Result<(), HandoverError> {
    remove(&root.join(FOLDER).join(NAME))
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Left::Ours => write!(f, "the CA is the credential {NAME}"),
            Left::Nothing => write!(f, "no credential {NAME}, as this is no initramfs"),
            Left::Foreign(path) => write!(
                f,
                "the credential {NAME} of this machine is another CA, in {}; give services \
                 LoadCredential={NAME}:/run/imprint/ca.pem",
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    const CA: &[u8] = b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";

    fn initramfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/initrd-release"), "").unwrap();
        fs::create_dir_all(root.path().join("run")).unwrap();
        root
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn imported(root: &Path, bytes: &[u8]) -> PathBuf {
        fs::create_dir_all(root.join(IMPORTED)).unwrap();
        let path = root.join(IMPORTED).join(NAME);
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn the_ca_is_left_with_the_modes_that_systemd_gives_credentials() {
        let root = initramfs();
        // Twice: the second run finds the file of a run whose hand-over somebody has removed.
        for ca in [b"another".as_slice(), CA] {
            assert_eq!(leave(root.path(), ca).unwrap(), Left::Ours);
            let folder = root.path().join("run/credentials/@initrd");
            assert_eq!(fs::read(folder.join("imprint.ca")).unwrap(), ca);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else");
            assert_eq!(mode(&folder.join("imprint.ca")), 0o400);
            assert_eq!(mode(&folder), 0o700);
            assert_eq!(mode(folder.parent().unwrap()), 0o755, "folders of services are there, too");
        }
        take_back(root.path()).unwrap();
        take_back(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path().join(FOLDER)).unwrap().count(), 0);
    }

    /// A running system imports nothing: a file there would stay for ever.
    #[test]
    fn nothing_is_left_outside_an_initramfs() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(leave(root.path(), CA).unwrap(), Left::Nothing);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    /// The attack: somebody who can set credentials of the machine, on the kernel command line for example, sets
    /// `imprint.ca` to a CA of their own. systemd keeps the first credential of a name, and services would trust that
    /// CA.
    #[test]
    fn a_ca_from_outside_is_told() {
        let root = initramfs();
        let path = imported(root.path(), b"their CA");
        let left = leave(root.path(), CA).unwrap();
        assert_eq!(left, Left::Foreign(path));
        assert!(left.to_string().contains("LoadCredential=imprint.ca:/run/imprint/ca.pem"), "{left}");
        assert!(!root.path().join(FOLDER).exists(), "systemd would complain about a folder that it cannot empty");
        imported(root.path(), CA);
        assert_eq!(leave(root.path(), CA).unwrap(), Left::Ours, "it is the same CA");
    }

    #[test]
    fn what_is_in_the_way_is_named_and_kept() {
        let root = initramfs();
        let elsewhere = root.path().join("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::create_dir_all(root.path().join("run/credentials")).unwrap();
        symlink(&elsewhere, root.path().join(FOLDER)).unwrap();
        let error = leave(root.path(), CA).unwrap_err();
        assert!(matches!(&error, HandoverError::NotOurs { path, what: "not a folder" } if path.ends_with("@initrd")));
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "a link is not followed");
        // A file where the folders should be.
        let root = initramfs();
        fs::write(root.path().join("run/credentials"), "").unwrap();
        let error = leave(root.path(), CA).unwrap_err();
        assert!(matches!(&error, HandoverError::Write { path, .. } if path.ends_with(FOLDER)), "{error:?}");
        // The name is taken by a folder.
        let root = initramfs();
        fs::create_dir_all(root.path().join(FOLDER).join(NAME)).unwrap();
        let error = leave(root.path(), CA).unwrap_err();
        assert!(matches!(&error, HandoverError::Write { path, .. } if path.ends_with(NAME)), "{error:?}");
        assert_eq!(fs::read_dir(root.path().join(FOLDER)).unwrap().count(), 1, "nothing half-written");
    }
}
