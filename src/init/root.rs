//! Finds the root that `root=` names among the block devices, waits for it, and mounts it. A device is named by what it says itself: a
//! UUID or a label proves nothing about who wrote the disk. Never writes to a device, but as the file system itself does when it is
//! mounted.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount as mount_at, umount2};
use nix::poll::{PollFd, PollFlags};

use super::names::{Name, Reading};
use super::{InitError, SYSROOT, boot_words, load};
use crate::console::say;
use crate::options::{BootWords, Root};
use crate::shown::Printable;
use crate::sys;
use crate::time::{Deadline, since_boot};
use crate::uevent::Stir;

const BLOCK: &str = "sys/class/block";
/// Devices that nobody boots from, and that are there in numbers.
const NO_DISKS: [&str; 4] = ["ram", "loop", "zram", "fd"];
/// A device that has no file system yet may get one: a partition that is being written, a drive whose medium comes. It is read again
/// this long after it was read last, while nothing fits.
const AGAIN: Duration = Duration::from_secs(5);
/// The console says so late what is waited for: a disk that is there is found within this time.
const SOON: Duration = Duration::from_secs(3);

/// The process that mounts the root.
pub(super) fn mount(root: &Path) -> Result<(), InitError> {
    let words = boot_words(root);
    let wanted = words.root.clone().ok_or(InitError::NoRoot)?;
    if let Root::Imprint | Root::Other(_) = wanted {
        return Err(InitError::Form(Printable::up_to(&shown(&wanted), 120)));
    }
    // That of an attempt before this one, if there is any.
    let _ = umount2(&root.join(SYSROOT), MntFlags::MNT_DETACH);
    let (node, kind) = find(root, &wanted, &words)?;
    let kinds = if words.kinds.is_empty() { vec![kind] } else { words.kinds.clone() };
    let (flags, options) = flags(&words.flags, words.writable);
    let device = Printable::path(&node);
    let mut failed = None;
    for kind in kinds.iter().filter(|kind| !kind.is_empty()) {
        // The kernel asks for the module by itself, but not every kernel is configured to. An error shows in that of the mount.
        let _ = load::modprobe(root, &[&format!("fs-{kind}")]);
        let options = Some(options.as_str()).filter(|options| !options.is_empty());
        match mount_at(Some(&node), &root.join(SYSROOT), Some(kind.as_str()), flags, options) {
            Ok(()) => {
                say(&format!("root {device} ({kind}) is mounted"));
                return Ok(());
            }
            Err(errno) => {
                let kind = Printable::up_to(kind, 40);
                failed = Some(InitError::Mount { device: device.clone(), kind, source: errno.into() });
            }
        }
    }
    Err(failed.unwrap_or(InitError::NoKind(device)))
}

/// The device node, and its file system as far as it is known.
fn find(root: &Path, wanted: &Root, words: &BootWords) -> Result<(PathBuf, String), InitError> {
    let stir = Stir::open().map_err(InitError::Watch)?;
    let deadline = Deadline::after(words.timeout);
    let late = words.delay.saturating_sub(since_boot());
    if !late.is_zero() {
        sys::poll(&mut [], Deadline::after(late)).map_err(InitError::Watch)?;
    }
    let (mut disks, mut said) = (Disks::default(), false);
    let begun = since_boot();
    loop {
        stir.drain();
        disks.look(root);
        if let Some(found) = disks.find(root, wanted) {
            return Ok(found);
        }
        if deadline.expired() {
            let (root, there) = (Printable::up_to(&shown(wanted), 120), disks.shown());
            return Err(InitError::NotFound { root, seconds: words.timeout.as_secs(), there });
        }
        if !said && since_boot().saturating_sub(begun) >= SOON {
            said = true;
            say(&format!(
                "waiting up to {} s for {}; there is {}",
                words.timeout.as_secs(),
                shown(wanted),
                disks.shown()
            ));
        }
        disks.wait(&stir, deadline.at_most(if said { AGAIN } else { SOON }))?;
    }
}

/// The block devices, each with the process that reads it or with what that process has said.
#[derive(Default)]
struct Disks {
    /// By the name in sysfs.
    known: BTreeMap<String, Disk>,
}

enum Disk {
    Reading(Reading),
    Read { names: Vec<Name>, at: Duration },
}

