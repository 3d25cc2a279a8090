//! Tests of addresses from the network: DHCPv4 and router advertisements of a real dnsmasq, several links of which one
//! works, and static addresses on the link whose gateway answers (ARP, ND).

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use imprint::apply::network::{AppliedLink, Keeper, Network, NetworkError, Race};
use imprint::netlink::Netlink;
use imprint::payload::{DnsName, HostName, Match, Prefix, Route};
use imprint::plan::{LinkConfig, NetworkPlan};
use imprint::time::Deadline;

use super::network::{configure, link, named, only, root, route};
use super::peer::Peer;
use crate::{PATIENCE, index, ip, later, namespaces, operational, patiently, veth};

pub(super) fn dhcp() -> LinkConfig {
    LinkConfig { dhcp4: true, ..LinkConfig::default() }
}

/// dnsmasq 2.90 leaves nothing behind, and does not ask whether an address is free before it gives it away.
pub(super) fn dnsmasq(link: &str, options: &str) -> String {
    format!(
        "dnsmasq --conf-file=/dev/null --pid-file --user=root --port=0 --leasefile-ro --no-ping --dhcp-authoritative \
         --log-facility=- --interface={link} --bind-interfaces {options} >/dev/null 2>&1"
    )
}

const SERVER: &str = "ip addr add 192.0.2.1/24 dev p0; ip link set p0 up";
pub(super) const RANGE: &str = "--dhcp-range=192.0.2.100,192.0.2.100,255.255.255.0,1h";

pub(super) fn serve(options: &str) -> Peer {
    Peer::start(&["p0"], &format!("{SERVER}; {}", dnsmasq("p0", options)))
}

pub(super) fn one(network: Network) -> AppliedLink {
    let [link] = <[AppliedLink; 1]>::try_from(network.links).unwrap();
    link
}

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_lease_with_all_that_comes_with_it() {
    veth();
    let _server = serve(&format!(
        "{RANGE} --dhcp-option=6,192.0.2.53 --dhcp-option=26,1400 --domain=ignored.example \
         --dhcp-option=option:domain-search,lab.example.org,example.org \
         --dhcp-option=121,0.0.0.0/0,192.0.2.1,198.51.100.0/24,192.0.2.9"
    ));
    let root = root(&[]);
    let plan = only(dhcp());
    let hostname = HostName::try_from("node17").unwrap();
    let mut race = Race::new(&plan, Some(&hostname), root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let link = one(race.network().unwrap());
    let lease = link.lease.clone().unwrap();
    assert_eq!((lease.address, lease.server), (prefix("192.0.2.100/24"), "192.0.2.1".parse().unwrap()));
    assert_eq!((lease.seconds, lease.renew), (3600, Duration::from_secs(1800)));
    assert_eq!(link.all_routes().count(), 2);

    let shown = ip("-4 addr show dev eth0");
    assert!(shown.contains("mtu 1400") && shown.contains("inet 192.0.2.100/24"), "{shown}");
    // The kernel takes the address away when the lease is over, should nobody renew it.
    let left = shown.split("valid_lft ").nth(1).and_then(|rest| rest.split("sec").next()).unwrap();
    assert!((1..=3600).contains(&left.parse::<u32>().unwrap()), "{shown}");
    let routes = ip("-4 route");
    assert!(routes.contains("default via 192.0.2.1 dev eth0"), "{routes}");
    assert!(routes.contains("198.51.100.0/24 via 192.0.2.9 dev eth0"), "{routes}");
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.ends_with("\nnameserver 192.0.2.53\nsearch lab.example.org example.org\n"), "{resolv}");
}

