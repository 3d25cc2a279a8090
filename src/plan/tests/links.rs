//! Tests of the links that a plan chooses, and of those that it cannot use.

use super::*;

#[test]
fn links_are_chosen_by_what_the_payload_says() {
    let matched = |matching: Match, facts: &Facts| {
        let mut payload = typical();
        payload.network[0].kind = LinkKind::Physical(matching);
        plan(payload, facts, Scope::Boot).map(|plan| {
            let network = plan.network.unwrap();
            let names: Vec<&str> = network.links[0].there.iter().map(InterfaceName::as_str).collect();
            (names.join(" "), network.contested())
        })
    };
    let two = Facts { links: vec![eth(2, 1), eth(3, 2)], bootif: eth(3, 2).mac, ..facts() };
    let driver = || Match::Driver(DriverName::try_from("virtio_net").unwrap());
    let only = |name: &str| Ok((name.to_owned(), false));
    assert_eq!(matched(Match::Mac(eth(3, 2).mac.unwrap()), &two), only("eth1"));
    assert_eq!(matched(Match::Name(InterfaceName::try_from("eth1").unwrap()), &two), only("eth1"));
    assert_eq!(matched(Match::BootIf, &two), only("eth1"));
    assert_eq!(matched(driver(), &two), Ok(("eth0 eth1".to_owned(), true)));
    assert_eq!(matched(Match::AnyWithCarrier, &two), Ok(("eth0 eth1".to_owned(), true)));
    let have = "eth0 (52:54:00:12:34:01, virtio_net), eth1 (52:54:00:12:34:02, virtio_net)".to_owned();
    assert_eq!(
        matched(Match::Name(InterfaceName::try_from("eth9").unwrap()), &two),
        Err(PlanError::NoSuchLink { want: "name eth9".into(), have: have.clone() })
    );
    assert_eq!(matched(Match::BootIf, &Facts { bootif: None, ..two }), Err(PlanError::NoBootIf { have }));
    // The link to the management controller does not match "any", but it still matches by its name.
    let with_controller = Facts { links: vec![eth(2, 1), LinkFacts { controller: true, ..eth(3, 2) }], ..facts() };
    assert_eq!(matched(Match::AnyWithCarrier, &with_controller), Ok(("eth0".to_owned(), true)));
    assert_eq!(matched(Match::Name(InterfaceName::try_from("eth1").unwrap()), &with_controller), only("eth1"));
    let controller_only = Facts { links: vec![LinkFacts { controller: true, ..eth(2, 1) }], ..facts() };
    let have = "eth0 (52:54:00:12:34:01, virtio_net, link to the management controller)".to_owned();
    assert_eq!(
        matched(Match::AnyWithCarrier, &controller_only),
        Err(PlanError::NoSuchLink { want: "any with carrier".into(), have })
    );
    let virtual_only = Facts { links: vec![LinkFacts { driver: None, ..eth(2, 1) }], ..facts() };
    let have = "eth0 (52:54:00:12:34:01, virtual)".to_owned();
    assert_eq!(
        matched(Match::AnyWithCarrier, &virtual_only),
        Err(PlanError::NoSuchLink { want: "any with carrier".into(), have })
    );
}

