//! Tests of the search for a door before there is a payload: a real dnsmasq gives the network and the names, a door behind it gives
//! the payload, and afterwards the network is as it was.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::thread::JoinHandle;

use imprint::dialogue::Dialogue;
use imprint::finding::{Finding, Wanted, links, wanted};
use imprint::options::Options;
use imprint::payload::{HardwareAddress, Link};
use imprint::plan;
use imprint_tests::far_host::{Door, node, payload};

use super::network::root;
use super::peer::Peer;
use crate::{ip, later, namespaces, veth};

/// dnsmasq that also answers questions about names.
pub(super) fn dnsmasq(link: &str, options: &str) -> String {
    format!(
        "dnsmasq --conf-file=/dev/null --pid-file --user=root --leasefile-ro --no-ping --dhcp-authoritative --no-resolv \
         --no-hosts --log-facility=- --interface={link} --bind-interfaces --local=/example/ {options} >/dev/null 2>&1"
    )
}

/// A machine without a file of ours. Its links have a device: those without one are not any link.
pub(super) fn machine() -> tempfile::TempDir {
    root(&[("eth0", "virtio_net"), ("eth1", "virtio_net")])
}

pub(super) const SERVER: &str = "ip addr add 192.0.2.1/24 dev p0; ip link set p0 up";
pub(super) const RANGE: &str = "--dhcp-range=192.0.2.100,192.0.2.100,255.255.255.0,1h";
pub(super) const SRV: &str = "--srv-host=_imprint._tcp.lab.example,door.lab.example,8444,10,5";
pub(super) const HOST: &str = "--host-record=door.lab.example,192.0.2.1";

pub(super) fn serve(options: &str) -> Peer {
    veth();
    Peer::start(&["p0"], &format!("{SERVER}; {}", dnsmasq("p0", options)))
}

/// A door in the peer's network that gives the payload.
pub(super) fn door(peer: &Peer, address: &str) -> JoinHandle<()> {
    let (ready, waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            peer.enter();
            ready.send(TcpListener::bind(address).unwrap()).unwrap();
        });
    });
    let listener = waits.recv().unwrap();
    std::thread::spawn(move || {
        let mut door = Door::stream(listener.accept().unwrap().0);
        assert!(door.give(b"good"));
        door.linger();
    })
}

/// What a machine with this command line does.
pub(super) fn begin(cmdline: &str, root: &std::path::Path, dialogue: &Dialogue) -> Finding {
    let options = Options::parse(cmdline).unwrap();
    let (links, notes) = links(&options, root).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let network = plan::early(links, options.bootif.as_ref()).unwrap();
    Finding::begin(wanted(&options), network, root, dialogue.seeker()).unwrap()
}

/// Everything that the search may have changed here.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct State {
    /// For each link: up or not, its MTU and its addresses.
    links: BTreeMap<String, Vec<String>>,
    routes: [String; 2],
    settings: BTreeMap<String, String>,
}

pub(super) fn state() -> State {
    let mut links: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in ip("-o link show").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mtu = words.iter().position(|word| *word == "mtu").unwrap();
        let up = words[2].trim_matches(['<', '>']).split(',').any(|flag| flag == "UP");
        links.insert(words[1].trim_matches(':').to_owned(), vec![format!("up {up} mtu {}", words[mtu + 1])]);
    }
    for line in ip("-o addr show").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let link = links.keys().find(|link| link.split('@').next() == Some(words[1])).unwrap().clone();
        let lasts = if line.contains("valid_lft forever") { "for ever" } else { "for a while" };
        links.get_mut(&link).unwrap().push(format!("{} {lasts}", words[3]));
    }
    // Of IPv6 the kernel makes routes of its own while a link is up.
    let routes = [ip("-4 route show table all"), ip("-6 route show default")];
    let mut settings = BTreeMap::new();
    for link in fs::read_dir("/proc/sys/net/ipv6/conf").unwrap().map(|entry| entry.unwrap()) {
        for file in ["disable_ipv6", "accept_ra", "autoconf", "router_solicitation_delay"] {
            let value = fs::read_to_string(link.path().join(file)).unwrap();
            settings.insert(format!("{}/{file}", link.file_name().display()), value);
        }
    }
    State { links, routes, settings }
}

/// The node gets its payload from the door at this place, and the network is then as it was.
#[track_caller]
fn found(cmdline: &str, peer: &Peer, at: &str, root: &std::path::Path, said: &str) {
    let before = state();
    let door = door(peer, at);
    let dialogue = node(b"good");
    let finding = begin(cmdline, root, &dialogue);
    let (line, bytes, words) = payload(&dialogue);
    assert_eq!((line, &bytes[..]), (format!("tcp:{at}"), &b"good"[..]));
    assert!(words.iter().any(|words| words.contains(said)), "{said}: {words:?}");
    finding.hold();
    assert_ne!(state(), before, "the network is there until it is given back");
    // The door hears the end of the connection while there is a network.
    drop(dialogue);
    door.join().unwrap();
    finding.give_back(None, None);
    assert_eq!(state(), before);
    assert!(!root.join("etc/resolv.conf").exists());
}

