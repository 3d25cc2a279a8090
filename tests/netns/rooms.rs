//! Tests of unusual real networks: single addresses with gateways outside them, small MTUs, name servers of one link only,
//! and links that lead to the management controller alone.

use std::fs;
use std::time::Duration;

use imprint::apply::network::Race;
use imprint::netlink::Netlink;
use imprint::netlink::message::IFF_UP;
use imprint::payload::{Match, Prefix};
use imprint::plan::{LinkConfig, NetworkPlan};
use imprint::time::Deadline;

use super::dhcp::{RANGE, dhcp, dnsmasq, one, serve};
use super::network::{configure, link, named, only, root, route};
use super::peer::Peer;
use crate::{index, ip, later, namespaces, operational, veth};

/// A lease for one address, with the way to its gateway in option 121, as Hetzner Cloud gives it.
pub(super) const ALONE: &str = "--dhcp-range=192.0.2.100,192.0.2.100,255.255.255.0,1h \
                                --dhcp-option=1,255.255.255.255 \
                                --dhcp-option=121,172.31.1.1/32,0.0.0.0,0.0.0.0/0,172.31.1.1";

#[test]
fn both_routes_of_a_lease_for_one_address_stay() {
    veth();
    let _server = serve(ALONE);
    let (root, plan) = (root(&[]), only(dhcp()));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let routes = || {
        let routes = ip("-4 route");
        let lines = routes.lines().filter(|line| line.contains("proto dhcp"));
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let want = |metric: &str| {
        [
            format!("default via 172.31.1.1 dev eth0 proto dhcp src 192.0.2.100{metric}"),
            format!("172.31.1.1 dev eth0 proto dhcp scope link src 192.0.2.100{metric}"),
        ]
    };
    assert_eq!(routes(), want(""));
    // Whoever looks twice takes nothing away.
    for _ in 0..2 {
        race.settle().unwrap();
        assert_eq!(routes(), want(" metric 1024"));
    }
}

#[test]
fn a_small_mtu_of_a_lease_does_not_take_ipv6_away() {
    veth();
    let _server = serve(&format!("{RANGE} --dhcp-option=26,576"));
    // Without IPv6 it is the server's to say.
    let first = one(configure(&only(dhcp()), root(&[]).path(), later()).unwrap());
    assert_eq!((first.lease.unwrap().mtu, first.mtu), (Some(576), 576));
    ip("addr flush dev eth0");
    ip("link set eth0 down mtu 1500");
    let config = LinkConfig { addresses: vec![Prefix::parse("2001:db8::10/64").unwrap()], ..dhcp() };
    let (root, plan) = (root(&[]), only(config));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    while race.network().unwrap().links.iter().all(|link| link.lease.is_none()) {
        assert!(race.next(later(), &mut |_| ()).unwrap());
    }
    assert_eq!(one(race.network().unwrap()).mtu, 1500);
    assert!(ip("-o -6 addr show dev eth0").contains("2001:db8::10/64"));
    let report = race.report()[0].to_string();
    assert!(report.contains("MTU 576 of the DHCP server is not used, IPv6 needs 1280"), "{report}");
}

#[test]
fn a_name_server_that_is_known_on_its_link_only_is_named_with_it() {
    veth();
    let options = "--enable-ra --dhcp-range=2001:db8::,ra-only,64,600 --ra-param=p0,4,600 \
                   --dhcp-option=option6:dns-server,[fe80::1]";
    let script = format!("ip -6 addr add 2001:db8::1/64 dev p0 nodad; ip link set p0 up; {}", dnsmasq("p0", options));
    let _router = Peer::start(&["p0"], &script);
    let (root, plan) = (root(&[]), only(LinkConfig { slaac: true, ..LinkConfig::default() }));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.ends_with("\nnameserver fe80::1%eth0\n"), "{resolv}");
    let link = one(race.network().unwrap());
    assert_eq!(link.all_dns().map(|server| server.to_string()).collect::<Vec<_>>(), ["fe80::1%eth0"]);
    // The kernel knows the zone by this name, and so does whoever reads the file.
    let zone = format!("fe80::1%{}", link.name);
    let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(zone.as_str(), 53)).unwrap().next().unwrap();
    assert!(matches!(found, std::net::SocketAddr::V6(v6) if v6.scope_id() == link.index), "{found}");
    socket.send_to(b"?", found).unwrap();
}

