//! Why there is no swap space, or why a partition is not prepared for it.

use std::fmt;
use std::io;

use crate::pool::EntropyError;
use crate::source::medium::VolumeError;
use crate::source::swap_mark::LEAST;

/// Why there is no swap space, or why a partition is not prepared for it.
#[derive(Debug)]
pub enum SwapError {
    /// A device cannot be opened, or its reader cannot be started.
    Open {
        /// `vdb2`, or as it was given.
        device: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The device cannot be read.
    Read {
        /// `vdb2`
        device: String,
        /// What happened.
        source: VolumeError,
    },
    /// The device cannot be written.
    Write {
        /// `vdb2`
        device: String,
        /// The error of the system.
        source: io::Error,
    },
    /// `prepare` was given something else than a partition of a disk.
    NotAPartition(String),
    /// The partition table of its disk cannot be used, or says otherwise than the kernel.
    Table {
        /// `vdb`
        disk: String,
        /// What is wrong.
        why: String,
    },
    /// The type of the partition is another one.
    NotSwap {
        /// `vdb2`
        device: String,
        /// `vdb`
        disk: String,
        /// The number in the table.
        number: u32,
    },
    /// It is too small.
    Small {
        /// `vdb2`
        device: String,
        /// Its length.
        bytes: u64,
    },
    /// No boot would use it.
    PassedOver {
        /// `sdb2`
        device: String,
        /// `sdb`
        disk: String,
        /// What the disk is.
        why: &'static str,
    },
    /// A disk was not searched for swap space.
    Silent(String),
    /// There is something on it.
    Holds {
        /// `vdb2`
        device: String,
        /// `an ext file system`
        what: &'static str,
    },
    /// It is mounted, swap space in use, or part of another device.
    InUse {
        /// `vdb2`
        device: String,
        /// Who uses it, where the kernel tells.
        by: Option<String>,
    },
    /// Nobody can be asked.
    NoTerminal,
    /// The answer was another one.
    Unconfirmed,
    /// A partition with a marker is not as it was prepared.
    Changed {
        /// `vdb2`
        device: String,
        /// What was changed.
        why: String,
    },
    /// `imprint.swap=disk`, and no partition is prepared.
    None,
    /// The machine is a confidential virtual machine, and the disk is not part of it.
    Confidential {
        /// `vdb2`
        device: String,
    },
    /// The kernel's random pool is not ready.
    Pool(EntropyError),
    /// The key cannot be made, or the kernel does not take it.
    Key(io::Error),
    /// device-mapper does not do it.
    Mapper {
        /// What was asked for.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no compressed memory.
    Zram {
        /// What was asked for.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The kernel does not use it as swap space.
    Activate {
        /// `dm-0`
        device: String,
        /// The error of the system.
        source: io::Error,
    },
    /// Disks cannot be looked for.
    Watch(io::Error),
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwapError::Open { device, .. } => write!(f, "opening {device}"),
            SwapError::Read { device, .. } => write!(f, "reading {device}"),
            SwapError::Write { device, .. } => write!(f, "writing {device}"),
            SwapError::NotAPartition(device) => write!(
                f,
                "{device} is no partition of a disk; swap space is never made on a whole disk or on another kind of device, so make a \
                 partition for it"
            ),
            SwapError::Table { disk, why } => write!(f, "the partition table of {disk} cannot be relied on: {why}"),
            SwapError::NotSwap { device, disk, number } => write!(
                f,
                "the type of {device} in the partition table is not Linux swap; if it is for swap space, set the type: sfdisk \
                 --part-type /dev/{disk} {number} swap"
            ),
            SwapError::Small { device, bytes } => write!(
                f,
                "{device} has {bytes} bytes, and swap space takes {LEAST} at least; make the partition larger"
            ),
            SwapError::PassedOver { device, disk, why } => write!(
                f,
                "{device} would never be used, because no boot looks for swap space on {disk}: {why}; take a partition of a disk in the \
                 machine"
            ),
            SwapError::Silent(disk) => write!(
                f,
                "{disk} does not answer, so it was not searched for swap space; check the drive, its cable, or the server behind it"
            ),
            SwapError::Holds { device, what } => write!(
                f,
                "{device} holds {what}; if nobody needs that any more, clear it (wipefs --all /dev/{device}), and try again"
            ),
            SwapError::InUse { device, by } => {
                write!(f, "{device} is in use")?;
                by.as_ref().map_or(Ok(()), |by| write!(f, " by {by}"))?;
                f.write_str("; unmount it, or end its use as swap space or as a part of another device")
            }
            SwapError::NoTerminal => f.write_str(
                "imprint swap prepare asks twice before it writes, and standard input is no terminal; run it by hand",
            ),
            SwapError::Unconfirmed => f.write_str("the answer was another one, so nothing was written"),
            SwapError::Changed { device, why } => write!(
                f,
                "{device} was prepared for swap space and is not used: {why}; run imprint swap prepare on it again, or give it the type \
                 of what is on it now"
            ),
            SwapError::None => f.write_str(
                "imprint.swap=disk, and no disk has a partition that is prepared for swap space; run imprint swap prepare on one",
            ),
            SwapError::Confidential { device } => write!(
                f,
                "{device} is not used as swap space, since whoever runs this confidential machine could change its memory there; use \
                 imprint.swap=zram"
            ),
            SwapError::Pool(_) => f.write_str("no key for swap space"),
            SwapError::Key(_) => f.write_str("giving the key of swap space to the kernel"),
            SwapError::Mapper { what, .. } => {
                write!(f, "device-mapper: {what}; the initramfs needs the modules dm_mod, dm_crypt, xts and aes")
            }
            SwapError::Zram { what, .. } => {
                write!(f, "compressed memory: {what}; the initramfs needs the module zram")
            }
            SwapError::Activate { device, .. } => write!(f, "using {device} as swap space"),
            SwapError::Watch(_) => f.write_str("looking for disks with swap space"),
        }
    }
}

impl std::error::Error for SwapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SwapError::Open { source, .. }
            | SwapError::Write { source, .. }
            | SwapError::Mapper { source, .. }
            | SwapError::Zram { source, .. }
            | SwapError::Activate { source, .. }
            | SwapError::Key(source)
            | SwapError::Watch(source) => Some(source),
            SwapError::Read { source, .. } => Some(source),
            SwapError::Pool(source) => Some(source),
            _ => None,
        }
    }
}
