//! Tables of words, and of what they make. The forms are those of dracut.cmdline(7) and of the kernel's nfsroot.rst.

use super::*;
use crate::options::Options;

fn said(cmdline: &str) -> CmdlineNetwork {
    let options = Options::parse(cmdline).unwrap();
    options.network.network(options.bootif.as_ref())
}

fn named(name: &str) -> Link {
    Link::plain(Match::Name(link_name(name)))
}

fn link_name(name: &str) -> InterfaceName {
    InterfaceName::try_from(name).unwrap()
}

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

fn via(to: &str, gateway: &str) -> Route {
    Route { destination: prefix(to), gateway: gateway.parse().ok(), metric: None }
}

fn dns(servers: &[&str], link: &Link) -> Link {
    Link { dns: servers.iter().map(|server| server.parse().unwrap()).collect(), ..link.clone() }
}

/// One line for each link: that is easier to compare than nested values.
fn shown(cmdline: &str) -> String {
    let said = said(cmdline);
    assert_eq!(said.unused, Vec::<String>::new(), "{cmdline}");
    said.links.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

#[test]
fn every_form_of_one_link() {
    let any = Link::plain(Match::AnyWithCarrier);
    let eth0 = named("eth0");
    let dhcp = Link { dhcp4: true, ..any.clone() };
    let dhcp0 = Link { dhcp4: true, ..eth0.clone() };
    let fixed =
        Link { addresses: vec![prefix("192.0.2.5/24")], routes: vec![via("0.0.0.0/0", "192.0.2.1")], ..eth0.clone() };
    let six =
        Link { addresses: vec![prefix("2001:db8::5/64")], routes: vec![via("::/0", "2001:db8::1")], ..eth0.clone() };
    for (cmdline, want) in [
        ("ip=dhcp", dhcp.clone()),
        ("ip=on", dhcp.clone()),
        ("ip=any", dhcp.clone()),
        ("ip=single-dhcp", dhcp.clone()),
        ("ip=auto6", Link { slaac: true, ..any.clone() }),
        ("ip=dhcp6", Link { dhcp6: true, ..any.clone() }),
        ("ip=either6", Link { slaac: true, dhcp6: true, ..any.clone() }),
        ("ip=link6", any.clone()),
        ("ip=dhcp,auto6", Link { slaac: true, ..dhcp.clone() }),
        ("ip=eth0:dhcp", dhcp0.clone()),
        ("ip=eth0:on", dhcp0.clone()),
        ("ip=eth0:any:", dhcp0.clone()),
        ("ip=eth0:dhcp6", Link { dhcp6: true, ..eth0.clone() }),
        ("ip=eth0:link6", eth0.clone()),
        ("ip=eth0:dhcp,dhcp6", Link { dhcp6: true, ..dhcp0.clone() }),
        ("ip=eth0:dhcp:1400", Link { mtu: Some(1400), ..dhcp0.clone() }),
        ("ip=eth0:dhcp:1400:", Link { mtu: Some(1400), ..dhcp0.clone() }),
        ("ip=eth0:dhcp ip=eth0:auto6", Link { slaac: true, ..dhcp0.clone() }),
        ("ip=eth0:dhcp ip=eth0:dhcp", dhcp0.clone()),
        ("ip=:::::eth0:dhcp", dhcp0.clone()),
        ("ip=::::node1:eth0:dhcp:1400", Link { mtu: Some(1400), ..dhcp0.clone() }),
        ("ip=::::::dhcp", dhcp.clone()),
        ("ip=::::::dhcp:192.0.2.53", dns(&["192.0.2.53"], &dhcp)),
        ("ip=192.0.2.5::192.0.2.1:255.255.255.0:node1:eth0:none", fixed.clone()),
        ("ip=192.0.2.5::192.0.2.1:24::eth0:off", fixed.clone()),
        ("ip=192.0.2.5::192.0.2.1:24::eth0:static", fixed.clone()),
        ("ip=192.0.2.5::192.0.2.1:24::eth0", fixed.clone()),
        ("ip=192.0.2.5/24::192.0.2.1:::eth0:none", fixed.clone()),
        ("ip=192.0.2.5::192.0.2.1:24::eth0:none::", fixed.clone()),
        ("ip=192.0.2.5::192.0.2.1:24::eth0:dhcp", Link { dhcp4: true, ..fixed.clone() }),
        ("ip=192.0.2.5::192.0.2.1:24::eth0:none:9000", Link { mtu: Some(9000), ..fixed.clone() }),
        ("ip=192.0.2.5::192.0.2.1:24::eth0:none:192.0.2.53", dns(&["192.0.2.53"], &fixed)),
        ("ip=192.0.2.5::192.0.2.1:24::eth0:none::192.0.2.54", dns(&["192.0.2.54"], &fixed)),
        (
            "ip=192.0.2.5::192.0.2.1:24::eth0:none:192.0.2.53:[2001:db8::53]",
            dns(&["192.0.2.53", "2001:db8::53"], &fixed),
        ),
        ("ip=192.0.2.5::192.0.2.1:24::eth0:none nameserver=192.0.2.53", dns(&["192.0.2.53"], &fixed)),
        ("ip=eth0:dhcp nameserver=2001:db8::53 nameserver=[2001:db8::53]", dns(&["2001:db8::53"], &dhcp0)),
        // The kernel's own form: link and method may be missing, and a server stands in the second field.
        ("ip=192.0.2.5:192.0.2.9:192.0.2.1:255.255.255.0", Link { kind: any.kind.clone(), ..fixed.clone() }),
        ("ip=192.0.2.5:192.0.2.9:192.0.2.1:24::eth0:none", fixed.clone()),
        ("ip=[2001:db8::5]::[2001:db8::1]:64::eth0:none", six.clone()),
        ("ip=[2001:db8::5/64]::[2001:db8::1]:::eth0:none", six.clone()),
        ("ip=[2001:db8::5]/64::[2001:db8::1]:::eth0:none:1400", Link { mtu: Some(1400), ..six.clone() }),
        ("ip=192.0.2.5:::24::eth0:none", Link { routes: vec![], ..fixed.clone() }),
        (
            "ip=192.0.2.5::192.0.2.1:24::eth0:none rd.route=198.51.100.0/24:192.0.2.7:eth0",
            Link { routes: [&fixed.routes[..], &[via("198.51.100.0/24", "192.0.2.7")]].concat(), ..fixed.clone() },
        ),
        // A /32 address reaches its gateway over the link, and so does one with a peer.
        (
            "ip=203.0.113.9::172.31.1.1:255.255.255.255::eth0:none",
            Link {
                addresses: vec![prefix("203.0.113.9/32")],
                routes: vec![via("172.31.1.1/32", ""), via("0.0.0.0/0", "172.31.1.1")],
                ..eth0.clone()
            },
        ),
        (
            "ip=192.0.2.5:198.51.100.1:198.51.100.1:32::eth0:none",
            Link {
                addresses: vec![prefix("192.0.2.5/32")],
                routes: vec![via("198.51.100.1/32", ""), via("0.0.0.0/0", "198.51.100.1")],
                ..eth0.clone()
            },
        ),
        (
            "ip=192.0.2.5:198.51.100.1/30::::eth0:none",
            Link { addresses: vec![prefix("192.0.2.5/32")], routes: vec![via("198.51.100.0/30", "")], ..eth0.clone() },
        ),
    ] {
        let said = said(cmdline);
        assert_eq!((said.links, said.unused), (vec![want], vec![]), "{cmdline}");
    }
}

#[test]
fn links_that_are_made() {
    for (cmdline, want) in [
        ("vlan=vlan5:eth0 ip=vlan5:dhcp", "name eth0 | VLAN vlan5 id 5 on link 0; DHCPv4"),
        ("ip=vlan0005:dhcp vlan=vlan0005:eth0", "name eth0 | VLAN vlan0005 id 5 on link 0; DHCPv4"),
        ("vlan=eth0.7:eth0 ip=eth0.7:auto6", "name eth0 | VLAN eth0.7 id 7 on link 0; SLAAC"),
        ("vlan=eth0.0007:eth0 ip=eth0.0007:dhcp6", "name eth0 | VLAN eth0.0007 id 7 on link 0; DHCPv6"),
        ("vlan=vlan5:eth0 ip=dhcp", "name eth0 | VLAN vlan5 id 5 on link 0; DHCPv4"),
        (
            "vlan=vlan5:eth0 vlan=vlan6:eth0 ip=vlan5:dhcp ip=vlan6:auto6 ip=eth0:dhcp",
            "name eth0; DHCPv4 | VLAN vlan5 id 5 on link 0; DHCPv4 | VLAN vlan6 id 6 on link 0; SLAAC",
        ),
        (
            "bond=bond0:eth0,eth1:mode=802.3ad ip=bond0:dhcp",
            "name eth0 | name eth1 | bond bond0 (802.3ad) of links 0+1; DHCPv4",
        ),
        (
            "bond=bond0:eth0,eth1:mode=4,miimon=100,lacp_rate=fast ip=dhcp",
            "name eth0 | name eth1 | bond bond0 (802.3ad) of links 0+1; DHCPv4",
        ),
        (
            "bond=bond0:eth0:mode=active-backup:9000 ip=bond0:dhcp",
            "name eth0 | bond bond0 (active-backup) of links 0; DHCPv4; mtu 9000",
        ),
        ("bond=bond0:eth0:mode=1: ip=bond0:dhcp", "name eth0 | bond bond0 (active-backup) of links 0; DHCPv4"),
        (
            "bond=bond0:eth0,eth1:mode=802.3ad vlan=bond0.10:bond0 ip=192.0.2.5::192.0.2.1:24:n:bond0.10:none",
            "name eth0 | name eth1 | bond bond0 (802.3ad) of links 0+1 | VLAN bond0.10 id 10 on link 2; 192.0.2.5/24; \
             0.0.0.0/0 via 192.0.2.1",
        ),
        ("bridge=br0:eth0,eth1 ip=br0:dhcp", "name eth0 | name eth1 | bridge br0 of links 0+1; DHCPv4"),
        ("bridge ip=br0:dhcp", "name eth0 | bridge br0 of links 0; DHCPv4"),
        (
            "bridge=br0:vlan7 vlan=vlan7:bond0 bond=bond0:eth1,eth0:mode=1 ip=br0:dhcp",
            "name eth1 | name eth0 | bond bond0 (active-backup) of links 0+1 | VLAN vlan7 id 7 on link 2 | bridge br0 of links 3; DHCPv4",
        ),
        ("ifname=bootnet:52:54:00:12:34:56 ip=bootnet:dhcp", "MAC address 52:54:00:12:34:56; DHCPv4"),
        (
            "ifname=up0:52:54:00:12:34:56 vlan=up0.5:up0 ip=up0.5:dhcp",
            "MAC address 52:54:00:12:34:56 | VLAN up0.5 id 5 on link 0; DHCPv4",
        ),
        ("ip=eth0:dhcp ip=eth1:auto6 bootdev=eth1", "name eth1; SLAAC | name eth0; DHCPv4"),
        ("ip=dhcp bootdev=eth1", "name eth1; DHCPv4"),
        ("ip=dhcp BOOTIF=01-52-54-00-12-34-56", "BOOTIF; DHCPv4"),
        ("ip=dhcp BOOTIF=01-52-54-00-12-34-56 rd.bootif=0", "any with carrier; DHCPv4"),
        (
            "ip=192.0.2.5:::24::eth0:none ip=198.51.100.5:::24::eth1:none rd.route=203.0.113.0/24:198.51.100.1",
            "name eth0; 192.0.2.5/24 | name eth1; 198.51.100.5/24; 203.0.113.0/24 via 198.51.100.1",
        ),
        ("ip=eth0:dhcp rd.route=192.168.200.0/24::eth0", "name eth0; DHCPv4; 192.168.200.0/24"),
        ("ip=eth0:dhcp rd.route=10.1.2.3/255.0.0.0:192.0.2.1:eth0", "name eth0; DHCPv4; 10.0.0.0/8 via 192.0.2.1"),
        (
            "ip=eth0:auto6 rd.route=[2001:DB8:3::/48]:[2001:DB8:2::1]:eth0",
            "name eth0; SLAAC; 2001:db8:3::/48 via 2001:db8:2::1",
        ),
        ("ip=eth0:dhcp rd.peerdns=1 rd.neednet=1", "name eth0; DHCPv4"),
        (
            "vlan=vlan5:eth0 ip=vlan5:dhcp nameserver=192.0.2.53",
            "name eth0 | VLAN vlan5 id 5 on link 0; DHCPv4; dns 192.0.2.53",
        ),
    ] {
        assert_eq!(shown(cmdline), want, "{cmdline}");
    }
}

/// Whoever wrote it for dracut alone is told in one line, and the other words count.
#[test]
fn what_cannot_be_done_is_said_and_the_others_go_on() {
    for (words, word, why) in [
        ("ip=eth0:link-local", "ip=eth0:link-local", "write link6"),
        ("ip=ibft", "ip=ibft", "the iBFT is not read; write dhcp"),
        ("ip=eth0:ibft", "ip=eth0:ibft", "the iBFT is not read"),
        ("ip=off", "ip=off", "it gives no address"),
        ("ip=eth0:none", "ip=eth0:none", "it gives no address"),
        ("ip=eth0:dhcp:1500:52:54:00:12:34:56", "ip=eth0:dhcp:1500:52", "sets a hardware address"),
        ("ip=eth0:dhcp::525400123456", "ip=eth0:dhcp::525400123456", "sets a hardware address"),
        ("ip=192.0.2.5:::24::eth0:none::52:54:00:12:34:56", "ip=192.0.2.5", "sets a hardware address"),
        ("ip=192.0.2.5:::24::eth0:none:1500:52:54:00:12:34:56", "ip=192.0.2.5", "sets a hardware address"),
        ("ip=192.0.2.5::192.0.2.1:::eth0:none", "ip=192.0.2.5", "no mask"),
        ("ip=192.0.2.5", "ip=192.0.2.5", "no mask"),
        ("ip=192.0.2.5/24::192.0.2.1:24::eth0:none", "ip=192.0.2.5/24", "its mask twice"),
        ("ip=192.0.2.5::192.0.2.1:255.0.255.0::eth0:none", "ip=192.0.2.5", "its mask is none"),
        ("ip=192.0.2.5::192.0.2.1:33::eth0:none", "ip=192.0.2.5", "its mask is none"),
        ("ip=192.0.2.5::gw:24::eth0:none", "ip=192.0.2.5", "its gateway is no address"),
        ("ip=192.0.2.5:[2001:db8::1]:::::none", "ip=192.0.2.5", "not of one family"),
        ("ip=::192.0.2.1:24::eth0:dhcp", "ip=::192.0.2.1", "no address; write the address first"),
        ("ip=192.0.2.5::198.51.100.1:24::eth0:none", "ip=192.0.2.5", "gateway 198.51.100.1"),
        ("ip=192.0.2.0::192.0.2.1:24::eth0:none", "ip=192.0.2.0", "is not an address that a host can have"),
        ("ip=192.0.2.5:::24::eth0:none:192.0.2.53:192.0.2.54:x", "ip=192.0.2.5", "is no address"),
        ("ip=192.0.2.5:::24::eth0:none:192.0.2.53:::::", "ip=192.0.2.5", "too many fields"),
        ("ip=192.0.2.5:::24::eth/0:none", "ip=192.0.2.5", "no name that a link can have"),
        ("ip=eth0:dhcp:99999", "ip=eth0:dhcp:99999", "its MTU"),
        ("ip=eth0:auto6:576", "ip=eth0:auto6:576", "576, want 1280"),
        ("ip=", "ip=", "want dhcp"),
        ("ip", "ip=", "want dhcp"),
        ("ip=dhpc", "ip=dhpc", "want dhcp"),
        ("ip=eth0:dhpc", "ip=eth0:dhpc", "want dhcp"),
        ("ip=2001:db8::5:64", "ip=2001:db8::5:64", "an IPv6 address in brackets"),
        ("ip=::::::", "ip=::::::", "want dhcp"),
        ("ip=averyveryverylongname:dhcp", "ip=averyvery", "no name that a link can have"),
        ("nameserver=ns1", "nameserver=ns1", "it is no address"),
        ("rd.route=10.0.0.0/8", "rd.route=10.0.0.0/8", "want NETWORK/LENGTH:GATEWAY"),
        ("rd.route=10.0.0.0/8:", "rd.route=10.0.0.0/8:", "want NETWORK/LENGTH:GATEWAY"),
        ("rd.route=10.0.0.0:192.0.2.1", "rd.route=10.0.0.0:192.0.2.1", "want NETWORK/LENGTH:GATEWAY"),
        ("rd.route=10.0.0.0/8:192.0.2.1:eth7", "rd.route=10.0.0.0/8:192.0.2.1:eth7", "no ip= has its link"),
        ("rd.peerdns=0", "rd.peerdns=0", "name servers of DHCP are used as well"),
        ("vlan=vlan5", "vlan=vlan5", "want NAME:PARENT"),
        ("vlan=data:eth0", "vlan=data:eth0", "end in the number"),
        ("vlan=vlan4095:eth0", "vlan=vlan4095:eth0", "1 to 4094"),
        ("vlan=vlan0:eth0", "vlan=vlan0:eth0", "1 to 4094"),
        ("vlan=vlan5:eth0", "vlan=vlan5:eth0", "no ip= has vlan5"),
        ("vlan=vlan5:vlan5", "vlan=vlan5:vlan5", "cannot be on itself"),
        ("bond=bond0:eth1,eth2", "bond=bond0:eth1,eth2", "it is balance-rr"),
        ("bond", "bond=bond0:eth0,eth1:mode=balance-rr", "mode=active-backup or mode=802.3ad"),
        ("bond=bond0:eth1,eth2:mode=balance-alb", "bond=bond0", "its mode is not supported"),
        ("bond=bond0:eth1,eth1:mode=1", "bond=bond0", "a port twice"),
        ("bond=bond0:eth1,:mode=1", "bond=bond0", "none that a link can have"),
        ("bond=bond0:eth1:mode=1:9x", "bond=bond0", "its MTU"),
        ("bond=bond0:eth1:mode=1:9000:1", "bond=bond0", "want NAME:PORTS"),
        ("bridge=br0", "bridge=br0", "want NAME:PORTS"),
        ("bridge=br0:eth1", "bridge=br0:eth1", "write ip=br0:dhcp as well"),
        ("team=team0:eth1,eth2", "team=team0", "write bond="),
        ("ifname=boot:52:54:00", "ifname=boot", "want NAME:MAC"),
        ("bootdev=a/b", "bootdev=a/b", "want the name of a link"),
    ] {
        let good = "ip=eth9:dhcp";
        let said = said(&format!("{words} {good}"));
        assert_eq!(said.links.len(), 1, "{words}: {said:?}");
        assert_eq!(said.links[0], Link { dhcp4: true, ..named("eth9") }, "{words}");
        assert_eq!(said.unused.len(), 1, "{words}: {:?}", said.unused);
        assert!(said.unused[0].starts_with(word) && said.unused[0].contains(why), "{words}: {:?}", said.unused);
    }
}

/// A part that cannot be carried out takes nothing else with it.
#[test]
fn a_part_that_is_not_used_is_named() {
    for (words, links, why) in [
        ("ip=::::bad_name:eth0:dhcp", "name eth0; DHCPv4", "host name"),
        (
            "ip=192.0.2.5:::24::eth0:none:192.0.2.53::192.0.2.123",
            "name eth0; 192.0.2.5/24; dns 192.0.2.53",
            "time server",
        ),
        (
            "bond=bond0:eth0:mode=1,primary=eth0 ip=bond0:dhcp",
            "name eth0 | bond bond0 (active-backup) of links 0; DHCPv4",
            "of its options only mode",
        ),
        (
            "bond=bond0:eth0:mode=1 ip=bond0:dhcp ip=eth0:dhcp",
            "name eth0 | bond bond0 (active-backup) of links 0; DHCPv4",
            "eth0 is a port of bond0",
        ),
        (
            "vlan=vlan5:eth0 vlan=v5:eth0 ip=vlan5:dhcp",
            "name eth0 | VLAN vlan5 id 5 on link 0; DHCPv4",
            "vlan5 is VLAN 5 of eth0 already",
        ),
        (
            "vlan=vlan5:eth0 vlan=vlan5:eth1 ip=vlan5:dhcp",
            "name eth0 | VLAN vlan5 id 5 on link 0; DHCPv4",
            "there is a link vlan5 already",
        ),
        (
            "bond=bond0:eth0:mode=1 bridge=br0:eth0 ip=bond0:dhcp",
            "name eth0 | bond bond0 (active-backup) of links 0; DHCPv4",
            "eth0 is a port of bond0 already",
        ),
        (
            "bond=bond0:eth0:mode=1 bond=bond1:bond0:mode=1 ip=bond0:dhcp",
            "name eth0 | bond bond0 (active-backup) of links 0; DHCPv4",
            "a bond's ports have to be devices",
        ),
        (
            "bond=bond0:eth0:mode=1 vlan=eth0.5:eth0 ip=bond0:dhcp",
            "name eth0 | bond bond0 (active-backup) of links 0; DHCPv4",
            "put the VLAN on bond0",
        ),
    ] {
        let said = said(words);
        let shown: Vec<String> = said.links.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(" | "), links, "{words}");
        assert!(said.unused.len() == 1 && said.unused[0].contains(why), "{words}: {:?}", said.unused);
    }
    // Links on each other: neither is made, and none is left of the links below.
    let said = said("vlan=a5:b6 vlan=b6:a5 ip=a5:dhcp ip=eth0:dhcp");
    assert_eq!(said.links, [Link { dhcp4: true, ..named("eth0") }]);
    assert!(said.unused[0].starts_with("ip=a5:dhcp is not used: its link is on itself"), "{:?}", said.unused);
    // Static addresses for one of several that are made.
    let said = self::said("vlan=v5:eth0 vlan=v6:eth0 ip=192.0.2.5::192.0.2.1:24");
    assert!(said.links.is_empty() && said.unused[0].contains("name one in the sixth field"), "{:?}", said.unused);
    // An ip= for a link that is not made is no ip= for a device of that name.
    let said = self::said("vlan=v0:eth0 ip=v0:dhcp bond=b0:eth1:mode=2 ip=b0:dhcp");
    assert_eq!(said.links.len(), 2, "words that cannot be read make nothing, so another may have made the link");
}

