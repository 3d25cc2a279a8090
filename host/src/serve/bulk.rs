//! Limits the memory of long bodies: together they have a budget, and each node has one at a time. Uploads and answers have a budget
//! each. Short bodies do not count: the number of connections limits those.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The longest body that does not count.
pub(super) const SHORT: u64 = 64 * 1024;
/// The budget, in units of [`UNIT`].
const UNITS: usize = 48 * 1024;
const UNIT: u64 = 1024;
/// How long a body waits for its share of the budget.
const PATIENCE: Duration = Duration::from_secs(20);
/// A long answer is handed to the connection in parts of this length, so that its share is returned when it has been sent.
const PART: usize = 32 * 1024;

/// The budget.
pub(super) struct Bulk {
    units: Arc<Semaphore>,
    nodes: Arc<Mutex<HashSet<String>>>,
}

/// A share of the budget. It is returned when this is dropped.
pub(super) struct Share {
    _units: Option<OwnedSemaphorePermit>,
    _turn: Option<Turn>,
}

struct Turn {
    nodes: Arc<Mutex<HashSet<String>>>,
    node: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.node);
    }
}

impl Default for Bulk {
    fn default() -> Bulk {
        Bulk { units: Arc::new(Semaphore::new(UNITS)), nodes: Arc::default() }
    }
}

impl Bulk {
    /// A share for a body of a node. `None`: the node has one already, or none became free in time; come back later.
    pub(super) async fn share(&self, node: &str, bytes: u64) -> Option<Share> {
        if bytes <= SHORT {
            return Some(Share { _units: None, _turn: None });
        }
        if !self.nodes.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned()) {
            return None;
        }
        let turn = Turn { nodes: self.nodes.clone(), node: node.to_owned() };
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        let permit = timeout(PATIENCE, self.units.clone().acquire_many_owned(units)).await.ok()?.ok()?;
        Some(Share { _units: Some(permit), _turn: Some(turn) })
    }
}

/// The body of a long answer, with its share.
pub(super) struct Held {
    rest: Bytes,
    _share: Share,
}

impl Held {
    pub(super) fn new(bytes: Bytes, share: Share) -> Held {
        Held { rest: bytes, _share: share }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let part = PART.min(self.rest.len());
        let part = self.rest.split_to(part);
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: many nodes send long bodies at once, and one node many. Short ones go on.
    #[tokio::test(start_paused = true)]
    async fn long_bodies_share_what_there_is() {
        let bulk = Bulk::default();
        let long = 17 * 1024 * 1024;
        let first = bulk.share("node1", long).await.unwrap();
        assert!(bulk.share("node1", long).await.is_none(), "one of each node");
        let second = bulk.share("node2", long).await.unwrap();
        assert!(bulk.share("node3", long).await.is_none(), "the budget is used up");
        assert!(bulk.share("node3", SHORT).await.is_some());
        drop(first);
        let third = bulk.share("node3", long).await;
        assert!(third.is_some() && bulk.share("node1", long).await.is_none());
        drop((second, third));
        assert!(bulk.share("node1", long).await.is_some());
        assert!(bulk.nodes.lock().unwrap().is_empty());
    }
}
