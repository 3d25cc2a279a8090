//! DHCP servers as real networks have them: bytes that other clients stumbled over, and several servers of which one is
//! faulty.

use super::*;

/// tests/data/dhcp4/case-*.hex: OFFER and ACK.
fn case(which: &str) -> [Vec<u8>; 2] {
    let path = format!("{}/tests/data/dhcp4/case-{which}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let packets = text.lines().filter(|line| !line.starts_with('#')).map(|line| crate::hex::decode(line).unwrap());
    packets.collect::<Vec<_>>().try_into().unwrap()
}

/// The lease that OFFER and ACK lead to, and the REQUEST between them.
fn bound(which: &str) -> (Lease, v4::Message) {
    let asker =
        Asker { hardware: 1, mac: HardwareAddress::new(&[2, 0, 0, 0, 0, 1]).unwrap(), client_id: None, hostname: None };
    let mut client = Client::new(asker, [1, 2, 3, 4, 0, 0, 0, 0], second(0));
    let [offer, ack] = case(which);
    client.poll(second(0));
    assert_eq!(client.push(&offer, second(0)), None);
    let request = client.poll(second(0)).send.map(|packet| read(&packet));
    let request = request.unwrap_or_else(|| panic!("{which}: {}", client.state()));
    let Some(Event::Bound(lease)) = client.push(&ack, second(0)) else { panic!("{which}: {}", client.state()) };
    assert_eq!(client.state(), format!("{} by {}", lease.address, lease.server));
    (lease, request)
}

fn route(to: &str, via: Option<&str>) -> Route {
    Route { destination: Prefix::parse(to).unwrap(), gateway: via.map(ip), metric: None }
}

#[test]
fn a_server_that_does_not_say_who_it_is() {
    let (lease, request) = bound("no54");
    assert_eq!((lease.address, lease.server), (Prefix::parse("192.0.2.100/24").unwrap(), v4("192.0.2.1")));
    assert_eq!(request.opts().get(OptionCode::ServerIdentifier), None);
    let wanted = DhcpOption::RequestedIpAddress(v4("192.0.2.100"));
    assert_eq!(request.opts().get(OptionCode::RequestedIpAddress), Some(&wanted));
    // The next server of the message counts before the source of the packet. A name of zeros does not count.
    let unnamed = |fixed: fn(&mut Vec<u8>), source: &str| {
        let [offer, _] = case("no54");
        let mut message = offer[28..].to_vec();
        fixed(&mut message);
        Answer::decode(&message::packet((v4(source), 67), (v4("192.0.2.100"), 68), &message)).unwrap()
    };
    let server = |fixed, source| unnamed(fixed, source).unwrap().server;
    let from = |address: &str| Server { address: v4(address), identified: false };
    assert_eq!(server(|message| message[20..24].copy_from_slice(&[192, 0, 2, 7]), "192.0.2.1"), from("192.0.2.7"));
    assert_eq!(server(|_| (), "192.0.2.9"), from("192.0.2.9"));
    assert_eq!(unnamed(|_| (), "0.0.0.0"), Err(Dropped::NoServer));
    let none = |_: &mut Vec<u8>| ();
    // raw() has 192.0.2.1 in option 54. Here the option occurs again with another value.
    assert_eq!(raw(none, &[54, 4, 192, 0, 2, 2, 255]), Err(Dropped::Contradiction));
}

#[test]
fn a_server_that_says_things_twice() {
    let (lease, request) = bound("dup54");
    let named = DhcpOption::ServerIdentifier(v4("192.0.2.1"));
    assert_eq!((lease.server, request.opts().get(OptionCode::ServerIdentifier)), (v4("192.0.2.1"), Some(&named)));
    // raw() begins with 53 and 54.
    let doubled: [&[u8]; 9] = [
        &[53, 1, 5, 54, 4, 192, 0, 2, 1],
        &[1, 4, 255, 255, 255, 0, 1, 4, 255, 255, 255, 0],
        &[51, 4, 0, 0, 2, 88, 51, 4, 0, 0, 2, 88],
        &[58, 4, 0, 0, 0, 99, 58, 4, 0, 0, 0, 99],
        &[26, 2, 5, 220, 26, 2, 5, 220],
        &[3, 4, 192, 0, 2, 1, 3, 4, 192, 0, 2, 1],
        &[6, 4, 192, 0, 2, 53, 6, 4, 192, 0, 2, 53],
        &[121, 8, 24, 198, 51, 100, 192, 0, 2, 9, 121, 8, 24, 198, 51, 100, 192, 0, 2, 9],
        &[15, 7, b'a', b'.', b'l', b'a', b'b', b'.', b'x', 15, 7, b'a', b'.', b'l', b'a', b'b', b'.', b'x'],
    ];
    let all = [doubled.concat(), vec![255]].concat();
    let answer = raw(|_| (), &all).unwrap();
    assert_eq!(answer.address, Prefix::parse("192.0.2.140/24").unwrap());
    assert_eq!((answer.lease, answer.renew, answer.mtu), (600, Some(99), Some(1500)));
    assert_eq!(answer.routes, [route("198.51.100.0/24", Some("192.0.2.9"))]);
    assert_eq!(answer.dns, [ip("192.0.2.53")]);
    assert_eq!(answer.search, [DnsName::try_from("a.lab.x").unwrap()]);
    // Two different values are an error. One value in pieces is a value.
    let none = |_: &mut Vec<u8>| ();
    for options in [&[53, 1, 2, 255][..], &[1, 4, 255, 0, 0, 0, 1, 4, 255, 255, 0, 0, 255]] {
        assert_eq!(raw(none, options), Err(Dropped::Contradiction), "{options:?}");
    }
    assert_eq!(raw(none, &[26, 2, 5, 220, 26, 2, 5, 0, 255]).unwrap().mtu, None);
    assert_eq!(raw(none, &[51, 2, 0, 0, 51, 2, 2, 88, 255]).unwrap().lease, 600);
}

#[test]
fn a_server_that_sends_from_another_port() {
    assert_eq!(bound("sport").0.server, v4("192.0.2.1"));
}

#[test]
fn a_domain_with_a_final_dot() {
    assert_eq!(bound("gce-dot").0.search, [DnsName::try_from("c.project.internal").unwrap()]);
}

#[test]
fn an_address_alone_with_a_way_to_its_gateway() {
    let (lease, _) = bound("hetzner");
    assert_eq!(lease.address, Prefix::parse("203.0.113.7/32").unwrap());
    assert_eq!(lease.routes, [route("172.31.1.1/32", None), route("0.0.0.0/0", Some("172.31.1.1"))]);
    assert_eq!(bound("mtu576").0.mtu, Some(576));
}

#[test]
fn what_is_dropped_is_said() {
    let mut client = Client::new(asker(), *b"\x68\xf9\xe5\x361234", second(0));
    client.poll(second(0));
    let offer = recorded("offer");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = offer.clone();
        change(&mut packet);
        let checksum = crate::checksum::internet(&[&packet[..10], &packet[12..20]]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    };
    let kind = offer.windows(3).position(|option| option == [53, 1, 2]).unwrap();
    let cut = offer[..offer.len() - 1].to_vec();
    let mut broken = offer.clone();
    broken[8] ^= 1;
    let packets = [
        changed(&|packet| packet[6] = 0x20),
        cut,
        broken,
        changed(&|packet| packet[28 + 236] = 0),
        changed(&|packet| packet[28] = 1),
        changed(&|packet| packet[kind + 2] = 8),
        changed(&|packet| packet[kind] = 200),
        changed(&|packet| packet[28 + 16..28 + 20].fill(0)),
    ];
    for packet in &packets {
        assert_eq!(client.push(packet, second(0)), None);
    }
    // Packets that are for no DHCP client are not counted: another port, another protocol, a later fragment.
    for (place, value) in [(23, 80), (9, 6), (7, 9)] {
        client.push(&changed(&|packet| packet[place] = value), second(0));
    }
    assert_eq!(
        client.state(),
        "1 DISCOVER sent, no OFFER, dropped: 1 in fragments, 1 cut short, 1 with a wrong IP checksum, 1 without DHCP \
         options, 2 that are not answers from a server, 1 without a message type (option 53), 1 without a usable \
         address and mask"
    );
    assert_eq!(client.push(&offer, second(0)), None);
    assert!(client.state().starts_with("OFFER of 192.0.2.140 by 192.0.2.1, 0 REQUEST sent"), "{}", client.state());
}

/// An answer from the server with this number, which has an address of its own.
fn by(server: u8, question: &v4::Message, kind: MessageType) -> Vec<u8> {
    let mut message = v4::Message::default();
    message.set_opcode(v4::Opcode::BootReply).set_xid(question.xid()).set_chaddr(question.chaddr());
    message.set_yiaddr(Ipv4Addr::new(192, 0, 2, 100 + server));
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(192, 0, 2, server)));
    let mut bytes = Vec::new();
    message.encode(&mut dhcproto::Encoder::new(&mut bytes)).unwrap();
    from_server(&bytes)
}

