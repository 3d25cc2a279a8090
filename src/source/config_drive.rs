//! Config drives: ISO 9660 and FAT volumes on whole disks and optical drives, recognised by their label; and partitions of
//! disks. Decides which media may bring a payload, and how long to wait for a drive. Whoever can attach a drive to the
//! machine vouches for it; USB media count only if the operator allows them. Everybody who ever wrote to a disk vouches
//! for its partitions, so these count only with a site pin or when they are named. Never opens a device and never mounts
//! one: a process of its own reads each drive.

mod drives;
mod verdict;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

pub use super::answer::LABELS;
use super::waiting::within_a_minute;
use super::{Found, Notice, SourceError};
use crate::order;
use crate::time::Deadline;
use crate::uevent::{Change, Watch};
use drives::Drives;
pub(super) use drives::no_answer;
pub(super) use verdict::{device as device_of, place};

/// The label that only `imprint` uses. A volume with this label and without a payload is broken, not absent.
const OWN_LABEL: &str = "IMPRINT";
/// Prefixes of the kernel names of block devices that are not searched: virtual devices, floppy drives and flash.
const VIRTUAL: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "nbd", "fd", "mtdblock"];

/// The parameters of a search.
pub struct Search<'a> {
    /// What may hold a payload, in order; never empty.
    pub wanted: &'a [Wanted<'a>],
    /// Whether the operator named what is wanted: then it may be on a USB medium.
    pub named: bool,
    /// Whether the image holds a site pin: then it may be on a USB medium, too.
    pub pinned: bool,
    /// Wait until the deadline, even if nothing happens.
    pub insist: bool,
    /// How long the search waits for a drive's answer, or for udev, before it goes on without: [`PATIENCE`].
    pub patience: Duration,
    /// The program that reads a drive: [`super::reader::PROGRAM`].
    pub program: &'a Path,
    /// Another source. When it has a payload, the search waits only for drives that are being read.
    pub other: Option<Other<'a>>,
}

/// What the order asks of a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted<'a> {
    /// A volume with this label that takes up the whole medium. `None`: one with one of [`LABELS`].
    Label(Option<&'a str>),
    /// A partition that is ours, or that has a volume with one of [`LABELS`].
    Partition,
}

/// Another source, which is waited for meanwhile.
#[derive(Clone, Copy)]
pub struct Other<'a> {
    /// Readable when the source has news.
    pub fd: BorrowedFd<'a>,
    /// Takes the news until there is no more or a payload has come. Returns whether a payload has come.
    pub has_payload: &'a dyn Fn() -> bool,
    /// Until when it is waited for, beyond the deadline.
    pub until: &'a dyn Fn(Deadline) -> Deadline,
}

/// A drive that spins up, or whose medium a BMC fetches, takes 10 s and more. A broken drive never answers, and a boot
/// that needs no drive must not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(15);

impl Search<'_> {
    /// Every wanted label of a whole medium, for the reader.
    fn labels(&self) -> Vec<&str> {
        let labels = self.wanted.iter().flat_map(|wanted| match wanted {
            Wanted::Label(Some(label)) => std::slice::from_ref(label),
            Wanted::Label(None) => &LABELS[..],
            Wanted::Partition => &[],
        });
        labels.copied().collect()
    }

    /// The position of this label among the wanted ones, and whether a volume with this label and without a payload is
    /// broken.
    fn rank(&self, label: &str) -> Option<(usize, bool)> {
        let default = || LABELS.iter().any(|wanted| wanted.eq_ignore_ascii_case(label));
        self.wanted.iter().zip(0..).find_map(|(wanted, rank)| match wanted {
            Wanted::Label(Some(wanted)) => wanted.eq_ignore_ascii_case(label).then_some((rank, true)),
            Wanted::Label(None) => default().then_some((rank, is_own(label))),
            Wanted::Partition => None,
        })
    }

    /// The position of partitions among what is wanted.
    fn rank_of_partitions(&self) -> Option<usize> {
        self.wanted.iter().position(|wanted| *wanted == Wanted::Partition)
    }
}

