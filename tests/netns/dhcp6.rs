//! Tests of DHCPv6 and of what routers say of it, against dnsmasq, ISC Kea and radvd, and of the network manager of the next stage
//! that goes on with the lease.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use imprint::apply::network::{AppliedLink, Keeper, Network, Race};
use imprint::handover::network::write;
use imprint::payload::Prefix;
use imprint::plan::{LinkConfig, NetworkPlan};

use super::dhcp::{dnsmasq, one};
use super::handover::{Networkd, folders_of_the_next_stage};
use super::network::{configure, only, root};
use super::peer::Peer;
use crate::{PATIENCE, ip, later, veth};

fn dhcp6() -> LinkConfig {
    LinkConfig { dhcp6: true, ..LinkConfig::default() }
}

fn slaac() -> LinkConfig {
    LinkConfig { slaac: true, ..LinkConfig::default() }
}

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

const LINK: &str = "ip -6 addr add 2001:db8::1/64 dev p0 nodad; ip link set p0 up";
/// Addresses by DHCPv6 alone: M, O, and a prefix that nobody makes an address of.
const STATEFUL: &str = "--enable-ra --ra-param=p0,4,600 --dhcp-option=option6:dns-server,[2001:db8::53] \
                        --dhcp-option=option6:domain-search,example.org";

/// The link of a server that wants a link-local address before it starts: there is one once the other end is up.
fn ready() -> String {
    ip("link set eth0 up");
    format!(
        "echo 0 > /proc/sys/net/ipv6/conf/p0/accept_dad; {LINK}; \
         until ip -6 addr show dev p0 scope link | grep -q inet6; do sleep 0.05; done"
    )
}

fn serve(options: &str) -> Peer {
    Peer::start(&["p0"], &format!("{LINK}; {}", dnsmasq("p0", options)))
}

/// ISC Kea, with these settings of its subnet. It says nothing to routers, and nobody is one.
fn kea(folder: &Path, subnet: &str) -> String {
    let config = format!(
        r#"{{"Dhcp6": {{"interfaces-config": {{"interfaces": ["p0"]}},
            "lease-database": {{"type": "memfile", "persist": false}},
            "server-id": {{"type": "LL", "htype": 1, "identifier": "020000000001", "persist": false}},
            "option-data": [{{"name": "dns-servers", "data": "2001:db8::53"}}],
            "subnet6": [{{"subnet": "2001:db8::/64", "interface": "p0",
                          "pools": [{{"pool": "2001:db8::100-2001:db8::1ff"}}], {subnet}}}]}}}}"#
    );
    let file = folder.join("kea.json");
    fs::write(&file, config).unwrap();
    format!(
        "KEA_PIDFILE_DIR={folder} KEA_LOCKFILE_DIR=none kea-dhcp6 -c {file} >{folder}/log 2>&1 & \
         until grep -q DHCP6_STARTED {folder}/log; do sleep 0.05; done",
        folder = folder.display(),
        file = file.display(),
    )
}

/// radvd with these settings of its link.
fn radvd(folder: &Path, settings: &str) -> String {
    let file = folder.join("radvd.conf");
    fs::write(
        &file,
        format!("interface p0 {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; {settings} }};\n"),
    )
    .unwrap();
    format!(
        "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; radvd -n -C {} -p {}/radvd.pid >{0}.log 2>&1 & sleep 0.2",
        file.display(),
        folder.display()
    )
}

/// Runs until this holds.
fn until(race: &mut Race<'_>, holds: impl Fn(&AppliedLink) -> bool) -> AppliedLink {
    loop {
        if let Some(link) = race.network().unwrap().links.into_iter().find(&holds) {
            return link;
        }
        assert!(race.next(later(), &mut |_| ()).unwrap(), "{}", race.report()[0]);
    }
}

fn has_lease(link: &AppliedLink) -> bool {
    link.six.address.is_some()
}

#[test]
fn a_lease_whose_network_the_router_knows() {
    veth();
    let _server = serve(&format!("{STATEFUL} --dhcp-range=2001:db8::100,2001:db8::1ff,64,1h"));
    let root = root(&[]);
    let plan = only(dhcp6());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let link = until(&mut race, has_lease);
    let address = link.six.address.unwrap();
    assert!(prefix("2001:db8::/64").contains(address.address()), "{address}");
    assert!(link.learned.is_empty(), "an address that no record asked for: {link:?}");
    let shown = ip("-6 addr show dev eth0 scope global");
    assert!(shown.contains(&format!("inet6 {}/", address.address())) && shown.contains("valid_lft"), "{shown}");
    assert!(!shown.contains("valid_lft forever"), "{shown}");
    // DHCPv6 gives no routes: they are the router's.
    let deadline = later();
    while !ip("-6 route").contains("default via fe80::") {
        assert!(!deadline.expired() && race.next(deadline.at_most(PATIENCE / 20), &mut |_| ()).is_ok());
    }
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.contains("nameserver 2001:db8::53\n") && resolv.contains("search example.org\n"), "{resolv}");
}

