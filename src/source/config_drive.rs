//! Config drives: ISO 9660 and FAT volumes on whole disks and optical drives, known by their label. Opens devices read-only and
//! mounts nothing; decides which media may be trusted to bring a payload at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::uevent::{Change, Watch};
use super::volume::Volume;
use super::{Found, Origin, SourceError};
use crate::chain::chain;
use crate::payload::MAX_LEN;
use crate::secret::Secret;
use crate::time::Deadline;

/// Labels that are looked for by default, compared without regard to case.
pub const LABELS: [&str; 3] = ["IMPRINT", "config-2", "cidata"];
/// The label that is ours alone: a volume that has it and no payload is broken, not absent.
const OWN_LABEL: &str = "IMPRINT";
/// Where the payload is.
const PATH: [&str; 2] = ["imprint", "payload"];

/// Kernel name prefixes of block devices that are no medium of their own.
const VIRTUAL: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "nbd", "fd", "mtdblock"];

/// How to look.
pub struct Search<'a> {
    /// `imprint.source=config-drive[:LABEL]`, in order; `None` stands for the default labels. Empty: none was named.
    /// What the operator named may be a USB medium.
    pub labels: &'a [Option<&'a str>],
    /// The image holds a site pin, which does the same.
    pub pinned: bool,
    /// Wait until the deadline, however long nothing happens.
    pub insist: bool,
    /// Once another source has a payload, nothing is waited for any more but what is on its way.
    pub other: Option<Other<'a>>,
}

/// Another source, which is waited for meanwhile.
#[derive(Clone, Copy)]
pub struct Other<'a> {
    /// Readable when something came from it.
    pub fd: BorrowedFd<'a>,
    /// Looks at what came, until the descriptor is not readable any more or it is a payload; whether it is one.
    pub has_payload: &'a dyn Fn() -> bool,
}

impl Search<'_> {
    fn named(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Which of the wanted labels this is, and whether it is so much ours that a volume without a payload is broken.
    fn rank(&self, label: &str) -> Option<(usize, bool)> {
        let default = || LABELS.iter().any(|wanted| wanted.eq_ignore_ascii_case(label));
        let own = OWN_LABEL.eq_ignore_ascii_case(label);
        if self.labels.is_empty() {
            return default().then_some((0, own));
        }
        self.labels.iter().zip(0..).find_map(|(wanted, rank)| match wanted {
            Some(wanted) => wanted.eq_ignore_ascii_case(label).then_some((rank, true)),
            None => default().then_some((rank, own)),
        })
    }
}

/// A volume that holds a payload.
struct Hit {
    /// Its label's place in the order that was asked for.
    rank: usize,
    device: String,
    label: String,
    bytes: Secret,
}

