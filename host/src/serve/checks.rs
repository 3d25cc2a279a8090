//! Limits the checks of bundles that nodes send: a short upload can unpack to 16 MiB. Two checks at a time in all, one of each node,
//! and a node whose uploads fail has to wait. Checks nothing itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Checks at the same time.
const AT_ONCE: usize = 2;
/// The most failed uploads of a node in [`HOUR`]; as many as bundles that are stored for it.
const MOST: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);
/// Above so many nodes, those are forgotten that check nothing and have failed at nothing.
const KEPT: usize = 1024;

/// Who checks, and who has failed.
pub(super) struct Checks {
    all: Arc<Semaphore>,
    nodes: Mutex<HashMap<String, Node>>,
}

struct Node {
    turn: Arc<Semaphore>,
    failed: VecDeque<Instant>,
}

/// The turn to check. It ends when this is dropped.
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks { all: Arc::new(Semaphore::new(AT_ONCE)), nodes: Mutex::default() }
    }
}

impl Checks {
    /// Waits for the node's turn. `Err`: too many of its uploads have failed; come back after this time. `Ok(None)`: the server
    /// stops.
    pub(super) async fn turn(&self, node: &str) -> Result<Option<Turn>, Duration> {
        let own = self.of(node, Instant::now()).acquire_owned().await;
        if let Some(after) = self.wait(node, Instant::now()) {
            return Err(after);
        }
        let all = self.all.clone().acquire_owned().await;
        Ok(own.ok().zip(all.ok()).map(|(own, all)| Turn { _own: own, _all: all }))
    }

    /// How long a node has to wait whose uploads have failed.
    pub(super) fn wait(&self, node: &str, now: Instant) -> Option<Duration> {
        let nodes = self.lock();
        let failed = &nodes.get(node)?.failed;
        let recent = failed.len().checked_sub(MOST)?;
        let left = HOUR.checked_sub(now.saturating_duration_since(*failed.get(recent)?))?;
        (!left.is_zero()).then_some(left)
    }

    /// Notes that an upload of the node was no bundle of this node.
    pub(super) fn failed(&self, node: &str, now: Instant) {
        self.of(node, now);
        if let Some(node) = self.lock().get_mut(node) {
            node.failed.push_back(now);
            while node.failed.len() > MOST {
                node.failed.pop_front();
            }
        }
    }

    fn of(&self, node: &str, now: Instant) -> Arc<Semaphore> {
        let mut nodes = self.lock();
        if nodes.len() >= KEPT && !nodes.contains_key(node) {
            let is_recent = |at: &Instant| now.saturating_duration_since(*at) < HOUR;
            nodes.retain(|_, node| Arc::strong_count(&node.turn) > 1 || node.failed.back().is_some_and(is_recent));
        }
        let new = || Node { turn: Arc::new(Semaphore::new(1)), failed: VecDeque::new() };
        nodes.entry(node.to_owned()).or_insert_with(new).turn.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Attack: many short uploads that unpack to much, of one node and of several, at the same time.
    #[tokio::test(start_paused = true)]
    async fn few_uploads_are_checked_at_a_time() {
        let checks = Checks::default();
        let soon = Duration::from_secs(1);
        let first = checks.turn("a").await.unwrap().unwrap();
        assert!(timeout(soon, checks.turn("a")).await.is_err(), "one of each node");
        let second = checks.turn("b").await.unwrap().unwrap();
        assert!(timeout(soon, checks.turn("c")).await.is_err(), "two in all");
        drop(second);
        assert!(checks.turn("c").await.unwrap().is_some());
        drop(first);
        assert!(checks.turn("a").await.unwrap().is_some());
    }

    /// Attack: a node sends garbage again and again. It waits an hour; others do not.
    #[tokio::test]
    async fn a_node_whose_uploads_fail_has_to_wait() {
        let (checks, now) = (Checks::default(), Instant::now());
        for _ in 1..MOST {
            checks.failed("a", now);
        }
        assert!(checks.turn("a").await.is_ok());
        checks.failed("a", now);
        assert!(checks.turn("a").await.is_err() && checks.turn("b").await.is_ok());
        assert_eq!(checks.wait("a", now + HOUR), None);
        for number in 0..KEPT {
            checks.of(&number.to_string(), now);
        }
        checks.of("one more", now);
        assert!(checks.lock().len() < KEPT && checks.wait("a", now).is_some(), "who has failed is not forgotten");
    }
}
