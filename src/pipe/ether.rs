//! The Ethernet frames of a link: a socket for the link, and a pipe to each host that is heard on it. Brings a link up that is
//! down, and down again afterwards. Never looks into a frame of the line protocol. Whoever is next to the link can send here.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_indextoname;
use nix::sys::socket::{LinkAddr, recvfrom};

use super::{Fault, PipeError};
use crate::line::Side;
use crate::line::ether::{Capsule, ETHERTYPE, GROUP, MOST, Mac, frames};
use crate::machine;
use crate::netlink::message::{ARPHRD_ETHER, Answer, IFF_UP, LinkMessage, Request};
use crate::netlink::{Netlink, RequestError};
use crate::payload::InterfaceName;
use crate::sys;
use crate::time::Deadline;

/// A link with its socket. Cloning it shares the socket.
#[derive(Clone)]
pub struct Link(Arc<Socket>);

struct Socket {
    fd: OwnedFd,
    index: u32,
    name: InterfaceName,
}

/// A pipe to one host on a link, or to all of them.
pub struct Peer {
    link: Link,
    /// `None`: every host. Nothing comes in then.
    mac: Option<Mac>,
    name: String,
    /// Bytes that have come and were not read yet.
    inbox: VecDeque<u8>,
}

/// A link that was down, and that this program has brought up, without IPv6: a router on the link would give it addresses and
/// routes, and the payload's network begins with a link that has none.
#[derive(Debug, PartialEq, Eq)]
pub struct Raised {
    index: u32,
    /// The kernel's file that turns IPv6 off on the link, and what it said before.
    ipv6: Option<(PathBuf, String)>,
    /// The payload's network may use the link.
    left: bool,
}

/// What has come on a link.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing.
    Nothing,
    /// A frame that is not for this node.
    Dropped,
    /// A frame of the line protocol, and the address of the host that sent it.
    Frame(Mac, Vec<u8>),
}

/// The kernel answers at once.
const ANSWER: Duration = Duration::from_secs(10);

/// The most bytes that wait to be read. More are dropped.
const INBOX: usize = 4096;

/// The links that this names, in the kernel's order: the named one, or every Ethernet link that is no link to a management
/// controller. Links that udevd still works on are left out: once they are up they cannot be renamed (before Linux 6.2).
pub fn links(root: &Path, named: Option<&InterfaceName>) -> Result<Vec<LinkMessage>, RequestError> {
    let mut links = Netlink::open(0)?.links(Deadline::after(ANSWER))?;
    let controllers = machine::host_interfaces(root);
    links.retain(|link| {
        let wanted = match (named, &link.name) {
            (Some(named), Some(name)) => named == name,
            (None, _) => machine::link_facts(link, root, &controllers).is_some_and(|facts| !facts.controller),
            (Some(_), None) => false,
        };
        wanted && link.hardware == ARPHRD_ETHER && machine::is_named(root, link.index)
    });
    Ok(links)
}

impl Link {
    /// Opens a socket on the link, and brings the link up if it is down.
    pub fn open(link: &LinkMessage, root: &Path) -> Result<(Link, Option<Raised>), PipeError> {
        let name = link.name.clone();
        let failed = |why: String| PipeError::Far {
            name: name.as_ref().map_or("ether".to_owned(), |name| format!("ether:{name}")),
            fault: Fault::Link(why),
        };
        let Some(link_name) = name.clone() else { return Err(failed("its name is no name of a link".to_owned())) };
        let fd = sys::packet_socket(link.index, ETHERTYPE).map_err(|error| {
            failed(match error.raw_os_error() {
                Some(libc::EAFNOSUPPORT) => {
                    "this kernel has no packet sockets; the image needs the module af_packet".to_owned()
                }
                _ => format!("packet socket: {error}"),
            })
        })?;
        let raised = match link.flags & IFF_UP {
            0 => Some(
                Raised::raise(link.index, root, &link_name)
                    .map_err(|error| failed(format!("bringing it up: {error}")))?,
            ),
            _ => None,
        };
        Ok((Link(Arc::new(Socket { fd, index: link.index, name: link_name })), raised))
    }

    /// The index of the link.
    pub fn index(&self) -> u32 {
        self.0.index
    }

    /// The name of the link.
    pub fn name(&self) -> &InterfaceName {
        &self.0.name
    }

    /// Whether the machine still has the link. One that comes in its place has another index.
    pub fn is_there(&self) -> bool {
        if_indextoname(self.0.index).is_ok()
    }

