//! Mounts the memory file system for the private key, of a kind that is never swapped out. Never mounts one over
//! another.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

use super::HandoverError;

/// `noswap` is new in Linux 6.4 (tmpfs(5)). 1 MiB is more than keys need, and 16 MiB is the largest bundle. Memory that nothing
/// is written to is not used.
pub const TMPFS_OPTIONS: &str = "noswap,mode=0700,size=17m";
/// include/uapi/linux/magic.h
pub const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Mounts a tmpfs with these options. If the kernel does not know them, mounts a ramfs, which is never swapped out
/// either (and has no size limit). A memory file system that is already mounted is used again if it is never swapped
/// out: services may have files on it open, and a second mount would hide them. A tmpfs without `noswap` is somebody
/// else's, and the kernel does not let it get `noswap` later (shmem_reconfigure, mm/shmem.c).
pub fn mount(path: &Path, tmpfs_options: &str) -> Result<(), HandoverError> {
    let failed = |source: io::Error| HandoverError::Mount { path: path.to_owned(), source };
    if is_mount_point(path).map_err(failed)? {
        let kind = statfs(path).map_err(|errno| failed(errno.into()))?.filesystem_type();
        let other = |what| Err(HandoverError::NotOurs { path: path.to_owned(), what });
        return match kind {
            RAMFS_MAGIC => Ok(()),
            TMPFS_MAGIC if has_option(path, "noswap").map_err(failed)? => Ok(()),
            TMPFS_MAGIC => other("a tmpfs without noswap, which the kernel may swap out"),
            _ => other("a mount of another file system"),
        };
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let try_to = |kind: &str, options: &str| nix::mount::mount(Some("imprint"), path, Some(kind), flags, Some(options));
    match try_to("tmpfs", tmpfs_options) {
        // EINVAL: an option that the kernel does not know. ENODEV: a kernel without tmpfs.
        Err(Errno::EINVAL | Errno::ENODEV) => try_to("ramfs", "mode=0700"),
        mounted => mounted,
    }
    .map_err(|errno| failed(errno.into()))
}

/// Whether another file system is mounted here. A bind mount of the same file system is not noticed; imprint makes
/// none.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(path.metadata()?.dev() != parent.metadata()?.dev())
}

/// Whether the file system here has this option (proc_pid_mountinfo(5)). It is found by its device, because a path may
/// be written in several ways.
fn has_option(path: &Path, option: &str) -> io::Result<bool> {
    let device = path.metadata()?.dev();
    let device = format!("{}:{}", major(device), minor(device));
    // Mount namespaces belong to threads.
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(table.lines().filter(|line| line.split(' ').nth(2) == Some(&device)).any(|line| {
        let options = line.split_once(" - ").and_then(|(_, right)| right.split(' ').nth(2));
        options.is_some_and(|options| options.split(',').any(|word| word == option))
    }))
}
