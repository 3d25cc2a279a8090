//! Rate limits for whoever has proven nothing: requests for lists, and calls at the doors. [`Pace`]: each origin (an address, a
//! /64, or whatever else a door knows) has a burst and a rate, beyond which it waits. [`Few`]: all origins share a burst and a
//! rate, beyond which work is skipped. Never blocks an origin for good, and knows nothing about the requests.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The rate: one turn each tenth of a second.
const EACH: Duration = Duration::from_millis(100);
/// The same in words.
pub(super) const A_SECOND: u32 = 10;
/// The burst: machines behind one address may start together.
pub(super) const AT_ONCE: u32 = 50;
/// A request that would wait for longer is told to come back, and a call is not answered.
const LONGEST: Duration = Duration::from_secs(2);
/// The most origins that are remembered, at about a hundred bytes each. Further ones are not limited.
const MOST: usize = 65_536;
const SWEEP: Duration = Duration::from_secs(1);

/// The recent requests by origin.
pub(super) struct Pace<K> {
    known: Mutex<Known<K>>,
}

struct Known<K> {
    /// For each origin, the time at which its requests are paid off, at one for each [`EACH`].
    paid: HashMap<K, Instant>,
    /// When origins without debt were last removed. Removing takes time in proportion to their number.
    swept: Option<Instant>,
}

impl<K> Default for Pace<K> {
    fn default() -> Pace<K> {
        Pace { known: Mutex::new(Known { paid: HashMap::new(), swept: None }) }
    }
}

impl<K: Eq + Hash> Pace<K> {
    /// How long this request has to wait for its turn. `Err`: no turn; the origin may come back after that time.
    pub(super) fn turn(&self, from: K, now: Instant) -> Result<Duration, Duration> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.paid.len() >= MOST && known.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
            known.paid.retain(|_, paid| *paid > now);
            known.swept = Some(now);
        }
        if known.paid.len() >= MOST && !known.paid.contains_key(&from) {
            return Ok(Duration::ZERO);
        }
        let paid = known.paid.entry(from).or_insert(now);
        let due = paid.saturating_duration_since(now);
        let wait = due.saturating_sub(EACH.saturating_mul(AT_ONCE.saturating_sub(1)));
        if wait > LONGEST {
            return Err(wait);
        }
        *paid = (*paid).max(now) + EACH;
        Ok(wait)
    }
}

/// The burst for all addresses together.
const FEW: u32 = 30;
/// The rate: one each minute. With the burst, that is the audit log's budget for an hour.
const EACH_OF_FEW: Duration = Duration::from_secs(60);

/// Turns that all addresses share.
#[derive(Default)]
pub(super) struct Few {
    paid: Mutex<Option<Instant>>,
}

impl Few {
    /// Takes a turn. False: there is none now.
    pub(super) fn turn(&self, now: Instant) -> bool {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let until = paid.unwrap_or(now).max(now);
        if until.saturating_duration_since(now) > EACH_OF_FEW.saturating_mul(FEW.saturating_sub(1)) {
            return false;
        }
        *paid = Some(until + EACH_OF_FEW);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_turns_are_shared_by_all() {
        let (few, start) = (Few::default(), Instant::now());
        let turns = |at| (0..1000).filter(|_| few.turn(at)).count();
        assert_eq!(turns(start), 30);
        assert_eq!((turns(start + EACH_OF_FEW), turns(start + EACH_OF_FEW * 3)), (1, 2));
        assert_eq!(turns(start + EACH_OF_FEW * 100), 30, "all of it is paid");
    }

    fn address(number: u32) -> std::net::IpAddr {
        std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number))
    }

    /// Attack: an address asks without a pause on many connections. Each request beyond the burst waits, up to a limit.
    /// Other addresses do not wait.
    #[test]
    fn an_address_that_asks_without_a_pause_waits() {
        let (pace, start) = (Pace::default(), Instant::now());
        for _ in 0..50 {
            assert_eq!(pace.turn(address(1), start), Ok(Duration::ZERO));
        }
        for turn in 1..=20 {
            assert_eq!(pace.turn(address(1), start), Ok(EACH * turn));
        }
        assert_eq!(pace.turn(address(1), start), Err(EACH * 21));
        assert_eq!(pace.turn(address(2), start), Ok(Duration::ZERO));
        assert_eq!(pace.turn(address(1), start + EACH), Ok(LONGEST), "one each tenth of a second");
        // All requests are paid off.
        assert_eq!(pace.turn(address(1), start + EACH * 80), Ok(Duration::ZERO));
    }

    /// Attack: a host takes another address of its /64, and another port, for each call.
    #[test]
    fn addresses_of_one_network_are_one_origin() {
        let (pace, start) = (Pace::default(), Instant::now());
        let turn = |peer: &str| pace.turn(crate::origin::of(peer), start);
        for number in 0..70 {
            assert!(turn(&format!("2001:db8:0:1::{number:x}")).is_ok());
        }
        assert!(turn("2001:db8:0:1::ffff").is_err() && turn("tcp:[2001:db8:0:1::1]:40000").is_err());
        assert_eq!(turn("2001:db8:0:2::1"), Ok(Duration::ZERO));
        assert_eq!(turn("vm:web1"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let (pace, now) = (Pace::default(), Instant::now());
        for number in 0..70_000 {
            assert_eq!(pace.turn(address(number), now), Ok(Duration::ZERO));
        }
        assert_eq!(pace.known.lock().unwrap().paid.len(), MOST);
        assert_eq!(pace.turn(address(70_000), now + SWEEP), Ok(Duration::ZERO));
        assert_eq!(pace.known.lock().unwrap().paid.len(), 1);
    }
}
