//! The DHCPv6 client against what dhcproto writes, against faults of servers, and against random bytes.

use dhcproto::v6::{self, DhcpOption, DhcpOptions, IAAddr, IANA, MessageType, OptionCode, StatusCode};
use dhcproto::{Decodable as _, Encodable as _};
use proptest::prelude::*;

use super::*;
use crate::payload::{DnsName, HardwareAddress};

mod rooms;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const IAID: u32 = 0x0012_3456;
const UUID: [u8; 16] = *b"\x4c\x4c\x45\x44\x00\x42\x35\x10\x80\x54\xb4\xc0\x4f\x56\x44\x33";
/// The server's DUID (type LL), and where it is.
const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const RANDOM: [u8; 8] = [0x80; 8];

fn v6a(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn second(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn asker() -> Asker {
    let mac = HardwareAddress::new(&MAC).unwrap();
    let hostname = Some(HostName::try_from("node17").unwrap());
    Asker { identity: Identity::new(Some(&UUID), 1, &mac), hostname }
}

/// A question, as dhcproto reads it.
fn read(message: &[u8]) -> v6::Message {
    v6::Message::decode(&mut dhcproto::Decoder::new(message)).unwrap()
}

fn given(address: &str, preferred: u32, valid: u32) -> DhcpOption {
    let addr = v6a(address);
    DhcpOption::IAAddr(IAAddr { addr, preferred_life: preferred, valid_life: valid, opts: DhcpOptions::new() })
}

fn association(t1: u32, t2: u32, inner: &[DhcpOption]) -> DhcpOption {
    DhcpOption::IANA(IANA { id: IAID, t1, t2, opts: inner.iter().cloned().collect() })
}

fn status(status: v6::Status, words: &str) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: words.into() })
}

fn usual() -> DhcpOption {
    association(100, 160, &[given("2001:db8::5", 200, 400)])
}

/// An answer to `question`, as dhcproto writes it: by the server with this last byte.
fn by(last: u8, question: &v6::Message, kind: MessageType, options: &[DhcpOption]) -> Vec<u8> {
    let mut message = v6::Message::new_with_id(kind, question.xid());
    message.opts_mut().insert(question.opts().get(OptionCode::ClientId).unwrap().clone());
    let mut server = SERVER;
    server[9] = last;
    message.opts_mut().insert(DhcpOption::ServerId(server.to_vec()));
    options.iter().for_each(|option| message.opts_mut().insert(option.clone()));
    let mut bytes = Vec::new();
    message.encode(&mut dhcproto::Encoder::new(&mut bytes)).unwrap();
    bytes
}

fn advertise(question: &v6::Message, options: &[DhcpOption]) -> Vec<u8> {
    by(1, question, MessageType::Advertise, options)
}

fn reply(question: &v6::Message, options: &[DhcpOption]) -> Vec<u8> {
    by(1, question, MessageType::Reply, options)
}

fn from(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into())
}

/// A client that has sent one SOLICIT at second 0, and that.
fn asking() -> (Client, v6::Message) {
    let mut client = Client::new(asker(), RANDOM, second(0));
    let solicit = read(&client.poll(second(0)).send.unwrap());
    (client, solicit)
}

/// A client that has been offered an address, and its REQUEST.
fn offered() -> (Client, v6::Message) {
    let (mut client, solicit) = asking();
    let preferred = advertise(&solicit, &[usual(), DhcpOption::Preference(255)]);
    assert_eq!(client.push(from(1), &preferred, second(0)), None);
    let request = read(&client.poll(second(0)).send.unwrap());
    assert_eq!(request.msg_type(), MessageType::Request);
    (client, request)
}

fn bound(client: &mut Client, message: &[u8], now: u64) -> Lease {
    match client.push(from(1), message, second(now)) {
        Some(Event::Bound(lease)) => lease,
        other => panic!("{other:?} {}", client.state()),
    }
}