/// What server 2 does: it gives the address that it offers. `after`: how long after each DISCOVER it offers; `None`:
/// never.
#[derive(Clone, Copy)]
struct Second {
    after: Option<Duration>,
    /// Whether it withdraws its offer when a REQUEST goes to the other server (RFC 2131 §3.1, step 4).
    strict: bool,
}

const AT_ONCE: Second = Second { after: Some(Duration::ZERO), strict: false };

/// Server 1 offers at once. `first`: what it says to a REQUEST. Returns who gave a lease, how many REQUEST went to each, and
/// when.
fn two_servers(first: Option<MessageType>, second_one: Second) -> (Option<u8>, [u32; 3], Duration) {
    let mut client = Client::new(asker(), [9; 8], second(0));
    let (mut now, mut asked, mut stands) = (second(0), [0; 3], false);
    let mut on_the_way: Vec<(Duration, u8, Vec<u8>)> = Vec::new();
    while now < second(120) {
        on_the_way.sort();
        while on_the_way.first().is_some_and(|(when, ..)| *when <= now) {
            let (_, server, packet) = on_the_way.remove(0);
            stands |= server == 2 && read(&packet).opts().msg_type() == Some(MessageType::Offer);
            if let Some(Event::Bound(lease)) = client.push(&packet, now) {
                return (Some(lease.server.octets()[3]), asked, now);
            }
        }
        let poll = client.poll(now);
        let Some(packet) = poll.send else {
            now = on_the_way.first().map_or(poll.wake, |(when, ..)| poll.wake.min(*when));
            continue;
        };
        let question = read(&packet);
        match question.opts().msg_type() {
            Some(MessageType::Discover) => {
                on_the_way.push((now, 1, by(1, &question, MessageType::Offer)));
                let late = second_one.after.map(|after| (now + after, 2, by(2, &question, MessageType::Offer)));
                on_the_way.extend(late);
            }
            _ => {
                let Some(DhcpOption::ServerIdentifier(server)) = question.opts().get(OptionCode::ServerIdentifier)
                else {
                    panic!("{question:?}")
                };
                let server = server.octets()[3];
                asked[usize::from(server)] += 1;
                let says = match server {
                    1 => first,
                    _ if second_one.strict && !stands => Some(MessageType::Nak),
                    _ => Some(MessageType::Ack),
                };
                stands &= server != 1;
                on_the_way.extend(says.map(|kind| (now, server, by(server, &question, kind))));
            }
        }
    }
    (None, asked, now)
}

