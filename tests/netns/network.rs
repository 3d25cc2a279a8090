//! Tests of trying several links at once, with a real kernel, a peer at the other end of a veth pair, and a real dnsmasq.

use std::fs;
use std::path::Path;
use std::time::Duration;

use imprint::apply::network::{Carrier, Heard, LinkReport, Network, NetworkError, Race};
use imprint::chain::chain;
use imprint::netlink::message::{GROUP_LINK, IFF_UP};
use imprint::netlink::{Netlink, RequestError};
use imprint::payload::{DnsName, DriverName, HardwareAddress, InterfaceName, Match, Prefix, Route};
use imprint::plan::{LinkConfig, LinkPlan, NetworkPlan};
use imprint::time::Deadline;
use nix::errno::Errno;

use super::peer::Peer;
use crate::{index, ip, later, veth};

pub(super) fn route(to: &str, via: Option<&str>, metric: Option<u32>) -> Route {
    Route { destination: Prefix::parse(to).unwrap(), gateway: via.map(|via| via.parse().unwrap()), metric }
}

pub(super) fn named(name: &str) -> Match {
    Match::Name(InterfaceName::try_from(name).unwrap())
}

pub(super) fn link(matching: Match, config: LinkConfig) -> LinkPlan {
    LinkPlan { matching, made: None, there: Vec::new(), config }
}

pub(super) fn only(config: LinkConfig) -> NetworkPlan {
    NetworkPlan { links: vec![link(named("eth0"), config)], layers: Vec::new(), servers: Vec::new() }
}

pub(super) fn config() -> LinkConfig {
    LinkConfig {
        mtu: Some(1400),
        addresses: vec![Prefix::parse("192.0.2.10/24").unwrap(), Prefix::parse("2001:db8::10/64").unwrap()],
        routes: vec![
            route("0.0.0.0/0", Some("192.0.2.1"), Some(100)),
            route("198.51.100.0/24", None, None),
            route("2001:db8:1::/48", Some("2001:db8::1"), None),
        ],
        dns: vec!["192.0.2.53".parse().unwrap()],
        search: vec![DnsName::try_from("example.org").unwrap()],
        ..LinkConfig::default()
    }
}

/// Until the first link is usable.
pub(super) fn configure(plan: &NetworkPlan, root: &Path, deadline: Deadline) -> Result<Network, NetworkError> {
    let mut race = Race::new(plan, None, root)?;
    match race.next(deadline, &mut |_| ())? {
        true => race.network(),
        false => Err(race.failure()),
    }
}

/// A root with the kernel's own /proc/sys, and a driver for each link: what virtual links have not.
pub(super) fn root(drivers: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();
    for (name, driver) in drivers {
        let device = root.path().join("sys/class/net").join(name).join("device");
        fs::create_dir_all(&device).unwrap();
        std::os::unix::fs::symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
    }
    root
}

#[test]
fn a_link_gets_what_the_plan_says_and_a_second_run_changes_nothing() {
    veth();
    ip("link set p0 up");
    let root = root(&[]);
    let plan = only(config());
    // The IPv4 address can be used at once, the IPv6 address when nobody else turns out to have it (RFC 4862 §5.4).
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    for _ in 0..2 {
        assert!(race.next(later(), &mut |_| ()).unwrap());
    }
    let six = ip("-o -6 addr show dev eth0 to 2001:db8::10");
    assert!(six.contains("2001:db8::10/64") && !six.contains("tentative"), "{six}");
    let network = race.network().unwrap();
    let [link] = &network.links[..] else { panic!("{network:?}") };
    assert_eq!((link.name.as_str(), link.mtu), ("eth0", 1400));
    let mac = link.mac.clone().unwrap().to_string();
    assert!(ip("-o link show dev eth0").contains(&mac));
    assert_eq!(link.all_addresses().collect::<Vec<_>>(), config().addresses);

    let show = || ["-o -4 addr show dev eth0", "-4 route", "-6 route", "-o link show dev eth0"].map(ip);
    let first = show();
    assert!(first[0].contains("inet 192.0.2.10/24 brd 192.0.2.255 scope global eth0"), "{}", first[0]);
    assert!(first[1].contains("default via 192.0.2.1 dev eth0 metric 100"), "{}", first[1]);
    assert!(first[1].contains("198.51.100.0/24 dev eth0 scope link"), "{}", first[1]);
    assert!(first[2].contains("2001:db8:1::/48 via 2001:db8::1 dev eth0"), "{}", first[2]);
    assert!(first[3].contains("mtu 1400"), "{}", first[3]);
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.ends_with("\nnameserver 192.0.2.53\nsearch example.org\n"), "{resolv}");

    assert_eq!(configure(&plan, root.path(), later()).unwrap(), network);
    assert_eq!(show(), first);
}