#[test]
fn routers_say_that_addresses_are_to_be_had() {
    veth();
    let _server = serve(&format!("{STATEFUL} --dhcp-range=2001:db8::100,2001:db8::1ff,64,1h"));
    let root = root(&[]);
    let plan = only(slaac());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let link = until(&mut race, has_lease);
    assert!(link.six.managed && link.six.identity.is_some());
    assert_eq!(link.six.address.unwrap().length(), 64, "the router has said that the network is on the link");
    assert!(link.six.dns.contains(&"2001:db8::53".parse().unwrap()));
}

#[test]
fn routers_say_that_only_names_are_to_be_had() {
    veth();
    let folder = tempfile::tempdir().unwrap();
    // radvd names no server; dnsmasq answers for that, and for no address.
    let router = radvd(folder.path(), "AdvOtherConfigFlag on; prefix 2001:db8::/64 { };");
    let server = dnsmasq("p0", "--dhcp-range=2001:db8::,static --dhcp-option=option6:dns-server,[2001:db8::53]");
    let _peer = Peer::start(&["p0"], &format!("{LINK}; {router}; {server}"));
    let root = root(&[]);
    let plan = only(slaac());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let link = until(&mut race, |link| !link.six.dns.is_empty());
    assert!(!link.learned.is_empty() && link.six.address.is_none() && link.dns.is_empty(), "{link:?}");
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.ends_with("\nnameserver 2001:db8::53\n"), "{resolv}");
}

/// Kea, and no router: the address stands alone.
#[test]
fn a_lease_of_kea_without_a_router() {
    veth();
    let folder = tempfile::tempdir().unwrap();
    let server = kea(folder.path(), r#""valid-lifetime": 4000, "preferred-lifetime": 3000"#);
    let _peer = Peer::start(&["p0"], &format!("{}; {server}", ready()));
    let root = root(&[]);
    let link = one(configure(&only(dhcp6()), root.path(), later()).unwrap());
    let address = link.six.address.unwrap();
    assert_eq!(address.length(), 128);
    assert!(prefix("2001:db8::100/120").contains(address.address()), "{address}");
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("duid=[00:03:00:01:"), "DUID-LL, as this machine has no UUID: {log}");
}

#[test]
fn rapid_commit_with_kea_and_the_machines_uuid() {
    veth();
    let folder = tempfile::tempdir().unwrap();
    let server = kea(folder.path(), r#""rapid-commit": true"#);
    let _peer = Peer::start(&["p0"], &format!("{}; {server}", ready()));
    let root = root(&[]);
    let id = root.path().join("sys/class/dmi/id");
    fs::create_dir_all(&id).unwrap();
    fs::write(id.join("product_uuid"), "4c4c4544-0042-3510-8054-b4c04f564433\n").unwrap();
    let link = one(configure(&only(dhcp6()), root.path(), later()).unwrap());
    let identity = link.six.identity.unwrap();
    assert_eq!(identity.duid.to_string(), "00:04:4c:4c:45:44:00:42:35:10:80:54:b4:c0:4f:56:44:33");
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains(&format!("duid=[{}]", identity.duid)), "{log}");
    assert!(log.contains(&format!("iaid={}", identity.iaid)), "{log}");
}

/// The server has nothing to give, and says so; and routers that lead nowhere are no routers.
#[test]
fn why_there_is_no_address() {
    veth();
    let folder = tempfile::tempdir().unwrap();
    let router = radvd(folder.path(), "AdvDefaultLifetime 0; AdvManagedFlag on;");
    let server = dnsmasq("p0", "--dhcp-range=2001:db8::,static");
    let _peer = Peer::start(&["p0"], &format!("{LINK}; {router}; {server}"));
    let root = root(&[]);
    let plan = only(dhcp6());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let deadline = later();
    loop {
        assert!(!race.next(deadline.at_most(PATIENCE / 60), &mut |_| ()).unwrap());
        let report = race.report()[0].to_string();
        if report.contains("lifetime 0") && report.contains("NoAddrsAvail") {
            assert!(
                report.contains("DHCPv6: ") && report.contains("SOLICIT sent, no ADVERTISE, last refusal by fe80::"),
                "{report}"
            );
            return;
        }
        assert!(!deadline.expired(), "{report}");
    }
}

#[test]
fn an_address_that_another_machine_has_is_declined() {
    veth();
    // The first address of two is the peer's own.
    let script = format!(
        "{LINK}; ip -6 addr add 2001:db8::100/128 dev p0 nodad; {}",
        dnsmasq("p0", &format!("{STATEFUL} --dhcp-sequential-ip --dhcp-range=2001:db8::100,2001:db8::101,64,1h"))
    );
    let _peer = Peer::start(&["p0"], &script);
    let root = root(&[]);
    let plan = only(dhcp6());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    let link = until(&mut race, has_lease);
    let taken: IpAddr = "2001:db8::100".parse().unwrap();
    assert_ne!(link.six.address.unwrap().address(), taken);
    assert!(!ip("-6 addr show dev eth0").contains("2001:db8::100/"));
}