#[test]
fn a_host_name_and_names_of_links() {
    let said =
        said("ip=::::node1:eth0:dhcp ip=::::node2:eth1:dhcp ifname=up:52:54:00:12:34:56 ifname=up:52:54:00:12:34:57");
    assert_eq!(said.hostname.unwrap().as_str(), "node1");
    assert_eq!(said.renames, [(link_name("up"), HardwareAddress::parse("52:54:00:12:34:56").unwrap())]);
    assert!(said.unused[0].contains("another word gives that name"), "{:?}", said.unused);
}

#[test]
fn every_spelling_of_bootif() {
    let ib = "80-00-02-08-fe-80-00-00-00-00-00-00-00-02-c9-03-00-0a-6f-91";
    for (value, want) in [
        ("01-52-54-00-12-34-56", Some("52:54:00:12:34:56")),
        ("01-AA-BB-CC-DD-EE-FF", Some("aa:bb:cc:dd:ee:ff")),
        ("01:aa:bb:cc:dd:ee:ff", Some("aa:bb:cc:dd:ee:ff")),
        ("aa:bb:cc:dd:ee:ff", Some("aa:bb:cc:dd:ee:ff")),
        ("AA:BB:CC:DD:EE:FF", Some("aa:bb:cc:dd:ee:ff")),
        ("aa-bb-cc-dd-ee-ff", Some("aa:bb:cc:dd:ee:ff")),
        ("525400123456", Some("52:54:00:12:34:56")),
        ("01525400123456", Some("52:54:00:12:34:56")),
        // Locally administered.
        ("01-02-00-00-00-00-01", Some("02:00:00:00:00:01")),
        (ib, Some(ib)),
        (&format!("20-{ib}"), Some(ib)),
        (&format!("20-{}", ib.to_uppercase()), Some(ib)),
        (&format!("20:{}", ib.replace('-', ":")), Some(ib)),
        ("", None),
        ("01-", None),
        ("eth0", None),
        ("01-52-54-00-12-34", None),
        ("52-54-00-12-34", None),
        ("zz-52-54-00-12-34-56", None),
        ("01-zz-54-00-12-34-56", None),
        ("5254001234", None),
        ("02525400123456", None),
        ("é1-52-54-00-12-34-56", None),
    ] {
        let found = boot_link(value).map(|mac| mac.to_string());
        assert_eq!(found, want.map(|want| want.replace('-', ":")), "{value}");
        assert_eq!(Options::parse(&format!("BOOTIF={value}")).unwrap().bootif.map(|mac| mac.to_string()), found);
        let (_, alone) = crate::options::network_words(&format!("quiet BOOTIF={value}"));
        assert_eq!(alone.map(|mac| mac.to_string()), found, "{value}");
    }
}

