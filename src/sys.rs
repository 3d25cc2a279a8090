//! System calls that have no safe wrapper in std or nix, and small helpers for those that have. The only module with
//! `unsafe`, except `unwind.rs` and its attributes. Never decides anything.

#![allow(unsafe_code)] // denied everywhere else; every block says why it is sound

mod attributes;
mod hear;
mod swap;
mod loops;

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{c_int, c_uint, c_void, socklen_t};
use nix::poll::{PollFd, PollTimeout};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};

pub use attributes::copy_attributes;
pub use hear::{packets, promiscuous, tagged_socket};
pub use loops::attach_loop;
pub use swap::{device_mapper, fill_random, forget_key, give_key, make_device_mapper, page_size, swap_on};

use crate::time::Deadline;

/// The longest seed that [`add_entropy`] takes, in bytes; the payload's schema allows no longer one.
pub const MAX_SEED: usize = 512;

/// Turns core dumps off, so that no core file contains a key or a token. The size limit stops dumps to a file. The
/// dumpable flag stops dumps to a pipe (core(5): RLIMIT_CORE is not enforced for pipes) and ptrace by other processes.
///
/// Memory is not locked on purpose: an initramfs has no swap before `imprint swap on`, whose key nobody keeps; mlockall would touch
/// every page of the binary and break the memory budget; and keys are wiped as soon as they have been handed over.
///
/// Errors are ignored: a process may always lower its own limits, and stopping the boot would help nobody.
pub fn no_core_dumps() {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Closes every file that the parent process left open, except standard input, output and error. Call it before
/// anything is opened.
pub fn close_inherited_files() {
    let (first, last, flags): (c_uint, c_uint, c_uint) = (3, c_uint::MAX, 0);
    // SAFETY: no pointer is passed, and nothing of ours is open yet.
    if unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first, last, flags) } == 0 {
        return;
    }
    // Linux before 5.9 has no close_range(2).
    for number in 3..1024 {
        // SAFETY: as above; a number that is not open is an error without effect.
        let _ = unsafe { nix::libc::close(number) };
    }
}

/// Removes every capability from the bounding set (capabilities(7)), so that a program that this process starts cannot
/// have one. Requires CAP_SETPCAP.
pub fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..nix::libc::c_ulong::from(64u32) {
        // SAFETY: with this option prctl(2) takes one number, and touches no memory of ours.
        match Errno::result(unsafe { nix::libc::prctl(nix::libc::PR_CAPBSET_DROP, capability) }) {
            // The kernel does not know this capability, so all were removed.
            Err(Errno::EINVAL) if capability > 0 => break,
            result => result?,
        };
    }
    Ok(())
}

/// Gives up every capability (capset(2)) for ever.
pub fn no_capabilities() -> io::Result<()> {
    // include/uapi/linux/capability.h: struct __user_cap_header_struct with _LINUX_CAPABILITY_VERSION_3 and pid 0, this
    // process; twice struct __user_cap_data_struct, which is effective, permitted, inheritable.
    let (header, none): ([u32; 2], [u32; 6]) = ([0x2008_0522, 0], [0; 6]);
    // SAFETY: the kernel reads eight bytes of header and, for this version, 24 of data; both outlive the call.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    Errno::result(result)?;
    Ok(())
}

/// One instruction of a system call filter.
pub type FilterLine = nix::libc::sock_filter;

