//! What is heard of a switch: LLDP, and tags of VLANs that this machine is not in. The switch is the other end of a veth pair, and its
//! frames are made here, so no module for VLANs is needed.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use imprint::apply::network::{Race, listen};
use imprint::plan::LinkConfig;
use imprint::sys;
use imprint::time::Deadline;
use nix::sys::socket::{MsgFlags, send};

use super::network::{only, root};
use crate::{index, ip, veth};

/// From a switch to a group, with this behind the addresses.
fn frame(to: [u8; 6], rest: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &[0x00, 0x1b, 0x21, 0, 0, 1], rest].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn tagged(vlan: u8) -> Vec<u8> {
    // Another machine's, so that only a link which takes all frames hears it.
    frame([0x00, 0x1b, 0x21, 0, 0, 9], &[0x81, 0x00, 0x60, vlan, 0x08, 0x00, 0x45])
}

fn lldp() -> Vec<u8> {
    // Chassis, port, time to live; the system's name and the VLAN of the port.
    let tlvs = b"\x88\xcc\x02\x07\x04\x00\x1b\x21\x00\x00\x01\x04\x09\x05ge-0/0/1\x06\x02\x00\x78\
                 \x0a\x03sw1\xfe\x06\x00\x80\xc2\x01\x00\x0a\0\0";
    frame([0x01, 0x80, 0xc2, 0, 0, 0x0e], tlvs)
}

/// Sends these over and over on a link, until the flag is set.
fn switch(link: &str, frames: Vec<Vec<u8>>) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let socket = sys::frame_socket(index(link), 0x88b5).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            for frame in &frames {
                send(socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    (stop, thread)
}

#[test]
fn a_running_system_hears_its_switch_and_the_vlans_on_the_wire() {
    veth();
    ip("link set p0 up");
    ip("link set eth0 up");
    ip("addr add 192.0.2.10/24 dev eth0");
    let root = root(&[("eth0", "igb")]);
    let (stop, thread) = switch("p0", vec![tagged(20), lldp(), tagged(10), tagged(20)]);
    let seen = listen(root.path(), Duration::from_millis(300)).unwrap();
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    let of = |name: &str| seen.iter().find(|link| link.facts.name.as_str() == name).unwrap();
    let (eth0, p0) = (of("eth0"), of("p0"));
    assert_eq!(eth0.report.heard.vlans, [10, 20], "{}", eth0.report);
    let neighbour = eth0.report.heard.neighbour.clone().unwrap();
    assert_eq!((neighbour.system.as_str(), neighbour.port.as_str(), neighbour.vlan), ("sw1", "ge-0/0/1", Some(10)));
    let shown = eth0.report.to_string();
    assert!(
        shown.starts_with("eth0 (igb): carrier, ")
            && shown.contains(" received untagged, VLAN ids on the wire: 10, 20, "),
        "{shown}"
    );
    assert!(shown.contains("switch sw1 port ge-0/0/1, untagged frames are VLAN 10"), "{shown}");
    assert!(eth0.addresses.iter().any(|address| address.to_string() == "192.0.2.10/24"), "{:?}", eth0.addresses);
    // What a link sends is nothing that it hears.
    assert_eq!((&p0.report.heard.vlans[..], &p0.report.heard.neighbour), (&[][..], &None), "{}", p0.report);
    assert!(!ip("-d link show dev eth0").contains("promiscuity 1"), "the link takes its own frames only again");
}

#[test]
fn a_link_that_is_silent_without_a_tag_tells_the_vlans() {
    veth();
    ip("link set p0 up");
    let root = root(&[("eth0", "igb")]);
    let plan = only(LinkConfig { dhcp4: true, ..LinkConfig::default() });
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let (stop, thread) = switch("p0", vec![tagged(20), lldp(), tagged(10)]);
    // Longer than a link has to be of no use before its switch is listened for.
    assert!(!race.next(Deadline::after(Duration::from_millis(3500)), &mut |_| ()).unwrap());
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    let [report] = &race.report()[..] else { panic!("one link") };
    assert_eq!(report.heard.vlans, [10, 20], "{report}");
    assert!(report.heard.neighbour.is_some() && report.to_string().contains("DHCPv4: "), "{report}");
}
