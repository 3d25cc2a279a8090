//! Reserves ports that a test names before a server listens on them: in a payload, a certificate or a command line. Never
//! listens itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket, sockopt,
};

/// A port that is reserved while this lives. Its socket is bound and does not listen: the kernel does not hand the port out
/// as a free one, connections to it are refused, and a server can bind it by number with SO_REUSEADDR, as servers do
/// (socket(7)).
pub struct Reserved {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl Reserved {
    /// A port of 127.0.0.1.
    pub fn new() -> Reserved {
        Reserved::at(Ipv4Addr::LOCALHOST.into())
    }

    /// A port of another address of this machine.
    pub fn at(ip: IpAddr) -> Reserved {
        let family = if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, 0))).unwrap();
        let bound: SockaddrStorage = getsockname(socket.as_raw_fd()).unwrap();
        let port = match (bound.as_sockaddr_in(), bound.as_sockaddr_in6()) {
            (Some(address), _) => address.port(),
            (_, Some(address)) => address.port(),
            _ => panic!("{bound:?}"),
        };
        Reserved { address: SocketAddr::new(ip, port), _socket: socket }
    }

    /// Address and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Whether a server listens on the port. Makes no connection: some servers take only one.
    pub fn is_listened_on(&self) -> bool {
        // Documentation/networking/proc_net_tcp.rst: local address and port in hexadecimal, 0A is LISTEN.
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X}", self.port());
        table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .any(|fields| fields.get(1).is_some_and(|local| local.ends_with(&port)) && fields.get(3) == Some(&"0A"))
    }
}

impl Default for Reserved {
    fn default() -> Reserved {
        Reserved::new()
    }
}