/// `imprint root` is another process than the run that got the lease, and what it fetches may take longer than the lease lasts.
#[test]
fn an_address_that_an_earlier_run_has_leased_is_kept() {
    veth();
    let _server = serve(RANGE);
    ip("link set eth0 up");
    operational("eth0");
    ip("addr add 192.0.2.100/24 dev eth0 valid_lft 12 preferred_lft 12");
    ip("addr add 198.51.100.7/24 dev eth0");
    let mut keeper = Keeper::open(None, None, None).unwrap();
    let began = Instant::now();
    let left = || {
        let shown = ip("-4 addr show dev eth0 to 192.0.2.100");
        shown
            .split("valid_lft ")
            .nth(1)
            .unwrap_or_else(|| panic!("it is gone: {shown}"))
            .split("sec")
            .next()
            .unwrap()
            .parse::<u32>()
    };
    while left().unwrap() <= 12 {
        assert!(began.elapsed() < PATIENCE, "nobody has renewed it");
        keeper.tend(&|words| panic!("{words}")).unwrap();
        // Polling: what has changed is the kernel's, and the keeper never waits.
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!((3000..=3600).contains(&left().unwrap()));
    assert!(ip("-4 addr show dev eth0 to 198.51.100.7").contains("valid_lft forever"), "one that nobody leased stays");
}

#[test]
fn the_payloads_mtu_goes_before_the_servers() {
    veth();
    let _server = serve(&format!("{RANGE} --dhcp-option=26,1400"));
    let network = configure(&only(LinkConfig { mtu: Some(1300), ..dhcp() }), root(&[]).path(), later()).unwrap();
    let link = one(network);
    assert_eq!((link.lease.unwrap().mtu, link.mtu), (Some(1400), 1300));
    assert!(ip("link show dev eth0").contains("mtu 1300"));
}

#[test]
fn the_payloads_route_goes_before_the_servers() {
    veth();
    let _server = serve(RANGE);
    let config = LinkConfig {
        addresses: vec![prefix("192.0.2.10/24")],
        routes: vec![route("0.0.0.0/0", Some("192.0.2.9"), None)],
        ..dhcp()
    };
    let plan = only(config);
    let root = root(&[]);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    while race.network().unwrap().links.iter().all(|link| link.lease.is_none()) {
        assert!(race.next(later(), &mut |_| ()).unwrap());
    }
    let routes = ip("-4 route show default");
    assert!(routes.contains("via 192.0.2.9") && !routes.contains("via 192.0.2.1 "), "{routes}");
}

#[test]
fn a_lease_for_one_address_reaches_its_gateway_all_the_same() {
    veth();
    // As some clouds have it: a /32, and a gateway that is in no network.
    let _server = serve("--dhcp-range=192.0.2.100,192.0.2.100,255.255.255.0,1h --dhcp-option=1,255.255.255.255");
    configure(&only(dhcp()), root(&[]).path(), later()).unwrap();
    let routes = ip("-4 route");
    assert!(routes.contains("192.0.2.1 dev eth0 proto dhcp scope link src 192.0.2.100"), "{routes}");
    assert!(routes.contains("default via 192.0.2.1 dev eth0"), "{routes}");
}

#[test]
fn what_the_kernel_refuses_of_a_lease_leaves_the_rest_of_it() {
    namespaces();
    ip("link add low0 type veth peer name p0");
    ip("link add eth0 link low0 type macvlan");
    ip("link set low0 up");
    // An MTU that this link cannot have, and a gateway that nobody can be.
    let _server = serve(&format!(
        "{RANGE} --dhcp-option=26,9000 --dhcp-option=121,0.0.0.0/0,192.0.2.255,198.51.100.0/24,192.0.2.1 --dhcp-option=6,192.0.2.53"
    ));
    let root = root(&[]);
    let plan = only(dhcp());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(one(race.network().unwrap()).lease.unwrap().address, prefix("192.0.2.100/24"));
    assert!(fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap().contains("nameserver 192.0.2.53"));
    assert!(ip("-4 route").contains("198.51.100.0/24 via 192.0.2.1 dev eth0"));
    let report = race.report()[0].to_string();
    assert!(
        report.contains("MTU 9000 on eth0: ") && report.contains("route default via 192.0.2.255 on eth0: "),
        "{report}"
    );
}

#[test]
fn an_address_that_is_refused_is_gone_before_there_is_another() {
    veth();
    let first =
        dnsmasq("p0", &format!("{RANGE} --dhcp-option=option:T1,3 --dhcp-option=121,198.51.100.0/24,192.0.2.9"));
    // A server for another network that has nothing to give: it refuses and keeps silent.
    let folder = tempfile::tempdir().unwrap();
    let (ask, done) = (folder.path().join("ask"), folder.path().join("done"));
    let next = dnsmasq("p0", "--dhcp-range=203.0.113.100,static,255.255.255.0,1h");
    let script = format!(
        "{SERVER}; ip addr add 203.0.113.1/24 dev p0; {first}; mkfifo {ask} {done}; (read x < {ask}; kill $(pidof dnsmasq); \
         while pidof dnsmasq; do :; done; ip addr del 192.0.2.1/24 dev p0; {next}; echo done > {done}) >/dev/null 2>&1 &",
        ask = ask.display(),
        done = done.display()
    );
    let _server = Peer::start(&["p0"], &script);
    let root = root(&[]);
    let config = LinkConfig { addresses: vec![prefix("192.0.2.10/24")], ..dhcp() };
    let plan = only(config);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    while race.network().unwrap().links.iter().all(|link| link.lease.is_none()) {
        assert!(race.next(later(), &mut |_| ()).unwrap());
    }
    fs::write(&ask, "next\n").unwrap();
    fs::read(&done).unwrap();
    until_t1(&mut race);
    // Nobody gives it another address, so that only the limit ends this, once the refusal is there.
    patiently(Duration::from_secs(2), |limit| {
        race.renew(Deadline::after(limit)).unwrap();
        let lease = one(race.network().unwrap()).lease;
        lease.map_or(Ok(()), |lease| Err(format!("{lease:?}")))
    });
    // RFC 2131 §3.1 and §4.4.5: a client that is refused begins again, without the address and what came with it.
    let shown = ip("-4 addr show dev eth0");
    assert!(shown.contains("192.0.2.10/24") && !shown.contains("192.0.2.100"), "{shown}");
    assert_eq!(ip("-4 route show 198.51.100.0/24"), "");
}

#[test]
fn without_a_server_the_report_says_what_was_tried() {
    veth();
    ip("link set p0 up");
    patiently(Duration::from_millis(200), |limit| {
        let error = configure(&only(dhcp()), root(&[]).path(), Deadline::after(limit)).unwrap_err();
        let NetworkError::NoLink { links, .. } = &error else { panic!("{error:?}") };
        let line = links[0].to_string();
        let asked = line.starts_with("eth0 (virtual): carrier, ") && line.ends_with(" DISCOVER sent, no OFFER");
        if asked && line.contains(" received, DHCPv4: ") { Ok(()) } else { Err(line) }
    });
}

/// There is no second link, so that the race does nothing but wait.
fn until_t1(race: &mut Race) {
    assert!(!race.next(Deadline::after(Duration::from_secs(3)), &mut |_| ()).unwrap());
}

#[test]
fn a_lease_is_renewed() {
    veth();
    // The shortest T1 that dnsmasq has.
    let _server = serve(&format!("{RANGE} --dhcp-option=option:T1,3"));
    let root = root(&[]);
    let plan = only(dhcp());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let first = one(race.network().unwrap()).lease.unwrap();
    until_t1(&mut race);
    race.renew(later()).unwrap();
    let renewed = one(race.network().unwrap()).lease.unwrap();
    assert!(renewed.bound > first.bound);
    assert_eq!(renewed.address, first.address);
}

#[test]
fn an_address_that_the_next_server_refuses_is_given_up() {
    veth();
    let both = format!(
        "{SERVER}; ip addr add 203.0.113.1/24 dev p0; {}",
        dnsmasq("p0", &format!("{RANGE} --dhcp-option=option:T1,3 --dhcp-option=6,192.0.2.53"))
    );
    // Its second life begins when it finds the file, which is the test's to make.
    let folder = tempfile::tempdir().unwrap();
    let (ask, done) = (folder.path().join("ask"), folder.path().join("done"));
    let next = dnsmasq("p0", "--dhcp-range=203.0.113.100,203.0.113.100,255.255.255.0,1h --dhcp-option=6,203.0.113.53");
    let script = format!(
        "{both}; mkfifo {ask} {done}; (read x < {ask}; kill $(pidof dnsmasq); while pidof dnsmasq; do :; done; \
         ip addr del 192.0.2.1/24 dev p0; {next}; echo done > {done}) >/dev/null 2>&1 &",
        ask = ask.display(),
        done = done.display()
    );
    let _server = Peer::start(&["p0"], &script);
    let root = root(&[]);
    let plan = only(dhcp());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(one(race.network().unwrap()).lease.unwrap().address, prefix("192.0.2.100/24"));
    fs::write(&ask, "next\n").unwrap();
    fs::read(&done).unwrap();
    until_t1(&mut race);
    race.renew(later()).unwrap();
    assert_eq!(one(race.network().unwrap()).lease.unwrap().address, prefix("203.0.113.100/24"));
    let shown = ip("-4 addr show dev eth0");
    assert!(!shown.contains("192.0.2.100"), "{shown}");
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.ends_with("\nnameserver 203.0.113.53\n"), "{resolv}");
    let report = race.report()[0].to_string();
    assert!(report.contains("last NAK by 203.0.113.1: \"wrong network\""), "{report}");
}