/// If this test fails, do not change it: you have changed what servers know this node by.
#[test]
fn frozen_messages() {
    let mut client = Client::new(asker(), RANDOM, second(0));
    let solicit = client.poll(second(0)).send.unwrap();
    assert_eq!(
        crate::hex::encode(&solicit),
        "01808080\
         0001001200044c4c4544004235108054b4c04f564433\
         0003000c001234560000000000000000\
         000e0000\
         000800020000\
         000600060017001800520027000801066e6f64653137"
    );
    client.push(from(1), &advertise(&read(&solicit), &[usual(), DhcpOption::Preference(255)]), second(0));
    let request = client.poll(second(0)).send.unwrap();
    assert_eq!(
        crate::hex::encode(&request),
        "031eb7f9\
         0001001200044c4c4544004235108054b4c04f564433\
         0002000a00030001020000000001\
         0003002800123456000000000000000000050018\
         20010db80000000000000000000000050000000000000000\
         000800020000\
         000600060017001800520027000801066e6f64653137"
    );
    let mut client = Client::informing(Asker { hostname: None, ..asker() }, RANDOM, second(0));
    assert_eq!(
        crate::hex::encode(&client.poll(second(0)).send.unwrap()),
        "0b8080800001001200044c4c4544004235108054b4c04f564433000800020000000600080017001800200053"
    );
}

#[test]
fn who_asks_is_the_same_in_each_boot() {
    let mac = HardwareAddress::new(&MAC).unwrap();
    let with = Identity::new(Some(&UUID), 1, &mac);
    assert_eq!(with.duid.to_string(), "00:04:4c:4c:45:44:00:42:35:10:80:54:b4:c0:4f:56:44:33");
    assert_eq!((with.duid.parts().0, with.iaid), ("uuid", IAID));
    let without = Identity::new(None, 1, &mac).duid;
    assert_eq!(without.to_string(), "00:03:00:01:52:54:00:12:34:56");
    assert_eq!(without.parts(), ("link-layer", &[0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56][..]));
    // InfiniBand.
    let twenty: Vec<u8> = (0..20).collect();
    let infiniband = Identity::new(None, 32, &HardwareAddress::new(&twenty).unwrap());
    assert_eq!((infiniband.duid.as_bytes().len(), infiniband.iaid), (24, 0x1011_1213));
    assert_eq!((Duid::new(&[0, 1]), Duid::new(&[0; 131])), (None, None));
}

#[test]
fn a_lease_in_four_messages() {
    let (mut client, solicit) = asking();
    assert_eq!(client.state(), "1 SOLICIT sent, no ADVERTISE");
    assert_eq!(solicit.opts().get(OptionCode::RapidCommit), Some(&DhcpOption::RapidCommit));
    assert_eq!(solicit.opts().get(OptionCode::ReconfAccept), None, "Reconfigure is never invited");
    assert_eq!(solicit.opts().get(OptionCode::IANA), Some(&association(0, 0, &[])));

    client.push(from(1), &advertise(&solicit, &[usual()]), second(0));
    // Others have a moment to offer, but not until the next SOLICIT would be due.
    let poll = client.poll(second(0));
    assert_eq!(poll, Poll { send: None, wake: Duration::from_millis(250) });
    let request = read(&client.poll(poll.wake).send.unwrap());
    assert_eq!(client.state(), "ADVERTISE of 2001:db8::5 by fe80::1, 1 REQUEST sent, no answer");
    assert_eq!(request.opts().get(OptionCode::ServerId), Some(&DhcpOption::ServerId(SERVER.to_vec())));
    assert_eq!(request.opts().get(OptionCode::IANA), Some(&association(0, 0, &[given("2001:db8::5", 0, 0)])));
    assert_ne!(request.xid(), solicit.xid(), "RFC 8415 §16.1: each exchange has a number of its own");

    let name = |name: &str| name.parse::<dhcproto::Name>().unwrap();
    let options = [
        usual(),
        DhcpOption::DomainNameServers(vec![v6a("2001:db8::53"), v6a("::"), v6a("ff02::1"), v6a("fe80::53")]),
        DhcpOption::DomainSearchList(vec![name("lab.example.org."), name("example.org.")]),
        // To be asked over unicast is refused by silence: the next question is multicast as well.
        DhcpOption::ServerUnicast(v6a("2001:db8::1")),
    ];
    let lease = bound(&mut client, &reply(&request, &options), 2);
    let domain = |name| DnsName::try_from(name).unwrap();
    let expected = Lease {
        address: v6a("2001:db8::5"),
        server: Server { duid: Duid::new(&SERVER).unwrap(), from: from(1) },
        dns: vec![v6a("2001:db8::53"), v6a("fe80::53")],
        search: vec![domain("lab.example.org"), domain("example.org")],
        preferred: 200,
        valid: 400,
        bound: second(2),
        renew: second(100),
        rebind: second(160),
    };
    assert_eq!(lease, expected);
    assert_eq!((lease.renew_at(), lease.ends_at()), (second(102), second(402)));
    assert_eq!(client.state(), "2001:db8::5 by fe80::1");
    assert_eq!(client.poll(second(1000)), Poll { send: None, wake: Duration::MAX });
}

