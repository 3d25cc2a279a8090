//! Tests of partitions, and of user data and vendor data, on drives: what is used, and what stops a boot.

use super::*;

const PINNED: &[Wanted<'static>] = &[Wanted::Label(None), Wanted::Partition];
const PAYLOAD: &[u8] = include_bytes!("../../../../tests/data/payload-typical.cbor");

/// Another payload.
const OTHER: &[u8] = include_bytes!("../../../../tests/data/payload-full.cbor");

fn pinned() -> Search<'static> {
    Search { wanted: PINNED, pinned: true, ..plain() }
}

/// A disk of 1 MiB with these partitions.
fn disk(entries: &[Entry<'_>]) -> Disk {
    Disk::new(512, 2048, entries)
}

fn raw(payload: &[u8]) -> Vec<u8> {
    disk(&[(LINUX, 100, 149, "root"), (OURS, 200, 399, "IMPRINT")]).put(200, payload).bytes
}

/// The attack: a previous tenant left a partition. Without a pin it must not come before the operator's line.
#[test]
fn a_partition_counts_with_a_site_pin_or_when_it_is_named() {
    let image = raw(PAYLOAD);
    for (name, device) in [("sda", "sda2"), ("nvme0n1", "nvme0n1p2"), ("mmcblk0", "mmcblk0p2")] {
        let drives: [(&str, &str, &[u8]); 1] = [(name, PCI, &image)];
        let named = Search { wanted: &[Wanted::Partition], named: true, ..plain() };
        for allowed in [pinned(), named] {
            let found = search(&allowed, &drives).unwrap().unwrap();
            assert_eq!(found.origin.to_string(), format!("partition {device} (IMPRINT)"));
            assert_eq!(found.bytes.expose(), PAYLOAD);
        }
        assert_eq!(
            search(&plain(), &drives).unwrap().err().unwrap(),
            format!(
                "{name}: a partition table (GPT) whose partition 2 is for a payload, and partitions are not read without a \
                 site pin: name them with imprint.source=partition, or write the config drive to the whole disk, /dev/{name}"
            )
        );
    }
    // A USB stick counts by the rule for drives.
    let stick = search(&pinned(), &[("sdb", USB, &image)]).unwrap().unwrap();
    assert_eq!(stick.origin.to_string(), "partition sdb2 (IMPRINT)");
}

/// By its type without a name, by its name without the type, on sectors of both sizes, and with one copy of the table only.
#[test]
fn a_partition_is_known_by_its_type_or_its_name() {
    for (kind, name, origin) in [
        (OURS, "", "partition sda1"),
        (LINUX, "imprint", "partition sda1 (imprint)"),
        (OURS, "of\u{1b}[2J", "partition sda1 (of\\u{1b}[2J)"),
    ] {
        for size in [512, 4096] {
            let image = Disk::new(size, 1024, &[(kind, 200, 299, name)]).put(200, PAYLOAD);
            let mut primary = image.bytes.clone();
            primary[size..size + 8].fill(0);
            for image in [&image.bytes, &primary] {
                let found = search(&pinned(), &[("sda", PCI, image)]).unwrap().unwrap();
                assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), (origin, PAYLOAD));
            }
        }
    }
}