#[test]
fn an_address_and_name_servers_by_router_advertisement() {
    veth();
    let options = "--enable-ra --dhcp-range=2001:db8::,ra-only,64,600 --ra-param=p0,4,600 \
                   --dhcp-option=option6:dns-server,[2001:db8::53] --dhcp-option=option6:domain-search,example.org";
    let script = format!("ip -6 addr add 2001:db8::1/64 dev p0 nodad; ip link set p0 up; {}", dnsmasq("p0", options));
    let _router = Peer::start(&["p0"], &script);
    let root = root(&[]);
    let network = configure(&only(LinkConfig { slaac: true, ..LinkConfig::default() }), root.path(), later()).unwrap();
    let link = one(network);
    let [learned] = &link.learned[..] else { panic!("{link:?}") };
    assert!(prefix("2001:db8::/64").contains(learned.address()), "{learned}");
    assert!(ip("-6 route").contains("default via fe80::"));
    assert_eq!((&link.dns[..], link.search.len()), (&[address("2001:db8::53")][..], 1));
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.ends_with("\nnameserver 2001:db8::53\nsearch example.org\n"), "{resolv}");
}

/// eth0 … eth3 here, p0 … p3 there: p3 with a server, p2 down, p0 and p1 up and mute.
fn four_links(serving: &str) -> Peer {
    namespaces();
    for number in 0..4 {
        ip(&format!("link add eth{number} type veth peer name p{number}"));
    }
    // Linux answers for an address on whichever link it is asked; these are to be four networks.
    let script = format!(
        "for of in /proc/sys/net/ipv4/conf/*/arp_ignore; do echo 1 > $of; done; ip link set p0 up; ip link set p1 up; \
         ip addr add 192.0.2.1/24 dev p3; ip link set p3 up; {serving}"
    );
    Peer::start(&["p0", "p1", "p2", "p3"], &script)
}

