use super::*;
use crate::dns::ask::tests::{ASKED, Serve, Server, answer_with};
use crate::payload::EstUrl;

fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect()
}

fn all(mut addresses: Addresses) -> Vec<SocketAddr> {
    std::iter::from_fn(|| addresses.next()).collect()
}

#[test]
fn families_take_turns() {
    let found = sockets(&["192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8::1", "192.0.2.2"]);
    let want = sockets(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]);
    assert_eq!(all(Addresses::known(&found)), want);
    let one = sockets(&["192.0.2.1", "192.0.2.2"]);
    assert_eq!(all(Addresses::known(&one)), one);
    let many: Vec<_> = (0..50).map(|n| SocketAddr::from(([192, 0, 2, n], 443))).collect();
    assert_eq!(all(Addresses::known(&many)).len(), MAX_ADDRESSES);
}

const FOUR: [u8; 4] = [192, 0, 2, 7];
const SIX: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// The name of a question in dots, and whether it asks for IPv6.
fn asked(question: &[u8]) -> (String, bool) {
    let (name, at) = crate::dhcp4::name(question, 12).unwrap();
    (name, question[at + 1] == 28)
}

/// Both addresses.
fn both(question: &[u8]) -> Vec<u8> {
    match asked(question).1 {
        true => answer_with(question, [0x81, 0x80], &[(ASKED, 28, &SIX)]),
        false => answer_with(question, [0x81, 0x80], &[(ASKED, 1, &FOUR)]),
    }
}

fn code(question: &[u8], code: u8) -> Vec<u8> {
    answer_with(question, [0x81, 0x80 | code], &[])
}

fn settings(servers: &[&Server], search: &[&str]) -> Settings {
    let text: String = search.iter().map(|name| format!(" {name}")).collect();
    let servers = servers.iter().map(|server| server.address).collect();
    Settings { servers, ..Settings::read(&format!("search{text}"), &|_| None) }
}

fn look_up(settings: Settings, name: &str) -> Result<Addresses, Unresolved> {
    look_up_for(settings, name, 600)
}

fn look_up_for(settings: Settings, name: &str, seconds: u64) -> Result<Addresses, Unresolved> {
    let name = DnsName::try_from(name).unwrap();
    match Addresses::asked(settings, &name, 443, Deadline::after(Duration::from_secs(seconds))) {
        Ok(addresses) => Ok(addresses),
        Err(HttpsError::Resolve(unresolved)) => Err(*unresolved),
        Err(other) => panic!("{other:?}"),
    }
}

/// Takes in what both families come to.
fn whole(mut addresses: Addresses) -> Vec<SocketAddr> {
    while addresses.under_way() {
        addresses.take_in(Duration::MAX);
    }
    all(addresses)
}

#[test]
fn both_families_are_asked_for_at_once() {
    let server = Server::start(both);
    assert_eq!(
        whole(look_up(settings(&[&server], &[]), "est.example").unwrap()),
        sockets(&["2001:db8::7", "192.0.2.7"])
    );
    assert_eq!(server.asked(), 2);
    let server = Server::start(both);
    let four_only = Settings { no_aaaa: true, ..settings(&[&server], &[]) };
    assert_eq!(whole(look_up(four_only, "est.example").unwrap()), sockets(&["192.0.2.7"]));
    assert_eq!(server.asked(), 1);
}

/// One family has an address. The other is refused, failed, unknown, without a record, or never answered; that one holds up nobody.
#[test]
fn one_family_is_enough() {
    let servers: [Serve; 6] = [
        |question| if asked(question).1 { code(question, 2) } else { both(question) },
        |question| if asked(question).1 { code(question, 3) } else { both(question) },
        |question| if asked(question).1 { code(question, 4) } else { both(question) },
        |question| if asked(question).1 { code(question, 5) } else { both(question) },
        |question| if asked(question).1 { code(question, 0) } else { both(question) },
        |question| if asked(question).1 { Vec::new() } else { both(question) },
    ];
    for serve in servers {
        let server = Server::start(serve);
        let mut addresses = look_up(settings(&[&server], &[]), "est.example").unwrap();
        assert_eq!(addresses.next(), Some(sockets(&["192.0.2.7"])[0]));
        drop(addresses);
        assert!(server.asked() >= 2);
    }
}