#[test]
fn the_payload_in_a_partition_is_as_long_as_its_cbor() {
    let found = |image: &[u8]| search(&pinned(), &[("sda", PCI, image)]).unwrap();
    // The rest of a longer payload does not matter, and is not part of the payload.
    let long = [PAYLOAD, &[0xff; 60_000]].concat();
    assert_eq!(found(&raw(&long)).unwrap().bytes.expose(), PAYLOAD);
    // A signed payload begins with a tag.
    let signed = [&[0xd2, 0x84, 0x40, 0xa0, 0x41, 7, 0x41, 8][..], b"rest"].concat();
    assert_eq!(found(&raw(&signed)).unwrap().bytes.expose(), &signed[..8]);
    // Zeros: the partition was cleared, or nothing was written yet.
    assert_eq!(
        found(&raw(&[])).err().unwrap(),
        "sda: a partition table (GPT), and neither ISO 9660 nor FAT on the whole disk, sda2: it is empty"
    );
    let short = disk(&[(OURS, 200, 200, "IMPRINT")]).put(200, &PAYLOAD[..512]).put(201, &PAYLOAD[512..]);
    for (image, why) in [
        (raw(b"-----BEGIN IMPRINT"), "no payload is at its beginning"),
        (raw(&[&[0xa1, 0, 0x5a, 0, 1, 0, 0][..], &[7; 65_529]].concat()), "the payload in it is damaged or too long"),
        (raw(&[0xbf, 0, 1, 0xff]), "the payload in it is damaged or too long"),
        (short.bytes, "the payload in it is damaged or too long"),
    ] {
        let error = search(&pinned(), &[("sda", PCI, &image)]).err().unwrap();
        let place = if chain(&error).contains("sda1") { "sda1" } else { "sda2" };
        assert_eq!(
            chain(&error),
            format!(
                "partition {place}: {why}; write it with imprint-host payload NODE --as gpt, or clear it with zeros"
            )
        );
    }
}

/// A payload that was written over another file system leaves the magic number of that file system in its place.
#[test]
fn a_payload_over_a_file_system_is_two_claims() {
    let mut image = raw(PAYLOAD);
    image[200 * 512 + 4096..][..4].copy_from_slice(b"\xfc\x4e\x2b\xa9");
    let error = search(&pinned(), &[("sda", PCI, &image)]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "sda2 has a payload at its beginning and a member of a RAID (md), one of which is left from an earlier use; save \
         the data that you need, clear the drive with wipefs -a /dev/sda2, and write the config drive again"
    );
    let image = disk(&[(OURS, 200, 399, "IMPRINT")]).put(200, PLAIN).put(200, PAYLOAD);
    let error = search(&pinned(), &[("sda", PCI, &image.bytes)]).err().unwrap();
    assert!(
        error.to_string().starts_with("sda1 has a payload at its beginning and an ISO 9660 volume \"IMPRINT\", one"),
        "{error}"
    );
}

/// Volumes labelled `config-2`, as Ironic writes them at the end of a disk, cidata of cloud images, and IMPRINT.
#[test]
fn volumes_in_partitions() {
    for (volume, label) in
        [(PLAIN.to_vec(), "IMPRINT"), (CIDATA.to_vec(), "cidata"), (relabelled(b"config-2"), "config-2")]
    {
        let gpt = disk(&[(LINUX, 100, 149, "root"), (LINUX, 200, 399, "data")]).put(200, &volume).bytes;
        let mut mbr = vec![0; 200 * 512];
        mbr.extend_from_slice(&volume);
        mbr.resize(512 * 512, 0);
        let mbr = partitioned(mbr, 200, 312);
        for (image, device) in [(gpt, "sda2"), (mbr, "sda1")] {
            let found = search(&pinned(), &[("sda", PCI, &image)]).unwrap().unwrap();
            let place = format!("{device} ({label})").as_str().into();
            assert_eq!(found.origin, Origin::Medium { medium: Medium::PartitionVolume, place });
            assert_eq!(found.bytes.expose(), b"payload\n");
        }
    }
    // In a partition with our type, a volume counts whatever its label is.
    let theirs = disk(&[(OURS, 200, 399, "")]).put(200, &relabelled(b"DEBIAN 12")).bytes;
    let found = search(&pinned(), &[("sda", PCI, &theirs)]).unwrap().unwrap();
    assert_eq!(found.origin.to_string(), "partition sda1 (DEBIAN 12)");
    // A file that is absent or broken means the same as on a whole drive.
    let looked =
        |volume: &[u8], kind| search(&pinned(), &[("sda", PCI, &disk(&[(kind, 200, 399, "")]).put(200, volume).bytes)]);
    assert_eq!(
        looked(&emptied(CIDATA), LINUX).unwrap().err().unwrap(),
        "sda: a partition table (GPT), and neither ISO 9660 nor FAT on the whole disk, sda1: volume \"cidata\" without \
         imprint/payload"
    );
    assert_eq!(
        looked(&relabelled(b"DEBIAN 12"), LINUX).unwrap().err().unwrap(),
        "sda: a partition table (GPT) without a partition for a payload, and neither ISO 9660 nor FAT on the whole disk"
    );
    for (volume, kind) in [(emptied(PLAIN), LINUX), (emptied(CIDATA), OURS)] {
        assert!(matches!(looked(&volume, kind), Err(SourceError::NoFile { device, .. }) if device == "sda1"));
    }
}

