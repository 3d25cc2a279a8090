//! Loop devices (loop(4)): a file as a block device. Never mounts one.

#![allow(unsafe_code)] // as in sys.rs: every block says why it is sound

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

// include/uapi/linux/loop.h
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
// include/linux/miscdevice.h
const LOOP_CTRL_MINOR: u64 = 237;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// How often another program may take the free device first.
const RACES: u32 = 32;

/// `struct loop_info64`
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Attaches a file to a free loop device, read-only. The device lets go of it by itself once nobody has the device open or mounted.
/// Needs Linux 5.8. `root`: the folder in which `dev` is.
pub fn attach_loop(root: &Path, file: &File) -> io::Result<(File, PathBuf)> {
    let control = control(&root.join("dev/loop-control"))?;
    for _ in 0..RACES {
        // SAFETY: the request takes no argument, and the descriptor is open for the whole call.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
        let path = root.join(format!("dev/loop{number}"));
        let device = File::open(&path)?;
        match configure(&device, file) {
            // Somebody else was faster.
            Err(Errno::EBUSY) => {}
            done => return done.map(|()| (device, path)).map_err(io::Error::from),
        }
    }
    Err(Errno::EBUSY.into())
}

/// Without the module there is no such device, and whoever opens one with its numbers has the kernel load the module: it has the alias
/// char-major-10-237 (drivers/char/misc.c, misc_open).
fn control(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(10, LOOP_CTRL_MINOR))?;
            open()
        }
        done => done,
    }
}

fn configure(device: &File, file: &File) -> nix::Result<()> {
    // SAFETY: struct loop_config holds numbers only, and zeros are one.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    config.info.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    // SAFETY: both descriptors are borrowed for the whole call, and the kernel reads one struct loop_config from a pointer to one that
    // outlives the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sizeof and offsetof of a C program with linux/loop.h on x86_64.
    #[test]
    fn structures_have_the_kernels_layout() {
        assert_eq!((size_of::<LoopInfo>(), size_of::<LoopConfig>()), (232, 304));
        assert_eq!(std::mem::offset_of!(LoopInfo, flags), 52);
        assert_eq!(std::mem::offset_of!(LoopConfig, info), 8);
    }
}
