use super::*;

const ID: u16 = 0x1234;
const NAME: &str = "_imprint._tcp.lab.example";

/// A message with these sections. A record is its name, its type and its data.
fn message(flags: [u8; 2], records: &[(&[u8], u16, &[u8])], more: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
    let mut bytes = question(ID, NAME, Kind::Srv, false).unwrap();
    bytes[2..4].copy_from_slice(&flags);
    bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    bytes[10..12].copy_from_slice(&u16::try_from(more.len()).unwrap().to_be_bytes());
    for (name, kind, data) in records.iter().chain(more) {
        bytes.extend(*name);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(*data);
    }
    bytes
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    [&priority.to_be_bytes()[..], &weight.to_be_bytes(), &port.to_be_bytes(), &wire(target)].concat()
}

fn service(priority: u16, weight: u16, port: u16, target: &str) -> Service {
    Service { priority, weight, port, target: target.to_owned() }
}

fn read(bytes: &[u8]) -> Option<Answer> {
    answer(bytes, ID, NAME, Kind::Srv)
}

fn says(bytes: &[u8]) -> Said {
    read(bytes).unwrap().says(NAME, Kind::Srv, &mut 0)
}

/// A pointer to the name of the question.
const ASKED: &[u8] = &[0xc0, 12];
const OK: [u8; 2] = [0x81, 0x80];

/// dnsmasq 2.90 with --srv-host=_imprint._tcp.lab.example,door.lab.example,8444,10,5 and --host-record=door.lab.example,10.77.0.1.
const REAL: &[u8] = b"\x124\x85\x80\0\x01\0\x01\0\0\0\x01\
\x08_imprint\x04_tcp\x03lab\x07example\0\0!\
\0\x01\xc0\x0c\0!\0\x01\0\0\0\0\0\x18\0\x0a\0\x05 \xfc\x04door\x03lab\x07exampl\
e\0\xc0=\0\x01\0\x01\0\0\0\0\0\x04\x0aM\0\x01";

#[test]
fn what_dnsmasq_says() {
    let answer = read(REAL).unwrap();
    assert_eq!((answer.code, answer.truncated, answer.broken), (NO_ERROR, false, false));
    let Said::Records(records) = answer.says(NAME, Kind::Srv, &mut 0) else { panic!("{answer:?}") };
    assert_eq!(records, [Data::Service(service(10, 5, 8444, "door.lab.example"))]);
    assert_eq!(answer.added("DOOR.lab.example"), ["10.77.0.1".parse::<IpAddr>().unwrap()]);
    assert!(answer.added("other.lab.example").is_empty());
}

/// Whoever sends answers blindly has to guess number and question.
#[test]
fn an_answer_to_another_question_is_none() {
    let good = message(OK, &[(ASKED, 33, &srv(0, 0, 1, "a"))], &[]);
    assert!(read(&good).is_some());
    assert!(answer(&good, ID + 1, NAME, Kind::Srv).is_none(), "another number");
    assert!(answer(&good, ID, "_imprint._tcp.other.example", Kind::Srv).is_none(), "another name");
    assert!(answer(&good, ID, NAME, Kind::A).is_none(), "another type");
    assert!(read(&message([0x01, 0], &[], &[])).is_none(), "a question");
    assert!(read(&message([0xa9, 0x80], &[], &[])).is_none(), "another operation");
    assert!(read(&good[..11]).is_none(), "cut");
    assert!(answer(&good, ID, &NAME.to_uppercase(), Kind::Srv).is_some(), "case does not matter");
}

