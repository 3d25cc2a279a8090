use std::io::Cursor;

use super::*;
use crate::source::swap_mark::LEAST;

const SECTORS: u64 = LEAST / 512;

/// A disk with an MBR: one partition of this type at 1 MiB.
fn disk(kind: u8, sectors: u64) -> Cursor<Vec<u8>> {
    let mut disk = vec![0; ((2048 + sectors) * 512) as usize];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[450] = kind;
    disk[454..458].copy_from_slice(&2048u32.to_le_bytes());
    disk[458..462].copy_from_slice(&(sectors as u32).to_le_bytes());
    Cursor::new(disk)
}

fn place(sectors: u64) -> Place {
    let (name, disk) = ("vdb1".to_owned(), "vdb".to_owned());
    Place { name, disk, number: 1, start: 2048 * 512, bytes: sectors * 512 }
}

#[track_caller]
fn refused(place: &Place, disk: &mut Cursor<Vec<u8>>, content: Vec<u8>, words: &str) {
    let error = judge(place, disk, &mut Cursor::new(content)).unwrap_err();
    assert!(error.to_string().starts_with(words), "{error}");
}

/// The accident: somebody names the wrong partition, and everything on it is gone.
#[test]
fn what_is_not_for_swap_space_is_refused() {
    let empty = || vec![0; LEAST as usize];
    let (swap, right) = (|| disk(0x82, SECTORS), place(SECTORS));
    assert_eq!(judge(&right, &mut swap(), &mut Cursor::new(empty())).unwrap(), Stand::Free(Layout::of(LEAST).unwrap()));

    refused(&right, &mut disk(0x83, SECTORS), empty(), "the type of vdb1 in the partition table is not Linux swap; ");
    refused(
        &right,
        &mut Cursor::new(empty()),
        empty(),
        "the partition table of vdb cannot be relied on: there is none",
    );
    let moved = Place { start: 4096 * 512, ..right.clone() };
    let words = "the partition table of vdb cannot be relied on: it has no partition 1 where the kernel has it";
    refused(&moved, &mut swap(), empty(), words);
    refused(
        &Place { number: 2, ..right.clone() },
        &mut swap(),
        empty(),
        "the partition table of vdb cannot be relied on: ",
    );
    let few = SECTORS - 1;
    refused(
        &place(few),
        &mut disk(0x82, few),
        vec![0; few as usize * 512],
        "vdb1 has 16776704 bytes, and swap space takes ",
    );
    let mut ext = empty();
    ext[1080..1082].copy_from_slice(b"\x53\xef");
    refused(&right, &mut swap(), ext, "vdb1 holds an ext file system; if nobody needs that any more, clear it");
    let mut luks = empty();
    luks[..6].copy_from_slice(b"LUKS\xba\xbe");
    refused(&right, &mut swap(), luks, "vdb1 holds an encrypted volume (LUKS); ");
    // Suspended by another system, whose memory would be lost.
    let mut hibernated = empty();
    hibernated[4086..4096].copy_from_slice(b"S1SUSPEND\0");
    refused(&right, &mut swap(), hibernated, "vdb1 holds a system that was suspended to disk; ");
}

/// What is left of an old, encrypted disk is no reason to refuse; and afterwards nothing of it is in the margins.
#[test]
fn what_was_written_is_what_the_boot_looks_for() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("partition");
    std::fs::write(&path, vec![0xa5; LEAST as usize]).unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (mut file, place) = (open(), place(SECTORS));
    let Stand::Free(layout) = judge(&place, &mut disk(0x82, SECTORS), &mut file).unwrap() else { panic!("it is free") };
    write(&mut file, layout).unwrap();
    assert_eq!(judge(&place, &mut disk(0x82, SECTORS), &mut open()).unwrap(), Stand::Prepared);
    assert_eq!(swap_mark::look(&mut open(), LEAST).unwrap(), Mark::Ours);
    let (start, len) = layout.inner();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes[start as usize..(start + len) as usize].iter().all(|byte| *byte == 0xa5), "nothing else was written");
    // Somebody made a file system there since. It has to be cleared first.
    let mut changed = bytes;
    changed[1080..1082].copy_from_slice(b"\x53\xef");
    refused(&place, &mut disk(0x82, SECTORS), changed, "vdb1 holds an ext file system; ");
}

/// The accident: the marker is on a disk that no boot looks at, and nothing ever says why there is no swap space.
#[test]
fn what_no_boot_would_use_is_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
    let link = |disk: &str, target: &str| {
        std::os::unix::fs::symlink(format!("../devices/{target}/{disk}"), root.path().join("sys/block").join(disk))
            .unwrap();
    };
    link("vdb", "pci0000:00/0000:00:04.0/virtio2/block");
    link("sdb", "pci0000:00/0000:00:1d.7/usb2/2-1/host3/block");
    link("nbd0", "virtual/block");
    assert!(would_be_used(root.path(), &place(SECTORS)).is_ok());
    for disk in ["sdb", "nbd0"] {
        let place = Place { name: format!("{disk}p1"), disk: disk.to_owned(), ..place(SECTORS) };
        let error = would_be_used(root.path(), &place).unwrap_err().to_string();
        let words = format!("{disk}p1 would never be used, because no boot looks for swap space on {disk}: it is ");
        assert!(error.starts_with(&words), "{error}");
    }
}

#[test]
fn only_the_two_right_answers_are_a_yes() {
    for (typed, is_yes) in [
        ("vdb2\nyes\n", true),
        ("/dev/vdb2\nyes\n", true),
        ("vdb2\ny\n", false),
        ("vdb2\n/dev/yes\n", false),
        ("vdb2\nYES\n", false),
        ("vdb\nyes\n", false),
        ("yes\nyes\n", false),
        ("vdb2\n", false),
        ("", false),
    ] {
        let answered = ask("", &mut Cursor::new(typed), "vdb2");
        assert_eq!(answered.is_ok(), is_yes, "{typed:?}");
    }
}

/// A whole disk, and a device of device-mapper, have no such file in sysfs.
#[test]
fn only_a_partition_has_a_place() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sys/devices/pci/virtio2/block/vdb");
    std::fs::create_dir_all(folder.join("vdb2")).unwrap();
    std::fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
    for (file, text) in
        [("vdb2/partition", "2\n"), ("vdb2/start", "4096\n"), ("vdb2/size", "65536\n"), ("size", "131072\n")]
    {
        std::fs::write(folder.join(file), text).unwrap();
    }
    for (number, target) in [("254:16", "vdb"), ("254:18", "vdb/vdb2")] {
        let target = format!("../../devices/pci/virtio2/block/{target}");
        std::os::unix::fs::symlink(target, root.path().join("sys/dev/block").join(number)).unwrap();
    }
    let want = Place { name: "vdb2".into(), disk: "vdb".into(), number: 2, start: 4096 * 512, bytes: 65_536 * 512 };
    assert_eq!(of_sysfs(root.path(), (254, 18)), Some(want));
    assert_eq!(of_sysfs(root.path(), (254, 16)), None);
    assert_eq!(of_sysfs(root.path(), (253, 0)), None);
    let error = super::place(root.path(), root.path()).unwrap_err();
    assert!(matches!(error, SwapError::NotAPartition(_)), "{error:?}");
}
