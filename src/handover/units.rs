//! Leaves units for the systemd of the real root, in `/run`, where it finds them although nobody has installed them there. Never
//! starts one, and never writes into the root itself.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{HandoverError, network};
use crate::apply::file;
use crate::facts;

/// Units of this boot (systemd.unit(5)). Those of an administrator in /etc come before them.
const FOLDER: &str = "run/systemd/system";
/// Reached in the real root when the machine has its identity.
const TARGET: (&str, &str) = ("imprint.target", include_str!("../../systemd/imprint.target"));
/// Where the program of systemd is.
const SYSTEMD: [&str; 2] = ["usr/lib/systemd/systemd", "lib/systemd/systemd"];

/// Leaves a unit that `wanted_by` starts. One that is there already is replaced.
pub fn leave(machine: &Path, name: &str, text: &str, wanted_by: &str) -> Result<(), HandoverError> {
    put_file(machine, FOLDER, name, text.as_bytes())?;
    let place = format!("{FOLDER}/{wanted_by}.wants");
    let folder = machine.join(&place);
    let link = folder.join(name);
    let made = network::made(&folder, 0o755).and_then(|()| match symlink(format!("../{name}"), &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    });
    made.map_err(|source| HandoverError::Write { path: link, source })
}

/// Leaves a file that everybody can read in a folder below the root, which is made if it is not there.
pub fn put_file(machine: &Path, place: &str, name: &str, text: &[u8]) -> Result<(), HandoverError> {
    let folder = machine.join(place);
    network::made(&folder, 0o755)
        .and_then(|()| file::replace(&folder, name, text, 0o644))
        .map_err(|source| HandoverError::Write { path: folder.join(name), source })
}

/// Leaves `imprint.target` for the real root. `new`: the real root, where it is mounted already. Does nothing outside an initramfs,
/// where the target has to be installed: systemd would not see it before it reads its units again. Nor without systemd, because
/// programs take a machine for one with systemd if the folder is there (sd_booted(3)).
pub fn leave_target(machine: &Path, new: Option<&Path>) -> Result<(), HandoverError> {
    let here = machine.join(FOLDER).is_dir();
    let there = new.is_some_and(|new| SYSTEMD.iter().any(|path| new.join(path).is_file()));
    if !facts::is_initramfs(machine) || !(here || there) {
        return Ok(());
    }
    let (name, text) = TARGET;
    leave(machine, name, text, "sysinit.target")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn initramfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/initrd-release"), "").unwrap();
        root
    }

    fn put(root: &Path, path: &str) {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "").unwrap();
    }

    fn is_left(machine: &Path) -> bool {
        let wanted = machine.join("run/systemd/system/sysinit.target.wants/imprint.target");
        fs::read_to_string(wanted).is_ok_and(|text| text.contains("\nConditionPathExists=/run/imprint/ready\n"))
    }

    #[test]
    fn systemd_in_the_initramfs_or_in_the_root_gets_the_target() {
        let machine = initramfs();
        fs::create_dir_all(machine.path().join(FOLDER)).unwrap();
        // Twice: a run may begin anew.
        leave_target(machine.path(), None).unwrap();
        leave_target(machine.path(), None).unwrap();
        assert!(is_left(machine.path()));
        for systemd in SYSTEMD {
            let (machine, new) = (initramfs(), tempfile::tempdir().unwrap());
            leave_target(machine.path(), Some(new.path())).unwrap();
            leave_target(machine.path(), None).unwrap();
            assert!(!machine.path().join("run").exists(), "nothing that a root without systemd would take for systemd");
            put(new.path(), systemd);
            leave_target(machine.path(), Some(new.path())).unwrap();
            assert!(is_left(machine.path()));
        }
    }

    #[test]
    fn a_running_system_has_its_own_units() {
        let machine = tempfile::tempdir().unwrap();
        fs::create_dir_all(machine.path().join(FOLDER)).unwrap();
        leave_target(machine.path(), None).unwrap();
        assert!(!is_left(machine.path()));
    }
}
