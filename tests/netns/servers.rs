//! Tests of DHCP servers that change or contradict each other: two real dnsmasq on one link, one of which does not
//! work, and a server that gives other routes when the lease is renewed.

use std::fs;
use std::time::Duration;

use imprint::apply::network::Race;
use imprint::payload::Prefix;
use imprint::plan::LinkConfig;
use imprint::time::Deadline;

use super::dhcp::{RANGE, dhcp, dnsmasq, one};
use super::network::{only, root, route};
use super::peer::Peer;
use crate::{ip, later, namespaces, veth};

/// Makes eth0, on one link with the machines 192.0.2.1 and 192.0.2.2, whose DHCP servers have these options.
fn two_servers(first: &str, second: &str) -> [Peer; 3] {
    namespaces();
    for (end, port) in [("eth0", "b0"), ("s1", "b1"), ("s2", "b2")] {
        ip(&format!("link add {end} type veth peer name {port}"));
    }
    // With its usual delay, a port forwards nothing for 15 seconds.
    let switch = Peer::start(
        &["b0", "b1", "b2"],
        "ip link add br0 type bridge forward_delay 0; for port in b0 b1 b2; do ip link set $port master br0 up; done; \
         ip link set br0 up",
    );
    let server = |number: u8, options: &str| {
        let link = format!("s{number}");
        let script = format!("ip addr add 192.0.2.{number}/24 dev {link}; ip link set {link} up");
        Peer::start(&[&link], &format!("{script}; {}", dnsmasq(&link, options)))
    };
    [switch, server(1, first), server(2, second)]
}

/// Matches a REQUEST only, because that asks for an address by option 50: dnsmasq offers an address, and then does
/// something else.
const ASKED: &str = "--dhcp-match=set:asked,50";
const FIRST: &str = "192.0.2.101,192.0.2.101,255.255.255.0,1h";
/// The options of a standby: its offers come a second late, after those of the other server.
const SECOND: &str = "--dhcp-reply-delay=1 --dhcp-range=192.0.2.102,192.0.2.102,255.255.255.0,1h";

#[track_caller]
fn the_second_server_is_used(first: &str, said: &str) {
    let _machines = two_servers(first, SECOND);
    let (root, plan) = (root(&[]), only(dhcp()));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap(), "{}", race.report()[0]);
    let lease = one(race.network().unwrap()).lease.unwrap();
    assert_eq!((lease.address, lease.server), (Prefix::parse("192.0.2.102/24").unwrap(), [192, 0, 2, 2].into()));
    let shown = ip("-o -4 addr show dev eth0");
    assert!(shown.contains("192.0.2.102/24") && !shown.contains("192.0.2.101"), "{shown}");
    // The first server was asked, and did not give its address.
    let report = race.report()[0].to_string();
    assert!(report.contains("DHCPv4: 192.0.2.102/24 by 192.0.2.2, ") && report.contains(said), "{report}");
}

/// The first server offers an address and refuses it each time: its pool is not for this client.
#[test]
fn a_server_that_refuses_what_it_offers_is_left_for_the_other() {
    the_second_server_is_used(&format!("{ASKED} --dhcp-range=tag:!asked,{FIRST}"), "last NAK by 192.0.2.1: ");
}

/// The first server offers an address and never hears the REQUEST.
#[test]
fn a_server_that_offers_and_is_deaf_is_left_for_the_other() {
    the_second_server_is_used(
        &format!("{ASKED} --dhcp-ignore=tag:asked --dhcp-range={FIRST}"),
        "no answer by 192.0.2.1 to ",
    );
}

/// Both servers work, and each refuses the address that the other one gives, as dnsmasq does with --dhcp-authoritative:
/// "wrong server-ID".
#[test]
fn two_servers_that_refuse_what_the_other_gives_are_no_hindrance() {
    let _machines = two_servers(&format!("--dhcp-range={FIRST}"), SECOND);
    let (root, plan) = (root(&[]), only(dhcp()));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let lease = one(race.network().unwrap()).lease.unwrap();
    let [_, _, _, last] = lease.server.octets();
    assert_eq!(lease.address, Prefix::parse(&format!("192.0.2.10{last}/24")).unwrap());
}

/// A server on p0 that runs twice. The second run begins when the test says so.
struct Lives {
    folder: tempfile::TempDir,
    _peer: Peer,
}

