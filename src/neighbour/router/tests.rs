//! Advertisements by hand from RFC 4861 and RFC 8781, and what routers of one link say together.

use proptest::prelude::*;

use super::*;

fn from(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)
}

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Type 134, hop limit 64, these flags, this router lifetime, and these options.
fn message(flags: u8, lifetime: u16, options: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, flags];
    bytes.extend(lifetime.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(options.concat());
    bytes
}

/// 2001:db8:1::/64 with these flags and this valid lifetime.
fn information(flags: u8, valid: u32) -> Vec<u8> {
    let mut bytes = vec![3, 4, 64, flags];
    bytes.extend(valid.to_be_bytes());
    bytes.extend([0; 8]);
    // Host bits are ignored.
    bytes.extend("2001:db8:1::77".parse::<Ipv6Addr>().unwrap().octets());
    bytes
}

/// 64:ff9b::/96 with this scaled lifetime and length code.
fn pref64(seconds: u16, code: u16) -> Vec<u8> {
    let mut bytes = vec![38, 2];
    bytes.extend((seconds & !7 | code).to_be_bytes());
    bytes.extend(&"64:ff9b::".parse::<Ipv6Addr>().unwrap().octets()[..12]);
    bytes
}

fn decoded(bytes: &[u8]) -> Option<Advertisement> {
    Advertisement::decode(from(1), 255, bytes)
}

#[test]
fn what_a_router_says() {
    let bytes = message(0xc0, 1800, &[&[1, 1, 2, 0, 0, 0, 0, 1], &information(0xc0, 86_400), &pref64(1800, 0)]);
    let want = Advertisement {
        from: from(1),
        lifetime: 1800,
        managed: true,
        other: true,
        on_link: vec![(prefix("2001:db8:1::/64"), 86_400)],
        nat64: vec![(prefix("64:ff9b::/96"), 1800)],
    };
    assert_eq!(decoded(&bytes), Some(want));
    let neither = decoded(&message(0x38, 0, &[&information(0x40, 86_400)])).unwrap();
    assert_eq!((neither.managed, neither.other, neither.on_link.len()), (false, false, 0), "autonomous is not on-link");
    for (code, length) in [(0, 96), (1, 64), (2, 56), (3, 48), (4, 40), (5, 32)] {
        let found = decoded(&message(0, 1800, &[&pref64(600, code)])).unwrap().nat64;
        assert_eq!(found.iter().map(|(prefix, _)| prefix.length()).collect::<Vec<_>>(), [length]);
    }
    for code in [6, 7] {
        assert_eq!(decoded(&message(0, 1800, &[&pref64(600, code)])).unwrap().nat64, []);
    }
}

/// RFC 4861 §6.1.2
#[test]
fn what_no_router_on_the_link_says() {
    let good = message(0x80, 1800, &[&information(0x80, 600)]);
    assert!(decoded(&good).is_some());
    assert_eq!(Advertisement::decode(from(1), 254, &good), None, "it comes from another link");
    assert_eq!(Advertisement::decode("2001:db8::1".parse().unwrap(), 255, &good), None);
    for (place, value) in [(0, 133), (1, 1)] {
        let mut wrong = good.clone();
        wrong[place] = value;
        assert_eq!(decoded(&wrong), None, "byte {place}");
    }
    // Options whose lengths lie: none, more than there is, and a prefix in less than its size.
    for (place, value) in [(17, 0), (17, 5), (17, 255)] {
        let mut wrong = good.clone();
        wrong[place] = value;
        assert_eq!(decoded(&wrong), None, "byte {place} = {value}");
    }
    assert_eq!(decoded(&good[..15]), None);
    assert_eq!(decoded(&message(0, 0, &[&[3, 1, 64, 0x80, 0, 0, 0, 9]])).unwrap().on_link, []);
    let mut longer = information(0x80, 600);
    longer[2] = 129;
    assert_eq!(decoded(&message(0, 0, &[&longer])).unwrap().on_link, []);
}

#[test]
fn a_router_without_a_lifetime_is_none() {
    let mut routers = Routers::default();
    assert!(!routers.heard());
    routers.take(&decoded(&message(0x80, 0, &[&pref64(600, 0)])).unwrap(), at(0));
    assert!(routers.heard() && !routers.lead_out(at(0)) && routers.managed());
    assert_eq!(routers.nat64(at(0)), [], "whoever leads nowhere leads to no NAT64");
    let other = Advertisement { from: from(2), ..decoded(&message(0x40, 30, &[&pref64(600, 0)])).unwrap() };
    routers.take(&other, at(0));
    assert!(routers.lead_out(at(29)) && !routers.lead_out(at(30)) && routers.other());
    assert_eq!(routers.nat64(at(599)), [prefix("64:ff9b::/96")]);
    assert_eq!(routers.nat64(at(600)), []);
    // It withdraws itself, and what it has said.
    routers.take(&Advertisement { from: from(2), ..decoded(&message(0, 0, &[])).unwrap() }, at(1));
    assert!(!routers.lead_out(at(1)) && routers.managed() && !routers.other());
    assert_eq!(routers.nat64(at(1)), []);
}

#[test]
fn the_network_of_an_address_is_what_routers_say() {
    let mut routers = Routers::default();
    let address: Ipv6Addr = "2001:db8:1::5".parse().unwrap();
    let with = |routers: &Routers, now| routers.with_network(address, at(now)).unwrap().to_string();
    assert_eq!(with(&routers, 0), "2001:db8:1::5/128");
    routers.take(&decoded(&message(0, 0, &[&information(0x80, 600)])).unwrap(), at(0));
    assert_eq!((with(&routers, 599), with(&routers, 600)), ("2001:db8:1::5/64".into(), "2001:db8:1::5/128".into()));
    assert_eq!(routers.with_network("2001:db8:2::5".parse().unwrap(), at(0)).unwrap().length(), 128);
    routers.take(&decoded(&message(0, 0, &[&information(0x80, 0)])).unwrap(), at(1));
    assert_eq!(with(&routers, 1), "2001:db8:1::5/128");
}

#[test]
fn routers_cannot_fill_the_memory() {
    let mut routers = Routers::default();
    for number in 0..100 {
        let flood = Advertisement { from: from(number), ..decoded(&message(0, 1800, &[])).unwrap() };
        routers.take(&flood, at(0));
    }
    assert_eq!(routers.all.len(), MOST);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut routers = Routers::default();
        for bytes in [bytes.clone(), message(0xc0, 1800, &[&bytes])] {
            if let Some(found) = decoded(&bytes) {
                routers.take(&found, at(1));
            }
        }
        routers.nat64(at(2));
    }
}