#[test]
fn carrier_is_awaited() {
    veth();
    // Once eth0 is up, and not before, its peer follows.
    let mut changes = Netlink::open(GROUP_LINK).unwrap();
    let peer = std::thread::spawn(move || {
        let mut netlink = Netlink::open(0).unwrap();
        while netlink.link(index("eth0"), later()).unwrap().flags & IFF_UP == 0 {
            changes.changed(later()).unwrap();
        }
        ip("link set p0 up");
    });
    configure(&only(config()), root(&[]).path(), later()).unwrap();
    peer.join().unwrap();
    let link = Netlink::open(0).unwrap().link(index("eth0"), later()).unwrap();
    assert!(link.operational());
}

#[test]
fn no_carrier_is_an_error_that_names_link_and_driver() {
    veth();
    let root = root(&[("eth0", "e1000e")]);
    let error = configure(&only(config()), root.path(), Deadline::after(Duration::from_millis(20))).unwrap_err();
    let NetworkError::NoLink { links, .. } = &error else { panic!("{error:?}") };
    let report = LinkReport {
        name: InterfaceName::try_from("eth0").unwrap(),
        driver: Some(DriverName::try_from("e1000e").unwrap()),
        carrier: Carrier::None,
        received: 0,
        speed: None,
        is_function: false,
        heard: Heard::default(),
        tried: Vec::new(),
    };
    assert_eq!(links, &[report]);
    assert_eq!(links[0].to_string(), "eth0 (e1000e): no carrier, check cable and switch port, 0 packets received");
    assert!(!root.path().join("etc").exists(), "no resolv.conf for a network that is not there");
}

#[test]
fn a_gateway_outside_every_network_is_refused_in_the_kernels_words() {
    veth();
    let config = LinkConfig { routes: vec![route("0.0.0.0/0", Some("203.0.113.1"), None)], ..config() };
    // At once, without waiting for the carrier that never comes.
    let error = configure(&only(config), root(&[]).path(), later()).unwrap_err();
    assert_eq!(
        chain(&error),
        "route default via 203.0.113.1 on eth0: network is unreachable (the kernel says: Nexthop has invalid gateway)"
    );
}

#[test]
fn an_mtu_that_the_link_cannot_have_is_refused() {
    veth();
    let error = configure(&only(LinkConfig { mtu: Some(60), ..config() }), root(&[]).path(), later()).unwrap_err();
    assert_eq!(chain(&error), "MTU 60 on eth0: invalid argument (the kernel says: mtu less than device minimum)");
}

#[test]
fn the_same_address_with_another_prefix_is_no_success() {
    veth();
    ip("link set p0 up");
    ip("addr add 2001:db8::10/80 dev eth0");
    let error = configure(&only(config()), root(&[]).path(), later()).unwrap_err();
    let NetworkError::Refused { what, source: RequestError::Refused { errno: Errno::EEXIST, .. }, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(what, "address 2001:db8::10/64");
}

#[test]
fn an_ipv6_address_that_another_machine_has_is_not_used() {
    veth();
    ip("link set eth0 up");
    // It answers for an address only when it is sure of its own.
    let there = "ip -6 addr add 2001:db8::10/64 dev p0 nodad; ip link set p0 up; \
                 while ip -6 -o addr show dev p0 tentative | grep -q .; do :; done";
    let _other = Peer::start(&["p0"], there);
    let config = LinkConfig { addresses: vec![Prefix::parse("2001:db8::10/64").unwrap()], ..LinkConfig::default() };
    let error = configure(&only(config), root(&[]).path(), later()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "another machine uses 2001:db8::10/64 on eth0; change the address of this node or of that machine"
    );
}

#[test]
fn a_link_that_never_appears_is_waited_for_and_then_missed() {
    veth();
    ip("link del eth0");
    let error = configure(&only(config()), root(&[]).path(), Deadline::after(Duration::from_millis(20))).unwrap_err();
    let NetworkError::NoLink { links, .. } = &error else { panic!("{error:?}") };
    assert!(links.is_empty());
    assert!(error.to_string().ends_with(": no link matches the payload; is the link's driver in the image?"));
}

#[test]
fn a_link_that_is_renamed_in_the_middle_is_still_the_same() {
    veth();
    let mac = Netlink::open(0).unwrap().link(index("eth0"), later()).unwrap().address;
    let matching = Match::Mac(HardwareAddress::new(&mac).unwrap());
    let plan = NetworkPlan { links: vec![link(matching, config())], layers: Vec::new(), servers: Vec::new() };
    let root = root(&[]);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(!race.next(Deadline::after(Duration::ZERO), &mut |_| ()).unwrap());
    ip("link set eth0 down");
    ip("link set eth0 name enp0s1");
    ip("link set enp0s1 up");
    ip("link set p0 up");
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(race.network().unwrap().links[0].name.as_str(), "enp0s1");
}
