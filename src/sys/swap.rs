//! System calls for swap space: device-mapper, keys of the kernel, random bytes, swapon(2). Never decides what is mapped or used.

#![allow(unsafe_code)] // as in sys.rs: every block says why it is sound

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// sizeof(struct dm_ioctl), include/uapi/linux/dm-ioctl.h
const DM_HEAD: usize = 312;
/// include/uapi/linux/keyctl.h
const KEY_SPEC_PROCESS_KEYRING: libc::c_long = -2;
const KEYCTL_INVALIDATE: libc::c_long = 21;
/// include/linux/miscdevice.h: MISC_MAJOR, MAPPER_CTRL_MINOR
const MAPPER_CONTROL: (u64, u64) = (10, 236);

/// One call of device-mapper. `buffer` begins with a `struct dm_ioctl`, and the kernel writes its answer there.
pub fn device_mapper(control: &impl AsFd, command: u8, buffer: &mut [u8]) -> io::Result<()> {
    let said = buffer.get(12..16).and_then(|field| field.try_into().ok()).map(u32::from_ne_bytes);
    let fits = said.and_then(|said| usize::try_from(said).ok()) == Some(buffer.len()) && buffer.len() >= DM_HEAD;
    if !fits {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // include/uapi/linux/dm-ioctl.h: _IOWR(DM_IOCTL, …, struct dm_ioctl)
    let request = nix::request_code_readwrite!(0xfdu8, command, DM_HEAD);
    // SAFETY: the descriptor is borrowed for the whole call. The kernel reads and writes at most as many bytes as the field
    // `data_size` says (drivers/md/dm-ioctl.c, copy_params and ctl_ioctl), which is buffer.len(), and buffer outlives the call.
    let done = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), request, buffer.as_mut_ptr()) };
    Errno::result(done)?;
    Ok(())
}

/// Makes the device node of device-mapper. Opening it loads the module (drivers/char/misc.c, misc_open). Requires CAP_MKNOD.
pub fn make_device_mapper(path: &Path) -> io::Result<()> {
    let (major, minor) = MAPPER_CONTROL;
    mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))?;
    Ok(())
}

/// Gives a key to the kernel, which no program can read back (keyrings(7), the type "logon"). It lies in the keyring of this process, and
/// is gone with it. Returns its number.
pub fn give_key(description: &CStr, key: &[u8]) -> io::Result<libc::c_long> {
    let (kind, len) = (c"logon", key.len());
    // SAFETY: both strings end with a NUL, the kernel reads len bytes of key, and all three outlive the call.
    let number = unsafe {
        let (kind, description) = (kind.as_ptr(), description.as_ptr());
        libc::syscall(libc::SYS_add_key, kind, description, key.as_ptr(), len, KEY_SPEC_PROCESS_KEYRING)
    };
    Ok(Errno::result(number)?)
}

/// Has the kernel forget a key. Errors are ignored: the key is gone when this process ends.
pub fn forget_key(number: libc::c_long) {
    // SAFETY: with this operation keyctl(2) takes one number, and touches no memory of ours.
    let _ = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_INVALIDATE, number) };
}

/// Fills a buffer from the kernel's random pool (getrandom(2)). Waits until the pool is ready.
pub fn fill_random(buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while let Some(left) = buffer.get_mut(done..).filter(|left| !left.is_empty()) {
        // SAFETY: the kernel writes at most left.len() bytes to left, which outlives the call.
        let got = unsafe { libc::getrandom(left.as_mut_ptr().cast(), left.len(), 0) };
        match Errno::result(got) {
            Ok(count) => done += usize::try_from(count).unwrap_or(0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The size of a page of memory.
pub fn page_size() -> io::Result<usize> {
    // SAFETY: no pointer is passed.
    let size = Errno::result(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })?;
    usize::try_from(size).map_err(io::Error::other)
}

/// Begins to use a device as swap space (swapon(2)).
pub fn swap_on(path: &CStr, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: path ends with a NUL and outlives the call.
    Errno::result(unsafe { libc::swapon(path.as_ptr(), flags) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel would write behind the end of such a buffer.
    #[test]
    fn a_buffer_that_says_it_is_longer_never_reaches_the_kernel() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut buffer = vec![0; DM_HEAD];
        for said in [0u32, 311, 313, 4096] {
            buffer[12..16].copy_from_slice(&said.to_ne_bytes());
            let error = device_mapper(&null, 0, &mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{said}");
        }
        let mut short = vec![0; 16];
        short[12..16].copy_from_slice(&16u32.to_ne_bytes());
        assert_eq!(device_mapper(&null, 0, &mut short).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        // One that fits reaches the kernel, and /dev/null refuses the ioctl.
        buffer[12..16].copy_from_slice(&312u32.to_ne_bytes());
        assert_eq!(device_mapper(&null, 0, &mut buffer).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }

    /// printf of DM_VERSION and DM_TABLE_LOAD in a C program on x86_64: 0xc138fd00 0xc138fd09
    #[test]
    #[allow(clippy::as_conversions, clippy::cast_lossless, reason = "a number of another type in each C library")]
    fn numbers_of_calls_are_the_kernels() {
        assert_eq!(nix::request_code_readwrite!(0xfdu8, 0u8, DM_HEAD) as u32, 0xc138_fd00);
        assert_eq!(nix::request_code_readwrite!(0xfdu8, 9u8, DM_HEAD) as u32, 0xc138_fd09);
    }

    #[test]
    fn random_bytes_fill_the_whole_buffer() {
        let mut bytes = [[0u8; 300]; 2];
        bytes.iter_mut().for_each(|half| fill_random(half).unwrap());
        assert_ne!(bytes[0], bytes[1]);
        assert!(bytes.iter().all(|half| half[290..].iter().any(|byte| *byte != 0)));
        assert!(page_size().unwrap().is_power_of_two());
    }
}