#[test]
fn links_are_tried_in_the_payloads_order_and_one_that_is_missing_hinders_no_other() {
    let mut payload = typical();
    let mut second = payload.network[0].clone();
    second.kind = LinkKind::Physical(Match::Name(InterfaceName::try_from("eth7").unwrap()));
    (second.dhcp4, second.slaac) = (true, true);
    payload.network.insert(0, second);
    let network = plan(payload, &facts(), Scope::Boot).unwrap().network.unwrap();
    assert!(network.contested());
    assert_eq!(network.servers, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(
        network.to_string(),
        "\
link       name eth7 (now: none yet)
address    192.0.2.10/24
address    by DHCPv4
address    by router advertisements
route      0.0.0.0/0 via 192.0.2.1
dns        192.0.2.1
link       any with carrier (now: eth0)
address    192.0.2.10/24
route      0.0.0.0/0 via 192.0.2.1
dns        192.0.2.1
"
    );
}

#[test]
fn an_address_by_dhcpv6_is_asked_for_whatever_routers_say() {
    let mut payload = typical();
    (payload.network[0].dhcp6, payload.network[0].addresses, payload.network[0].routes) = (true, vec![], vec![]);
    let network = plan(payload, &facts(), Scope::Boot).unwrap().network.unwrap();
    assert!(network.links[0].config.dhcp6 && network.links[0].config.has_ipv6());
    assert!(network.to_string().contains("address    by DHCPv6\n"), "{network}");
}

#[test]
fn a_line_alone_cannot_sign_a_payload_that_did_not_come_over_one() {
    let csr = |change: fn(&mut crate::payload::CsrEnrolment)| {
        let Enrolment::Csr(mut csr) = typical().enrolment else { panic!("it enrols with a CSR") };
        change(&mut csr);
        refused(Payload { enrolment: Enrolment::Csr(csr), ..typical() }, &facts())
    };
    assert_eq!(csr(|csr| csr.urls = vec![EstUrl::Line]), PlanError::OnlyLine(facts().origin));
}

#[test]
fn the_network_of_the_command_line() {
    let payload = || Payload { network: vec![], from_cmdline: true, hostname: None, ..typical() };
    let words = |cmdline: &str| {
        let cmdline = crate::options::network_words(cmdline).0.network(None);
        Facts { links: vec![eth(2, 1), eth(3, 2)], cmdline, ..facts() }
    };
    let planned = plan(payload(), &words("ip=::::node7:eth1:dhcp nameserver=192.0.2.53"), Scope::Boot).unwrap();
    assert_eq!(
        planned.network.unwrap().to_string(),
        "link       name eth1 (now: eth1)\naddress    by DHCPv4\ndns        192.0.2.53\n"
    );
    assert_eq!(planned.hostname.unwrap().as_str(), "node7");
    // The payload's own name goes before that of the words, and a payload with links takes no word.
    let named = Payload { hostname: HostName::try_from("node1").ok(), ..payload() };
    let planned = plan(named, &words("ip=::::node7:eth1:dhcp"), Scope::Boot).unwrap();
    assert_eq!(planned.hostname.unwrap().as_str(), "node1");
    let planned = plan(Payload { hostname: None, ..typical() }, &words("ip=::::node7:eth1:dhcp"), Scope::Boot).unwrap();
    assert_eq!((planned.hostname, planned.network.unwrap().links[0].matching.clone()), (None, Match::AnyWithCarrier));
    // Words that say nothing are an error that names those which cannot be used.
    let none = plan(payload(), &words("quiet"), Scope::Boot).unwrap_err().to_string();
    assert!(none.contains("has no ip= which can be used; add ip=dhcp") && none.ends_with("node's record"), "{none}");
    let ibft = plan(payload(), &words("ip=ibft"), Scope::Boot).unwrap_err().to_string();
    assert!(ibft.ends_with("; ip=ibft is not used: the iBFT is not read; write dhcp, or a fixed address"), "{ibft}");
    // A running system keeps its network, whatever the words are.
    assert_eq!(plan(payload(), &words("quiet"), Scope::CertificateOnly).unwrap().network, None);
}

#[test]
fn virtual_functions_and_addresses_that_were_given() {
    let path = |text: &str| DevicePath::try_from(text).unwrap();
    let present = HardwareAddress::parse("02:00:00:00:00:09");
    let function = LinkFacts {
        device: DeviceFacts { path: Some(path("pci-0000:03:10.1")), is_function: true, present: present.clone() },
        ..eth(3, 2)
    };
    let facts = Facts { links: vec![eth(2, 1), function.clone()], bootif: present.clone(), ..facts() };
    let there = |matching: Match| {
        let mut payload = typical();
        payload.network[0].kind = LinkKind::Physical(matching);
        let network = plan(payload, &facts, Scope::Boot).map(|plan| plan.network.unwrap());
        network.map(|network| network.links[0].there.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let only = Ok(vec!["eth1".to_owned()]);
    assert_eq!(there(Match::Path(path("pci-0000:03:10.1"))), only);
    // By the permanent address, and by a locally administered one that it has now.
    assert_eq!(there(Match::Mac(function.mac.clone().unwrap())), only);
    assert_eq!(there(Match::Mac(present.clone().unwrap())), only);
    assert_eq!(there(Match::BootIf), only);
    assert_eq!(there(Match::AnyWithCarrier), Ok(vec!["eth0".to_owned(), "eth1".to_owned()]));
    let have =
        "eth0 (52:54:00:12:34:01, virtio_net), eth1 (52:54:00:12:34:02, virtio_net, virtual function)".to_owned();
    let want = "device path pci-0000:04:00.0".to_owned();
    assert_eq!(there(Match::Path(path("pci-0000:04:00.0"))), Err(PlanError::NoSuchLink { want, have }));
    // A link that is made on a device has its address, and no driver.
    let on_top = LinkFacts { driver: None, ..function };
    assert!(!crate::facts::matches(&Match::Mac(present.unwrap()), None, &LinkFacts { mac: None, ..on_top }));
}
