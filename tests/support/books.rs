//! Changes that tests make in a host's store directly. Reads no other state.

use imprint::time::Timestamp;
use imprint_host::state::State;

/// Marks the node's newest certificate as in use, as if a client had shown it in a handshake.
pub fn in_use(state: &mut State, node: &str) {
    let serial = state.store.latest(node).unwrap().0.unwrap().serial;
    let changes = state.store.changes().unwrap();
    changes.seen(&serial, Timestamp::system()).unwrap();
    changes.commit().unwrap();
}
