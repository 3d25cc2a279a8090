//! The errors of a damaged FAT volume, with messages for the person who wrote the volume. Never reads a volume.

use std::fmt;

/// A structure of a FAT volume that contradicts itself. Offsets are in bytes from the start of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FatError {
    /// BPB_BytsPerSec
    SectorSize {
        /// What stands there.
        value: u16,
    },
    /// BPB_SecPerClus
    ClusterSize {
        /// What stands there.
        value: u8,
    },
    /// BPB_RsvdSecCnt is 0, but the boot sector itself is a reserved sector.
    NoReservedSectors,
    /// BPB_NumFATs
    NoFats,
    /// BPB_Media
    Media {
        /// What stands there.
        value: u8,
    },
    /// BPB_FATSz16 and BPB_FATSz32 are both 0.
    NoFatSize,
    /// BPB_TotSec: the volume has fewer sectors than the structures before its data.
    TooFewSectors {
        /// Sectors of the volume.
        total: u32,
        /// Sectors of the reserved area, the FATs and the root directory.
        tables: u64,
    },
    /// The volume has more clusters than its kind of FAT can number.
    TooManyClusters {
        /// The clusters of the volume.
        clusters: u64,
        /// The most clusters that are possible.
        most: u32,
    },
    /// BPB_FATSz: the FAT is too short for the clusters of the volume.
    FatTooShort {
        /// The length of the FAT in sectors.
        sectors: u32,
        /// The clusters of the volume.
        clusters: u32,
    },
    /// BPB_FSVer: a later version of FAT32.
    Version {
        /// What stands there.
        value: u16,
    },
    /// BPB_ExtFlags names a FAT that does not exist.
    ActiveFat {
        /// The number of the FAT, from 0.
        number: u8,
        /// How many FATs the volume has.
        fats: u8,
    },
    /// A chain leads to a cluster that the volume does not have.
    ClusterNumber {
        /// Where the number stands.
        offset: u64,
        /// The number.
        cluster: u32,
        /// The last cluster of the volume.
        last: u32,
    },
    /// In a chain, the FAT marks the cluster that follows as bad.
    BadCluster {
        /// Where the mark stands.
        offset: u64,
        /// The cluster before the bad one.
        after: u32,
    },
    /// A chain leads to a cluster that the FAT marks as free.
    FreeCluster {
        /// Where the mark stands.
        offset: u64,
        /// The cluster.
        cluster: u32,
    },
    /// A chain of clusters is a loop.
    Loop {
        /// Where the number stands that leads back into the chain.
        offset: u64,
        /// The cluster that appears a second time.
        cluster: u32,
    },
    /// A directory of more than 65536 entries.
    DirectoryTooLong {
        /// The first cluster of the directory.
        cluster: u32,
    },
    /// The chain of a file is shorter than the file.
    ChainTooShort {
        /// Where the directory entry is.
        offset: u64,
        /// The file's length in bytes.
        len: u32,
        /// Bytes in the chain.
        have: u64,
    },
    /// The chain of a file is longer than the file.
    ChainTooLong {
        /// Where the directory entry is.
        offset: u64,
        /// The file's length in bytes.
        len: u32,
        /// The first cluster that is too many.
        cluster: u32,
    },
}

impl fmt::Display for FatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FatError::SectorSize { value } => write!(f, "bytes per sector at byte 11 are {value}, not 512 to 4096"),
            FatError::ClusterSize { value } => {
                write!(f, "sectors per cluster at byte 13 are {value}, not a power of two")
            }
            FatError::NoReservedSectors => write!(f, "reserved sectors at byte 14 are 0"),
            FatError::NoFats => write!(f, "the number of FATs at byte 16 is 0"),
            FatError::Media { value } => {
                write!(f, "the medium's type at byte 21 is {value:#04x}, not 0xf0 or 0xf8 to 0xff")
            }
            FatError::NoFatSize => write!(f, "sectors per FAT at bytes 22 and 36 are both 0"),
            FatError::TooFewSectors { total, tables } => {
                write!(f, "the volume has {total} sectors (bytes 19 and 32), its tables alone take {tables}")
            }
            FatError::TooManyClusters { clusters, most } => {
                write!(f, "bytes 13, 19 and 32 give {clusters} clusters; at most {most} are possible")
            }
            FatError::FatTooShort { sectors, clusters } => {
                write!(f, "{sectors} sectors per FAT (bytes 22 and 36) are too few for {clusters} clusters")
            }
            FatError::Version { value } => write!(f, "the FAT32 version at byte 42 is {value:#06x}, not 0"),
            FatError::ActiveFat { number, fats } => {
                write!(f, "byte 40 selects FAT number {number}, but the volume has only {fats}, counted from 0")
            }
            FatError::ClusterNumber { offset, cluster, last } => {
                write!(f, "cluster {cluster} at byte {offset} is outside of 2 to {last}")
            }
            FatError::BadCluster { offset, after } => {
                write!(f, "the FAT at byte {offset} has a bad cluster after cluster {after}")
            }
            FatError::FreeCluster { offset, cluster } => {
                write!(f, "the FAT at byte {offset} marks cluster {cluster} as free, but a file or directory uses it")
            }
            FatError::Loop { offset, cluster } => {
                write!(f, "the FAT at byte {offset} leads back to cluster {cluster}")
            }
            FatError::DirectoryTooLong { cluster } => {
                write!(f, "the directory at cluster {cluster} has more than 65536 entries")
            }
            FatError::ChainTooShort { offset, len, have } => {
                write!(f, "the file of the entry at byte {offset} has {len} bytes, and its clusters only {have}")
            }
            FatError::ChainTooLong { offset, len, cluster } => {
                write!(f, "the file of the entry at byte {offset} has {len} bytes, and its clusters go on at {cluster}")
            }
        }?;
        f.write_str("; write the volume again")
    }
}

impl std::error::Error for FatError {}
