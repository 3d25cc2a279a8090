//! Packet sockets of one link, never waited for. Knows no protocol but its number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};

use crate::sys;

/// include/uapi/linux/if_ether.h
pub(super) const ETH_P_IP: u16 = 0x0800;
pub(super) const ETH_P_ARP: u16 = 0x0806;
pub(super) const ETH_P_IPV6: u16 = 0x86dd;

/// Longer than any packet that anybody here reads; what is longer is cut, and then refused by who reads it.
pub(super) const BUFFER: usize = 4096;

/// So many packets of a link are read before its neighbours in the race are looked at again: one that is flooded must
/// not hold up the others.
pub(super) const AT_ONCE: usize = 64;

pub(super) struct Socket {
    fd: OwnedFd,
    index: u32,
    protocol: u16,
}

impl Socket {
    pub(super) fn open(index: u32, protocol: u16) -> io::Result<Socket> {
        Ok(Socket { fd: sys::packet_socket(index, protocol)?, index, protocol })
    }

    /// Without carrier or room the packet is lost, as any may be on the way: whoever sends asks again.
    pub(super) fn send(&self, to: &[u8], packet: &[u8]) -> io::Result<()> {
        match sys::send_packet(&self.fd, self.index, self.protocol, to, packet) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS | libc::EAGAIN)) => Ok(()),
            other => other,
        }
    }

    /// The next packet that is there.
    pub(super) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(buffer.get(..length)),
                Err(Errno::EAGAIN) => return Ok(None),
                // The link went down: that is for netlink to tell, and the error is told once only.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
