use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;

const PLAIN: &[u8] = include_bytes!("../../../tests/data/iso-plain.iso");
const CIDATA: &[u8] = include_bytes!("../../../tests/data/iso-joliet-rr.iso");

/// A temp root with these drives, each with its path in sysfs.
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
const PLAIN_SEARCH: Search<'_> = Search { labels: &[], pinned: false, insist: false, other: None };

fn search(search: &Search<'_>, drives: &[(&str, &str, &[u8])]) -> Result<Result<Found, String>, SourceError> {
    let root = root(drives);
    find(search, root.path(), Deadline::after(Duration::from_millis(1)), &mut |_| {})
}

fn relabelled(label: &[u8]) -> Vec<u8> {
    let mut image = PLAIN.to_vec();
    image[16 * 2048 + 40..16 * 2048 + 72].fill(b' ');
    image[16 * 2048 + 40..16 * 2048 + 40 + label.len()].copy_from_slice(label);
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
        let found = search(&PLAIN_SEARCH, &[("sda", PCI, &[0; 70_000]), ("sr0", PCI, &image)]).unwrap().unwrap();
        assert_eq!(found.bytes.expose(), b"payload\n");
        let label = label.to_owned();
        assert_eq!(found.origin, Origin::ConfigDrive { device: "sr0".into(), label, named: false });
    }
}

#[test]
fn nothing_is_absent_and_says_what_was_looked_at() {
    assert_eq!(search(&PLAIN_SEARCH, &[]).unwrap().err().unwrap(), "no disk and no optical drive");
    let other = relabelled(b"DEBIAN 12");
    let drives: [(&str, &str, &[u8]); 4] =
        [("loop0", "virtual", PLAIN), ("sda", PCI, b"short"), ("sdb", PCI, &other), ("vda", PCI, &emptied(CIDATA))];
    assert_eq!(
        search(&PLAIN_SEARCH, &drives).unwrap().err().unwrap(),
        "sda: neither ISO 9660 nor FAT; sdb: volume \"DEBIAN 12\", not one of ours; vda: volume \"cidata\" without \
         imprint/payload"
    );
}

#[test]
fn usb_media_need_a_site_pin_or_a_name() {
    let drives: [(&str, &str, &[u8]); 1] = [("sdb", USB, PLAIN)];
    assert_eq!(
        search(&PLAIN_SEARCH, &drives).unwrap().err().unwrap(),
        "sdb: ignored, a USB medium; name it with imprint.source=config-drive or put a site pin into the image"
    );
    assert!(search(&Search { pinned: true, ..PLAIN_SEARCH }, &drives).unwrap().is_ok());
    let found = search(&Search { labels: &[None], ..PLAIN_SEARCH }, &drives).unwrap().unwrap();
    assert!(matches!(found.origin, Origin::ConfigDrive { named: true, .. }));
}

#[test]
fn a_drive_whose_bus_cannot_be_told_is_trusted_no_more_than_a_usb_medium() {
    let root = root(&[]);
    fs::create_dir(root.path().join("sys/block/sda")).unwrap();
    fs::write(root.path().join("dev/sda"), PLAIN).unwrap();
    let look = |pinned| {
        let search = Search { pinned, ..PLAIN_SEARCH };
        find(&search, root.path(), Deadline::after(Duration::from_millis(1)), &mut |_| {}).unwrap()
    };
    assert_eq!(
        look(false).err().unwrap(),
        "sda: ignored, a USB medium; name it with imprint.source=config-drive or put a site pin into the image"
    );
    assert!(look(true).is_ok());
}

#[test]
fn two_payloads_are_an_error_that_names_both() {
    let error = search(&PLAIN_SEARCH, &[("sr0", PCI, PLAIN), ("vda", PCI, CIDATA)]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "two payloads: on sr0 (IMPRINT) and on vda (cidata); remove one, or give them different labels and name one \
         with imprint.source=config-drive:LABEL"
    );
    for (labels, device) in
        [(&[Some("CIDATA")][..], "vda"), (&[Some("imprint"), Some("cidata")], "sr0"), (&[Some("cidata"), None], "vda")]
    {
        let ordered = Search { labels, ..PLAIN_SEARCH };
        let found = search(&ordered, &[("sr0", PCI, PLAIN), ("vda", PCI, CIDATA)]).unwrap().unwrap();
        assert!(matches!(found.origin, Origin::ConfigDrive { device: found, .. } if found == device));
    }
}

#[test]
fn broken_is_not_absent() {
    let damaged = {
        let mut image = PLAIN.to_vec();
        image.truncate(PLAIN.len() - 4);
        image
    };
    let error = search(&PLAIN_SEARCH, &[("sr0", PCI, &damaged)]).err().unwrap();
    assert!(matches!(&error, SourceError::Broken { device, .. } if device == "sr0"), "{error}");
    let error = search(&PLAIN_SEARCH, &[("sr0", PCI, &emptied(PLAIN))]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "volume \"IMPRINT\" on sr0 has no file imprint/payload; write it with imprint-host payload NODE --as iso"
    );
}

