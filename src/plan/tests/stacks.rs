//! Tests of networks in which links are made: what each stands on, and what is refused.

use super::*;
use crate::payload::{BondMode, Prefix};
use crate::plan::stack::check;

fn name(text: &str) -> InterfaceName {
    InterfaceName::try_from(text).unwrap()
}

fn eth_named(text: &str) -> Link {
    Link::plain(Match::Name(name(text)))
}

fn made(kind: LinkKind) -> Link {
    Link { kind, ..eth_named("x") }
}

fn vlan(own: &str, id: u16, parent: usize) -> Link {
    made(LinkKind::Vlan { name: name(own), id, parent })
}

fn bond(own: &str, ports: &[usize]) -> Link {
    made(LinkKind::Bond { name: name(own), mode: BondMode::Lacp, ports: ports.to_vec() })
}

fn bridge(own: &str, ports: &[usize]) -> Link {
    made(LinkKind::Bridge { name: name(own), ports: ports.to_vec() })
}

fn dhcp(link: Link) -> Link {
    Link { dhcp4: true, ..link }
}

fn with_mtu(link: Link, mtu: u16) -> Link {
    Link { mtu: Some(mtu), ..link }
}

fn network(links: Vec<Link>) -> NetworkPlan {
    let two = Facts { links: vec![eth(2, 1), eth(3, 2)], ..facts() };
    plan(Payload { network: links, ..typical() }, &two, Scope::Boot).unwrap().network.unwrap()
}

#[test]
fn a_stack_is_one_network_and_what_it_stands_on_is_none() {
    let links = vec![
        eth_named("eth0"),
        with_mtu(eth_named("eth1"), 9000),
        bond("bond0", &[0, 1]),
        with_mtu(vlan("vlan7", 7, 2), 1400),
        dhcp(bridge("br0", &[3])),
    ];
    let network = network(links);
    assert!(!network.contested());
    assert_eq!(
        network.to_string(),
        "\
part       name eth0
mtu        9000
part       name eth1
mtu        9000
make       bond bond0 (802.3ad) of name eth0 + name eth1
mtu        9000
make       VLAN vlan7 (id 7) on bond bond0
mtu        1400
make       bridge br0 of VLAN vlan7
link       bridge br0 (to be made on: eth0, eth1)
address    by DHCPv4
"
    );
    assert_eq!(below(&network.layers, 4), [4, 3, 2, 0, 1]);
}

#[test]
fn what_carries_others_may_be_a_network_of_its_own() {
    let network = network(vec![dhcp(eth_named("eth0")), dhcp(vlan("vlan7", 7, 0)), dhcp(eth_named("eth1"))]);
    let shown: Vec<String> = network.links.iter().map(|link| format!("{} {:?}", link.matching, link.made)).collect();
    assert_eq!(shown, ["name eth0 None", "name vlan7 Some(1)", "name eth1 None"]);
    assert!(network.contested());
}

/// One image for all machines of a site has no other way to say it.
#[test]
fn a_vlan_on_any_link_is_tried_on_each() {
    let network = network(vec![Link::plain(Match::AnyWithCarrier), dhcp(vlan("vlan7", 7, 0))]);
    assert_eq!(network.links.len(), 1);
    assert!(network.contested());
    assert_eq!(network.links[0].there.len(), 2);
    assert!(network.layers[0].plain && network.layers[0].what.is_many());
}

#[test]
fn what_cannot_stand_on_each_other_is_refused_with_names_and_a_remedy() {
    let first = || eth_named("eth0");
    let static4 = Link { addresses: vec![Prefix::parse("192.0.2.10/24").unwrap()], ..first() };
    let v6 = Link { slaac: true, ..vlan("v", 7, 0) };
    let cases: [(Vec<Link>, &str); 17] = [
        (
            vec![first(), vlan("a", 7, 0), vlan("b", 7, 0)],
            "VLANs a and b both have id 7 on name eth0; leave one of them out",
        ),
        (
            vec![first(), bond("bond0", &[0]), bond("bond1", &[1])],
            "bond bond0 cannot be a port of bond bond1; give the links of devices instead",
        ),
        (
            vec![first(), bridge("br0", &[0]), bond("bond0", &[1])],
            "bridge br0 cannot be a port of bond bond0; give the links of devices instead",
        ),
        (
            vec![first(), bridge("br0", &[0]), bridge("br1", &[1])],
            "bridge br0 cannot be a port of bridge br1; give its ports instead",
        ),
        (
            vec![first(), bridge("eth0", &[0])],
            "two entries of the network are the link eth0; give the link that is made another name",
        ),
        (
            vec![first(), vlan("a", 7, 0), vlan("a", 8, 0)],
            "two entries of the network are the link a; give the link that is made another name",
        ),
        (
            vec![first(), bridge("br0", &[0]), bond("bond0", &[0])],
            "name eth0 cannot be used by both bridge br0 and bond bond0: ",
        ),
        (
            vec![first(), bond("bond0", &[0]), vlan("v", 7, 0)],
            "name eth0 cannot be used by both bond bond0 and VLAN v: ",
        ),
        (
            vec![first(), vlan("v", 7, 0), bond("bond0", &[0])],
            "name eth0 cannot be used by both VLAN v and bond bond0: ",
        ),
        (
            vec![static4, bond("bond0", &[0])],
            "name eth0 is a port of bond bond0 and cannot have addresses, routes or name servers of its own; give them to bond bond0",
        ),
        (
            vec![Link::plain(Match::AnyWithCarrier), bond("bond0", &[0])],
            "a port of bond bond0 (\"any with carrier\") may be several links; match each port by mac, name or bootif",
        ),
        (
            vec![Link::plain(Match::AnyWithCarrier), vlan("v", 7, 0), bridge("br0", &[1])],
            "a port of bridge br0 (\"VLAN v\") may be several links; match each port",
        ),
        (
            vec![with_mtu(first(), 2000), with_mtu(vlan("v", 7, 0), 9000)],
            "MTU 9000 of VLAN v is above the 2000 of name eth0, which carries it; give name eth0 an mtu of 9000 or more",
        ),
        (vec![first(), with_mtu(vlan("v", 7, 0), 9000)], "MTU 9000 of VLAN v is above the 1500 of name eth0"),
        (
            vec![with_mtu(first(), 2000), with_mtu(bridge("br0", &[0]), 9000)],
            "MTU 9000 of bridge br0 is above the 2000 of name eth0",
        ),
        (
            vec![with_mtu(first(), 1000), v6],
            "v has IPv6, and what carries it has an MTU of 1000, where IPv6 needs 1280",
        ),
        (
            vec![Link::plain(Match::Mac(eth(2, 1).mac.unwrap())), first(), bond("bond0", &[0]), bond("bond1", &[1])],
            "eth0 cannot be used by both MAC address 52:54:00:12:34:01 and bond bond1: ",
        ),
    ];
    let two = Facts { links: vec![eth(2, 1), eth(3, 2)], ..facts() };
    for (links, words) in cases {
        let error = refused(Payload { network: links, ..typical() }, &two);
        assert!(matches!(error, PlanError::Stack(_)) && error.to_string().starts_with(words), "{error}");
    }
}

