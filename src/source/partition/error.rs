//! Why a partition table cannot be used, in words that say how to boot without it and how to mend it. Decides nothing.

use std::fmt;

/// Why a partition table cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableError {
    /// The MBR has an entry that protects a GPT, and there is no GPT.
    NoGpt,
    /// There is a GPT, and the MBR does not protect it: the disk was partitioned again by a program that knows no GPT.
    Unprotected,
    /// The primary GPT contradicts itself, and there is no valid backup; what is wrong with the primary.
    Header(&'static str),
    /// Primary and backup are both valid and differ.
    Differ,
    /// Two partitions have sectors in common.
    Overlap(u32, u32),
    /// A partition ends before it begins, or goes beyond the sectors that the table is for, or beyond the disk.
    Outside(u32),
    /// A partition of the MBR that the GPT beside it does not have.
    Hybrid(u32),
    /// The logical partitions in this extended partition cannot be read; why.
    Chain(u32, &'static str),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::NoGpt => f.write_str(
                "the MBR says that the disk has a GPT, but there is no GPT; name another source with imprint.source= to boot without it, or \
                 partition the disk again, which erases it",
            ),
            TableError::Unprotected => f.write_str(
                "the disk has a GPT, but its MBR does not protect it; gdisk asks which of the two counts (2: GPT), and sgdisk -z removes \
                 the GPT and keeps the MBR; neither erases a partition",
            ),
            TableError::Header(why) => write!(
                f,
                "the GPT is damaged and has no valid backup: {why}; repair it with gdisk (r), or name another imprint.source=; \
                 partitioning anew erases the disk"
            ),
            TableError::Differ => f.write_str(
                "the primary and the backup GPT are both valid, but differ; sgdisk -e DEVICE keeps the primary and writes the \
                 backup anew",
            ),
            TableError::Overlap(first, second) => write!(
                f,
                "partitions {first} and {second} overlap; name another source with imprint.source= to boot without them, or \
                 partition the disk again, which erases it"
            ),
            TableError::Outside(number) => write!(
                f,
                "partition {number} goes beyond the disk or the limits of its table; name another source with imprint.source= to boot without it, or \
                 partition the disk again, which erases it"
            ),
            TableError::Hybrid(number) => write!(
                f,
                "partition {number} of the MBR is not in the GPT (a hybrid MBR); the MBR needs a protective entry and \
                 no other: gdisk DEVICE makes it so (x, n, w)"
            ),
            TableError::Chain(number, why) => {
                write!(f, "the chain of logical partitions in partition {number} is damaged: {why}; name another source with imprint.source= to boot \
                     without it, or partition the disk again, which erases it")
            }
        }
    }
}

impl std::error::Error for TableError {}
