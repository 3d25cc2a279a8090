//! Leaves the initramfs: frees its files, makes the root the root of everything, and starts its init in the place of process 1. Decides
//! nothing about where the root comes from.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

use super::{FOLDER, InitError, children};
use crate::console::say;
use crate::source::reader;

/// Where the kernel itself looks for init (init/main.c, kernel_init); the shell is left out.
const INITS: [&str; 3] = ["/sbin/init", "/etc/init", "/bin/init"];
/// What goes on in the root. Without /run the identity is gone, so it goes first, and the root has to have a folder for it.
const MOVED: [&str; 4] = ["run", "dev", "proc", "sys"];
/// How many links are followed (include/linux/namei.h, MAXSYMLINKS).
const LINKS: usize = 40;

/// The init of the root at `new`: that of init=, or the first that is there.
pub(super) fn init(new: &Path, named: Option<&str>) -> Result<String, InitError> {
    let tried: Vec<&str> = named.map_or_else(|| INITS.to_vec(), |named| vec![named]);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for path in &tried {
        match resolved(new, path).and_then(|real| is_program(&real).and_then(|()| is_for_this_machine(&real))) {
            Ok(()) => return Ok((*path).to_owned()),
            // One that is there and cannot be started says more than one that is not there.
            Err(error) if last.kind() == io::ErrorKind::NotFound => last = error,
            Err(_) => {}
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

/// Refuses a program that is for another kind of machine, as far as its file says so. 32-bit programs of the same kind run.
fn is_for_this_machine(path: &Path) -> io::Result<()> {
    let own = machine(Path::new(reader::PROGRAM)).ok().flatten();
    let (Some(program), Some(own)) = (machine(path)?, own) else { return Ok(()) };
    // include/uapi/linux/elf-em.h: EM_386 on EM_X86_64, EM_ARM on EM_AARCH64
    match program == own || [(3, 62), (40, 183)].contains(&(program, own)) {
        true => Ok(()),
        false => Err(io::Error::other("it is for another kind of machine")),
    }
}

/// The machine of an ELF program. `None`: it is a script, or something else.
fn machine(path: &Path) -> io::Result<Option<u16>> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(20).read_to_end(&mut head)?;
    // e_ident, with EI_DATA in its sixth byte: 1 is little-endian; then e_type and e_machine.
    Ok(match head.as_slice() {
        [0x7f, b'E', b'L', b'F', _, 1, .., low, high] if head.len() == 20 => Some(u16::from_le_bytes([*low, *high])),
        [0x7f, b'E', b'L', b'F', _, 2, .., high, low] if head.len() == 20 => Some(u16::from_le_bytes([*low, *high])),
        _ => None,
    })
}

/// Removes what only the initramfs needs from `/run`, which goes on in the root.
pub(super) fn forget(root: &Path) {
    // An error is ignored: nobody there reads it.
    let _ = fs::remove_dir_all(root.join(FOLDER));
}

/// Enters the root that is mounted at `new`, a folder of `root`, and starts its init with these words. Returns only if that fails; what
/// fails before the root is entered leaves the initramfs as it was.
pub(super) fn enter(root: &Path, new: &str, init: &str, words: &[String]) -> Result<Infallible, InitError> {
    let failed = |step| move |source: io::Error| InitError::Switch { step, source };
    let new = root.join(new);
    let old = open(root, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let old = old.map_err(io::Error::from).map_err(failed("opening the initramfs"))?;
    let mut moved = Vec::new();
    let entered = moves(root, &new, &mut moved).and_then(|()| {
        std::env::set_current_dir(&new).map_err(failed("changing there"))?;
        let over = mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>);
        over.map_err(io::Error::from).map_err(failed("moving its mount to /"))
    });
    if let Err(error) = entered {
        // Errors are ignored: the first error is the one to report.
        for place in moved {
            let _ = shift(&new.join(place), &root.join(place));
        }
        let _ = std::env::set_current_dir(root);
        return Err(error);
    }
    // Process 1 shares its root with the kernel's own threads, which start modprobe in it.
    chroot(".").map_err(io::Error::from).map_err(failed("changing the root"))?;
    free(&old);
    std::env::set_current_dir("/").map_err(failed("changing to /"))?;
    forget(Path::new("/"));
    let error = children::become_program(Command::new(init).args(words).env_remove("PATH"));
    Err(InitError::Init { init: init.to_owned(), source: error })
}

/// Moves what goes on in the root there. `moved`: what was.
fn moves(root: &Path, new: &Path, moved: &mut Vec<&'static str>) -> Result<(), InitError> {
    for place in MOVED {
        let to = new.join(place);
        // A link there would lead into the initramfs.
        let folder = fs::symlink_metadata(&to).and_then(|found| match found.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        match folder.and_then(|()| shift(&root.join(place), &to)) {
            Ok(()) => moved.push(place),
            Err(source) if place == "run" => {
                return Err(InitError::Switch {
                    step: "moving /run there; the root needs an empty folder /run",
                    source,
                });
            }
            Err(error) => say(&format!("the root has no folder /{place}: {error}")),
        }
    }
    Ok(())
}

fn shift(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)?)
}

/// Removes the files of the initramfs, which are memory. Nothing on another file system is touched, and nothing at all if this is
/// none that lives in memory. The working directory is the way there, since no path leads there any more.
fn free(old: &OwnedFd) {
    let Ok(kind) = nix::sys::statfs::fstatfs(old) else { return };
    // include/uapi/linux/magic.h: RAMFS_MAGIC, TMPFS_MAGIC
    if ![0x8584_58f6, 0x0102_1994].contains(&i128::from(kind.filesystem_type().0)) || fchdir(old).is_err() {
        return;
    }
    let here = Path::new(".");
    if let Ok(top) = fs::metadata(here) {
        empty(here, top.dev());
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

    /// The accident: a root without a folder for `/run`, and a prompt that has lost `/proc` and `/dev` before that shows. Nothing has
    /// moved by then.
    #[test]
    fn a_root_without_a_folder_for_run_is_refused_before_anything_moves() {
        let root = tempfile::tempdir().unwrap();
        let new = root.path().join("sysroot");
        for folder in ["dev", "proc", "sys"] {
            fs::create_dir_all(new.join(folder)).unwrap();
        }
        let refused = || {
            let mut moved = Vec::new();
            let Err(InitError::Switch { step, source }) = moves(root.path(), &new, &mut moved) else { panic!("moved") };
            assert!(step.contains("empty folder /run") && moved.is_empty(), "{step}");
            source.kind()
        };
        assert_eq!(refused(), io::ErrorKind::NotFound);
        symlink("/var/run", new.join("run")).unwrap();
        assert_eq!(refused(), io::ErrorKind::NotADirectory, "a link would lead into the initramfs");
    }

    /// The accident: the root of another machine, which shows when the initramfs is gone.
    #[test]
    fn an_init_for_another_machine_is_refused() {
        let root = root();
        symlink("/usr/lib/systemd/systemd", root.path().join("sbin/init")).unwrap();
        let program = root.path().join("usr/lib/systemd/systemd");
        let is_init = |head: &[u8]| {
            fs::write(&program, head).unwrap();
            init(root.path(), None).map_err(|error| crate::chain::chain(&error))
        };
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(is_init(own.get(..20).unwrap()).is_ok() && is_init(b"#!/bin/sh\n").is_ok());
        // EM_S390, which is big-endian; EM_RISCV
        for (data, machine) in [(2, [0, 22]), (1, [243, 0])] {
            let head = [b"\x7fELF\x02".as_slice(), &[data], &[0; 12], &machine].concat();
            assert!(is_init(&head).unwrap_err().ends_with("it is for another kind of machine"), "{machine:?}");
        }
    }
}