/// Whether a volume with this label and without a payload is broken in any case.
fn is_own(label: &str) -> bool {
    OWN_LABEL.eq_ignore_ascii_case(label)
}

/// Reads every medium, and waits for media that appear later. Calls `notice` once with the media that were read, if all
/// devices have settled and the search still waits; once for each drive that does not answer; and at the end for each
/// drive that still has not answered.
pub fn find(
    search: &Search<'_>,
    root: &Path,
    deadline: Deadline,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Result<Found, String>, SourceError> {
    let mut drives = Drives::default();
    let found = find_among(&mut drives, search, root, deadline, notice);
    drives.unanswered().for_each(|drive| notice(Notice::Left(drive)));
    found
}

fn find_among(
    drives: &mut Drives,
    search: &Search<'_>,
    root: &Path,
    deadline: Deadline,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Result<Found, String>, SourceError> {
    let usb = search.named || search.pinned;
    let mut watch = Watch::open(root, usb, search.patience).map_err(SourceError::Watch)?;
    // `settled`: no more devices are expected. `told`: the console knows that the search waits.
    let (mut settled, mut told) = (false, false);
    loop {
        let deadline = search.other.map_or(deadline, |other| (other.until)(deadline));
        drives.look(search, root, devices(root)?);
        // Wait for all drives that are being read, until their patience ends. The order of the labels then decides, and
        // not the speed of the drives, and two payloads are noticed.
        let patience = drives.patience_ends(search.patience).map(|moment| deadline.at(moment));
        let patience = patience.filter(|until| !until.expired());
        if patience.is_none() {
            drives.name_late(notice);
            if let Some(found) = drives.verdict()? {
                return Ok(Ok(found));
            }
            if deadline.expired() || settled && !search.insist {
                return Ok(Err(drives.summary()));
            }
            if settled && !told {
                notice(Notice::Waiting(&drives.summary()));
                told = true;
            }
        }
        let other = search.other.filter(|_| told && patience.is_none());
        let mut fds: Vec<BorrowedFd<'_>> = drives.readers().map(AsFd::as_fd).collect();
        let readers = fds.len();
        fds.extend(other.map(|other| other.fd));
        let until = patience.unwrap_or_else(|| within_a_minute(deadline));
        let change = watch.wait(settled, &fds, until).map_err(SourceError::Watch)?;
        match change {
            Change::Readable(index) if index < readers => drives.take(search, index, notice),
            Change::Readable(_) => {
                if other.is_some_and(|other| (other.has_payload)()) {
                    return Ok(Err(drives.summary()));
                }
            }
            Change::Block(device) => {
                drives.changed(device.as_deref());
                settled = false;
            }
            Change::Settled => settled = true,
            Change::Deadline => {}
        }
    }
}

/// The whole disks and optical drives, sorted by name. `/sys/block` does not list partitions.
pub(crate) fn devices(root: &Path) -> Result<Vec<String>, SourceError> {
    let folder = root.join("sys/block");
    let failed = |source| SourceError::Read { path: folder.clone(), source };
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if !is_virtual(&name) {
            names.push(name);
        }
    }
    order::sort(&mut names, |one, other| one < other);
    Ok(names)
}

/// Whether the kernel's name of a block device is that of a virtual device, a floppy drive or flash.
pub(crate) fn is_virtual(name: &str) -> bool {
    VIRTUAL.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the device is on a USB bus, by its path in sysfs. Anybody who is near the machine can plug a USB medium in.
pub(crate) fn may_be_usb(root: &Path, device: &str) -> bool {
    // The bus is not known, so the device may be on USB.
    let Ok(target) = root.join("sys/block").join(device).read_link() else { return true };
    target.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part.strip_prefix("usb").is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty())
    })
}

#[cfg(test)]
mod tests;