#[test]
fn rapid_commit_takes_two() {
    let (mut client, solicit) = asking();
    // A reply that does not say so is none.
    assert_eq!(client.push(from(1), &reply(&solicit, &[usual()]), second(0)), None);
    assert_eq!(client.state(), "1 SOLICIT sent, no ADVERTISE, dropped: 1 that were not asked for");
    let lease = bound(&mut client, &reply(&solicit, &[usual(), DhcpOption::RapidCommit]), 0);
    assert_eq!(lease.address, v6a("2001:db8::5"));
}

#[test]
fn it_asks_again_less_and_less_often() {
    let mut client = Client::new(asker(), RANDOM, second(0));
    let (mut now, mut waits, mut numbers) = (second(0), Vec::new(), Vec::new());
    for _ in 0..6 {
        let poll = client.poll(now);
        let solicit = read(&poll.send.unwrap());
        let Some(DhcpOption::ElapsedTime(elapsed)) = solicit.opts().get(OptionCode::ElapsedTime) else { panic!() };
        assert_eq!(u128::from(*elapsed), now.as_millis() / 10, "RFC 8415 §21.9: hundredths of a second");
        numbers.push(solicit.xid());
        waits.push((poll.wake - now).as_secs_f64());
        now = poll.wake;
    }
    for (wait, middle) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]) {
        assert!((0.9 * middle..=1.1 * middle).contains(wait), "{waits:?}");
    }
    // RFC 8415 §18.2.1: the first wait is not shortened, so that a preference counts.
    assert!(waits[0] >= 1.0);
    numbers.dedup();
    assert_eq!((numbers.len(), client.state().as_str()), (1, "6 SOLICIT sent, no ADVERTISE"));
}

#[test]
fn a_server_may_slow_its_clients_down_within_bounds() {
    for (seconds, longest) in [(59, 8), (60, 60), (3600, 120), (86_400, 120), (86_401, 8)] {
        let (mut client, solicit) = asking();
        let slow =
            DhcpOption::Unknown(v6::UnknownOption::new(OptionCode::SolMaxRt, u32::to_be_bytes(seconds).to_vec()));
        // RFC 8415 §18.2.9: it counts in an ADVERTISE without an address, too.
        let none = status(v6::Status::NoAddrsAvail, "pool is\nempty");
        client.push(from(1), &advertise(&solicit, &[none, slow]), second(0));
        assert_eq!(
            client.state(),
            "1 SOLICIT sent, no ADVERTISE, last refusal by fe80::1: NoAddrsAvail: \"pool is\\nempty\""
        );
        let mut now = second(0);
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            let poll = client.poll(now);
            (last, now) = (poll.wake - now, poll.wake);
        }
        let longest = f64::from(longest);
        assert!((0.9 * longest..=1.1 * longest).contains(&last.as_secs_f64()), "{seconds}: {last:?}");
    }
}

