//! Judges the answer of a drive's reader: a payload, a broken volume that was meant for this node, or nothing. Nobody
//! vouches for the texts in an answer, so they are made printable here. Never reads a drive.

use std::io;

use super::super::answer::{Answer, Content, Looked, Medium, Part, Place};
use super::super::{Found, Origin, Said, SourceError, agreed, differ};
use super::{LABELS, Search, is_own};
use crate::medium;
use crate::order;
use crate::shown::Printable;

/// A volume or a partition with a payload.
pub(super) struct Hit {
    /// The position of its label among what is wanted.
    pub(super) rank: usize,
    /// The name of the whole disk: `sda`.
    pub(super) disk: String,
    /// The name of the disk or of the partition: `sda3`.
    pub(super) device: String,
    pub(super) label: Printable,
    pub(super) in_partition: bool,
    pub(super) found: Found,
}

impl Hit {
    /// `sda3 (IMPRINT)`
    pub(super) fn place(&self) -> Printable {
        place(&self.device, &self.label)
    }
}

pub(in super::super) fn place(device: &str, label: &Printable) -> Printable {
    if label.is_empty() { device.into() } else { Printable::of(&format!("{device} ({label})")) }
}

/// The verdict on one device, or on a part of it.
pub(super) enum Look {
    Hit(Hit),
    /// What is wanted at this position has no payload that can be read.
    Broken(usize, SourceError),
    /// The device has no payload; the reason.
    Nothing(String),
    /// The device cannot be read yet; the reason.
    NotYet(&'static str),
}

pub(super) fn judge(search: &Search<'_>, device: &str, answer: Answer) -> Vec<Look> {
    match answer {
        Answer::Closed(errno) => vec![closed(errno)],
        Answer::Unconfined(why) => {
            vec![Look::Nothing(format!(
                "not read: the process that reads it could not give up its rights: {}",
                said(&why)
            ))]
        }
        // The label is not known, so the medium cannot count as a broken config drive.
        Answer::Unreadable(why) => vec![Look::Nothing(said(&why))],
        Answer::Medium(medium) => of_a_medium(search, device, medium),
    }
}

fn of_a_medium(search: &Search<'_>, disk: &str, mut medium: Medium) -> Vec<Look> {
    let mut looks = Vec::new();
    let partitions = medium.parts.split_off(medium.parts.len().min(1));
    if let Some(whole) = medium.parts.pop() {
        looks.push(match without_volume(search, disk, &whole, &partitions, medium.fault.is_some()) {
            Some(why) => Look::Nothing(why),
            None => of_a_part(
                search,
                &At { disk, device: disk.to_owned(), rank: None, name: Printable::default(), ours: false },
                whole,
            ),
        });
    }
    let Some(rank) = search.rank_of_partitions() else { return looks };
    if let Some(fault) = medium.fault {
        looks.push(match fault.ours {
            true => {
                let (place, source) = (Printable::of(&format!("table of {disk}")), Said(Printable::of(&fault.why)));
                Look::Broken(rank, SourceError::Partition { place, source })
            }
            false => Look::Nothing(format!("its partitions are not read: {}", said(&fault.why))),
        });
    }
    for part in partitions {
        let (device, name) = (device(disk, part.number), Printable::of(&part.name));
        let at = At { disk, device, rank: Some(rank), name, ours: part.ours };
        looks.push(match of_a_part(search, &at, part) {
            Look::Nothing(why) => Look::Nothing(format!("{}: {why}", at.device)),
            look => look,
        });
    }
    looks
}

/// The kernel's name of a partition (block/partitions/core.c, disk_name): `sda3`, `nvme0n1p3`.
pub(in super::super) fn device(disk: &str, number: u32) -> String {
    let letter = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{letter}{number}")
}

/// Why a medium without a volume on the whole disk is not a config drive.
fn without_volume(search: &Search<'_>, disk: &str, whole: &Part, partitions: &[Part], faulty: bool) -> Option<String> {
    let format = "neither ISO 9660 nor FAT";
    let read = search.rank_of_partitions().is_some();
    match (&whole.volumes[..], whole.beside.as_deref().map(Printable::of), partitions) {
        ([_, ..], _, _) => None,
        ([], None, _) => Some(format.to_owned()),
        ([], Some(beside), [part, ..]) if !read => {
            let what = match part.volumes.first() {
                Some(volume) => format!("with {} in partition {}", claim(volume), part.number),
                None => format!("whose partition {} is for a payload", part.number),
            };
            let without = if search.named || search.pinned { "" } else { " without a site pin" };
            Some(format!(
                "{beside} {what}, and partitions are not read{without}: name them with imprint.source=partition, or write the \
                 config drive to the whole disk, /dev/{disk}"
            ))
        }
        ([], Some(beside), []) if read && !faulty && beside.as_str().starts_with(TABLE) => {
            Some(format!("{beside} without a partition for a payload, and {format} on the whole disk"))
        }
        ([], Some(beside), _) => Some(format!("{beside}, and {format} on the whole disk")),
    }
}

/// How the names of partition tables begin ([`super::super::partition::Table`]).
const TABLE: &str = "a partition table";

fn closed(errno: u32) -> Look {
    let errno = i32::try_from(errno).unwrap_or_default();
    match errno {
        nix::libc::ENOMEDIUM => Look::NotYet("no medium in the drive"),
        // devtmpfs makes the node before the kernel announces the device (drivers/base/core.c, device_add). So the
        // device has just been removed, or /dev is not mounted.
        nix::libc::ENOENT => Look::NotYet("no device node in /dev"),
        _ => Look::Nothing(format!("cannot be opened: {}", io::Error::from_raw_os_error(errno))),
    }
}

/// Where a part of the device is, and what it counts as.
struct At<'a> {
    disk: &'a str,
    device: String,
    /// The position of partitions among what is wanted; `None`: this is a whole medium, and its labels have positions.
    rank: Option<usize>,
    /// The name of the partition.
    name: Printable,
    /// Whether the partition has our type or our name.
    ours: bool,
}