#[test]
fn the_words_alone_are_the_same_as_among_others() {
    let cmdline = "imprint.nonsense ip=vlan5:dhcp vlan=vlan5:eth0 BOOTIF=01-52-54-00-12-34-56 rd.bootif=0 -- ip=dhcp";
    let (words, bootif) = crate::options::network_words(cmdline);
    assert_eq!(bootif, None);
    assert_eq!(words.network(None).links.len(), 2);
    assert_eq!(words, Options::parse(&cmdline.replace("imprint.nonsense ", "")).unwrap().network);
}

#[test]
fn more_words_than_anybody_writes_are_not_read() {
    let many: String = (0..MOST + 3).map(|number| format!("ip=eth{number}:dhcp ")).collect();
    let said = said(&many);
    assert_eq!((said.links.len(), said.unused.len()), (MOST, 1), "{:?}", said.unused);
    // Bonds have each other's names as ports, and everything is on everything.
    let all: Vec<String> = (0..MOST).map(|number| format!("br{number}")).collect();
    let words: String =
        all.iter().map(|name| format!("bridge={name}:{},eth0 ip={name}:dhcp ", all.join(","))).collect();
    assert!(self::said(&words).links.is_empty());
}

proptest::proptest! {
    #[test]
    fn no_words_make_it_panic(words in "((ip|vlan|bond|bridge|rd.route|nameserver|ifname)=[0-9a-f:/.,=\\[\\]dhcpno]{0,24} ){0,6}") {
        let said = said(&words);
        proptest::prop_assert!(said.links.is_empty() || Link::decode_all(&Link::encode_all(&said.links)).is_ok());
    }
}