    /// A pipe to this host, or to every host on the link.
    pub fn peer(&self, mac: Option<Mac>) -> Peer {
        let link = &self.0.name;
        let name = match mac {
            None => format!("ether:{link}"),
            Some([a, b, c, d, e, f]) => format!("ether:{link} {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        };
        Peer { link: self.clone(), mac, name, inbox: VecDeque::new() }
    }

    /// The next frame. Frames that are not for this node or not of a host are dropped: those of other nodes, its own that a
    /// switch has sent back, and those of a VLAN, which the kernel marks as somebody else's (net/core/dev.c,
    /// __netif_receive_skb_core).
    pub fn receive(&self) -> Result<Received, PipeError> {
        let mut buffer = [0; MOST + 1];
        match recvfrom::<LinkAddr>(self.0.fd.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) if from.pkttype() == libc::PACKET_HOST => {
                let capsule = buffer.get(..length).and_then(Capsule::decode);
                // The group bit: no machine has such an address (IEEE 802, clause 8.2.2).
                let mac = from.addr().filter(|[first, ..]| first & 1 == 0);
                Ok(match (capsule, mac) {
                    (Some(Capsule { from: Side::Host, text, .. }), Some(mac)) => Received::Frame(mac, text.to_vec()),
                    _ => Received::Dropped,
                })
            }
            // ENETDOWN: the link went down. It may come back.
            Ok(_) | Err(Errno::EINTR | Errno::ENETDOWN) => Ok(Received::Dropped),
            Err(Errno::EAGAIN) => Ok(Received::Nothing),
            Err(errno) => Err(self.failed(errno.into())),
        }
    }

    fn send(&self, to: Option<Mac>, text: &[u8]) -> Result<(), PipeError> {
        let Some(bytes) = (Capsule { from: Side::Node, to, text }).encode() else { return Ok(()) };
        match sys::send_packet(&self.0.fd, self.0.index, ETHERTYPE, &GROUP, &bytes) {
            // Without carrier or room the frame is lost, as on the way. The protocol sends it again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(self.failed(error)),
            Ok(()) => Ok(()),
        }
    }

    fn failed(&self, error: io::Error) -> PipeError {
        PipeError::Far { name: format!("ether:{}", self.0.name), fault: Fault::Broken(error) }
    }
}

/// Readable when [`Link::receive`] should be called.
impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Peer {
    /// `ether:eth0 52:54:00:12:34:56`
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index of the link.
    pub fn index(&self) -> u32 {
        self.link.index()
    }

    /// The name of the link.
    pub fn link(&self) -> &InterfaceName {
        self.link.name()
    }

    /// The host's address; `None`: every host.
    pub fn mac(&self) -> Option<Mac> {
        self.mac
    }

    /// Takes bytes that have come from the host.
    pub fn take(&mut self, bytes: &[u8]) {
        if self.inbox.len().saturating_add(bytes.len()) <= INBOX {
            self.inbox.extend(bytes);
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.inbox.len());
        for (place, byte) in buffer.iter_mut().zip(self.inbox.drain(..count)) {
            *place = byte;
        }
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PipeError> {
        frames(bytes).try_for_each(|text| self.link.send(self.mac, text))
    }
}

impl Raised {
    fn raise(index: u32, root: &Path, name: &InterfaceName) -> Result<Raised, RequestError> {
        let switch = root.join("proc/sys/net/ipv6/conf").join(name.as_str()).join("disable_ipv6");
        // A kernel without IPv6 has no such file.
        let before = std::fs::read_to_string(&switch).ok();
        let ipv6 = before.filter(|_| std::fs::write(&switch, OFF).is_ok()).map(|before| (switch, before));
        // Made first, so that all is given back if the link cannot be brought up.
        let raised = Raised { index, ipv6, left: false };
        let request = Request::SetLink { index, mtu: None, up: true };
        Netlink::open(0)?.request(&request, Deadline::after(ANSWER))?;
        Ok(raised)
    }

    /// From now on the payload's network may use the link, and decides about it then.
    pub fn leave(&mut self) {
        self.left = true;
    }

    /// Whether the payload's network uses the link: it has turned IPv6 on there, or given it an IPv4 address.
    fn is_used(&self) -> bool {
        let on = |(switch, _): &(PathBuf, String)| std::fs::read_to_string(switch).is_ok_and(|now| now.trim() != OFF);
        self.left && (self.ipv6.as_ref().is_some_and(on) || self.has_ipv4())
    }

    fn has_ipv4(&self) -> bool {
        let request = Request::Addresses { ipv6: false };
        let addresses = Netlink::open(0).and_then(|mut netlink| netlink.request(&request, Deadline::after(ANSWER)));
        let here = |address: &Answer| matches!(address, Answer::Address { index, .. } if *index == self.index);
        addresses.is_ok_and(|addresses| addresses.iter().any(here))
    }
}

/// Turns IPv6 off.
const OFF: &str = "1";

/// Brings the link down again, unless the payload's network uses it, and gives IPv6 back. Errors are ignored: the link may be gone.
impl Drop for Raised {
    fn drop(&mut self) {
        if !self.is_used() {
            let request = Request::LinkDown { index: self.index };
            let _ = Netlink::open(0).and_then(|mut netlink| netlink.request(&request, Deadline::after(ANSWER)));
        }
        let off = |switch: &PathBuf| std::fs::read_to_string(switch).is_ok_and(|now| now.trim() == OFF);
        if let Some((switch, before)) = self.ipv6.as_ref().filter(|(switch, _)| off(switch)) {
            let _ = std::fs::write(switch, before);
        }
    }
}
