//! Where `payload -o` and `inject --log` write: a new file, a stream, or a drive in place. It looks at what is there and
//! decides before it writes. It never puts a file in the place of a device, and makes none at the end of a broken link.

mod drive;
mod error;

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use tempfile::NamedTempFile;

pub use drive::Drive;
pub use error::OutputError;

/// A place that was looked at. A stream or a drive is open.
pub struct Output {
    path: PathBuf,
    target: Target,
}

enum Target {
    /// A file with this name, all links followed. It is made beside its place, and then renamed.
    File(PathBuf),
    /// A FIFO or a character device.
    Stream(File),
    Drive(Drive),
}

/// What can still be given up without a loss. A file that is dropped here leaves nothing behind.
pub enum Staged {
    /// It has all its bytes, under another name.
    File {
        /// Where it is.
        file: NamedTempFile,
        /// Where it goes.
        at: PathBuf,
    },
    /// Nothing was written yet.
    Stream {
        /// As it was given.
        path: PathBuf,
        /// Open for writing.
        file: File,
    },
    /// The bytes are known to fit. Nothing was written yet.
    Drive(Drive),
}

impl Output {
    /// Looks at the place and decides. A stream is opened here, which waits until somebody reads a FIFO; so is a drive,
    /// which nobody can mount from then on.
    pub fn open(path: &Path) -> Result<Output, OutputError> {
        let failed = |action| io_error(action, path);
        let is_link = is_link(path)?;
        let target = match fs::metadata(path) {
            Ok(found) => {
                let kind = found.file_type();
                if kind.is_block_device() {
                    Target::Drive(Drive::open(path, &found)?)
                } else if is_strangers_fifo(path, &found) {
                    return Err(OutputError::Strangers { path: path.to_owned(), what: "a FIFO" });
                } else if kind.is_char_device() || kind.is_fifo() {
                    let options = OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path);
                    let file = options.map_err(failed("opening"))?;
                    Target::Stream(same(path, &found, file)?)
                } else if kind.is_file() && !is_link {
                    Target::File(new_name(path)?)
                } else if kind.is_file() {
                    // /proc/self/fd/1 can lead to a file that has no name any more, or whose name is another file's now.
                    match fs::canonicalize(path) {
                        Ok(at) if fs::metadata(&at).is_ok_and(|other| is_same(&found, &other)) => Target::File(at),
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("finding")(error)),
                        Ok(_) | Err(_) => return Err(OutputError::NoName(path.to_owned())),
                    }
                } else {
                    return Err(OutputError::Not { path: path.to_owned(), what: name_of(kind) });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Ok(leads) = fs::read_link(path) {
                    return Err(OutputError::Dangling { path: path.to_owned(), leads });
                }
                Target::File(new_name(path)?)
            }
            Err(error) => return Err(failed("finding")(error)),
        };
        if let Target::File(at) = &target
            && at.starts_with("/dev")
            && !at.starts_with("/dev/shm")
        {
            return Err(OutputError::NoDevice(path.to_owned()));
        }
        Ok(Output { path: path.to_owned(), target })
    }

    /// Whether people would see the bytes.
    pub fn is_terminal(&self) -> bool {
        matches!(&self.target, Target::Stream(file) if file.is_terminal())
    }

    /// The drive, when it is one.
    pub fn drive(&self) -> Option<&Drive> {
        match &self.target {
            Target::Drive(drive) => Some(drive),
            Target::File(_) | Target::Stream(_) => None,
        }
    }

    /// Does all that can fail without a loss: a file is written under another name, a drive is compared in size.
    pub fn stage(self, bytes: &[u8]) -> Result<Staged, OutputError> {
        match self.target {
            Target::File(at) => {
                let folder = at.parent().unwrap_or(Path::new("/"));
                let private = fs::Permissions::from_mode(0o600);
                let made = tempfile::Builder::new().prefix(".imprint-").permissions(private).tempfile_in(folder);
                let mut file = made.map_err(io_error("making a file in", folder))?;
                let open = file.as_file_mut();
                let written = open.write_all(bytes).and_then(|()| open.sync_all());
                written.map_err(io_error("writing", &at))?;
                Ok(Staged::File { file, at })
            }
            Target::Stream(file) => Ok(Staged::Stream { path: self.path, file }),
            Target::Drive(drive) => drive.has_room(bytes).map(|()| Staged::Drive(drive)),
        }
    }
}