/// 203.0.113.7/32 with a gateway outside it.
pub(super) fn alone() -> LinkConfig {
    LinkConfig {
        addresses: vec![Prefix::parse("203.0.113.7/32").unwrap()],
        routes: vec![route("0.0.0.0/0", Some("172.31.1.1"), None), route("172.31.1.1/32", None, None)],
        ..LinkConfig::default()
    }
}

#[test]
fn a_static_address_alone_reaches_its_gateway_whatever_the_order_of_the_routes() {
    veth();
    ip("link set p0 up");
    let mut config = alone();
    for _ in 0..2 {
        configure(&only(config.clone()), root(&[]).path(), later()).unwrap();
        let routes = ip("-4 route");
        assert!(routes.contains("default via 172.31.1.1 dev eth0"), "{routes}");
        assert!(routes.contains("172.31.1.1 dev eth0 scope link"), "{routes}");
        ip("route flush dev eth0");
        ip("addr flush dev eth0");
        config.routes.reverse();
    }
}

/// eth0 and eth1 with these drivers; `script` runs where p0 and p1 are.
fn two_links(script: &str) -> Peer {
    namespaces();
    for number in 0..2 {
        ip(&format!("link add eth{number} type veth peer name p{number}"));
    }
    let separate = "for of in /proc/sys/net/ipv4/conf/*/arp_ignore; do echo 1 > $of; done";
    Peer::start(&["p0", "p1"], &format!("{separate}; ip link set p0 up; {script}"))
}

const DRIVERS: [(&str, &str); 2] = [("eth0", "cdc_ether"), ("eth1", "igb")];

fn any(config: LinkConfig) -> NetworkPlan {
    NetworkPlan { links: vec![link(Match::AnyWithCarrier, config)], layers: Vec::new(), servers: Vec::new() }
}

#[test]
fn a_static_address_alone_goes_to_the_link_with_the_gateway() {
    let _peer = two_links("ip addr add 172.31.1.1/32 dev p1; ip link set p1 up; ip route add 203.0.113.7 dev p1");
    ip("link set eth0 up");
    operational("eth0");
    let root = root(&[("eth0", "igb"), ("eth1", "igb")]);
    assert_eq!(one(configure(&any(alone()), root.path(), later()).unwrap()).name.as_str(), "eth1");
}

/// Waits until the line of a link says this; meanwhile nothing may be used.
fn until(race: &mut Race<'_>, words: &str) {
    let limit = later();
    loop {
        let report: Vec<String> = race.report().iter().map(ToString::to_string).collect();
        if report.iter().any(|line| line.contains(words)) {
            return;
        }
        assert!(!limit.expired(), "{report:?}");
        assert!(!race.next(Deadline::after(Duration::from_millis(50)), &mut |_| ()).unwrap(), "{report:?}");
    }
}

