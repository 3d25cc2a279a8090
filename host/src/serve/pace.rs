//! How often an address may ask for something that anybody may have: so many at once and so many a second, then it
//! waits for its turn. Refuses nobody for good, and knows nothing about what is asked for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::origin::of_address;

/// One more each tenth of a second.
const EACH: Duration = Duration::from_millis(100);
/// So many at once are nobody's business: machines behind one address start together.
const AT_ONCE: u32 = 50;
/// Whoever would have to wait for longer is told to come back.
const LONGEST: Duration = Duration::from_secs(2);
/// More addresses than this are not remembered: each takes about a hundred bytes.
const MOST: usize = 65_536;
const SWEEP: Duration = Duration::from_secs(1);

/// Who asked lately.
#[derive(Default)]
pub(super) struct Pace {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// When all that an address has asked for is paid for, at one for each [`EACH`].
    paid: HashMap<IpAddr, Instant>,
    /// When those that have nothing to pay were last looked for, which takes as long as there are many.
    swept: Option<Instant>,
}

impl Pace {
    /// How long this request has to wait for its turn; `Err`: it has none, the address may come back after that time.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number))
    }

    /// Somebody asks without a pause, on many connections: each request but the first few waits for its turn, and there
    /// is an end to that. Others do not notice.
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
        // All of it is paid.
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
