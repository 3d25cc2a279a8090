//! Tests against bytes of iproute2 6.1.0 and Linux 6.18, seen with strace, and against netlink-packet-route.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteProtocol, RouteScope};
use proptest::prelude::*;

use super::*;
use crate::payload::Route;

const SEQUENCE: u32 = 0x6b03_87bd;
/// RTM_NEWLINK as Linux 6.18 sends it for one end of a veth pair that is up: index 3, "eth0".
const VETH: &[u8] = include_bytes!("../../../tests/data/rtm-newlink-veth.bin");

fn hex(text: &str) -> Vec<u8> {
    crate::hex::decode(text).unwrap()
}

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

fn route(destination: &str, gateway: Option<&str>, metric: Option<u32>) -> Route {
    Route { destination: prefix(destination), gateway: gateway.map(|g| g.parse().unwrap()), metric }
}

/// An attribute, for what this machine's kernel cannot make.
fn made(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(align(bytes.len()), 0);
    bytes
}

/// RTM_NEWLINK with these attributes.
fn newlink(attributes: &[Vec<u8>]) -> LinkMessage {
    let body = [vec![0; 16], attributes.concat()].concat();
    let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(RTM_NEWLINK.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    match decode(&bytes).unwrap().remove(0).answer {
        Answer::Link(link) => link,
        other => panic!("{other:?}"),
    }
}

/// The numbers are those of include/uapi/linux/if_link.h.
#[test]
fn bonds_their_ports_and_vlans_are_read() {
    let partner = [2, 0, 0, 0, 0, 7];
    let ad = [made(1, &[1, 0]), made(2, &[2, 0]), made(5, &partner)].concat();
    let data = [made(1, &[4]), made(21, &[1]), made(23, &ad)].concat();
    let bond = newlink(&[made(18, &[made(1, b"bond"), made(2, &data)].concat())]);
    let info = Bond { mode: Bond::LACP, fast: true, aggregator: Some(1), partner: partner.to_vec() };
    assert_eq!((bond.kind.as_deref(), bond.info.bond), (Some("bond"), Some(info)));

    let port = |actor: u8, partner: u8| {
        let data = [made(4, &[2, 0, 0, 0, 0, 9]), made(6, &[1, 0]), made(7, &[actor]), made(8, &[partner, 0])].concat();
        newlink(&[made(10, &[5, 0, 0, 0]), made(18, &[made(4, b"bond\0"), made(5, &data)].concat())])
    };
    let ready = port(0x3f, 0x3d);
    assert_eq!((ready.kind.as_deref(), ready.master), (None, Some(5)));
    assert_eq!(ready.permanent_address.as_deref(), Some(&[2, 0, 0, 0, 0, 9][..]));
    let agreed = |actor, partner| port(actor, partner).info.port.unwrap().agreed();
    assert!(agreed(0x3f, 0x3d) && agreed(0x38, 0x38));
    // Out of sync, not collecting, not distributing, at either end.
    for missing in [0x08, 0x10, 0x20] {
        assert!(!agreed(0x3f & !missing, 0x3d) && !agreed(0x3f, 0x3d & !missing), "{missing:#x}");
    }
    // Lengths that no kernel sends.
    let odd = newlink(&[
        made(10, &[5]),
        made(18, &[made(4, b"bond"), made(5, &[made(6, &[1]), made(8, &[])].concat())].concat()),
    ]);
    assert_eq!((odd.master, odd.info.port), (None, Some(Port::default())));

    let vlan = newlink(&[made(5, &[3, 0, 0, 0]), made(18, &[made(1, b"vlan"), made(2, &made(1, &[7, 0]))].concat())]);
    assert_eq!((vlan.lower, vlan.info.vlan), (Some(3), Some(7)));
}

fn foreign(bytes: &[u8]) -> RouteNetlinkMessage {
    match NetlinkMessage::deserialize(bytes).unwrap().payload {
        NetlinkPayload::InnerMessage(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_those_of_iproute2() {
    let cases = [
        // ip link set eth0 up mtu 1400
        (
            Request::SetLink { index: 3, mtu: Some(1400), up: true },
            "2800000010000500bd87036b00000000000000000300000001000000010000000800040078050000",
        ),
        // ip addr add 192.0.2.2/24 brd + dev eth0
        (
            Request::AddAddress { index: 3, prefix: prefix("192.0.2.2/24"), lifetime: None },
            "3000000014000506bd87036b00000000021800000300000008000200c000020208000100c000020208000400c00002ff",
        ),
        // ip addr add 2001:db8::2/64 dev eth0
        (
            Request::AddAddress { index: 3, prefix: prefix("2001:db8::2/64"), lifetime: None },
            "4000000014000506bd87036b000000000a400000030000001400020020010db8000000000000000000000002\
             1400010020010db8000000000000000000000002",
        ),
        // ip route replace default via 192.0.2.1 dev eth0 metric 100
        (
            Request::SetRoute { index: 3, route: route("0.0.0.0/0", Some("192.0.2.1"), Some(100)), leased: None },
            "3400000018000505bd87036b0000000002000000fe0300010000000008000500c00002010800060064000000\
             0800040003000000",
        ),
        // ip route replace 2001:db8:1::/48 via 2001:db8::1 dev eth0
        (
            Request::SetRoute { index: 3, route: route("2001:db8:1::/48", Some("2001:db8::1"), None), leased: None },
            "4c00000018000505bd87036b000000000a300000fe030001000000001400010020010db8000100000000000000000000\
             1400050020010db80000000000000000000000010800040003000000",
        ),
    ];
    for (request, raw) in cases {
        assert_eq!(crate::hex::encode(&request.encode(SEQUENCE)), raw, "{request:?}");
    }
}

/// strace of iproute2 6.1.0.
#[test]
fn requests_for_new_links_are_those_of_iproute2() {
    let name = |text: &str| InterfaceName::try_from(text).unwrap();
    let address = crate::payload::HardwareAddress::parse("02:00:00:00:00:01");
    let make = |own: &str, new| Request::MakeLink { name: name(own), new, address: address.clone() };
    let cases = [
        // ip link add link eth0 name vlan7 address 02:00:00:00:00:01 type vlan id 7
        (
            make("vlan7", NewLink::Vlan { id: 7, parent: 3 }),
            "5800000010000506bd87036b00000000000000000000000000000000000000000a0001000200000000010000\
             08000500030000000a000300766c616e370000001800120008000100766c616e0c0002000600010007000000",
        ),
        // ip link add name bond0 address 02:00:00:00:00:01 type bond mode 802.3ad miimon 100 lacp_rate fast
        (
            make("bond0", NewLink::Bond { mode: Bond::LACP, fast: Some(true) }),
            "6000000010000506bd87036b00000000000000000000000000000000000000000a0001000200000000010000\
             0a000300626f6e64300000002800120008000100626f6e641c00020005000100040000000800030064000000\
             0500150001000000",
        ),
        // ip link add name br0 address 02:00:00:00:00:01 type bridge
        (
            make("br0", NewLink::Bridge),
            "4400000010000506bd87036b00000000000000000000000000000000000000000a0001000200000000010000\
             080003006272300010001200 0a0001006272696467650000",
        ),
        // ip link set eth0 master p0
        (
            Request::SetMaster { index: 3, master: 2 },
            "2800000010000500bd87036b000000000000000003000000000000000000000008000a0002000000",
        ),
        // ip link del p0
        (Request::DropLink { index: 2 }, "2000000011000500bd87036b0000000000000000020000000000000000000000"),
    ];
    for (request, raw) in cases {
        assert_eq!(crate::hex::encode(&request.encode(SEQUENCE)), raw.replace(' ', ""), "{request:?}");
    }
}

#[test]
fn requests_mean_the_same_to_netlink_packet_route() {
    let RouteNetlinkMessage::NewLink(link) =
        foreign(&Request::SetLink { index: 3, mtu: Some(9000), up: true }.encode(1))
    else {
        panic!()
    };
    assert_eq!((link.header.index, link.header.flags.bits(), link.header.change_mask.bits()), (3, IFF_UP, IFF_UP));
    assert_eq!(link.attributes, [LinkAttribute::Mtu(9000)]);

    let RouteNetlinkMessage::NewAddress(address) =
        foreign(&Request::AddAddress { index: 7, prefix: prefix("2001:db8::2/64"), lifetime: None }.encode(1))
    else {
        panic!()
    };
    assert_eq!((address.header.index, address.header.prefix_len), (7, 64));
    assert_eq!(address.header.flags, AddressHeaderFlags::empty());
    let ip = "2001:db8::2".parse().unwrap();
    assert_eq!(address.attributes, [AddressAttribute::Local(ip), AddressAttribute::Address(ip)]);

    // A lease: valid and preferred for as long as the server says.
    let leased = Request::AddAddress { index: 7, prefix: prefix("192.0.2.2/24"), lifetime: Some(3600) };
    let RouteNetlinkMessage::NewAddress(address) = foreign(&leased.encode(1)) else { panic!() };
    let Some(AddressAttribute::CacheInfo(info)) = address.attributes.get(3) else { panic!("{address:?}") };
    assert_eq!((info.ifa_preferred, info.ifa_valid), (3600, 3600));
    // The kernel says in the same way how much is left.
    let said = |request: &Request| match decode(&request.encode(1)).unwrap().remove(0).answer {
        Answer::Address { left, .. } => left,
        other => panic!("{other:?}"),
    };
    assert_eq!(said(&leased), Some(3600));
    for lifetime in [None, Some(u32::MAX)] {
        assert_eq!(said(&Request::AddAddress { index: 7, prefix: prefix("192.0.2.2/24"), lifetime }), None);
    }

    let RouteNetlinkMessage::DelAddress(address) =
        foreign(&Request::DropAddress { index: 7, prefix: prefix("192.0.2.2/24") }.encode(1))
    else {
        panic!()
    };
    let ip = "192.0.2.2".parse().unwrap();
    assert_eq!((address.header.index, address.header.prefix_len), (7, 24));
    assert_eq!(address.attributes, [AddressAttribute::Local(ip), AddressAttribute::Address(ip)]);

    // On-link: no gateway, scope link.
    let RouteNetlinkMessage::NewRoute(message) =
        foreign(&Request::SetRoute { index: 7, route: route("192.0.2.0/24", None, None), leased: None }.encode(1))
    else {
        panic!()
    };
    assert_eq!(message.header.scope, RouteScope::Link);
    assert_eq!(message.header.protocol, RouteProtocol::Boot);
    assert_eq!(message.header.destination_prefix_length, 24);
    assert!(message.attributes.contains(&RouteAttribute::Oif(7)));
    assert_eq!(message.attributes.len(), 2);
    let RouteNetlinkMessage::DelRoute(same) =
        foreign(&Request::DropRoute { index: 7, route: route("192.0.2.0/24", None, None), leased: None }.encode(1))
    else {
        panic!()
    };
    assert_eq!(same, message);
    let leased = Some("192.0.2.10".parse().unwrap());
    let request = Request::SetRoute { index: 7, route: route("0.0.0.0/0", Some("192.0.2.1"), Some(1024)), leased };
    let RouteNetlinkMessage::NewRoute(message) = foreign(&request.encode(1)) else { panic!() };
    assert_eq!(message.header.protocol, RouteProtocol::Dhcp);
    let source = RouteAddress::Inet("192.0.2.10".parse().unwrap());
    assert!(message.attributes.contains(&RouteAttribute::PrefSource(source)));
    for request in [Request::Links, Request::Link { index: 2 }] {
        assert!(matches!(foreign(&request.encode(1)), RouteNetlinkMessage::GetLink(_)), "{request:?}");
    }
    for ipv6 in [false, true] {
        assert!(matches!(foreign(&Request::Addresses { ipv6 }.encode(1)), RouteNetlinkMessage::GetAddress(_)));
    }
}

#[test]
fn reads_a_link_of_linux_6_18() {
    let [message] = &decode(VETH).unwrap()[..] else { panic!() };
    assert_eq!((message.sequence, message.interrupted), (SEQUENCE, false));
    let Answer::Link(link) = &message.answer else { panic!() };
    // strace: ifi_type=ARPHRD_ETHER, ifi_flags=IFF_UP|IFF_BROADCAST|IFF_RUNNING|IFF_MULTICAST|IFF_LOWER_UP
    assert_eq!((link.index, link.hardware, link.flags), (3, 1, 0x1_1043));
    assert!(link.carrier() && link.operational());
    assert_eq!(link.name, Some(InterfaceName::try_from("eth0").unwrap()));
    assert_eq!(link.mtu, 1400);
    assert_eq!(link.permanent_address, None);
    assert_eq!(link.broadcast, [0xff; 6]);
    let RouteNetlinkMessage::NewLink(theirs) = foreign(VETH) else { panic!() };
    assert!(theirs.attributes.contains(&LinkAttribute::Address(link.address.clone())));
    assert!(theirs.attributes.contains(&LinkAttribute::Mtu(link.mtu)));
    assert_eq!(theirs.header.index, link.index);
}

#[test]
fn carrier_is_not_enough_when_the_link_is_dormant() {
    let link = |flags, kind: Option<&str>, link_mode| {
        let kind = kind.map(ToOwned::to_owned);
        LinkMessage { index: 1, flags, hardware: 1, kind, link_mode, ..LinkMessage::default() }
    };
    let bond = |flags| link(flags, Some("bond"), 0);
    assert!(bond(IFF_UP | IFF_LOWER_UP).carrier() && !bond(IFF_UP | IFF_LOWER_UP).operational());
    assert!(!bond(IFF_UP | IFF_RUNNING).operational() && bond(IFF_UP | IFF_LOWER_UP | IFF_RUNNING).operational());
    let hardware = |flags, mode| link(flags, None, mode);
    assert!(hardware(IFF_UP | IFF_LOWER_UP, 0).operational());
    assert!(!hardware(IFF_UP | IFF_LOWER_UP | IFF_DORMANT, 0).operational());
    assert!(!hardware(IFF_UP | IFF_LOWER_UP, IF_LINK_MODE_DORMANT).operational());
    assert!(!hardware(IFF_UP | IFF_RUNNING, 0).operational());
}

#[test]
fn reads_acknowledgements() {
    let answer = |text: &str| decode(&hex(text)).unwrap().remove(0).answer;
    // ip addr add 192.0.2.2/24 dev eth0
    assert_eq!(
        answer("2400000002000001bd87036b312f0000000000002800000014000506bd87036b00000000"),
        Answer::Acknowledged
    );
    // RTM_NEWLINK with index 0, which ip sends to find out what the kernel can do; the error has no message
    assert_eq!(
        answer(
            "3400000002000000000000002d2f0000edffffff2000000010000500000000000000000000000000000000000000000000000000"
        ),
        Answer::Refused { errno: 19, words: None }
    );
    // ip route replace 198.51.100.0/24 via 203.0.113.1 dev eth0
    assert_eq!(
        answer(
            "6800000002000002bd87036b412f00009bffffff3400000018000505bd87036b0000000002180000fe030001000000000800\
             0100c633640008000500cb0071010800040003000000200001004e657874686f702068617320696e76616c69642067617465\
             77617900"
        ),
        Answer::Refused { errno: 101, words: Some("Nexthop has invalid gateway".to_owned()) }
    );
}

#[test]
fn two_messages_in_one_datagram() {
    let ack = hex("2400000002000001bd87036b312f0000000000002800000014000506bd87036b00000000");
    let messages = decode(&[VETH, &ack].concat()).unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].answer, Answer::Acknowledged);
}

#[test]
fn lengths_that_lie() {
    assert_eq!(decode(&VETH[..3]), Err(MessageError::Truncated { need: 4, have: 3 }));
    assert_eq!(decode(&VETH[..1000]), Err(MessageError::Truncated { need: 1128, have: 1000 }));
    let mut short = VETH.to_vec();
    short[..4].copy_from_slice(&15u32.to_ne_bytes());
    assert_eq!(decode(&short), Err(MessageError::Length(15)));
    // A message that ends inside its fixed part.
    let mut header = VETH[..20].to_vec();
    header[..4].copy_from_slice(&20u32.to_ne_bytes());
    assert_eq!(decode(&header), Err(MessageError::Truncated { need: 4, have: 0 }));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_damage_panics(at in 0..1128usize, value in any::<u8>(), end in 0..1128usize) {
        let mut bytes = VETH.to_vec();
        bytes[at] = value;
        let _ = decode(&bytes[..end]);
        let _ = decode(&bytes);
    }
}
