//! Ethernet frames of a port (docs/line-protocol.md, "Ethernet"): a socket for each tap device or port of a bridge, and a pipe
//! to each node that is heard there. The port is a fact; the address of a frame is a claim. A node is answered at its own
//! address and out of its own port, so that nobody else hears it. Never looks into a frame of the line protocol.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use imprint::line::Side;
use imprint::line::ether::{Capsule, ETHERTYPE, MOST, Mac, frames};
use imprint::netlink::Netlink;
use imprint::sys;
use imprint::time::Deadline;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, recvfrom};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, Interest, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

use super::Arrival;
use super::enter::enter;
use super::hall::Hall;
use crate::admission::Facts;

pub(super) const WHAT: &str = "packet sockets need the capability CAP_NET_RAW (AmbientCapabilities= in the unit) and the module \
                               af_packet";

/// The most nodes of a port at a time. The one that was silent for the longest makes room for another.
const NODES: usize = 1024;
/// Frames of one node that wait to be read. More are dropped; the line protocol sends them again.
const INBOX: usize = 16;
/// Bytes that wait between a visit and the port.
const PIPE: usize = 8 * 1024;
/// How often a port is looked at: a tap device goes and comes with its virtual machine.
const LOOK: Duration = Duration::from_secs(1);
/// The longest packet that is read; more of it is cut, and then refused.
const PACKET: usize = MOST + 64;

/// A port with its socket.
struct Port {
    socket: AsyncFd<OwnedFd>,
    name: String,
    index: u32,
    /// The port's own address, which nodes name in frames that are for this host.
    mac: Mac,
    /// The link is a bridge, or on one: any of its ports may have brought a frame.
    is_shared: bool,
}

/// A node of a port.
struct Node {
    inbox: mpsc::Sender<Vec<u8>>,
    heard: Instant,
}

/// An error if this process may not open packet sockets.
pub(super) fn may_open() -> io::Result<()> {
    // Index 0 is every link. The socket is closed at once.
    sys::packet_socket(0, ETHERTYPE).map(drop)
}