/// The management controller's own DHCP server answers at once, the site's when its switch port is ready.
#[test]
fn a_usb_link_with_a_link_local_lease_is_not_the_network() {
    let controller = dnsmasq("p0", "--dhcp-range=169.254.3.2,169.254.3.2,255.255.255.0,1h");
    let folder = tempfile::tempdir().unwrap();
    let ask = folder.path().join("ask");
    let site = dnsmasq("p1", RANGE);
    let _peer = two_links(&format!(
        "ip addr add 169.254.3.1/24 dev p0; {controller}; ip addr add 192.0.2.1/24 dev p1; mkfifo {ask}; (read x < {ask}; \
         ip link set p1 up; {site}) >/dev/null 2>&1 &",
        ask = ask.display()
    ));
    let root = root(&DRIVERS);
    let plan = any(dhcp());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    until(&mut race, "169.254.3.2/24 by 169.254.3.1, a USB link with a link-local address is taken for");
    assert_eq!(ip("-4 addr show dev eth0"), "", "and it has nothing of that lease");
    fs::write(&ask, "go\n").unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(one(race.network().unwrap()).name.as_str(), "eth1");
    // Whoever asks for it by name means it.
    let plan = NetworkPlan { links: vec![link(named("eth0"), dhcp())], layers: Vec::new(), servers: Vec::new() };
    assert_eq!(one(configure(&plan, root.path(), later()).unwrap()).name.as_str(), "eth0");
}

#[test]
fn a_usb_link_that_nobody_answers_on_does_not_get_a_static_address() {
    let _peer = two_links(":");
    let root = root(&DRIVERS);
    let fixed = LinkConfig {
        addresses: vec![Prefix::parse("192.0.2.10/24").unwrap()],
        routes: vec![route("0.0.0.0/0", Some("192.0.2.1"), None)],
        ..LinkConfig::default()
    };
    let plan = any(fixed);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    // On a link of another kind three questions without an answer are enough; see the test of silent neighbours.
    until(&mut race, "no neighbour answered in 6 rounds of questions");
    assert_eq!(ip("-o -4 addr show dev eth0"), "");
    // Nothing to ask for, and nobody to ask: a signal alone is not enough here.
    for config in [LinkConfig::default(), LinkConfig { routes: Vec::new(), ..plan.links[0].config.clone() }] {
        let plan = any(config);
        let mut race = Race::new(&plan, None, root.path()).unwrap();
        assert!(!race.next(Deadline::after(Duration::from_millis(100)), &mut |_| ()).unwrap());
    }
    let used = race.network().unwrap();
    assert!(used.links.is_empty(), "{used:?}");
}

/// SMBIOS type 42: a USB link of this hardware address.
fn smbios(root: &std::path::Path, mac: &[u8]) {
    let head = [42, 23, 1, 0, 0x40, 17, 4, 16, 0x6b, 0x04, 0xb0, 0xff, 0];
    let table = [&head[..], mac, &[0, 0, 0xff, 0xff], &[0, 0, 127, 4, 2, 0, 0, 0]].concat();
    let folder = root.join("sys/firmware/dmi/tables");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("DMI"), table).unwrap();
}

#[test]
fn a_link_that_smbios_names_is_left_alone() {
    let _peer = two_links(&format!("ip addr add 192.0.2.1/24 dev p0; {}", dnsmasq("p0", RANGE)));
    let root = root(&[("eth0", "igb"), ("eth1", "igb")]);
    let mac = Netlink::open(0).unwrap().link(index("eth0"), later()).unwrap().address;
    smbios(root.path(), &mac);
    let plan = any(dhcp());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    until(&mut race, "eth0 (igb): not used because it leads to the management controller (SMBIOS type 42)");
    until(&mut race, "eth1 (igb): no carrier");
    assert_eq!(Netlink::open(0).unwrap().link(index("eth0"), later()).unwrap().flags & IFF_UP, 0, "it was brought up");
    // By name it is used like any other.
    let plan = NetworkPlan { links: vec![link(named("eth0"), dhcp())], layers: Vec::new(), servers: Vec::new() };
    assert_eq!(one(configure(&plan, root.path(), later()).unwrap()).name.as_str(), "eth0");
    // The attack works where SMBIOS says nothing: the controller's server is the first to answer.
    fs::remove_file(root.path().join("sys/firmware/dmi/tables/DMI")).unwrap();
    assert_eq!(one(configure(&any(dhcp()), root.path(), later()).unwrap()).name.as_str(), "eth0");
}
