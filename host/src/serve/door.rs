//! The door: listeners that answer whoever calls with the line protocol (docs/door.md), and let nodes in by rule. Every
//! payload that leaves here is sealed for the line key of this boot and signed for this moment, whatever the transport: no
//! transport is trusted. Never decides who is let in; `admission` does.

mod spec;
mod listen;
mod tcp;
mod vsock;
mod unix;
mod ether;
mod enter;
mod visit;
mod hall;

pub use listen::DoorError;
pub(super) use listen::{Doors, open};
pub use spec::DoorSpec;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{ServeError, Shared};
use crate::admission::Facts;
use crate::state::State;
use hall::Hall;

/// A node that has come and has said nothing yet.
struct Arrival {
    /// Where it calls from, for people: `tcp:192.0.2.1:40000`.
    from: String,
    /// The other end for the audit log. Limits count by its origin.
    peer: String,
    /// What the door knows of it.
    facts: Facts,
    /// The line is that of a machine that may be off: it may say nothing for as long as it likes, and its first bytes may be
    /// those of a boot loader.
    patient: bool,
}

/// An error if a node at these doors could not be sent a signed payload.
pub(super) fn may_open(doors: &[DoorSpec], state: &State) -> Result<(), ServeError> {
    match doors.first() {
        Some(door) if state.ca.signing_key()?.is_none() => Err(DoorError::NoSigner(door.to_string()).into()),
        _ => Ok(()),
    }
}

/// Serves all doors until the server stops, at most so many nodes at a time. Conversations are then cut; nodes call again.
pub(super) async fn serve(doors: Doors, shared: Arc<Shared>, places: usize, mut stopped: watch::Receiver<bool>) {
    let hall = Hall::new(shared, places);
    let mut tasks = JoinSet::new();
    tasks.spawn(hall::watch(Arc::clone(&hall)));
    for (_, door) in doors.0 {
        tasks.spawn(listen::accept(door, Arc::clone(&hall)));
    }
    // An error means that the server is gone.
    let _ = stopped.changed().await;
    hall.close().await;
}
