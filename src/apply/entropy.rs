//! Seeds the kernel's random pool and waits until the pool is ready. Never decides whether a seed is credited: the plan
//! does.

use std::path::Path;

use crate::plan::SeedPlan;
use crate::pool::{self, EntropyError, Seeded};
use crate::time::Deadline;

/// Mixes the seed in, credits it if the plan says so, and waits for the pool.
pub fn seed(plan: &Option<SeedPlan>, root: &Path, deadline: Deadline) -> Result<Seeded, EntropyError> {
    pool::seed(plan.as_ref().map(|plan| (plan.bytes.expose(), plan.credit_bits)), root, deadline)
}