impl Disks {
    /// Begins to read the devices that are new, and forgets those that are gone.
    fn look(&mut self, root: &Path) {
        let now = since_boot();
        let entries = fs::read_dir(root.join(BLOCK)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_disk = |name: &String| !NO_DISKS.iter().any(|kind| is_numbered(name, kind));
        let there: Vec<String> = names.filter(is_disk).collect();
        self.known.retain(|name, disk| {
            let is_stale =
                matches!(disk, Disk::Read { names, at } if names.is_empty() && now.saturating_sub(*at) >= AGAIN);
            there.contains(name) && !is_stale
        });
        for name in there {
            let node = node(root, &name);
            if !self.known.contains_key(&name)
                && node.exists()
                && let Ok(reading) = Reading::start(&node)
            {
                self.known.insert(name, Disk::Reading(reading));
            }
        }
    }

    /// Waits until a device has appeared or was read.
    fn wait(&mut self, stir: &Stir, until: Deadline) -> Result<(), InitError> {
        let reading = self.known.values().filter_map(|disk| match disk {
            Disk::Reading(reading) => Some(reading),
            Disk::Read { .. } => None,
        });
        let mut fds: Vec<PollFd<'_>> = reading.map(|reading| PollFd::new(reading.as_fd(), PollFlags::POLLIN)).collect();
        fds.push(PollFd::new(stir.as_fd(), PollFlags::POLLIN));
        sys::poll(&mut fds, until).map_err(InitError::Watch)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let reading = self.known.values_mut().filter(|disk| matches!(disk, Disk::Reading(_)));
        for (disk, _) in reading.zip(ready).filter(|(_, is_ready)| *is_ready) {
            if let Disk::Reading(reading) = disk
                && let Some(names) = reading.answer()
            {
                *disk = Disk::Read { names, at: since_boot() };
            }
        }
        Ok(())
    }

    fn read(&self) -> impl Iterator<Item = (&str, &[Name])> {
        self.known.iter().filter_map(|(name, disk)| match disk {
            Disk::Read { names, .. } => Some((name.as_str(), names.as_slice())),
            Disk::Reading(_) => None,
        })
    }

    /// The kind of a device's own file system. `None`: it was not read yet.
    fn kind(&self, device: &str) -> Option<String> {
        let (_, names) = self.read().find(|(name, _)| *name == device)?;
        Some(names.iter().find(|name| name.number == 0).map(|name| name.kind.clone()).unwrap_or_default())
    }

    fn find(&self, root: &Path, wanted: &Root) -> Option<(PathBuf, String)> {
        let by = |fits: &dyn Fn(&Name) -> bool| {
            let mut all = self.read().flat_map(|(device, names)| names.iter().map(move |name| (device, name)));
            let (device, name) = all.find(|(_, name)| fits(name))?;
            if name.number == 0 { Some(device.to_owned()) } else { part(root, device, name.number) }
        };
        let device = match wanted {
            Root::Uuid(uuid) => by(&|name| name.number == 0 && !uuid.is_empty() && name.uuid == *uuid),
            Root::Label(label) => by(&|name| name.number == 0 && !label.is_empty() && name.label == *label),
            Root::PartUuid(uuid) => by(&|name| name.number != 0 && !uuid.is_empty() && name.uuid == *uuid),
            Root::PartLabel(label) => by(&|name| name.number != 0 && !label.is_empty() && name.label == *label),
            // The node of a path need not be called like the device: /dev/mapper/x.
            Root::Device(path) => {
                let path = root.join(path.trim_start_matches('/'));
                let real = fs::canonicalize(&path).ok()?;
                Some(real.file_name()?.to_string_lossy().into_owned())
            }
            Root::Imprint | Root::Other(_) => None,
        }?;
        let kind = self.kind(&device)?;
        let path = match wanted {
            Root::Device(path) => root.join(path.trim_start_matches('/')),
            _ => node(root, &device),
        };
        Some((path, kind))
    }

    /// What is there, for the person who looks for the root.
    fn shown(&self) -> String {
        let one = |(device, names): (&str, &[Name])| {
            let whole = names.iter().find(|name| name.number == 0);
            let said = whole.map(|name| {
                let label = if name.label.is_empty() { String::new() } else { format!(", LABEL={}", name.label) };
                format!(" ({}, UUID={}{label})", name.kind, name.uuid)
            });
            format!("{device}{}", said.unwrap_or_default())
        };
        let silent = self.known.iter().filter(|(_, disk)| matches!(disk, Disk::Reading(_)));
        let silent = silent.map(|(name, _)| format!("{name} (does not answer)"));
        let all: Vec<String> = self.read().map(one).chain(silent).collect();
        if all.is_empty() { "no disk".to_owned() } else { Printable::up_to(&all.join(", "), 600).to_string() }
    }
}

/// The device node. sysfs replaces slashes by exclamation marks (drivers/base/core.c, device_add).
fn node(root: &Path, name: &str) -> PathBuf {
    root.join("dev").join(name.replace('!', "/"))
}

/// The device of a partition by its number (Documentation/ABI/stable/sysfs-block, "partition").
fn part(root: &Path, disk: &str, number: u32) -> Option<String> {
    let entries = fs::read_dir(root.join(BLOCK).join(disk)).into_iter().flatten().flatten();
    let is =
        |path: PathBuf| fs::read_to_string(path.join("partition")).is_ok_and(|text| text.trim() == number.to_string());
    entries.filter(|entry| is(entry.path())).map(|entry| entry.file_name().to_string_lossy().into_owned()).next()
}

/// `loop0` is a `loop`, and `fd0` an `fd`.
fn is_numbered(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn shown(root: &Root) -> String {
    match root {
        Root::Uuid(name) => format!("root=UUID={name}"),
        Root::Label(name) => format!("root=LABEL={name}"),
        Root::PartUuid(name) => format!("root=PARTUUID={name}"),
        Root::PartLabel(name) => format!("root=PARTLABEL={name}"),
        Root::Device(path) => format!("root={path}"),
        Root::Imprint => "root=imprint:".to_owned(),
        Root::Other(text) => text.clone(),
    }
}

/// The flags of mount(2) in `rootflags=`, and what is left for the file system.
fn flags(text: &str, writable: bool) -> (MsFlags, String) {
    let (mut flags, mut left) = (MsFlags::empty(), Vec::new());
    flags.set(MsFlags::MS_RDONLY, !writable);
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags.insert(MsFlags::MS_RDONLY),
            "rw" => flags.remove(MsFlags::MS_RDONLY),
            "nosuid" => flags.insert(MsFlags::MS_NOSUID),
            "nodev" => flags.insert(MsFlags::MS_NODEV),
            "noexec" => flags.insert(MsFlags::MS_NOEXEC),
            "noatime" => flags.insert(MsFlags::MS_NOATIME),
            "nodiratime" => flags.insert(MsFlags::MS_NODIRATIME),
            "relatime" => flags.insert(MsFlags::MS_RELATIME),
            "strictatime" => flags.insert(MsFlags::MS_STRICTATIME),
            "sync" => flags.insert(MsFlags::MS_SYNCHRONOUS),
            "dirsync" => flags.insert(MsFlags::MS_DIRSYNC),
            "defaults" => {}
            other => left.push(other),
        }
    }
    (flags, left.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32, [kind, uuid, label]: [&str; 3]) -> Name {
        Name { number, kind: kind.into(), uuid: uuid.into(), label: label.into() }
    }

