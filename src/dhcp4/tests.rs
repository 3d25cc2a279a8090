//! The DHCPv4 client against what dnsmasq has sent, against what dhcproto writes, and against random bytes.

use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode};
use dhcproto::{Decodable as _, Encodable as _};
use proptest::prelude::*;

use super::*;

mod rooms;

/// tests/data/dhcp4: dnsmasq 2.90 on one end of a veth pair, busybox udhcpc (offer, ack) and a request for an address
/// of another network (nak) on the other; IP packets from a packet socket.
fn recorded(which: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/dhcp4/dnsmasq-{which}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    crate::hex::decode(&text.replace('\n', "")).unwrap()
}

fn decoded(which: &str) -> Answer {
    Answer::decode(&recorded(which)).unwrap().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn second(count: u64) -> Duration {
    Duration::from_secs(count)
}

const MAC: [u8; 6] = [0xa6, 0xfd, 0x0c, 0xdc, 0x09, 0xa5];

fn asker() -> Asker {
    let hostname = HostName::try_from("node17").unwrap();
    Asker { hardware: 1, mac: HardwareAddress::new(&MAC).unwrap(), client_id: None, hostname: Some(hostname) }
}

/// What follows the IPv4 and UDP headers, as dhcproto reads it.
fn read(packet: &[u8]) -> v4::Message {
    v4::Message::decode(&mut dhcproto::Decoder::new(&packet[28..])).unwrap()
}

/// An answer to `question`, as dhcproto writes it.
fn answer(question: &v4::Message, kind: MessageType, options: &[DhcpOption]) -> Vec<u8> {
    let mut message = v4::Message::default();
    message.set_opcode(v4::Opcode::BootReply).set_xid(question.xid()).set_chaddr(question.chaddr());
    message.set_yiaddr(v4("192.0.2.140"));
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(v4("192.0.2.1")));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    let mut bytes = Vec::new();
    message.encode(&mut dhcproto::Encoder::new(&mut bytes)).unwrap();
    from_server(&bytes)
}

fn from_server(message: &[u8]) -> Vec<u8> {
    message::packet((v4("192.0.2.1"), 67), (v4("192.0.2.140"), 68), message)
}

#[test]
fn what_dnsmasq_offers_and_gives() {
    let offer = decoded("offer");
    let expected = Answer {
        kind: Kind::Offer,
        xid: [0x68, 0xf9, 0xe5, 0x36],
        mac: MAC.to_vec(),
        server: Server { address: v4("192.0.2.1"), identified: true },
        address: Prefix::parse("192.0.2.140/24").unwrap(),
        routes: vec![Route {
            destination: Prefix::parse("0.0.0.0/0").unwrap(),
            gateway: Some(ip("192.0.2.1")),
            metric: None,
        }],
        dns: vec![ip("192.0.2.53"), ip("192.0.2.54")],
        search: vec![],
        domain: Vec::new(),
        mtu: None,
        unread: vec![],
        lease: 3600,
        renew: Some(1800),
        message: None,
    };
    assert_eq!(offer, expected);
    assert_eq!(decoded("ack"), Answer { kind: Kind::Ack, ..expected });
}

#[test]
fn what_dnsmasq_refuses_with() {
    let nak = decoded("nak");
    assert_eq!((nak.kind, nak.xid), (Kind::Nak, *b"NAKN"));
    assert_eq!(nak.message.as_deref(), Some("wrong network"));
}