impl Staged {
    /// Puts the same bytes in their place.
    pub fn finish(self, bytes: &[u8]) -> Result<(), OutputError> {
        match self {
            Staged::File { file, at } => {
                file.persist(&at).map_err(|error| io_error("replacing", &at)(error.error))?;
                let folder = at.parent().unwrap_or(Path::new("/"));
                // The new name is on the disk once the folder is.
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("writing", folder))
            }
            Staged::Stream { path, mut file } => file.write_all(bytes).map_err(io_error("writing", &path)),
            Staged::Drive(drive) => drive.write(bytes),
        }
    }
}

/// Opens a place that gets more and more, like the log of a console: never waits for a reader, neither here nor when it
/// is written to, so that one log cannot hold up other lines.
pub fn append(path: &Path) -> Result<File, OutputError> {
    is_link(path)?;
    match fs::metadata(path) {
        Ok(found) if is_strangers_fifo(path, &found) => {
            return Err(OutputError::Strangers { path: path.to_owned(), what: "a FIFO" });
        }
        Ok(found) => {
            let kind = found.file_type();
            if !(kind.is_file() || kind.is_char_device() || kind.is_fifo()) {
                return Err(OutputError::Not { path: path.to_owned(), what: name_of(kind) });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Ok(leads) = fs::read_link(path) {
                return Err(OutputError::Dangling { path: path.to_owned(), leads });
            }
        }
        Err(error) => return Err(io_error("finding", path)(error)),
    }
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path);
    file.map_err(|error| match error.raw_os_error() {
        Some(code) if code == nix::libc::ENXIO => OutputError::NoReader(path.to_owned()),
        _ => io_error("opening", path)(error),
    })
}

/// Whether it is a link. In a folder like /tmp anybody can put one where a file is about to be made, and it leads to
/// another file: only links of the same user and of root are followed.
fn is_link(path: &Path) -> Result<bool, OutputError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() && is_strangers(&found) => {
            Err(OutputError::Strangers { path: path.to_owned(), what: "a link" })
        }
        Ok(found) => Ok(found.is_symlink()),
        // What cannot be looked at is told when it is opened.
        Err(_) => Ok(false),
    }
}

/// A FIFO gives the bytes to whoever has put it there. A pipe has no name: whoever started this program has made it.
fn is_strangers_fifo(path: &Path, found: &Metadata) -> bool {
    found.file_type().is_fifo() && is_strangers(found) && fs::canonicalize(path).is_ok()
}

fn is_strangers(found: &Metadata) -> bool {
    found.uid() != 0 && found.uid() != geteuid().as_raw()
}

fn name_of(kind: FileType) -> &'static str {
    if kind.is_block_device() {
        "a drive"
    } else if kind.is_dir() {
        "a folder"
    } else {
        "a socket"
    }
}

/// Where a file of this name goes, if the name is no link.
fn new_name(path: &Path) -> Result<PathBuf, OutputError> {
    let name = path.file_name().filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/"));
    let name = name.ok_or_else(|| OutputError::Not { path: path.to_owned(), what: "a folder that is not there" })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(folder).map_err(io_error("finding", folder))?.join(name))
}

/// What was opened is what was looked at.
fn same(path: &Path, looked_at: &Metadata, file: File) -> Result<File, OutputError> {
    let opened = file.metadata().map_err(io_error("opening", path))?;
    if is_same(looked_at, &opened) { Ok(file) } else { Err(OutputError::Changed(path.to_owned())) }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino(), one.file_type()) == (other.dev(), other.ino(), other.file_type())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError::Io { action, path, source }
}