#[test]
fn the_domain_of_dhcp_names_the_door() {
    let peer = serve(&format!("{RANGE} --domain=lab.example {SRV} {HOST}"));
    let said = "the door: _imprint._tcp.lab.example names door.lab.example port 8444, which is 192.0.2.1";
    found("imprint.source=door", &peer, "192.0.2.1:8444", machine().path(), said);
}

/// The list of domains does not name the node's own, and the first server is dead.
#[test]
fn the_domain_beside_a_list_of_domains_and_the_second_server() {
    let options = "--domain=lab.example --dhcp-option=option:domain-search,other.example,more.example \
                   --dhcp-option=6,192.0.2.9,192.0.2.1 --dhcp-option=26,1400";
    let peer = serve(&format!("{RANGE} {options} {SRV} {HOST}"));
    found("imprint.source=door", &peer, "192.0.2.1:8444", machine().path(), "names door.lab.example port 8444");
}

#[test]
fn a_server_or_a_domain_of_the_command_line() {
    let peer = serve(&format!("{RANGE} {SRV} {HOST}"));
    for (words, said) in [
        ("imprint.source=door imprint.domain=lab.example", "names door.lab.example port 8444"),
        ("imprint.source=door imprint.server=door.lab.example", "door.lab.example is 192.0.2.1"),
        ("imprint.source=tcp:door.lab.example:8444", "door.lab.example is 192.0.2.1"),
        ("imprint.source=tcp:192.0.2.1:8444", ""),
    ] {
        found(words, &peer, "192.0.2.1:8444", machine().path(), said);
    }
}

/// A thousand doors do not fit into a datagram. One of the first in order is there.
#[test]
fn a_long_answer_comes_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let more: String = (0..1000)
        .map(|n| format!("srv-host=_imprint._tcp.lab.example,n{n}.lab.example,{},{},1\n", 9000 + n % 7, 100 + n))
        .collect();
    fs::write(folder.path().join("more"), more).unwrap();
    let options = format!("--domain=lab.example --conf-dir={} {SRV} {HOST}", folder.path().display());
    let peer = serve(&format!("{RANGE} {options}"));
    found("imprint.source=door", &peer, "192.0.2.1:8444", machine().path(), "names door.lab.example port 8444");
}

/// IPv6 alone: the router's advertisement has name server and domain.
#[test]
fn a_routers_domain_names_the_door() {
    veth();
    let options = "--enable-ra --dhcp-range=2001:db8::,ra-only,64,600 --ra-param=p0,4,600 \
                   --dhcp-option=option6:dns-server,[2001:db8::1] --dhcp-option=option6:domain-search,lab.example \
                   --host-record=door.lab.example,2001:db8::1";
    let peer = Peer::start(
        &["p0"],
        &format!(
            "ip addr add 2001:db8::1/64 dev p0 nodad; ip link set p0 up; {}",
            dnsmasq("p0", &format!("{options} {SRV}"))
        ),
    );
    found("imprint.source=door", &peer, "[2001:db8::1]:8444", machine().path(), "port 8444, which is 2001:db8::1");
}

/// The image, or else the command line, has the network: no server gives addresses.
#[test]
fn a_network_of_the_image_or_of_the_command_line() {
    let words = "ip=192.0.2.77::192.0.2.1:24::eth0:none nameserver=192.0.2.1";
    let peer = serve(&format!("{SRV} {HOST}"));
    let cmdline = format!("imprint.source=door imprint.domain=lab.example {words}");
    found(&cmdline, &peer, "192.0.2.1:8444", machine().path(), "names door.lab.example");

    let root = machine();
    let links = Options::parse(words).unwrap().network.network(None).links;
    fs::create_dir(root.path().join("imprint")).unwrap();
    fs::write(root.path().join("imprint/network"), Link::encode_all(&links)).unwrap();
    found(
        "imprint.source=door imprint.domain=lab.example",
        &peer,
        "192.0.2.1:8444",
        root.path(),
        "names door.lab.example",
    );
}

/// Somebody else uses the link: what is there stays.
#[test]
fn a_link_that_was_up_keeps_what_it_had() {
    let peer = serve(&format!("{RANGE} --domain=lab.example {SRV} {HOST}"));
    ip("addr add 198.51.100.9/24 dev eth0");
    ip("addr add 192.0.2.100/24 dev eth0 valid_lft forever");
    ip("link set eth0 up");
    ip("route add 203.0.113.0/24 via 198.51.100.1");
    ip("route add default via 192.0.2.1 metric 7");
    // Duplicate address detection of the link-local address is over.
    while ip("-6 addr show dev eth0 tentative").contains("inet6") || !ip("-6 addr show dev eth0").contains("fe80") {
        std::thread::yield_now();
    }
    found("imprint.source=door", &peer, "192.0.2.1:8444", machine().path(), "names door.lab.example");
}

