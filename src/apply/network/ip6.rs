//! IPv6 sockets of one link: UDP for DHCPv6 (RFC 8415 §7.2), and ICMPv6 for router advertisements. Never waits, and never looks
//! into a message.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, recvmsg, sendto,
    setsockopt, socket, sockopt,
};

use super::kernel::On;
use crate::dhcp6::{CLIENT_PORT, EVERYBODY, SERVER_PORT};

/// What is sent goes to one place on the link.
pub(super) struct Socket6 {
    fd: OwnedFd,
    to: SocketAddrV6,
}

/// A message that has arrived.
pub(super) struct Arrived<'b> {
    pub(super) from: Ipv6Addr,
    /// The hop limit of the packet; 0 if the kernel does not say.
    pub(super) hops: u8,
    pub(super) bytes: &'b [u8],
}

/// All routers of a link (RFC 4291 §2.7.1).
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

impl Socket6 {
    /// For DHCPv6, from a link-local address that is usable.
    pub(super) fn dhcp(on: On<'_>, own: Ipv6Addr) -> io::Result<Socket6> {
        let fd = opened(SockType::Datagram, SockProtocol::Udp)?;
        // The network manager of the next stage may be there already.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        let own = SocketAddrV6::new(own, CLIENT_PORT, 0, on.index);
        bind(fd.as_raw_fd(), &SockaddrIn6::from(own))?;
        Ok(Socket6 { fd, to: SocketAddrV6::new(EVERYBODY, SERVER_PORT, 0, on.index) })
    }

    /// For advertisements of routers. `None`: the kernel has no IPv6.
    pub(super) fn routers(on: On<'_>) -> io::Result<Option<Socket6>> {
        let fd = match opened(SockType::Raw, SockProtocol::IcmpV6) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
            other => other?,
        };
        setsockopt(&fd, sockopt::BindToDevice, &on.name.as_str().into())?;
        setsockopt(&fd, sockopt::Ipv6RecvHopLimit, &true)?;
        // RFC 4861 §6.1.1
        setsockopt(&fd, sockopt::Ipv6MulticastHops, &255)?;
        Ok(Some(Socket6 { fd, to: SocketAddrV6::new(ROUTERS, 0, 0, on.index) }))
    }

    /// Sends a message. One that cannot be sent now is lost, as one may be on the way: callers ask again.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match sendto(self.fd.as_raw_fd(), bytes, &SockaddrIn6::from(self.to), MsgFlags::empty()) {
            Ok(_) => Ok(()),
            // The link went down, or its address has just gone.
            Err(
                Errno::ENETDOWN
                | Errno::ENOBUFS
                | Errno::EAGAIN
                | Errno::ENETUNREACH
                | Errno::EADDRNOTAVAIL
                | Errno::EHOSTUNREACH
                | Errno::ENODEV,
            ) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next message that has arrived; `None` when there is none.
    pub(super) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<Arrived<'b>>> {
        loop {
            let mut space = nix::cmsg_space!(libc::c_int);
            let mut slices = [IoSliceMut::new(buffer)];
            let received =
                recvmsg::<SockaddrIn6>(self.fd.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty());
            let (length, from, hops) = match received {
                Ok(received) => {
                    let hops = received.cmsgs().into_iter().flatten().find_map(|message| match message {
                        ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
                        _ => None,
                    });
                    (received.bytes, received.address, hops.unwrap_or(0))
                }
                Err(Errno::EAGAIN) => return Ok(None),
                // Errors of earlier messages are told once.
                Err(
                    Errno::EINTR | Errno::ENETDOWN | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH,
                ) => {
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            let Some(from) = from.map(|from| from.ip()) else { continue };
            return Ok(buffer.get(..length).map(|bytes| Arrived { from, hops, bytes }));
        }
    }
}

fn opened(kind: SockType, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Inet6, kind, flags, protocol)?)
}

impl AsFd for Socket6 {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
