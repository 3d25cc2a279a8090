//! What a DHCPv6 client hears: messages one after the other, each with its length before it. The first byte chooses what the client
//! wants. A lease has an address that a host can have, and no words from a server drive the console. (Tests of the client compare
//! its questions with dhcproto.)
#![cfg_attr(fuzzing, no_main)]

use std::net::Ipv6Addr;
use std::time::Duration;

use imprint::dhcp6::{Asker, Client, Event, Identity};
use imprint::payload::HardwareAddress;

/// Transaction numbers begin with this, and the client is this one, in the messages of the corpus.
const RANDOM: [u8; 8] = [0x80; 8];
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(mac) = HardwareAddress::new(&MAC) else { return };
    let Some((which, mut rest)) = bytes.split_first() else { return };
    let asker = Asker { identity: Identity::new(None, 1, &mac), hostname: None };
    let hour = Duration::from_secs(3600);
    let mut client = match which % 3 {
        0 => Client::new(asker, RANDOM, Duration::ZERO),
        1 => Client::informing(asker, RANDOM, Duration::ZERO),
        _ => Client::keeping(asker, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5), hour, RANDOM, Duration::ZERO),
    };
    let mut now = Duration::ZERO;
    while let Some(([high, low], after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (message, after) = after.split_at(length);
        let poll = client.poll(now);
        assert!(poll.wake >= now);
        assert!(poll.send.is_none_or(|message| (24..=300).contains(&message.len())));
        match client.push(FROM, message, now) {
            Some(Event::Bound(lease)) => {
                assert!(!(lease.address.is_multicast() || lease.address.is_unspecified() || lease.address.is_loopback()));
                assert!(lease.valid >= 60 && lease.preferred <= lease.valid);
                assert!(Duration::from_secs(1) <= lease.renew && lease.renew <= lease.rebind);
                assert!(lease.dns.len() <= 8 && lease.search.len() <= 8);
            }
            Some(Event::Informed(information)) => assert!(information.until >= now + Duration::from_secs(600)),
            Some(Event::Refused) | None => {}
        }
        assert!(client.state().bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
        now = now.max(poll.wake.min(Duration::from_secs(1 << 30)));
        rest = after;
    }
});
