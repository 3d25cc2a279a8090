//! Lays the files of a bundle over the root of the machine, all or none. Every directory of the root that gets an entry is covered
//! by an overlay, whose upper layer is memory: the root's own file systems are never written. Decides nothing about a bundle, and
//! never follows a link of the root.
//!
//! The overlays are not mounted in the root itself. The root is bound to another place first, with all that is mounted in it; there
//! the overlays are mounted and the entries written; and one mount(2) with MS_MOVE then puts the whole tree over the root. Whoever
//! looks before that sees the old root, whoever looks after it the new one, and a kill in between leaves the old one.
//!
//! The place is in a memory file system of this one attempt, which also has the upper layers. It is unmounted in the end, whatever
//! happened: the kernel keeps it for as long as an overlay needs it, and with a killed attempt everything goes.

pub(super) mod mounts;
mod place;
mod put;

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::file;
use crate::bundle::{Entry, EntryPath};
use crate::shown::line;
use crate::sys;
use crate::trial;

/// The points at which a test can kill the program (IMPRINT_CRASH), in the order in which it reaches them.
pub const POINTS: [&str; 9] =
    ["attempt", "bound", "apart", "covered", "overlaid", "written", "checked", "moved", "gone"];

/// What mounts of this program are called in the table of mounts.
const NAME: &str = "imprint";
/// Names in the folder for the root.
const ATTEMPT: &str = "new";
const TREE: &str = "tree";
const PROGRAMS: &str = "bin";
const PROGRAM: &str = "imprint";

/// Why the root has no files of the bundle. Nothing was changed.
#[derive(Debug)]
pub enum RootError {
    /// There is no root at this place, or it is the root of this program itself.
    NoRoot {
        /// The place.
        path: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// The kernel has no overlay file system.
    NoOverlay,
    /// The memory is full.
    Full {
        /// What could not be written.
        path: PathBuf,
    },
    /// A component of the path of an entry is a symbolic link in the root.
    Link {
        /// The entry.
        entry: EntryPath,
        /// The link.
        link: String,
        /// Where it leads.
        to: PathBuf,
    },
    /// What is in the root is in the way of an entry.
    InTheWay {
        /// The entry, or a part of its path.
        path: String,
        /// What is there.
        has: &'static str,
        /// What the bundle has.
        wants: &'static str,
    },
    /// No directory of the root holds the entry.
    NoDirectory(EntryPath),
    /// What was written is not there.
    Differs(EntryPath),
    /// A file or a folder cannot be read or written.
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A mount failed.
    Mount {
        /// What was tried.
        doing: &'static str,
        /// The mount point.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Laid {
    /// The directories that are covered, without a slash at the beginning.
    pub directories: Vec<String>,
}

/// Lays the entries over the root at `root`. `work` is a folder of this program alone, outside that root; a memory file system is
/// mounted on it, which stays. What an earlier bundle laid over the root is taken away in the same step.
pub fn lay(work: &Path, root: &Path, entries: &[Entry]) -> Result<Laid, RootError> {
    is_a_root(root)?;
    prepare(work)?;
    let attempt = work.join(ATTEMPT);
    let laid = lay_in(&attempt, root, entries);
    let cleared = clear(&attempt);
    trial::crash("gone");
    // After the step, what is left over costs memory and nothing else.
    laid.inspect(|_| drop(cleared))
}

/// Copies the running program to where the real root finds it, and returns its path there.
pub fn copy_program(work: &Path) -> Result<PathBuf, RootError> {
    prepare(work)?;
    let folder = work.join(PROGRAMS);
    make_folder(&folder, 0o755)?;
    let path = folder.join(PROGRAM);
    let failed = |source: io::Error| full_or(source, "copying this program to", &path);
    let own = Path::new("/proc/self/exe");
    // A copy appears whole or not at all.
    let is_there =
        fs::metadata(&path).ok().zip(fs::metadata(own).ok()).is_some_and(|(one, other)| one.len() == other.len());
    if !is_there {
        file::replace(&folder, PROGRAM, &fs::read(own).map_err(failed)?, 0o755).map_err(failed)?;
    }
    Ok(path)
}

/// The first of these paths of entries that is not on an overlay of this program: the overlay was never there, is gone, or something
/// was mounted over it. Whether a file is there, and what is in it, is not looked at: the system that runs may change its files.
pub fn hidden<'a>(root: &Path, paths: &'a [String]) -> Result<Option<&'a str>, RootError> {
    let ours = mounts::devices()?;
    let is_hidden = |path: &&String| place::device(root, path).is_none_or(|device| !ours.contains(&device));
    Ok(paths.iter().find(is_hidden).map(String::as_str))
}

