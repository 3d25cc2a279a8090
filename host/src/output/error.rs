//! Why an output is not written: errors and their messages. Does no I/O.

use std::io;
use std::path::PathBuf;

/// Why an output is not written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The system refused an operation.
    #[error("{action} {}", .path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The path is something that cannot be written to.
    #[error("{} is {what}; give the name of a file", .path.display())]
    Not {
        /// The path, as it was given.
        path: PathBuf,
        /// What is at the path.
        what: &'static str,
    },
    /// A file that is there already, and would be lost.
    #[error("{} is there already, and stays as it is; give the name of a new file", .0.display())]
    Exists(PathBuf),
    /// A link or FIFO of another user.
    #[error(
        "{} is {what} of another user, who could read or redirect the output; remove it, or write to a folder of your \
         own",
        .path.display()
    )]
    Strangers {
        /// The path, as it was given.
        path: PathBuf,
        /// What is at the path.
        what: &'static str,
    },
    /// A link to something that is not there.
    #[error(
        "{} is a link to {}, which is not there; remove the link, or give the file's own name",
        .path.display(), .leads.display()
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        leads: PathBuf,
    },
    /// An open file without a name.
    #[error(
        "{} is an open file that cannot be replaced by name; leave out -o to write to standard output",
        .0.display()
    )]
    NoName(PathBuf),
    /// A new file under /dev: probably a mistyped name.
    #[error(
        "{} is not a device, and a file among the devices would be lost; check the name (lsblk lists drives), or write \
         elsewhere",
        .0.display()
    )]
    NoDevice(PathBuf),
    /// A FIFO without a reader.
    #[error("{} is a FIFO that nobody reads; start its reader first", .0.display())]
    NoReader(PathBuf),
    /// The path was replaced between the check and the opening.
    #[error("{} was replaced by something else meanwhile; look at it, and try again", .0.display())]
    Changed(PathBuf),
    /// The drive is mounted, or part of something in use.
    #[error(
        "{} is in use: it or a part of it is mounted, swap, or part of a volume group, RAID or encrypted device; \
         unmount it first (lsblk shows what holds it)",
        .0.display()
    )]
    InUse(PathBuf),
    /// A partition: nodes look at whole drives only.
    #[error("{} is a partition, and only whole drives are written to; give the name of the drive, or copy the file of --as cbor there with dd", .0.display())]
    Partition(PathBuf),
    /// The drive is read-only.
    #[error("{} is read-only; check its write-protect switch, or give another drive", .0.display())]
    ReadOnly(PathBuf),
    /// The form (`--as`) is not an image of a drive.
    #[error("{} is a drive, and only a config drive is written to one; give --as iso or --as vfat", .0.display())]
    NoImage(PathBuf),
    /// The image is larger than the drive.
    #[error("{} has {has} bytes and the image {needs}; nothing was written, give a larger drive", .path.display())]
    TooSmall {
        /// The drive.
        path: PathBuf,
        /// Bytes that it has.
        has: u64,
        /// Bytes of the image.
        needs: u64,
    },
    /// The drive holds something, and the user has not said that it may be lost.
    #[error(
        "{path} holds {holds}; nothing was written. To overwrite it, name the drive again: --overwrite {path}",
        path = .path.display()
    )]
    Holds {
        /// The drive.
        path: PathBuf,
        /// What the drive holds.
        holds: String,
    },
    /// `--overwrite` names something else.
    #[error(
        "-o says {} and --overwrite {}; nothing was written, give both the same name",
        .path.display(), .overwrite.display()
    )]
    OtherDrive {
        /// The path of `-o`.
        path: PathBuf,
        /// The path of `--overwrite`.
        overwrite: PathBuf,
    },
    /// `--overwrite` for something that is not a drive.
    #[error(
        "{} is not a drive, so there is nothing to overwrite; leave out --overwrite, or check the name",
        .0.display()
    )]
    NoDrive(PathBuf),
    /// The drive does not give back what was written.
    #[error(
        "{} does not give back what was written to byte {at}: the drive is broken, or smaller than it says; use \
         another one",
        .path.display()
    )]
    Differs {
        /// The drive.
        path: PathBuf,
        /// The first byte that differs, from its start.
        at: u64,
    },
}