#[test]
fn a_lease_in_four_packets() {
    let mut client = Client::new(asker(), *b"12345678", second(10));
    assert_eq!(client.state(), "about to ask");
    let poll = client.poll(second(10));
    let discover = read(&poll.send.unwrap());
    assert_eq!(discover.opts().msg_type(), Some(MessageType::Discover));
    assert_eq!((discover.chaddr(), discover.flags().broadcast()), (&MAC[..], false));
    let option = |code| discover.opts().get(code);
    let identifier = [&[1], &MAC[..]].concat();
    assert_eq!(option(OptionCode::ClientIdentifier), Some(&DhcpOption::ClientIdentifier(identifier)));
    assert_eq!(option(OptionCode::Hostname), Some(&DhcpOption::Hostname("node17".into())));

    let offer = answer(&discover, MessageType::Offer, &[]);
    assert_eq!(client.push(&offer, second(11)), None);
    assert_eq!(client.state(), "OFFER of 192.0.2.140 by 192.0.2.1, 0 REQUEST sent, no answer");
    // At once, not when the next DISCOVER would have been due.
    let request = read(&client.poll(second(11)).send.unwrap());
    let option = |code| request.opts().get(code);
    assert_eq!(request.opts().msg_type(), Some(MessageType::Request));
    assert_eq!(request.ciaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(option(OptionCode::RequestedIpAddress), Some(&DhcpOption::RequestedIpAddress(v4("192.0.2.140"))));
    assert_eq!(option(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(v4("192.0.2.1"))));
    assert_eq!((request.xid(), request.secs()), (discover.xid(), 1));

    let name = |name: &str| name.parse::<dhcproto::Name>().unwrap();
    let options = [
        DhcpOption::AddressLeaseTime(600),
        DhcpOption::SubnetMask(v4("255.255.254.0")),
        DhcpOption::Router(vec![v4("192.0.2.99")]),
        DhcpOption::ClasslessStaticRoute(vec![
            ("0.0.0.0/0".parse().unwrap(), v4("192.0.2.1")),
            ("198.51.100.128/25".parse().unwrap(), v4("0.0.0.0")),
        ]),
        DhcpOption::DomainNameServer(vec![v4("192.0.2.53")]),
        DhcpOption::DomainName("ignored.example".into()),
        DhcpOption::DomainSearch(vec![name("lab.example.org."), name("example.org.")]),
        DhcpOption::InterfaceMtu(9000),
    ];
    let ack = answer(&request, MessageType::Ack, &options);
    let Some(Event::Bound(lease)) = client.push(&ack, second(12)) else { panic!("no lease") };
    let route =
        |to, via: Option<&str>| Route { destination: Prefix::parse(to).unwrap(), gateway: via.map(ip), metric: None };
    let domain = |name| DnsName::try_from(name).unwrap();
    let expected = Lease {
        address: Prefix::parse("192.0.2.140/23").unwrap(),
        server: v4("192.0.2.1"),
        // RFC 3442: with classless routes the router option is not looked at.
        routes: vec![route("0.0.0.0/0", Some("192.0.2.1")), route("198.51.100.128/25", None)],
        dns: vec![ip("192.0.2.53")],
        search: vec![domain("lab.example.org"), domain("example.org")],
        domain: vec![domain("ignored.example")],
        mtu: Some(9000),
        unread: vec![],
        seconds: 600,
        bound: second(12),
        renew: second(300),
    };
    assert_eq!(lease, expected);
    assert_eq!(lease.renew_at(), second(312));
}

#[test]
fn it_asks_again_less_and_less_often() {
    let mut client = Client::new(asker(), [0x80; 8], second(0));
    let mut now = second(0);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let poll = client.poll(now);
        assert!(poll.send.is_some());
        assert_eq!(client.poll(now), Poll { send: None, wake: poll.wake });
        waits.push((poll.wake - now).as_secs_f64());
        now = poll.wake;
    }
    for (wait, middle) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]) {
        assert!((0.75 * middle..=1.25 * middle).contains(wait), "{waits:?}");
    }
    assert_eq!(client.state(), "6 DISCOVER sent, no OFFER");
}

/// Some relays and switches lose an answer that is sent to an address which nobody has yet; others lose broadcasts. Both are tried.
#[test]
fn the_third_question_wants_a_broadcast() {
    let mut client = Client::new(asker(), [0x80; 8], second(0));
    let mut now = second(0);
    let mut flags = |client: &mut Client| {
        let poll = client.poll(now);
        now = poll.wake;
        read(&poll.send.unwrap()).flags().broadcast()
    };
    assert_eq!([(); 4].map(|()| flags(&mut client)), [false, false, true, true]);
    // A node that has an address hears what is sent there.
    let mut client = Client::renewing(asker(), &ten_minutes(), [0x80; 8], second(0));
    assert_eq!([(); 4].map(|()| flags(&mut client)), [false; 4]);
}

/// RFC 4361: the server knows the machine by its DUID, whatever card the question comes from.
#[test]
fn the_client_identifier_may_be_the_machines() {
    let client_id = crate::duid::Identity::new(Some(&[7; 16]), 1, &HardwareAddress::new(&MAC).unwrap()).client_id();
    let asker = Asker { client_id: Some(client_id.clone()), ..asker() };
    let lease = ten_minutes();
    for mut client in
        [Client::new(asker.clone(), [7; 8], second(0)), Client::renewing(asker, &lease, [7; 8], second(0))]
    {
        let question = read(&client.poll(second(0)).send.unwrap());
        let want = DhcpOption::ClientIdentifier(client_id.clone());
        assert_eq!((question.opts().get(OptionCode::ClientIdentifier), question.chaddr()), (Some(&want), &MAC[..]));
    }
}