fn is_a_root(root: &Path) -> Result<(), RootError> {
    let wrong = |why| Err(RootError::NoRoot { path: root.to_owned(), why });
    let Ok(metadata) = fs::symlink_metadata(root) else { return wrong("nothing is there") };
    if !metadata.is_dir() {
        return wrong("it is no directory");
    }
    // Processes that run would keep the old root.
    let own = fs::metadata("/").ok().is_some_and(|own| (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()));
    if own { wrong("it is the root of the running system") } else { Ok(()) }
}

/// Makes the folder, with a memory file system of its own, from which programs can be started: /run may forbid that.
fn prepare(work: &Path) -> Result<(), RootError> {
    make_folder(work, 0o700)?;
    if !mounts::is_mount_point(work)? {
        tmpfs(work, MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    }
    // A mount point in /run is shared with other namespaces; what is mounted below need not be.
    propagate(work, MsFlags::MS_PRIVATE)?;
    clear(&work.join(ATTEMPT))
}

pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), RootError> {
    let failed = |source| full_or(source, "making", path);
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(failed)?,
    }
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        let source = io::Error::other("something that imprint did not make is there; remove it");
        return Err(failed(source));
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
}

/// Takes a whole attempt away: unmounts the memory file system with everything in it.
pub(super) fn clear(attempt: &Path) -> Result<(), RootError> {
    while attempt.exists() && mounts::is_mount_point(attempt)? {
        // While the bound tree is a peer of the root, what is unmounted in it would be unmounted in the root as well.
        propagate(attempt, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
        umount2(attempt, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(mounting("unmounting", attempt))?;
    }
    match fs::remove_dir(attempt) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(full_or(error, "removing", attempt)),
        _ => Ok(()),
    }
}

fn lay_in(attempt: &Path, root: &Path, entries: &[Entry]) -> Result<Laid, RootError> {
    make_folder(attempt, 0o700)?;
    tmpfs(attempt, MsFlags::empty())?;
    propagate(attempt, MsFlags::MS_PRIVATE)?;
    trial::crash("attempt");
    let tree = &attempt.join(TREE);
    make_folder(tree, 0o755)?;
    let bound = mount(Some(root), tree, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
    bound.map_err(mounting("binding the root to", tree))?;
    trial::crash("bound");
    // Before anything is mounted in the tree: the root would get it as well.
    propagate(tree, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    for overlay in mounts::ours(tree)?.iter().rev() {
        umount2(overlay, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(mounting("unmounting", overlay))?;
    }
    trial::crash("apart");
    let table = mounts::below(tree)?;
    let directories = place::directories(tree, entries, &table)?;
    for (number, directory) in directories.iter().enumerate() {
        cover(attempt, tree, directory, number, &table)?;
        trial::crash("covered");
    }
    trial::crash("overlaid");
    for entry in entries {
        put::put(tree, entry)?;
        trial::crash("written");
    }
    entries.iter().try_for_each(|entry| put::check(tree, entry))?;
    trial::crash("checked");
    // The step.
    let moved = mount(Some(tree), root, None::<&str>, MsFlags::MS_MOVE, None::<&str>);
    moved.map_err(mounting("moving the new tree to", root))?;
    trial::crash("moved");
    Ok(Laid { directories })
}

/// Mounts an overlay on one directory of the tree. What is mounted below that directory is put aside and back again, because an
/// overlay would hide it.
fn cover(attempt: &Path, tree: &Path, directory: &str, number: usize, table: &[String]) -> Result<(), RootError> {
    let target = &tree.join(directory);
    let place = |name: &str| attempt.join(format!("{name}{number}"));
    let (lower, upper, work) = (place("lower"), place("upper"), place("work"));
    make_folder(&upper, 0o700)?;
    make_folder(&work, 0o700)?;
    // The overlay shows the attributes of the upper directory.
    like(target, &upper)?;
    // An option cannot have every path in it: ':' and ',' have a meaning there.
    symlink(target, &lower).map_err(|source| full_or(source, "linking", &lower))?;
    let inner = place::outermost(directory, table);
    let aside = |index: usize| attempt.join(format!("aside{number}.{index}"));
    for (index, point) in inner.iter().enumerate() {
        let (from, to) = (tree.join(point), aside(index));
        spot(&from, &to)?;
        let bound = mount(Some(&from), &to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
        bound.map_err(mounting("binding", &to))?;
        propagate(&to, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    match mount(Some(NAME), target, Some("overlay"), flags_of(target)?, Some(options.as_str())) {
        Err(Errno::ENODEV) => return Err(RootError::NoOverlay),
        mounted => mounted.map_err(mounting("mounting an overlay on", target))?,
    }
    for (index, point) in inner.iter().enumerate() {
        let (from, to) = (aside(index), tree.join(point));
        let moved = mount(Some(&from), &to, None::<&str>, MsFlags::MS_MOVE, None::<&str>);
        moved.map_err(mounting("moving a mount back to", &to))?;
    }
    Ok(())
}

/// Gives a directory owner, mode and extended attributes of another, among them its label and its access list.
pub(super) fn like(from: &Path, to: &Path) -> Result<(), RootError> {
    let failed = |source| full_or(source, "giving the attributes of the root's directory to", to);
    let (from, to) = (fs::File::open(from).map_err(failed)?, fs::File::open(to).map_err(failed)?);
    let metadata = from.metadata().map_err(failed)?;
    std::os::unix::fs::fchown(&to, Some(metadata.uid()), Some(metadata.gid())).map_err(failed)?;
    to.set_permissions(metadata.permissions()).map_err(failed)?;
    sys::copy_attributes(&from, &to).map_err(failed)
}

/// Makes something that a mount can be bound to: a directory for one of a directory, a file for one of a file.
fn spot(from: &Path, to: &Path) -> Result<(), RootError> {
    let failed = |source| full_or(source, "making", to);
    let is_dir = fs::symlink_metadata(from).map_err(failed)?.is_dir();
    if is_dir { make_folder(to, 0o700) } else { fs::write(to, b"").map_err(failed) }
}

/// What the mount allows below which the overlay is mounted. The overlay allows no more, but it can be written to: that goes to
/// the memory.
fn flags_of(path: &Path) -> Result<MsFlags, RootError> {
    let found = statvfs(path).map_err(|errno| full_or(errno.into(), "reading the mount of", path))?.flags();
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
    ];
    Ok(pairs.into_iter().filter(|(flag, _)| found.contains(*flag)).map(|(_, flag)| flag).collect())
}

/// A memory file system that is not swapped out where the kernel can do that (Linux 6.4): it may have secrets.
fn tmpfs(path: &Path, flags: MsFlags) -> Result<(), RootError> {
    let try_to = |options: &str| mount(Some(NAME), path, Some("tmpfs"), flags, Some(options));
    match try_to("noswap,mode=0700") {
        Err(Errno::EINVAL) => try_to("mode=0700"),
        mounted => mounted,
    }
    .map_err(mounting("mounting a memory file system on", path))
}

pub(super) fn propagate(path: &Path, flags: MsFlags) -> Result<(), RootError> {
    let changed = mount(None::<&str>, path, None::<&str>, flags, None::<&str>);
    changed.map_err(mounting("making private", path))
}

pub(super) fn mounting(doing: &'static str, path: &Path) -> impl FnOnce(Errno) -> RootError {
    let path = path.to_owned();
    move |errno| RootError::Mount { doing, path, source: errno.into() }
}

/// An error of a file, or that the memory is full.
pub(super) fn full_or(source: io::Error, doing: &'static str, path: &Path) -> RootError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull => RootError::Full { path },
        _ => RootError::File { doing, path, source },
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootError::NoRoot { path, why } => write!(
                f,
                "there is no root at {}: {why}; name the place where the real root is mounted with --root",
                path.display()
            ),
            RootError::NoOverlay => f.write_str(
                "this kernel has no overlay file system; put its module overlay into the initramfs, or build it in",
            ),
            RootError::Full { path } => write!(
                f,
                "the memory is full, writing {}; give the machine more memory, or put large files into its image",
                path.display()
            ),
            RootError::Link { entry, link, to } => write!(
                f,
                "the bundle has {}, and in the root {} is a symbolic link to {}; settings name fixed paths, so make \
                 the bundle from files with the real path, imprint-host bundle make --from DIR",
                line(entry.as_str()),
                line(link),
                line(&to.display().to_string())
            ),
            RootError::InTheWay { path, has, wants } => write!(
                f,
                "the bundle has {wants} {}, and the root has {has} there; make a bundle that fits this root",
                line(path)
            ),
            RootError::NoDirectory(entry) => write!(
                f,
                "the bundle has {}, and the root has no directory that it could be in; make the first directory of its path in \
                 the image",
                line(entry.as_str())
            ),
            RootError::Differs(entry) => write!(
                f,
                "{} was written and is not there as the bundle has it; look at the kernel's log for its file system",
                line(entry.as_str())
            ),
            RootError::File { doing, path, .. } | RootError::Mount { doing, path, .. } => {
                write!(f, "{doing} {}", line(&path.display().to_string()))
            }
        }
    }
}

impl std::error::Error for RootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RootError::File { source, .. } | RootError::Mount { source, .. } => Some(source),
            _ => None,
        }
    }
}
