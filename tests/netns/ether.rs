//! Tests of lines in Ethernet frames: a node on one link, a host on the port of a bridge, and spies on its other ports.

use std::process::Command;

use imprint::dialogue::Told;
use imprint::hex;
use imprint::line::ether::{Capsule, ETHERTYPE, GROUP};
use imprint::line::frame::{Frame, Packet};
use imprint::line::{HostEvent, Kind, Side, Stage, Versions};
use imprint::pipe::Target;
use imprint::sys;
use imprint_tests::far_host::{Door, all_on, mac, node, payload};
use nix::poll::{PollFd, PollFlags};

use crate::{index, ip, later, namespaces};

/// The node's link eth0, down. Its other end p0 is a port of the bridge br0, and so is s0, whose other end s1 is a machine.
fn bridge() {
    namespaces();
    for words in [
        "link add br0 type bridge",
        "link add eth0 type veth peer name p0",
        "link add s0 type veth peer name s1",
        "link set p0 master br0",
        "link set s0 master br0",
        "link set br0 up",
        "link set p0 up",
        "link set s0 up",
        "link set s1 up",
    ] {
        ip(words);
    }
}

/// The same with a third machine q1, and a bridge that was told to forward the group.
fn forwarding_bridge() {
    bridge();
    for words in [
        "link add q0 type veth peer name q1",
        "link set q0 master br0",
        "link set q0 up",
        "link set q1 up",
        "link set br0 type bridge group_fwd_mask 0x4000",
    ] {
        ip(words);
    }
}

fn named(link: &str) -> Target {
    Target::Ether(Some(link.try_into().unwrap()))
}

fn is_up(link: &str) -> bool {
    ip(&format!("link show dev {link}")).split(['<', '>']).nth(1).unwrap().split(',').any(|flag| flag == "UP")
}

/// Waits until frames have come on the socket.
fn wait(fd: &impl std::os::fd::AsFd) {
    assert!(sys::poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], later()).unwrap());
}