const DRIVERS: [(&str, &str); 4] = [("eth0", "igb"), ("eth1", "igb"), ("eth2", "igb"), ("eth3", "igb")];

#[test]
fn of_four_links_the_one_that_lives_is_used() {
    let _peer = four_links(&dnsmasq("p3", RANGE));
    // These two have asked before the one that lives can have its answer.
    for name in ["eth0", "eth1"] {
        ip(&format!("link set {name} up"));
        operational(name);
    }
    let root = root(&DRIVERS);
    let plan =
        NetworkPlan { links: vec![link(Match::AnyWithCarrier, dhcp())], layers: Vec::new(), servers: Vec::new() };
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let used = one(race.network().unwrap());
    assert_eq!((used.name.as_str(), used.lease.unwrap().address), ("eth3", prefix("192.0.2.100/24")));
    // One line each, for one screen.
    let lines: Vec<String> = race.report().iter().map(ToString::to_string).collect();
    let dead = |name: &str| lines.iter().find(|line| line.starts_with(name)).unwrap();
    assert!(dead("eth0").contains("no OFFER") && dead("eth1").contains("no OFFER"), "{lines:?}");
    assert!(dead("eth2").starts_with("eth2 (igb): no carrier, check cable and switch port"), "{lines:?}");
}

/// 192.0.2.10 with a gateway.
fn fixed() -> LinkConfig {
    LinkConfig {
        addresses: vec![prefix("192.0.2.10/24")],
        routes: vec![route("0.0.0.0/0", Some("192.0.2.1"), None)],
        ..LinkConfig::default()
    }
}

