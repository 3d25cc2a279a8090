//! Mounts the memory file system for the private key. Never swapped out, never stacked.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

use super::HandoverError;

/// `noswap` is new in Linux 6.4 (tmpfs(5)); a key and a certificate need no more than the size.
pub const TMPFS_OPTIONS: &str = "noswap,mode=0700,size=1m";
/// include/uapi/linux/magic.h
pub const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Mounts a tmpfs with these options, or where the kernel does not know them a ramfs, which is never swapped out
/// either (and has no size limit). Where a memory file system is mounted already, that one is used again: services may
/// have files of it open, and a second one on top would hide them.
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

/// Whether another file system begins here. Bind mounts of the same one are not noticed, and not made by anybody here.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(path.metadata()?.dev() != parent.metadata()?.dev())
}
