//! Swap space that leaves nothing behind. On a partition that `imprint swap prepare` has prepared, the kernel encrypts each page with a key
//! that is made at each boot and kept nowhere else ([`disk`]); compressed memory is in its place where there is no such partition
//! ([`zram`]). Only type and marker decide that a partition is used ([`crate::source::swap_mark`]); nothing else is ever written. Whatever
//! fails here stops no boot: the caller says so, once.

mod find;
mod disk;
mod zram;
mod prepare;
mod signs;
mod mapper;
mod header;
mod sysfs;
mod told;
mod error;

use std::path::Path;
use std::time::Duration;

pub use error::SwapError;
pub use prepare::prepare;
pub use told::{Area, Kind, SWAP, Told};

use crate::confidential;
use crate::options::Swap;
use crate::pool::Seeded;
use crate::time::Deadline;

/// How long the kernel's random pool is waited for. The boot has seeded it before.
const POOL: Duration = Duration::from_secs(60);

/// What became of the swap space that was asked for.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is in use.
    pub areas: Vec<Area>,
    /// Why there is no more.
    pub errors: Vec<SwapError>,
}

/// Sets up the swap space that `wanted` asks for. `program` reads a drive: [`crate::source::reader::PROGRAM`].
pub fn on(root: &Path, wanted: Swap, program: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    if wanted == Swap::Off {
        return outcome;
    }
    // Who asks for swap space by a word has time to wait for slow disks. Most machines have none, and must not wait.
    match find::find(root, program, wanted != Swap::Auto) {
        Ok(found) => {
            outcome.errors = found.changed;
            found.ours.iter().for_each(|partition| outcome.take(of_disk(root, partition)));
        }
        Err(error) => outcome.errors.push(error),
    }
    if let (Swap::Zram(percent), []) = (wanted, outcome.areas.as_slice()) {
        outcome.take(ready().and_then(|seeded| zram::enable(root, percent, &seeded)));
    }
    if wanted == Swap::Disk && outcome.is_nothing() {
        outcome.errors.push(SwapError::None);
    }
    outcome
}

impl Outcome {
    /// Whether no swap space was prepared, and none was asked for.
    pub fn is_nothing(&self) -> bool {
        self.areas.is_empty() && self.errors.is_empty()
    }

    fn take(&mut self, result: Result<Area, SwapError>) {
        match result {
            Ok(area) => self.areas.push(area),
            Err(error) => self.errors.push(error),
        }
    }
}

fn of_disk(root: &Path, partition: &find::Partition) -> Result<Area, SwapError> {
    // Whoever owns the disk could change the memory of such a machine there, or put back what was in it before: the cipher keeps it
    // secret, and does not notice that.
    if confidential::detect(root).is_some() {
        return Err(SwapError::Confidential { device: partition.name.clone() });
    }
    disk::enable(root, partition, &ready()?)
}

fn ready() -> Result<Seeded, SwapError> {
    Seeded::ready(Deadline::after(POOL)).map_err(SwapError::Pool)
}
