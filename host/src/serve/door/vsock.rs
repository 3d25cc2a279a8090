//! vsock(7): sockets between a hypervisor and its guests. The hypervisor vouches for a caller's context id, so it is a fact.
//! Never looks at what a caller says.

use std::io;
use std::os::fd::OwnedFd;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::Arrival;
use crate::admission::Facts;

pub(super) const WHAT: &str = "has this machine vsock (modprobe vhost_vsock), and does no other program have the port?";

/// Every context id of this machine (VMADDR_CID_ANY).
const ANY: u32 = u32::MAX;
/// The first context id of a guest. Smaller ones are this machine itself, or its own hypervisor (vsock(7)).
const FIRST_GUEST: u32 = 3;
const BACKLOG: i32 = 1024;

/// A listening socket.
pub(super) struct VsockListener(AsyncFd<Socket>);

impl VsockListener {
    pub(super) fn bind(port: u32) -> io::Result<VsockListener> {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM.cloexec().nonblocking(), None)?;
        socket.bind(&SockAddr::vsock(ANY, port))?;
        socket.listen(BACKLOG)?;
        #[expect(
            deprecated,
            reason = "the one in its place is unsafe, for values that do not own their descriptor; a Socket does"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        Ok(VsockListener(socket))
    }

    pub(super) async fn accept(&self) -> io::Result<(UnixStream, Arrival)> {
        let (socket, peer) = self.0.async_io(Interest::READABLE, Socket::accept).await?;
        socket.set_nonblocking(true)?;
        // Reading and writing are the same system calls for all stream sockets, and nothing asks this one for its address.
        let stream = std::os::unix::net::UnixStream::from(OwnedFd::from(socket));
        Ok((UnixStream::from_std(stream)?, arrival(peer.as_vsock_address().map(|(cid, _)| cid))))
    }
}

fn arrival(cid: Option<u32>) -> Arrival {
    let peer = cid.map_or_else(|| "vsock".to_owned(), |cid| format!("vsock:{cid}"));
    let cid = cid.filter(|cid| (FIRST_GUEST..ANY).contains(cid));
    Arrival { from: peer.clone(), peer, facts: Facts { cid, ..Facts::default() }, patient: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: a process of this machine calls at the door, to be taken for a guest.
    #[test]
    fn only_a_guest_has_a_context_id_that_is_a_fact() {
        for (cid, fact) in
            [(3, Some(3)), (4_294_967_294, Some(4_294_967_294)), (2, None), (1, None), (0, None), (ANY, None)]
        {
            assert_eq!(arrival(Some(cid)).facts, Facts { cid: fact, ..Facts::default() });
        }
        assert_eq!(arrival(None).facts, Facts::default());
        assert_eq!(arrival(Some(7)).peer, "vsock:7");
    }
}