/// What becomes known while others are tried is tried as well.
#[test]
fn a_late_family_is_tried_as_well() {
    let server = Server::start(|question| match asked(question) {
        // The second question, a second later.
        (_, true) if question[11] == 1 => code(question, 1),
        _ => both(question),
    });
    let addresses = look_up(settings(&[&server], &[]), "est.example").unwrap();
    assert!(addresses.more());
    assert_eq!(whole(addresses), sockets(&["2001:db8::7", "192.0.2.7"]));
    server.asked();
}

/// The names of a search list, one after the other: what a server refuses, fails at, or does not know is no reason to stop.
#[test]
fn a_search_list_is_gone_through() {
    let server = Server::start(|question| match asked(question).0.as_str() {
        "est.none.example" => code(question, 3),
        "est.empty.example" => code(question, 0),
        "est.refused.example" => code(question, 5),
        "est.fails.example" => code(question, 2),
        "est.lab.example" => both(question),
        _ => panic!("asked for too much"),
    });
    let search =
        ["none.example", "empty.example", "refused.example", "fails.example", "lab.example", "too-much.example"];
    let found = look_up(settings(&[&server], &search), "est").unwrap();
    assert_eq!(whole(found), sockets(&["2001:db8::7", "192.0.2.7"]));
    assert_eq!(server.asked(), 10);
}

/// A name that exists ends the search, even where one family has no record: the other domain's host is another one.
#[test]
fn a_name_with_one_family_ends_the_search() {
    let server = Server::start(|question| match asked(question) {
        (name, true) if name == "est.a.example" => code(question, 0),
        (name, _) if name == "est.b.example" => panic!("asked for too much"),
        _ => both(question),
    });
    assert_eq!(
        whole(look_up(settings(&[&server], &["a.example", "b.example"]), "est").unwrap()),
        sockets(&["192.0.2.7"])
    );
    server.asked();
}

/// A name with a dot is asked for as it is, and then in the search list.
#[test]
fn a_name_with_a_dot_is_completed_as_well() {
    let server = Server::start(|question| match asked(question).0.as_str() {
        "est.lab.corp.example" => both(question),
        _ => code(question, 3),
    });
    let found = look_up(settings(&[&server], &["corp.example"]), "est.lab").unwrap();
    assert_eq!(whole(found), sockets(&["2001:db8::7", "192.0.2.7"]));
    assert_eq!(server.asked(), 4);
}

/// A family that is never answered does not hold up the search list.
#[test]
fn a_silent_family_does_not_hold_up_the_next_name() {
    let server = Server::start(|question| match asked(question) {
        (_, true) => Vec::new(),
        (name, false) if name == "est.b.example" => both(question),
        _ => code(question, 3),
    });
    let found = look_up_for(settings(&[&server], &["a.example", "b.example"]), "est", 600).unwrap();
    assert_eq!(all(found), sockets(&["192.0.2.7"]));
    server.asked();
}

/// The first server is dead, or has no use: the next one is asked.
#[test]
fn another_server_is_asked() {
    let servers: [Serve; 4] = [
        |_| Vec::new(),
        |question| code(question, 2),
        |question| code(question, 5),
        |question| {
            let mut forged = both(question);
            forged[0] ^= 0x55;
            forged
        },
    ];
    for first in servers {
        let (bad, good) = (Server::start(first), Server::start(both));
        let found = look_up(settings(&[&bad, &good], &[]), "est.example").unwrap();
        assert_eq!(whole(found), sockets(&["2001:db8::7", "192.0.2.7"]));
        assert!(bad.asked() >= 1 && good.asked() >= 2);
    }
}