/// What looking at one device gave.
enum Look {
    Hit(Hit),
    /// Ours, by a label of this rank, and there is no getting a payload from it.
    Broken(usize, SourceError),
    /// Why there is no payload on it.
    Nothing(String),
    /// Nothing to read yet, and why; it is looked at again whenever anything happens.
    NotYet(&'static str),
}

/// Looks at every medium and waits for those that are still to come. `notice` is told once what has been looked at, when
/// everything has settled and it goes on waiting all the same.
pub fn find(
    search: &Search<'_>,
    root: &Path,
    deadline: Deadline,
    notice: &mut dyn FnMut(&str),
) -> Result<Result<Found, String>, SourceError> {
    let mut watch = Watch::open(root, search.named() || search.pinned).map_err(SourceError::Watch)?;
    let mut looked: BTreeMap<String, Looked> = BTreeMap::new();
    let mut insist = false;
    loop {
        let mut hits = Vec::new();
        let mut broken: Option<(usize, SourceError)> = None;
        for device in devices(root)? {
            if matches!(looked.get(&device), Some(Looked::Done(_))) {
                continue;
            }
            match look(search, root, &device) {
                Look::Hit(hit) => hits.push(hit),
                Look::Broken(rank, error) => {
                    if broken.as_ref().is_none_or(|(first, _)| rank < *first) {
                        broken = Some((rank, error));
                    }
                }
                Look::Nothing(why) => drop(looked.insert(device, Looked::Done(why))),
                Look::NotYet(why) => drop(looked.insert(device, Looked::NotYet(why))),
            }
        }
        // Broken volumes whose turn comes after that of a payload are passed over, like all sources behind it.
        if let Some((rank, error)) = broken
            && hits.iter().all(|hit| hit.rank >= rank)
        {
            return Err(error);
        }
        if let Some(found) = one(hits, search.named())? {
            return Ok(Ok(found));
        }
        let other = search.other.filter(|_| insist);
        match watch.wait(insist, other.map(|other| other.fd), deadline).map_err(SourceError::Watch)? {
            Change::Block(Some(device)) => drop(looked.remove(&device)),
            Change::Block(None) => looked.clear(),
            Change::Settled if search.insist => {
                notice(&summary(&looked));
                insist = true;
            }
            Change::Other if other.is_some_and(|other| !(other.has_payload)()) => {}
            Change::Settled | Change::Other | Change::Deadline => return Ok(Err(summary(&looked))),
        }
    }
}

/// What is known of a device that gave no payload.
enum Looked {
    Done(String),
    NotYet(&'static str),
}

fn summary(looked: &BTreeMap<String, Looked>) -> String {
    if looked.is_empty() {
        return "no disk and no optical drive".to_owned();
    }
    let each = looked.iter().map(|(device, looked)| match looked {
        Looked::Done(why) => format!("{device}: {why}"),
        Looked::NotYet(why) => format!("{device}: {why}"),
    });
    let each: Vec<String> = each.collect();
    each.join("; ")
}

fn one(hits: Vec<Hit>, named: bool) -> Result<Option<Found>, SourceError> {
    let mut hits: Vec<Hit> = hits;
    hits.sort_by_key(|hit| hit.rank);
    let mut hits = hits.into_iter();
    let Some(hit) = hits.next() else { return Ok(None) };
    if let Some(second) = hits.next().filter(|second| second.rank == hit.rank) {
        let volume = |hit: Hit| format!("{} ({})", hit.device, hit.label);
        return Err(SourceError::Several { first: volume(hit), second: volume(second) });
    }
    let origin = Origin::ConfigDrive { device: hit.device, label: hit.label, named };
    Ok(Some(Found { origin, bytes: hit.bytes, cut: false }))
}

/// Whole disks and optical drives, sorted by name. `/sys/block` lists no partitions.
fn devices(root: &Path) -> Result<Vec<String>, SourceError> {
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
        if !VIRTUAL.iter().any(|prefix| name.starts_with(prefix)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn look(search: &Search<'_>, root: &Path, device: &str) -> Look {
    if may_be_usb(root, device) && !search.named() && !search.pinned {
        return Look::Nothing(
            "ignored, a USB medium; name it with imprint.source=config-drive or put a site pin into the image"
                .to_owned(),
        );
    }
    // Slashes in kernel names stand as exclamation marks in sysfs (drivers/base/core.c, device_add).
    let node = root.join("dev").join(device.replace('!', "/"));
    let mut medium = match File::open(&node) {
        Ok(medium) => medium,
        Err(error) => match error.raw_os_error() {
            Some(nix::libc::ENOMEDIUM) => return Look::NotYet("no medium in the drive"),
            // devtmpfs makes the node before the kernel tells of the device (drivers/base/core.c, device_add), so this
            // is a device that has just gone, or a /dev that is not mounted.
            Some(nix::libc::ENOENT) => return Look::NotYet("no device node in /dev"),
            _ => return Look::Nothing(format!("cannot be opened: {error}")),
        },
    };
    let volume = match Volume::open(&mut medium) {
        Ok(Some(volume)) => volume,
        Ok(None) => return Look::Nothing("neither ISO 9660 nor FAT".to_owned()),
        // Whether it would have been ours cannot be known.
        Err(error) => return Look::Nothing(chain(&error)),
    };
    let labels: Vec<String> = volume.labels().map(|label| label.escape_default().to_string()).collect();
    let ranked = labels.iter().filter_map(|label| search.rank(label).map(|(rank, own)| (rank, own, label)));
    let Some((rank, own, label)) = ranked.min_by_key(|(rank, _, _)| *rank) else {
        return Look::Nothing(format!("volume \"{}\", not one of ours", labels.join("\" or \"")));
    };
    let label = label.clone();
    match volume.file(&mut medium, &PATH, MAX_LEN) {
        Ok(Some(bytes)) => Look::Hit(Hit { rank, device: device.to_owned(), label, bytes }),
        Ok(None) if own => Look::Broken(rank, SourceError::NoFile { device: device.to_owned(), label }),
        Ok(None) => Look::Nothing(format!("volume \"{label}\" without {}", PATH.join("/"))),
        // What has a label of others, and nothing of ours that could be read, stops no boot.
        Err(error) if !own && !error.is_about_the_file() => {
            Look::Nothing(format!("volume \"{label}\": {}", chain(&error)))
        }
        Err(source) => Look::Broken(rank, SourceError::Broken { device: device.to_owned(), label, source }),
    }
}

/// Whether the device hangs on a USB bus, by its place in sysfs: anybody can plug such a medium in.
fn may_be_usb(root: &Path, device: &str) -> bool {
    // Where it hangs cannot be told: nobody vouches for it, either.
    let Ok(target) = root.join("sys/block").join(device).read_link() else { return true };
    target.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part.strip_prefix("usb").is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty())
    })
}

#[cfg(test)]
mod tests;
