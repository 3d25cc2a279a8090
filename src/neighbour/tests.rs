use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    crate::hex::decode(hex).unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

// rtnetlink, group RTNLGRP_ND_USEROPT, without its 16-byte header: dnsmasq 2.90 with enable-ra,
// dhcp-option=option6:dns-server,[2001:db8::53] and dhcp-option=option6:domain-search,example.org.
const RAW_RDNSS: &str = "0a001800030000008600000000000000190300000000025820010db8000000000000000000000053\
                         14000100fe8000000000000068a2d0fffe952a9c";
const RAW_DNSSL: &str = "0a0018000300000086000000000000001f03000000000258076578616d706c65036f726700000000\
                         14000100fe8000000000000068a2d0fffe952a9c";
/// The same machine's answer to a solicitation, from a packet socket.
const RAW_ADVERTISEMENT: &str = "6000000000183aff20010db8000000000000000000000001fe80000000000000a4fd0cfffedc09a5\
                                 880023394000000020010db8000000000000000000000001";

#[test]
fn name_servers_and_domains_that_a_router_advertises() {
    let rdnss = user_options(&bytes(RAW_RDNSS)).unwrap();
    let servers = UserOptions { index: 3, dns: vec![(v6("2001:db8::53"), 600)], ..UserOptions::default() };
    assert_eq!(rdnss, servers);
    let dnssl = user_options(&bytes(RAW_DNSSL)).unwrap();
    let domain = DnsName::try_from("example.org").unwrap();
    assert_eq!(dnssl, UserOptions { index: 3, search: vec![(domain.clone(), 600)], ..UserOptions::default() });

    let at = Duration::from_secs;
    let seen = |known: &Names, now| {
        (known.dns(at(now)).collect::<Vec<_>>(), known.search(at(now)).cloned().collect::<Vec<_>>())
    };
    let mut known = Names::default();
    for now in [1, 100] {
        known.take(rdnss.clone(), at(now));
        known.take(dnssl.clone(), at(now));
    }
    let (both, neither) = ((vec![v6("2001:db8::53")], vec![domain]), (vec![], vec![]));
    // Until 600 s after the last advertisement, and no longer (RFC 8106 §5.1).
    assert_eq!((seen(&known, 699), seen(&known, 700)), (both.clone(), neither.clone()));
    // A lifetime of zero withdraws it; the largest is for ever.
    for (seconds, want) in [(0, neither), (u32::MAX, both)] {
        for raw in [RAW_RDNSS, RAW_DNSSL] {
            let mut changed = bytes(raw);
            changed[20..24].copy_from_slice(&u32::to_be_bytes(seconds));
            known.take(user_options(&changed).unwrap(), at(200));
        }
        assert_eq!(seen(&known, 1 << 40), if seconds == 0 { (vec![], vec![]) } else { want.clone() });
        assert_eq!(seen(&known, 201), want);
    }
}

#[test]
fn a_router_cannot_fill_the_memory() {
    let mut known = Names::default();
    for number in 0..100u16 {
        let dns = vec![(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number), 600)];
        known.take(UserOptions { dns, ..UserOptions::default() }, Duration::ZERO);
    }
    assert_eq!(known.dns(Duration::ZERO).count(), MOST);
}

#[test]
fn other_options_are_nothing() {
    // An option that is not of a router advertisement; one that is cut; a length of zero; an address that no server can
    // have.
    let mut other = bytes(RAW_RDNSS);
    other[8] = 137;
    assert_eq!(user_options(&other), None);
    assert_eq!(user_options(&bytes(RAW_RDNSS)[..39]), None);
    let mut empty = bytes(RAW_RDNSS);
    empty[17] = 0;
    assert_eq!(user_options(&empty), None);
    for nobody in ["::", "::1", "ff02::1"] {
        let mut other = bytes(RAW_RDNSS);
        other[24..40].copy_from_slice(&v6(nobody).octets());
        assert_eq!(user_options(&other), None, "{nobody}");
    }
}

/// A home router, or the router of a network without prefixes of its own, may have a link-local address only.
#[test]
fn a_name_server_that_is_known_on_its_link_only() {
    let option = "19030000000002 58fe800000000000000000000000000001".replace(' ', "");
    let header = "0a00180003000000860000000000000 0".replace(' ', "");
    let heard = user_options(&bytes(&format!("{header}{option}"))).unwrap();
    assert_eq!((heard.index, &heard.dns[..]), (3, &[(v6("fe80::1"), 600)][..]));
}

#[test]
fn an_answer_over_ipv6() {
    let raw = bytes(RAW_ADVERTISEMENT);
    assert_eq!(advertisement(&raw), Some(v6("2001:db8::1")));
    // RFC 4861 §7.1.2: a packet with a wrong hop limit, checksum or length is dropped.
    for (position, value) in [(7, 254), (42, 0), (5, 23), (40, 135)] {
        let mut wrong = raw.clone();
        wrong[position] = value;
        assert_eq!(advertisement(&wrong), None, "byte {position}");
    }
}

#[test]
fn a_question_over_ipv6() {
    let packet = solicitation([2, 0, 0, 0, 0, 1], v6("2001:db8::10"), v6("2001:db8::ab:1234"));
    // Written by hand from RFC 4861 §4.3; in tests/netns the kernel answers such a packet.
    assert_eq!(
        crate::hex::encode(&packet),
        "6000000000203aff20010db8000000000000000000000010ff0200000000000000000001ffab1234\
         8700f65d0000000020010db8000000000000000000ab12340101020000000001"
    );
    assert_eq!(solicited_node_mac(v6("2001:db8::ab:1234")), [0x33, 0x33, 0xff, 0xab, 0x12, 0x34]);
}

#[test]
fn questions_and_answers_over_ipv4() {
    let (mac, from, target) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 1));
    let request = arp_request(mac, from, target);
    assert_eq!(crate::hex::encode(&request), "0001080006040001020000000001c000020a000000000000c0000201");
    assert_eq!(arp_reply(&request), None);
    // The reply, padded to the least length of Ethernet.
    let mut reply = bytes("00010800060400026aa2d0952a9cc0000201020000000001c000020a");
    reply.resize(46, 0);
    assert_eq!(arp_reply(&reply), Some(target));
    assert_eq!(arp_reply(&reply[..27]), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        arp_reply(&bytes);
        advertisement(&bytes);
        user_options(&bytes);
        let options = [&[10, 0, 180, 0, 3, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0][..], &bytes].concat();
        user_options(&options);
    }
}