/// Two links have a network, and the door is behind one of them.
#[test]
fn the_link_that_answers_first_need_not_lead_to_the_door() {
    namespaces();
    ip("link add eth0 type veth peer name p0");
    ip("link add eth1 type veth peer name p1");
    let _other = Peer::start(
        &["p1"],
        &format!(
            "ip addr add 198.51.100.1/24 dev p1; ip link set p1 up; {}",
            dnsmasq("p1", "--dhcp-range=198.51.100.100,198.51.100.100,255.255.255.0,1h --domain=guests.example")
        ),
    );
    let peer = Peer::start(
        &["p0"],
        &format!(
            "{SERVER}; {}",
            dnsmasq("p0", &format!("--dhcp-reply-delay=2 {RANGE} --domain=lab.example {SRV} {HOST}"))
        ),
    );
    let words = "SRV _imprint._tcp.guests.example: 198.51.100.1 says: ";
    found("imprint.source=door", &peer, "192.0.2.1:8444", machine().path(), words);
}

/// Only the link that the machine booted from is touched.
#[test]
fn bootif_alone_is_used() {
    namespaces();
    ip("link add eth0 address 02:00:00:00:00:01 type veth peer name p0");
    ip("link add eth1 type veth peer name p1");
    let peer = Peer::start(
        &["p0"],
        &format!("{SERVER}; {}", dnsmasq("p0", &format!("{RANGE} --domain=lab.example {SRV} {HOST}"))),
    );
    let door = door(&peer, "192.0.2.1:8444");
    let dialogue = node(b"good");
    let root = machine();
    let finding = begin("imprint.source=door BOOTIF=01-02-00-00-00-00-01", root.path(), &dialogue);
    payload(&dialogue);
    assert!(state().links.iter().any(|(link, has)| link.starts_with("eth1") && has[0].starts_with("up false")));
    drop(dialogue);
    door.join().unwrap();
    drop(finding);
    let plan = plan::early(Vec::new(), HardwareAddress::parse("02-00-00-00-00-01").as_ref()).unwrap();
    assert_eq!(plan.links[0].matching.to_string(), "MAC address 02:00:00:00:00:01");
}

/// One line at the end that can act: who was asked for what, what came of it, and the remedy.
#[test]
fn what_is_wrong_is_said() {
    let remedy = "give imprint.server=HOST or imprint.domain=DOMAIN";
    let srv = "--srv-host=_imprint._tcp.lab.example";
    for (options, want) in [
        (
            RANGE.to_owned(),
            format!("neither DHCP (options 15 and 119) nor a router (DNSSL) names a domain on eth0; {remedy}"),
        ),
        (
            format!("{RANGE} --domain=lab.example"),
            format!("SRV _imprint._tcp.lab.example: 192.0.2.1 says: there is no such name; {remedy}"),
        ),
        (
            format!("{RANGE} --domain=lab.example --host-record=a._imprint._tcp.lab.example,192.0.2.9"),
            format!("SRV _imprint._tcp.lab.example: 192.0.2.1 says: the name has no such record; {remedy}"),
        ),
        (
            format!("{RANGE} --domain=lab.example {srv}"),
            format!("_imprint._tcp.lab.example says that this domain has no door (\".\"); {remedy}"),
        ),
        (
            format!("{RANGE} --domain=lab.example {srv},gone.lab.example,8444"),
            "_imprint._tcp.lab.example names gone.lab.example: A gone.lab.example: 192.0.2.1 says: there is no such name".to_owned(),
        ),
        (
            format!("{RANGE} --dhcp-option=6 --domain=lab.example"),
            "neither DHCP (option 6) nor a router (RDNSS) names a name server on eth0; give imprint.server=ADDRESS".to_owned(),
        ),
    ] {
        // Each round has namespaces of its own.
        let _peer = serve(&options);
        let dialogue = node(b"good");
        let root = machine();
        let before = state();
        let finding = begin("imprint.source=door", root.path(), &dialogue);
        let told = dialogue.hear(later()).expect("why there is no door is told").to_string();
        assert_eq!(told, format!("the door: {want}; the search goes on"));
        assert_eq!(dialogue.tried(), [("the door".to_owned(), want)]);
        assert!(!dialogue.is_over());
        drop(finding);
        assert_eq!(state(), before);
        assert!(dialogue.is_over());
    }
}

/// Nothing is there yet, and the search ends at once when it is told to.
#[test]
fn without_a_network_it_waits_and_can_be_ended() {
    veth();
    let dialogue = node(b"good");
    let root = machine();
    let before = state();
    let finding = begin("imprint.source=door", root.path(), &dialogue);
    while !dialogue.tried().iter().any(|(_, words)| words.contains("eth0 (virtio_net): no carrier")) {
        std::thread::yield_now();
    }
    drop(finding);
    assert_eq!(state(), before);
    assert!(matches!(wanted(&Options::parse("imprint.source=virtio").unwrap())[..], []));
    assert!(matches!(wanted(&Options::parse("imprint.source=door").unwrap())[..], [Wanted::Service(None)]));
}
