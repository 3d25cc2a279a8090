//! Partitions for swap space on a medium: those whose type says so and that begin with the marker of imprint. Nothing else on the medium is
//! looked at. Never decides whether one is used.

use std::io::{Read, Seek};

use super::super::answer::{Looked, MAX_PARTS, Medium, Part};
use super::super::medium::{VolumeError, Window};
use super::super::partition::{self, Partition};
use super::super::swap_mark::{self, Mark};
use super::MAX_PARTITIONS;
use crate::chain::chain;

/// The partitions with a marker. `beside` of one says why it does not count, and is empty if it counts.
pub(super) fn look(device: &mut Window<impl Read + Seek>, filtered: bool) -> Result<Medium, VolumeError> {
    let mut medium = Medium { filtered, fault: None, parts: Vec::new() };
    let Some(table) = partition::table(device)? else { return Ok(medium) };
    for partition in table.holding().take(MAX_PARTITIONS).filter(|one| one.is_swap()) {
        let (start, len) = partition.place();
        device.narrow(start, len);
        let changed = match swap_mark::look(device, len)? {
            Mark::None => continue,
            Mark::Ours => {
                table.fault.as_ref().map(|fault| format!("its partition table cannot be used: {}", chain(fault)))
            }
            Mark::Changed(at) => Some(format!("byte {at} of it was changed since imprint swap prepare wrote it")),
        };
        medium.parts.push(part(partition, changed));
        if medium.parts.len() == MAX_PARTS {
            break;
        }
    }
    Ok(medium)
}

fn part(partition: &Partition, beside: Option<String>) -> Part {
    let (number, name) = (partition.number, partition.name.clone());
    Part { number, name, ours: true, raw: Looked::Unwanted, volumes: Vec::new(), beside }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::source::swap_mark::{LEAST, Layout};

    /// A disk with an MBR: partitions of 16 MiB, each of this type, with a marker or without.
    fn disk(partitions: &[(u8, bool)]) -> Vec<u8> {
        let sectors = LEAST as usize / 512;
        let mut disk = vec![0; (2048 + partitions.len() * sectors) * 512];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (index, (kind, marked)) in partitions.iter().enumerate() {
            let start = 2048 + index * sectors;
            let entry = &mut disk[446 + index * 16..462 + index * 16];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&(start as u32).to_le_bytes());
            entry[12..16].copy_from_slice(&(sectors as u32).to_le_bytes());
            // Random enough: what lies there was never ours.
            disk[start * 512..(start + sectors) * 512].fill(0xe5);
            if *marked {
                let layout = Layout::of(LEAST).unwrap();
                for (from, len) in layout.margins() {
                    disk[start * 512 + from as usize..][..len as usize].fill(0);
                }
                disk[start * 512..][..512].copy_from_slice(&layout.mark());
            }
        }
        disk
    }

    fn found(disk: Vec<u8>) -> Vec<(u32, Option<String>)> {
        let medium = look(&mut Window::whole(Cursor::new(disk)), true).unwrap();
        medium.parts.into_iter().map(|part| (part.number, part.beside)).collect()
    }

    /// The accident: the wrong disk is taken. Type and marker both have to say that it is ours.
    #[test]
    fn a_partition_needs_the_type_and_the_marker() {
        assert_eq!(found(disk(&[(0x82, false), (0x83, true), (0x82, true), (0x07, false)])), [(3, None)]);
        assert!(found(vec![0; 1 << 20]).is_empty(), "no table");
        // A marker on a whole disk, without a table.
        let mut whole = vec![0; LEAST as usize];
        whole[..512].copy_from_slice(&Layout::of(LEAST).unwrap().mark());
        assert!(found(whole).is_empty());
    }

    #[test]
    fn what_was_changed_since_is_named() {
        let mut changed = disk(&[(0x82, true)]);
        changed[2048 * 512 + 1024 + 56] = 0x53;
        let why = "byte 1080 of it was changed since imprint swap prepare wrote it".to_owned();
        assert_eq!(found(changed), [(1, Some(why))]);
        // Two partitions have sectors in common.
        let mut overlapping = disk(&[(0x82, true), (0x83, false)]);
        overlapping[446 + 16 + 8..446 + 16 + 12].copy_from_slice(&4096u32.to_le_bytes());
        overlapping[446 + 16 + 12..446 + 16 + 16].copy_from_slice(&4096u32.to_le_bytes());
        let found = found(overlapping);
        let [(1, Some(why))] = found.as_slice() else { panic!("{found:?}") };
        assert!(why.starts_with("its partition table cannot be used: "), "{why}");
    }
}
