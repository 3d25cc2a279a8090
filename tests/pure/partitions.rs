//! Tests of our reader with partition tables that other programs made.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use imprint::medium::PARTITION_TYPE;
use imprint::source::partition::{Table, TableError, table};
use serde_json::Value;

use super::drives::with_partitions;
use super::volumes::run as tool;

const PAYLOAD: &[u8] = include_bytes!("../data/payload-typical.cbor");
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
    assert_eq!(read(&path).fault, Some(TableError::Header("it is for a larger disk")));
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
