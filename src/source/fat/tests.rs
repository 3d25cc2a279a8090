use std::io::{self, Cursor};

use proptest::prelude::*;

use super::*;
use crate::payload::MAX_LEN;

const PATH: [&str; 2] = ["imprint", "payload"];

/// Sectors of the volume, of its one FAT; reserved is one.
const FAT_SECTORS: usize = 2;
const ROOT: usize = (1 + FAT_SECTORS) * 512;
/// Where cluster 2 is: behind a root of one sector.
const DATA: usize = ROOT + 512;

fn entry(name: &[u8; 11], attributes: u8, cluster: u16, len: u32) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    entry[26..28].copy_from_slice(&cluster.to_le_bytes());
    entry[28..].copy_from_slice(&len.to_le_bytes());
    entry
}

/// A FAT12 volume of 200 clusters of one sector: `IMPRINT/PAYLOAD` in clusters 3, 9, 4, written by hand after fatgen.
fn volume() -> Vec<u8> {
    let mut image = vec![0; DATA + 200 * 512];
    image[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    image[11..13].copy_from_slice(&512u16.to_le_bytes());
    (image[13], image[14], image[16]) = (1, 1, 1);
    image[17..19].copy_from_slice(&16u16.to_le_bytes());
    image[19..21].copy_from_slice(&(1 + FAT_SECTORS as u16 + 1 + 200).to_le_bytes());
    (image[21], image[22]) = (0xf8, FAT_SECTORS as u8);
    image[38] = 0x29;
    image[43..54].copy_from_slice(b"OLD LABEL  ");
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (cluster, next) in [(2, 0xfff), (3, 9), (9, 4), (4, 0xfff)] {
        set(&mut image, cluster, next);
    }
    image[ROOT..ROOT + 32].copy_from_slice(&entry(b"IMPRINT    ", 0x08, 0, 0));
    image[ROOT + 32..ROOT + 64].copy_from_slice(&entry(b"IMPRINT    ", 0x10, 2, 0));
    image[DATA..DATA + 32].copy_from_slice(&entry(b"PAYLOAD    ", 0x20, 3, 1200));
    for (number, cluster) in [3, 9, 4].into_iter().enumerate() {
        let at = DATA + (cluster - 2) * 512;
        image[at..at + 512].fill(b'a' + number as u8);
    }
    image
}

/// The entry of a cluster in the FAT.
fn set(image: &mut [u8], cluster: usize, next: u16) {
    let at = 512 + cluster + cluster / 2;
    let pair = u16::from_le_bytes([image[at], image[at + 1]]);
    let pair = if cluster.is_multiple_of(2) { pair & 0xf000 | next } else { pair & 0xf | next << 4 };
    image[at..at + 2].copy_from_slice(&pair.to_le_bytes());
}

fn file(image: &[u8]) -> Result<Option<Secret>, VolumeError> {
    let mut device = Cursor::new(image);
    match Volume::open(&mut device)? {
        Some(volume) => volume.file(&mut device, &PATH, MAX_LEN),
        None => Ok(None),
    }
}

fn damage(image: &[u8]) -> (u64, &'static str) {
    match file(image) {
        Err(VolumeError::Damaged { offset, what }) => (offset, what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_in_pieces() {
    let content = file(&volume()).unwrap().unwrap();
    let want = [vec![b'a'; 512], vec![b'b'; 512], vec![b'c'; 176]].concat();
    assert_eq!(content.expose(), want);
}

#[test]
fn the_label_of_the_root_is_what_counts() {
    let label = |image: &[u8]| Volume::open(&mut Cursor::new(image)).unwrap().unwrap().label;
    let mut image = volume();
    assert_eq!(label(&image), "IMPRINT");
    image[ROOT] = 0xe5;
    assert_eq!(label(&image), "OLD LABEL");
    image[43..54].copy_from_slice(b"NO NAME    ");
    assert_eq!(label(&image), "");
    image[38] = 0;
    assert_eq!(label(&image), "");
}

#[test]
fn other_formats_are_absent() {
    for (at, bytes) in [
        (0, &[0x33, 0xc0, 0x8e][..]), // the boot code of a partition table
        (11, &[0, 0]),                // exFAT has zeros here
        (14, &[0, 0]),                // NTFS has no reserved sectors
        (13, &[3]),
        (16, &[0]),
        (510, &[0, 0]),
    ] {
        let mut image = volume();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(Volume::open(&mut Cursor::new(image)).unwrap().is_none(), "byte {at}");
    }
    assert!(Volume::open(&mut Cursor::new([0xeb; 511])).unwrap().is_none());
}

#[test]
fn damage_is_named_by_its_place() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = volume();
        change(&mut image);
        damage(&image)
    };
    assert_eq!(with(&|image| image[19..21].copy_from_slice(&[3, 0])), (32, "total count of sectors"));
    assert_eq!(with(&|image| (image[22], image[38]) = (0, 0)), (22, "count of sectors of a FAT"));
    assert_eq!(with(&|image| image[17] = 0), (17, "count of root directory entries"));
    // A chain that leads out of the volume, that ends early, that is free in the middle.
    assert_eq!(with(&|image| set(image, 9, 900)), (512 + 13, "entry of the FAT"));
    assert_eq!(with(&|image| set(image, 9, 0)), (512 + 13, "entry of the FAT"));
    assert_eq!(with(&|image| set(image, 9, 0xff7)), (512 + 13, "entry of the FAT"));
    let nine = (DATA + 7 * 512) as u64;
    assert_eq!(with(&|image| set(image, 9, 0xfff)), (nine, "chain of clusters that ends before the file"));
    assert_eq!(with(&|image| image[DATA + 26] = 0), (512, "number of a cluster"));
    // A directory in a circle.
    let (_, what) = with(&|image| {
        image[DATA..DATA + 512].fill(0xe5);
        set(image, 2, 2);
    });
    assert_eq!(what, "directory of more than 1 MiB");
}

#[test]
fn a_damaged_boot_sector_still_tells_whose_volume_it_is() {
    let mut image = volume();
    image[22] = 0;
    image[66] = 0x29;
    image[71..82].copy_from_slice(b"IMPRINT    ");
    assert_eq!(Volume::open(&mut Cursor::new(image)).unwrap().unwrap().labels(), ["IMPRINT"]);
}

#[test]
fn a_file_that_is_too_long_or_there_twice() {
    let mut image = volume();
    image[DATA + 28..DATA + 32].copy_from_slice(&65_537u32.to_le_bytes());
    let error = file(&image).unwrap_err();
    assert_eq!(error.to_string(), "imprint/payload has 65537 bytes, a payload has at most 65536; write the right file");
    let mut image = volume();
    image[DATA + 32..DATA + 64].copy_from_slice(&entry(b"payload    ", 0x20, 3, 1));
    let error = file(&image).unwrap_err();
    assert_eq!(error.to_string(), "PAYLOAD and payload are the same path without regard to case; remove one");
}

#[test]
fn a_device_that_ends_early_is_an_error_not_absence() {
    let error = file(&volume()[..DATA + 600]).unwrap_err();
    let VolumeError::Read { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
}

/// The parts of a long name as they stand in a directory, then the short entry.
fn long(name: &str, short: [u8; 32]) -> Vec<u8> {
    let mut units: Vec<u16> = name.encode_utf16().collect();
    units.push(0);
    let parts = units.chunks(13).count();
    let sum = short[..11].iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut entries = Vec::new();
    for (number, part) in units.chunks(13).enumerate().rev() {
        let mut part: Vec<u8> = part.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        part.resize(26, 0xff);
        let order = (number as u8 + 1) | if number + 1 == parts { 0x40 } else { 0 };
        let mut entry = [0; 32];
        (entry[0], entry[11], entry[13]) = (order, 0x0f, sum);
        entry[1..11].copy_from_slice(&part[..10]);
        entry[14..26].copy_from_slice(&part[10..22]);
        entry[28..].copy_from_slice(&part[22..]);
        entries.extend(entry);
    }
    entries.extend(short);
    entries
}

#[test]
fn long_names() {
    let short = entry(b"A~1        ", 0x20, 3, 5);
    let find = |entries: &[u8], name: &str| lookup(entries, name, false).unwrap().map(|entry| entry.name);
    let name = "a name that takes three entries of a directory";
    let entries = long(name, short);
    assert_eq!(find(&entries, &name.to_uppercase()).as_deref(), Some(name));
    assert_eq!(find(&entries, "a~1").as_deref(), Some(name));
    // Parts of a file that has gone, written by who knows no long names: their sum is another's.
    let mut stale = entries.clone();
    let last = stale.len() - 32;
    stale[last] = b'B';
    assert_eq!(find(&stale, name), None);
    assert_eq!(find(&stale, "B~1").as_deref(), Some("B~1"));
    // A part is missing.
    assert_eq!(find(&[&entries[..32], &entries[64..]].concat(), name), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_images_never_panic(changes in prop::collection::vec((0..DATA + 64, any::<u8>()), 1..8)) {
        let mut image = volume();
        for (at, byte) in changes {
            image[at] = byte;
        }
        let _ = file(&image);
    }
}
