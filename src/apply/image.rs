//! An image of the root: the memory that it is kept in, and its mount under an overlay, whose upper layer is memory as well. Never
//! fetches an image and never judges one: whoever fetches it verifies it. Nothing of it outlives the boot.
//!
//! Image, file system and upper layer are in a memory file system of this one attempt, which is unmounted in the end, whatever
//! happened: the kernel keeps what the overlay needs, and with an attempt that failed everything goes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::root::{self, RootError, mounts};
use crate::sys;

/// What the mounts are called in the table of mounts. The overlays of a bundle, which may be laid over this root, have another name.
const NAME: &str = "imprint-root";
/// What an image leaves of the memory to the system that runs on it.
pub const ROOM: u64 = 128 << 20;
/// The largest page that a kernel has. Memory comes in pages.
const PAGE: u64 = 64 << 10;
/// A block of squashfs' padding, and of erofs. A loop device has whole ones only.
const BLOCK: u64 = 4096;

/// The file systems that an image may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Read-only, made by mkfs.erofs.
    Erofs,
    /// Read-only, made by mksquashfs.
    Squashfs,
}

impl Kind {
    /// The name that mount(2) takes.
    fn name(self) -> &'static str {
        match self {
            Kind::Erofs => "erofs",
            Kind::Squashfs => "squashfs",
        }
    }

    /// By the magic number of the superblock: fs/erofs/erofs_fs.h, EROFS_SUPER_OFFSET and EROFS_SUPER_MAGIC_V1;
    /// fs/squashfs/squashfs_fs.h, SQUASHFS_MAGIC.
    fn of(image: &File) -> io::Result<Option<Kind>> {
        for (kind, offset, magic) in [(Kind::Erofs, 1024, [0xe2, 0xe1, 0xf5, 0xe0]), (Kind::Squashfs, 0, *b"hsqs")] {
            let mut found = [0; 4];
            match image.read_exact_at(&mut found, offset) {
                Ok(()) if found == magic => return Ok(Some(kind)),
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no root of an image. Nothing is mounted then.
#[derive(Debug)]
pub enum ImageError {
    /// What the kernel says of its memory cannot be read.
    Memory(io::Error),
    /// The image is too big for the memory.
    TooBig {
        /// Its length in bytes.
        length: u64,
        /// The bytes that are available.
        available: u64,
    },
    /// Nothing can be mounted there.
    NoPlace {
        /// The place.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The image has no file system that is known.
    Unknown,
    /// The kernel does not know the file system.
    NoKind(Kind),
    /// There is no loop device.
    NoLoop(io::Error),
    /// A file or a mount failed.
    Root(RootError),
}

/// The place of an image in memory.
pub struct Place {
    /// The root of the machine.
    machine: PathBuf,
    /// The folder for the attempt.
    attempt: PathBuf,
}

impl Place {
    /// `directory`: the folder of the hand-over.
    pub fn new(machine: &Path, directory: &Path) -> Place {
        Place { machine: machine.to_owned(), attempt: directory.join("netroot") }
    }

    fn image(&self) -> PathBuf {
        self.attempt.join("image")
    }

    /// Makes room for an image of this length, and returns its empty file. What was there goes.
    pub fn room(&self, length: u64) -> Result<File, ImageError> {
        self.clear()?;
        let available = available(&self.machine)?;
        if length.saturating_add(ROOM) > available {
            return Err(ImageError::TooBig { length, available });
        }
        root::make_folder(&self.attempt, 0o700)?;
        let size = length.div_ceil(PAGE).saturating_add(1).saturating_mul(PAGE);
        memory(&self.attempt, &format!("mode=0700,size={size}"))?;
        root::propagate(&self.attempt, MsFlags::MS_PRIVATE)?;
        let path = self.image();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        Ok(file.map_err(|source| root::full_or(source, "making", &path))?)
    }

    /// Mounts the image that is there at `to`, under an overlay.
    pub fn mount(&self, to: &Path) -> Result<Kind, ImageError> {
        let mounted = self.mount_in(to);
        let cleared = self.clear();
        // After the mount, what is left over costs nothing: it is what the root uses.
        mounted.inspect(|_| drop(cleared))
    }

    fn mount_in(&self, to: &Path) -> Result<Kind, ImageError> {
        let path = self.image();
        let failed = |source| root::full_or(source, "reading", &path);
        let image = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let kind = Kind::of(&image).map_err(failed)?.ok_or(ImageError::Unknown)?;
        let length = image.metadata().map_err(failed)?.len();
        image.set_len(length.next_multiple_of(BLOCK)).map_err(failed)?;
        let (lower, layer) = (self.attempt.join("lower"), self.attempt.join("layer"));
        root::make_folder(&lower, 0o755)?;
        root::make_folder(&layer, 0o700)?;
        // The device is held until it is mounted, or it would let go of the image.
        let (device, name) = sys::attach_loop(&self.machine, &image).map_err(ImageError::NoLoop)?;
        match mount(Some(&name), &lower, Some(kind.name()), MsFlags::MS_RDONLY, None::<&str>) {
            Err(Errno::ENODEV) => return Err(ImageError::NoKind(kind)),
            mounted => mounted.map_err(root::mounting("mounting the image on", &lower))?,
        }
        drop(device);
        // Half of what the image has left: programs need the other half.
        let size = available(&self.machine)? / 2;
        memory(&layer, &format!("mode=0700,size={size}"))?;
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        root::make_folder(&upper, 0o755)?;
        root::make_folder(&work, 0o700)?;
        // The overlay shows the attributes of the upper directory.
        root::like(&lower, &upper)?;
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        match mount(Some(NAME), to, Some("overlay"), MsFlags::empty(), Some(options.as_str())) {
            Err(Errno::ENODEV) => return Err(RootError::NoOverlay.into()),
            mounted => mounted.map_err(root::mounting("mounting an overlay on", to))?,
        }
        Ok(kind)
    }

    /// Frees the memory of an image that is not mounted.
    pub fn clear(&self) -> Result<(), ImageError> {
        Ok(root::clear(&self.attempt)?)
    }
}

/// Whether a root of an image is mounted there already. An error if nothing can be mounted there.
pub fn is_mounted(to: &Path) -> Result<bool, ImageError> {
    let no_place = |why| ImageError::NoPlace { path: to.to_owned(), why };
    let metadata = fs::symlink_metadata(to).map_err(|_| no_place("nothing is there"))?;
    if !metadata.is_dir() {
        return Err(no_place("it is no directory"));
    }
    match mounts::source_at(to)? {
        Some(source) if source == NAME => Ok(true),
        Some(_) => Err(no_place("something else is mounted there")),
        None => Ok(false),
    }
}

fn memory(path: &Path, options: &str) -> Result<(), RootError> {
    let mounted = mount(Some(NAME), path, Some("tmpfs"), MsFlags::empty(), Some(options));
    mounted.map_err(root::mounting("mounting a memory file system on", path))
}

/// The bytes of memory that programs can have without swapping: MemAvailable (proc_meminfo(5)).
fn available(machine: &Path) -> Result<u64, ImageError> {
    let text = fs::read_to_string(machine.join("proc/meminfo")).map_err(ImageError::Memory)?;
    available_in(&text).ok_or_else(|| ImageError::Memory(io::ErrorKind::InvalidData.into()))
}

fn available_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

impl From<RootError> for ImageError {
    fn from(error: RootError) -> ImageError {
        ImageError::Root(error)
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Memory(_) => f.write_str("reading MemAvailable in /proc/meminfo"),
            ImageError::TooBig { length, available } => write!(
                f,
                "the image has {} MiB, and this machine has {} MiB of memory available, of which {} MiB stay for the system; give it \
                 more memory, or make the image smaller",
                length.div_ceil(1 << 20),
                available >> 20,
                ROOM >> 20
            ),
            ImageError::NoPlace { path, why } => {
                write!(f, "a root cannot be mounted at {}: {why}; name another folder with --to", path.display())
            }
            ImageError::Unknown => {
                f.write_str("the image has neither erofs nor squashfs; make it with mkfs.erofs or mksquashfs")
            }
            ImageError::NoKind(kind) => write!(
                f,
                "this kernel has no {kind}, which the image has; put its module into the initramfs, or build it in"
            ),
            ImageError::NoLoop(_) => f.write_str(
                "attaching the image to a loop device; put the module loop into the initramfs, or build it in; Linux 5.8 or later \
                 is needed",
            ),
            ImageError::Root(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ImageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ImageError::Memory(source) | ImageError::NoLoop(source) => Some(source),
            // Display shows this error itself, so its source is the next cause.
            ImageError::Root(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_memory() {
        // Linux 6.1: /proc/meminfo
        let text = "MemTotal:         478344 kB\nMemFree:          366436 kB\nMemAvailable:     420180 kB\nBuffers:               0 kB\n";
        assert_eq!(available_in(text), Some(420_180 * 1024));
        for text in ["", "MemAvailable:  x kB\n", "MemAvailable: 1 MB\n", "MemAvailable: 18446744073709551615 kB\n"] {
            assert_eq!(available_in(text), None, "{text}");
        }
    }

    /// A machine whose memory would be full is left as it is, and nothing is fetched.
    #[test]
    fn an_image_leaves_room_for_the_system() {
        let machine = tempfile::tempdir().unwrap();
        fs::create_dir(machine.path().join("proc")).unwrap();
        fs::write(machine.path().join("proc/meminfo"), "MemAvailable:     256000 kB\n").unwrap();
        let place = Place::new(machine.path(), machine.path());
        let error = place.room((256_000 << 10) - ROOM + 1).unwrap_err();
        assert!(matches!(error, ImageError::TooBig { available: 262_144_000, .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the image has 123 MiB, and this machine has 250 MiB of memory available, of which 128 MiB stay for the system; give \
             it more memory, or make the image smaller"
        );
        assert!(!machine.path().join("netroot").exists());
    }

    #[test]
    fn an_image_is_known_by_its_superblock() {
        let kind = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            Kind::of(&file).unwrap()
        };
        // The first bytes of what mksquashfs 4.5.1 and mkfs.erofs 1.5 made.
        assert_eq!(kind(b"hsqs\x05\0\0\0"), Some(Kind::Squashfs));
        assert_eq!(kind(&[vec![0; 1024], vec![0xe2, 0xe1, 0xf5, 0xe0]].concat()), Some(Kind::Erofs));
        for other in [&b""[..], b"hsq", b"sqsh\0\0\0\0", &[0; 2048], b"<!DOCTYPE html>"] {
            assert_eq!(kind(other), None);
        }
    }
}
