//! The threshold of a door: whoever arrives gets a place and a visit, or is turned away. Never reads what a caller says.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::hall::Hall;
use super::{Arrival, visit};
use crate::origin;

/// Begins a visit, if there is a place for it.
pub(super) fn enter<S>(stream: S, arrival: Arrival, hall: &Arc<Hall>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let source = origin::of(&arrival.peer);
    let Some(place) = hall.place(&source) else {
        tracing::debug!("door {}: closed, there are too many callers", arrival.from);
        hall.shared.metrics.turned_away("door");
        return;
    };
    let hall = Arc::clone(hall);
    tokio::spawn(async move {
        hall.shared.metrics.callers.inc();
        visit::visit(stream, arrival, source, &hall).await;
        hall.shared.metrics.callers.dec();
        drop(place);
    });
}
