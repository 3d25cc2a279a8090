//! Finding the payload: ordered sources, the first that is present wins, a broken one stops the boot. Bytes only;
//! nothing here knows what a payload says.

use std::fmt;

/// Where a payload came from, for the console, status.json and the User-Agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A volume on a whole disk or optical drive.
    ConfigDrive {
        /// Kernel name of the block device: `sr0`.
        device: String,
        /// Volume label as it stands on the medium.
        label: String,
        /// Named by `imprint.source=config-drive…`, so removable USB media are allowed.
        named: bool,
    },
    /// A file named on our own command line (`check`, `plan`, `enroll`).
    File(std::path::PathBuf),
}

/// A payload, not yet decoded.
pub struct Found {
    /// Where it came from.
    pub origin: Origin,
    /// At most `payload::MAX_LEN` bytes.
    pub bytes: crate::secret::Secret,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::ConfigDrive { device, label, .. } => write!(f, "config-drive {device} ({label})"),
            Origin::File(path) => write!(f, "file {}", path.display()),
        }
    }
}