#[test]
fn a_lease_is_renewed_by_its_server_and_then_by_any() {
    let (mut client, request) = offered();
    let lease = bound(&mut client, &reply(&request, &[usual()]), 0);
    let mut client = Client::renewing(asker(), &lease, [7; 8], second(100));
    let (mut now, mut kinds): (_, Vec<(MessageType, bool, u64)>) = (second(100), Vec::new());
    while now < second(401) {
        let poll = client.poll(now);
        let message = read(&poll.send.unwrap());
        let to_one = message.opts().get(OptionCode::ServerId).is_some();
        if kinds.last().is_none_or(|(kind, ..)| *kind != message.msg_type()) {
            kinds.push((message.msg_type(), to_one, now.as_secs()));
        }
        now = poll.wake;
    }
    use MessageType::{Rebind, Renew, Solicit};
    assert_eq!(kinds, [(Renew, true, 100), (Rebind, false, 160), (Solicit, false, 400)]);

    // Another server answers the REBIND.
    let mut client = Client::keeping(asker(), lease.address, second(400), [7; 8], second(200));
    let rebind = read(&client.poll(second(200)).send.unwrap());
    assert_eq!(client.state(), "1 REBIND sent to keep 2001:db8::5, no answer");
    let longer = association(0, 0, &[given("2001:db8::6", 9, 9), given("2001:db8::5", 1000, 2000)]);
    let answer = by(9, &rebind, MessageType::Reply, &[longer]);
    let renewed = bound(&mut client, &answer, 201);
    assert_eq!(
        (renewed.address, renewed.valid, renewed.renew, renewed.rebind),
        (lease.address, 2000, second(500), second(800))
    );
}

#[test]
fn a_server_that_has_forgotten_is_asked_once_more() {
    let (mut client, request) = offered();
    let lease = bound(&mut client, &reply(&request, &[usual()]), 0);
    let mut client = Client::renewing(asker(), &lease, [7; 8], second(100));
    let renew = read(&client.poll(second(100)).send.unwrap());
    let forgotten = association(0, 0, &[status(v6::Status::NoBinding, "")]);
    assert_eq!(client.push(from(1), &reply(&renew, &[forgotten]), second(100)), None);
    let request = read(&client.poll(second(100)).send.unwrap());
    assert_eq!(request.msg_type(), MessageType::Request);
    assert_eq!(bound(&mut client, &reply(&request, &[usual()]), 101).address, lease.address);

    // One that takes the address away says so with a lifetime of zero.
    let mut client = Client::renewing(asker(), &lease, [7; 8], second(100));
    let renew = read(&client.poll(second(100)).send.unwrap());
    let over = association(0, 0, &[given("2001:db8::5", 0, 0)]);
    assert_eq!(client.push(from(1), &reply(&renew, &[over]), second(100)), Some(Event::Refused));
    // And the client begins again, after a pause.
    assert_eq!(client.poll(second(100)), Poll { send: None, wake: second(101) });
    assert_eq!(read(&client.poll(second(101)).send.unwrap()).msg_type(), MessageType::Solicit);
}

