//! What neighbours and routers say: ARP, neighbour advertisements, and the options of router advertisements as the
//! kernel passes them on. The first byte chooses.
#![cfg_attr(fuzzing, no_main)]

use imprint::neighbour::{self, UserOptions};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 3 {
        0 => drop(neighbour::arp_reply(bytes)),
        1 => drop(neighbour::advertisement(bytes)),
        _ => {
            let Some(options) = neighbour::user_options(bytes) else { return };
            let mut known = UserOptions::default();
            known.merge(options.clone());
            let once = known.clone();
            known.merge(options);
            assert_eq!(known.dns.len(), once.dns.len());
            assert!(known.dns.len() <= 8 && known.search.len() <= 8);
            assert!(known.dns.iter().all(|server| !server.is_multicast() && !server.is_loopback()));
        }
    }
});
