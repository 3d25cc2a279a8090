//! Whose events are told next. One event of each node at a time; after a failure its turn comes later and later. Tells nobody.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// The first wait after a failure. Each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// What became of a turn.
pub(super) enum Done {
    /// The program has the event. `more`: the node has another one.
    Told { more: bool },
    /// The node has no event.
    Nothing,
    /// The event is told again. `sent`: unless the program has this one.
    Failed { sent: Option<i64> },
}

/// Nodes with events.
#[derive(Default)]
pub(super) struct Queue {
    /// Nodes that have their turn, wait for it, or wait after a failure.
    known: HashSet<String>,
    /// Nodes with an event that came while they were known.
    again: HashSet<String>,
    ready: VecDeque<String>,
    later: BinaryHeap<Reverse<(Instant, String)>>,
    failures: HashMap<String, u32>,
    /// Events that the program has, and the store still holds.
    sent: HashMap<String, i64>,
    /// The last event that was found.
    seen: i64,
}

impl Queue {
    /// The number of the last event that was found.
    pub(super) fn seen(&self) -> i64 {
        self.seen
    }

    /// Nodes with events after the last one, and the number of the last one now.
    pub(super) fn found(&mut self, nodes: Vec<String>, last: i64) {
        self.seen = last;
        for node in nodes {
            if self.known.insert(node.clone()) {
                self.ready.push_back(node);
            } else {
                // The turn of the node may have ended without seeing this event.
                self.again.insert(node);
            }
        }
    }

    /// The node whose turn it is, and the event that is not to be told again.
    pub(super) fn next(&mut self, now: Instant) -> Option<(String, Option<i64>)> {
        while let Some(Reverse((at, _))) = self.later.peek()
            && *at <= now
            && let Some(Reverse((_, node))) = self.later.pop()
        {
            self.ready.push_back(node);
        }
        let node = self.ready.pop_front()?;
        let sent = self.sent.get(&node).copied();
        Some((node, sent))
    }

    /// When the next node has waited long enough after a failure.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.later.peek().map(|Reverse((at, _))| *at)
    }

    /// A turn has ended.
    pub(super) fn done(&mut self, node: String, done: Done, now: Instant) {
        let again = self.again.remove(&node);
        let more = match done {
            Done::Failed { sent } => {
                if let Some(id) = sent {
                    self.sent.insert(node.clone(), id);
                }
                let failures = self.failures.entry(node.clone()).or_default();
                let wait = FIRST.saturating_mul(1 << (*failures).min(16)).min(LONGEST);
                *failures = failures.saturating_add(1);
                self.later.push(Reverse((now + wait, node)));
                return;
            }
            Done::Told { more } => more,
            Done::Nothing => false,
        };
        self.failures.remove(&node);
        self.sent.remove(&node);
        if more || again {
            self.ready.push_back(node);
        } else {
            self.known.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.next(now).map(|(node, _)| node)).collect()
    }

    /// The accident: what one node's events are told to does not answer. Others have their turn, and the node's own events
    /// stay in order: it has one turn at a time.
    #[tokio::test]
    async fn a_node_that_fails_holds_up_no_other() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.found(vec!["a".into(), "b".into()], 2);
        assert_eq!(turns(&mut queue, now), ["a", "b"]);
        queue.found(vec!["a".into(), "c".into()], 4);
        assert_eq!(turns(&mut queue, now), ["c"], "a and b have their turn already");
        queue.done("a".into(), Done::Failed { sent: None }, now);
        queue.done("b".into(), Done::Told { more: true }, now);
        assert_eq!(turns(&mut queue, now), ["b"]);
        assert_eq!(queue.earliest(), Some(now + FIRST));
        assert_eq!(turns(&mut queue, now + FIRST), ["a"]);
        queue.done("a".into(), Done::Failed { sent: Some(1) }, now);
        assert_eq!(queue.next(now + FIRST), None, "the second wait is longer");
        assert_eq!(queue.next(now + FIRST * 2), Some(("a".to_owned(), Some(1))));
        for _ in 0..20 {
            queue.done("a".into(), Done::Failed { sent: None }, now);
            assert!(queue.earliest().unwrap() <= now + LONGEST);
            assert!(queue.next(now + LONGEST).is_some());
        }
    }

    /// The accident: an event is stored while the turn of its node ends.
    #[tokio::test]
    async fn an_event_that_comes_at_the_end_of_a_turn_is_not_forgotten() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.found(vec!["a".into()], 1);
        assert_eq!(turns(&mut queue, now), ["a"]);
        queue.found(vec!["a".into()], 2);
        queue.done("a".into(), Done::Told { more: false }, now);
        assert_eq!(turns(&mut queue, now), ["a"]);
        queue.done("a".into(), Done::Nothing, now);
        assert!(queue.known.is_empty() && turns(&mut queue, now).is_empty());
        assert_eq!(queue.seen(), 2);
    }
}