/// RFC 2131 §4.4.5: a thousand nodes whose server is away for an hour must not flood the network with questions.
#[test]
fn a_lease_is_renewed_less_and_less_often() {
    let lease = Lease { seconds: 7200, renew: second(3600), ..ten_minutes() };
    let mut client = Client::renewing(asker(), &lease, [0x80; 8], second(3600));
    let (mut now, mut waits) = (second(3600), Vec::new());
    while now < second(7200) {
        let wake = client.poll(now).wake;
        waits.push((wake - now).as_secs_f64());
        now = wake;
    }
    for (wait, middle) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0]) {
        assert!((0.75 * middle..=1.25 * middle).contains(wait), "{waits:?}");
    }
    assert!((50..90).contains(&waits.len()), "{waits:?}");
    assert_eq!(read(&client.poll(second(7200)).send.unwrap()).opts().msg_type(), Some(MessageType::Discover));
}

#[test]
fn an_offer_that_is_not_kept_is_asked_for_four_times() {
    let mut client = Client::new(asker(), [7; 8], second(0));
    let discover = read(&client.poll(second(0)).send.unwrap());
    client.push(&answer(&discover, MessageType::Offer, &[]), second(0));
    let mut now = second(0);
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let poll = client.poll(now);
        kinds.extend(read(&poll.send.unwrap()).opts().msg_type());
        now = poll.wake;
    }
    use MessageType::{Discover, Request};
    assert_eq!(kinds, [Request, Request, Request, Request, Discover]);
}

#[test]
fn a_nak_is_kept_for_the_report_and_cannot_drive_the_console() {
    let mut client = Client::new(asker(), [7; 8], second(0));
    let discover = read(&client.poll(second(0)).send.unwrap());
    client.push(&answer(&discover, MessageType::Offer, &[]), second(0));
    client.poll(second(0));
    let words = DhcpOption::Message("no \u{1b}[2J address".into());
    let nak = answer(&discover, MessageType::Nak, &[words]);
    assert_eq!(client.push(&nak, second(1)), Some(Event::Refused));
    assert_eq!(client.state(), "1 DISCOVER sent, no OFFER, last NAK by 192.0.2.1: \"no \\u{1b}[2J address\"");
    assert_eq!(client.poll(second(1)), Poll { send: None, wake: second(2) });
    assert_eq!(read(&client.poll(second(2)).send.unwrap()).opts().msg_type(), Some(MessageType::Discover));
}

#[test]
fn a_lease_is_renewed_by_whoever_answers() {
    let mut client = Client::renewing(asker(), &ten_minutes(), [7; 8], second(300));
    let request = read(&client.poll(second(300)).send.unwrap());
    // RFC 2131 §4.3.2: ciaddr, and neither the requested address nor a server.
    assert_eq!(request.ciaddr(), v4("192.0.2.140"));
    assert_eq!(request.opts().get(OptionCode::RequestedIpAddress), None);
    assert_eq!(request.opts().get(OptionCode::ServerIdentifier), None);
    let ack = answer(&request, MessageType::Ack, &[]);
    let Some(Event::Bound(renewed)) = client.push(&ack, second(301)) else { panic!("no lease") };
    assert_eq!((renewed.server, renewed.seconds), (v4("192.0.2.1"), 3600));
}

#[test]
fn what_is_for_somebody_else_is_counted_and_nothing_else() {
    let mut client = Client::new(asker(), [7; 8], second(0));
    // An offer that comes before the client has asked.
    let mut discover = read(&client.clone().poll(second(0)).send.unwrap());
    assert_eq!(client.push(&answer(&discover, MessageType::Offer, &[]), second(0)), None);
    assert_eq!(client.state(), "about to ask, dropped: 1 that were not asked for");
    client.poll(second(0));
    let before = client.clone();
    // An ACK that nobody asked for, another transaction, two other machines.
    assert_eq!(client.push(&answer(&discover, MessageType::Ack, &[]), second(0)), None);
    let xid = discover.xid();
    discover.set_xid(xid ^ 1);
    assert_eq!(client.push(&answer(&discover, MessageType::Offer, &[]), second(0)), None);
    for last in 1..3 {
        discover.set_xid(xid).set_chaddr(&[2, 0, 0, 0, 0, last]);
        assert_eq!(client.push(&answer(&discover, MessageType::Offer, &[]), second(0)), None);
    }
    assert_eq!(
        client.state(),
        "1 DISCOVER sent, no OFFER, dropped: 2 that were not asked for, 1 of another exchange, 2 for other machines"
    );
    client.dropped.clone_from(&before.dropped);
    assert_eq!(client, before);
}