#[test]
fn a_static_address_goes_to_the_link_with_the_gateway() {
    let _peer = four_links(":");
    let root = root(&DRIVERS);
    let plan =
        NetworkPlan { links: vec![link(Match::AnyWithCarrier, fixed())], layers: Vec::new(), servers: Vec::new() };
    let network = configure(&plan, root.path(), later()).unwrap();
    assert_eq!(one(network).name.as_str(), "eth3");
    assert!(ip("-4 route").contains("default via 192.0.2.1 dev eth3"));
    assert_eq!(ip("-o -4 addr").matches("192.0.2.10/24").count(), 1);
}

#[test]
fn a_static_ipv6_address_goes_to_the_link_with_the_gateway() {
    let _peer = four_links("ip -6 addr add 2001:db8::1/64 dev p3 nodad");
    let root = root(&DRIVERS);
    let config = LinkConfig {
        addresses: vec![prefix("2001:db8::10/64")],
        routes: vec![Route { destination: prefix("::/0"), gateway: Some(address("2001:db8::1")), metric: None }],
        ..LinkConfig::default()
    };
    let plan =
        NetworkPlan { links: vec![link(Match::AnyWithCarrier, config)], layers: Vec::new(), servers: Vec::new() };
    assert_eq!(one(configure(&plan, root.path(), later()).unwrap()).name.as_str(), "eth3");
}

#[test]
fn where_nobody_answers_the_first_entry_of_the_payload_is_believed() {
    namespaces();
    for number in 0..2 {
        ip(&format!("link add eth{number} type veth peer name p{number}"));
        ip(&format!("link set p{number} up"));
    }
    let links = vec![link(named("eth1"), fixed()), link(named("eth0"), fixed())];
    let plan = NetworkPlan { links, layers: Vec::new(), servers: Vec::new() };
    let root = root(&[]);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let (mut used, mut asked) = (false, false);
    while !used {
        used = race.next(Deadline::after(Duration::from_millis(100)), &mut |_| ()).unwrap();
        let report = race.report()[0].to_string();
        asked |= report.contains("no neighbour answered in ") && report.ends_with(" rounds of questions");
    }
    assert!(asked, "{}", race.report()[0]);
    assert_eq!(one(race.network().unwrap()).name.as_str(), "eth1");
}

