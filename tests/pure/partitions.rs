//! Tests of our reader with partition tables that other programs made.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use imprint::medium::PARTITION_TYPE;
use imprint::source::SourceError;
use imprint::source::partition::{Table, TableError, table};
use serde_json::Value;

use super::drives::with_partitions;
use super::volumes::run as tool;

const PAYLOAD: &[u8] = include_bytes!("../data/payload-typical.cbor");
const OTHER: &[u8] = include_bytes!("../data/payload-full.cbor");
const MIB: u64 = 1024 * 1024;

/// An empty disk.
fn disk(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).unwrap().set_len(16 * MIB).unwrap();
    path
}

/// Partitions the disk as the script says.
fn sfdisk(disk: &Path, script: &str) {
    tool("sh", &["-c", &format!("printf '{script}' | sfdisk --quiet '{}'", disk.display())]);
}

/// A GPT on sectors of 4096 bytes, which sfdisk does not make. The second partition is ours, and begins at 2 MiB.
fn fdisk_4096(disk: &Path) {
    let words = format!("g n 1 256 +127 n 2 512 +63 t 2 {PARTITION_TYPE} x n 2 Imprint r w").replace(' ', "\\n");
    tool("sh", &["-c", &format!("printf '{words}\\n' | fdisk -b 4096 '{}'", disk.display())]);
}

fn read(disk: &Path) -> Table {
    table(&mut File::open(disk).unwrap()).unwrap().expect("no table")
}

