//! Extended attributes of files (xattr(7)), which std and nix do not have. Never decides which files.

#![allow(unsafe_code)] // as in sys.rs: every block says why it is sound

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// XATTR_LIST_MAX and XATTR_SIZE_MAX, include/uapi/linux/limits.h.
const LONGEST: usize = 65536;
/// What the overlay file system keeps for itself (Documentation/filesystems/overlayfs.rst).
const OVERLAYS_OWN: &[u8] = b"trusted.overlay.";

/// Copies all extended attributes of one file to another, as the kernel does when it copies a file to the upper layer of an overlay
/// (ovl_copy_xattr, fs/overlayfs/copy_up.c): what the other file system does not support is left out, and so is what belongs to an
/// overlay.
pub fn copy_attributes(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let (mut names, mut value) = (vec![0; LONGEST], vec![0; LONGEST]);
    let Some(length) = unless(Errno::EOPNOTSUPP, list(from, &mut names))? else { return Ok(()) };
    let names = names.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == 0);
    for name in names.filter(|name| !name.starts_with(OVERLAYS_OWN)) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        // It may have been removed meanwhile.
        let Some(length) = unless(Errno::ENODATA, get(from, name, &mut value))? else { continue };
        let value = value.get(..length).unwrap_or_default();
        unless(Errno::EOPNOTSUPP, set(to, name, value))?;
    }
    Ok(())
}

fn unless<T>(expected: Errno, result: nix::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(errno) if errno == expected => Ok(None),
        result => Ok(Some(result?)),
    }
}

fn list(file: &impl AsFd, names: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel writes at most names.len() bytes to names, which
    // outlives the call.
    let length = unsafe { libc::flistxattr(file.as_fd().as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    Errno::result(length).map(|length| usize::try_from(length).unwrap_or_default())
}

fn get(file: &impl AsFd, name: &CStr, value: &mut [u8]) -> nix::Result<usize> {
    let (fd, place) = (file.as_fd().as_raw_fd(), value.as_mut_ptr().cast());
    // SAFETY: the descriptor is borrowed for the whole call, name ends with a NUL, and the kernel writes at most value.len() bytes
    // to value, which outlives the call.
    let length = unsafe { libc::fgetxattr(fd, name.as_ptr(), place, value.len()) };
    Errno::result(length).map(|length| usize::try_from(length).unwrap_or_default())
}

fn set(file: &impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let (fd, place) = (file.as_fd().as_raw_fd(), value.as_ptr().cast());
    // SAFETY: the descriptor is borrowed for the whole call, name ends with a NUL, and the kernel reads value.len() bytes of value,
    // which outlives the call.
    let done = unsafe { libc::fsetxattr(fd, name.as_ptr(), place, value.len(), 0) };
    Errno::result(done).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_copied_and_those_of_an_overlay_are_not() {
        let (from, to) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let mut value = [0; 16];
        copy_attributes(from.as_file(), to.as_file()).unwrap();
        match set(from.as_file(), c"user.imprint", b"kept") {
            // This file system has no such attributes.
            Err(Errno::EOPNOTSUPP) => return,
            done => done.unwrap(),
        }
        copy_attributes(from.as_file(), to.as_file()).unwrap();
        let length = get(to.as_file(), c"user.imprint", &mut value).unwrap();
        assert_eq!(&value[..length], b"kept");
        if set(from.as_file(), c"trusted.overlay.opaque", b"y").is_ok() {
            copy_attributes(from.as_file(), to.as_file()).unwrap();
            assert_eq!(get(to.as_file(), c"trusted.overlay.opaque", &mut value), Err(Errno::ENODATA));
        }
    }
}