    /// A disk with a partition of a file system, and a disk that does not say anything.
    fn disks() -> (tempfile::TempDir, Disks) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("dev")).unwrap();
        for (name, number) in [("vda/vda1", "1"), ("vda/vda2", "2")] {
            fs::create_dir_all(root.path().join(BLOCK).join(name)).unwrap();
            fs::write(root.path().join(BLOCK).join(name).join("partition"), format!("{number}\n")).unwrap();
        }
        let read = |names: Vec<Name>| Disk::Read { names, at: Duration::ZERO };
        let known = [
            ("vda", read(vec![name(1, ["", "aaaa-1", "boot"]), name(2, ["", "aaaa-2", "linux"])])),
            ("vda1", read(vec![])),
            ("vda2", read(vec![name(0, ["ext4", "0123", "imprint-root"])])),
            ("vdb", read(vec![name(0, ["xfs", "", ""])])),
        ];
        for (device, _) in &known {
            fs::write(root.path().join("dev").join(device), "").unwrap();
        }
        (root, Disks { known: known.map(|(name, disk)| (name.to_owned(), disk)).into() })
    }

    #[test]
    fn a_root_is_found_by_each_of_its_names() {
        let (root, disks) = disks();
        let found = |wanted: Root| {
            disks
                .find(root.path(), &wanted)
                .map(|(node, kind)| (node.strip_prefix(root.path()).unwrap().to_owned(), kind))
        };
        let want = Some((PathBuf::from("dev/vda2"), "ext4".to_owned()));
        assert_eq!(found(Root::Uuid("0123".into())), want);
        assert_eq!(found(Root::Label("imprint-root".into())), want);
        assert_eq!(found(Root::PartUuid("aaaa-2".into())), want);
        assert_eq!(found(Root::PartLabel("linux".into())), want);
        assert_eq!(found(Root::Device("/dev/vda2".into())), want);
        assert_eq!(found(Root::PartLabel("boot".into())), Some(("dev/vda1".into(), String::new())), "with rootfstype=");
        // An empty name fits a disk that has none: that must not be the root.
        for none in [
            Root::Uuid(String::new()),
            Root::Label(String::new()),
            Root::Uuid("aaaa-2".into()),
            Root::Device("/dev/vdc".into()),
        ] {
            assert_eq!(found(none), None);
        }
    }

    /// The accident: a root that never appears, and a console that does not say what is there instead.
    #[test]
    fn what_is_there_instead_is_shown() {
        let (_root, disks) = disks();
        assert_eq!(disks.shown(), "vda, vda1, vda2 (ext4, UUID=0123, LABEL=imprint-root), vdb (xfs, UUID=)");
        assert_eq!(Disks::default().shown(), "no disk");
    }

    #[test]
    fn flags_and_options() {
        let ro = MsFlags::MS_RDONLY;
        assert_eq!(flags("", false), (ro, String::new()));
        assert_eq!(
            flags("subvol=a,noatime,compress=zstd", true),
            (MsFlags::MS_NOATIME, "subvol=a,compress=zstd".into())
        );
        assert_eq!(flags("rw,nodev", false), (MsFlags::MS_NODEV, String::new()));
        assert_eq!(flags("ro,defaults,,", true), (ro, String::new()));
    }

    #[test]
    fn disks_that_nobody_boots_from() {
        for (name, kind, is) in
            [("loop0", "loop", true), ("fd0", "fd", true), ("fda", "fd", false), ("loop", "loop", false)]
        {
            assert_eq!(is_numbered(name, kind), is, "{name}");
        }
    }
}
