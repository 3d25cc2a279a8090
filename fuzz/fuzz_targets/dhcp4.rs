//! What a DHCP client hears: IPv4 packets one after the other, each with its length before it. A lease has an address
//! that a host can have, and no words from a server drive the console.
#![cfg_attr(fuzzing, no_main)]

use std::time::Duration;

use imprint::dhcp4::{Asker, Client, Event};
use imprint::payload::HardwareAddress;

/// Transaction and hardware address of the recorded packets in the corpus.
const XID: [u8; 8] = [0x68, 0xf9, 0xe5, 0x36, 0, 0, 0, 0];
const MAC: [u8; 6] = [0xa6, 0xfd, 0x0c, 0xdc, 0x09, 0xa5];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(mac) = HardwareAddress::new(&MAC) else { return };
    let mut client = Client::new(Asker { hardware: 1, mac, client_id: None, hostname: None }, XID, Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut rest = bytes;
    while let Some(([high, low], after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (packet, after) = after.split_at(length);
        let poll = client.poll(now);
        assert!(poll.wake >= now);
        assert!(poll.send.is_none_or(|packet| (328..=1500).contains(&packet.len())));
        if let Some(Event::Bound(lease)) = client.push(packet, now) {
            assert!(lease.address.is_host() && lease.address.address().is_ipv4() && lease.seconds >= 60);
            assert!(lease.routes.iter().all(|route| route.destination.is_network()));
            assert!(lease.renew < Duration::from_secs(lease.seconds.into()));
            assert!(lease.unread.len() <= 6);
        }
        assert!(client.state().bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
        now = poll.wake;
        rest = after;
    }
});
