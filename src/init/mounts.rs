//! The file systems that a system needs, and the console. Process 1 does this before anything else, so an error here is only a note.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path};

use nix::mount::{MsFlags, mount};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::FOLDER;

/// What is mounted: kind, place, flags, options. `/run` may hold programs (`/run/imprint/root/bin`).
const MOUNTS: [(&str, &str, MsFlags, &str); 5] = [
    ("devtmpfs", "dev", MsFlags::MS_NOSUID, "mode=0755"),
    ("proc", "proc", NOTHING, ""),
    ("sysfs", "sys", NOTHING, ""),
    ("tmpfs", "run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=0755"),
    ("devpts", "dev/pts", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "mode=0620,gid=5"),
];
const NOTHING: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);
/// Only where the firmware is EFI, and where the kernel has the file system at once or as a module.
const EFI: (&str, &str) = ("efivarfs", "sys/firmware/efi/efivars");
/// os-release(5): this file says that the system is an initramfs.
const RELEASE: &str = "etc/initrd-release";
/// Where the kernel looks for modprobe (Documentation/admin-guide/sysctl/kernel.rst): distributions have it in different folders.
const MODPROBE: &str = "proc/sys/kernel/modprobe";
/// include/linux/umh.h, KMOD_PATH_LEN: the longest such path, in bytes.
const MODPROBE_MAX: usize = 256;
/// Links that programs expect: Documentation/filesystems/devtmpfs, and systemd (src/shared/dev-setup.c).
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

/// Mounts everything. What did not succeed is in the notes; the console may be there only after it.
pub(super) fn prepare(root: &Path) -> Vec<String> {
    let mut notes = Vec::new();
    for (kind, place, flags, options) in MOUNTS {
        if let Err(error) = one(kind, &root.join(place), flags, options) {
            notes.push(format!("mounting {kind} on /{place}: {error}"));
        }
    }
    // An error is ignored: a kernel without it has no variables to show.
    if root.join(EFI.1).is_dir() {
        let _ = one(EFI.0, &root.join(EFI.1), NOTHING, "");
    }
    for (to, place) in LINKS {
        link(&mut notes, to, &root.join(place));
    }
    if let Some(place) = modprobe(&fs::read_to_string(root.join(MODPROBE)).unwrap_or_default()) {
        link(&mut notes, "/init", &root.join(place));
    }
    for folder in [FOLDER, "etc", "tmp", super::SYSROOT] {
        if let Err(error) = fs::create_dir_all(root.join(folder)) {
            notes.push(format!("making /{folder}: {error}"));
        }
    }
    if !root.join(RELEASE).exists()
        && let Err(error) = fs::write(root.join(RELEASE), "ID=imprint\nNAME=imprint\n")
    {
        notes.push(format!("writing /{RELEASE}: {error}"));
    }
    if let Err(error) = console(&root.join("dev/console")) {
        notes.push(format!("opening /dev/console: {error}"));
    }
    notes
}

fn one(kind: &str, place: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(place)?;
    // This is process 1 after a fault: another tmpfs would hide the identity.
    if is_mounted(place)? {
        return Ok(());
    }
    Ok(mount(Some(kind), place, Some(kind), flags, Some(options).filter(|options| !options.is_empty()))?)
}

/// Whether something is mounted at a folder: it is not on the file system of the folder that holds it.
fn is_mounted(place: &Path) -> io::Result<bool> {
    Ok(fs::metadata(place)?.dev() != fs::metadata(place.join(".."))?.dev())
}

/// The path below the root at which the kernel starts modprobe. `None`: at no path that is one.
fn modprobe(text: &str) -> Option<&str> {
    let place = text.trim_end().strip_prefix('/')?;
    let is_path = Path::new(place).components().all(|part| matches!(part, Component::Normal(_)));
    (!place.is_empty() && place.len() < MODPROBE_MAX && is_path).then_some(place)
}

fn link(notes: &mut Vec<String>, to: &str, place: &Path) {
    let made = place.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| symlink(to, place));
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            notes.push(format!("making {}: {error}", place.display()));
        }
        _ => {}
    }
}

/// The kernel opens the node /dev/console of the image for process 1, if there is one. This is the one that stays when the image is freed.
fn console(path: &Path) -> io::Result<()> {
    let console = fs::OpenOptions::new().read(true).write(true).open(path)?;
    dup2_stdin(&console)?;
    dup2_stdout(&console)?;
    dup2_stderr(&console)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The accident: process 1 begins again after a fault, and an empty `/run` hides the identity.
    #[test]
    fn what_is_mounted_is_known() {
        assert!(is_mounted(Path::new("/proc")).unwrap() && is_mounted(Path::new("/dev")).unwrap());
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mounted(folder.path()).unwrap());
        assert!(is_mounted(&folder.path().join("none")).is_err());
        // It would need root, and fail without: nothing is mounted over what is there.
        one("tmpfs", Path::new("/proc"), NOTHING, "").unwrap();
        assert!(Path::new("/proc/self").exists());
    }

    #[test]
    fn modprobe_is_where_the_kernel_looks_for_it() {
        assert_eq!(modprobe("/sbin/modprobe\n"), Some("sbin/modprobe"));
        assert_eq!(modprobe("/usr/bin/modprobe\n"), Some("usr/bin/modprobe"));
        let long = format!("/{}", "a".repeat(256));
        for none in ["", "\n", "/\n", "modprobe\n", "/sbin/../init\n", "//\n", long.as_str()] {
            assert_eq!(modprobe(none), None, "{none}");
        }
    }
}
