//! The file systems that a system needs, and the console. Process 1 does this before anything else, so an error here is only a note.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;
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
/// Where the kernel finds modprobe, if nobody has told it otherwise (Documentation/admin-guide/sysctl/kernel.rst).
const MODPROBE: &str = "sbin/modprobe";
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
    link(&mut notes, "/init", &root.join(MODPROBE));
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
    match mount(Some(kind), place, Some(kind), flags, Some(options).filter(|options| !options.is_empty())) {
        // It is mounted: this is process 1 after a fault.
        Err(Errno::EBUSY) => Ok(()),
        result => Ok(result?),
    }
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
