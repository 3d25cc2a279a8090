//! A door in a test: the host's end of one line, over a connection or over a link, that gives a node what the test says. Also a
//! node's lines without the rest of the node.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use imprint::dialogue::{Dialogue, Judge, Told};
use imprint::line::ether::{Capsule, ETHERTYPE, Mac, frames};
use imprint::line::frame::Hello;
use imprint::line::{End, Host, HostEvent, Kind, LineKey, Nonce, Shape, Side, Versions, Wire, seal};
use imprint::pool::Seeded;
use imprint::port::Signals;
use imprint::secret::Secret;
use imprint::sys;
use imprint::time::Deadline;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{LinkAddr, MsgFlags, recv, recvfrom};

use crate::patience::PATIENCE;

/// The host's end.
pub struct Door {
    way: Way,
    wire: Wire<Host>,
    /// What has come and was not asked for yet.
    events: VecDeque<HostEvent>,
}

enum Way {
    Stream(File),
    Link { fd: OwnedFd, index: u32, own: Mac, node: Option<Mac> },
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().try_into().unwrap()
}

fn host(nonce: u8) -> Wire<Host> {
    Wire::new(Host::new(Nonce([nonce; 8]), false, Shape::default()), None)
}

impl Door {
    /// At the host's end of a connection.
    pub fn stream(connection: impl Into<OwnedFd>) -> Door {
        let fd = connection.into();
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        Door { way: Way::Stream(File::from(fd)), wire: host(3), events: VecDeque::new() }
    }

    /// On this link: a tap, or a port of a bridge. Answers the first node that it hears, and calls it if that speaks with
    /// another host.
    pub fn link(name: &str) -> Door {
        let index = nix::net::if_::if_nametoindex(name).unwrap();
        let fd = sys::packet_socket(index, ETHERTYPE).unwrap();
        let nonce = u8::try_from(index).unwrap();
        Door { way: Way::Link { fd, index, own: mac(name), node: None }, wire: host(nonce), events: VecDeque::new() }
    }

    /// The end itself.
    pub fn host(&mut self) -> &mut Host {
        self.wire.end_mut()
    }

    /// The next event. `None`: the node has closed the connection.
    pub fn event(&mut self) -> Option<HostEvent> {
        let patience = Deadline::after(PATIENCE);
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let polled = self.wire.poll(now());
            self.write(&polled.bytes);
            self.events.extend(polled.events);
            if !self.events.is_empty() {
                continue;
            }
            assert!(!patience.expired(), "the node says nothing");
            let until = polled.next.map_or(PATIENCE, |at| Duration::from_micros(at.saturating_sub(now())));
            sys::poll(&mut [PollFd::new(self.fd(), PollFlags::POLLIN)], patience.at_most(until)).unwrap();
            match self.read() {
                Some(bytes) => self.wire.push(&bytes, now()),
                None => return None,
            }
        }
    }

    /// Waits for this event.
    pub fn until(&mut self, wanted: impl Fn(&HostEvent) -> bool) -> bool {
        while let Some(event) = self.event() {
            if wanted(&event) {
                return true;
            }
        }
        false
    }

    /// Gives the node a payload, signed or not, for its newest challenge. Whether it has arrived.
    pub fn give(&mut self, payload: &[u8]) -> bool {
        if self.host().challenge().is_none() && !self.until(|event| *event == HostEvent::Challenged) {
            return false;
        }
        let host = self.wire.end_mut();
        let (challenge, _) = host.challenge().unwrap();
        let secret = Secret::new([&challenge.0[..], payload].concat());
        let (node, session) = (host.node().unwrap().clone(), host.session().unwrap());
        let sealed = seal::seal(&secret, &node, session, Kind::Fresh, host.next_number()).unwrap();
        host.send(Kind::Fresh, sealed);
        self.until(|event| *event == HostEvent::Delivered(Kind::Fresh))
    }

    /// Answers until the node closes the connection.
    pub fn linger(mut self) {
        while self.event().is_some() {}
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Stream(file) => file.as_fd(),
            Way::Link { fd, .. } => fd.as_fd(),
        }
    }

    /// `None`: the other end has closed.
    fn read(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        match &mut self.way {
            Way::Stream(file) => match file.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => buffer.truncate(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => buffer.clear(),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            },
            Way::Link { fd, own, node, .. } => match recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer) {
                Ok((count, from)) => {
                    let from = from.and_then(|from| from.addr());
                    let of_node =
                        |capsule: &Capsule<'_>| capsule.from == Side::Node && (node.is_none() || *node == from);
                    let capsule = Capsule::decode(&buffer[..count]).filter(of_node);
                    *node = node.or(capsule.and(from));
                    let text = match capsule {
                        Some(Capsule { to: Some(to), .. }) if to != *own => {
                            self.wire.end_mut().stranger();
                            None
                        }
                        capsule => capsule.map(|capsule| capsule.text.to_vec()),
                    };
                    buffer = text.unwrap_or_default();
                }
                Err(nix::errno::Errno::EAGAIN) => buffer.clear(),
                Err(error) => panic!("{error}"),
            },
        }
        Some(buffer)
    }

    fn write(&mut self, bytes: &[u8]) {
        match &mut self.way {
            // The node may have closed.
            Way::Stream(file) => drop(file.write_all(bytes)),
            Way::Link { fd, index, node: Some(node), .. } => {
                for text in frames(bytes) {
                    let capsule = Capsule { from: Side::Host, to: None, text }.encode().unwrap();
                    sys::send_packet(fd, *index, ETHERTYPE, node, &capsule).unwrap();
                }
            }
            Way::Link { .. } => {}
        }
    }
}

/// The hardware address of a link.
pub fn mac(name: &str) -> Mac {
    let addresses = nix::ifaddrs::getifaddrs().unwrap();
    let mut of_link = addresses.filter(|entry| entry.interface_name == name);
    of_link.find_map(|entry| entry.address?.as_link_addr()?.addr()).unwrap()
}

/// All Ethernet payloads of our type that have come on a socket.
pub fn all_on(fd: &impl AsFd) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok(count) = recv(fd.as_fd().as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        all.push(buffer[..count].to_vec());
    }
    all
}

/// A node that wants a payload, without any line yet. `good`: the payloads that it takes.
pub fn node(good: &'static [u8]) -> Dialogue {
    let key = LineKey::generate(&Seeded::ready(Deadline::after(PATIENCE)).unwrap()).unwrap();
    let hello = Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: true,
        nonce: Nonce([7; 8]),
        key: key.public(),
        uuid: None,
        serial: Some("SN-7".to_owned()),
        macs: Vec::new(),
    };
    let judge: Judge = Box::new(move |bytes, _| match bytes.expose() == good {
        true => Ok(()),
        false => Err("nobody has signed it".to_owned()),
    });
    let signals = Signals::catch().unwrap();
    Dialogue::start(signals, Vec::new(), key, hello, Some(judge), None, Path::new("/")).unwrap()
}

/// Everything that is told until a payload has come: the name of its line, its bytes, and the words before.
pub fn payload(dialogue: &Dialogue) -> (String, Vec<u8>, Vec<String>) {
    let mut words = Vec::new();
    loop {
        match dialogue.hear(Deadline::after(PATIENCE)) {
            Some(Told::Payload { line, bytes, .. }) => return (line, bytes.expose().to_vec(), words),
            Some(told) => words.push(told.to_string()),
            None => panic!("no payload: {words:?}; {:?}", dialogue.tried()),
        }
    }
}
