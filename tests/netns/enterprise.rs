//! Tests of DHCPv4 as server rooms have it: a relay, ISC Kea, machines that are known by their DUID, leases for ever, big frames, and
//! switch ports that let nothing through before their spanning tree is ready.

use std::fs;
use std::time::Duration;

use imprint::apply::network::Race;
use imprint::payload::{Match, Prefix};
use imprint::plan::{LinkConfig, NetworkPlan};
use imprint::time::Deadline;

use super::dhcp::{RANGE, dhcp, dnsmasq, one, serve};
use super::network::{configure, link, only, root};
use super::peer::Peer;
use crate::{ip, later, namespaces, operational, veth};

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

const UUID: &str = "00010203-0405-0607-0809-0a0b0c0d0e0f";
/// DUID-UUID (RFC 6355) of that.
pub(super) const DUID: &str = "00:04:00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f";

/// A root whose SMBIOS has the UUID.
pub(super) fn root_with_uuid() -> tempfile::TempDir {
    let root = root(&[]);
    let id = root.path().join("sys/class/dmi/id");
    fs::create_dir_all(&id).unwrap();
    fs::write(id.join("product_uuid"), format!("{UUID}\n")).unwrap();
    root
}

/// ISC Kea with this subnet. It leaves nothing behind.
fn kea(folder: &tempfile::TempDir, lifetime: u32, subnet: &str) -> Peer {
    let conf = folder.path().join("kea.json");
    let text = format!(
        r#"{{ "Dhcp4": {{
            "interfaces-config": {{ "interfaces": ["p0"], "dhcp-socket-type": "raw" }},
            "lease-database": {{ "type": "memfile", "persist": false }},
            "valid-lifetime": {lifetime}, "authoritative": true,
            "host-reservation-identifiers": ["duid"],
            "subnet4": [{{ "id": 1, "subnet": "192.0.2.0/24", "pools": [{{ "pool": "192.0.2.100-192.0.2.100" }}], {subnet} }}]
        }} }}"#
    );
    fs::write(&conf, text).unwrap();
    // DISCOVER is sent again, so nobody has to wait until the server is ready.
    let run = format!(
        "KEA_LOCKFILE_DIR=none KEA_PIDFILE_DIR={} kea-dhcp4 -c {} >/dev/null 2>&1 &",
        folder.path().display(),
        conf.display()
    );
    Peer::start(
        &["p0"],
        &format!("command -v kea-dhcp4 >/dev/null; ip addr add 192.0.2.1/24 dev p0; ip link set p0 up; {run}"),
    )
}

#[test]
fn kea_knows_the_machine_by_its_duid() {
    veth();
    let folder = tempfile::tempdir().unwrap();
    let reserved = format!(r#""reservations": [{{ "duid": "{DUID}", "ip-address": "192.0.2.77" }}]"#);
    let _server = kea(&folder, 3600, &reserved);
    let root = root_with_uuid();
    // The premise: by its hardware address it is any machine.
    let by_mac = one(configure(&only(dhcp()), root.path(), later()).unwrap());
    assert_eq!(by_mac.lease.unwrap().address, prefix("192.0.2.100/24"));
    ip("addr flush dev eth0");
    let plan = only(LinkConfig { duid: true, ..dhcp() });
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let by_duid = one(race.network().unwrap());
    assert_eq!(by_duid.lease.unwrap().address, prefix("192.0.2.77/24"));
    let client_id = imprint::hex::encode(&by_duid.client_id.unwrap());
    assert!(client_id.starts_with("ff") && client_id.ends_with(&DUID.replace(':', "")), "{client_id}");
}

#[test]
fn a_lease_of_kea_for_ever_with_big_frames_and_routes() {
    veth();
    let folder = tempfile::tempdir().unwrap();
    // 0.0.0.0/0 by 192.0.2.1 and 198.51.100.0/24 by 192.0.2.9; the router beside them is not used (RFC 3442).
    let options = r#""option-data": [
        { "name": "routers", "data": "192.0.2.99" },
        { "name": "domain-name-servers", "data": "192.0.2.53" },
        { "name": "domain-search", "data": "lab.example.org, example.org" },
        { "name": "interface-mtu", "data": "9000" },
        { "code": 121, "csv-format": false, "data": "00C000020118C63364C0000209" }
    ]"#;
    let _server = kea(&folder, u32::MAX, options);
    let root = root(&[]);
    let link = one(configure(&only(dhcp()), root.path(), later()).unwrap());
    let lease = link.lease.clone().unwrap();
    assert_eq!((lease.address, lease.seconds, lease.mtu), (prefix("192.0.2.100/24"), u32::MAX, Some(9000)));
    assert_eq!(lease.unread, [] as [u8; 0]);
    let shown = ip("-4 addr show dev eth0");
    assert!(shown.contains("mtu 9000") && shown.contains("valid_lft forever"), "{shown}");
    let routes = ip("-4 route");
    assert!(routes.contains("default via 192.0.2.1 dev eth0"), "{routes}");
    assert!(routes.contains("198.51.100.0/24 via 192.0.2.9 dev eth0") && !routes.contains("192.0.2.99"), "{routes}");
    let resolv = fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
    assert!(resolv.ends_with("\nnameserver 192.0.2.53\nsearch lab.example.org example.org\n"), "{resolv}");
}

