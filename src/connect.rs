//! Connections that are begun now and asked for later. Never waits: the caller waits for a descriptor that is writable, beside
//! whatever else it waits for. Nobody vouches for the other end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, connect, getsockopt, socket, sockopt,
};

/// Begins a connection. The socket does not block, and is writable once the connection is there, or has failed.
pub fn begin(family: AddressFamily, address: &dyn SockaddrLike) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), address) {
        // connect(2): after EINTR the connection is made all the same.
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(fd),
        Err(errno) => Err(errno.into()),
    }
}

/// Begins a connection over TCP.
pub fn begin_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    begin(family, &SockaddrStorage::from(address))
}

/// What has become of it. To be asked once the socket is writable.
pub fn outcome(fd: &OwnedFd) -> io::Result<()> {
    match getsockopt(fd, sockopt::SocketError)? {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}