#[test]
fn an_address_that_another_machine_has_is_declined() {
    let (mut client, request) = offered();
    let lease = bound(&mut client, &reply(&request, &[usual()]), 0);
    let mut client = Client::declining(asker(), &lease, [7; 8], second(1));
    let decline = read(&client.poll(second(1)).send.unwrap());
    assert_eq!(decline.msg_type(), MessageType::Decline);
    assert_eq!(decline.opts().get(OptionCode::ServerId), Some(&DhcpOption::ServerId(SERVER.to_vec())));
    assert_eq!(decline.opts().get(OptionCode::IANA), Some(&association(0, 0, &[given("2001:db8::5", 0, 0)])));
    assert_eq!(decline.opts().get(OptionCode::ORO), None);
    let mut deaf = client.clone();
    assert_eq!(client.push(from(1), &reply(&decline, &[status(v6::Status::Success, "")]), second(1)), None);
    assert_eq!(read(&client.poll(second(1)).send.unwrap()).msg_type(), MessageType::Solicit);
    assert_eq!(client.state(), "1 SOLICIT sent, no ADVERTISE, another machine has 2001:db8::5");
    // A server that does not answer holds nobody up.
    let (mut now, mut kinds) = (second(1), Vec::new());
    for _ in 0..3 {
        let poll = deaf.poll(now);
        kinds.extend(poll.send.map(|message| read(&message).msg_type()));
        now = poll.wake;
    }
    assert_eq!(kinds, [MessageType::Decline, MessageType::Solicit]);
}

#[test]
fn information_without_an_address() {
    let mut client = Client::informing(asker(), RANDOM, second(0));
    let question = read(&client.poll(second(0)).send.unwrap());
    assert_eq!(question.msg_type(), MessageType::InformationRequest);
    assert_eq!(question.opts().get(OptionCode::IANA), None);
    assert_eq!(client.state(), "1 INFORMATION-REQUEST sent, no REPLY");
    for (refresh, until) in [(None, 86_400), (Some(7200), 7200), (Some(1), 600)] {
        let mut options = vec![DhcpOption::DomainNameServers(vec![v6a("2001:db8::53")])];
        options.extend(refresh.map(DhcpOption::InformationRefreshTime));
        let told = client.clone().push(from(1), &reply(&question, &options), second(1));
        let want = Information { dns: vec![v6a("2001:db8::53")], search: vec![], until: second(1 + until) };
        assert_eq!(told, Some(Event::Informed(want)));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in prop::sample::select(vec![2u8, 7, 10])) {
        let (mut client, solicit) = asking();
        client.push(from(1), &bytes, second(0));
        // With valid identifiers, too, so that the options are read.
        let mut message = advertise(&solicit, &[]);
        message[0] = kind;
        message.extend(&bytes);
        client.push(from(1), &message, second(0));
        let mut inner = advertise(&solicit, &[]);
        inner.extend([0, 3]);
        inner.extend(u16::try_from(bytes.len() + 12).unwrap().to_be_bytes());
        inner.extend(IAID.to_be_bytes());
        inner.extend([0; 8]);
        inner.extend(&bytes);
        client.push(from(1), &inner, second(0));
        client.state();
        client.poll(second(2));
    }

    /// Whatever dhcproto reads as an answer with an address, this client reads alike.
    #[test]
    fn leases_are_what_was_written(
        address in 0x2001_0db8_0000_0000_0000_0000_0000_0000u128..=0x2001_0db8_ffff_ffff_ffff_ffff_ffff_ffff,
        (t1, t2, preferred, valid) in (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()),
    ) {
        let (mut client, solicit) = asking();
        let address = Ipv6Addr::from(address);
        let written = association(t1, t2, &[given(&address.to_string(), preferred, valid)]);
        let event = client.push(from(1), &reply(&solicit, &[written, DhcpOption::RapidCommit]), second(5));
        let sound = valid > 0 && preferred <= valid && (t2 == 0 || t1 <= t2);
        match event {
            Some(Event::Bound(lease)) => {
                prop_assert!(sound);
                prop_assert_eq!((lease.address, lease.valid), (address, valid.max(60)));
                prop_assert!(lease.renew >= second(1) && lease.renew <= lease.rebind && lease.preferred <= lease.valid);
            }
            None => prop_assert!(!sound),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
