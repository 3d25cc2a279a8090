//! Tests of the door for Ethernet frames: a node on one link, the door at the port of a bridge, and a spy behind another port.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imprint::line::Side;
use imprint::line::ether::{Capsule, ETHERTYPE, GROUP, Mac, frames};
use imprint::payload::EstUrl;
use imprint::site::SitePin;
use imprint::sys;
use imprint::time::{Deadline, Timestamp};
use imprint_host::est::Layout;
use imprint_host::serve::{Config, Server};
use imprint_host::state::State;
use imprint_tests::caller::Caller;
use imprint_tests::patience::PATIENCE;
use imprint_tests::served::{metric, reaches};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{LinkAddr, recvfrom};

use crate::{index, ip, later, namespaces};

/// The node's link eth0 and the port p0 of the bridge br0; the spy's link s1 and its port s0.
fn bridge(more: &str) {
    namespaces();
    for words in [
        &format!("link add br0 type bridge{more}"),
        "link add eth0 type veth peer name p0",
        "link add s0 type veth peer name s1",
        "link set p0 master br0",
        "link set s0 master br0",
        "link set lo up",
        "link set br0 up",
        "link set eth0 up",
        "link set p0 up",
        "link set s0 up",
        "link set s1 up",
    ] {
        ip(words);
    }
}

/// A state directory with one node.
fn site(record: &str) -> (tempfile::TempDir, SitePin) {
    let work = tempfile::tempdir().unwrap();
    let url = EstUrl::try_from("https://est.example.org:8443/.well-known/est").unwrap();
    let mut state = State::init(&work.path().join("state"), &[url], Timestamp::system()).unwrap();
    let signer = state.ca.signers().unwrap().remove(0).0;
    let record = format!("name = \"node1\"\nsubject = [\"CN=node1.example.org\"]\n{record}\n");
    state.add_nodes(&[("node1.toml".to_owned(), record)], false, Timestamp::system()).unwrap();
    (work, SitePin::parse(format!("{signer}\n").as_bytes()).unwrap())
}

fn serve(work: &tempfile::TempDir, door: &str) -> Server {
    serve_with(work, door, None)
}

fn serve_with(work: &tempfile::TempDir, door: &str, metrics: Option<&str>) -> Server {
    let config = Config {
        dir: work.path().join("state"),
        listen: "127.0.0.1:0".parse().unwrap(),
        metrics: metrics.map(|at| at.parse().unwrap()),
        doors: vec![door.parse().unwrap()],
        layout: Layout::Wrapped,
        tell: Default::default(),
        clock: Arc::new(Timestamp::system),
    };
    Server::start(config).unwrap()
}

/// A node at eth0, until `done`. Speaks with the first host that it hears.
fn talk(node: &mut Caller, done: impl Fn(&Caller) -> bool) {
    let eth0 = sys::packet_socket(index("eth0"), ETHERTYPE).unwrap();
    let mut host: Option<Mac> = None;
    let start = Instant::now();
    loop {
        let (bytes, next) = node.poll();
        for text in frames(&bytes) {
            let packet = Capsule { from: Side::Node, to: host, text }.encode().unwrap();
            sys::send_packet(&eth0, index("eth0"), ETHERTYPE, &GROUP, &packet).unwrap();
        }
        if done(node) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "the door said nothing more; told: {:?}", node.pending);
        let wait = next.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1));
        sys::poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&eth0), PollFlags::POLLIN)], Deadline::after(wait))
            .unwrap();
        while let Some((mac, packet)) = received(&eth0) {
            if let Some(Capsule { from: Side::Host, text, .. }) = Capsule::decode(&packet) {
                host = Some(mac);
                node.push(text);
            }
        }
    }
}

fn received(socket: &OwnedFd) -> Option<(Mac, Vec<u8>)> {
    let mut buffer = [0; 2048];
    let (count, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer).ok()?;
    Some((from?.addr()?, buffer[..count].to_vec()))
}

fn all_on(socket: &OwnedFd) -> usize {
    std::iter::from_fn(|| received(socket)).count()
}

