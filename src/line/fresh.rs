//! Challenges of a node, and what a payload that was signed for one of them says about the time. Pure: never reads a clock, and
//! never verifies a signature.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::frame::{CHALLENGE_LEN, Challenge};
use crate::digest::sha256;
use crate::payload::signed;

/// A challenge counts for so long, from when it was made until the announcement of the object with its payload came.
pub const GOOD_FOR: Duration = Duration::from_secs(60);

/// In microseconds: an OPEN is answered with another challenge if the newest is older.
const RENEWED: u64 = 1_000_000;
/// In microseconds: another challenge is made, asked for or not.
const OLD: u64 = 30_000_000;

/// In microseconds: after this time a host asks for another challenge, rather than sign for this one.
const YOUNG: u64 = 2_000_000;

/// How many challenges are remembered. More than one a second are not made, so those of the last minute are all there.
const KEPT: usize = 64;

/// The challenges that a node has made on one line.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Challenges {
    seed: [u8; 32],
    count: u64,
    /// The newest first, each with when it was made, by the clock of the line.
    made: VecDeque<(Challenge, u64)>,
}

/// Gives each line a seed of its own.
pub struct Seeds {
    seed: [u8; 32],
    count: u64,
}

/// How fresh a payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fresh {
    /// SHA-256 of the node's HELLO message.
    pub hello: [u8; 32],
    /// The challenge that the payload is signed for.
    pub challenge: Challenge,
    /// When the node made the challenge, since boot.
    pub made: Duration,
    /// When the announcement of the payload had come, since boot. It has the digest of the object, so the signature was made
    /// before.
    pub came: Duration,
}

/// The challenge that a host signs a payload for at `now`: the last that it has heard ([`super::Host::challenge`]), if the payload
/// then comes long before it is too old. `None`: it has to ask for another one.
pub fn to_sign_for(heard: Option<(Challenge, u64)>, now: u64) -> Option<Challenge> {
    heard.filter(|(_, at)| now.saturating_sub(*at) <= YOUNG).map(|(challenge, _)| challenge)
}

impl Challenges {
    /// `seed`: random bytes, for this line alone.
    pub fn new(seed: [u8; 32]) -> Challenges {
        Challenges { seed, count: 0, made: VecDeque::new() }
    }

    /// The challenge to send at `now`, in microseconds: another one, unless the newest is young.
    pub fn next(&mut self, now: u64) -> Challenge {
        match self.made.front() {
            Some((newest, at)) if now.saturating_sub(*at) <= RENEWED => *newest,
            _ => self.another(now),
        }
    }

    /// The newest challenge, however old it is. Made at `now` if there is none.
    pub fn newest(&mut self, now: u64) -> Challenge {
        match self.made.front() {
            Some((newest, _)) => *newest,
            None => self.another(now),
        }
    }

    /// Whether the newest challenge has become old.
    pub fn is_old(&self, now: u64) -> bool {
        self.made.front().is_some_and(|(_, at)| now.saturating_sub(*at) >= OLD)
    }

    /// When this challenge was made, if it is one of the last.
    pub fn made(&self, challenge: &Challenge) -> Option<u64> {
        self.made.iter().find(|(known, _)| known == challenge).map(|(_, at)| *at)
    }

    fn another(&mut self, now: u64) -> Challenge {
        let digest = sha256(&[&self.seed[..], &self.count.to_be_bytes()].concat());
        self.count = self.count.wrapping_add(1);
        let mut bytes = [0; CHALLENGE_LEN];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        let challenge = Challenge(bytes);
        self.made.push_front((challenge, now));
        self.made.truncate(KEPT);
        challenge
    }
}

impl Seeds {
    /// `seed`: random bytes.
    pub fn new(seed: [u8; 32]) -> Seeds {
        Seeds { seed, count: 0 }
    }

    /// The seed of another line.
    pub fn another(&mut self) -> [u8; 32] {
        let digest = sha256(&[b"imprint line seed", &self.seed[..], &self.count.to_be_bytes()].concat());
        self.count = self.count.wrapping_add(1);
        digest
    }
}

/// Without the seed: it gives away the challenges to come.
impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").field("made", &self.made).finish_non_exhaustive()
    }
}

impl Fresh {
    /// What the signature covers beside the payload.
    pub fn aad(&self) -> Vec<u8> {
        signed::aad(Some((&self.hello, &self.challenge.0)))
    }

    /// How old the challenge was when the payload came: it is this much later now than the payload says, at most, and not
    /// earlier than it says.
    pub fn age(&self) -> Duration {
        self.came.saturating_sub(self.made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Whoever asks again and again must not push out the challenge that somebody else signs for.
    #[test]
    fn those_of_the_last_minute_are_remembered_however_often_somebody_asks() {
        let mut challenges = Challenges::new([7; 32]);
        let first = challenges.next(0);
        for now in (0..60 * SECOND).step_by(1000) {
            challenges.next(now);
        }
        assert_eq!(challenges.made(&first), Some(0));
        assert!(challenges.made.len() <= 60, "{}", challenges.made.len());
        for second in 60..600 {
            challenges.next(second * 2 * SECOND);
        }
        assert_eq!((challenges.made(&first), challenges.made.len()), (None, KEPT));
    }

    #[test]
    fn each_is_another_on_each_line() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..4 {
            let mut challenges = Challenges::new([seed; 32]);
            for second in 0..100 {
                assert!(seen.insert(challenges.next(second * 2 * SECOND)));
                assert_eq!(challenges.next(second * 2 * SECOND + 1), challenges.newest(0));
            }
        }
        assert!(!format!("{:?}", Challenges::new([0x5a; 32])).contains("90"), "the seed is not shown");
    }
}
