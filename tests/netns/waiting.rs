//! Tests of the network before the payload while a node waits at a door: an administrator takes hours, leases end, links are pulled
//! out. A real dnsmasq gives the network.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use imprint::dialogue::{Dialogue, Told};
use imprint::line::{HostEvent, Kind, Stage};
use imprint::netlink::Netlink;
use imprint_tests::far_host::{Door, node, payload};

use super::finding::{HOST, RANGE, SERVER, SRV, begin, dnsmasq, machine, state};
use super::peer::Peer;
use crate::{ip, later, namespaces, veth};

/// RTMGRP_IPV4_IFADDR (linux/rtnetlink.h): addresses that are added, removed, or get another life.
const ADDRESSES: u32 = 0x10;

/// A door that keeps each node waiting until it is told to give the payload, and then answers every call.
struct Keeps {
    admit: Sender<()>,
    calls: Receiver<()>,
    _thread: JoinHandle<()>,
}

impl Keeps {
    fn open(peer: &Peer) -> Keeps {
        let listener = std::thread::scope(|scope| {
            let bound = scope.spawn(|| {
                peer.enter();
                TcpListener::bind("0.0.0.0:8444").unwrap()
            });
            bound.join().unwrap()
        });
        let ((admit, admitted), (call, calls)) = (channel(), channel());
        let thread = std::thread::spawn(move || {
            let mut door = Door::stream(listener.accept().unwrap().0);
            assert!(door.until(|event| *event == HostEvent::Challenged));
            door.host().send(Kind::Pending, b"an administrator must admit ABCD".to_vec());
            assert!(door.until(|event| *event == HostEvent::Delivered(Kind::Pending)));
            call.send(()).unwrap();
            admitted.recv().unwrap();
            assert!(door.give(b"good"));
            let first = std::thread::spawn(move || door.linger());
            for connection in listener.incoming() {
                let mut door = Door::stream(connection.unwrap());
                if door.until(|event| matches!(event, HostEvent::Opened(_, Stage::Busy))) && call.send(()).is_err() {
                    break;
                }
            }
            drop(first);
        });
        Keeps { admit, calls, _thread: thread }
    }
}

fn waits(dialogue: &Dialogue) {
    loop {
        match dialogue.hear(later()) {
            Some(Told::Waits { .. }) => return,
            Some(_) => {}
            None => panic!("it does not wait: {:?}", dialogue.tried()),
        }
    }
}

/// The lease gets another life. T1 is 3 s: the shortest that dnsmasq has.
fn is_renewed() {
    let mut news = Netlink::open(ADDRESSES).unwrap();
    news.changed(later()).unwrap();
    let shown = ip("-4 addr show dev eth0");
    assert!(shown.contains("192.0.2.100/24"), "{shown}");
}

/// An approval takes longer than a lease: the address stays, before the payload and behind it.
#[test]
fn a_lease_is_renewed_while_a_node_waits_at_the_door() {
    veth();
    let options = format!("{RANGE} --dhcp-option=option:T1,3 --domain=lab.example {SRV} {HOST}");
    let peer = Peer::start(&["p0"], &format!("{SERVER}; {}", dnsmasq("p0", &options)));
    let (root, before, door) = (machine(), state(), Keeps::open(&peer));
    let dialogue = node(b"good");
    let finding = begin("imprint.source=door", root.path(), &dialogue);
    waits(&dialogue);
    is_renewed();
    is_renewed();
    door.admit.send(()).unwrap();
    payload(&dialogue);
    finding.hold();
    is_renewed();
    is_renewed();
    drop(dialogue);
    finding.give_back(None, None);
    assert_eq!(state(), before);
}

/// A USB adapter is pulled out and put in again, behind the payload, which does not bring a network of its own. The kernel makes it
/// another link of the same name.
#[test]
fn a_link_that_comes_back_behind_the_payload_is_used_again() {
    namespaces();
    ip("link add eth0 address 02:00:00:00:00:01 type veth peer name p0");
    let bridged = SERVER.replace("p0", "br0");
    let options = format!("{RANGE} --domain=lab.example {SRV} {HOST}");
    let script = format!(
        "ip link add br0 type bridge; ip link set p0 master br0; ip link set p0 up; {bridged}; {}",
        dnsmasq("br0", &options)
    );
    let peer = Peer::start(&["p0"], &script);
    let (root, door) = (machine(), Keeps::open(&peer));
    let dialogue = node(b"good");
    let finding = begin("imprint.source=door", root.path(), &dialogue);
    waits(&dialogue);
    door.calls.recv().unwrap();
    door.admit.send(()).unwrap();
    payload(&dialogue);
    finding.hold();
    let index = crate::index("eth0");
    ip("link del eth0");
    // The index is never used again.
    ip("link add eth0 address 02:00:00:00:00:01 type veth peer name p0");
    assert_ne!(crate::index("eth0"), index);
    peer.takes("p0");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            peer.enter();
            ip("link set p0 master br0");
            ip("link set p0 up");
        });
    });
    let mut news = Netlink::open(ADDRESSES).unwrap();
    while !ip("-4 addr show dev eth0").contains("192.0.2.100/24") {
        news.changed(later()).unwrap();
    }
    // The network is the same again, and the place is called at over it.
    dialogue.call_anew();
    door.calls.recv_timeout(later().remaining()).expect("a second call");
    drop(dialogue);
    drop(finding);
    let shown = ip("-4 addr show dev eth0");
    assert!(!shown.contains("inet "), "{shown}");
}
