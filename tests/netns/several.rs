//! Tests of several candidate links: a failure or an address on one of them does not affect the others.

use std::fs;
use std::time::Duration;

use imprint::apply::network::Race;
use imprint::payload::{Match, Prefix};
use imprint::plan::{LinkConfig, NetworkPlan};
use imprint::time::Deadline;

use super::dhcp::{RANGE, dhcp, one, serve};
use super::network::{link, named, root, route};
use super::peer::Peer;
use crate::{ip, later, namespaces, operational};

const DRIVERS: [(&str, &str); 2] = [("eth0", "igb"), ("eth1", "igb")];

/// eth0 and eth1; their peers p0 and p1 are down.
fn two_links() {
    namespaces();
    for number in 0..2 {
        ip(&format!("link add eth{number} type veth peer name p{number}"));
    }
}

fn fixed(addresses: &[&str], on_link: &str) -> LinkConfig {
    LinkConfig {
        addresses: addresses.iter().map(|text| Prefix::parse(text).unwrap()).collect(),
        // With no gateway there is nobody to ask for, so that a signal has to do.
        routes: vec![route(on_link, None, None)],
        ..LinkConfig::default()
    }
}

fn any(config: LinkConfig) -> NetworkPlan {
    NetworkPlan { links: vec![link(Match::AnyWithCarrier, config)], layers: Vec::new(), servers: Vec::new() }
}

fn eth0_first() {
    ip("link set p0 up");
    ip("link set eth0 up");
    operational("eth0");
}

#[test]
fn what_the_kernel_refuses_on_one_link_another_may_have() {
    two_links();
    eth0_first();
    ip("link set p1 up");
    // The same address with another prefix: refused there.
    ip("addr add 2001:db8::10/80 dev eth0");
    let plan = any(fixed(&["192.0.2.10/24", "2001:db8::10/64"], "198.51.100.0/24"));
    let root = root(&DRIVERS);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(one(race.network().unwrap()).name.as_str(), "eth1");
    let shown = ip("-o -4 addr");
    assert_eq!(shown.matches("192.0.2.10/24").count(), 1, "{shown}");
    let report = race.report()[0].to_string();
    assert!(report.contains("address 2001:db8::10/64 on eth0: file exists"), "{report}");
}

#[test]
fn an_ipv6_address_that_another_machine_has_on_one_link_goes_to_the_next() {
    two_links();
    ip("link set p1 up");
    ip("link set eth0 up");
    let there = "ip -6 addr add 2001:db8::10/64 dev p0 nodad; ip link set p0 up; \
                 while ip -6 -o addr show dev p0 tentative | grep -q .; do :; done";
    let _other = Peer::start(&["p0"], there);
    operational("eth0");
    let plan = any(fixed(&["2001:db8::10/64"], "2001:db8:1::/48"));
    let root = root(&DRIVERS);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(one(race.network().unwrap()).name.as_str(), "eth1");
    let shown = ip("-o -6 addr show to 2001:db8::10");
    assert!(shown.contains("eth1") && !shown.contains("eth0"), "{shown}");
    assert_eq!(ip("-6 route show 2001:db8:1::/48 dev eth0"), "");
}

#[test]
fn addresses_that_move_leave_no_route_behind() {
    two_links();
    eth0_first();
    ip("link set p1 up");
    let mut config = fixed(&["2001:db8::10/64"], "2001:db8:1::/48");
    config.routes.push(route("2001:db8:2::/48", Some("fe80::1"), None));
    let plan = any(config);
    let root = root(&DRIVERS);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    for _ in 0..2 {
        assert!(race.next(later(), &mut |_| ()).unwrap());
    }
    assert_eq!(one(race.network().unwrap()).name.as_str(), "eth1");
    for destination in ["2001:db8:1::/48", "2001:db8:2::/48"] {
        assert_eq!(ip(&format!("-6 route show {destination} dev eth0")), "");
        assert!(ip(&format!("-6 route show {destination} dev eth1")).contains(destination));
    }
}

/// The address is there already, as a run that was stopped leaves it. If it stayed when it is eth1's turn, eth0's route to
/// the network would keep every packet from eth1.
#[test]
fn an_address_of_an_earlier_run_moves_as_well() {
    two_links();
    eth0_first();
    ip("link set p1 up");
    ip("addr add 192.0.2.10/24 dev eth0");
    ip("addr add 203.0.113.99/24 dev eth0");
    let plan = any(fixed(&["192.0.2.10/24"], "198.51.100.0/24"));
    let root = root(&DRIVERS);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    for _ in 0..2 {
        assert!(race.next(later(), &mut |_| ()).unwrap());
    }
    assert_eq!(one(race.network().unwrap()).name.as_str(), "eth1");
    let shown = ip("-o -4 addr show to 192.0.2.10");
    assert!(shown.contains("eth1") && !shown.contains("eth0"), "{shown}");
    // An address that the plan does not name stays.
    assert!(ip("-o -4 addr show dev eth0").contains("203.0.113.99/24"));
}

/// eth0 as asked, and eth1 with an address and a default route of its own.
fn two_entries(first: LinkConfig) -> NetworkPlan {
    let second = link(named("eth1"), fixed(&["198.51.100.10/24"], "0.0.0.0/0"));
    NetworkPlan { links: vec![link(named("eth0"), first), second], layers: Vec::new(), servers: Vec::new() }
}

