//! `imprint swap prepare`: writes the marker to a partition, so that each later boot uses it as swap space. By hand only: it asks twice.
//! Writes the margins and nothing between them, and only where the partition table says Linux swap, nobody uses the partition, and nothing
//! is on it that somebody may need.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::disk::zeros;
use super::find::passed_over;
use super::signs::sign;
use super::{SwapError, sysfs};
use crate::chain::chain;
use crate::confidential;
use crate::console::{answer, say};
use crate::shown::line;
use crate::source::partition;
use crate::source::swap_mark::{self, Layout, Mark};

/// A partition, as the kernel knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    /// `vdb2`
    name: String,
    /// `vdb`
    disk: String,
    /// In the partition table.
    number: u32,
    /// In bytes from the start of the disk.
    start: u64,
    bytes: u64,
}

/// Prepares the partition after two answers on standard input.
pub fn prepare(root: &Path, device: &Path) -> Result<(), SwapError> {
    if !io::stdin().is_terminal() {
        return Err(SwapError::NoTerminal);
    }
    let place = place(root, device)?;
    would_be_used(root, &place)?;
    let open = |source| SwapError::Open { device: place.name.clone(), source };
    let node = sysfs::node(root, &place.name);
    // The kernel gives nobody else the partition while this is open, and refuses to open what is mounted or swap space in use.
    let options = || OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_EXCL).open(&node);
    let by = sysfs::holder(root, &place.name);
    let mut file = match options() {
        _ if by.is_some() => return Err(SwapError::InUse { device: place.name, by }),
        Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
            return Err(SwapError::InUse { device: place.name, by: None });
        }
        opened => opened.map_err(open)?,
    };
    let mut disk = File::open(sysfs::node(root, &place.disk)).map_err(open)?;
    let layout = match judge(&place, &mut disk, &mut file)? {
        Stand::Prepared => {
            say(&format!("{} is prepared for swap space already, nothing to do", place.name));
            return Ok(());
        }
        Stand::Free(layout) => layout,
    };
    ask(&question(root, &place), &mut io::stdin().lock(), &place.name)?;
    write(&mut file, layout).map_err(|source| SwapError::Write { device: place.name.clone(), source })?;
    let (_, bytes) = layout.inner();
    say(&format!("{} is prepared: from the next boot on {} MiB of it are swap space", place.name, bytes / 1024 / 1024));
    Ok(())
}

/// What the kernel knows of the device.
fn place(root: &Path, device: &Path) -> Result<Place, SwapError> {
    let shown = || device.display().to_string();
    let metadata = device.metadata().map_err(|source| SwapError::Open { device: shown(), source })?;
    let none = || SwapError::NotAPartition(shown());
    if !metadata.file_type().is_block_device() {
        return Err(none());
    }
    let number = (major(metadata.rdev()), minor(metadata.rdev()));
    of_sysfs(root, number).ok_or_else(none)
}

fn of_sysfs(root: &Path, (major, minor): (u64, u64)) -> Option<Place> {
    let folder = root.join(format!("sys/dev/block/{major}:{minor}")).canonicalize().ok()?;
    // Only a partition has such a file, and the folder of its disk around it.
    let number = sysfs::number(&folder.join("partition"))?;
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    Some(Place {
        name: name(&folder)?,
        disk: name(folder.parent()?)?,
        number: u32::try_from(number).ok()?,
        start: sysfs::number(&folder.join("start"))?.checked_mul(512)?,
        bytes: sysfs::number(&folder.join("size"))?.checked_mul(512)?,
    })
}

/// Refuses what each boot would pass over: nothing would say later why there is no swap space.
fn would_be_used(root: &Path, place: &Place) -> Result<(), SwapError> {
    let device = place.name.clone();
    if confidential::detect(root).is_some() {
        return Err(SwapError::Confidential { device });
    }
    match passed_over(root, &place.disk) {
        Some(why) => Err(SwapError::PassedOver { device, disk: place.disk.clone(), why }),
        None => Ok(()),
    }
}

/// What may be done with a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stand {
    /// It is prepared.
    Prepared,
    /// Nothing that is known is on it.
    Free(Layout),
}

fn judge(place: &Place, disk: &mut (impl Read + Seek), partition: &mut (impl Read + Seek)) -> Result<Stand, SwapError> {
    let device = || place.name.clone();
    let table = |why: String| SwapError::Table { disk: place.disk.clone(), why };
    let read = |source| SwapError::Read { device: device(), source };
    let found = partition::table(disk).map_err(|source| SwapError::Read { device: place.disk.clone(), source })?;
    let found = found.ok_or_else(|| table("there is none that imprint knows, GPT or MBR".to_owned()))?;
    if let Some(fault) = &found.fault {
        return Err(table(chain(fault)));
    }
    let ours = found.holding().find(|one| one.number == place.number && one.place() == (place.start, place.bytes));
    let ours = ours.ok_or_else(|| table(format!("it has no partition {} where the kernel has it", place.number)))?;
    if !ours.is_swap() {
        return Err(SwapError::NotSwap { device: device(), disk: place.disk.clone(), number: place.number });
    }
    let small = || SwapError::Small { device: device(), bytes: place.bytes };
    let layout = Layout::of(place.bytes).ok_or_else(small)?;
    if swap_mark::look(partition, place.bytes).map_err(read)? == Mark::Ours {
        return Ok(Stand::Prepared);
    }
    match sign(partition, place.bytes).map_err(read)? {
        Some(what) => Err(SwapError::Holds { device: device(), what }),
        None => Ok(Stand::Free(layout)),
    }
}

fn question(root: &Path, place: &Place) -> String {
    let folder = root.join("sys/block").join(&place.disk);
    let words: Vec<String> = ["device/vendor", "device/model", "device/serial", "serial"]
        .iter()
        .filter_map(|file| sysfs::text(&folder.join(file)).filter(|text| !text.is_empty()))
        .collect();
    let disk = if words.is_empty() { String::new() } else { format!(" ({})", line(&words.join(" "))) };
    format!(
        "{}: {} MiB, partition {} of {}{disk}. Nothing that is known is on it.\nWhatever else is on it will be lost now and at each boot \
         from now on.\n",
        place.name,
        place.bytes / 1024 / 1024,
        place.number,
        place.disk
    )
}

/// Asks for the name of the partition, and then for `yes`.
fn ask(question: &str, input: &mut impl BufRead, name: &str) -> Result<(), SwapError> {
    answer(question);
    let mut typed = |words: &str| {
        answer(words);
        let mut typed = String::new();
        // The longest line that a terminal gives.
        let read = input.by_ref().take(4096).read_line(&mut typed);
        read.map(|_| typed.trim().to_owned()).map_err(|_| SwapError::Unconfirmed)
    };
    let first = typed("type the name of the partition to go on: ")?;
    if first.strip_prefix("/dev/").unwrap_or(&first) != name || typed("type yes to write: ")? != "yes" {
        return Err(SwapError::Unconfirmed);
    }
    Ok(())
}

/// The marker is written last: a power cut before leaves a partition that nobody uses.
fn write(file: &mut File, layout: Layout) -> io::Result<()> {
    for (start, len) in layout.margins() {
        zeros(file, start, len)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&layout.mark())?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
