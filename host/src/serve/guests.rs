//! Limits the connections of each origin, so that one origin with many silent connections cannot shut all others out. An
//! origin is an address, or whatever else a door knows of where a node calls from. Opens and closes no connection itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// The most connections that are served at a time.
pub const CONNECTIONS: usize = 2048;
/// The most connections at a time that are told to come back, because no place was free.
pub const AWAY: usize = 512;
/// The most nodes that are served at a time at all doors together. One takes about twenty kilobytes.
pub const CALLERS: usize = 16_384;
/// An origin can always have this many places, as long as any are free.
const AT_LEAST: usize = 8;

/// The number of connections by origin.
pub(super) struct Guests<K> {
    counts: Mutex<Counts<K>>,
    /// The most that are served at a time.
    most: usize,
    /// The most that are told to come back.
    away: usize,
}

struct Counts<K> {
    of: HashMap<K, usize>,
    served: usize,
    away: usize,
}

/// How a connection is treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Its requests are answered.
    Served,
    /// It is told to come back.
    Away,
}

/// A connection. It counts until it is dropped.
pub(super) struct Guest<K: Eq + Hash> {
    guests: Arc<Guests<K>>,
    from: K,
    place: Place,
}

impl<K: Eq + Hash + Clone> Guests<K> {
    /// `most`: how many are served at a time. `away`: how many more are told to come back.
    pub(super) fn new(most: usize, away: usize) -> Arc<Guests<K>> {
        Arc::new(Guests { counts: Mutex::new(Counts { of: HashMap::new(), served: 0, away: 0 }), most, away })
    }

    /// Admits one more connection. An origin may have as many places as half of those that are free, so that one origin
    /// cannot take all. `None`: close the connection; there is no place even to tell it to come back.
    pub(super) fn admit(self: &Arc<Guests<K>>, from: K) -> Option<Guest<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.most.saturating_sub(counts.served);
        let has = counts.of.get(&from).copied().unwrap_or_default();
        let place = if free > 0 && has < (free / 2).max(AT_LEAST) {
            counts.served = counts.served.saturating_add(1);
            counts.of.insert(from.clone(), has.saturating_add(1));
            Place::Served
        } else if counts.away < self.away {
            counts.away = counts.away.saturating_add(1);
            Place::Away
        } else {
            return None;
        };
        Some(Guest { guests: self.clone(), from, place })
    }
}

impl<K: Eq + Hash> Guest<K> {
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

impl<K: Eq + Hash> Drop for Guest<K> {
    fn drop(&mut self) {
        let mut counts = self.guests.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if self.place == Place::Away {
            counts.away = counts.away.saturating_sub(1);
            return;
        }
        counts.served = counts.served.saturating_sub(1);
        if let Some(count) = counts.of.get_mut(&self.from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.of.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::origin;

    fn admit(guests: &Arc<Guests<IpAddr>>, text: &str) -> Option<Guest<IpAddr>> {
        guests.admit(origin::of_address(text.parse().unwrap()))
    }

    #[test]
    fn one_address_leaves_half_of_the_places_and_gets_its_own_back() {
        let guests = Guests::new(CONNECTIONS, AWAY);
        let mut greedy = Vec::new();
        // All addresses of a /64 count as one.
        while let Some(guest) = admit(&guests, &format!("2001:db8::{:x}", greedy.len())) {
            greedy.push(guest);
        }
        let served = greedy.iter().filter(|guest| guest.place() == Place::Served).count();
        assert_eq!((served, greedy.len()), (CONNECTIONS / 3 + 1, CONNECTIONS / 3 + 1 + AWAY));
        let others: Vec<_> = (0..100).map(|_| admit(&guests, "192.0.2.1").unwrap().place()).collect();
        assert!(others.iter().all(|place| *place == Place::Served));
        let mapped = admit(&guests, "::ffff:192.0.2.1").unwrap();
        assert_eq!(guests.counts.lock().unwrap().of[&"192.0.2.1".parse::<IpAddr>().unwrap()], 1);
        drop((greedy, mapped));
        let counts = guests.counts.lock().unwrap();
        assert_eq!((counts.of.len(), counts.served, counts.away), (0, 0, 0));
    }

    #[test]
    fn many_addresses_together_have_all_places() {
        let guests = Guests::new(CONNECTIONS, AWAY);
        let all: Vec<_> = (0..CONNECTIONS).map(|n| admit(&guests, &format!("10.0.{}.{}", n / 256, n % 256))).collect();
        assert!(all.iter().all(|guest| guest.as_ref().unwrap().place() == Place::Served));
        assert_eq!(admit(&guests, "10.1.0.1").unwrap().place(), Place::Away);
    }
}
