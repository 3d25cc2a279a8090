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
fn what_cannot_be_done_yet_is_refused_by_name() {
    let item = |change: fn(&mut Payload)| {
        let mut payload = typical();
        change(&mut payload);
        match refused(payload, &facts()) {
            PlanError::Unsupported { item, .. } => item,
            other => panic!("{other}"),
        }
    };
    assert_eq!(item(|p| p.network[0].dhcp6 = true), "DHCPv6");
    let csr = |change: fn(&mut crate::payload::CsrEnrolment)| {
        let Enrolment::Csr(mut csr) = typical().enrolment else { panic!("it enrols with a CSR") };
        change(&mut csr);
        refused(Payload { enrolment: Enrolment::Csr(csr), ..typical() }, &facts())
    };
    assert_eq!(csr(|csr| csr.urls = vec![EstUrl::Line]), PlanError::OnlyLine(facts().origin));
}