#[test]
fn two_partitions_with_a_payload_are_an_error_that_names_both() {
    let two = disk(&[(OURS, 200, 399, "IMPRINT"), (LINUX, 400, 599, "data")]).put(200, PAYLOAD).put(400, CIDATA).bytes;
    let error = search(&pinned(), &[("sda", PCI, &two)]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "two different payloads: in partition sda1 (IMPRINT) and in partition sda2 (cidata); clear the beginning of one with \
         zeros"
    );
    let error = search(&pinned(), &[("sda", PCI, &raw(PAYLOAD)), ("sdb", USB, &raw(OTHER))]).err().unwrap();
    assert!(
        error
            .to_string()
            .starts_with("two different payloads: in partition sda2 (IMPRINT) and in partition sdb2 (IMPRINT);"),
        "{error}"
    );
    // A config drive comes before a partition, unless the partition is named first.
    let drives: [(&str, &str, &[u8]); 2] = [("sda", PCI, &two), ("sr0", PCI, PLAIN)];
    assert_eq!(search(&pinned(), &drives).unwrap().unwrap().origin, origin("sr0", "IMPRINT"));
    let drives: [(&str, &str, &[u8]); 2] = [("sda", PCI, &raw(PAYLOAD)), ("sr0", PCI, PLAIN)];
    let behind = Search { wanted: &[Wanted::Partition, Wanted::Label(None)], named: true, ..plain() };
    assert_eq!(search(&behind, &drives).unwrap().unwrap().origin.to_string(), "partition sda2 (IMPRINT)");
}

/// A payload that may be a copy of another one, on a disk or on its mirror.
#[test]
fn copies_in_partitions_are_one_payload() {
    let mirror = raw(PAYLOAD);
    let drives: [(&str, &str, &[u8]); 2] = [("sdb", PCI, &mirror), ("sda", PCI, &mirror)];
    let found = search(&pinned(), &drives).unwrap().unwrap();
    assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), ("partition sda2 (IMPRINT)", PAYLOAD));
    // A volume of the same bytes beside it, and one of others.
    let entries = [(LINUX, 200, 399, "data"), (LINUX, 400, 599, "copy"), (LINUX, 600, 799, "other")];
    let both = disk(&entries).put(200, CIDATA).put(400, PLAIN);
    let found = search(&pinned(), &[("sda", PCI, &both.bytes)]).unwrap().unwrap();
    assert_eq!(
        (found.origin.to_string().as_str(), found.bytes.expose()),
        ("partition sda1 (cidata)", &b"payload\n"[..])
    );
    let other = both.put(600, &other_payload(PLAIN)).bytes;
    let error = search(&pinned(), &[("sda", PCI, &other)]).err().unwrap();
    assert!(matches!(&error, SourceError::SeveralPartitions { second, .. } if second == "sda3 (IMPRINT)"), "{error}");
}

