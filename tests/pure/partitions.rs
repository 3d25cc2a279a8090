//! Partition tables of other people's programs, read by ours.

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
fn sfdisk(disk: &Path, sector: &str, script: &str) {
    let command = format!("printf '{script}' | sfdisk --quiet --sector-size {sector} '{}'", disk.display());
    tool("sh", &["-c", &command]);
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
    // On sectors of 4096 bytes these are within 16 MiB.
    let gpt_4096 = format!(
        "label: gpt\\n start=256, size=1024, name=\"root\"\\n start=2048, size=256, type={PARTITION_TYPE}\\n\
         start=1536, size=8, name=\"Imprint\"\\n"
    );
    let mbr =
        "label: dos\\n start=2048, size=1024, type=83\\n\\n start=4096, size=1024, type=c\\n start=8192, type=5\\n";
    for (sector, script, names) in [
        ("512", gpt.as_str(), &[("root", false), ("", true), ("Imprint", true)][..]),
        ("4096", gpt_4096.as_str(), &[("root", false), ("", true), ("Imprint", true)]),
        ("512", mbr, &[("", false), ("", false), ("", false)]),
    ] {
        let disk = disk(temp.path(), &format!("disk-{sector}"));
        sfdisk(&disk, sector, script);
        let shown = tool("sfdisk", &["--json", "--sector-size", sector, disk.to_str().unwrap()]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let shown = shown["partitiontable"]["partitions"].as_array().unwrap().clone();
        let table = read(&disk);
        assert_eq!((table.fault, table.partitions.len(), shown.len()), (None, names.len(), names.len()));
        let size: u64 = sector.parse().unwrap();
        for ((ours, theirs), (name, is_ours)) in table.partitions.iter().zip(&shown).zip(names) {
            let number = |key: &str| theirs[key].as_u64().unwrap() * size;
            assert_eq!(ours.place(), (number("start"), number("size")), "{theirs}");
            assert_eq!((ours.name.as_str(), ours.is_ours()), (*name, *is_ours), "{theirs}");
            // sfdisk names a partition of a file by the name of the file and the number.
            assert!(theirs["node"].as_str().unwrap().ends_with(&ours.number.to_string()), "{theirs}");
        }
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
    // A hybrid MBR as sgdisk makes it repeats partitions of the GPT.
    tool("sgdisk", &["-h", "1:2", disk]);
    assert_eq!(read(&path).fault, None);
    // Moved within the GPT only.
    tool("sgdisk", &["-d", "1", "-n", "1:2048:4094", disk]);
    assert!(matches!(read(&path).fault, Some(TableError::Hybrid(_))), "{:?}", read(&path).fault);
    // The primary is gone: sgdisk would restore it from the backup, and we read the backup.
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

fn table_is_gone(disk: &Path) -> bool {
    table(&mut File::open(disk).unwrap()).unwrap().is_none()
}

/// The whole way, from what people type to the payload: the reader itself looks at the disks.
#[test]
fn a_payload_in_a_partition_of_other_peoples_programs() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("payload"), PAYLOAD).unwrap();
    let payload = temp.path().join("payload");
    let payload = payload.to_str().unwrap();
    for sector in [512, 4096] {
        let raw = disk(temp.path(), &format!("raw-{sector}"));
        let script =
            format!("label: gpt\\n start={}, size=64, type={PARTITION_TYPE}, name=\"IMPRINT\"\\n", 2 * MIB / sector);
        sfdisk(&raw, &sector.to_string(), &script);
        write(&raw, 2 * MIB, PAYLOAD);
        let found = with_partitions(&[("sda", &raw)]).unwrap().unwrap();
        assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), ("partition sda1 (IMPRINT)", PAYLOAD));
    }
    // `config-2` in the last partition, as Ironic makes it, and a FAT volume in an MBR.
    let drive = temp.path().join("drive");
    std::fs::create_dir_all(drive.join("imprint")).unwrap();
    std::fs::copy(payload, drive.join("imprint/payload")).unwrap();
    let image = temp.path().join("config-2.iso");
    tool("genisoimage", &["-quiet", "-R", "-V", "config-2", "-o", image.to_str().unwrap(), drive.to_str().unwrap()]);
    let ironic = disk(temp.path(), "ironic");
    sfdisk(&ironic, "512", "label: gpt\\n start=2048, size=4096\\n start=8192, size=8192\\n");
    write(&ironic, 4 * MIB, &std::fs::read(&image).unwrap());
    let found = with_partitions(&[("vda", &ironic)]).unwrap().unwrap();
    assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), ("partition vda2 (config-2)", PAYLOAD));
    let stick = disk(temp.path(), "stick");
    let path = stick.to_str().unwrap();
    sfdisk(&stick, "512", "label: dos\\n start=2048, size=8192, type=c\\n");
    tool("mkfs.fat", &["-F", "12", "-n", "IMPRINT", "--offset", "2048", path, "4096"]);
    tool("mmd", &["-i", &format!("{path}@@1M"), "::/imprint"]);
    tool("mcopy", &["-i", &format!("{path}@@1M"), payload, "::/imprint/payload"]);
    let found = with_partitions(&[("sdb", &stick)]).unwrap().unwrap();
    assert_eq!((found.origin.to_string().as_str(), found.bytes.expose()), ("partition sdb1 (IMPRINT)", PAYLOAD));
}
