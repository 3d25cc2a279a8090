//! Each drive is a file. A process of its own reads each drive: the agent that `cargo build --workspace --bins` has
//! made.

mod partitions;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::LazyLock;

use nix::sys::stat::Mode;

use super::*;
use crate::chain::chain;
use crate::medium::Medium;
use crate::source::Origin;
use crate::source::partition::tests::{Disk, Entry, LINUX, OURS};
use crate::source::reader::program;

const PLAIN: &[u8] = include_bytes!("../../../tests/data/iso-plain.iso");
const CIDATA: &[u8] = include_bytes!("../../../tests/data/iso-joliet-rr.iso");

/// A temporary root with these drives: name, path in sysfs, content.
fn root(drives: &[(&str, &str, &[u8])]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("sys/block")).unwrap();
    fs::create_dir_all(root.path().join("dev")).unwrap();
    for (name, path, content) in drives {
        symlink(format!("../devices/{path}/block/{name}"), root.path().join("sys/block").join(name)).unwrap();
        fs::write(root.path().join("dev").join(name), content).unwrap();
    }
    root
}

const PCI: &str = "pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0";
const USB: &str = "pci0000:00/0000:00:1d.7/usb1/1-1/1-1:1.0/host2/target2:0:0/2:0:0:0";

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(program);

fn plain() -> Search<'static> {
    Search {
        wanted: DEFAULT,
        named: false,
        pinned: false,
        insist: false,
        patience: LONG,
        program: &PROGRAM,
        other: None,
    }
}