/// Serves a port for as long as the server runs, whenever its link is there.
pub(super) async fn serve(name: String, hall: Arc<Hall>) {
    let mut told = false;
    loop {
        match Port::open(&name) {
            Ok(port) => {
                tracing::info!("door ether:{name}: open");
                if port.is_shared {
                    tracing::warn!(
                        "door ether:{name}: the link is a bridge, so this door does not know which machine calls: no record \
                         with bind = {{ tap = \"{name}\" }} and no admit = \"wire\" lets a node in here; name the ports of the \
                         bridge instead"
                    );
                }
                told = false;
                let why = listen(Arc::new(port), &hall).await;
                tracing::info!("door ether:{name}: {why}");
            }
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!("door ether:{name}: {error}; it is opened when there is such a link");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes the frames of a port until its link is gone; the answer says so.
async fn listen(port: Arc<Port>, hall: &Arc<Hall>) -> String {
    let mut nodes: HashMap<Mac, Node> = HashMap::new();
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            received = port.receive() => match received {
                Ok(Some((mac, text))) => hand_over(&port, &mut nodes, mac, text, hall),
                Ok(None) => {}
                // Told again by every call while the link is down; it may come up again.
                Err(error) if error.raw_os_error() == Some(Errno::ENETDOWN as i32) => { look.tick().await; }
                Err(error) => return error.to_string(),
            },
            _ = look.tick() => {
                nodes.retain(|_, node| !node.inbox.is_closed());
                if if_nametoindex(port.name.as_str()) != Ok(port.index) {
                    return "the link is gone".to_owned();
                }
            }
        }
    }
}

/// Hands a frame to the visit of its node, and begins one for a node that was not heard before.
fn hand_over(port: &Arc<Port>, nodes: &mut HashMap<Mac, Node>, mac: Mac, text: Vec<u8>, hall: &Arc<Hall>) {
    let now = Instant::now();
    if let Some(node) = nodes.get_mut(&mac).filter(|node| !node.inbox.is_closed()) {
        node.heard = now;
        // A full inbox drops the frame.
        let _ = node.inbox.try_send(text);
        return;
    }
    if nodes.len() >= NODES
        && let Some(silent) = nodes.iter().min_by_key(|(_, node)| node.heard).map(|(mac, _)| *mac)
    {
        nodes.remove(&silent);
    }
    let [a, b, c, d, e, f] = mac;
    let name = &port.name;
    let arrival = Arrival {
        from: format!("ether:{name} {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        peer: format!("ether:{name}"),
        facts: Facts { tap: Some(name.clone()).filter(|_| !port.is_shared), ..Facts::default() },
        patient: false,
    };
    let (near, far) = duplex(PIPE);
    let (inbox, frames) = mpsc::channel(INBOX);
    // Never full: it is new.
    let _ = inbox.try_send(text);
    nodes.insert(mac, Node { inbox, heard: now });
    enter(near, arrival, hall);
    tokio::spawn(pass(Arc::clone(port), mac, far, frames));
}

/// Carries frames between a visit and its node, until either is gone.
async fn pass(port: Arc<Port>, mac: Mac, far: DuplexStream, mut inbox: mpsc::Receiver<Vec<u8>>) {
    let (mut reader, mut writer) = tokio::io::split(far);
    let mut out: Vec<u8> = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        tokio::select! {
            text = inbox.recv() => match text {
                // An error: the visit is over.
                Some(text) => if writer.write_all(&text).await.is_err() { return },
                None => return,
            },
            read = reader.read(&mut buffer) => match read {
                Ok(count @ 1..) => {
                    out.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    let whole = out.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
                    let rest = out.split_off(whole);
                    for text in frames(&out) {
                        port.send(mac, text);
                    }
                    out = rest;
                }
                _ => return,
            },
        }
    }
}

impl Port {
    fn open(name: &str) -> io::Result<Port> {
        let index = if_nametoindex(name)?;
        let socket = sys::packet_socket(index, ETHERTYPE)?;
        #[expect(
            deprecated,
            reason = "the one in its place is unsafe, for values that do not own their descriptor; this one does"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        let mac = own_address(name)?;
        let is_shared = is_shared(index)?;
        Ok(Port { socket, name: name.to_owned(), index, mac, is_shared })
    }

    /// The next packet; `None`: it is not for this host. Those of other hosts, of other versions and those that a switch has
    /// sent back are not.
    async fn receive(&self) -> io::Result<Option<(Mac, Vec<u8>)>> {
        let mut buffer = [0; PACKET];
        let receive = |fd: &OwnedFd| Ok(recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer)?);
        let (count, from) = self.socket.async_io(Interest::READABLE, receive).await?;
        let mac = from.and_then(|from| from.addr());
        let capsule = buffer.get(..count).and_then(Capsule::decode);
        Ok(match (mac, capsule) {
            (Some(mac), Some(Capsule { from: Side::Node, to, text })) if to.is_none_or(|to| to == self.mac) => {
                Some((mac, text.to_vec()))
            }
            _ => None,
        })
    }

    /// Sends a frame to a node. A frame that cannot be sent is lost, as any frame may be: the line protocol sends it again.
    fn send(&self, to: Mac, text: &[u8]) {
        let Some(packet) = (Capsule { from: Side::Host, to: None, text }).encode() else { return };
        if let Err(error) = sys::send_packet(self.socket.get_ref(), self.index, ETHERTYPE, &to, &packet) {
            tracing::debug!("door ether:{}: {error}", self.name);
        }
    }
}

/// The address of a link. Asked of the kernel, not of sysfs: a sysfs may show the links of another network namespace.
fn own_address(name: &str) -> io::Result<Mac> {
    let mut links = getifaddrs()?.filter(|link| link.interface_name == name);
    let mac = links.find_map(|link| link.address?.as_link_addr()?.addr());
    mac.ok_or_else(|| io::Error::other("it has no Ethernet address"))
}

/// Links that take the frames of many ports for their own.
const SHARED: [&str; 2] = ["bridge", "openvswitch"];
/// The most links one on the other that are looked at.
const DEEP: usize = 8;
/// The kernel answers at once.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether the link is a bridge, or on one like a VLAN of a bridge.
fn is_shared(index: u32) -> io::Result<bool> {
    let until = Deadline::after(ANSWER);
    let mut netlink = Netlink::open(0).map_err(io::Error::other)?;
    let mut next = Some(index);
    for _ in 0..DEEP {
        // A link on another one has its index, and one that is on none may name itself.
        let Some(index) = next else { return Ok(false) };
        let link = netlink.link(index, until).map_err(io::Error::other)?;
        if link.kind.as_deref().is_some_and(|kind| SHARED.contains(&kind)) {
            return Ok(true);
        }
        // The other end of a veth may be in another namespace, and is no link below.
        next = link.lower.filter(|lower| *lower != index && link.kind.as_deref() != Some("veth"));
    }
    Ok(false)
}
