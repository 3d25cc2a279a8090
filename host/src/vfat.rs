//! Writes a FAT12 image with one file: `imprint/payload` for a config drive, or `imprint/key` for a stick. A config drive may be a virtual
//! disk, or one that a
//! BMC emulates. Pure: bytes to bytes, and never a drive. The `fatfs` crate (0.3) is not used, because its images fail fsck.fat: it gives `.`
//! and `..` long names. Field names and offsets are from Microsoft's "fatgen" 1.03.

use zeroize::Zeroizing;

const SECTOR: usize = 512;
/// Sectors of the image; each cluster is one sector.
const SECTORS: u16 = 2048;
const FATS: usize = 2;
const FAT_SECTORS: usize = 6;
const ROOT_ENTRIES: u16 = 512;
/// Offset of the root directory, in bytes: behind boot sector and FATs.
const ROOT: usize = (1 + FATS * FAT_SECTORS) * SECTOR;
/// Offset of cluster 2, the first one, in bytes.
const DATA: usize = ROOT + ROOT_ENTRIES as usize * 32;
/// The directory's cluster. The file's clusters follow it.
const DIRECTORY: u16 = 2;
const FILE: u16 = 3;
/// The most bytes that the file may have.
const ROOM: usize = SECTORS as usize * SECTOR - DATA - SECTOR;

const VOLUME_LABEL: u8 = 0x08;
const IS_DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
/// Name and extension are in lower case, as Windows NT and Linux understand it.
const LOWER_CASE: u8 = 0x18;
/// 1 January 1980: the same payload gives the same image, and nodes ignore the date.
const DATE: [u8; 2] = [0x21, 0];
const SERIAL: [u8; 4] = *b"IMPR";

/// The file is larger than an image of this kind can hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} bytes do not fit into the FAT image; it has room for {ROOM}")]
pub struct TooLong(pub usize);

/// The image of a config drive. Wiped on drop, as the file is secret.
pub fn image(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    image_of(b"IMPRINT    ", b"PAYLOAD    ", file)
}

/// The image of a stick with an admission key. Wiped on drop, as the file is secret.
pub fn stick(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    image_of(b"IMPRINT-KEY", b"KEY        ", file)
}

fn image_of(label: &[u8; 11], name: &[u8; 11], file: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    if file.len() > ROOM {
        return Err(TooLong(file.len()));
    }
    let length = u32::try_from(file.len()).map_err(|_| TooLong(file.len()))?;
    let clusters = u16::try_from(file.len().div_ceil(SECTOR)).map_err(|_| TooLong(file.len()))?;
    let first = if clusters == 0 { 0 } else { FILE };
    let mut image = Image { bytes: Zeroizing::new(vec![0; usize::from(SECTORS) * SECTOR]) };

    image.put(0, &boot_sector(label));
    // The first two entries are reserved: the media type and an end-of-chain mark.
    let mut fat = vec![0xff8, 0xfff, 0xfff];
    let last = FILE.saturating_add(clusters);
    fat.extend((FILE..last).map(|cluster| if cluster + 1 == last { 0xfff } else { cluster + 1 }));
    let fat = packed(&fat);
    for number in 0..FATS {
        image.put(SECTOR + number * FAT_SECTORS * SECTOR, &fat);
    }
    image.put(ROOT, &entry(label, VOLUME_LABEL, 0, 0, 0));
    image.put(ROOT + 32, &entry(b"IMPRINT    ", IS_DIRECTORY, LOWER_CASE, DIRECTORY, 0));
    image.put(DATA, &entry(b".          ", IS_DIRECTORY, 0, DIRECTORY, 0));
    image.put(DATA + 32, &entry(b"..         ", IS_DIRECTORY, 0, 0, 0));
    image.put(DATA + 64, &entry(name, ARCHIVE, LOWER_CASE, first, length));
    image.put(DATA + SECTOR, file);
    Ok(image.bytes)
}

struct Image {
    bytes: Zeroizing<Vec<u8>>,
}

impl Image {
    /// Puts the bytes at this offset. All callers stay within the image; bytes beyond it would be dropped.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The boot sector (fatgen, "Boot Sector and BPB").
fn boot_sector(label: &[u8; 11]) -> Vec<u8> {
    let mut sector = vec![0xeb, 0x3c, 0x90];
    sector.extend(b"imprint ");
    sector.extend(512u16.to_le_bytes());
    sector.push(1); // sectors per cluster
    sector.extend(1u16.to_le_bytes()); // reserved sectors: the boot sector
    sector.push(2); // number of FATs
    sector.extend(ROOT_ENTRIES.to_le_bytes());
    sector.extend(SECTORS.to_le_bytes());
    sector.push(0xf8); // a fixed disk
    sector.extend(6u16.to_le_bytes()); // sectors per FAT
    sector.extend(32u16.to_le_bytes()); // sectors per track
    sector.extend(64u16.to_le_bytes()); // heads
    sector.extend([0; 8]); // hidden sectors; total sectors as 32 bits (not used)
    sector.extend([0x80, 0, 0x29]);
    sector.extend(SERIAL);
    sector.extend(label);
    sector.extend(b"FAT12   ");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// FAT entries, packed into twelve bits each.
fn packed(entries: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for pair in entries.chunks(2) {
        let (first, second) = (pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0));
        let [a, b, c, _] = (u32::from(first) | u32::from(second) << 12).to_le_bytes();
        bytes.extend([a, b, c]);
    }
    bytes
}

/// A directory entry (fatgen, "FAT Directory Structure").
fn entry(name: &[u8; 11], attributes: u8, case: u8, cluster: u16, length: u32) -> Vec<u8> {
    let mut entry = name.to_vec();
    entry.extend([attributes, case, 0, 0, 0]);
    entry.extend(DATE); // creation date
    entry.extend(DATE); // access date
    entry.extend([0; 4]);
    entry.extend(DATE); // write date
    entry.extend(cluster.to_le_bytes());
    entry.extend(length.to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use imprint::source::volume::Volume;

    use super::*;

    #[test]
    fn the_agent_reads_it() {
        for length in [0, 1, 512, 513, 65_536] {
            let file: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
            let image = image(&file).unwrap();
            let mut device = Cursor::new(image.as_slice());
            let volume = Volume::all(&mut device).unwrap().pop().unwrap();
            assert_eq!(volume.labels().collect::<Vec<_>>(), ["IMPRINT"]);
            let found = volume.file(&mut device, &["imprint", "payload"], 65_536).unwrap().unwrap();
            assert_eq!(found.expose(), file);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(image(&vec![0; ROOM]).is_ok());
        assert_eq!(image(&vec![0; ROOM + 1]).unwrap_err(), TooLong(ROOM + 1));
    }
}
