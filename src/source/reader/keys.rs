//! Keys on a medium: an admission key, or the key of bundles. They are looked for on volumes with the label IMPRINT-KEY and nowhere
//! else, and such volumes are looked at for nothing else. Never parses a key.

use std::io::{Read, Seek};

use super::super::answer::{Content, KEY_LABEL, Looked, Medium, Part, Place};
use super::super::medium::{VolumeError, Window};
use super::super::partition;
use super::super::volume::Volume;
use super::{MAX_PARTITIONS, file, is_wanted, labels_of};

/// Reads the key of a stick: of a volume that has the whole medium, and of the volumes in its partitions, since sticks are sold
/// with one partition.
pub(super) fn look(device: &mut Window<impl Read + Seek>, place: Place, filtered: bool) -> Result<Medium, VolumeError> {
    let mut medium = Medium { filtered, fault: None, parts: Vec::new() };
    medium.parts.extend(with_key(device, 0, place)?);
    let partitions = partition::table(device).ok().flatten().map(|table| table.partitions).unwrap_or_default();
    for partition in partitions.iter().take(MAX_PARTITIONS) {
        if medium.parts.len() == MAX_KEYS {
            break;
        }
        let (start, len) = partition.place();
        // mformat and other programs write a table into the boot sector of a volume, whose partition is the volume itself.
        if start == 0 && !medium.parts.is_empty() {
            continue;
        }
        device.narrow(start, len);
        // What is in other partitions is no concern of the stick's.
        medium.parts.extend(with_key(device, partition.number, place).ok().flatten());
    }
    Ok(medium)
}

/// The volumes that are for keys, in the whole medium or in a partition.
fn with_key(device: &mut (impl Read + Seek), number: u32, place: Place) -> Result<Option<Part>, VolumeError> {
    let mut volumes = Vec::new();
    for volume in Volume::all(device)? {
        let labels = labels_of(&volume);
        if is_wanted(&labels, &[KEY_LABEL]) {
            let files = vec![(place, file(device, &volume, place))];
            volumes.push(Content { format: volume.format().to_owned(), labels, files });
        }
    }
    let part = Part { number, name: String::new(), ours: false, raw: Looked::Unwanted, volumes, beside: None };
    Ok((!part.volumes.is_empty()).then_some(part))
}

/// How many volumes with keys are read of a stick: two are one too many already.
const MAX_KEYS: usize = 2;