/// Its hlen says nothing of whom it is for.
#[test]
fn an_answer_with_a_wrong_length_of_hardware_address_is_not_for_another_machine() {
    let mut client = Client::new(asker(), [7; 8], second(0));
    let discover = read(&client.poll(second(0)).send.unwrap());
    for length in [0, 1, 5, 7, 16, 17, 255] {
        let mut offer = answer(&discover, MessageType::Offer, &[]);
        // The UDP header is not verified; hlen is behind it and the IP header.
        assert_eq!(offer[30], 6);
        offer[30] = length;
        assert_eq!(client.push(&offer, second(0)), None);
    }
    assert_eq!(client.state(), "1 DISCOVER sent, no OFFER, dropped: 7 with a wrong hardware address length (hlen)");
    client.push(&answer(&discover, MessageType::Offer, &[]), second(0));
    assert!(client.state().starts_with("OFFER of 192.0.2.140"), "{}", client.state());
}

#[test]
fn infiniband_leaves_its_address_to_the_client_identifier() {
    let mac: Vec<u8> = (0..20).collect();
    let asker = Asker { hardware: 32, mac: HardwareAddress::new(&mac).unwrap(), client_id: None, hostname: None };
    let mut client = Client::new(asker, [7; 8], second(0));
    let discover = read(&client.poll(second(0)).send.unwrap());
    // RFC 4390 §2.1
    assert_eq!((discover.hlen(), discover.flags().broadcast()), (0, true));
    let identifier = [&[32], &mac[..]].concat();
    assert_eq!(discover.opts().get(OptionCode::ClientIdentifier), Some(&DhcpOption::ClientIdentifier(identifier)));
    client.push(&answer(&discover, MessageType::Offer, &[]), second(0));
    assert!(client.state().starts_with("OFFER of 192.0.2.140"));
}

/// One answer with these options, byte for byte.
fn raw(fixed: impl FnOnce(&mut Vec<u8>), options: &[u8]) -> Result<Answer, Dropped> {
    let mut message = vec![2, 1, 6, 0];
    message.resize(236, 0);
    message[16..20].copy_from_slice(&[192, 0, 2, 140]);
    message.extend([99, 130, 83, 99, 53, 1, 5, 54, 4, 192, 0, 2, 1]);
    message.extend(options);
    fixed(&mut message);
    Answer::decode(&from_server(&message)).unwrap()
}

#[test]
fn options_go_on_in_other_fields_and_in_several_pieces() {
    // RFC 2132 §9.3 with RFC 3396: overload says both fields, and the list of servers is cut in the middle of an address.
    let answer = raw(
        |message| {
            message[108..114].copy_from_slice(&[6, 4, 2, 53, 198, 51]);
            message[114] = 255;
            message[44..50].copy_from_slice(&[6, 2, 100, 53, 255, 0]);
        },
        &[52, 1, 3, 6, 2, 192, 0, 255],
    );
    assert_eq!(answer.unwrap().dns, [ip("192.0.2.53"), ip("198.51.100.53")]);
}