/// `imprint root` is another process than the run that got the lease.
#[test]
fn a_dhcp6_lease_of_an_earlier_run_is_kept() {
    veth();
    let _server = serve(&format!("{STATEFUL} --dhcp-range=2001:db8::100,2001:db8::1ff,64,1h"));
    let root = root(&[]);
    let plan = only(dhcp6());
    let address = {
        let mut race = Race::new(&plan, None, root.path()).unwrap();
        until(&mut race, has_lease).six.address.unwrap()
    };
    // As if most of it were over.
    ip(&format!("addr change {address} dev eth0 valid_lft 12 preferred_lft 12 noprefixroute"));
    let left = || {
        let shown = ip(&format!("-6 addr show dev eth0 to {}", address.address()));
        let left = shown.split("valid_lft ").nth(1).unwrap_or_else(|| panic!("it is gone: {shown}"));
        left.split("sec").next().unwrap().parse::<u32>().unwrap()
    };
    let mut keeper = Keeper::open(None, None, None).unwrap();
    let deadline = later();
    while left() <= 12 {
        assert!(!deadline.expired(), "nobody has renewed it");
        keeper.tend(&|words| panic!("{words}")).unwrap();
        // Polling: what has changed is the kernel's, and the keeper never waits.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!((3000..=3600).contains(&left()));
}

#[test]
fn an_early_network_by_dhcp6_is_taken_away() {
    veth();
    let _server = serve(&format!("{STATEFUL} --dhcp-range=2001:db8::100,2001:db8::1ff,64,1h"));
    let root = root(&[]);
    let plan: NetworkPlan = only(dhcp6());
    let (stop, _held) = nix::unistd::pipe().unwrap();
    let mut race = Race::for_a_while(&plan, root.path(), stop.as_fd()).unwrap();
    until(&mut race, has_lease);
    assert_eq!(race.give_back(None, None), [] as [String; 0]);
    assert_eq!(ip("-6 addr show dev eth0 scope global"), "");
}

/// An advertisement of 2001:db8::/64 and of a NAT64, again and again: radvd names none before version 2.20.
const ROUTER: &str = r#"
import socket, time
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
network = socket.inet_pton(socket.AF_INET6, "2001:db8::")
nat64 = socket.inet_pton(socket.AF_INET6, "2001:db8:64::")[:12]
said = bytes.fromhex("86000000400007080000000000000000" "030440c00001518000003840" "00000000") + network
said += bytes.fromhex("26020708") + nat64
while True:
    try:
        s.sendto(said, ("ff02::1", 0, 0, socket.if_nametoindex("p0")))
    except OSError:
        pass
    time.sleep(0.1)
"#;

/// A NAT64 of the router, for servers that have an IPv4 address only.
#[test]
fn the_prefix_of_a_nat64_is_handed_on() {
    veth();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("router.py");
    fs::write(&file, ROUTER).unwrap();
    let _peer = Peer::start(&["p0"], &format!("{LINK}; python3 {} >/dev/null 2>&1 &", file.display()));
    let root = root(&[]);
    let link = one(configure(&only(slaac()), root.path(), later()).unwrap());
    assert_eq!(link.six.nat64, [prefix("2001:db8:64::/96")]);
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.contains("# nat64 2001:db8:64::/96\n"), "{resolv}");
}

#[test]
fn networkd_goes_on_with_the_dhcp6_lease() {
    veth();
    folders_of_the_next_stage();
    // So many addresses to choose from that only DUID and IAID make it the same one.
    let _server = serve(&format!("{STATEFUL} --dhcp-range=2001:db8::1000,2001:db8::ffff,64,1h"));
    let root = root(&[]);
    let plan = only(dhcp6());
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    until(&mut race, has_lease);
    let network: Network = race.network().unwrap();
    race.settle().unwrap();
    write(Path::new("/"), &network).unwrap();
    let address = one(network).six.address.unwrap();

    let changes = root.path().join("changes");
    let out = fs::File::create(&changes).unwrap();
    let mut monitor = Command::new("ip").args(["-o", "monitor", "address"]).stdout(out).spawn().unwrap();
    let networkd = Networkd::start();
    let state = networkd.configured();
    assert!(state.contains("NETWORK_FILE=/run/systemd/network/70-imprint-eth0.network"), "{state}");
    let deadline = later();
    // networkd has asked, and says for how long it has the address now.
    while !fs::read_to_string(&changes).unwrap().contains(&format!("inet6 {}/", address.address())) {
        assert!(!deadline.expired(), "{}", fs::read_to_string(&changes).unwrap());
        std::thread::yield_now();
    }
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let changes = fs::read_to_string(&changes).unwrap();
    assert!(!changes.contains(&format!("Deleted {}", address.address())), "{changes}");
    let shown = ip("-o -6 addr show dev eth0 scope global");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains(&format!("inet6 {}/", address.address())), "{address} became {shown}");
}