/// A payload has no mark of its own: it is CBOR. So it counts where the table says that the partition holds one. An MBR cannot
/// say so.
#[test]
fn a_payload_in_a_partition_that_nothing_marks_is_absent_and_named() {
    let signed = include_bytes!("../../../../tests/data/payload-signed-p256.cbor");
    for payload in [PAYLOAD, OTHER, signed] {
        let mut mbr = [&vec![0; 200 * 512], payload].concat();
        mbr.resize(512 * 512, 0);
        let mbr = partitioned(mbr, 200, 312);
        let gpt = disk(&[(LINUX, 200, 399, "data")]).put(200, payload).bytes;
        for (image, table) in [(&mbr, "MBR"), (&gpt, "GPT")] {
            assert_eq!(
                search(&pinned(), &[("sda", PCI, image)]).unwrap().err().unwrap(),
                format!(
                    "sda: a partition table ({table}), and neither ISO 9660 nor FAT on the whole disk, sda1: it begins like a \
                     payload, which counts only in a GPT partition with the type or the name of imprint; write a volume with \
                     it there (imprint-host payload NODE --as vfat)"
                )
            );
            let drives: [(&str, &str, &[u8]); 2] = [("sda", PCI, image), ("sr0", PCI, PLAIN)];
            let behind = Search { wanted: &[Wanted::Partition, Wanted::Label(None)], named: true, ..plain() };
            assert_eq!(search(&behind, &drives).unwrap().unwrap().origin, origin("sr0", "IMPRINT"), "it stops no boot");
        }
    }
}

/// A table that contradicts itself gives no payload. It stops the boot if it has a partition of ours, and only then.
#[test]
fn a_damaged_table_gives_nothing() {
    let ours = [(LINUX, 100, 199, "root"), (OURS, 199, 399, "IMPRINT")];
    let theirs = [(LINUX, 100, 199, "root"), (LINUX, 199, 399, "cidata")];
    let image = |entries: &[Entry<'_>]| disk(entries).put(199, PAYLOAD).bytes;
    let error = search(&pinned(), &[("sda", PCI, &image(&ours))]).err().unwrap();
    let why = "partitions 1 and 2 overlap; name another source with imprint.source= to boot without them, or partition the disk again, \
               which erases it";
    assert_eq!(chain(&error), format!("partition table of sda: {why}"));
    assert_eq!(
        search(&pinned(), &[("sda", PCI, &image(&theirs))]).unwrap().err().unwrap(),
        format!(
            "sda: a partition table (GPT), and neither ISO 9660 nor FAT on the whole disk, its partitions are not read: {why}"
        )
    );
    // Without a pin, nobody asked for partitions.
    assert!(search(&plain(), &[("sda", PCI, &image(&ours))]).unwrap().is_err());
    // A payload on another drive comes before it.
    let drives: [(&str, &str, &[u8]); 2] = [("sda", PCI, &image(&ours)), ("sr0", PCI, PLAIN)];
    assert_eq!(search(&pinned(), &drives).unwrap().unwrap().origin, origin("sr0", "IMPRINT"));
    // Both copies are damaged, or both are valid and differ.
    let mut both = raw(PAYLOAD);
    let backup = both.len() - 512;
    both[512 + 40] ^= 1;
    both[backup + 40] ^= 1;
    let error = search(&pinned(), &[("sda", PCI, &both)]).err().unwrap();
    assert_eq!(
        chain(&error),
        "partition table of sda: the GPT is damaged and has no valid backup: the checksum of its header is wrong; repair it \
         with gdisk (r), or name another imprint.source=; partitioning anew erases the disk"
    );
    let mut differ = raw(PAYLOAD);
    differ[2048 * 512 - 33 * 512 + 128 + 40] += 1;
    let mut differ = Disk { size: 512, bytes: differ };
    differ.sign(false);
    let error = search(&pinned(), &[("sda", PCI, &differ.bytes)]).err().unwrap();
    assert_eq!(
        chain(&error),
        "partition table of sda: the primary and the backup GPT are both valid, but differ; sgdisk -e DEVICE keeps the \
         primary and writes the backup anew"
    );
}

/// The accident: the payload is in the ninth partition of ours, and the agent boots on without a word, because the answer
/// had room for seven. The attack: a second payload is hidden behind eight partitions without one.
#[test]
fn a_payload_behind_many_partitions_is_found() {
    let entries: Vec<Entry<'_>> = (0..9).map(|n| (OURS, 200 + 10 * n, 209 + 10 * n, "IMPRINT")).collect();
    let ninth = disk(&entries).put(280, PAYLOAD);
    let found = search(&pinned(), &[("sda", PCI, &ninth.bytes)]).unwrap().unwrap();
    assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), ("partition sda9 (IMPRINT)", PAYLOAD));
    let other = [0xa1, 0, 0x19, 1, 2];
    let error = search(&pinned(), &[("sda", PCI, &ninth.put(200, &other).bytes)]).err().unwrap();
    assert!(
        error
            .to_string()
            .starts_with("two different payloads: in partition sda1 (IMPRINT) and in partition sda9 (IMPRINT);"),
        "{error}"
    );
    // Volumes that have no payload take no place either.
    let entries: Vec<Entry<'_>> = (0..9).map(|n| (LINUX, 100 + 200 * n, 299 + 200 * n, "")).collect();
    let mut volumes = disk(&entries).put(1700, &relabelled(b"config-2"));
    for n in 0..8 {
        volumes = volumes.put(100 + 200 * n, &emptied(CIDATA));
    }
    let found = search(&pinned(), &[("sda", PCI, &volumes.bytes)]).unwrap().unwrap();
    assert_eq!(found.origin.to_string(), "partition sda9 (config-2)");
}