#[test]
fn a_second_link_takes_nothing_from_the_first_before_it_is_asked_for() {
    two_links();
    ip("link set p0 up");
    let plan = two_entries(fixed(&["192.0.2.10/24"], "0.0.0.0/0"));
    let root = root(&[]);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    ip("link set p1 up");
    operational("eth1");
    // While somebody waits for an administrator, and at the hand-over.
    race.renew(later()).unwrap();
    assert_eq!(one(race.network().unwrap()).name.as_str(), "eth0");
    assert!(ip("-4 route show default").contains("dev eth0"));
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(race.network().unwrap().links[0].name.as_str(), "eth1");
    assert!(ip("-4 route show default").contains("dev eth1"));
}

#[test]
fn a_lease_that_is_renewed_takes_no_route_from_another_link() {
    two_links();
    let _server = serve(&format!("{RANGE} --dhcp-option=option:T1,3"));
    let plan = two_entries(dhcp());
    let root = root(&[]);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let first = one(race.network().unwrap()).lease.unwrap();
    ip("link set p1 up");
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert!(ip("-4 route show default").contains("dev eth1"));
    assert!(!race.next(Deadline::after(Duration::from_secs(3)), &mut |_| ()).unwrap());
    race.renew(later()).unwrap();
    let network = race.network().unwrap();
    assert!(network.links[1].lease.as_ref().unwrap().bound > first.bound);
    let routes = ip("-4 route show default");
    assert!(routes.contains("dev eth1") && !routes.contains("dev eth0"), "{routes}");
}

#[test]
fn a_queue_that_is_full_for_a_moment_is_no_reason_to_give_a_link_up() {
    two_links();
    let _peer = Peer::start(&["p0"], "ip addr add 192.0.2.1/24 dev p0; ip link set p0 up");
    // The kernel says ENOBUFS to whoever sends.
    let tc = |words: &str| assert!(std::process::Command::new("tc").args(words.split(' ')).status().unwrap().success());
    tc("qdisc add dev eth0 root pfifo limit 0");
    let config = LinkConfig {
        addresses: vec![Prefix::parse("192.0.2.10/24").unwrap()],
        routes: vec![route("0.0.0.0/0", Some("192.0.2.1"), None)],
        ..LinkConfig::default()
    };
    let plan = any(config);
    let root = root(&DRIVERS);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let mut report = String::new();
    while !report.contains("no neighbour answered") && !report.contains("looking for neighbours") {
        assert!(!race.next(Deadline::after(Duration::from_millis(100)), &mut |_| ()).unwrap());
        report = race.report()[0].to_string();
    }
    tc("qdisc del dev eth0 root");
    assert!(race.next(later(), &mut |_| ()).unwrap(), "{report}");
}

#[test]
fn advertisements_that_nobody_asked_for_are_not_taken() {
    two_links();
    let script = "ip -6 addr add 2001:db8::1/64 dev p0 nodad; ip link set p0 up; dnsmasq --conf-file=/dev/null --pid-file \
                  --user=root --port=0 --leasefile-ro --log-facility=- --interface=p0 --bind-interfaces --enable-ra \
                  --dhcp-range=2001:db8::,ra-only,64,600 --ra-param=p0,4,600 >/dev/null 2>&1";
    let _router = Peer::start(&["p0"], script);
    let config = LinkConfig { addresses: vec![Prefix::parse("2001:db8:5::10/64").unwrap()], ..LinkConfig::default() };
    let plan = NetworkPlan { links: vec![link(named("eth0"), config)], layers: Vec::new(), servers: Vec::new() };
    let root = root(&[]);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let heard = || {
        let counters = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
        let count = counters.lines().find_map(|line| line.strip_prefix("Icmp6InRouterAdvertisements"));
        count.unwrap().trim().parse::<u32>().unwrap()
    };
    let limit = later();
    while heard() == 0 {
        assert!(!limit.expired(), "the router says nothing");
        assert!(!race.next(Deadline::after(Duration::from_millis(200)), &mut |_| ()).unwrap());
    }
    // What was heard is there to be read.
    assert!(!race.next(Deadline::after(Duration::from_millis(200)), &mut |_| ()).unwrap());
    let network = one(race.network().unwrap());
    assert_eq!(network.learned, []);
    assert_eq!(ip("-6 route show default"), "");
    assert_eq!(fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap().matches("20010db80000").count(), 0);
}

#[test]
fn a_link_whose_neighbours_are_silent_is_the_last_resort() {
    two_links();
    let _server = serve(RANGE);
    ip("link set p1 up");
    let silent = LinkConfig {
        addresses: vec![Prefix::parse("198.51.100.10/24").unwrap()],
        routes: vec![route("0.0.0.0/0", Some("198.51.100.1"), None)],
        ..LinkConfig::default()
    };
    let links = vec![link(named("eth0"), dhcp()), link(named("eth1"), silent)];
    let plan = NetworkPlan { links, layers: Vec::new(), servers: Vec::new() };
    let root = root(&[]);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(one(race.network().unwrap()).name.as_str(), "eth0");
    // Nobody is reached over eth0.
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(race.network().unwrap().links[0].name.as_str(), "eth1");
}