/// The server is in another network, and a relay is between: questions and answers go through it, and so does a renewal.
#[test]
fn a_lease_over_a_relay() {
    veth();
    ip("link add q0 type veth peer name q1");
    let server = "ip addr add 198.51.100.1/24 dev q1; ip link set q1 up; ip route add 192.0.2.0/24 via 198.51.100.2";
    let range = "--dhcp-range=192.0.2.100,192.0.2.100,255.255.255.0,2m --dhcp-option=3,192.0.2.254";
    let _server = Peer::start(&["q1"], &format!("{server}; {}", dnsmasq("q1", range)));
    let relay = "ip addr add 198.51.100.2/24 dev q0; ip link set q0 up; ip addr add 192.0.2.254/24 dev p0; ip link set p0 up; \
                 echo 1 > /proc/sys/net/ipv4/ip_forward; dnsmasq --conf-file=/dev/null --pid-file --user=root --port=0 \
                 --dhcp-relay=192.0.2.254,198.51.100.1 --log-facility=- >/dev/null 2>&1";
    let _relay = Peer::start(&["p0", "q0"], relay);
    let (root, plan) = (root(&[]), only(dhcp()));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let lease = one(race.network().unwrap()).lease.unwrap();
    assert_eq!((lease.address, lease.server), (prefix("192.0.2.100/24"), "198.51.100.1".parse().unwrap()));
    assert!(ip("-4 route").contains("default via 192.0.2.254 dev eth0"));
}

/// A switch whose port p0 is behind a spanning tree: for twice the forward delay (2 s, the least that the kernel takes) it has carrier
/// and lets nothing through.
const SPANNING_TREE: &str = "ip link add br0 type bridge stp_state 1 forward_delay 200; ip link set p0 master br0; \
                             ip addr add 192.0.2.1/24 dev br0; ip link set br0 up; ip link set p0 up";

#[test]
fn a_port_behind_a_spanning_tree_is_not_given_up() {
    veth();
    let _switch = Peer::start(&["p0"], &format!("{SPANNING_TREE}; {}", dnsmasq("br0", RANGE)));
    let (root, plan) = (root(&[]), only(dhcp()));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let used = one(race.network().unwrap());
    assert_eq!(used.lease.unwrap().address, prefix("192.0.2.100/24"));
}

/// The port that is slow delays no other link, and is there when it is asked for.
#[test]
fn a_port_behind_a_spanning_tree_delays_no_other() {
    namespaces();
    for number in 0..2 {
        ip(&format!("link add eth{number} type veth peer name p{number}"));
    }
    let _switch = Peer::start(&["p0"], &format!("{SPANNING_TREE}; {}", dnsmasq("br0", RANGE)));
    let other = "ip addr add 198.51.100.1/24 dev p1; ip link set p1 up";
    let range = "--dhcp-range=198.51.100.100,198.51.100.100,255.255.255.0,1h";
    let _other = Peer::start(&["p1"], &format!("{other}; {}", dnsmasq("p1", range)));
    ip("link set eth0 up");
    operational("eth0");
    let root = root(&[("eth0", "igb"), ("eth1", "igb")]);
    let plan =
        NetworkPlan { links: vec![link(Match::AnyWithCarrier, dhcp())], servers: Vec::new(), layers: Vec::new() };
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let names = |race: &mut Race<'_>| -> Vec<String> {
        race.network().unwrap().links.iter().map(|link| link.name.to_string()).collect()
    };
    assert_eq!(names(&mut race), ["eth1"]);
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(names(&mut race), ["eth0", "eth1"]);
}

/// An MTU that no IPv4 host needs to take, and of which no TLS handshake comes about: it is named, and the rest of the lease is used.
#[test]
fn a_tiny_mtu_of_a_lease_is_not_used() {
    veth();
    let _server = serve(&format!("{RANGE} --dhcp-option=26,68"));
    let (root, plan) = (root(&[]), only(dhcp()));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    assert_eq!(one(race.network().unwrap()).mtu, 1500);
    let report = race.report()[0].to_string();
    assert!(report.contains("MTU 68 of the DHCP server is not used, TLS needs 576"), "{report}");
}

/// A lease of two minutes is extended in time while the node waits, as often as it takes.
#[test]
fn a_tiny_lease_is_kept() {
    veth();
    // The shortest that dnsmasq has.
    let _server = serve("--dhcp-range=192.0.2.100,192.0.2.100,255.255.255.0,2m --dhcp-option=option:T1,3");
    let (root, plan) = (root(&[]), only(dhcp()));
    let mut race = Race::new(&plan, None, root.path()).unwrap();
    assert!(race.next(later(), &mut |_| ()).unwrap());
    let bound = |race: &mut Race<'_>| one(race.network().unwrap()).lease.unwrap().bound;
    let mut before = bound(&mut race);
    for _ in 0..2 {
        let limit = later();
        while bound(&mut race) == before {
            assert!(!limit.expired(), "nobody has renewed it");
            race.keep(Deadline::after(Duration::from_millis(200))).unwrap();
        }
        before = bound(&mut race);
    }
}