#[test]
fn what_makes_no_sense_is_left_out() {
    let none = |_: &mut Vec<u8>| ();
    assert_eq!(raw(none, &[6, 3, 1, 2, 3, 255]).unwrap().dns, [] as [IpAddr; 0]);
    assert_eq!(raw(none, &[26, 1, 68, 255]).unwrap().mtu, None);
    // Servers without a router send a router of zeros.
    assert_eq!(raw(none, &[3, 4, 0, 0, 0, 0, 255]).unwrap().routes, []);
    // A list that is empty, a list that is cut, and a prefix length that no address has: no classless routes rather
    // than wrong ones, so the router counts.
    for routes in [&[121, 0, 255][..], &[121, 2, 32, 10, 255], &[121, 10, 33, 10, 1, 2, 3, 4, 192, 0, 2, 1, 255]] {
        let options = [&[3, 4, 192, 0, 2, 9], routes].concat();
        let gateways: Vec<_> = raw(none, &options).unwrap().routes.iter().map(|route| route.gateway).collect();
        assert_eq!(gateways, [Some(ip("192.0.2.9"))], "{routes:?}");
    }
    // A mask with holes, and an address that no host has.
    assert_eq!(raw(none, &[1, 4, 255, 0, 255, 0, 255]), Err(Dropped::NoAddress));
    assert_eq!(raw(|message| message[16..20].fill(0), &[255]), Err(Dropped::NoAddress));
    assert_eq!(raw(none, &[119, 4, 3, b'a', 0xc0, 0x03, 255]).unwrap().search, [] as [DnsName; 0]);
}

/// Options that lie about their length, or whose content does not fit them: what can be read is used, and the rest is named.
#[test]
fn what_cannot_be_read_is_named() {
    let unread = |options: &[u8]| raw(|_| (), options).unwrap().unread;
    let good: [&[u8]; 5] = [
        &[3, 4, 192, 0, 2, 9],
        &[6, 4, 192, 0, 2, 53],
        &[26, 2, 5, 220],
        &[119, 4, 1, b'a', 0, 0],
        &[121, 5, 0, 192, 0, 2, 1, 255],
    ];
    assert_eq!(unread(&good.concat()), [] as [u8; 0]);
    assert_eq!(unread(&[255]), [] as [u8; 0]);
    for (options, want) in [
        (&[3, 3, 192, 0, 2, 255][..], 3),
        (&[6, 5, 192, 0, 2, 53, 1, 255], 6),
        (&[26, 1, 5, 255], 26),
        (&[119, 3, 9, b'a', 0, 255], 119),
        (&[121, 4, 24, 10, 0, 0, 255], 121),
        // To the end of the message, and beyond.
        (&[6, 200, 192, 0, 2, 53], 0),
        (&[6], 0),
    ] {
        assert_eq!(unread(options), [want], "{options:?}");
    }
    // An answer that ends without the end (255) is whole.
    assert_eq!(unread(&[6, 4, 192, 0, 2, 53]), [] as [u8; 0]);
    // What stands before the lie is used.
    let answer = raw(|_| (), &[1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 2, 88, 6, 255, 1]).unwrap();
    assert_eq!((answer.address, answer.lease), (Prefix::parse("192.0.2.140/24").unwrap(), 600));
}

/// RFC 3397 with RFC 3396: a list that is cut in the middle of a name, and whose second part points back into the first.
#[test]
fn search_domains_point_back_over_the_pieces() {
    let answer = raw(
        |_| (),
        &[119, 6, 3, b'l', b'a', b'b', 7, b'e', 119, 12, b'x', b'a', b'm', b'p', b'l', b'e', 0, 1, b'a', 0xc0, 4, 255],
    );
    // The second one: "a", and what begins at offset 4.
    assert_eq!(answer.as_ref().unwrap().unread, [119], "a piece that says it is longer than it is");
    let answer = raw(
        |_| (),
        &[119, 6, 3, b'l', b'a', b'b', 7, b'e', 119, 11, b'x', b'a', b'm', b'p', b'l', b'e', 0, 1, b'a', 0xc0, 4, 255],
    );
    let domain = |name| DnsName::try_from(name).unwrap();
    assert_eq!(answer.unwrap().search, [domain("lab.example"), domain("a.example")]);
}

/// 300 routes: all of them are read, and none of them costs more than its place.
#[test]
fn hundreds_of_routes() {
    let route = |n: u16| [&[24, 10][..], &n.to_be_bytes(), &[192, 0, 2, 1]].concat();
    let list: Vec<u8> = (0..300).flat_map(route).collect();
    let mut options: Vec<u8> =
        list.chunks(255).flat_map(|piece| [&[121, piece.len() as u8][..], piece].concat()).collect();
    options.push(255);
    let answer = raw(|_| (), &options).unwrap();
    assert_eq!((answer.routes.len(), answer.unread), (300, vec![]));
    assert_eq!(answer.routes[299].destination, Prefix::parse("10.1.43.0/24").unwrap());
}