#[test]
fn of_two_servers_one_that_refuses_or_is_deaf_is_left_for_the_other() {
    for first in [Some(MessageType::Nak), None] {
        let (lease, asked, when) = two_servers(first, AT_ONCE);
        assert_eq!(lease, Some(2), "{first:?}");
        assert!(asked[1] <= 2 && when < second(15), "{first:?}: {asked:?} after {when:?}");
    }
    // An only server is asked again and again, because it may answer later.
    for first in [Some(MessageType::Nak), None] {
        let (lease, asked, _) = two_servers(first, Second { after: None, strict: false });
        assert!(lease.is_none() && asked[1] > 8, "{first:?}: {asked:?}");
    }
    assert_eq!(two_servers(Some(MessageType::Ack), AT_ONCE).0, Some(1));
}

/// A standby is set to offer late (Windows Server: subnet delay; ISC dhcpd: min-secs), and others look first whether the
/// address is free. Its offers come while the first server is asked, or in the pause behind its refusal.
#[test]
fn of_two_servers_the_slower_one_is_heard() {
    for first in [Some(MessageType::Nak), None] {
        for (millis, strict) in (0..4000).step_by(50).flat_map(|millis| [(millis, false), (millis, true)]) {
            let (lease, asked, when) =
                two_servers(first, Second { after: Some(Duration::from_millis(millis)), strict });
            assert_eq!(lease, Some(2), "{first:?}, {millis} ms, strict: {strict}: {asked:?}");
            assert!(when < second(60), "{first:?}, {millis} ms, strict: {strict}: after {when:?}");
        }
    }
    assert_eq!(two_servers(Some(MessageType::Ack), Second { after: Some(second(1)), strict: true }).0, Some(1));
}

#[test]
fn an_answer_of_the_server_that_was_not_asked_is_not_taken() {
    let mut client = Client::new(asker(), [9; 8], second(0));
    let discover = read(&client.poll(second(0)).send.unwrap());
    client.push(&by(1, &discover, MessageType::Offer), second(0));
    client.push(&by(2, &discover, MessageType::Offer), second(0));
    let request = read(&client.poll(second(0)).send.unwrap());
    for kind in [MessageType::Ack, MessageType::Nak] {
        assert_eq!(client.push(&by(2, &request, kind), second(0)), None);
    }
    assert!(client.state().ends_with("1 REQUEST sent, no answer, dropped: 2 by a server that was not asked"));
    // A client forgets some of so many servers, and that does no harm.
    for server in 3..60 {
        client.push(&by(server, &discover, MessageType::Offer), second(0));
    }
    assert!(client.servers.len() <= MOST_SERVERS);
    assert!(matches!(client.push(&by(1, &request, MessageType::Ack), second(0)), Some(Event::Bound(_))));
}
