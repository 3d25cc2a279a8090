//! How many connections each address has: one that takes all places and says nothing would shut all others out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections by where they come from.
#[derive(Default)]
pub(super) struct Guests {
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that counts until it is dropped.
pub(super) struct Guest {
    guests: Arc<Guests>,
    from: IpAddr,
}

impl Guests {
    /// Counts one more connection, or says that this address has enough of them.
    pub(super) fn admit(self: &Arc<Guests>, peer: IpAddr, most: usize) -> Option<Guest> {
        let from = origin(peer);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        if *count >= most {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Guest { guests: self.clone(), from })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

/// Whoever has one IPv6 address has its whole /64 (RFC 4291 §2.5.1); IPv4 on an IPv6 socket is IPv4.
fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_own_places_and_gets_them_back() {
        let guests = Arc::new(Guests::default());
        let admit = |text: &str| guests.admit(text.parse().unwrap(), 2);
        let first = (admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap());
        assert!(admit("2001:db8::ffff:1").is_none());
        let others =
            (admit("2001:db8:0:1::1").unwrap(), admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap());
        assert!(admit("192.0.2.1").is_none());
        drop(first.0);
        assert!(admit("2001:db8::3").is_some());
        drop((first.1, others));
        assert!(guests.counts.lock().unwrap().is_empty());
    }
}