/// A lease for ever is never asked for again, and the kernel keeps it.
#[test]
fn a_lease_for_ever() {
    let answer = raw(|_| (), &[51, 4, 255, 255, 255, 255, 255]).unwrap();
    let lease = lease(answer, second(0));
    assert_eq!((lease.seconds, lease.ends_at()), (u32::MAX, Duration::MAX));
    assert!(lease.renew_at() > second(60 * 60 * 24 * 365));
}

#[test]
fn host_bits_of_a_classless_route_are_ignored() {
    // RFC 3442: "the DHCP client MUST zero any bits in the subnet number where the corresponding bit in the mask is
    // zero", with this example.
    let none = |_: &mut Vec<u8>| ();
    let answer = raw(none, &[3, 4, 192, 0, 2, 9, 121, 9, 25, 129, 210, 177, 132, 192, 0, 2, 1, 255]).unwrap();
    let destination = Prefix::parse("129.210.177.128/25").unwrap();
    assert_eq!(answer.routes, [Route { destination, gateway: Some(ip("192.0.2.1")), metric: None }]);
}

/// 192.0.2.140 for ten minutes.
fn ten_minutes() -> Lease {
    Lease {
        address: Prefix::parse("192.0.2.140/24").unwrap(),
        server: v4("192.0.2.9"),
        routes: vec![],
        dns: vec![],
        search: vec![],
        domain: Vec::new(),
        mtu: None,
        unread: vec![],
        seconds: 600,
        bound: second(0),
        renew: second(300),
    }
}

#[test]
fn a_lease_that_nobody_renewed_in_time_is_over() {
    let mut client = Client::renewing(asker(), &ten_minutes(), [7; 8], second(598));
    let mut kinds = Vec::new();
    let mut now = second(598);
    while now <= second(600) && kinds.len() < 4 {
        let poll = client.poll(now);
        let question = read(&poll.send.unwrap());
        kinds.push((question.opts().msg_type().unwrap(), question.ciaddr()));
        now = poll.wake;
    }
    // RFC 2131 §4.4.5: back to INIT when the lease expires, and not later. A server that does not know the lease keeps
    // silent for ever (§4.3.2).
    let address = v4("192.0.2.140");
    use MessageType::{Discover, Request};
    assert_eq!(kinds, [(Request, address), (Request, address), (Discover, Ipv4Addr::UNSPECIFIED)]);
    assert_eq!(ten_minutes().ends_at(), second(600));
    assert_eq!(Lease { seconds: u32::MAX, ..ten_minutes() }.ends_at(), Duration::MAX);
}

#[test]
fn the_time_to_ask_again_lies_within_what_the_server_gave() {
    let given = |options: &[u8]| {
        let answer = raw(|_| (), &[options, &[255]].concat()).unwrap();
        let lease = lease(answer, second(0));
        (lease.seconds, lease.renew)
    };
    assert_eq!(given(&[51, 4, 0, 0, 2, 88, 58, 4, 0, 0, 0, 200]), (600, second(200)));
    // T1 may be neither zero nor after the end of the lease.
    assert_eq!(given(&[51, 4, 0, 0, 2, 88, 58, 4, 0, 0, 0, 0]), (600, second(300)));
    assert_eq!(given(&[51, 4, 0, 0, 2, 88, 58, 4, 0, 0, 3, 0]), (600, second(300)));
    // The kernel keeps the address longer than the server does. The client still asks the server in time.
    assert_eq!(given(&[51, 4, 0, 0, 0, 20]), (60, second(10)));
    // Attack: a lease that is over at once, so that the client is never done with asking.
    assert_eq!(given(&[51, 4, 0, 0, 0, 1]), (60, second(1)));
    assert_eq!(given(&[51, 4, 0, 0, 0, 0]), (60, second(1)));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let mut client = Client::new(asker(), [7; 8], second(0));
        client.poll(second(0));
        client.push(&bytes, second(0));
        // With valid headers, too, so that the options are read.
        client.push(&from_server(&bytes), second(0));
        let options = [&[53, 1, 2, 54, 4, 1, 2, 3, 4][..], &bytes].concat();
        let mut message = vec![2, 1, 6, 0, 7, 7, 7, 7];
        message.resize(236, 1);
        message[28..34].copy_from_slice(&MAC);
        message.extend([99, 130, 83, 99]);
        message.extend(options);
        client.push(&from_server(&message), second(0));
        client.state();
    }
}
