use std::error::Error;
use std::io::{self, Cursor};

use super::*;
use crate::payload::MAX_LEN;

// mkfs.fat -C --invariant -F 12 -s 1 -f 1 -r 16 -n IMPRINT fat12.img 64, mmd ::imprint,
// mcopy payload ::imprint/payload; of each image only the non-zero sectors, each after its number
const FAT12: &[u8] = include_bytes!("../../../tests/data/fat12.sectors");
// likewise: -F 16 -s 1 -f 1 -r 16 -n cidata fat16.img 2200
const FAT16: &[u8] = include_bytes!("../../../tests/data/fat16.sectors");
// likewise: -F 32 -s 1 -f 1 -n config-2 fat32.img 33500
const FAT32: &[u8] = include_bytes!("../../../tests/data/fat32.sectors");

const PATH: [&str; 2] = ["imprint", "payload"];
/// Offsets in the FAT12 image. It has one sector each for boot sector, FAT, root directory, imprint and payload.
const FAT_AT: usize = 512;
const ROOT_AT: usize = 1024;
const FOLDER_AT: usize = 1536;
const PAYLOAD_ENTRY: usize = FOLDER_AT + 64;

/// The image up to its last non-zero sector.
fn image(sectors: &[u8]) -> Vec<u8> {
    let mut image = Vec::new();
    for sector in sectors.chunks_exact(4 + 512) {
        let at = u32::from_le_bytes(sector[..4].try_into().unwrap()) as usize * 512;
        image.resize(at, 0);
        image.extend_from_slice(&sector[4..]);
    }
    image
}

fn file(image: &[u8]) -> Result<Option<Secret>, VolumeError> {
    let mut device = Cursor::new(image);
    match Volume::open(&mut device)? {
        Some(volume) => volume.file(&mut device, &PATH, MAX_LEN),
        None => Ok(None),
    }
}

fn label(image: &[u8]) -> String {
    Volume::open(&mut Cursor::new(image)).unwrap().unwrap().labels()[0].clone()
}

/// The error, or the error of the file inside it.
fn said(error: &VolumeError) -> String {
    match error {
        VolumeError::File { source, .. } => source.to_string(),
        _ => error.to_string(),
    }
}

