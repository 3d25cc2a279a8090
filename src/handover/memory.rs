//! Mounts the memory file system for the private key, of a kind that is never swapped out. Never mounts one over
//! another.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

use super::HandoverError;

/// `noswap` is new in Linux 6.4 (tmpfs(5)). 1 MiB is more than keys need.
pub const TMPFS_OPTIONS: &str = "noswap,mode=0700,size=1m";
/// include/uapi/linux/magic.h
pub const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Mounts a tmpfs with these options. If the kernel does not know them, mounts a ramfs, which is never swapped out
/// either (and has no size limit). A memory file system that is already mounted is used again: services may have files
/// on it open, and a second mount would hide them.
pub fn mount(path: &Path, tmpfs_options: &str) -> Result<(), HandoverError> {
    let failed = |source: io::Error| HandoverError::Mount { path: path.to_owned(), source };
    if is_mount_point(path).map_err(failed)? {
        let kind = statfs(path).map_err(|errno| failed(errno.into()))?.filesystem_type();
        return match kind == TMPFS_MAGIC || kind == RAMFS_MAGIC {
            true => Ok(()),
            false => Err(HandoverError::NotOurs { path: path.to_owned(), what: "a mount of another file system" }),
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