fn multicast() {
    let eth0 = sys::packet_socket(index("eth0"), ETHERTYPE).unwrap();
    sys::send_packet(&eth0, index("eth0"), ETHERTYPE, &[1, 0, 0x5e, 0, 0, 0xfb], &[b'.'; 46]).unwrap();
}

/// The port is a fact: the node behind it gets its certificate, and nobody else on the bridge hears a frame.
#[test]
fn a_node_behind_a_port_gets_its_certificate_and_a_spy_hears_nothing() {
    bridge("");
    let (work, pin) = site("bind = { tap = \"p0\", serial = \"S1\" }\nadmit = \"wire\"");
    let server = serve(&work, "ether:p0");
    let spy = sys::packet_socket(index("s1"), ETHERTYPE).unwrap();
    let mut node = Caller::new("S1", &pin);
    talk(&mut node, |node| node.over);
    assert_eq!(node.payloads[0].admitted(), Some("wire"));
    assert!(node.certificates.is_some());
    assert_eq!(all_on(&spy), 0);
    // Premise: what is sent to another group reaches the spy.
    multicast();
    assert!(sys::poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&spy), PollFlags::POLLIN)], later()).unwrap());
    assert_eq!(all_on(&spy), 1);
    server.shutdown();
}

/// A machine is started again: its tap device goes, and comes with another index.
#[test]
fn a_port_that_comes_later_is_opened() {
    bridge("");
    ip("link del p0");
    let (work, pin) = site("bind = { tap = \"p0\", serial = \"S1\" }\nadmit = \"wire\"");
    let server = serve(&work, "ether:p0");
    for _ in 0..2 {
        for words in
            ["link add eth0 type veth peer name p0", "link set p0 master br0", "link set p0 up", "link set eth0 up"]
        {
            ip(words);
        }
        let mut node = Caller::new("S1", &pin);
        talk(&mut node, |node| node.over);
        ip("link del p0");
    }
    server.shutdown();
}

/// Attack: a door listens at the bridge itself, or at a link on it, and the record names that link as if it were a port. A machine
/// behind any port of the bridge calls. What brought its frame is not known, so the rule does not let it in.
#[test]
fn a_bridge_is_no_port_of_one_machine() {
    bridge(" group_fwd_mask 0x4000");
    ip("link add link br0 name m0 type macvlan mode private");
    ip("link set m0 up");
    for door in ["br0", "m0"] {
        let (work, pin) = site(&format!("bind = {{ tap = \"{door}\", serial = \"S1\" }}\nadmit = \"wire\""));
        let server = serve(&work, &format!("ether:{door}"));
        let mut node = Caller::new("S1", &pin);
        talk(&mut node, |node| !node.pending.is_empty() || !node.payloads.is_empty());
        assert!(node.payloads.is_empty(), "{door}");
        let callers = State::open(&work.path().join("state")).unwrap().store.callers(Timestamp::system()).unwrap();
        let facts: Vec<_> = callers.into_iter().map(|row| row.facts.tap).collect();
        assert_eq!(facts, [None], "{door}");
        server.shutdown();
    }
}