/// A whole delivery, while somebody listens on another port of the bridge, on the machine behind it, and on the bridge itself.
/// Premise: an ordinary multicast frame of the same type reaches all three.
#[test]
fn what_a_node_says_does_not_pass_the_bridge() {
    bridge();
    let spies = ["s1", "s0", "br0"].map(|link| (link, sys::packet_socket(index(link), ETHERTYPE).unwrap()));
    let dialogue = node(b"good");
    let mut door = Door::link("p0");
    dialogue.call(vec![named("eth0")]);
    assert!(door.give(b"good"));
    let (line, bytes, _) = payload(&dialogue);
    let [a, b, c, d, e, f] = mac("p0");
    assert_eq!(line, format!("ether:eth0 {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
    assert_eq!(bytes, b"good");
    let eth0 = sys::packet_socket(index("eth0"), ETHERTYPE).unwrap();
    sys::send_packet(&eth0, index("eth0"), ETHERTYPE, &[1, 0, 0x5e, 0, 0, 0xfb], &[b'.'; 46]).unwrap();
    for (link, spy) in spies {
        if link == "s0" {
            // What leaves by s0 comes in at s1, and nothing comes in at s0.
            assert_eq!(all_on(&spy), Vec::<Vec<u8>>::new());
            continue;
        }
        wait(&spy);
        assert_eq!(all_on(&spy), [vec![b'.'; 46]], "{link}");
    }
    drop(dialogue);
}

/// A bridge that was told to forward the group (group_fwd_mask) lets everybody read and answer: the premise of the advice in the
/// documentation, and why the payload is sealed and signed.
#[test]
fn a_bridge_that_forwards_the_group_is_no_protection() {
    forwarding_bridge();
    let [spy, port] = ["s1", "p0"].map(|link| sys::packet_socket(index(link), ETHERTYPE).unwrap());
    let dialogue = node(b"good");
    dialogue.call(vec![named("eth0")]);
    wait(&spy);
    assert!(all_on(&spy).iter().all(|frame| Capsule::decode(frame).is_some_and(|capsule| capsule.from == Side::Node)));
    // The bridge takes the frames before a socket on the node's own port does, so a door there would hear nothing.
    assert_eq!(all_on(&port), Vec::<Vec<u8>>::new());
    // An attacker there answers first. Its payload is not used, and it is not answered for a while.
    let mut attacker = Door::link("s1");
    attacker.give(b"of the attacker");
    let mut told = Vec::new();
    while !told.iter().any(|words: &String| words.ends_with("its payload is not used: nobody has signed it")) {
        told.push(dialogue.hear(later()).unwrap().to_string());
    }
    let mut door = Door::link("q1");
    assert!(door.give(b"good"));
    assert_eq!(payload(&dialogue).1, b"good");
}

/// Links are found, brought up, and given back as they were. Meanwhile they have no address: a router on the link could give them
/// one, and a route with it. Those that the payload's network uses stay up.
#[test]
fn links_are_given_back_as_they_were() {
    for used in ["by nobody", "not", "with IPv4", "with IPv6"] {
        bridge();
        ip("link add eth1 type veth peer name p1");
        ip("link set eth1 up");
        assert!(!is_up("eth0") && is_up("eth1"));
        let switch = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        assert_eq!(std::fs::read_to_string(switch).unwrap(), "0\n");
        let dialogue = node(b"good");
        dialogue.call(vec![Target::Ether(None)]);
        let mut door = Door::link("p0");
        assert!(door.give(b"good"));
        payload(&dialogue);
        assert!(is_up("eth0"));
        assert_eq!(ip("-6 addr show dev eth0"), "");
        if used != "by nobody" {
            dialogue.leave_links();
        }
        match used {
            "with IPv4" => drop(ip("addr add 192.0.2.1/24 dev eth0")),
            "with IPv6" => std::fs::write(switch, "0").unwrap(),
            _ => {}
        }
        drop(dialogue);
        assert!(is_up("eth0") == used.starts_with("with") && is_up("eth1"), "{used}");
        assert_eq!(std::fs::read_to_string(switch).unwrap(), "0\n");
    }
}

/// A link whose driver is late, and one that goes and comes again.
#[test]
fn a_link_that_is_not_there_yet_is_waited_for() {
    namespaces();
    let dialogue = node(b"good");
    dialogue.call(vec![named("eth0")]);
    let words = dialogue.hear(later()).unwrap().to_string();
    assert_eq!(words, "ether:eth0: there is no such link; is its driver in the image, and its name right?");
    assert_eq!(dialogue.tried(), [("ether:eth0".to_owned(), words["ether:eth0: ".len()..].to_owned())]);
    ip("link add eth0 type veth peer name p0");
    ip("link set p0 up");
    let mut door = Door::link("p0");
    assert!(door.until(|event| *event == HostEvent::Challenged));
    // It goes, in the middle of a conversation, and another comes with the same name.
    ip("link del eth0");
    drop(door);
    ip("link add eth0 type veth peer name p0");
    ip("link set p0 up");
    let mut door = Door::link("p0");
    assert!(door.give(b"good"));
    assert_eq!(payload(&dialogue).1, b"good");
}

/// The same behind the payload: the host that has brought it is heard again, and gets the request. Others are not answered.
#[test]
fn a_link_that_comes_back_behind_the_payload_leads_to_the_same_host() {
    namespaces();
    let add = || {
        ip("link add eth0 type veth peer name p0");
        // The host is the same machine.
        ip("link set p0 address 02:00:00:00:00:07");
        ip("link set p0 up");
    };
    for source in [Some("eth0"), None] {
        add();
        let dialogue = node(b"good");
        dialogue.call(vec![Target::Ether(source.map(|link| link.try_into().unwrap()))]);
        let mut door = Door::link("p0");
        assert!(door.give(b"good"));
        payload(&dialogue);
        ip("link del eth0");
        drop(door);
        dialogue.stage(Stage::Request);
        dialogue.say(Kind::Request, b"csr".to_vec());
        add();
        let mut door = Door::link("p0");
        assert!(door.until(|event| *event == HostEvent::Object(Kind::Request, b"csr".to_vec())));
        drop(dialogue);
        ip("link del eth0");
    }
}

/// A switch sends the node's frames back, another node speaks, somebody sends garbage, frames for another machine, or in a VLAN.
#[test]
fn what_is_not_from_a_host_to_this_node_is_dropped() {
    bridge();
    ip("link set eth0 up");
    let (p0, own) = (index("p0"), mac("eth0"));
    let wire = sys::packet_socket(p0, ETHERTYPE).unwrap();
    let dialogue = node(b"good");
    dialogue.call(vec![named("eth0")]);
    wait(&wire);
    let echo = all_on(&wire).remove(0);
    assert_eq!(Capsule::decode(&echo).map(|capsule| capsule.from), Some(Side::Node));
    let call = Capsule { from: Side::Host, to: None, text: b"#0rAi3fMK,G\n" }.encode().unwrap();
    let send = |to: &[u8; 6], bytes: &[u8]| sys::send_packet(&wire, p0, ETHERTYPE, to, bytes).unwrap();
    send(&own, &echo);
    send(&own, b"garbage");
    send(&own, &[0xff; 1400]);
    send(&GROUP, &call);
    send(&[2, 0, 0, 0, 0, 9], &call);
    in_vlan(&own, &call);
    // Then the same frame to the node: the first that it hears.
    send(&own, &call);
    let told = dialogue.hear(later()).unwrap().to_string();
    let [a, b, c, d, e, f] = mac("p0");
    assert_eq!(told, format!("a host speaks on ether:eth0 {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
    assert!(dialogue.news().is_none());
}

/// Sends the frame out of p0 with a tag of VLAN 5 (802.1Q).
fn in_vlan(to: &[u8; 6], bytes: &[u8]) {
    let frame = [&to[..], &mac("p0"), &[0x81, 0, 0, 5], &ETHERTYPE.to_be_bytes(), bytes].concat();
    let program = "import socket, sys\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('p0', 0))\n\
                   s.send(bytes.fromhex(sys.argv[1]))";
    let status = Command::new("python3").args(["-c", program, &hex::encode(&frame)]).status().unwrap();
    assert!(status.success());
}

/// A switch that forwards the group, and two hosts behind it, such as the doors of two sites. The first is in a conversation, in
/// which an administrator has to decide. The second gets in all the same, and the first is not disturbed.
#[test]
fn two_hosts_that_hear_one_node_do_not_disturb_each_other() {
    forwarding_bridge();
    let dialogue = node(b"good");
    dialogue.call(vec![named("eth0")]);
    let pending = |event: &HostEvent| *event == HostEvent::Delivered(Kind::Pending);
    let mut first = Door::link("s1");
    assert!(first.until(|event| *event == HostEvent::Challenged));
    first.host().send(Kind::Pending, b"an administrator must admit it".to_vec());
    assert!(first.until(pending));
    let first = std::thread::spawn(move || {
        let mut again = 0;
        while again < 3 {
            first.host().send(Kind::Pending, b"an administrator must admit it".to_vec());
            assert!(first.until(|event| {
                assert!(!matches!(event, HostEvent::Opened(..) | HostEvent::Lost), "{event:?}");
                pending(event)
            }));
            again += 1;
        }
        first
    });
    let mut second = Door::link("q1");
    assert!(second.until(|event| *event == HostEvent::Challenged));
    first.join().unwrap();
    assert!(second.give(b"good"));
    assert_eq!(payload(&dialogue).1, b"good");
}

/// Attack: somebody sends frames with as many addresses as a link has places, again and again. A door that comes later gets in.
#[test]
fn forged_addresses_do_not_shut_a_door_out() {
    namespaces();
    for words in ["link add eth0 type veth peer name p0", "link set p0 up"] {
        ip(words);
    }
    let dialogue = node(b"good");
    dialogue.call(vec![named("eth0")]);
    while !is_up("eth0") {
        std::thread::yield_now();
    }
    let mut call = Vec::new();
    let versions = Versions { lowest: 1, highest: 1 };
    Packet { from: Side::Host, session: None, frame: Frame::Call(versions) }.encode(&mut call);
    let call = Capsule { from: Side::Host, to: None, text: &call }.encode().unwrap();
    let forged =
        |n: u8| hex::encode(&[&mac("eth0")[..], &[2, 0xee, 0, 0, 0, n], &ETHERTYPE.to_be_bytes(), &call].concat());
    let program = "import socket, sys, time\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('p0', 0))\n\
                   while True:\n for frame in sys.argv[1:]: s.send(bytes.fromhex(frame))\n time.sleep(0.2)";
    let mut python = Command::new("python3").args(["-c", program]).args((1..=8).map(forged)).spawn().unwrap();
    // Each of them has a place.
    let mut heard = 0;
    while heard < 8 {
        heard += usize::from(matches!(dialogue.hear(later()), Some(Told::Heard { .. })));
    }
    let door = std::thread::spawn(|| Door::link("p0").give(b"good"));
    assert_eq!(payload(&dialogue).1, b"good");
    assert!(door.join().unwrap());
    python.kill().unwrap();
    python.wait().unwrap();
}
