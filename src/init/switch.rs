//! Leaves the initramfs: frees its files, makes the root the root of everything, and starts its init in the place of process 1. Decides
//! nothing about where the root comes from.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::chroot;

use super::{FOLDER, InitError};
use crate::console::say;

/// Where the kernel itself looks for init (init/main.c, kernel_init); the shell is left out.
const INITS: [&str; 3] = ["/sbin/init", "/etc/init", "/bin/init"];
/// What goes on in the root.
const MOVED: [&str; 4] = ["dev", "proc", "sys", "run"];
/// How many links are followed (include/linux/namei.h, MAXSYMLINKS).
const LINKS: usize = 40;

/// The init of the root at `new`: that of init=, or the first that is there.
pub(super) fn init(new: &Path, named: Option<&str>) -> Result<String, InitError> {
    let tried: Vec<&str> = named.map_or_else(|| INITS.to_vec(), |named| vec![named]);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for path in &tried {
        match resolved(new, path).and_then(|real| is_program(&real)) {
            Ok(()) => return Ok((*path).to_owned()),
            Err(error) => last = error,
        }
    }
    Err(InitError::NoInit { tried: tried.join(", "), source: last })
}

/// Where a path leads to for those whose root is `root`. Symbolic links in it are those of that root.
pub(super) fn resolved(root: &Path, path: &str) -> io::Result<PathBuf> {
    let (mut real, mut links) = (PathBuf::new(), 0);
    let mut left: Vec<PathBuf> = parts(Path::new(path));
    while let Some(part) = left.pop() {
        if part == Path::new("..") {
            real.pop();
            continue;
        }
        let next = real.join(&part);
        if fs::symlink_metadata(root.join(&next))?.is_symlink() {
            links += 1;
            if links > LINKS {
                return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
            }
            let to = fs::read_link(root.join(&next))?;
            if to.is_absolute() {
                real = PathBuf::new();
            }
            left.extend(parts(&to));
        } else {
            real = next;
        }
    }
    Ok(root.join(real))
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    });
    let mut parts: Vec<PathBuf> = parts.collect();
    parts.reverse();
    parts
}

/// Whether a file can be started.
pub(super) fn is_program(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    match found.is_file() && found.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// Removes what only the initramfs needs from `/run`, which goes on in the root.
pub(super) fn forget(root: &Path) {
    // An error is ignored: nobody there reads it.
    let _ = fs::remove_dir_all(root.join(FOLDER));
}

/// Enters the root that is mounted at `new`, a folder of `root`, and starts its init. Returns only if that fails.
pub(super) fn enter(root: &Path, new: &str, init: &str) -> Result<Infallible, InitError> {
    let failed = |step| move |source: io::Error| InitError::Switch { step, source };
    let new = root.join(new);
    forget(root);
    for place in MOVED {
        let (from, to) = (root.join(place), new.join(place));
        let moved = mount(Some(&from), &to, None::<&str>, MsFlags::MS_MOVE, None::<&str>);
        if let Err(errno) = moved {
            // Without /run the identity is gone.
            if place == "run" {
                return Err(failed("moving /run there; the root needs an empty folder /run")(errno.into()));
            }
            say(&format!("the root has no folder /{place}: {errno}"));
            let _ = umount2(&from, MntFlags::MNT_DETACH);
        }
    }
    let old = open(root, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let old = old.map_err(io::Error::from).map_err(failed("opening the initramfs"))?;
    std::env::set_current_dir(&new).map_err(failed("changing there"))?;
    let moved = mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>);
    moved.map_err(io::Error::from).map_err(failed("moving its mount to /"))?;
    // Process 1 shares its root with the kernel's own threads, which start modprobe in it.
    chroot(".").map_err(io::Error::from).map_err(failed("changing the root"))?;
    std::env::set_current_dir("/").map_err(failed("changing to /"))?;
    free(&old);
    let error = Command::new(init).env_remove("PATH").exec();
    Err(InitError::NoInit { tried: init.to_owned(), source: error })
}

/// Removes the files of the initramfs, which are memory. Nothing on another file system is touched, and nothing at all if this is
/// none that lives in memory.
fn free(old: &OwnedFd) {
    let path = PathBuf::from(format!("/proc/self/fd/{}", old.as_raw_fd()));
    let Ok(kind) = nix::sys::statfs::fstatfs(old) else { return };
    // include/uapi/linux/magic.h: RAMFS_MAGIC, TMPFS_MAGIC
    if ![0x8584_58f6, 0x0102_1994].contains(&i128::from(kind.filesystem_type().0)) {
        return;
    }
    if let Ok(top) = fs::metadata(&path) {
        empty(&path, top.dev());
    }
}

/// Empties a folder. Errors are ignored: what cannot be removed takes memory, and does no other harm.
fn empty(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.dev() != device {
            continue;
        }
        if found.is_dir() {
            empty(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["usr/lib/systemd", "sbin", "etc"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let program = root.path().join("usr/lib/systemd/systemd");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    /// The accident: an absolute link in the root is followed in the initramfs, and the init is not found.
    #[test]
    fn the_init_of_a_root_is_found_behind_its_own_links() {
        let root = root();
        assert!(matches!(init(root.path(), None), Err(InitError::NoInit { .. })));
        symlink("/lib/systemd/systemd", root.path().join("sbin/init")).unwrap();
        symlink("usr/lib", root.path().join("lib")).unwrap();
        assert_eq!(init(root.path(), None).unwrap(), "/sbin/init");
        assert_eq!(
            init(root.path(), Some("/lib/systemd/../systemd/systemd")).unwrap(),
            "/lib/systemd/../systemd/systemd"
        );
        assert!(init(root.path(), Some("/bin/none")).is_err(), "init= is the only one that counts");
        // A link out of the root stays in it.
        symlink("../../../../../../etc/passwd", root.path().join("etc/out")).unwrap();
        assert!(resolved(root.path(), "/etc/out").is_err());
        symlink("/etc/circle", root.path().join("etc/circle")).unwrap();
        assert_eq!(resolved(root.path(), "/etc/circle").unwrap_err().raw_os_error(), Some(nix::libc::ELOOP));
    }

    #[test]
    fn a_file_that_is_no_program_is_no_init() {
        let root = root();
        fs::write(root.path().join("sbin/init"), "").unwrap();
        assert!(init(root.path(), None).is_err());
        assert!(init(root.path(), Some("/etc")).is_err());
    }

    /// What is freed stays on its own file system, and no link is followed.
    #[test]
    fn only_what_is_there_is_freed() {
        let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("kept"), "").unwrap();
        fs::create_dir_all(inside.path().join("a/b")).unwrap();
        fs::write(inside.path().join("a/b/c"), "").unwrap();
        symlink(outside.path(), inside.path().join("a/link")).unwrap();
        let device = fs::metadata(inside.path()).unwrap().dev();
        empty(inside.path(), device + 1);
        assert!(inside.path().join("a/b/c").exists(), "another file system");
        empty(inside.path(), device);
        assert_eq!(fs::read_dir(inside.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }
}
