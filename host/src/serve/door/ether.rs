//! Ethernet frames of a port (docs/line-protocol.md, "Ethernet"): a socket for each tap device or port of a bridge, and a pipe
//! to each node that is heard there. The port is a fact; the address of a frame is a claim. A node is answered at its own
//! address and out of its own port, so that nobody else hears it. Never looks into a frame of the line protocol.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use imprint::line::Side;
use imprint::line::ether::{Capsule, ETHERTYPE, GROUP, MOST, Mac, frames};
use imprint::netlink::Netlink;
use imprint::sys;
use imprint::time::Deadline;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
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
const PACKET: usize = HEADER + MOST + 64;

/// The header of an Ethernet frame: where to, where from, type.
const HEADER: usize = 14;

/// A port with its socket.
struct Port {
    socket: AsyncFd<OwnedFd>,
    name: String,
    index: u32,
    /// The port's own address: where its frames come from, and what nodes name in frames that are for this host.
    mac: Mac,
    /// The link is a bridge, or on one: any of its ports may have brought a frame.
    is_shared: bool,
    /// A frame that is not for this door was told.
    told: AtomicBool,
}

/// A frame that was heard at a port.
#[derive(PartialEq, Eq, Debug)]
enum Heard<'a> {
    /// From this node, for this door.
    Frame(Mac, &'a [u8]),
    /// Of this door's own kind, and for somebody else: another address, another VLAN, or another host.
    Strange { from: Mac, to: Mac },
    /// No frame of a node, such as one that a switch has sent back.
    Nothing,
}

/// A node of a port.
struct Node {
    inbox: mpsc::Sender<Vec<u8>>,
    heard: Instant,
}

/// An error if this process may not open packet sockets.
pub(super) fn may_open() -> io::Result<()> {
    // Index 0 is every link. The socket is closed at once.
    sys::frame_socket(0, ETHERTYPE).map(drop)
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
            received = port.receive(hall) => match received {
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
    // It says HELLO again.
    if !enter(near, arrival, hall) {
        return;
    }
    let (inbox, frames) = mpsc::channel(INBOX);
    // Never full: it is new.
    let _ = inbox.try_send(text);
    nodes.insert(mac, Node { inbox, heard: now });
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
        let socket = sys::frame_socket(index, ETHERTYPE)?;
        // A card that is no port of a bridge does not hear the group otherwise.
        sys::join_group(&socket, index, &GROUP)?;
        #[expect(
            deprecated,
            reason = "the one in its place is unsafe, for values that do not own their descriptor; this one does"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        let mac = own_address(name)?;
        let is_shared = is_shared(index)?;
        Ok(Port { socket, name: name.to_owned(), index, mac, is_shared, told: AtomicBool::new(false) })
    }

    /// The next frame; `None`: it is not for this door.
    async fn receive(&self, hall: &Hall) -> io::Result<Option<(Mac, Vec<u8>)>> {
        let mut buffer = [0; PACKET];
        let receive = |fd: &OwnedFd| Ok(recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer)?);
        let (count, from) = self.socket.async_io(Interest::READABLE, receive).await?;
        // The kernel marks a frame of a VLAN as somebody else's (net/core/dev.c, __netif_receive_skb_core).
        let to_a_group = from.is_some_and(|from| from.pkttype() == libc::PACKET_MULTICAST);
        Ok(match heard(buffer.get(..count).unwrap_or_default(), to_a_group, self.mac) {
            Heard::Frame(mac, text) => Some((mac, text.to_vec())),
            Heard::Strange { from, to } => {
                self.stranger(from, to, hall);
                None
            }
            Heard::Nothing => None,
        })
    }

    /// Counts a frame that is for somebody else. The first one is told: somebody may have set it up wrongly.
    fn stranger(&self, from: Mac, to: Mac, hall: &Hall) {
        hall.shared.metrics.strangers.inc();
        if !self.told.swap(true, Ordering::Relaxed) {
            let [from, to] = [from, to].map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
            tracing::info!(
                "door ether:{}: a frame from {from} to {to} is for somebody else and is ignored; more of these are counted only",
                self.name
            );
        }
    }

    /// Sends a frame to a node. A frame that cannot be sent is lost, as any frame may be: the line protocol sends it again.
    fn send(&self, to: Mac, text: &[u8]) {
        let Some(packet) = (Capsule { from: Side::Host, to: None, text }).encode() else { return };
        let frame = [&to[..], &self.mac, &ETHERTYPE.to_be_bytes(), &packet].concat();
        if let Err(error) = sys::send_packet(self.socket.get_ref(), self.index, ETHERTYPE, &to, &frame) {
            tracing::debug!("door ether:{}: {error}", self.name);
        }
    }
}

