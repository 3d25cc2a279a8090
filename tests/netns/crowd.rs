//! Tests of the search for a door where the network names many places that are none, and others that answer and give nothing: the
//! door of the site is found all the same.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;

use imprint::line::{HostEvent, Kind};
use imprint_tests::far_host::{Door, node, payload};

use super::finding::{HOST, RANGE, SERVER, SRV, begin, dnsmasq, door, machine, serve};
use super::peer::Peer;
use crate::{ip, namespaces};

/// A domain of the network names as many places as it likes. The door is in the next domain.
#[test]
fn a_hundred_dead_places_leave_the_door_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let mut more = String::new();
    for domain in 0..7 {
        for place in 0..16 {
            let port = 9000 + 16 * domain + place;
            writeln!(more, "srv-host=_imprint._tcp.d{domain}.example,dead.d0.example,{port},{place},1").unwrap();
        }
    }
    fs::write(folder.path().join("more"), more).unwrap();
    let domains: Vec<String> = (0..7).map(|domain| format!("d{domain}.example")).collect();
    // Nobody has the address, so each connection is tried until it has taken too long.
    let options = format!(
        "--dhcp-option=option:domain-search,{},lab.example --conf-dir={} --host-record=dead.d0.example,192.0.2.77 {SRV} {HOST}",
        domains.join(","),
        folder.path().display()
    );
    let peer = serve(&format!("{RANGE} {options}"));
    let door = door(&peer, "192.0.2.1:8444");
    let dialogue = node(b"good");
    let root = machine();
    let finding = begin("imprint.source=door", root.path(), &dialogue);
    let (line, bytes, _) = payload(&dialogue);
    assert_eq!((line.as_str(), &bytes[..]), ("tcp:192.0.2.1:8444", &b"good"[..]));
    finding.hold();
    drop(dialogue);
    door.join().unwrap();
    finding.give_back(None, None);
}

/// A door of somebody else keeps the node waiting. The link that leads to the right one comes later.
#[test]
fn a_door_that_only_says_wait_does_not_end_the_search() {
    namespaces();
    ip("link add eth1 type veth peer name p1");
    let guests = "--dhcp-range=198.51.100.100,198.51.100.100,255.255.255.0,1h --domain=guests.example \
                  --srv-host=_imprint._tcp.guests.example,door.guests.example,8444 \
                  --host-record=door.guests.example,198.51.100.1";
    let other = Peer::start(
        &["p1"],
        &format!("ip addr add 198.51.100.1/24 dev p1; ip link set p1 up; {}", dnsmasq("p1", guests)),
    );
    let listener = std::thread::scope(|scope| {
        let listens = || {
            other.enter();
            TcpListener::bind("198.51.100.1:8444").unwrap()
        };
        scope.spawn(listens).join().unwrap()
    });
    let (said, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut door = Door::stream(stream.unwrap());
            door.until(|event| matches!(event, HostEvent::Opened(..)));
            door.host().send(Kind::Pending, b"somebody decides".to_vec());
            let _ = said.send(());
            door.linger();
        }
    });
    let dialogue = node(b"good");
    let root = machine();
    let finding = begin("imprint.source=door", root.path(), &dialogue);
    waits.recv().unwrap();
    ip("link add eth0 type veth peer name p0");
    let peer = Peer::start(
        &["p0"],
        &format!("{SERVER}; {}", dnsmasq("p0", &format!("{RANGE} --domain=lab.example {SRV} {HOST}"))),
    );
    let door = door(&peer, "192.0.2.1:8444");
    let (line, bytes, words) = payload(&dialogue);
    assert_eq!((line.as_str(), &bytes[..]), ("tcp:192.0.2.1:8444", &b"good"[..]));
    assert!(words.iter().any(|words| words.contains("somebody decides")), "the other door came first: {words:?}");
    finding.hold();
    drop(dialogue);
    door.join().unwrap();
    finding.give_back(None, None);
}

/// The names of places are in a zone that nobody answers for. Were they asked for one after the other, the fifteen before the door
/// would take three and a half minutes.
#[test]
fn names_that_nobody_knows_do_not_hold_up_the_others() {
    let mut slow = String::new();
    for place in 0..15 {
        write!(slow, " --srv-host=_imprint._tcp.lab.example,n{place}.slow.test,8444,{place},1").unwrap();
    }
    let last = "--srv-host=_imprint._tcp.lab.example,door.lab.example,8444,90,1";
    let options = format!("--domain=lab.example --server=/slow.test/192.0.2.99{slow} {last} {HOST}");
    let peer = serve(&format!("{RANGE} {options}"));
    let door = door(&peer, "192.0.2.1:8444");
    let dialogue = node(b"good");
    let root = machine();
    let finding = begin("imprint.source=door", root.path(), &dialogue);
    let (line, _, words) = payload(&dialogue);
    assert_eq!(line, "tcp:192.0.2.1:8444");
    let looks = words.iter().filter(|words| words.contains("door.lab.example port 8444")).count();
    assert_eq!(looks, 1, "{words:?}");
    finding.hold();
    drop(dialogue);
    door.join().unwrap();
    finding.give_back(None, None);
}