/// Installs a filter for all system calls of this process (seccomp(2)). The caller has set no_new_privs (prctl(2))
/// before. False if the kernel does not support such filters.
pub fn filter_system_calls(filter: &mut [FilterLine]) -> io::Result<bool> {
    let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = nix::libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    let (mode, flags) = (nix::libc::c_ulong::from(nix::libc::SECCOMP_SET_MODE_FILTER), nix::libc::c_ulong::from(0u32));
    // SAFETY: the kernel reads one struct sock_fprog and `len` instructions; len is filter.len(), and both outlive the
    // call.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_seccomp, mode, flags, &raw const program) };
    match Errno::result(result) {
        Ok(_) => Ok(true),
        // kernel/seccomp.c: without CONFIG_SECCOMP, or without CONFIG_SECCOMP_FILTER.
        Err(Errno::ENOSYS | Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until one of `fds` has an event. False if the deadline passed first. A signal does not end the wait.
pub fn poll(fds: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<bool> {
    loop {
        // Rounded up to whole milliseconds: rounding down would turn the last one into a busy loop.
        let left = deadline.remaining().saturating_add(Duration::from_nanos(999_999));
        let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(fds, timeout) {
            Ok(0) if deadline.expired() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Locks a mutex while the program ends after a panic. Another thread may hold the lock for a moment, so this tries for
/// a while. If this thread itself holds the lock, waiting would never end: then the result is `None`.
pub fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..10_000 {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// Sends a real-time signal to PID 1; systemd takes it as a request (systemd(1), "SIGNALS"). `signal` is the number for
/// the receiver's C library, which may differ from SIGRTMIN of this program's. Errors are ignored: nothing depends on
/// the signal.
pub fn signal_init(signal: c_int) {
    // SAFETY: kill(2) takes two numbers and touches no memory of ours.
    let _ = unsafe { nix::libc::kill(1, signal) };
}

/// Whether a signal is ignored in this process.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: struct sigaction holds a number, a set of bits, and pointers that may be null: zeros are one.
    let mut action: nix::libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one struct sigaction to a pointer to one that outlives the call; nothing is changed.
    #[allow(clippy::as_conversions, reason = "an enumeration of the C library's own numbers")]
    let asked = unsafe { nix::libc::sigaction(signal as c_int, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == nix::libc::SIG_IGN
}

/// Has a program begin without blocked signals: std hands on those of the thread that starts it.
pub fn take_signals(command: &mut Command) {
    // SAFETY: between fork(2) and exec(2) the closure calls sigprocmask(2) alone, which is async-signal-safe (signal-safety(7)); it
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) };
}

/// All settings of a terminal, with its speeds as numbers (ioctl_tty(2)). tcgetattr(3) cannot give a speed that has no
/// constant.
pub type Terminal = nix::libc::termios2;

/// Reads the settings (TCGETS2).
pub fn terminal(terminal: &impl AsFd) -> io::Result<Terminal> {
    // SAFETY: struct termios2 holds numbers only, and zeros are one.
    let mut settings: Terminal = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel writes one struct termios2 to a pointer to
    // one that outlives the call.
    unsafe { ioctls::tcgets2(terminal.as_fd().as_raw_fd(), &raw mut settings) }?;
    Ok(settings)
}

/// Changes the settings at once (TCSETS2).
pub fn set_terminal(terminal: &impl AsFd, settings: &Terminal) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel reads one struct termios2 from a reference
    // that is valid for the whole call.
    unsafe { ioctls::tcsets2(terminal.as_fd().as_raw_fd(), settings) }?;
    Ok(())
}

/// The first subleaf of a leaf of CPUID, as EAX, EBX, ECX, EDX. Zeros on processors other than x86.
pub fn cpuid(leaf: u32) -> [u32; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        let found = std::arch::x86_64::__cpuid_count(leaf, 0);
        [found.eax, found.ebx, found.ecx, found.edx]
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = leaf;
        [0; 4]
    }
}

/// Clears the immutable flag of a file (ioctl_iflags(2); `chattr -i`). Requires CAP_LINUX_IMMUTABLE where the flag is set.
pub fn make_mutable(file: &impl AsFd) -> io::Result<()> {
    // include/uapi/linux/fs.h: FS_IMMUTABLE_FL
    const IMMUTABLE: c_int = 0x10;
    let mut flags: c_int = 0;
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel writes one int to a pointer to one that outlives
    // the call.
    unsafe { ioctls::get_flags(file.as_fd().as_raw_fd(), &raw mut flags) }?;
    if flags & IMMUTABLE != 0 {
        flags &= !IMMUTABLE;
        // SAFETY: the descriptor is borrowed for the whole call, and the kernel reads one int from a pointer to one that
        // outlives the call.
        unsafe { ioctls::set_flags(file.as_fd().as_raw_fd(), &raw const flags) }?;
    }
    Ok(())
}

mod ioctls {
    use super::{RandPoolInfo, RtcTime, Terminal};
    use nix::libc::{c_int, c_long};

    // include/uapi/linux/fs.h: FS_IOC_GETFLAGS _IOR('f', 1, long), FS_IOC_SETFLAGS _IOW('f', 2, long). The kernel takes an int
    // for both (fs/ioctl.c, ioctl_getflags).
    nix::ioctl_read_bad!(get_flags, nix::request_code_read!(b'f', 1, size_of::<c_long>()), c_int);
    nix::ioctl_write_ptr_bad!(set_flags, nix::request_code_write!(b'f', 2, size_of::<c_long>()), c_int);

    // include/uapi/asm-generic/ioctls.h: TCGETS2 _IOR('T', 0x2A, struct termios2), TCSETS2 _IOW('T', 0x2B, …)
    nix::ioctl_read!(tcgets2, b'T', 0x2a, Terminal);
    nix::ioctl_write_ptr!(tcsets2, b'T', 0x2b, Terminal);

    // include/uapi/linux/rtc.h: #define RTC_SET_TIME _IOW('p', 0x0a, struct rtc_time)
    nix::ioctl_write_ptr!(rtc_set_time, b'p', 0x0a, RtcTime);
    // include/uapi/linux/random.h: #define RNDADDENTROPY _IOW('R', 0x03, int [2])
    nix::ioctl_write_ptr_bad!(rnd_add_entropy, nix::request_code_write!(b'R', 0x03, 8), RandPoolInfo);
}

/// `struct rtc_time`, include/uapi/linux/rtc.h: nine ints, like `struct tm` without its time zone.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtcTime {
    /// 0 to 59.
    pub second: c_int,
    /// 0 to 59.
    pub minute: c_int,
    /// 0 to 23.
    pub hour: c_int,
    /// 1 to 31.
    pub day: c_int,
    /// 0 to 11.
    pub month: c_int,
    /// Years since 1900.
    pub year: c_int,
    /// Unused by the ioctl.
    pub weekday: c_int,
    /// Unused by the ioctl.
    pub yearday: c_int,
    /// Unused by the ioctl.
    pub dst: c_int,
}

/// RTC_SET_TIME on an open real-time clock.
pub fn set_rtc(rtc: &impl AsFd, time: &RtcTime) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel reads exactly one `struct rtc_time`, whose
    // layout RtcTime repeats, from a reference that is valid for the whole call.
    unsafe { ioctls::rtc_set_time(rtc.as_fd().as_raw_fd(), time) }?;
    Ok(())
}

/// `struct rand_pool_info`, include/uapi/linux/random.h, with room for the longest seed.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: c_int,
    buf_size: c_int,
    buf: [u8; MAX_SEED],
}

/// RNDADDENTROPY on an open `/dev/urandom` or `/dev/random`: mixes `seed` in and credits `bits` in one step.
pub fn add_entropy(random: &impl AsFd, seed: &[u8], bits: u32) -> io::Result<()> {
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut buf = zeroize::Zeroizing::new([0; MAX_SEED]);
    buf.get_mut(..seed.len()).ok_or_else(too_long)?.copy_from_slice(seed);
    let mut info = RandPoolInfo {
        entropy_count: c_int::try_from(bits).map_err(|_| too_long())?,
        buf_size: c_int::try_from(seed.len()).map_err(|_| too_long())?,
        buf: *buf,
    };
    // SAFETY: info outlives the call, and the kernel reads buf_size bytes after the two ints. buf has at least as many
    // bytes, because the seed was copied into it above.
    let result = unsafe { ioctls::rnd_add_entropy(random.as_fd().as_raw_fd(), &raw const info) };
    zeroize::Zeroize::zeroize(&mut info.buf);
    result?;
    Ok(())
}

/// Whether the kernel's random pool is ready (getrandom(2)). With `wait`, returns only when the pool is ready. Such a
/// wait makes the kernel gather entropy from timing (drivers/char/random.c, try_to_generate_entropy); poll(2) would
/// not.
pub fn pool_ready(wait: bool) -> io::Result<bool> {
    let flags = if wait { 0 } else { nix::libc::GRND_NONBLOCK };
    let mut byte = 0u8;
    loop {
        // SAFETY: the pointer is to one writable byte that outlives the call, and the length is 1.
        let got = unsafe { nix::libc::getrandom((&raw mut byte).cast::<c_void>(), 1, flags) };
        match Errno::result(got) {
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// NETLINK_EXT_ACK (netlink(7)): the kernel adds its reason, in words, to a negative acknowledgement.
pub fn netlink_ext_ack(socket: &impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    let size = socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed for the whole call; the kernel reads `size` bytes, the size of a c_int, from a
    // pointer to a c_int that outlives the call.
    let result = unsafe {
        nix::libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            nix::libc::SOL_NETLINK,
            nix::libc::NETLINK_EXT_ACK,
            (&raw const on).cast::<c_void>(),
            size,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// `struct sockaddr_ll`, include/uapi/linux/if_packet.h, with room for InfiniBand's 20-byte addresses: the kernel
/// accepts a longer structure for a longer address (packet_snd, net/packet/af_packet.c).
#[repr(C)]
#[derive(Default)]
struct LinkLayerName {
    family: u16,
    protocol: [u8; 2],
    index: c_int,
    hardware: u16,
    kind: u8,
    length: u8,
    address: [u8; 20],
}

impl LinkLayerName {
    fn new(index: u32, protocol: u16, address: &[u8]) -> io::Result<LinkLayerName> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let mut name = LinkLayerName {
            family: u16::try_from(nix::libc::AF_PACKET).map_err(io::Error::other)?,
            protocol: protocol.to_be_bytes(),
            index: c_int::try_from(index).map_err(io::Error::other)?,
            length: u8::try_from(address.len()).map_err(io::Error::other)?,
            ..LinkLayerName::default()
        };
        name.address.get_mut(..address.len()).ok_or_else(invalid)?.copy_from_slice(address);
        Ok(name)
    }

    fn size() -> socklen_t {
        socklen_t::try_from(size_of::<LinkLayerName>()).unwrap_or(0)
    }
}

/// A non-blocking packet(7) socket for one link and one protocol (ETH_P_…). Its packets begin after the link-layer
/// header.
pub fn packet_socket(index: u32, protocol: u16) -> io::Result<OwnedFd> {
    link_socket(nix::libc::SOCK_DGRAM, index, protocol)
}

/// As [`packet_socket`], but what is received begins with the link-layer header, and what is sent has to.
pub fn frame_socket(index: u32, protocol: u16) -> io::Result<OwnedFd> {
    link_socket(nix::libc::SOCK_RAW, index, protocol)
}

/// Has a link take frames to this group for as long as the socket is open (packet(7), PACKET_ADD_MEMBERSHIP).
pub fn join_group(socket: &impl AsFd, index: u32, group: &[u8; 6]) -> io::Result<()> {
    let mut wanted = nix::libc::packet_mreq {
        mr_ifindex: c_int::try_from(index).map_err(io::Error::other)?,
        mr_type: u16::try_from(nix::libc::PACKET_MR_MULTICAST).map_err(io::Error::other)?,
        mr_alen: 6,
        mr_address: [0; 8],
    };
    wanted.mr_address.iter_mut().zip(group).for_each(|(place, byte)| *place = *byte);
    let size = socklen_t::try_from(size_of_val(&wanted)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads size bytes, the size of wanted, from a pointer to it that outlives the call.
    let joined = unsafe {
        nix::libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            nix::libc::SOL_PACKET,
            nix::libc::PACKET_ADD_MEMBERSHIP,
            (&raw const wanted).cast(),
            size,
        )
    };
    Errno::result(joined)?;
    Ok(())
}

fn link_socket(kind: c_int, index: u32, protocol: u16) -> io::Result<OwnedFd> {
    let name = LinkLayerName::new(index, protocol, &[])?;
    let flags = kind | nix::libc::SOCK_CLOEXEC | nix::libc::SOCK_NONBLOCK;
    // With protocol 0 the socket receives nothing before it is bound.
    // SAFETY: no pointer is passed.
    let fd = Errno::result(unsafe { nix::libc::socket(nix::libc::AF_PACKET, flags, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the kernel reads size() bytes, the size of the name, from a pointer to it that outlives the call.
    let bound = unsafe { nix::libc::bind(fd.as_raw_fd(), (&raw const name).cast(), LinkLayerName::size()) };
    Errno::result(bound)?;
    Ok(fd)
}

/// Sends one packet to a link-layer address of at most 20 bytes.
pub fn send_packet(socket: &impl AsFd, index: u32, protocol: u16, to: &[u8], packet: &[u8]) -> io::Result<()> {
    let name = LinkLayerName::new(index, protocol, to)?;
    // SAFETY: the kernel reads packet.len() bytes from packet and size() bytes from the name, and both outlive the
    // call.
    let sent = unsafe {
        nix::libc::sendto(
            socket.as_fd().as_raw_fd(),
            packet.as_ptr().cast::<c_void>(),
            packet.len(),
            0,
            (&raw const name).cast(),
            LinkLayerName::size(),
        )
    };
    Errno::result(sent)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_layout() {
        assert_eq!(size_of::<RtcTime>(), 36);
        assert_eq!(std::mem::offset_of!(RandPoolInfo, buf), 8);
        assert_eq!((size_of::<LinkLayerName>(), std::mem::offset_of!(LinkLayerName, address)), (32, 12));
        // printf of both macros in a C program on x86_64: 0x4024700a 0x40085203
        assert_eq!(nix::request_code_write!(b'p', 0x0a, size_of::<RtcTime>()), 0x4024_700a);
        assert_eq!(nix::request_code_write!(b'R', 0x03, 8), 0x4008_5203);
    }

    #[test]
    fn a_seed_that_is_too_long_never_reaches_the_kernel() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let error = add_entropy(&null, &[0; MAX_SEED + 1], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // A seed that fits reaches the kernel, and /dev/null refuses the ioctl.
        let error = add_entropy(&null, &[0; MAX_SEED], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
    }

    #[test]
    fn the_pool_of_a_running_machine_is_ready() {
        assert!(pool_ready(false).unwrap());
        assert!(pool_ready(true).unwrap());
    }

    /// The kernel has the same vendor in /proc/cpuinfo.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn leaf_0_is_the_vendor() {
        let [_, b, c, d] = cpuid(0);
        let vendor: Vec<u8> = [b, d, c].iter().flat_map(|word| word.to_le_bytes()).collect();
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        assert!(info.contains(std::str::from_utf8(&vendor).unwrap()), "{vendor:?}");
    }

    #[test]
    fn a_file_without_the_flag_stays_as_it_is() {
        let file = tempfile::tempfile().unwrap();
        match make_mutable(&file) {
            Ok(()) => {}
            // This file system has no such flags.
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY)),
        }
    }

    #[test]
    fn core_dumps_are_off() {
        no_core_dumps();
        assert_eq!(nix::sys::resource::getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }

    #[test]
    fn poll_ends_at_the_deadline_and_at_an_event() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut fds = [PollFd::new(read.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert!(!poll(&mut fds, Deadline::after(Duration::ZERO)).unwrap());
        nix::unistd::write(&write, b"x").unwrap();
        assert!(poll(&mut fds, Deadline::after(Duration::from_secs(60))).unwrap());
    }
}