const DEFAULT: &[Wanted<'static>] = &[Wanted::Label(None)];

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(120);

fn origin(device: &str, label: &str) -> Origin {
    Origin::Medium { medium: Medium::ConfigDrive, place: format!("{device} ({label})").as_str().into() }
}

fn later() -> Deadline {
    Deadline::after(LONG)
}

fn search(search: &Search<'_>, drives: &[(&str, &str, &[u8])]) -> Result<Result<Found, String>, SourceError> {
    let root = root(drives);
    find(search, root.path(), later(), &mut |_| {})
}

fn relabelled(label: &[u8]) -> Vec<u8> {
    let mut image = PLAIN.to_vec();
    image[16 * 2048 + 40..16 * 2048 + 72].fill(b' ');
    image[16 * 2048 + 40..16 * 2048 + 40 + label.len()].copy_from_slice(label);
    image
}

/// With another payload of the same length.
fn other_payload(image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    let at = image.windows(8).position(|window| window == b"payload\n").unwrap();
    image[at..at + 8].copy_from_slice(b"PAYLOAD\n");
    image
}

fn emptied(image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    // Plain, Rock Ridge, Joliet.
    for name in [&b"PAYLOAD.;1"[..], b"NM\x0c\x01\0payload", b"\0p\0a\0y\0l\0o\0a\0d"] {
        while let Some(at) = image.windows(name.len()).position(|window| window == name) {
            image[at + name.len() - 3] = b'X';
        }
    }
    image
}

#[test]
fn finds_the_volume_by_its_label_in_any_case() {
    for (image, label) in
        [(PLAIN.to_vec(), "IMPRINT"), (CIDATA.to_vec(), "cidata"), (relabelled(b"CONFIG-2"), "CONFIG-2")]
    {
        let found = search(&plain(), &[("sda", PCI, &[0; 70_000]), ("sr0", PCI, &image)]).unwrap().unwrap();
        assert_eq!(found.bytes.expose(), b"payload\n");
        let label = label.to_owned();
        assert_eq!(found.origin, origin("sr0", label.as_str()));
    }
}

#[test]
fn nothing_is_absent_and_says_what_was_looked_at() {
    assert_eq!(search(&plain(), &[]).unwrap().err().unwrap(), "no disk and no optical drive");
    let other = relabelled(b"DEBIAN 12");
    let drives: [(&str, &str, &[u8]); 4] =
        [("loop0", "virtual", PLAIN), ("sda", PCI, b"short"), ("sdb", PCI, &other), ("vda", PCI, &emptied(CIDATA))];
    assert_eq!(
        search(&plain(), &drives).unwrap().err().unwrap(),
        "sda: neither ISO 9660 nor FAT; sdb: volume \"DEBIAN 12\": its label is not one that imprint looks for; vda: \
         volume \"cidata\" without imprint/payload"
    );
}

#[test]
fn usb_media_need_a_site_pin_or_a_name() {
    let drives: [(&str, &str, &[u8]); 1] = [("sdb", USB, PLAIN)];
    assert_eq!(
        search(&plain(), &drives).unwrap().err().unwrap(),
        "sdb: ignored, a USB medium; name it with imprint.source=config-drive or put a site pin into the image"
    );
    assert!(search(&Search { pinned: true, ..plain() }, &drives).unwrap().is_ok());
    assert!(search(&Search { named: true, ..plain() }, &drives).unwrap().is_ok());
}

#[test]
fn a_drive_whose_bus_cannot_be_told_is_trusted_no_more_than_a_usb_medium() {
    let root = root(&[]);
    fs::create_dir(root.path().join("sys/block/sda")).unwrap();
    fs::write(root.path().join("dev/sda"), PLAIN).unwrap();
    let look = |pinned| {
        let search = Search { pinned, ..plain() };
        find(&search, root.path(), later(), &mut |_| {}).unwrap()
    };
    assert_eq!(
        look(false).err().unwrap(),
        "sda: ignored, a USB medium; name it with imprint.source=config-drive or put a site pin into the image"
    );
    assert!(look(true).is_ok());
}

#[test]
fn two_payloads_are_an_error_that_names_both() {
    let other = other_payload(CIDATA);
    let error = search(&plain(), &[("sr0", PCI, PLAIN), ("vda", PCI, &other)]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "two different payloads: on sr0 (IMPRINT) and on vda (cidata); remove one, or give them different labels and name \
         one with imprint.source=config-drive:LABEL"
    );
    for (labels, device) in
        [(&[Some("CIDATA")][..], "vda"), (&[Some("imprint"), Some("cidata")], "sr0"), (&[Some("cidata"), None], "vda")]
    {
        let labels: Vec<Wanted<'_>> = labels.iter().map(|label| Wanted::Label(*label)).collect();
        let ordered = Search { wanted: &labels, named: true, ..plain() };
        let found = search(&ordered, &[("sr0", PCI, PLAIN), ("vda", PCI, &other)]).unwrap().unwrap();
        assert!(found.origin.to_string().contains(device), "{}", found.origin);
    }
}

/// The halves of a mirror, and an image that was attached twice, stopped the boot as if somebody had brought a second payload.
#[test]
fn copies_of_one_payload_are_one_payload() {
    let drives: [(&str, &str, &[u8]); 3] = [("sdb", PCI, PLAIN), ("sda", PCI, PLAIN), ("sr0", PCI, CIDATA)];
    let found = search(&plain(), &drives).unwrap().unwrap();
    assert_eq!((found.origin, found.bytes.expose()), (origin("sda", "IMPRINT"), &b"payload\n"[..]));
    // One that differs is found behind any number of copies.
    let other = other_payload(CIDATA);
    for name in ["sa", "sr1", "zd"] {
        let four: Vec<_> = drives.into_iter().chain([(name, PCI, &other[..])]).collect();
        let error = search(&plain(), &four).err().unwrap();
        assert!(matches!(&error, SourceError::Several { .. }), "{error}");
        assert!(error.to_string().contains(&format!("on {name} (cidata)")), "{error}");
    }
}

#[test]
fn broken_is_not_absent() {
    let damaged = {
        let mut image = PLAIN.to_vec();
        image.truncate(PLAIN.len() - 4);
        image
    };
    let error = search(&plain(), &[("sr0", PCI, &damaged)]).err().unwrap();
    assert!(matches!(&error, SourceError::Broken { device, .. } if device == "sr0"), "{error}");
    let error = search(&plain(), &[("sr0", PCI, &emptied(PLAIN))]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "volume \"IMPRINT\" on sr0 has no file imprint/payload; write it with imprint-host payload NODE --as iso"
    );
}

#[test]
fn a_damaged_descriptor_is_broken_under_our_label_and_absent_under_others() {
    let damaged = |label: &[u8]| {
        let mut image = relabelled(label);
        image[16 * 2048 + 128] ^= 0xff;
        image
    };
    let damage = "logical block size at byte 32896 is damaged; write the volume again";
    let error = search(&plain(), &[("sr0", PCI, &damaged(b"IMPRINT"))]).err().unwrap();
    assert_eq!(chain(&error), format!("volume \"IMPRINT\" on sr0: {damage}"));
    // Other programs use these labels, too. A damaged drive with such a label must not stop the boot.
    for label in ["config-2", "CIDATA"] {
        let drives: [(&str, &str, &[u8]); 1] = [("sr0", PCI, &damaged(label.as_bytes()))];
        let looked = search(&plain(), &drives).unwrap().err().unwrap();
        assert_eq!(looked, format!("sr0: volume \"{label}\": {damage}"));
        let named = Search { wanted: &[Wanted::Label(Some(label))], named: true, ..plain() };
        assert!(matches!(search(&named, &drives), Err(SourceError::Broken { .. })), "unless it was named");
    }
    assert_eq!(
        search(&plain(), &[("sr0", PCI, &damaged(b"DEBIAN 12"))]).unwrap().err().unwrap(),
        "sr0: volume \"DEBIAN 12\": its label is not one that imprint looks for"
    );
}

#[test]
fn a_drive_with_nothing_to_read_stops_no_boot_and_is_named() {
    let root = root(&[("sr0", PCI, PLAIN)]);
    fs::remove_file(root.path().join("dev/sr0")).unwrap();
    let found = find(&plain(), root.path(), later(), &mut |_| {});
    assert_eq!(found.unwrap().err().unwrap(), "sr0: no device node in /dev");
}

#[test]
fn who_insists_is_told_what_was_looked_at_and_waits_on() {
    let root = root(&[("sda", PCI, b"")]);
    fs::create_dir_all(root.path().join("run/udev")).unwrap();
    fs::write(root.path().join("run/udev/control"), "").unwrap();
    let mut notices = Vec::new();
    let insist = Search { insist: true, ..plain() };
    // The search waits until the other source has a payload. It asks that source only after the notice.
    let (read, write) = nix::unistd::pipe().unwrap();
    nix::unistd::write(&write, b"x").unwrap();
    let other = Some(Other { fd: read.as_fd(), has_payload: &|| true, until: &|deadline| deadline });
    let found = find(&Search { other, ..insist }, root.path(), later(), &mut |notice| {
        if let Notice::Waiting(looked) = notice {
            notices.push(looked.to_owned());
        }
    });
    assert_eq!(found.unwrap().err().unwrap(), "sda: neither ISO 9660 nor FAT");
    assert_eq!(notices, ["sda: neither ISO 9660 nor FAT"]);
}

#[test]
fn while_udev_is_busy_nothing_is_absent_yet() {
    let root = root(&[]);
    fs::create_dir_all(root.path().join("run/udev")).unwrap();
    for file in ["control", "queue"] {
        fs::write(root.path().join("run/udev").join(file), "").unwrap();
    }
    let deadline = Deadline::after(Duration::from_millis(500));
    assert!(find(&plain(), root.path(), deadline, &mut |_| {}).unwrap().is_err());
    assert!(deadline.expired(), "the queue never emptied, so only the deadline ends the wait");
    // A drive that does not answer keeps udev busy for ever; the patience ends that wait.
    let search = Search { patience: Duration::from_millis(200), ..plain() };
    let deadline = later();
    assert!(find(&search, root.path(), deadline, &mut |_| {}).unwrap().is_err());
    assert!(!deadline.expired(), "and nothing has happened for as long as it may be busy");
}

/// A drive that does not answer: opening a FIFO without a writer blocks for ever.
fn mute(root: &Path, name: &str) {
    symlink(format!("../devices/{PCI}/block/{name}"), root.join("sys/block").join(name)).unwrap();
    nix::unistd::mkfifo(&root.join("dev").join(name), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
}

fn says_no_answer(text: &str, device: &str) -> bool {
    text.contains(&format!("{device}: the drive has not answered for ")) && text.contains("; check it, its cable")
}

/// The process that opens the drive hangs. A boot that needs no drive must go on when the patience ends.
#[test]
fn a_drive_that_never_answers_is_named_and_left() {
    let root = root(&[("sdb", PCI, b"")]);
    mute(root.path(), "sda");
    let mut told = Vec::new();
    let search = Search { patience: Duration::from_millis(300), ..plain() };
    let mut left = Vec::new();
    let found = find(&search, root.path(), later(), &mut |notice| match notice {
        Notice::Drive(words) => told.push(words.to_owned()),
        Notice::Left(drive) => left.push(drive.to_owned()),
        _ => {}
    });
    let looked = found.unwrap().err().unwrap();
    assert!(says_no_answer(&looked, "sda"), "{looked}");
    assert_eq!(left, ["sda"]);
    assert!(told.iter().any(|words| says_no_answer(words, "sda")), "{told:?}");
}

#[test]
fn a_deadline_holds_whatever_a_drive_does() {
    for insist in [false, true] {
        let root = root(&[]);
        mute(root.path(), "sda");
        let deadline = Deadline::after(Duration::from_millis(300));
        let search = Search { insist, ..plain() };
        let looked = find(&search, root.path(), deadline, &mut |_| {}).unwrap().err().unwrap();
        assert!(says_no_answer(&looked, "sda"), "{looked}");
    }
}

/// The silent drive might have a label that comes first, or a second payload. So the search waits for it until the
/// patience ends, and no longer.
#[test]
fn a_payload_is_used_although_another_drive_does_not_answer() {
    let root = root(&[("sr0", PCI, PLAIN)]);
    mute(root.path(), "sda");
    let mut told = Vec::new();
    // On a slow machine the patience may end before the other drive was read, so the search must insist.
    let search = Search { patience: Duration::from_millis(300), insist: true, ..plain() };
    let found = find(&search, root.path(), later(), &mut |notice| {
        if let Notice::Drive(words) = notice {
            told.push(words.to_owned());
        }
    });
    assert_eq!(found.unwrap().unwrap().origin.to_string(), "config-drive sr0 (IMPRINT)");
    assert!(matches!(&told[..], [words] if says_no_answer(words, "sda")), "{told:?}");
}

/// More drives than are read at once: every drive is read in the end.
#[test]
fn many_drives_are_all_read() {
    let names: Vec<String> = (0..70).map(|number| format!("sd{number:02}")).collect();
    let mut drives: Vec<(&str, &str, &[u8])> = names.iter().map(|name| (name.as_str(), PCI, &[0; 100][..])).collect();
    drives[69].2 = PLAIN;
    let found = search(&plain(), &drives).unwrap().unwrap();
    assert_eq!(found.origin.to_string(), "config-drive sd69 (IMPRINT)");
}

/// Programs that do not answer like a reader, and one that does not exist.
#[test]
fn a_reader_that_ends_without_an_answer_stops_no_boot() {
    let root = root(&[("sr0", PCI, PLAIN)]);
    for (program, why) in [
        ("/bin/true", "the process that read it ended without an answer"),
        ("/bin/echo", "the process that read it ended without an answer"),
        ("/nowhere", "no process can be started to read it: No such file or directory (os error 2)"),
    ] {
        let search = Search { program: Path::new(program), ..plain() };
        let looked = find(&search, root.path(), later(), &mut |_| {}).unwrap().err().unwrap();
        assert_eq!(looked, format!("sr0: {why}"), "{program}");
    }
}

/// A new file system need not erase the old one: mkfs.fat and a partition table leave an ISO 9660 volume intact.
#[test]
fn two_claims_on_one_medium_stop_a_boot_that_would_use_it() {
    // A FAT boot sector, as above, over an ISO 9660 volume.
    let fat = |label: &[u8; 11], mut image: Vec<u8>| {
        image[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        image[38] = 0x29;
        image[43..54].copy_from_slice(label);
        image[54..62].copy_from_slice(b"FAT12   ");
        image
    };
    let advice = "one of which is left from an earlier use; save the data that you need, clear the drive with wipefs \
                  -a /dev/sda, and write the config drive again";
    for (image, second) in [
        (fat(b"DATA       ", PLAIN.to_vec()), "a FAT volume \"DATA\""),
        (fat(b"IMPRINT    ", PLAIN.to_vec()), "a FAT volume \"IMPRINT\""),
        (fat(b"IMPRINT    ", emptied(PLAIN)), "a FAT volume \"IMPRINT\""),
        (partitioned(PLAIN.to_vec(), 2048, 4096), "a partition table (MBR)"),
        (partitioned(PLAIN.to_vec(), 63, 4096), "a partition table (MBR)"),
        (guid_partitioned(PLAIN.to_vec(), 512), "a partition table (GPT)"),
        (guid_partitioned(PLAIN.to_vec(), 4096), "a partition table (GPT)"),
        (marked(PLAIN.to_vec(), 1080, b"\x53\xef"), "an ext file system"),
        (marked(PLAIN.to_vec(), 4096, b"\xfc\x4e\x2b\xa9"), "a member of a RAID (md)"),
        (marked(PLAIN.to_vec(), 512, b"LABELONE"), "a physical volume of LVM"),
        (marked(PLAIN.to_vec(), 4086, b"SWAPSPACE2"), "swap space"),
        (marked(PLAIN.to_vec(), 65_600, b"_BHRfS_M"), "a btrfs file system"),
    ] {
        let error = search(&plain(), &[("sda", PCI, &image)]).err().unwrap();
        assert_eq!(error.to_string(), format!("sda has an ISO 9660 volume \"IMPRINT\" and {second}, {advice}"));
        assert!(matches!(error, SourceError::Claims { .. }));
    }
    // A volume with a label that others use, and without a payload, does not stop the boot.
    let cidata = guid_partitioned(emptied(CIDATA), 512);
    let looked = search(&plain(), &[("sda", PCI, &cidata)]).unwrap().err().unwrap();
    assert_eq!(looked, "sda: volume \"cidata\" without imprint/payload");
    let theirs = fat(b"DATA       ", relabelled(b"DEBIAN 12"));
    let looked = search(&plain(), &[("sda", PCI, &theirs)]).unwrap().err().unwrap();
    assert_eq!(
        looked,
        "sda: volume \"DEBIAN 12\": its label is not one that imprint looks for, and volume \"DATA\": its label is not \
         one that imprint looks for"
    );
}

/// People format the first partition of a USB stick. Such a config drive does not stop the boot, and the message names
/// it.
#[test]
fn a_partitioned_medium_is_named_so() {
    let behind = |start: usize, volume: &[u8]| {
        let mut disk = vec![0; start * 512];
        disk.extend_from_slice(volume);
        disk
    };
    let looked = |image: &[u8]| search(&plain(), &[("sda", PCI, image)]).unwrap().err().unwrap();
    let advice = "and partitions are not read without a site pin: name them with imprint.source=partition, or write the config \
                  drive to the whole disk, /dev/sda";
    let mut two = partitioned(behind(2048, CIDATA), 2048, 4096);
    // The first entry of the table is unused, but the kernel still calls the second partition sda2.
    let entry = two[446..462].to_vec();
    two[462..478].copy_from_slice(&entry);
    two[446..462].fill(0);
    for (image, want) in [
        (partitioned(behind(2048, PLAIN), 2048, 4096), "(MBR) with an ISO 9660 volume \"IMPRINT\" in partition 1,"),
        (two, "(MBR) with an ISO 9660 volume \"cidata\" in partition 2,"),
        (guid_partitioned(behind(2048, PLAIN), 512), "(GPT) with an ISO 9660 volume \"IMPRINT\" in partition 1,"),
    ] {
        assert_eq!(looked(&image), format!("sda: a partition table {want} {advice}"));
    }
    let named = Search { wanted: &[Wanted::Label(Some("DEBIAN 12"))], named: true, ..plain() };
    let theirs = partitioned(behind(2048, &relabelled(b"DEBIAN 12")), 2048, 4096);
    let found = search(&named, &[("sda", PCI, &theirs)]).unwrap().err().unwrap();
    assert_eq!(
        found,
        "sda: a partition table (MBR) with an ISO 9660 volume \"DEBIAN 12\" in partition 1, and partitions are not read: \
         name them with imprint.source=partition, or write the config drive to the whole disk, /dev/sda"
    );
    // Disks that were never meant as config drives, such as the root disk.
    let whole = "and neither ISO 9660 nor FAT on the whole disk";
    for (image, want) in [
        (theirs, "a partition table (MBR)"),
        (partitioned(behind(2048, PLAIN), 4096, 4096), "a partition table (MBR)"),
        (partitioned(vec![0; 4096], u32::MAX, u32::MAX), "a partition table (MBR)"),
        (guid_partitioned(vec![0; 4096], 4096), "a partition table (GPT)"),
        (marked(vec![0; 4096], 1080, b"\x53\xef"), "an ext file system"),
        (marked(vec![0; 4096], 3, b"EXFAT   "), "an exFAT file system"),
    ] {
        assert_eq!(looked(&image), format!("sda: {want}, {whole}"));
    }
}

/// Images that can also boot as a disk have a partition that contains the volume.
#[test]
fn a_partition_table_of_the_image_itself_is_none_beside_it() {
    for image in [
        partitioned(PLAIN.to_vec(), 0, 4096),
        partitioned(PLAIN.to_vec(), 1, 4096),
        partitioned(PLAIN.to_vec(), 64, 4096),
        // A master boot record without a partition, and one with code in place of the table.
        marked(PLAIN.to_vec(), 510, &[0x55, 0xaa]),
        marked(marked(PLAIN.to_vec(), 446, &[b'x'; 64]), 510, &[0x55, 0xaa]),
        // An image with a GPT whose master boot record has a partition for the volume.
        partitioned(guid_partitioned(PLAIN.to_vec(), 512), 0, 4096),
    ] {
        let found = search(&plain(), &[("sda", PCI, &image)]).unwrap().unwrap();
        assert_eq!(found.bytes.expose(), b"payload\n");
    }
}

fn marked(mut image: Vec<u8>, at: usize, mark: &[u8]) -> Vec<u8> {
    image.resize(image.len().max(131_072), 0);
    image[at..at + mark.len()].copy_from_slice(mark);
    image
}

/// A master boot record with one Linux partition.
fn partitioned(image: Vec<u8>, start: u32, sectors: u32) -> Vec<u8> {
    let image = marked(image, 446, &[0, 0, 0, 0, 0x83, 0, 0, 0]);
    let image = marked(image, 454, &[start.to_le_bytes(), sectors.to_le_bytes()].concat());
    marked(image, 510, &[0x55, 0xaa])
}

/// A GPT from GNU parted: mklabel gpt, mkpart primary 1MiB 60MiB. For another sector size the checksums are wrong.
fn guid_partitioned(image: Vec<u8>, sector: usize) -> Vec<u8> {
    let image = marked(image, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 1, 0]);
    let image = marked(image, 510, &[0x55, 0xaa]);
    let header = crate::hex::decode(
        "4546492050415254000001005c0000008ab4e49e000000000100000000000000ffff0100000000002200000000000000deff010000000000\
         7f93b01a0870c64e8ce1dd0bd3f15ee702000000000000008000000080000000 8ba17563"
            .replace(' ', "")
            .as_str(),
    );
    let entry = crate::hex::decode(
        "af3dc60f838472478e793d69d8477de4b27583b8ccb66148bf367bdc80a8feb50008000000000000ffdf010000000000",
    );
    marked(marked(image, sector, &header.unwrap()), 2 * sector, &entry.unwrap())
}

#[test]
fn a_file_that_is_there_and_cannot_be_read_is_broken_under_every_label() {
    let end = CIDATA.windows(8).position(|window| window == b"payload\n").unwrap();
    let error = search(&plain(), &[("sr0", PCI, &CIDATA[..end + 4])]).err().unwrap();
    let said = crate::chain::chain(&error);
    assert!(said.starts_with("volume \"cidata\" on sr0: reading its file imprint/payload: reading at byte "), "{said}");
}

/// A FAT volume whose boot sector is damaged must count as broken, not as absent.
#[test]
fn a_fat_volume_with_a_damaged_boot_sector_is_broken_under_our_label() {
    let mut image = vec![0; 4096];
    image[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    image[38] = 0x29;
    image[43..62].copy_from_slice(b"IMPRINT    FAT12   ");
    let error = search(&plain(), &[("vda", PCI, &image)]).err().unwrap();
    assert_eq!(
        crate::chain::chain(&error),
        "volume \"IMPRINT\" on vda: bytes per sector at byte 11 are 0, not 512 to 4096; write the volume again"
    );
    image[43..54].copy_from_slice(b"cidata     ");
    assert_eq!(
        search(&plain(), &[("vda", PCI, &image)]).unwrap().err().unwrap(),
        "vda: volume \"cidata\": bytes per sector at byte 11 are 0, not 512 to 4096; write the volume again"
    );
}

/// A broken volume after the payload in the order is ignored; a broken volume before it stops the boot.
#[test]
fn a_broken_volume_stops_the_boot_only_in_its_turn() {
    let empty = emptied(CIDATA);
    let drives: [(&str, &str, &[u8]); 2] = [("sda", PCI, &empty), ("sdb", PCI, PLAIN)];
    let first =
        Search { wanted: &[Wanted::Label(Some("IMPRINT")), Wanted::Label(Some("cidata"))], named: true, ..plain() };
    let found = search(&first, &drives).unwrap().unwrap();
    assert_eq!(found.origin, origin("sdb", "IMPRINT"));
    let last =
        Search { wanted: &[Wanted::Label(Some("cidata")), Wanted::Label(Some("IMPRINT"))], named: true, ..plain() };
    match search(&last, &drives).unwrap_err() {
        SourceError::NoFile { device, label } => assert_eq!((device.as_str(), label.as_str()), ("sda", "cidata")),
        other => panic!("{other}"),
    }
}
