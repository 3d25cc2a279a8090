//! A packet socket that hears frames with an IEEE 802.1Q tag only (packet(7)). Never sends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_uint, c_void, sock_filter, sock_fprog, socklen_t};

/// include/uapi/linux/if_ether.h
const ETH_P_ALL: u16 = 0x0003;

/// Frames that this machine sends, and frames without a tag, are dropped in the kernel: include/uapi/linux/filter.h,
/// SKF_AD_PKTTYPE and SKF_AD_VLAN_TAG_PRESENT.
const FILTER: [sock_filter; 6] = [
    sock_filter { code: 0x20, jt: 0, jf: 0, k: 0xffff_f004 },
    sock_filter { code: 0x15, jt: 3, jf: 0, k: 4 },
    sock_filter { code: 0x20, jt: 0, jf: 0, k: 0xffff_f030 },
    sock_filter { code: 0x15, jt: 1, jf: 0, k: 0 },
    sock_filter { code: 0x06, jt: 0, jf: 0, k: 16 },
    sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 },
];

/// The socket. Each packet comes with its tag in a control message (PACKET_AUXDATA).
pub fn tagged_socket(index: u32) -> io::Result<OwnedFd> {
    let socket = super::link_socket(libc::SOCK_DGRAM, index, ETH_P_ALL)?;
    let mut filter = FILTER;
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // The kernel copies the filter, which outlives the call.
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    let on: c_int = 1;
    set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)?;
    Ok(socket)
}

/// Has a link take all frames, or only its own again. Network cards drop tagged frames of VLANs that this machine has not.
pub fn promiscuous(socket: &impl AsFd, index: u32, on: bool) -> io::Result<()> {
    let wanted = libc::packet_mreq {
        mr_ifindex: c_int::try_from(index).map_err(io::Error::other)?,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(io::Error::other)?,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::SOL_PACKET, if on { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP }, &wanted)
}

/// How many packets the socket was given since the last call, those included for which it had no room (PACKET_STATISTICS).
pub fn packets(socket: &impl AsFd) -> io::Result<u32> {
    let mut counted: [c_uint; 2] = [0; 2];
    let mut size = socklen_t::try_from(size_of_val(&counted)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most size bytes, the size of counted, to a pointer to it that outlives the call: struct
    // tpacket_stats is two unsigned ints.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counted).cast::<c_void>(),
            &raw mut size,
        )
    };
    Errno::result(got)?;
    Ok(counted[0])
}

fn set<T>(socket: &impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let size = socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads size bytes, the size of value, from a reference that is valid for the whole call; each caller gives the
    // type that the option takes.
    let done = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast::<c_void>(), size)
    };
    Errno::result(done)?;
    Ok(())
}