/// Offsets, and the bytes to write there.
type Changes<'a> = &'a [(usize, &'a [u8])];

fn changed(changes: Changes<'_>) -> Vec<u8> {
    let mut image = image(FAT12);
    image.resize(65_536, 0);
    for (at, bytes) in changes {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

#[test]
fn images_of_common_tools() {
    for (sectors, want) in [(FAT12, "IMPRINT"), (FAT16, "cidata"), (FAT32, "config-2")] {
        let image = image(sectors);
        assert_eq!(label(&image), want);
        assert_eq!(file(&image).unwrap().unwrap().expose(), b"payload\n");
    }
}

#[test]
fn another_path_is_absent() {
    let image = image(FAT12);
    let mut device = Cursor::new(&image);
    let volume = Volume::open(&mut device).unwrap().unwrap();
    for path in [&["imprint", "other"][..], &["payload"], &["imprint", "payload", "x"], &["IMPRINT"]] {
        assert_eq!(volume.file(&mut device, path, MAX_LEN).unwrap(), None, "{path:?}");
    }
    assert!(volume.file(&mut device, &["Imprint", "PayLoad"], MAX_LEN).unwrap().is_some());
}

#[test]
fn what_is_not_fat_is_absent() {
    let open = |bytes: &[u8]| Volume::open(&mut Cursor::new(bytes)).unwrap();
    assert_eq!(open(&[]), None);
    assert_eq!(open(&vec![0; 100_000]), None);
    // Boot records of GRUB, NTFS and exFAT have a jump and the signature, but no BPB of FAT.
    let mut boot = [0; 512];
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    boot[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
    assert_eq!(open(&boot), None);
    boot[..24].copy_from_slice(b"\xeb\x52\x90NTFS    \0\x02\x08\0\0\0\0\0\0\0\xf8\0\0");
    assert_eq!(open(&boot), None);
    boot[..24].copy_from_slice(b"\xeb\x76\x90EXFAT   \0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(open(&boot), None);
}

#[test]
fn every_damaged_field_is_named_with_its_place_and_value() {
    let cases: [(&str, Changes<'_>); 19] = [
        ("bytes per sector at byte 11 are 513, not 512 to 4096", &[(11, &[1, 2])]),
        ("sectors per cluster at byte 13 are 3, not a power of two", &[(13, &[3])]),
        ("reserved sectors at byte 14 are 0", &[(14, &[0])]),
        ("the number of FATs at byte 16 is 0", &[(16, &[0])]),
        ("the medium's type at byte 21 is 0xf1, not 0xf0 or 0xf8 to 0xff", &[(21, &[0xf1])]),
        ("the volume has 3 sectors (bytes 19 and 32), its tables alone take 3", &[(19, &[3, 0])]),
        ("bytes 13, 19 and 32 give 65532 clusters; at most 65524 are possible", &[(19, &[0xff, 0xff])]),
        ("1 sectors per FAT (bytes 22 and 36) are too few for 4093 clusters", &[(19, &[0, 16])]),
        ("cluster 1 at byte 1056 is outside of 2 to 126", &[(ROOT_AT + 32 + 26, &[1])]),
        ("cluster 127 at byte 1600 is outside of 2 to 126", &[(PAYLOAD_ENTRY + 26, &[127])]),
        ("the FAT at byte 516 has a bad cluster after cluster 3", &[(FAT_AT + 4, &[0x7f, 0xff])]),
        ("the FAT at byte 516 marks cluster 3 as free, but a file or directory uses it", &[(FAT_AT + 4, &[0x0f, 0])]),
        // Cluster 2 leads to cluster 2, and the directory in it has no end mark.
        ("the FAT at byte 515 leads back to cluster 2", &[(FAT_AT + 3, &[2, 0xf0]), (FOLDER_AT, &[0xe5; 512])]),
        (
            "the file of the entry at byte 1600 has 513 bytes, and its clusters only 512",
            &[(PAYLOAD_ENTRY + 28, &[1, 2])],
        ),
        (
            "the file of the entry at byte 1600 has 1 bytes, and its clusters only 0",
            &[(PAYLOAD_ENTRY + 26, &[0, 0, 1])],
        ),
        (
            "the file of the entry at byte 1600 has 8 bytes, and its clusters go on at 4",
            &[(FAT_AT + 4, &[0x4f, 0]), (FAT_AT + 6, &[0xff, 0x0f])],
        ),
        ("the file of the entry at byte 1600 has 0 bytes, and its clusters go on at 3", &[(PAYLOAD_ENTRY + 28, &[0])]),
        // The chain of the file is a loop: 3 leads to 4, and 4 leads to 3.
        (
            "the FAT at byte 518 leads back to cluster 3",
            &[(FAT_AT + 4, &[0x4f, 0]), (FAT_AT + 6, &[3]), (PAYLOAD_ENTRY + 28, &[0, 5])],
        ),
        (
            "the FAT at byte 516 has a bad cluster after cluster 3",
            &[(FAT_AT + 4, &[0x7f, 0xff]), (PAYLOAD_ENTRY + 28, &[0, 5])],
        ),
    ];
    for (want, changes) in cases {
        let image = changed(changes);
        assert_eq!(label(&image), "IMPRINT", "{want}");
        let error = file(&image).err().unwrap_or_else(|| panic!("no error, and not: {want}"));
        assert_eq!(said(&error), format!("{want}; write the volume again"));
    }
}

#[test]
fn fields_that_only_fat32_has() {
    let cases: [(&str, Changes<'_>); 5] = [
        ("sectors per FAT at bytes 22 and 36 are both 0", &[(36, &[0, 0, 0, 0])]),
        ("the FAT32 version at byte 42 is 0x0100, not 0", &[(42, &[0, 1])]),
        ("byte 40 selects FAT number 1, but the volume has only 1, counted from 0", &[(40, &[0x81])]),
        ("cluster 0 at byte 44 is outside of 2 to 66426", &[(44, &[0])]),
        ("bytes 13, 19 and 32 give 4294966744 clusters; at most 268435446 are possible", &[(32, &[0xff; 4])]),
    ];
    for (want, changes) in cases {
        let mut image = image(FAT32);
        for (at, bytes) in changes {
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(label(&image), "config-2", "{want}");
        let error = file(&image).err().unwrap_or_else(|| panic!("no error, and not: {want}"));
        assert_eq!(said(&error), format!("{want}; write the volume again"));
    }
}

#[test]
fn a_directory_has_an_end() {
    // A chain of 300 clusters of 8 KiB, full of deleted entries.
    let mut boot = image(FAT16)[..512].to_vec();
    boot[13] = 16;
    boot[19..21].fill(0);
    boot[32..36].copy_from_slice(&68_820_u32.to_le_bytes());
    let layout = Layout::parse(boot.as_slice().try_into().unwrap()).unwrap();
    let mut image = boot;
    image.resize(layout.data as usize + 300 * 8192, 0xe5);
    for cluster in 2..302_u16 {
        let at = layout.fat as usize + usize::from(cluster) * 2;
        image[at..at + 2].copy_from_slice(&(cluster + 1).to_le_bytes());
    }
    let Folder::Fixed { offset, .. } = layout.root else { panic!("{layout:?}") };
    let offset = offset as usize;
    image[offset..offset + 64].fill(0);
    image[offset..offset + 12].copy_from_slice(b"IMPRINT    \x10");
    image[offset + 26] = 2;
    let error = file(&image).unwrap_err();
    assert_eq!(error.to_string(), "the directory at cluster 2 has more than 65536 entries; write the volume again");
}

#[test]
fn a_file_that_is_cut_short_is_an_error_not_absence() {
    let error = file(&image(FAT12)[..2048]).unwrap_err();
    assert!(error.is_about_the_file());
    assert_eq!(error.to_string(), "reading its file imprint/payload");
    let VolumeError::File { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "reading at byte 2048");
    let end = source.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn too_long_is_refused_before_anything_else() {
    let mut image = changed(&[(PAYLOAD_ENTRY + 28, &[0xff, 0xff, 0xff, 0xff])]);
    let error = file(&image).unwrap_err();
    assert_eq!(
        error.to_string(),
        "imprint/payload has 4294967295 bytes, a payload has at most 65536; put a payload there"
    );
    image[PAYLOAD_ENTRY + 28..PAYLOAD_ENTRY + 32].copy_from_slice(&[1, 0, 1, 0]);
    assert!(matches!(file(&image), Err(VolumeError::TooLong { len: 65_537, .. })));
}

#[test]
fn an_empty_file_is_a_file() {
    let image = changed(&[(PAYLOAD_ENTRY + 26, &[0; 6])]);
    assert_eq!(file(&image).unwrap().unwrap().expose(), b"");
}

#[test]
fn the_label_of_the_root_directory_goes_before_that_of_the_boot_sector() {
    let label = |changes| label(&changed(changes));
    assert_eq!(label(&[(ROOT_AT, b"OTHER      ")]), "OTHER");
    assert_eq!(label(&[(43, b"OTHER      ")]), "IMPRINT");
    assert_eq!(label(&[(ROOT_AT, &[0xe5])]), "IMPRINT");
    assert_eq!(label(&[(ROOT_AT, &[0xe5]), (43, b"NO NAME    ")]), "");
    assert_eq!(label(&[(ROOT_AT, b"A\xffB")]), "A\\xffBRINT");
    // busybox mkdosfs pads both labels with NUL.
    assert_eq!(label(&[(ROOT_AT, b"OTHER\0\0\0\0\0\0")]), "OTHER");
    assert_eq!(label(&[(ROOT_AT, &[0xe5]), (43, b"OTHER\0\0\0\0\0\0")]), "OTHER");
    assert_eq!(label(&[(ROOT_AT, &[0xe5]), (43, b"NO NAME\0\0\0\0")]), "");
}

#[test]
fn two_entries_that_match() {
    let mut image = image(FAT12);
    let entry = image[PAYLOAD_ENTRY..PAYLOAD_ENTRY + 32].to_vec();
    image[PAYLOAD_ENTRY + 32..PAYLOAD_ENTRY + 64].copy_from_slice(&entry);
    image[PAYLOAD_ENTRY + 32..PAYLOAD_ENTRY + 39].copy_from_slice(b"payload");
    assert_eq!(
        file(&image).unwrap_err().to_string(),
        "PAYLOAD and payload are the same path without regard to case; remove one"
    );
}

#[test]
fn a_long_name_counts_only_when_it_is_whole_and_belongs_to_the_entry() {
    // Made by hand for `payload`, like the parts that mcopy writes for a file named `payload.longer than 8.3`.
    let short = b"PAYLOA~1   ";
    let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut long = [0xff_u8; 32];
    long[0] = 0x41;
    for (unit, at) in "payload\0".encode_utf16().zip([1, 3, 5, 7, 9, 14, 16, 18]) {
        long[at..at + 2].copy_from_slice(&unit.to_le_bytes());
    }
    (long[11], long[12], long[13], long[26], long[27]) = (0x0f, 0, sum, 0, 0);
    let with = |change: &dyn Fn(&mut [u8])| {
        let mut image = image(FAT12);
        let mut entry = image[PAYLOAD_ENTRY..PAYLOAD_ENTRY + 32].to_vec();
        entry[..11].copy_from_slice(short);
        image[PAYLOAD_ENTRY..PAYLOAD_ENTRY + 32].copy_from_slice(&long);
        image[PAYLOAD_ENTRY + 32..PAYLOAD_ENTRY + 64].copy_from_slice(&entry);
        change(&mut image[PAYLOAD_ENTRY..PAYLOAD_ENTRY + 64]);
        file(&image).unwrap().map(|content| content.expose().to_vec())
    };
    assert_eq!(with(&|_| {}).as_deref(), Some(&b"payload\n"[..]));
    assert_eq!(with(&|entries| entries[13] ^= 1), None, "checksum of another name");
    assert_eq!(with(&|entries| entries[0] = 0x42), None, "the first part is missing");
    assert_eq!(with(&|entries| entries[0] = 0x01), None, "the last part is missing");
    assert_eq!(with(&|entries| entries[0] = 0x40), None, "there is no part 0");
    assert_eq!(with(&|entries| entries[0] = 0x7f), None, "nor part 63");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_images_never_panic(
        which in 0..2_usize,
        changes in proptest::collection::vec((0..2600_usize, proptest::prelude::any::<u8>()), 1..8),
    ) {
        let mut image = image([FAT12, FAT16][which]);
        let length = image.len();
        for (at, byte) in changes {
            image[at % length] = byte;
        }
        let _ = file(&image);
    }
}