fn of_a_part(search: &Search<'_>, at: &At<'_>, part: Part) -> Look {
    let mut claims: Vec<Printable> = part.volumes.iter().map(claim).collect();
    if matches!(part.raw, Looked::Found(_)) {
        claims.insert(0, Printable::of("a payload at its beginning"));
    }
    claims.extend(part.beside.as_deref().map(Printable::of));
    let raw = of_a_beginning(at, part.raw);
    let mut looks: Vec<Look> = part.volumes.into_iter().map(|volume| of_a_volume(search, at, volume)).collect();
    looks.extend(raw);
    // The first volume with a payload, or the first broken one, decides for the whole medium.
    let rank = |look: &Look| match look {
        Look::Hit(Hit { rank, .. }) | Look::Broken(rank, _) => *rank,
        Look::Nothing(_) | Look::NotYet(_) => usize::MAX,
    };
    order::sort(&mut looks, |one, other| rank(one) < rank(other));
    let of_use = |look: &&Look| matches!(look, Look::Hit(_) | Look::Broken(..));
    if let ([first, second, ..], Some(Look::Hit(Hit { rank, .. }) | Look::Broken(rank, _))) =
        (&claims[..], looks.first().filter(of_use))
    {
        let (device, first, second) = (at.device.clone(), first.clone(), second.clone());
        return Look::Broken(*rank, SourceError::Claims { device, first, second });
    }
    if looks.first().filter(of_use).is_some() {
        return looks.swap_remove(0);
    }
    let reasons = looks.into_iter().filter_map(|look| match look {
        Look::Nothing(why) => Some(why),
        _ => None,
    });
    Look::Nothing(reasons.collect::<Vec<_>>().join(", and "))
}

/// The verdict on the beginning of a partition that is ours.
fn of_a_beginning(at: &At<'_>, raw: Looked) -> Option<Look> {
    let rank = at.rank?;
    match raw {
        Looked::Unwanted | Looked::Absent => None,
        Looked::Foreign(why) => Some(Look::Nothing(said(&why))),
        Looked::Found(bytes) => {
            let origin = Origin::Medium { medium: medium::Medium::Partition, place: place(&at.device, &at.name) };
            Some(at.hit(rank, &at.name, Found { origin, bytes, cut: false, fresh: None }))
        }
        Looked::Broken { why, .. } => {
            let source = Said(Printable::of(&why));
            Some(Look::Broken(rank, SourceError::Partition { place: at.device.as_str().into(), source }))
        }
    }
}