/// The table of docs/door.md, on a bridge that was told to forward the group.
#[test]
fn the_table_in_the_documentation_keeps_frames_from_other_ports() {
    bridge(" group_fwd_mask 0x4000");
    let (work, pin) = site("bind = { serial = \"S1\" }\nadmit = \"known\"");
    let server = serve(&work, "ether:br0");
    let spy = sys::packet_socket(index("s1"), ETHERTYPE).unwrap();
    // Premise: without it the spy hears the node.
    let mut node = Caller::new("S2", &pin);
    talk(&mut node, |node| !node.pending.is_empty());
    assert!(all_on(&spy) > 0);
    let page = include_str!("../../docs/door.md");
    let table = page.split("```nftables\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn();
    let nft = nft.as_mut().expect("nft: apt-get install nftables");
    nft.stdin.take().unwrap().write_all(table.replace("uplink0", "s0").as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
    all_on(&spy);
    let mut node = Caller::new("S1", &pin);
    talk(&mut node, |node| node.over);
    assert_eq!(all_on(&spy), 0);
    server.shutdown();
}

/// A card that filters groups, as cards do that are no port of a bridge; a macvlan filters like one. Premise: a socket that has not
/// joined the group does not hear it there.
#[test]
fn a_card_that_filters_groups_hears_the_node() {
    bridge("");
    ip("link set p0 nomaster");
    let eth0 = sys::packet_socket(index("eth0"), ETHERTYPE).unwrap();
    let mut tries = 0;
    loop {
        ip("link add link p0 name m0 type macvlan mode private");
        std::fs::write("/proc/sys/net/ipv6/conf/m0/disable_ipv6", "1").unwrap();
        ip("link set m0 up");
        let spy = sys::packet_socket(index("m0"), ETHERTYPE).unwrap();
        for (to, byte) in [(GROUP, b'g'), ([0xff; 6], b'b')] {
            sys::send_packet(&eth0, index("eth0"), ETHERTYPE, &to, &[byte; 46]).unwrap();
        }
        assert!(sys::poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&spy), PollFlags::POLLIN)], later()).unwrap());
        // Its filter has hashes of groups, so one may pass for another. Another macvlan has another hash.
        if received(&spy).unwrap().1[0] == b'b' {
            break;
        }
        tries += 1;
        assert!(tries < 100, "it filters no groups");
        ip("link del m0");
    }
    let (work, pin) = site("bind = { tap = \"m0\", serial = \"S1\" }\nadmit = \"wire\"");
    let server = serve(&work, "ether:m0");
    let mut node = Caller::new("S1", &pin);
    talk(&mut node, |node| node.over);
    server.shutdown();
}

/// Attack and accident: frames of imprint's type to another machine, to everybody and to other groups come to a port that is
/// promiscuous. They are counted, and get no answer.
#[test]
fn frames_for_somebody_else_are_counted_and_get_no_answer() {
    const STRANGE: &str = "imprint_host_door_strange_frames_total";
    bridge("");
    ip("link set p0 nomaster");
    let (work, pin) = site("bind = { tap = \"p0\", serial = \"S1\" }\nadmit = \"wire\"");
    let server = serve_with(&work, "ether:p0", Some("127.0.0.1:0"));
    let metrics = server.metrics_addr().unwrap();
    // Premise: the door is open, and takes what is for it.
    talk(&mut Caller::new("S1", &pin), |node| node.over);
    assert_eq!(metric(metrics, STRANGE), 0);
    let eth0 = sys::frame_socket(index("eth0"), ETHERTYPE).unwrap();
    let hello = Caller::new("S2", &pin).poll().0;
    let text = frames(&hello).next().unwrap();
    let capsule = |to| Capsule { from: Side::Node, to, text }.encode().unwrap();
    let send = |to: Mac, from: Mac, capsule: &[u8]| {
        let frame = [&to[..], &from, &ETHERTYPE.to_be_bytes(), capsule].concat();
        sys::send_packet(&eth0, index("eth0"), ETHERTYPE, &to, &frame).unwrap();
    };
    let (stranger, other, own) = ([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8], imprint_tests::far_host::mac("p0"));
    for to in [other, own, [0xff; 6], [1, 0, 0x5e, 0, 0, 0xfb], [0x01, 0x80, 0xc2, 0, 0, 0x0d]] {
        send(to, stranger, &capsule(None));
    }
    send(GROUP, stranger, &capsule(Some(other)));
    // No frame of a node at all: not counted.
    send(GROUP, stranger, &Capsule { from: Side::Host, to: None, text }.encode().unwrap());
    reaches(metrics, STRANGE, 6);
    // Then one that is for the door. It is the only one that is answered.
    let node = [2, 0, 0, 0, 0, 9];
    send(GROUP, node, &capsule(None));
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "the door does not answer");
        let mut buffer = [0; 2048];
        let Ok((count, _)) = recvfrom::<LinkAddr>(eth0.as_raw_fd(), &mut buffer) else { continue };
        assert_ne!(buffer[..6], stranger);
        if count > 14 && buffer[..6] == node {
            break;
        }
    }
    assert_eq!(metric(metrics, STRANGE), 6);
    server.shutdown();
}
