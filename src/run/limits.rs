//! How long the steps of a run may take. Never waits.

use std::time::Duration;

use crate::time::Deadline;

/// How long all steps may take, and how long the administrator's approval may take, which has its own limit.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) deadline: Deadline,
    /// How long each thing may take that begins after a wait without a limit.
    pub(super) timeout: Duration,
    pub(super) approval: Option<Duration>,
}
