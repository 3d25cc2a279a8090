//! Reads the payload in a file of the real root, where whoever deployed the image wrote it. Root of this system vouches
//! for it, so a file that anybody else could have written, or can read, is refused. Never decodes a payload.
//!
//! In an initramfs the real root is not there yet: `run` leaves this source to the unit of the real root.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use super::{Found, Origin, SourceError, file};
use crate::medium::Medium;
use crate::payload::MAX_LEN;
use crate::shown::Printable;

/// The folder of the file.
const FOLDER: &str = "etc/imprint";
/// The file in its folder.
const NAME: &str = "payload";
/// The path of the file, below the root.
pub const PATH: &str = "etc/imprint/payload";

/// Why the file is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RootFileError {
    /// The file, or its folder, is a symbolic link.
    Link(PathBuf),
    /// The file is a folder, a FIFO, a device or a socket; or its folder is not a folder.
    Kind(PathBuf),
    /// The file, or its folder, belongs to another user than the one that imprint runs as, which is root at boot.
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// The user.
        user: u32,
    },
    /// Other users can read or write the file.
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Other users can replace what is in the folder.
    FolderMode {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Finds the payload. The file is opened once, without following a link. The opened file is judged, so that nobody can
/// put another file in its place in between.
pub fn find(root: &Path) -> Result<Option<Found>, SourceError> {
    let (folder, path) = (root.join(FOLDER), root.join(PATH));
    let Some(opened) = opened(&folder, |flags| open(&folder, flags | OFlag::O_DIRECTORY, Mode::empty()))? else {
        return Ok(None);
    };
    let user = geteuid().as_raw();
    folder_is_safe(&folder, &metadata(&folder, &opened)?, user)?;
    // O_NONBLOCK: opening a FIFO would wait for a writer.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let Some(opened) = self::opened(&path, |more| openat(&opened, NAME, flags | more, Mode::empty()))? else {
        return Ok(None);
    };
    file_is_safe(&path, &metadata(&path, &opened)?, user)?;
    let bytes = file::read_from(opened, &path, MAX_LEN)?;
    let origin = Origin::Medium { medium: Medium::RootFile, place: Printable::path(&path) };
    Ok(Some(Found { origin, bytes, cut: false, fresh: None }))
}

/// Opens a file or folder, but not a link. `None`: it does not exist.
fn opened(path: &Path, open: impl FnOnce(OFlag) -> nix::Result<OwnedFd>) -> Result<Option<File>, SourceError> {
    let refused = |error| Err(SourceError::RootFile(error));
    match open(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC) {
        Ok(opened) => Ok(Some(File::from(opened))),
        Err(Errno::ENOENT) => Ok(None),
        // open(2): with O_NOFOLLOW a link gives ELOOP, or ENOTDIR if O_DIRECTORY is set as well.
        Err(Errno::ELOOP | Errno::ENOTDIR) if path.is_symlink() => refused(RootFileError::Link(path.to_owned())),
        // open(2): a socket gives ENXIO.
        Err(Errno::ENOTDIR | Errno::ENXIO) => refused(RootFileError::Kind(path.to_owned())),
        Err(errno) => Err(SourceError::Read { path: path.to_owned(), source: errno.into() }),
    }
}

fn metadata(path: &Path, opened: &File) -> Result<Metadata, SourceError> {
    opened.metadata().map_err(|source: io::Error| SourceError::Read { path: path.to_owned(), source })
}

fn folder_is_safe(path: &Path, found: &Metadata, user: u32) -> Result<(), RootFileError> {
    let (path, mode) = (path.to_owned(), found.mode() & 0o7777);
    if found.uid() != user {
        return Err(RootFileError::Owner { path, user: found.uid() });
    }
    if mode & 0o022 != 0 { Err(RootFileError::FolderMode { path, mode }) } else { Ok(()) }
}

fn file_is_safe(path: &Path, found: &Metadata, user: u32) -> Result<(), RootFileError> {
    let (path, mode) = (path.to_owned(), found.mode() & 0o7777);
    if !found.is_file() {
        return Err(RootFileError::Kind(path));
    }
    if found.uid() != user {
        return Err(RootFileError::Owner { path, user: found.uid() });
    }
    if mode & 0o077 != 0 { Err(RootFileError::Mode { path, mode }) } else { Ok(()) }
}

impl From<RootFileError> for SourceError {
    fn from(error: RootFileError) -> SourceError {
        SourceError::RootFile(error)
    }
}

impl fmt::Display for RootFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootFileError::Link(path) => {
                write!(
                    f,
                    "{} is a symbolic link, and imprint does not follow it; replace the link by what it leads to",
                    path.display()
                )
            }
            RootFileError::Kind(path) if path.ends_with(NAME) => {
                write!(f, "{} is not a regular file; put the payload itself there", path.display())
            }
            RootFileError::Kind(path) => write!(f, "{} is not a folder; replace it by a folder", path.display()),
            RootFileError::Owner { path, user } => {
                let path = path.display();
                write!(
                    f,
                    "{path} belongs to user {user}, who could have written the payload; make a new payload, and run chown root \
                     {path}"
                )
            }
            RootFileError::Mode { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "{path} has mode {mode:04o}, so others may have read or changed the payload; make a new payload, and run \
                     chmod 0600 {path}"
                )
            }
            RootFileError::FolderMode { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "{path} has mode {mode:04o}, so others may have replaced the payload in it; run chmod go-w {path}, and \
                     put a new payload there"
                )
            }
        }
    }
}