impl At<'_> {
    fn hit(&self, rank: usize, label: &Printable, found: Found) -> Look {
        let (disk, device, label) = (self.disk.to_owned(), self.device.clone(), label.clone());
        Look::Hit(Hit { rank, disk, device, label, in_partition: self.rank.is_some(), found })
    }

    /// The position of a label, and whether a volume with it and without a payload is broken.
    fn rank(&self, search: &Search<'_>, label: &str) -> Option<(usize, bool)> {
        let Some(rank) = self.rank else { return search.rank(label) };
        let wanted = self.ours || LABELS.iter().any(|wanted| wanted.eq_ignore_ascii_case(label));
        wanted.then_some((rank, self.ours || is_own(label)))
    }

    /// What holds a payload in this place. `None`: no payload is looked for there.
    fn medium(&self, place: Place) -> Option<medium::Medium> {
        Some(match (place, self.rank) {
            (Place::File, None) => medium::Medium::ConfigDrive,
            (Place::File, Some(_)) => medium::Medium::PartitionVolume,
            (Place::OpenStackUserData, _) => medium::Medium::OpenStackUserData,
            (Place::OpenStackVendorData | Place::OpenStackVendorData2, _) => medium::Medium::OpenStackVendorData,
            (Place::NoCloudUserData, _) => medium::Medium::NoCloudUserData,
            (Place::Key | Place::BundleKey, _) => return None,
        })
    }
}

/// `an ISO 9660 volume "IMPRINT"`
fn claim(volume: &Content) -> Printable {
    let article = if volume.format.starts_with("ISO") { "an" } else { "a" };
    Printable::of(&format!("{article} {} volume \"{}\"", volume.format, joined(&escaped(&volume.labels))))
}

fn of_a_volume(search: &Search<'_>, at: &At<'_>, volume: Content) -> Look {
    let labels = escaped(&volume.labels);
    // What is compared is the label itself, what is shown is printable.
    let ranked = volume.labels.iter().filter_map(|label| at.rank(search, label).map(|(rank, own)| (rank, own, label)));
    let Some((rank, own, label)) = ranked.min_by_key(|(rank, _, _)| *rank) else {
        return Look::Nothing(format!("volume \"{}\": its label is not one that imprint looks for", joined(&labels)));
    };
    let label = &Printable::of(label);
    if volume.files.is_empty() {
        return Look::Nothing(format!("volume \"{label}\": its files were not read"));
    }
    let (mut found, mut foreign, mut damaged) = (Vec::new(), String::new(), Vec::new());
    for (file, looked) in volume.files {
        let Some(medium) = at.medium(file) else { continue };
        let path = file.path().join("/");
        match looked {
            Looked::Found(bytes) => {
                let origin = Origin::Medium { medium, place: place(&at.device, label) };
                found.push(Found { origin, bytes, cut: false, fresh: None });
            }
            Looked::Absent | Looked::Unwanted => {}
            Looked::Foreign(why) => foreign.push_str(&format!(", and not in {path}: {}", said(&why))),
            // A damaged volume does not stop the boot if others use its label, too.
            Looked::Broken { at_the_file: false, why } if !own => damaged.push(said(&why)),
            Looked::Broken { why, .. } => {
                let (device, label, source) = (at.device.clone(), label.clone(), Said(Printable::of(&why)));
                return Look::Broken(rank, SourceError::Broken { device, label, source });
            }
        }
    }
    damaged.dedup();
    match agreed(found, |found| found).map_err(differ) {
        Ok(Some(found)) => at.hit(rank, label, found),
        Err(differ) => Look::Broken(rank, differ),
        Ok(None) if own => Look::Broken(rank, SourceError::NoFile { device: at.device.clone(), label: label.clone() }),
        Ok(None) if !damaged.is_empty() => Look::Nothing(format!("volume \"{label}\": {}", damaged.join("; "))),
        Ok(None) => Look::Nothing(format!("volume \"{label}\" without {}{foreign}", Place::File.path().join("/"))),
    }
}

fn escaped(labels: &[String]) -> Vec<Printable> {
    labels.iter().map(|label| Printable::of(label)).collect()
}

/// `A" or "B`
fn joined(labels: &[Printable]) -> String {
    labels.iter().map(Printable::as_str).collect::<Vec<_>>().join("\" or \"")
}

/// At most 200 printable characters, so that the text cannot control the console.
fn said(words: &str) -> String {
    Printable::of(words).to_string()
}