#[test]
fn the_second_link_comes_when_it_is_asked_for() {
    let _peer = four_links(&format!(
        "ip addr add 198.51.100.1/24 dev p0; {}; {}",
        dnsmasq("p3", RANGE),
        dnsmasq("p0", "--dhcp-range=198.51.100.100,198.51.100.100,255.255.255.0,1h")
    ));
    let root = root(&DRIVERS);
    let plan =
        NetworkPlan { links: vec![link(Match::AnyWithCarrier, dhcp())], layers: Vec::new(), servers: Vec::new() };
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    // Or with the first, when both servers are as fast.
    while race.network().unwrap().links.len() < 2 {
        assert!(race.next(later(), &mut |_| ()).unwrap());
    }
    let mut names: Vec<String> =
        race.network().unwrap().links.iter().map(|link| link.name.as_str().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["eth0", "eth3"]);
}

#[test]
fn a_link_is_left_alone_until_udevd_has_named_it() {
    veth();
    ip("link set p0 up");
    let root = root(&[]);
    fs::create_dir_all(root.path().join("run/udev/data")).unwrap();
    fs::write(root.path().join("run/udev/control"), "").unwrap();
    let config = LinkConfig { addresses: vec![prefix("192.0.2.10/24")], ..LinkConfig::default() };
    let plan = only(config);
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(!race.next(Deadline::after(Duration::from_millis(20)), &mut |_| ()).unwrap());
    // udevd writes it down before it renames a link, and once more behind that.
    let record = root.path().join(format!("run/udev/data/n{}", index("eth0")));
    fs::write(&record, "I:8123456\nE:ID_NET_NAME_PATH=ens8\nE:ID_RENAMING=1\nG:systemd\n").unwrap();
    assert!(!race.next(Deadline::after(Duration::from_millis(20)), &mut |_| ()).unwrap());
    let link = Netlink::open(0).unwrap().link(index("eth0"), later()).unwrap();
    assert_eq!(link.flags & imprint::netlink::message::IFF_UP, 0, "it was brought up");
    let report: Vec<String> = race.report().iter().map(ToString::to_string).collect();
    assert_eq!(report, ["eth0 (virtual): not used because udevd has not named it yet"]);
    let renamed = root.path().join("run/udev/data/.new");
    fs::write(&renamed, "I:8123456\nE:ID_NET_NAME_PATH=ens8\nG:systemd\n").unwrap();
    fs::rename(&renamed, &record).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
}

#[test]
fn a_domain_of_the_payload_goes_before_the_servers() {
    veth();
    let _server = serve(&format!("{RANGE} --dhcp-option=6,192.0.2.53 --domain=example.net"));
    let search = vec![DnsName::try_from("example.org").unwrap()];
    let root = root(&[]);
    let config = LinkConfig { dns: vec![address("192.0.2.7")], search, ..dhcp() };
    configure(&only(config), root.path(), later()).unwrap();
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(
        resolv.ends_with("\nnameserver 192.0.2.7\nnameserver 192.0.2.53\nsearch example.org example.net\n"),
        "{resolv}"
    );
}

#[test]
fn a_static_address_is_on_one_link_at_a_time_and_moves_when_that_is_no_good() {
    namespaces();
    for number in 0..2 {
        ip(&format!("link add eth{number} type veth peer name p{number}"));
    }
    // The gateway answers on both.
    let _peer = Peer::start(&["p0", "p1"], "ip addr add 192.0.2.1/24 dev p1; ip link set p0 up; ip link set p1 up");
    let root = root(&DRIVERS);
    let plan =
        NetworkPlan { links: vec![link(Match::AnyWithCarrier, fixed())], layers: Vec::new(), servers: Vec::new() };
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let mut used = Vec::new();
    for _ in 0..3 {
        assert!(race.next(later(), &mut |_| ()).unwrap());
        assert_eq!(ip("-o -4 addr").matches("192.0.2.10/24").count(), 1);
        used.push(one(race.network().unwrap()).name.as_str().to_owned());
        let routes = ip("-4 route");
        assert!(routes.contains(&format!("default via 192.0.2.1 dev {}", used[used.len() - 1])), "{routes}");
    }
    assert_eq!(used[0], used[2], "in turn");
    used.sort();
    used.dedup();
    assert_eq!(used, ["eth0", "eth1"]);
}