/// What a frame is to a door whose port has the address `own`. `to_a_group`: the kernel takes it for one to a group.
fn heard(frame: &[u8], to_a_group: bool, own: Mac) -> Heard<'_> {
    let Some((to, rest)) = frame.split_first_chunk::<6>() else { return Heard::Nothing };
    let Some((from @ [first, ..], rest)) = rest.split_first_chunk::<6>() else { return Heard::Nothing };
    match rest.get(2..).and_then(Capsule::decode) {
        // The group bit: no machine has such an address (IEEE 802, clause 8.2.2).
        Some(Capsule { from: Side::Node, to: host, text }) if first & 1 == 0 => {
            if to_a_group && *to == GROUP && host.is_none_or(|host| host == own) {
                Heard::Frame(*from, text)
            } else {
                Heard::Strange { from: *from, to: host.filter(|_| *to == GROUP).unwrap_or(*to) }
            }
        }
        _ => Heard::Nothing,
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

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const NODE: Mac = [2, 0, 0, 0, 0, 9];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];

    fn frame(to: Mac, from: Mac, capsule: &[u8]) -> Vec<u8> {
        [&to[..], &from, &ETHERTYPE.to_be_bytes(), capsule].concat()
    }

    /// Attack and accident: frames of the same type that are not for this door. A port that is no port of a bridge hears them,
    /// if it is promiscuous.
    #[test]
    fn a_frame_for_somebody_else_is_strange_and_one_for_this_door_is_not() {
        let text = b"#0rAi3fMK,G\n";
        let capsule = |from, to| Capsule { from, to, text }.encode().unwrap();
        let everybody = capsule(Side::Node, None);
        for to in [None, Some(OWN)] {
            let frame = frame(GROUP, NODE, &capsule(Side::Node, to));
            assert_eq!(heard(&frame, true, OWN), Heard::Frame(NODE, text));
            // In a VLAN.
            assert_eq!(heard(&frame, false, OWN), Heard::Strange { from: NODE, to: to.unwrap_or(GROUP) });
        }
        for (to, group) in [
            (OTHER, false),
            (OWN, false),
            ([0xff; 6], false),
            ([0x01, 0x80, 0xc2, 0, 0, 0x00], true),
            ([1, 0, 0x5e, 0, 0, 0xfb], true),
            ([0x33, 0x33, 0, 0, 0, 1], true),
        ] {
            assert_eq!(heard(&frame(to, NODE, &everybody), group, OWN), Heard::Strange { from: NODE, to });
        }
        // For the other host that this node speaks with.
        let frame_of = frame(GROUP, NODE, &capsule(Side::Node, Some(OTHER)));
        assert_eq!(heard(&frame_of, true, OWN), Heard::Strange { from: NODE, to: OTHER });
        // Sent back by a switch; from an address that no machine has; cut.
        assert_eq!(heard(&frame(GROUP, OWN, &capsule(Side::Host, None)), true, OWN), Heard::Nothing);
        assert_eq!(heard(&frame(GROUP, [3, 0, 0, 0, 0, 9], &everybody), true, OWN), Heard::Nothing);
        for cut in 0..HEADER + 10 {
            assert_eq!(heard(frame(GROUP, NODE, &everybody).get(..cut).unwrap(), true, OWN), Heard::Nothing, "{cut}");
        }
    }
}
