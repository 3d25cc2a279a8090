//! Packet sockets of one link. Never waits, and never looks into a packet.

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

/// Longer than any packet that this program reads. A longer packet is cut, and its decoder then refuses it.
pub(super) const BUFFER: usize = 4096;

/// The most packets of one link that are read before the other links get their turn: a flooded link must not delay the
/// others.
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

    /// Has the link take frames to this group.
    pub(super) fn join(&self, group: &[u8; 6]) -> io::Result<()> {
        sys::join_group(&self.fd, self.index, group)
    }

    /// Sends a packet. Without carrier or buffer space the packet is lost. That is not an error: packets get lost on
    /// the way as well, so callers ask again.
    pub(super) fn send(&self, to: &[u8], packet: &[u8]) -> io::Result<()> {
        match sys::send_packet(&self.fd, self.index, self.protocol, to, packet) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS | libc::EAGAIN)) => Ok(()),
            other => other,
        }
    }

    /// The next packet that has arrived; `None` when there is none.
    pub(super) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(buffer.get(..length)),
                Err(Errno::EAGAIN) => return Ok(None),
                // ENETDOWN: the link went down. The kernel says so once here, and netlink reports it as well.
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
