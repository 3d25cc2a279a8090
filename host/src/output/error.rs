//! Why something is not written where it should be, in words.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why something is not written.
#[derive(Debug)]
pub enum OutputError {
    /// The system refuses.
    Io {
        /// What was done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something that cannot be written to.
    Not {
        /// As it was given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Somebody else has put it there.
    Strangers {
        /// As it was given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A link to something that is not there.
    Dangling {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        leads: PathBuf,
    },
    /// An open file that no name leads to.
    NoName(PathBuf),
    /// A file among the devices: a name that was mistyped.
    NoDevice(PathBuf),
    /// A FIFO that nobody has open.
    NoReader(PathBuf),
    /// Somebody put something else there meanwhile.
    Changed(PathBuf),
    /// It is mounted, or part of something that is.
    InUse(PathBuf),
    /// Nodes look at whole drives only.
    Partition(PathBuf),
    /// It cannot be written to.
    ReadOnly(PathBuf),
    /// What a drive is to hold is no image of one.
    NoImage(PathBuf),
    /// The image is larger than the drive.
    TooSmall {
        /// The drive.
        path: PathBuf,
        /// Bytes that it has.
        has: u64,
        /// Bytes of the image.
        needs: u64,
    },
    /// It is not empty, and nobody has said that this may be lost.
    Holds {
        /// The drive.
        path: PathBuf,
        /// What is on it.
        holds: String,
    },
    /// `--overwrite` names something else.
    OtherDrive {
        /// Where to.
        path: PathBuf,
        /// What may be overwritten.
        overwrite: PathBuf,
    },
    /// `--overwrite` for something that is no drive.
    NoDrive(PathBuf),
    /// What is read back is not what was written.
    Differs {
        /// The drive.
        path: PathBuf,
        /// The first byte that differs, from its start.
        at: u64,
    },
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputError::Io { action, path, .. } => write!(f, "{action} {}", path.display()),
            OutputError::Not { path, what } => {
                write!(f, "{} is {what}; give the name of a file", path.display())
            }
            OutputError::Strangers { path, what } => write!(
                f,
                "{} is {what} of another user, who may want to have what is written; remove it, or write to a folder of \
                 your own",
                path.display()
            ),
            OutputError::Dangling { path, leads } => write!(
                f,
                "{} is a link to {}, which is not there; remove the link, or give the file's own name",
                path.display(),
                leads.display()
            ),
            OutputError::NoName(path) => write!(
                f,
                "{} is an open file that cannot be replaced by name; leave out -o to write to standard output",
                path.display()
            ),
            OutputError::NoDevice(path) => write!(
                f,
                "{} is no device, and a file among the devices would be lost; check the name (lsblk lists drives), or \
                 write elsewhere",
                path.display()
            ),
            OutputError::NoReader(path) => {
                write!(f, "{} is a FIFO that nobody reads; start its reader first", path.display())
            }
            OutputError::Changed(path) => {
                write!(f, "{} was replaced by something else meanwhile; look at it, and try again", path.display())
            }
            OutputError::InUse(path) => write!(
                f,
                "{} is in use: it or a part of it is mounted, swap, or part of a volume group, RAID or encrypted \
                 device; unmount it first (lsblk shows what holds it)",
                path.display()
            ),
            OutputError::Partition(path) => write!(
                f,
                "{} is a partition, and nodes look at whole drives only; give the name of the drive",
                path.display()
            ),
            OutputError::ReadOnly(path) => {
                write!(f, "{} can only be read; look for its switch, or give another drive", path.display())
            }
            OutputError::NoImage(path) => write!(
                f,
                "{} is a drive, on which nodes look for a config drive only; give --as iso or --as vfat",
                path.display()
            ),
            OutputError::TooSmall { path, has, needs } => write!(
                f,
                "{} has {has} bytes and the image {needs}; nothing was written, give a larger drive",
                path.display()
            ),
            OutputError::Holds { path, holds } => write!(
                f,
                "{path} holds {holds}; nothing was written. To lose that, name the drive a second time: --overwrite {path}",
                path = path.display()
            ),
            OutputError::OtherDrive { path, overwrite } => write!(
                f,
                "-o says {} and --overwrite {}; nothing was written, give both the same name",
                path.display(),
                overwrite.display()
            ),
            OutputError::NoDrive(path) => write!(
                f,
                "{} is no drive, so there is nothing to overwrite; leave out --overwrite, or check the name",
                path.display()
            ),
            OutputError::Differs { path, at } => write!(
                f,
                "{} does not give back what was written to byte {at}: the drive is broken, or smaller than it says; use \
                 another one",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OutputError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