impl Lives {
    fn start(first: &str, next: &str) -> Lives {
        veth();
        let folder = tempfile::tempdir().unwrap();
        let (ask, done) = (folder.path().join("ask"), folder.path().join("done"));
        let script = format!(
            "ip addr add 192.0.2.1/24 dev p0; ip link set p0 up; {first}; mkfifo {ask} {done}; (read x < {ask}; \
             kill $(pidof dnsmasq); while pidof dnsmasq; do :; done; {next}; echo done > {done}) >/dev/null 2>&1 &",
            first = dnsmasq("p0", first),
            next = dnsmasq("p0", next),
            ask = ask.display(),
            done = done.display()
        );
        Lives { _peer: Peer::start(&["p0"], &script), folder }
    }

    fn next(&self) {
        fs::write(self.folder.path().join("ask"), "next\n").unwrap();
        fs::read(self.folder.path().join("done")).unwrap();
    }
}

/// `DESTINATION via GATEWAY` of each route of the lease, sorted.
fn leased_routes() -> Vec<String> {
    let shown = ip("-4 route show dev eth0 proto dhcp");
    let words = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let mut routes: Vec<String> = shown.lines().map(words).collect();
    routes.sort();
    routes
}

/// Takes a lease with some classless routes (option 121), then the same lease with those of `next`.
#[track_caller]
fn routes_of_a_renewed_lease(next: &str, want: &[&str]) {
    let renewed_soon = format!("{RANGE} --dhcp-option=option:T1,3");
    let server = Lives::start(
        &format!(
            "{renewed_soon} --dhcp-option=121,0.0.0.0/0,192.0.2.1,198.51.100.0/24,192.0.2.9,198.18.0.0/15,192.0.2.9"
        ),
        &format!("{renewed_soon} {next}"),
    );
    let root = root(&[]);
    // A route of the payload's own, which no server takes away.
    let own = LinkConfig {
        addresses: vec![Prefix::parse("203.0.113.10/24").unwrap()],
        routes: vec![route("10.0.0.0/8", Some("203.0.113.1"), None)],
        ..dhcp()
    };
    let plan = only(own);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    while race.network().unwrap().links.iter().all(|link| link.lease.is_none()) {
        assert!(race.next(later(), &mut |_| ()).unwrap());
    }
    assert_eq!(
        leased_routes(),
        ["198.18.0.0/15 via 192.0.2.9", "198.51.100.0/24 via 192.0.2.9", "default via 192.0.2.1"]
    );
    let first = one(race.network().unwrap()).lease.unwrap();
    server.next();
    // There is no second link, so that the race does nothing but wait until half of the lease is over.
    assert!(!race.next(Deadline::after(Duration::from_secs(3)), &mut |_| ()).unwrap());
    race.renew(later()).unwrap();
    let renewed = one(race.network().unwrap()).lease.unwrap();
    assert!(renewed.bound > first.bound && renewed.address == first.address, "{renewed:?}");
    assert!(!race.report()[0].to_string().contains("NAK"), "it is the same lease: {}", race.report()[0]);
    assert_eq!(leased_routes(), want);
    assert!(ip("-4 route").contains("10.0.0.0/8 via 203.0.113.1 dev eth0"), "{}", ip("-4 route"));
    // The next boot stage takes over the routes of this moment.
    race.settle().unwrap();
    assert_eq!(leased_routes(), want);
    assert!(ip("-4 route show dev eth0 proto dhcp").lines().all(|line| line.contains("metric 1024")));
}

#[test]
fn routes_that_a_renewed_lease_has_not_go_and_new_ones_come() {
    // One route goes, one comes, and the two others get another gateway.
    routes_of_a_renewed_lease(
        "--dhcp-option=121,0.0.0.0/0,192.0.2.7,198.18.0.0/15,192.0.2.7,192.0.0.0/29,192.0.2.8",
        &["192.0.0.0/29 via 192.0.2.8", "198.18.0.0/15 via 192.0.2.7", "default via 192.0.2.7"],
    );
}

#[test]
fn a_renewed_lease_without_routes_takes_all_of_them_away() {
    // An empty option 3 keeps dnsmasq from naming itself.
    routes_of_a_renewed_lease("--dhcp-option=3", &[]);
}