#[test]
fn a_damaged_descriptor_is_broken_under_our_label_and_absent_under_others() {
    let damaged = |label: &[u8]| {
        let mut image = relabelled(label);
        image[16 * 2048 + 80] ^= 0xff;
        image
    };
    let damage = "volume space size at byte 32848 is damaged; write the volume again";
    let error = search(&PLAIN_SEARCH, &[("sr0", PCI, &damaged(b"IMPRINT"))]).err().unwrap();
    assert_eq!(chain(&error), format!("volume \"IMPRINT\" on sr0: {damage}"));
    // Such drives have other uses, and a boot that does not need them must not stop for them.
    for label in ["config-2", "CIDATA"] {
        let drives: [(&str, &str, &[u8]); 1] = [("sr0", PCI, &damaged(label.as_bytes()))];
        let looked = search(&PLAIN_SEARCH, &drives).unwrap().err().unwrap();
        assert_eq!(looked, format!("sr0: volume \"{label}\": {damage}"));
        let named = Search { labels: &[Some(label)], ..PLAIN_SEARCH };
        assert!(matches!(search(&named, &drives), Err(SourceError::Broken { .. })), "unless it was named");
    }
    assert_eq!(
        search(&PLAIN_SEARCH, &[("sr0", PCI, &damaged(b"DEBIAN 12"))]).unwrap().err().unwrap(),
        "sr0: volume \"DEBIAN 12\", not one of ours"
    );
}

#[test]
fn a_drive_with_nothing_to_read_stops_no_boot_and_is_named() {
    let root = root(&[("sr0", PCI, PLAIN)]);
    fs::remove_file(root.path().join("dev/sr0")).unwrap();
    let found = find(&PLAIN_SEARCH, root.path(), Deadline::after(Duration::from_millis(1)), &mut |_| {});
    assert_eq!(found.unwrap().err().unwrap(), "sr0: no device node in /dev");
}

#[test]
fn who_insists_is_told_what_was_looked_at_and_waits_on() {
    let root = root(&[("sda", PCI, b"")]);
    fs::create_dir_all(root.path().join("run/udev")).unwrap();
    fs::write(root.path().join("run/udev/control"), "").unwrap();
    let mut notices = Vec::new();
    let insist = Search { insist: true, ..PLAIN_SEARCH };
    let deadline = Deadline::after(Duration::from_millis(400));
    let found = find(&insist, root.path(), deadline, &mut |notice| notices.push(notice.to_owned()));
    assert_eq!(found.unwrap().err().unwrap(), "sda: neither ISO 9660 nor FAT");
    assert_eq!(notices, ["sda: neither ISO 9660 nor FAT"]);
    assert!(deadline.expired());
}

#[test]
fn while_udev_is_busy_nothing_is_absent_yet() {
    let root = root(&[]);
    fs::create_dir_all(root.path().join("run/udev")).unwrap();
    for file in ["control", "queue"] {
        fs::write(root.path().join("run/udev").join(file), "").unwrap();
    }
    let deadline = Deadline::after(Duration::from_millis(500));
    assert!(find(&PLAIN_SEARCH, root.path(), deadline, &mut |_| {}).unwrap().is_err());
    assert!(deadline.expired(), "the queue never emptied, so only the deadline ends the wait");
}

#[test]
fn a_file_that_is_there_and_cannot_be_read_is_broken_under_every_label() {
    let end = CIDATA.windows(8).position(|window| window == b"payload\n").unwrap();
    let error = search(&PLAIN_SEARCH, &[("sr0", PCI, &CIDATA[..end + 4])]).err().unwrap();
    let said = crate::chain::chain(&error);
    assert!(said.starts_with("volume \"cidata\" on sr0: its file imprint/payload: reading at byte "), "{said}");
}

/// What every FAT volume has, and this one has wrong, must not make it count as absent.
#[test]
fn a_fat_volume_with_a_damaged_boot_sector_is_broken_under_our_label() {
    let mut image = vec![0; 4096];
    image[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    image[38] = 0x29;
    image[43..62].copy_from_slice(b"IMPRINT    FAT12   ");
    let error = search(&PLAIN_SEARCH, &[("vda", PCI, &image)]).err().unwrap();
    assert_eq!(
        crate::chain::chain(&error),
        "volume \"IMPRINT\" on vda: bytes per sector at byte 11 are 0, not 512 to 4096; write the volume again"
    );
    image[43..54].copy_from_slice(b"cidata     ");
    assert_eq!(
        search(&PLAIN_SEARCH, &[("vda", PCI, &image)]).unwrap().err().unwrap(),
        "vda: volume \"cidata\": bytes per sector at byte 11 are 0, not 512 to 4096; write the volume again"
    );
}

/// What comes first in the order is there, so what is wrong with what comes later is never asked; the other way round it is.
#[test]
fn a_broken_volume_stops_the_boot_only_in_its_turn() {
    let empty = emptied(CIDATA);
    let drives: [(&str, &str, &[u8]); 2] = [("sda", PCI, &empty), ("sdb", PCI, PLAIN)];
    let first = Search { labels: &[Some("IMPRINT"), Some("cidata")], ..PLAIN_SEARCH };
    let found = search(&first, &drives).unwrap().unwrap();
    let origin = Origin::ConfigDrive { device: "sdb".into(), label: "IMPRINT".into(), named: true };
    assert_eq!(found.origin, origin);
    let last = Search { labels: &[Some("cidata"), Some("IMPRINT")], ..PLAIN_SEARCH };
    match search(&last, &drives).unwrap_err() {
        SourceError::NoFile { device, label } => assert_eq!((device.as_str(), label.as_str()), ("sda", "cidata")),
        other => panic!("{other}"),
    }
}