/// What is not looked at stops the boot, since it may be the payload that is meant, or a second one.
#[test]
fn more_partitions_than_are_looked_at_stop_the_boot() {
    let entries: Vec<Entry<'_>> = (0..9).map(|n| (OURS, 200 + 10 * n, 209 + 10 * n, "IMPRINT")).collect();
    let mut full = disk(&entries);
    for n in 0..8 {
        full = full.put(200 + 10 * n, b"junk");
    }
    let error = search(&pinned(), &[("sda", PCI, &full.put(280, PAYLOAD).bytes)]).err().unwrap();
    assert_eq!(
        chain(&error),
        "partition table of sda: more than 7 of its partitions have something for imprint; leave one, and clear the others \
         with zeros"
    );
}

/// More partitions than an answer has room for. One that is not in the answer may hold another payload than those that are, so
/// none of them is used.
#[test]
fn a_disk_full_of_payloads_is_an_error() {
    let names: Vec<Entry<'_>> = (0..100).map(|n| (OURS, 200 + 10 * n, 209 + 10 * n, "IMPRINT")).collect();
    let said = |payloads: &[(u64, &[u8])]| {
        let mut image = disk(&names);
        for (n, payload) in payloads {
            image = image.put(200 + 10 * n, payload);
        }
        let found = search(&pinned(), &[("sda", PCI, &image.bytes)]);
        found.map(|found| found.unwrap().origin.to_string()).map_err(|error| chain(&error))
    };
    let copies: Vec<(u64, &[u8])> = (0..100).map(|n| (n, PAYLOAD)).collect();
    assert_eq!(said(&copies[..4]).unwrap(), "partition sda1 (IMPRINT)");
    let many = "partition sda5: more than 4 payloads on one medium; remove all but one";
    assert_eq!(said(&copies[..5]).unwrap_err(), many);
    let full = "partition table of sda: more than 7 of its partitions have something for imprint;";
    assert!(said(&copies).unwrap_err().starts_with(full));
    assert_eq!(said(&[(0, PAYLOAD), (6, PAYLOAD)]).unwrap(), "partition sda1 (IMPRINT)");
    // Those between are empty, and take no room.
    for hidden in [7, 8, 99] {
        let other = hidden + 1;
        assert_eq!(
            said(&[(0, PAYLOAD), (hidden, OTHER)]).unwrap_err(),
            format!(
                "two different payloads: in partition sda1 (IMPRINT) and in partition sda{other} (IMPRINT); clear the beginning \
                 of one with zeros"
            )
        );
    }
}
