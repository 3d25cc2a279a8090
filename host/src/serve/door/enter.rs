//! The threshold of a door: whoever arrives gets a place and a visit, or is turned away. Never reads what a caller says.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::hall::Hall;
use super::{Arrival, visit};
use crate::origin;

/// Begins a visit, if there is a place for it, and its origin has not called too often. False: the caller was turned away.
pub(super) fn enter<S>(stream: S, arrival: Arrival, hall: &Arc<Hall>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let source = origin::of(&arrival.peer);
    let Some(place) = hall.place(&source) else { return false };
    let Some(wait) = hall.turn(&source) else { return false };
    let hall = Arc::clone(hall);
    tokio::spawn(async move {
        hall.shared.metrics.callers.inc();
        if !wait.is_zero() {
            sleep(wait).await;
        }
        visit::visit(stream, arrival, source, &hall).await;
        hall.shared.metrics.callers.dec();
        drop(place);
    });
    true
}