#[test]
fn mtus_go_from_the_master_to_its_ports_and_back() {
    let mtus = |links: Vec<Link>| -> Vec<Option<u16>> { network(links).layers.iter().map(|layer| layer.mtu).collect() };
    assert_eq!(mtus(vec![eth_named("eth0"), with_mtu(bridge("br0", &[0]), 9000)]), [Some(9000), Some(9000)]);
    assert_eq!(mtus(vec![with_mtu(eth_named("eth0"), 9000), bond("bond0", &[0])]), [Some(9000), Some(9000)]);
    // A VLAN takes that of its parent by itself.
    assert_eq!(mtus(vec![with_mtu(eth_named("eth0"), 9000), vlan("v", 7, 0)]), [Some(9000), None]);
    assert_eq!(mtus(vec![eth_named("eth0"), vlan("v", 7, 0)]), [None, None]);
}

#[test]
fn what_the_machine_has_may_stand_in_the_way() {
    let at = |links: Vec<Link>, facts: &Facts| plan(Payload { network: links, ..typical() }, facts, Scope::Boot);
    let two = Facts { links: vec![eth(2, 1), eth(3, 2)], ..facts() };
    let taken = at(vec![eth_named("eth0"), dhcp(bond("eth1", &[0]))], &two).unwrap_err();
    assert_eq!(
        taken.to_string(),
        "bond eth1 cannot be made: the machine has a link of that name, eth1 (52:54:00:12:34:02, virtio_net); give it another name"
    );
    let driver = Link::plain(Match::Driver(DriverName::try_from("virtio_net").unwrap()));
    let several = at(vec![driver.clone(), dhcp(bond("bond0", &[0]))], &two).unwrap_err();
    assert!(
        several.to_string().starts_with("several links match \"driver virtio_net\", which is to be one port: eth0 ("),
        "{several}"
    );
    // One of them is one port.
    assert!(at(vec![driver, dhcp(bond("bond0", &[0]))], &facts()).is_ok());
    // One that an earlier run of this agent may have left.
    let left = LinkFacts { driver: None, name: name("bond0"), mac: None, ..eth(9, 1) };
    let again = Facts { links: vec![eth(2, 1), left], ..facts() };
    assert!(at(vec![eth_named("eth0"), dhcp(bond("bond0", &[0]))], &again).is_ok());
    // No part is there.
    let none = at(vec![eth_named("eth8"), eth_named("eth9"), dhcp(bond("bond0", &[0, 1]))], &two).unwrap_err();
    assert!(
        none.to_string().starts_with("no network link with name eth8 or name eth9; this machine has: eth0"),
        "{none}"
    );
    // One of two ports is enough.
    assert!(at(vec![eth_named("eth8"), eth_named("eth1"), dhcp(bond("bond0", &[0, 1]))], &two).is_ok());
}

/// The wire format has no order but that of indices, so no index can be wrong here; whatever it holds, there is an answer.
#[test]
fn any_indices_have_an_answer() {
    for parent in [0, 1, 7, usize::MAX] {
        assert_eq!(check(&[vlan("v", 7, parent)]), Ok(()));
        let _ = check(&[bond("b", &[parent]), bridge("c", &[parent, 0])]);
    }
}

#[test]
fn bootif_may_be_a_port() {
    let links = vec![Link::plain(Match::BootIf), dhcp(bond("bond0", &[0]))];
    let facts = Facts { bootif: eth(2, 0x56).mac, ..facts() };
    let network = plan(Payload { network: links.clone(), ..typical() }, &facts, Scope::Boot).unwrap().network.unwrap();
    assert_eq!(network.layers[0].what.to_string(), "MAC address 52:54:00:12:34:56");
    let missing = refused(Payload { network: links, ..typical() }, &Facts { bootif: None, ..facts });
    assert!(matches!(missing, PlanError::NoBootIf { .. }), "{missing}");
}
