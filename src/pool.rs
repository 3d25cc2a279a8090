//! The kernel's random pool: mixes a seed in, and waits until the pool is ready. Never decides how much a seed is
//! credited; `plan` does that.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::sys;
use crate::time::{Deadline, since_boot};

/// Proof that the pool was ready. Only this file can make a `Seeded`, and making a key requires one.
#[derive(Debug)]
pub struct Seeded {
    how: How,
}

/// How the pool became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Already,
    BySeed,
    Waited,
}

/// The text for the console.
impl fmt::Display for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.how {
            How::Already => "the pool was ready",
            How::BySeed => "the seed made the pool ready",
            How::Waited => "waited until the pool was ready",
        })
    }
}

/// Why no key can be made.
#[derive(Debug)]
pub enum EntropyError {
    /// The seed could not be mixed in.
    Seed {
        /// Bytes of seed.
        bytes: usize,
        /// Bits to credit.
        credit_bits: u32,
        /// The error of the kernel.
        source: io::Error,
    },
    /// Asking whether the pool is ready failed.
    Pool(io::Error),
    /// The pool was not ready by the deadline.
    NotReady {
        /// How long the agent waited.
        waited: Duration,
    },
}

/// Mixes a seed in, credits it with this many bits, and waits until the pool is ready.
pub fn seed(seed: Option<(&[u8], u32)>, root: &Path, deadline: Deadline) -> Result<Seeded, EntropyError> {
    let was_ready = sys::pool_ready(false).map_err(EntropyError::Pool)?;
    if let Some((seed, credit_bits)) = seed {
        mix(seed, credit_bits, root).map_err(|source| EntropyError::Seed { bytes: seed.len(), credit_bits, source })?;
    }
    let seeded = Seeded::ready(deadline)?;
    let by_seed = !was_ready && seeded.how == How::Already;
    Ok(if by_seed { Seeded { how: How::BySeed } } else { seeded })
}

fn mix(seed: &[u8], credit_bits: u32, root: &Path) -> io::Result<()> {
    let mut pool = OpenOptions::new().write(true).open(root.join("dev/urandom"))?;
    match credit_bits {
        // random(4): writing mixes the bytes in without credit, and needs no privilege.
        0 => pool.write_all(seed),
        bits => sys::add_entropy(&pool, seed, bits),
    }
}

impl Seeded {
    /// Waits until the pool is ready. On a running machine it is ready already.
    pub fn ready(deadline: Deadline) -> Result<Seeded, EntropyError> {
        if sys::pool_ready(false).map_err(EntropyError::Pool)? {
            return Ok(Seeded { how: How::Already });
        }
        let start = since_boot();
        // A thread blocks in getrandom(2): this makes the kernel gather entropy meanwhile, which poll(2) on /dev/random
        // does not. After the deadline the thread is left behind; it ends with the process.
        let (sender, receiver) = sync_channel(1);
        let waiter = move || drop(sender.send(sys::pool_ready(true)));
        std::thread::Builder::new().spawn(waiter).map_err(EntropyError::Pool)?;
        match receiver.recv_timeout(deadline.remaining()) {
            Ok(Ok(_)) => Ok(Seeded { how: How::Waited }),
            Ok(Err(error)) => Err(EntropyError::Pool(error)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(EntropyError::NotReady { waited: since_boot().saturating_sub(start) })
            }
        }
    }
}

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntropyError::Seed { bytes, credit_bits: 0, .. } => write!(f, "mixing {bytes} bytes into the random pool"),
            EntropyError::Seed { bytes, credit_bits, .. } => {
                write!(
                    f,
                    "crediting {bytes} bytes with {credit_bits} bits to the random pool, which needs CAP_SYS_ADMIN; \
                     run imprint as root"
                )
            }
            EntropyError::Pool(_) => f.write_str("asking whether the random pool is ready"),
            EntropyError::NotReady { waited } => write!(
                f,
                "the kernel's random pool was not ready after {:.1} s, so no key was made; give the payload a \
                 single-boot seed, or the machine a virtio-rng device",
                waited.as_secs_f64()
            ),
        }
    }
}

impl std::error::Error for EntropyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EntropyError::Seed { source, .. } | EntropyError::Pool(source) => Some(source),
            EntropyError::NotReady { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &[u8] = &[7; 32];

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    #[test]
    fn a_seed_without_credit_is_only_written() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let pool = root.path().join("dev/urandom");
        std::fs::write(&pool, "").unwrap();
        seed(Some((SEED, 0)), root.path(), soon()).unwrap();
        assert_eq!(std::fs::read(&pool).unwrap(), [7; 32]);
    }

    #[test]
    fn a_credited_seed_is_never_written_as_plain_data_instead() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let pool = root.path().join("dev/urandom");
        std::fs::write(&pool, "").unwrap();
        let error = seed(Some((SEED, 256)), root.path(), soon()).unwrap_err();
        assert_eq!(
            crate::chain::chain(&error),
            "crediting 32 bytes with 256 bits to the random pool, which needs CAP_SYS_ADMIN; run imprint as root: \
             Inappropriate ioctl for device (os error 25)"
        );
        assert!(std::fs::read(&pool).unwrap().is_empty());
    }

    #[test]
    fn no_seed_is_fine_once_the_pool_is_ready() {
        seed(None, Path::new("/"), Deadline::after(Duration::ZERO)).unwrap();
    }

    #[test]
    fn the_error_names_the_remedy() {
        let error = EntropyError::NotReady { waited: Duration::from_millis(30_010) };
        assert_eq!(
            error.to_string(),
            "the kernel's random pool was not ready after 30.0 s, so no key was made; give the payload a single-boot \
             seed, or the machine a virtio-rng device"
        );
    }
}