#[test]
fn what_a_server_may_say() {
    for (bytes, want) in [
        (message(OK, &[], &[]), Said::Nothing),
        (message([0x81, 0x83], &[], &[]), Said::Nothing),
        // "decidedly not available at this domain" (RFC 2782): a target that is the root.
        (message(OK, &[(ASKED, 33, &srv(0, 0, 0, ""))], &[]), Said::Records(vec![Data::Service(service(0, 0, 0, ""))])),
        // Records of other names, types and classes are somebody else's.
        (message(OK, &[(&wire("x"), 33, &srv(0, 0, 1, "a")), (ASKED, 16, b"text")], &[]), Said::Nothing),
        (message(OK, &[(ASKED, 5, &wire("x.example"))], &[]), Said::Alias("x.example".to_owned())),
        (
            message(OK, &[(&wire("x.example"), 33, &srv(1, 2, 3, "a")), (ASKED, 5, &wire("X.example"))], &[]),
            Said::Records(vec![Data::Service(service(1, 2, 3, "a"))]),
        ),
        // Circles: of one, of two, and one that does not come back to its beginning.
        (message(OK, &[(ASKED, 5, ASKED)], &[]), Said::Circle),
        (message(OK, &[(ASKED, 5, &wire("x")), (&wire("x"), 5, ASKED)], &[]), Said::Circle),
        (message(OK, &[(ASKED, 5, &wire("x")), (&wire("x"), 5, &wire("x"))], &[]), Said::Circle),
    ] {
        assert_eq!(says(&bytes), want);
    }
    assert_eq!(read(&message([0x81, 0x83], &[], &[])).unwrap().code, NO_NAME);
    assert!(read(&message([0x83, 0x80], &[], &[])).unwrap().truncated);
}

/// Eight aliases are followed, in one answer or in several.
#[test]
fn a_long_chain_of_aliases_ends() {
    let chain = |links: usize| {
        let names: Vec<Vec<u8>> = (0..=links).map(|link| wire(&format!("n{link}.example"))).collect();
        let mut records: Vec<(&[u8], u16, &[u8])> = vec![(ASKED, 5, names[0].as_slice())];
        records.extend(names.windows(2).map(|pair| (&pair[0][..], 5_u16, &pair[1][..])));
        let end = srv(0, 0, 1, "a");
        records.push((names[links].as_slice(), 33, end.as_slice()));
        says(&message(OK, &records, &[]))
    };
    assert!(matches!(chain(MAX_ALIASES - 1), Said::Records(_)));
    assert_eq!(chain(MAX_ALIASES), Said::Circle);
    let one = read(&message(OK, &[(ASKED, 5, &wire("x"))], &[])).unwrap();
    assert_eq!(one.says(NAME, Kind::Srv, &mut { MAX_ALIASES }), Said::Circle);
}

/// What stands before a record that cannot be read is taken.
#[test]
fn a_broken_record_ends_the_answer() {
    let good = srv(0, 0, 1, "a");
    for broken in
        [&good[..5], b"", &[0, 0, 0, 0, 0, 1, 0xc0, 200], &[0, 0, 0, 0, 0, 1, 200, b'x'], &[&good[..], b"x"].concat()]
    {
        let answer = read(&message(OK, &[(ASKED, 33, &good), (ASKED, 33, broken), (ASKED, 33, &good)], &[])).unwrap();
        assert!(answer.broken && answer.records.len() == 1, "{broken:?}");
    }
    let mut more = message(OK, &[(ASKED, 33, &good)], &[]);
    more[6..8].copy_from_slice(&[0xff, 0xff]);
    assert!(read(&more).unwrap().broken, "more records are announced than there are");
}

/// RFC 2782: lower priorities first, and within one by weight.
#[test]
fn priorities_and_weights() {
    let places = || {
        vec![
            service(20, 0, 1, "last"),
            service(10, 0, 1, "light"),
            service(10, 9, 1, "heavy"),
            service(10, 1, 1, "one"),
        ]
    };
    let order = |number: u32| -> Vec<String> {
        in_order(places(), 16, &mut |_| number).into_iter().map(|place| place.target).collect()
    };
    assert_eq!(order(0), ["light", "one", "heavy", "last"]);
    assert_eq!(order(1), ["one", "heavy", "light", "last"]);
    assert_eq!(order(10), ["heavy", "one", "light", "last"]);
    assert_eq!(order(u32::MAX), ["heavy", "one", "light", "last"], "more than was asked for");
    // Shares: nine of ten begin with the heavy one.
    let first = |number: u32| in_order(places(), 1, &mut |_| number).remove(0).target;
    assert_eq!((1..=10).filter(|number| first(*number) == "heavy").count(), 9);
    assert!(in_order(Vec::new(), 16, &mut |_| 0).is_empty());
}

