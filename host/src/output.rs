//! The outputs of `payload -o` and `inject --log`: a new file, a stream, or a drive in place. Checks what is at the path
//! before it writes. Never replaces a device by a file, and never makes a file at the end of a broken link.

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

/// A path that was checked. A stream or drive is open.
pub struct Output {
    path: PathBuf,
    target: Target,
    /// Whether a file that is there already stays as it is.
    fresh: bool,
}

enum Target {
    /// A file with this name, all links followed. The bytes go to a new file beside it, which is then renamed.
    File(PathBuf),
    /// A FIFO or a character device.
    Stream(File),
    Drive(Drive),
}

/// An output that is ready to be put in place. Dropping it changes nothing: a new file is removed.
pub enum Staged {
    /// A new file with all bytes, under another name.
    File {
        /// The new file.
        file: NamedTempFile,
        /// Its final path.
        at: PathBuf,
        /// Whether a file that is there already stays as it is.
        fresh: bool,
    },
    /// A stream. Nothing was written yet.
    Stream {
        /// The path, as it was given.
        path: PathBuf,
        /// Open for writing.
        file: File,
    },
    /// A drive that the bytes fit into. Nothing was written yet.
    Drive(Drive),
}

impl Output {
    /// Checks what is at the path. Opens a stream; opening a FIFO waits for its reader. Opens a drive; from then on nobody
    /// can mount it.
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
                    // /proc/self/fd/1 can lead to a file that was deleted, or whose name another file has now.
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
        Ok(Output { path: path.to_owned(), target, fresh: false })
    }

    /// As [`Output::open`], but an error for a file that is there already.
    pub fn open_new(path: &Path) -> Result<Output, OutputError> {
        let output = Output::open(path)?;
        match &output.target {
            Target::File(at) if fs::symlink_metadata(at).is_ok() => Err(OutputError::Exists(path.to_owned())),
            _ => Ok(Output { fresh: true, ..output }),
        }
    }

    /// Whether the output is a terminal.
    pub fn is_terminal(&self) -> bool {
        matches!(&self.target, Target::Stream(file) if file.is_terminal())
    }

    /// Whether the output is a file that has a name and stays there.
    pub fn is_file(&self) -> bool {
        matches!(self.target, Target::File(_))
    }

    /// The drive, if the output is a drive.
    pub fn drive(&self) -> Option<&Drive> {
        match &self.target {
            Target::Drive(drive) => Some(drive),
            Target::File(_) | Target::Stream(_) => None,
        }
    }

    /// Does everything that can fail before anything is replaced: writes a file under another name, compares a drive's
    /// size.
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
                Ok(Staged::File { file, at, fresh: self.fresh })
            }
            Target::Stream(file) => Ok(Staged::Stream { path: self.path, file }),
            Target::Drive(drive) => drive.has_room(bytes).map(|()| Staged::Drive(drive)),
        }
    }
}

impl Staged {
    /// Lets everybody read a new file; without this only its owner can.
    pub fn readable(&self) -> Result<(), OutputError> {
        let Staged::File { file, at, .. } = self else { return Ok(()) };
        let mode = fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(io_error("setting the mode of", at))
    }

    /// Puts the output in place. `bytes` are those of `stage`.
    pub fn finish(self, bytes: &[u8]) -> Result<(), OutputError> {
        match self {
            Staged::File { file, at, fresh } => {
                let put = if fresh { file.persist_noclobber(&at) } else { file.persist(&at) };
                put.map_err(|error| match error.error.kind() {
                    io::ErrorKind::AlreadyExists if fresh => OutputError::Exists(at.clone()),
                    _ => io_error("replacing", &at)(error.error),
                })?;
                let folder = at.parent().unwrap_or(Path::new("/"));
                // A rename is durable only after an fsync of the folder.
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("writing", folder))
            }
            Staged::Stream { path, mut file } => file.write_all(bytes).map_err(io_error("writing", &path)),
            Staged::Drive(drive) => drive.write(bytes),
        }
    }
}

/// Opens an output to append to, like the log of a console. Neither opening nor writing waits for a reader, so that one log
/// cannot hold up other lines.
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

/// Whether the path is a symlink. An error for another user's link: in a folder like /tmp anybody can put a link where a
/// file is about to be made. Only links of this user and of root are followed.
fn is_link(path: &Path) -> Result<bool, OutputError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() && is_strangers(&found) => {
            Err(OutputError::Strangers { path: path.to_owned(), what: "a link" })
        }
        Ok(found) => Ok(found.is_symlink()),
        // Opening the path will report the error.
        Err(_) => Ok(false),
    }
}

/// Whether this is a named FIFO of another user, who would get the bytes. A pipe without a name is fine: this program
/// inherited it.
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

/// The full path of a new file with this name. The name itself is not a link.
fn new_name(path: &Path) -> Result<PathBuf, OutputError> {
    let name = path.file_name().filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/"));
    let name = name.ok_or_else(|| OutputError::Not { path: path.to_owned(), what: "a folder that is not there" })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(folder).map_err(io_error("finding", folder))?.join(name))
}

/// An error if the opened file is not the one that was checked.
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
