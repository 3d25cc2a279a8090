//! Finds the partitions that are prepared for swap space, by their type and their marker. Never opens a drive: a process of its own reads
//! each ([`crate::source::reader`]). Drives on USB are passed over, since anybody can plug one in and pull it.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::SwapError;
use super::sysfs;
use crate::source::answer::{Answer, Medium};
use crate::source::config_drive::{PATIENCE, devices, is_virtual, may_be_usb};
use crate::source::reader::Reader;
use crate::sys;
use crate::time::Deadline;
use crate::uevent::{Change, Watch};

/// A partition that is prepared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Partition {
    /// The kernel's name: `vdb2`.
    pub(super) name: String,
    /// Major and minor number.
    pub(super) device: (u64, u64),
    /// Its length.
    pub(super) bytes: u64,
}

/// What a search has found.
#[derive(Default)]
pub(super) struct Found {
    /// What may be used.
    pub(super) ours: Vec<Partition>,
    /// Why others with a marker are not used, and which disks could not be searched.
    pub(super) changed: Vec<SwapError>,
}

/// How long slow disks are waited for.
const SETTLES: Duration = Duration::from_secs(30);

/// Looks at the disks that are there. `wait`: first waits until no more are expected.
pub(super) fn find(root: &Path, program: &Path, wait: bool) -> Result<Found, SwapError> {
    if wait {
        settle(root, Deadline::after(SETTLES)).map_err(SwapError::Watch)?;
    }
    let disks = devices(root).map_err(|error| SwapError::Watch(std::io::Error::other(error)))?;
    let mut found = Found::default();
    let mut readers = Vec::new();
    for disk in disks.into_iter().filter(|disk| passed_over(root, disk).is_none()) {
        match Reader::for_swap(program, &sysfs::node(root, &disk)) {
            Ok(reader) => readers.push((disk, reader)),
            Err(source) => found.changed.push(SwapError::Open { device: disk, source }),
        }
    }
    let deadline = Deadline::after(PATIENCE);
    while !readers.is_empty() {
        let mut fds: Vec<_> =
            readers.iter().map(|(_, reader)| PollFd::new(reader.as_fd(), PollFlags::POLLIN)).collect();
        if !sys::poll(&mut fds, deadline).map_err(SwapError::Watch)? {
            break;
        }
        let Some(index) = fds.iter().position(|fd| fd.any().unwrap_or(false)) else { continue };
        let Some(answer) = readers.get_mut(index).and_then(|(_, reader)| reader.answer()) else { continue };
        let (disk, _) = readers.swap_remove(index);
        // What cannot be read has no marker. `imprint run` names such drives.
        if let Ok(Answer::Medium(medium)) = answer {
            take(root, &disk, medium, &mut found);
        }
    }
    found.changed.extend(readers.into_iter().map(|(disk, _)| SwapError::Silent(disk)));
    crate::order::sort(&mut found.ours, |one, other| one.name < other.name);
    Ok(found)
}

/// Why no boot looks for swap space on a disk, by the kernel's name of it. `None`: each does.
pub(super) fn passed_over(root: &Path, disk: &str) -> Option<&'static str> {
    if is_virtual(disk) {
        return Some("it is no drive of the machine itself, as a loop device, a RAID or a drive in the network is");
    }
    if disk.starts_with("sr") {
        return Some("it is an optical drive");
    }
    may_be_usb(root, disk).then_some("it is on USB, where anybody could plug one in, or pull it")
}

fn settle(root: &Path, deadline: Deadline) -> std::io::Result<()> {
    let mut watch = Watch::open(root, false, PATIENCE)?;
    while !matches!(watch.wait(false, &[], deadline)?, Change::Settled | Change::Deadline) {}
    Ok(())
}

/// What the reader says of a disk, and what the kernel says of the same partitions. Both have to agree on a length before anything is
/// written, as the marker names it.
fn take(root: &Path, disk: &str, medium: Medium, found: &mut Found) {
    for part in medium.parts {
        let Some(partition) = known(root, disk, part.number) else {
            let why = "the kernel has no such partition".to_owned();
            found.changed.push(SwapError::Changed { device: format!("partition {} of {disk}", part.number), why });
            continue;
        };
        match part.beside {
            None => found.ours.push(partition),
            Some(why) => found.changed.push(SwapError::Changed { device: partition.name, why }),
        }
    }
}

/// The partition with this number.
fn known(root: &Path, disk: &str, number: u32) -> Option<Partition> {
    let folder = root.join("sys/block").join(disk);
    let entry = fs::read_dir(&folder)
        .ok()?
        .flatten()
        .find(|entry| sysfs::number(&entry.path().join("partition")) == Some(number.into()))?;
    let path = entry.path();
    // Documentation/ABI/stable/sysfs-block: in sectors of 512 bytes, whatever the disk has.
    let bytes = sysfs::number(&path.join("size"))?.checked_mul(512)?;
    Some(Partition { name: entry.file_name().to_str()?.to_owned(), device: sysfs::device(&path.join("dev"))?, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::answer::{Looked, Part};

    #[test]
    fn which_disks_no_boot_looks_at() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
        for (disk, target, words) in [
            ("vdb", "pci0000:00/0000:00:04.0/virtio2/block/vdb", None),
            ("nvme0n1", "pci0000:00/0000:00:05.0/nvme/nvme0/nvme0n1", None),
            ("sdb", "pci0000:00/0000:00:1d.7/usb2/2-1/host3/block/sdb", Some("it is on USB, ")),
            ("sr0", "pci0000:00/0000:00:1f.2/ata1/host0/block/sr0", Some("it is an optical drive")),
            ("nbd0", "virtual/block/nbd0", Some("it is no drive of the machine itself, ")),
            ("md0", "virtual/block/md0", Some("it is no drive of the machine itself, ")),
            ("loop0", "virtual/block/loop0", Some("it is no drive of the machine itself, ")),
        ] {
            let link = root.path().join("sys/block").join(disk);
            std::os::unix::fs::symlink(format!("../devices/{target}"), link).unwrap();
            let why = passed_over(root.path(), disk);
            assert!(why.zip(words).is_none_or(|(why, words)| why.starts_with(words)), "{disk}: {why:?}");
            assert_eq!(why.is_some(), words.is_some(), "{disk}");
        }
    }

    /// The accident: the table on the disk was changed, and the kernel still has the old one.
    #[test]
    fn what_the_kernel_does_not_know_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/block/vdb/vdb2");
        std::fs::create_dir_all(&folder).unwrap();
        for (file, text) in [("partition", "2\n"), ("dev", "254:18\n"), ("size", "65536\n")] {
            std::fs::write(folder.join(file), text).unwrap();
        }
        let part = |number, beside: Option<&str>| Part {
            number,
            name: String::new(),
            ours: true,
            raw: Looked::Unwanted,
            volumes: Vec::new(),
            beside: beside.map(str::to_owned),
        };
        let parts = vec![part(1, None), part(2, None), part(2, Some("it was changed"))];
        let mut found = Found::default();
        take(root.path(), "vdb", Medium { filtered: true, fault: None, parts }, &mut found);
        assert_eq!(found.ours, [Partition { name: "vdb2".to_owned(), device: (254, 18), bytes: 32 << 20 }]);
        let why: Vec<String> = found.changed.iter().map(ToString::to_string).collect();
        assert_eq!(why.len(), 2);
        assert!(why[0].starts_with("partition 1 of vdb ") && why[1].starts_with("vdb2 "), "{why:?}");
    }
}
