//! What neighbours and routers say: ARP, neighbour advertisements, the options of router advertisements as the kernel passes them
//! on, and router advertisements themselves. The first byte chooses.
#![cfg_attr(fuzzing, no_main)]

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use imprint::neighbour::router::{Advertisement, Routers};
use imprint::neighbour::{self, Names};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let now = Duration::from_secs(1);
    match which % 4 {
        0 => drop(neighbour::arp_reply(bytes)),
        1 => drop(neighbour::advertisement(bytes)),
        2 => {
            let Some(options) = neighbour::user_options(bytes) else { return };
            let mut known = Names::default();
            known.take(options.clone(), now);
            let once = known.clone();
            known.take(options, now);
            assert_eq!(known.dns(now).count(), once.dns(now).count());
            assert!(known.dns(now).count() <= 8 && known.search(now).count() <= 8);
            assert!(known.dns(now).all(|server| !server.is_multicast() && !server.is_loopback()));
        }
        _ => {
            let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
            let Some(said) = Advertisement::decode(from, 255, bytes) else { return };
            let mut routers = Routers::default();
            routers.take(&said, now);
            routers.take(&said, now);
            assert!(routers.heard() && routers.lead_out(now) == (said.lifetime > 0));
            assert!(said.on_link.iter().chain(&said.nat64).all(|(prefix, _)| prefix.is_network()));
            assert!(routers.nat64(now).len() <= 8);
            let own = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);
            assert_eq!(routers.with_network(own, now).map(|prefix| prefix.address()), Some(IpAddr::V6(own)));
        }
    }
});