fn write(disk: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(disk).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Every number as sfdisk itself shows it.
#[test]
fn tables_of_sfdisk() {
    let temp = tempfile::tempdir().unwrap();
    let gpt = format!(
        "label: gpt\\n start=2048, size=1024, name=\"root\"\\n start=6144, size=256, type={PARTITION_TYPE}\\n\
         start=4096, size=8, name=\"Imprint\"\\n"
    );
    let mbr = "label: dos\\n start=2048, size=1024, type=83\\n start=4096, size=1024, type=c\\n start=8192, type=5\\n";
    for (script, names) in [
        (gpt.as_str(), [("root", false), ("", true), ("Imprint", true)]),
        (mbr, [("", false), ("", false), ("", false)]),
    ] {
        let disk = disk(temp.path(), "disk");
        sfdisk(&disk, script);
        let shown = tool("sfdisk", &["--json", disk.to_str().unwrap()]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let shown = shown["partitiontable"]["partitions"].as_array().unwrap().clone();
        let table = read(&disk);
        assert_eq!((table.fault, table.partitions.len(), shown.len()), (None, names.len(), names.len()));
        for ((ours, theirs), (name, is_ours)) in table.partitions.iter().zip(&shown).zip(names) {
            let number = |key: &str| theirs[key].as_u64().unwrap() * 512;
            assert_eq!(ours.place(), (number("start"), number("size")), "{theirs}");
            assert_eq!((ours.name.as_str(), ours.is_ours()), (name, is_ours), "{theirs}");
            // sfdisk names a partition of a file by the name of the file and the number.
            assert!(theirs["node"].as_str().unwrap().ends_with(&ours.number.to_string()), "{theirs}");
        }
    }
}

/// Every number of the table as sfdisk itself shows it.
#[track_caller]
fn is_as_sfdisk_shows(disk: &Path, numbers: &[u32]) {
    let shown: Value = serde_json::from_str(&tool("sfdisk", &["--json", disk.to_str().unwrap()])).unwrap();
    let shown = shown["partitiontable"]["partitions"].as_array().unwrap().clone();
    let name = disk.to_str().unwrap();
    let place = |one: &Value, key: &str| one[key].as_u64().unwrap() * 512;
    let number = |one: &Value| one["node"].as_str().unwrap().strip_prefix(name).unwrap().parse().unwrap();
    let shown: Vec<(u32, (u64, u64))> =
        shown.iter().map(|one| (number(one), (place(one, "start"), place(one, "size")))).collect();
    let table = read(disk);
    assert_eq!(table.fault, None);
    let ours: Vec<(u32, (u64, u64))> = table.partitions.iter().map(|one| (one.number, one.place())).collect();
    assert_eq!(ours, shown);
    assert_eq!(ours.iter().map(|(number, _)| *number).collect::<Vec<_>>(), numbers);
}

/// Logical partitions as people make them, take one away, and put another into the gap, so that the chain leads backwards.
#[test]
fn logical_partitions_of_sfdisk_and_fdisk() {
    let temp = tempfile::tempdir().unwrap();
    for kind in ["5", "f", "85"] {
        let disk = disk(temp.path(), &format!("disk-{kind}-"));
        let path = disk.to_str().unwrap();
        sfdisk(
            &disk,
            &format!(
                "label: dos\\n d2 : start=2048, size=2048, type=83\\n d4 : start=4096, size=20000, type={kind}\\n \
                 d5 : size=1024, type=83\\n d6 : start=12288, size=4096, type=c\\n d7 : size=2048, type=83\\n"
            ),
        );
        is_as_sfdisk_shows(&disk, &[2, 4, 5, 6, 7]);
        tool("mkfs.fat", &["-F", "12", "-n", "IMPRINT", "--offset", "12288", path, "2048"]);
        let volume = format!("{path}@@{}", 12288 * 512);
        std::fs::write(temp.path().join("payload"), PAYLOAD).unwrap();
        tool("mmd", &["-i", &volume, "::/imprint"]);
        tool("mcopy", &["-i", &volume, temp.path().join("payload").to_str().unwrap(), "::/imprint/payload"]);
        let origin = || with_partitions(&[("sda", &disk)]).unwrap().unwrap().origin.to_string();
        assert_eq!(origin(), "partition sda6 (IMPRINT)");
        tool("sfdisk", &["--quiet", "--delete", path, "5"]);
        is_as_sfdisk_shows(&disk, &[2, 4, 5, 6]);
        assert_eq!(origin(), "partition sda5 (IMPRINT)");
        tool("sh", &["-c", &format!("printf 'n\\nl\\n7000\\n+1000\\nw\\n' | fdisk '{path}'")]);
        is_as_sfdisk_shows(&disk, &[2, 4, 5, 6, 7]);
        assert!(read(&disk).partitions[4].place().0 < read(&disk).partitions[2].place().0, "the chain leads backwards");
        assert_eq!(origin(), "partition sda5 (IMPRINT)");
        // The second sector of the chain is lost: an MBR that is damaged gives nothing, and says why.
        let second = read(&disk).partitions[3].place().0 - 2048 * 512;
        write(&disk, second, &[0; 512]);
        assert_eq!(
            with_partitions(&[("sda", &disk)]).unwrap().err().unwrap(),
            "sda: a partition table (MBR), and neither ISO 9660 nor FAT on the whole disk, its partitions are not read: the \
             chain of logical partitions in partition 4 is damaged: a link leads to something else; name another source \
             with imprint.source= to boot without it, or partition the disk again, which erases it"
        );
    }
    let empty = disk(temp.path(), "empty-");
    sfdisk(&empty, "label: dos\\n start=4096, size=20000, type=f\\n");
    is_as_sfdisk_shows(&empty, &[1]);
}

/// What clouds put on a drive counts in a partition as well, of each table and in each format.
#[test]
fn data_of_clouds_in_partitions() {
    let temp = tempfile::tempdir().unwrap();
    let text = imprint::pem::encode(imprint::medium::ARMOUR, PAYLOAD).to_string();
    let vendor = serde_json::json!({ "cloud-init": "#cloud-config\n", "imprint": text }).to_string();
    let gpt = ("label: gpt\\n start=2048, size=1024\\n start=8192, size=16384\\n", "vda2");
    let mbr = ("label: dos\\n start=8192, size=16384, type=83\\n", "vda1");
    let logical =
        ("label: dos\\n d1 : start=2048, size=30000, type=f\\n d5 : start=8192, size=16384, type=83\\n", "vda5");
    for (label, path, content, kind) in [
        ("config-2", "openstack/latest/user_data", text.as_str(), "user-data"),
        ("config-2", "openstack/latest/vendor_data.json", &vendor, "vendor-data"),
        ("cidata", "user-data", &text, "user-data"),
    ] {
        let folder = temp.path().join(format!("{label}-{kind}"));
        std::fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        std::fs::write(folder.join(path), content).unwrap();
        let (iso, fat) = (temp.path().join("iso"), temp.path().join("fat"));
        tool(
            "genisoimage",
            &["-quiet", "-J", "-R", "-V", label, "-o", iso.to_str().unwrap(), folder.to_str().unwrap()],
        );
        let _ = std::fs::remove_file(&fat);
        tool("mkfs.fat", &["-n", label, "-C", fat.to_str().unwrap(), "1440"]);
        tool("sh", &["-c", &format!("mcopy -s -i '{}' '{}'/* ::/", fat.display(), folder.display())]);
        for (script, device) in [gpt, mbr, logical] {
            for volume in [&iso, &fat] {
                let disk = disk(temp.path(), "disk-");
                sfdisk(&disk, script);
                write(&disk, 4 * MIB, &std::fs::read(volume).unwrap());
                let found = with_partitions(&[("vda", &disk)]).unwrap().unwrap();
                assert_eq!(found.origin.to_string().to_lowercase(), format!("{kind} {device} ({label})"), "{volume:?}");
                assert_eq!(found.bytes.expose(), PAYLOAD);
            }
        }
    }
}

/// Copies of one payload, on drives and in partitions: the image that was attached twice, the two disks of a mirror, and the
/// partition that is there as user data as well, which everybody on the node can read.
#[test]
fn copies_of_one_payload_stop_no_boot() {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("image");
    let time = imprint::time::Timestamp::from_secs(0);
    std::fs::write(&image, &*imprint_host::iso::image(PAYLOAD, time).unwrap()).unwrap();
    let found = with_partitions(&[("sr1", &image), ("sr0", &image)]).unwrap().unwrap();
    assert_eq!(found.origin.to_string(), "config-drive sr0 (IMPRINT)");
    let other = temp.path().join("other");
    std::fs::write(&other, &*imprint_host::iso::image(OTHER, time).unwrap()).unwrap();
    let error = with_partitions(&[("sr1", &image), ("sr0", &image), ("sr2", &other)]).err().unwrap();
    assert!(
        error.to_string().starts_with("two different payloads: on sr0 (IMPRINT) and on sr2 (IMPRINT); "),
        "{error}"
    );

    let (half, cloud) = (disk(temp.path(), "half"), disk(temp.path(), "cloud"));
    let script = format!("label: gpt\\n start=2048, size=256, type={PARTITION_TYPE}\\n start=8192, size=8192\\n");
    for disk in [&half, &cloud] {
        sfdisk(disk, &script);
        write(disk, MIB, PAYLOAD);
    }
    let origin = |drives: &[(&str, &Path)]| with_partitions(drives).map(|found| found.unwrap().origin.to_string());
    assert_eq!(origin(&[("sdb", &half), ("sda", &half)]).unwrap(), "partition sda1");
    // Each is a half of a mirror of md, whose superblock (metadata 1.0) stands at the end of the partition.
    let mirror = disk(temp.path(), "mirror");
    sfdisk(&mirror, &script);
    write(&mirror, 4 * MIB, &imprint_host::vfat::image(PAYLOAD).unwrap());
    let mut superblock = [&b"\xfc\x4e\x2b\xa9\x01\0\0\0"[..], &[0; 64], &[1]].concat();
    superblock.resize(256, 0);
    let end = (8192 + 8192 - 16) * 512;
    write(&mirror, end, &superblock);
    let mirrors: [(&str, &Path); 2] = [("sda", &mirror), ("sdb", &mirror)];
    assert_eq!(origin(&mirrors).unwrap(), "partition sda2 (IMPRINT)");
    superblock[72] = 5;
    write(&mirror, end, &superblock);
    assert!(matches!(with_partitions(&mirrors), Err(SourceError::Claims { .. })), "a stripe is not what its array is");
    let folder = temp.path().join("drive");
    std::fs::create_dir_all(folder.join("openstack/latest")).unwrap();
    let put = |payload: &[u8]| {
        let text = imprint::pem::encode(imprint::medium::ARMOUR, payload);
        std::fs::write(folder.join("openstack/latest/user_data"), text.as_bytes()).unwrap();
        let iso = temp.path().join("config-2");
        let (iso, from) = (iso.to_str().unwrap(), folder.to_str().unwrap());
        tool("genisoimage", &["-quiet", "-J", "-R", "-V", "config-2", "-o", iso, from]);
        write(&cloud, 4 * MIB, &std::fs::read(iso).unwrap());
    };
    put(PAYLOAD);
    assert_eq!(origin(&[("sda", &half), ("sdb", &cloud)]).unwrap(), "user-data sdb2 (config-2)");
    put(OTHER);
    assert_eq!(
        origin(&[("sda", &half), ("sdb", &cloud)]).unwrap_err().to_string(),
        "two different payloads: in partition sda1 and in partition sdb2 (config-2); clear the beginning of one with zeros"
    );
}

/// An MBR says of no partition that it holds a payload, so somebody's bytes that begin like one are none.
#[test]
fn a_payload_without_a_volume_in_an_mbr_is_absent_and_the_message_helps() {
    let temp = tempfile::tempdir().unwrap();
    for (script, device) in [
        ("label: dos\\n start=8192, size=16384, type=da\\n", "sda1"),
        ("label: dos\\n d1 : start=2048, size=30000, type=5\\n d5 : start=8192, size=16384, type=da\\n", "sda5"),
    ] {
        let disk = disk(temp.path(), "disk-");
        sfdisk(&disk, script);
        write(&disk, 4 * MIB, PAYLOAD);
        let looked = with_partitions(&[("sda", &disk)]).unwrap().err().unwrap();
        let want = format!(
            "{device}: it begins like a payload, which counts only in a GPT partition with the type or the name of imprint; \
             write a volume with it there (imprint-host payload NODE --as vfat)"
        );
        assert!(looked.ends_with(&want), "{looked}");
        // As it says.
        write(&disk, 4 * MIB, &imprint_host::vfat::image(PAYLOAD).unwrap());
        let found = with_partitions(&[("sda", &disk)]).unwrap().unwrap();
        assert_eq!(found.origin.to_string(), format!("partition {device} (IMPRINT)"));
    }
}

#[test]
fn a_table_of_fdisk_on_large_sectors() {
    let temp = tempfile::tempdir().unwrap();
    let disk = disk(temp.path(), "disk");
    fdisk_4096(&disk);
    let columns = "Start,Sectors,Type-UUID,Name";
    let shown = tool("fdisk", &["-b", "4096", "-l", "-o", columns, disk.to_str().unwrap()]);
    let table = read(&disk);
    assert_eq!((table.fault, table.partitions.len()), (None, 2));
    for partition in &table.partitions {
        let (start, len) = partition.place();
        let begins = |line: &&str| line.split_whitespace().next() == Some(&(start / 4096).to_string());
        let line = shown.lines().find(begins).unwrap();
        assert!(line.split_whitespace().any(|word| word == (len / 4096).to_string()), "{line}: {len}");
        assert_eq!(partition.is_ours(), line.to_ascii_lowercase().contains(PARTITION_TYPE), "{line}");
        assert!(line.trim_end().ends_with(&partition.name), "{line}: {}", partition.name);
    }
}

/// What sgdisk makes, breaks, and takes for broken.
#[test]
fn tables_of_sgdisk() {
    let temp = tempfile::tempdir().unwrap();
    let path = disk(temp.path(), "disk");
    let disk = path.to_str().unwrap();
    let kind = format!("2:{PARTITION_TYPE}");
    tool("sgdisk", &["-n", "1:2048:4095", "-n", "2:8192:8199", "-t", &kind, "-c", "2:IMPRINT", disk]);
    assert!(tool("sgdisk", &["-v", disk]).contains("No problems found"));
    let table = read(&path);
    assert_eq!((table.fault, table.partitions.len()), (None, 2));
    assert!(table.partitions[1].is_ours() && table.partitions[1].name == "IMPRINT");
    let whole = std::fs::read(&path).unwrap();
    // A hybrid MBR, as sgdisk makes it, repeats partitions of the GPT.
    tool("sgdisk", &["-h", "1:2", disk]);
    assert_eq!(read(&path).fault, None);
    // The first entry protects the GPT. The second is made shorter, as a program without knowledge of GPT would make
    // it.
    let mbr = std::fs::read(&path).unwrap();
    let length = u32::from_le_bytes(mbr[474..478].try_into().unwrap());
    write(&path, 474, &(length - 1).to_le_bytes());
    assert!(matches!(read(&path).fault, Some(TableError::Hybrid(_))), "{:?}", read(&path).fault);
    // The primary is gone: sgdisk would restore it from the backup, and our reader uses the backup.
    std::fs::write(&path, &whole).unwrap();
    write(&path, 512, &[0; 512]);
    let table = read(&path);
    assert_eq!((table.fault, table.partitions.len()), (None, 2));
    assert!(table.partitions[1].is_ours());
    // A larger disk, on which the backup is not at the end.
    std::fs::write(&path, &whole).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(20 * MIB).unwrap();
    assert_eq!(read(&path).fault, None);
    // A smaller one.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(12 * MIB).unwrap();
    assert_eq!(read(&path).fault, Some(TableError::Header("it was made for a larger disk")));
    // Zapped: nothing is left.
    std::fs::write(&path, &whole).unwrap();
    tool("sgdisk", &["-Z", disk]);
    assert!(table_is_gone(&path));
}

/// The remedies of the messages, typed as they say: each mends the table, and erases no partition.
#[test]
fn what_the_messages_say_mends_the_table() {
    let temp = tempfile::tempdir().unwrap();
    let path = disk(temp.path(), "disk");
    let disk = path.to_str().unwrap();
    let kind = format!("2:{PARTITION_TYPE}");
    tool("sgdisk", &["-n", "1:2048:4095", "-n", "2:8192:8199", "-t", &kind, disk]);
    let whole = std::fs::read(&path).unwrap();
    let type_in = |words: &str| tool("sh", &["-c", &format!("printf '{words}' | gdisk '{disk}'")]);
    let is_mended = || {
        let table = read(&path);
        assert_eq!((table.fault, table.partitions.len()), (None, 2));
    };
    // One sector too few, as a program that knows no GPT would change it.
    tool("sgdisk", &["-h", "1:2", disk]);
    let length = u32::from_le_bytes(std::fs::read(&path).unwrap()[474..478].try_into().unwrap());
    write(&path, 474, &(length - 1).to_le_bytes());
    let fault = read(&path).fault.unwrap();
    assert!(
        matches!(fault, TableError::Hybrid(_)) && fault.to_string().ends_with("gdisk DEVICE makes it so (x, n, w)")
    );
    type_in("x\\nn\\nw\\ny\\n");
    is_mended();
    // An MBR with one partition in the place of the protective one.
    let foreign = [0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 100, 0, 0, 0];
    let unprotected = || {
        std::fs::write(&path, &whole).unwrap();
        write(&path, 446, &foreign);
        let fault = read(&path).fault.unwrap();
        assert!(
            matches!(fault, TableError::Unprotected)
                && fault.to_string().contains("(2: GPT), and sgdisk -z removes the GPT")
        );
    };
    unprotected();
    type_in("2\\nw\\ny\\n");
    is_mended();
    unprotected();
    // It says that the table is invalid, exits with an error, and removes the table.
    tool("sh", &["-c", &format!("! sgdisk -z '{disk}'")]);
    let table = read(&path);
    assert_eq!((table.name, table.fault, table.partitions.len()), ("a partition table (MBR)", None, 1));
    // A backup that a program has left as it was.
    std::fs::write(&path, &whole).unwrap();
    tool("sgdisk", &["-c", "2:IMPRINT", disk]);
    write(&path, 16 * MIB - 33 * 512, &whole[whole.len() - 33 * 512..]);
    let fault = read(&path).fault.unwrap();
    assert!(matches!(fault, TableError::Differ) && fault.to_string().contains("sgdisk -e DEVICE keeps the primary"));
    tool("sgdisk", &["-e", disk]);
    is_mended();
    assert_eq!(read(&path).partitions[1].name, "IMPRINT");
}

fn table_is_gone(disk: &Path) -> bool {
    table(&mut File::open(disk).unwrap()).unwrap().is_none()
}

/// The whole way, from the commands that people type to the payload: the reader itself looks at the disks.
#[test]
fn a_payload_in_a_partition_of_other_peoples_programs() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("payload"), PAYLOAD).unwrap();
    let payload = temp.path().join("payload");
    let payload = payload.to_str().unwrap();
    let (small, large) = (disk(temp.path(), "small"), disk(temp.path(), "large"));
    sfdisk(&small, &format!("label: gpt\\n start=4096, size=64, type={PARTITION_TYPE}, name=\"IMPRINT\"\\n"));
    fdisk_4096(&large);
    for (disk, want) in [(small, "partition sda1 (IMPRINT)"), (large, "partition sda2 (Imprint)")] {
        write(&disk, 2 * MIB, PAYLOAD);
        let found = with_partitions(&[("sda", &disk)]).unwrap().unwrap();
        assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), (want, PAYLOAD));
    }
    // `config-2` in the last partition, as Ironic makes it, and a FAT volume in an MBR.
    let drive = temp.path().join("drive");
    std::fs::create_dir_all(drive.join("imprint")).unwrap();
    std::fs::copy(payload, drive.join("imprint/payload")).unwrap();
    let image = temp.path().join("config-2.iso");
    tool("genisoimage", &["-quiet", "-R", "-V", "config-2", "-o", image.to_str().unwrap(), drive.to_str().unwrap()]);
    let ironic = disk(temp.path(), "ironic");
    sfdisk(&ironic, "label: gpt\\n start=2048, size=4096\\n start=8192, size=8192\\n");
    write(&ironic, 4 * MIB, &std::fs::read(&image).unwrap());
    let found = with_partitions(&[("vda", &ironic)]).unwrap().unwrap();
    assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), ("partition vda2 (config-2)", PAYLOAD));
    let stick = disk(temp.path(), "stick");
    let path = stick.to_str().unwrap();
    sfdisk(&stick, "label: dos\\n start=2048, size=8192, type=c\\n");
    tool("mkfs.fat", &["-F", "12", "-n", "IMPRINT", "--offset", "2048", path, "4096"]);
    tool("mmd", &["-i", &format!("{path}@@1M"), "::/imprint"]);
    tool("mcopy", &["-i", &format!("{path}@@1M"), payload, "::/imprint/payload"]);
    let found = with_partitions(&[("sdb", &stick)]).unwrap().unwrap();
    assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), ("partition sdb1 (IMPRINT)", PAYLOAD));
}