#[test]
fn a_thousand_places_are_cut_behind_the_order() {
    let all: Vec<Service> = (0..1000_u16).rev().map(|n| service(n, 1, n, "a")).collect();
    let first: Vec<u16> = in_order(all, 16, &mut |most| most).iter().map(|place| place.priority).collect();
    assert_eq!(first, (0..16).collect::<Vec<u16>>());
}

#[test]
fn names_that_cannot_be_asked_for() {
    for name in ["", ".", "a..b", "a.", &"x".repeat(64), &"x.".repeat(200)] {
        assert!(question(ID, name, Kind::A, true).is_none(), "{name}");
    }
    let plain = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x1c\0\x01";
    assert_eq!(question(1, "a.b", Kind::Aaaa, false).unwrap(), plain);
    // With an OPT record for 1232 bytes (RFC 6891 §6.1.2).
    let mut long = plain.to_vec();
    long[11] = 1;
    long.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    assert_eq!(question(1, "a.b", Kind::Aaaa, true).unwrap(), long);
}

/// A server of before 1999 refuses a question with an OPT record, and repeats none of it (RFC 6891 §7).
#[test]
fn a_refusal_may_be_a_header_alone() {
    for (code, read_as) in [(1, Some(1)), (2, Some(2)), (4, Some(4)), (5, Some(5)), (NO_ERROR, None), (NO_NAME, None)] {
        let header = [0x12, 0x34, 0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&header).map(|answer| answer.code), read_as, "{code}");
    }
    assert_eq!(read(&[0x12, 0x35, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]), None, "another number");
}

/// What hickory-proto writes is read, and what is asked is read by it.
#[test]
fn hickory_agrees() {
    use std::str::FromStr;

    use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    let asked = Message::from_vec(&question(ID, "est.lab.example", Kind::Aaaa, true).unwrap()).unwrap();
    let query = asked.queries.first().unwrap();
    assert_eq!((asked.metadata.id, query.name().to_string()), (ID, "est.lab.example.".to_owned()));
    assert_eq!(query.query_type(), RecordType::AAAA);
    assert!(asked.metadata.recursion_desired);
    assert_eq!(asked.edns.as_ref().unwrap().max_payload(), DATAGRAM);

    let mut message = Message::new(ID, MessageType::Response, OpCode::Query);
    message.metadata.response_code = ResponseCode::NoError;
    message.add_query(query.clone());
    let name = |text: &str| Name::from_str(text).unwrap();
    let six = "2001:db8::7".parse().unwrap();
    message.add_answer(Record::from_rdata(query.name().clone(), 60, RData::CNAME(CNAME(name("www.lab.example.")))));
    message.add_answer(Record::from_rdata(name("www.lab.example."), 60, RData::AAAA(AAAA(six))));
    message.add_answer(Record::from_rdata(name("www.lab.example."), 60, RData::A(A("192.0.2.7".parse().unwrap()))));
    let bytes = message.to_vec().unwrap();
    let answer = answer(&bytes, ID, "est.lab.example", Kind::Aaaa).unwrap();
    let want = Said::Records(vec![Data::Address(six.into())]);
    assert_eq!((answer.broken, answer.says("est.lab.example", Kind::Aaaa, &mut 0)), (false, want));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(changes in proptest::collection::vec((0usize..110, proptest::prelude::any::<u8>()), 0..8), cut in 0usize..120) {
        let mut bytes = REAL.to_vec();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(cut);
        if let Some(answer) = read(&bytes) {
            let _ = answer.says(NAME, Kind::Srv, &mut 0);
            let _ = answer.added(NAME);
        }
    }
}
