//! Rate limits for wrong tokens. A token has 128 random bits, so guessing is hopeless; the limits keep the server's cost of
//! guessing small, and protect other addresses and records. Checks no token itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::origin::of_address;

/// The most wrong tokens in a row from an address; one more each second.
const OF_ADDRESS: u32 = 20;
/// The most wrong tokens for one record from all addresses. Beyond that, addresses that have sent wrong ones wait; others
/// do not.
const OF_RECORD: u32 = 60;
const EACH: Duration = Duration::from_secs(1);
/// The most entries that are remembered, at about a hundred bytes each.
const MOST: usize = 65_536;

/// The recent wrong tokens.
#[derive(Default)]
pub(super) struct Tries {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    addresses: Buckets<IpAddr>,
    records: Buckets<String>,
}

struct Buckets<K> {
    of: HashMap<K, Bucket>,
    /// When empty buckets were last removed. Removing takes time in proportion to their number.
    swept: Option<Instant>,
}

impl<K> Default for Buckets<K> {
    fn default() -> Buckets<K> {
        Buckets { of: HashMap::new(), swept: None }
    }
}

/// The number of wrong tokens, minus one for each second since.
#[derive(Clone, Copy)]
struct Bucket {
    wrong: u32,
    at: Instant,
}

impl Bucket {
    fn now(self, now: Instant) -> Bucket {
        let seconds = u32::try_from(now.saturating_duration_since(self.at).as_secs()).unwrap_or(u32::MAX);
        let at = if seconds > 0 { now } else { self.at };
        Bucket { wrong: self.wrong.saturating_sub(seconds), at }
    }
}

impl Tries {
    /// How long a request for `record` from this address has to wait; `None`: not at all.
    pub(super) fn wait(&self, peer: IpAddr, record: &str, now: Instant) -> Option<Duration> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = |bucket: Option<&Bucket>| bucket.map_or(0, |bucket| bucket.now(now).wrong);
        let (address, record) = (wrong(known.addresses.of.get(&of_address(peer))), wrong(known.records.of.get(record)));
        (address >= OF_ADDRESS || record >= OF_RECORD && address > 0).then_some(EACH)
    }

    /// Counts a wrong token, or a name without a record.
    pub(super) fn wrong(&self, peer: IpAddr, record: &str, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut known.addresses, of_address(peer), OF_ADDRESS, now);
        count(&mut known.records, record.chars().take(255).collect(), OF_RECORD, now);
    }
}

fn count<K: std::hash::Hash + Eq>(buckets: &mut Buckets<K>, key: K, most: u32, now: Instant) {
    // No bucket becomes empty within a second.
    if buckets.of.len() >= MOST && buckets.swept.is_none_or(|at| now.saturating_duration_since(at) >= EACH) {
        buckets.of.retain(|_, bucket| bucket.now(now).wrong > 0);
        buckets.swept = Some(now);
    }
    if buckets.of.len() < MOST || buckets.of.contains_key(&key) {
        let bucket = buckets.of.entry(key).or_insert(Bucket { wrong: 0, at: now });
        *bucket = bucket.now(now);
        bucket.wrong = bucket.wrong.saturating_add(1).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_guesses_waits_and_others_do_not() {
        let (tries, start) = (Tries::default(), Instant::now());
        let [guesser, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        for _ in 0..20 {
            assert_eq!(tries.wait(guesser, "node1", start), None);
            tries.wrong(guesser, "node1", start);
        }
        assert_eq!(tries.wait(guesser, "node2", start), Some(EACH));
        assert_eq!(tries.wait(other, "node1", start), None);
        assert_eq!(tries.wait(guesser, "node1", start + EACH), None, "one each second");
        tries.wrong(guesser, "node1", start + EACH);
        assert_eq!(tries.wait(guesser, "node1", start + EACH), Some(EACH));
    }

    /// Attack: wrong tokens for one record from many addresses. They have to wait; the node itself does not.
    #[test]
    fn a_record_that_many_guess_at_is_still_its_nodes() {
        let (tries, now) = (Tries::default(), Instant::now());
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
        for number in 0..60 {
            tries.wrong(address(number), "node1", now);
        }
        assert_eq!(tries.wait(address(1), "node1", now), Some(EACH));
        assert_eq!(tries.wait(address(1), "node2", now), None);
        assert_eq!(tries.wait(address(100), "node1", now), None);
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let (tries, now) = (Tries::default(), Instant::now());
        for number in 0..70_000u32 {
            tries.wrong(IpAddr::from(std::net::Ipv4Addr::from(number)), &number.to_string(), now);
        }
        let sizes = |tries: &Tries| {
            let known = tries.known.lock().unwrap();
            (known.addresses.of.len(), known.records.of.len())
        };
        assert_eq!(sizes(&tries), (MOST, MOST));
        tries.wrong("192.0.2.1".parse().unwrap(), "node1", now + EACH * 2);
        assert_eq!(sizes(&tries), (1, 1));
    }
}