/// A dead server delays the first name of a search list, and none of the others.
#[test]
fn the_server_that_answers_is_asked_first_for_the_next_name() {
    let good = Server::start(|question| match asked(question).0.as_str() {
        "est" => both(question),
        _ => code(question, 3),
    });
    let dead = Server::start(|_| Vec::new());
    let search = ["a.example", "b.example", "c.example", "d.example"];
    assert_eq!(
        whole(look_up(settings(&[&dead, &good], &search), "est").unwrap()),
        sockets(&["2001:db8::7", "192.0.2.7"])
    );
    // Twice for each family of the first name at most: it has half a second to itself, and a busy machine may be slow.
    assert!(dead.asked() <= 4);
    assert_eq!(good.asked(), 10);
}

#[test]
fn each_failure_is_one_line_with_what_each_server_said() {
    let said = |serve: Serve, search: &[&str], name: &str| {
        let server = Server::start(serve);
        let words =
            HttpsError::Resolve(Box::new(look_up(settings(&[&server], search), name).err().unwrap())).to_string();
        server.asked();
        words
    };
    assert_eq!(
        said(|question| code(question, 3), &[], "est.example"),
        "est.example has no address: A and AAAA est.example: 127.0.0.1 says: there is no such name; check the URL and what \
         the name servers know"
    );
    let mixed = said(|question| code(question, if asked(question).1 { 5 } else { 0 }), &[], "est.example");
    for part in [
        "est.example has no address: ",
        "A est.example: 127.0.0.1 says: the name has no such record",
        "AAAA est.example: 127.0.0.1: it refuses to answer",
        "; check the URL and what the name servers know",
    ] {
        assert!(mixed.contains(part), "{mixed}");
    }
    assert_eq!(
        said(|question| code(question, 5), &["a.example"], "est"),
        "no usable answer about est: A and AAAA est.a.example: 127.0.0.1: it refuses to answer; A and AAAA est: 127.0.0.1: it \
         refuses to answer; check the URL, that the name servers know the name, and that the node reaches them"
    );
    assert_eq!(
        said(|question| answer_with(question, [0x81, 0x80], &[(ASKED, 5, ASKED)]), &[], "est.example"),
        "est.example has no address: A and AAAA est.example: 127.0.0.1 says: its aliases (CNAME) lead in a circle, or are \
         more than 8; check the URL and what the name servers know"
    );
    assert!(
        said(|_| Vec::new(), &["a.example"], "est")
            .contains("AAAA est.a.example: 127.0.0.1: no answer to 3 questions;")
    );
}

#[test]
fn a_deadline_that_has_passed() {
    let server = Server::start(both);
    let unresolved = look_up_for(settings(&[&server], &["a.example"]), "est", 0).err().unwrap();
    assert!(unresolved.has_no_answer(), "{unresolved:?}");
    assert!(unresolved.to_string().contains("127.0.0.1: there was no time to ask it"), "{unresolved}");
    server.asked();
}

#[test]
fn without_a_name_server_the_remedy_is_said() {
    // Nobody listens at port 53 of this machine, or somebody who does not know the name (RFC 6761 §6.4).
    let unresolved = look_up(settings(&[], &[]), "host.invalid").err().unwrap();
    assert!(!unresolved.servers);
    if unresolved.has_no_answer() {
        assert_eq!(
            unresolved.to_string(),
            "no usable answer about host.invalid: /etc/resolv.conf has no name server; add a name server (dns) to the record, \
             or use an IP address in the URL"
        );
    }
}

#[test]
fn what_needs_no_name_server() {
    let url = |text: &str| match EstUrl::try_from(text).unwrap() {
        EstUrl::Https(url) => url,
        EstUrl::Line => panic!("{text}"),
    };
    let of = |text: &str| all(Addresses::of(&url(text), Deadline::after(Duration::ZERO)).unwrap());
    assert_eq!(of("https://192.0.2.7/.well-known/est"), sockets(&["192.0.2.7"]));
    assert_eq!(of("https://[2001:db8::7]/.well-known/est"), sockets(&["2001:db8::7"]));
    // The machine's own hosts(5).
    assert!(of("https://localhost/.well-known/est").iter().all(|address| address.ip().is_loopback()));
}