impl std::error::Error for RootFileError {}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    const PAYLOAD: &[u8] = include_bytes!("../../tests/data/payload-typical.cbor");

    struct Tree(tempfile::TempDir);

    impl Tree {
        /// A root with the file as it should be.
        fn good() -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            fs::create_dir_all(tree.folder()).unwrap();
            mode(&tree.folder(), 0o755);
            fs::write(tree.file(), PAYLOAD).unwrap();
            mode(&tree.file(), 0o600);
            tree
        }

        fn folder(&self) -> PathBuf {
            self.0.path().join(FOLDER)
        }

        fn file(&self) -> PathBuf {
            self.0.path().join(PATH)
        }

        fn find(&self) -> Result<Option<Found>, SourceError> {
            find(self.0.path())
        }

        #[track_caller]
        fn refused(&self) -> RootFileError {
            match self.find() {
                Err(SourceError::RootFile(error)) => error,
                other => panic!("{other:?}"),
            }
        }
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_only_root_can_read_is_used() {
        let tree = Tree::good();
        for good in [0o600, 0o400, 0o700] {
            mode(&tree.file(), good);
            let found = tree.find().unwrap().unwrap();
            assert_eq!(found.bytes.expose(), PAYLOAD);
            assert!(matches!(found.origin, Origin::Medium { medium: Medium::RootFile, .. }));
        }
        fs::remove_file(tree.file()).unwrap();
        assert!(tree.find().unwrap().is_none(), "no file");
        fs::remove_dir(tree.folder()).unwrap();
        assert!(tree.find().unwrap().is_none(), "no folder");
    }

    /// The attack: a user of the node reads the token, or writes a payload with a CA of his own.
    #[test]
    fn a_file_that_others_can_read_or_write_is_refused() {
        let tree = Tree::good();
        let path = tree.file();
        for bad in [0o644, 0o640, 0o660, 0o602, 0o601, 0o610] {
            mode(&path, bad);
            assert_eq!(tree.refused(), RootFileError::Mode { path: path.clone(), mode: bad });
        }
        mode(&path, 0o644);
        let (text, path) = (tree.refused().to_string(), path.display());
        assert_eq!(
            text,
            format!(
                "{path} has mode 0644, so others may have read or changed the payload; make a new payload, and run chmod 0600 \
                 {path}"
            )
        );
    }

    /// The attack: a user of the node replaces a file that he cannot read.
    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let tree = Tree::good();
        let path = tree.folder();
        for bad in [0o777, 0o775, 0o1777] {
            mode(&path, bad);
            assert_eq!(tree.refused(), RootFileError::FolderMode { path: path.clone(), mode: bad });
        }
        assert!(tree.refused().to_string().contains("has mode 1777, so others may have replaced the payload in it"));
    }

    /// The attack: a user of the node makes imprint use, and then remove, any file of root's.
    #[test]
    fn a_link_is_not_followed() {
        let tree = Tree::good();
        let (elsewhere, folder) = (tree.0.path().join("elsewhere"), tree.0.path().join("folder"));
        fs::rename(tree.file(), &elsewhere).unwrap();
        symlink(&elsewhere, tree.file()).unwrap();
        assert_eq!(tree.refused(), RootFileError::Link(tree.file()));
        fs::remove_file(&elsewhere).unwrap();
        assert_eq!(tree.refused(), RootFileError::Link(tree.file()), "one that leads nowhere");
        let tree = Tree::good();
        fs::rename(tree.folder(), &folder).unwrap();
        symlink(&folder, tree.folder()).unwrap();
        assert_eq!(tree.refused(), RootFileError::Link(tree.folder()));
    }

    /// The accident: opening a FIFO would keep the boot waiting for ever.
    #[test]
    fn what_is_no_file_is_refused() {
        let tree = Tree::good();
        let path = tree.file();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(tree.refused(), RootFileError::Kind(path.clone()));
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
        assert_eq!(tree.refused(), RootFileError::Kind(path.clone()));
        fs::remove_file(&path).unwrap();
        let _socket = UnixListener::bind(&path).unwrap();
        assert_eq!(
            tree.refused().to_string(),
            format!("{} is not a regular file; put the payload itself there", path.display())
        );
        let tree = Tree::good();
        fs::remove_dir_all(tree.folder()).unwrap();
        fs::write(tree.folder(), b"").unwrap();
        assert_eq!(tree.refused(), RootFileError::Kind(tree.folder()));
    }

    /// Root does not vouch for a file of another user. The first half needs root: nobody else can give files away.
    #[test]
    fn a_file_or_folder_of_another_user_is_refused() {
        let tree = Tree::good();
        let path = tree.file();
        if geteuid().is_root() {
            chown(&path, Some(1000), None).unwrap();
            assert_eq!(tree.refused(), RootFileError::Owner { path: path.clone(), user: 1000 });
            let tree = Tree::good();
            chown(tree.folder(), Some(1000), None).unwrap();
            assert_eq!(tree.refused(), RootFileError::Owner { path: tree.folder(), user: 1000 });
        }
        // The same decision without root: the file is this user's, and not of user 4294967294.
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            file_is_safe(&path, &found, u32::MAX - 1),
            Err(RootFileError::Owner { path: path.clone(), user: found.uid() })
        );
    }

    #[test]
    fn a_long_file_is_refused() {
        let tree = Tree::good();
        fs::write(tree.file(), vec![0; MAX_LEN + 1]).unwrap();
        assert!(matches!(tree.find(), Err(SourceError::TooLong(..))));
    }
}
