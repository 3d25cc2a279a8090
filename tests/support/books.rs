//! What tests write into a host's books by themselves.

use imprint::time::Timestamp;
use imprint_host::state::State;

/// The node's latest certificate is in use: it was shown in a handshake.
pub fn in_use(state: &mut State, node: &str) {
    let serial = state.store.latest(node).unwrap().0.unwrap().serial;
    let changes = state.store.changes().unwrap();
    changes.seen(&serial, Timestamp::system()).unwrap();
    changes.commit().unwrap();
}
