//! Rate limits for anonymous requests. [`Pace`]: each address has a burst and a rate, beyond which it waits. [`Few`]: all
//! addresses share a burst and a rate, beyond which work is skipped. Never blocks an address for good, and knows nothing
//! about the requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::origin::of_address;

/// The rate: one turn each tenth of a second.
const EACH: Duration = Duration::from_millis(100);
/// The burst: machines behind one address may start together.
const AT_ONCE: u32 = 50;
/// A request that would wait for longer is told to come back.
const LONGEST: Duration = Duration::from_secs(2);
/// The most addresses that are remembered, at about a hundred bytes each. Further ones are not limited.
const MOST: usize = 65_536;
const SWEEP: Duration = Duration::from_secs(1);

/// The recent requests by address.
#[derive(Default)]
pub(super) struct Pace {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// For each address, the time at which its requests are paid off, at one for each [`EACH`].
    paid: HashMap<IpAddr, Instant>,
    /// When addresses without debt were last removed. Removing takes time in proportion to their number.
    swept: Option<Instant>,
}

impl Pace {
    /// How long this request has to wait for its turn. `Err`: no turn; the address may come back after that time.
    pub(super) fn turn(&self, peer: IpAddr, now: Instant) -> Result<Duration, Duration> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = of_address(peer);
        if known.paid.len() >= MOST && known.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
            known.paid.retain(|_, paid| *paid > now);
            known.swept = Some(now);
        }
        if known.paid.len() >= MOST && !known.paid.contains_key(&peer) {
            return Ok(Duration::ZERO);
        }
        let paid = known.paid.entry(peer).or_insert(now);
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

    fn address(number: u32) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number))
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
