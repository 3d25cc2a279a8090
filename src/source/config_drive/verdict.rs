//! Judges the answer of a drive's reader: a payload, a broken volume that was meant for this node, or nothing. Nobody
//! vouches for the texts in an answer, so they are made printable here. Never reads a drive.

use std::io;

use super::super::answer::{Answer, Content, Looked, Medium};
use super::super::reader::PATH;
use super::super::{Said, SourceError};
use super::Search;
use crate::secret::Secret;
use crate::shown::Printable;

/// A volume with a payload.
pub(super) struct Hit {
    /// The position of its label among the wanted labels.
    pub(super) rank: usize,
    pub(super) device: String,
    pub(super) label: Printable,
    pub(super) bytes: Secret,
}

/// The verdict on one device.
pub(super) enum Look {
    Hit(Hit),
    /// A volume with a wanted label of this rank has no payload that can be read.
    Broken(usize, SourceError),
    /// The device has no payload; the reason.
    Nothing(String),
    /// The device cannot be read yet; the reason.
    NotYet(&'static str),
}

pub(super) fn judge(search: &Search<'_>, device: &str, answer: Answer) -> Look {
    match answer {
        Answer::Closed(errno) => closed(errno),
        Answer::Unconfined(why) => {
            Look::Nothing(format!("not read: the process that reads it could not give up its rights: {}", said(&why)))
        }
        // The label is not known, so the medium cannot count as a broken config drive.
        Answer::Unreadable(why) => Look::Nothing(said(&why)),
        Answer::Medium(medium) => match partitioned(device, &medium) {
            Some(why) => Look::Nothing(why),
            None => of_a_medium(search, device, medium),
        },
    }
}

/// Why a medium without a volume on the whole disk is not a config drive.
fn partitioned(device: &str, medium: &Medium) -> Option<String> {
    let format = "neither ISO 9660 nor FAT";
    let beside = medium.beside.as_deref().map(Printable::from);
    match (&medium.volumes[..], beside) {
        ([], None) => Some(format.to_owned()),
        ([], Some(beside)) => Some(format!("{beside}, and {format} on the whole disk")),
        ([volume, ..], Some(beside)) if let Looked::InPartition(number) = volume.file => Some(format!(
            "{beside} with {} in partition {number}, and partitions are not read: write the config drive to the whole \
             disk, /dev/{device}",
            claim(volume)
        )),
        _ => None,
    }
}

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

fn of_a_medium(search: &Search<'_>, device: &str, medium: Medium) -> Look {
    let mut claims: Vec<Printable> = medium.volumes.iter().map(claim).collect();
    claims.extend(medium.beside.as_deref().map(Printable::of));
    let looks = medium.volumes.into_iter().map(|volume| of_a_volume(search, device, volume));
    let mut looks: Vec<Look> = looks.collect();
    // The first volume with a payload, or the first broken one, decides for the whole medium.
    looks.sort_by_key(|look| match look {
        Look::Hit(Hit { rank, .. }) | Look::Broken(rank, _) => *rank,
        Look::Nothing(_) | Look::NotYet(_) => usize::MAX,
    });
    let of_use = |look: &&Look| matches!(look, Look::Hit(_) | Look::Broken(..));
    if let ([first, second, ..], Some(Look::Hit(Hit { rank, .. }) | Look::Broken(rank, _))) =
        (&claims[..], looks.first().filter(of_use))
    {
        let (device, first, second) = (device.to_owned(), first.clone(), second.clone());
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

/// `an ISO 9660 volume "IMPRINT"`
fn claim(volume: &Content) -> Printable {
    let article = if volume.format.starts_with("ISO") { "an" } else { "a" };
    Printable::of(&format!("{article} {} volume \"{}\"", volume.format, joined(&escaped(&volume.labels))))
}

fn of_a_volume(search: &Search<'_>, device: &str, volume: Content) -> Look {
    let labels = escaped(&volume.labels);
    // What is compared is the label itself, what is shown is printable.
    let ranked = volume.labels.iter().filter_map(|label| search.rank(label).map(|(rank, own)| (rank, own, label)));
    let Some((rank, own, label)) = ranked.min_by_key(|(rank, _, _)| *rank) else {
        return Look::Nothing(format!("volume \"{}\": its label is not one that imprint looks for", joined(&labels)));
    };
    let (device, label) = (device.to_owned(), Printable::of(label));
    match volume.file {
        Looked::Found(bytes) => Look::Hit(Hit { rank, device, label, bytes }),
        Looked::Absent if own => Look::Broken(rank, SourceError::NoFile { device, label }),
        Looked::Absent => Look::Nothing(format!("volume \"{label}\" without {}", PATH.join("/"))),
        Looked::Unwanted | Looked::InPartition(_) => {
            Look::Nothing(format!("volume \"{label}\": its files were not read"))
        }
        // A damaged volume with a label that others use, too, does not stop the boot.
        Looked::Broken { at_the_file: false, why } if !own => {
            Look::Nothing(format!("volume \"{label}\": {}", said(&why)))
        }
        Looked::Broken { why, .. } => {
            Look::Broken(rank, SourceError::Broken { device, label, source: Said(Printable::of(&why)) })
        }
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
