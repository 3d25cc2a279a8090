//! Tests of swap space in whole boots: the real root has it, what was prepared stays as it was, and nothing else on the disk is touched.
#![allow(clippy::cast_possible_truncation, clippy::indexing_slicing)] // offsets in a file of a few MiB

use std::os::unix::fs::FileExt;
use std::process::Command;

use imprint::source::swap_mark::{self, LEAST, Layout};
use imprint::swap::{Kind, Told};

use super::line::until;
use super::prompt::{types, types_until, with_a_person};
use crate::*;

const MIB: u64 = 1024 * 1024;
/// Where the partitions of 16 MiB and more are on the disk: start and length in bytes.
const PREPARED: (u64, u64) = (MIB, 2 * LEAST);
const FOREIGN_SWAP: (u64, u64) = (MIB + 2 * LEAST, LEAST);
const FILES: (u64, u64) = (MIB + 3 * LEAST, LEAST);
const EMPTY: (u64, u64) = (MIB + 4 * LEAST, LEAST);
const DISK: u64 = 2 * MIB + 5 * LEAST;

fn run(program: &str, arguments: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A disk with one partition that is prepared, swap space of another system, a file system, and a partition with the type that is empty.
/// Between the margins of the first one is the noise that an earlier boot has left.
pub(super) fn disk(work: &Path) -> PathBuf {
    let path = work.join("disk");
    let name = path.to_str().unwrap();
    let disk = std::fs::File::create(&path).unwrap();
    disk.set_len(DISK).unwrap();
    let part =
        |(start, len): (u64, u64), kind: &str| format!("start={}, size={}, type={kind}\\n", start / 512, len / 512);
    let (swap, files) = ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "0FC63DAF-8483-4772-8E79-3D69D8477DE4");
    let table = format!(
        "label: gpt\\n{}{}{}{}",
        part(PREPARED, swap),
        part(FOREIGN_SWAP, swap),
        part(FILES, files),
        part(EMPTY, swap)
    );
    run("sh", &["-c", &format!("printf '{table}' | sfdisk --quiet '{name}'")]);
    let mut noise = vec![0; PREPARED.1 as usize];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for eight in noise.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        eight.copy_from_slice(&state.to_be_bytes());
    }
    let layout = Layout::of(PREPARED.1).unwrap();
    for (start, len) in layout.margins() {
        noise[start as usize..][..len as usize].fill(0);
    }
    noise[..512].copy_from_slice(&layout.mark());
    disk.write_all_at(&noise, PREPARED.0).unwrap();
    for ((start, len), make) in [(FOREIGN_SWAP, &["mkswap", "-q"][..]), (FILES, &["mke2fs", "-q", "-t", "ext4", "-F"])]
    {
        let part = work.join("part");
        std::fs::File::create(&part).unwrap().set_len(len).unwrap();
        run(make[0], &[&make[1..], &[part.to_str().unwrap()]].concat());
        disk.write_all_at(&std::fs::read(&part).unwrap(), start).unwrap();
    }
    path
}

pub(super) fn with(disk: &Path, machine: Machine) -> Machine {
    let drive = format!("file={},if=none,id=swap,format=raw", disk.display());
    machine.qemu(&["-drive", &drive, "-device", "virtio-blk-pci,drive=swap,addr=1e"])
}

/// The swap space that the real root has: name, size in KiB, priority.
fn swaps(report: &Report) -> Vec<(String, u64, i64)> {
    let lines = report.part("swaps").lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.map(|word| (word[0].to_owned(), word[2].parse().unwrap(), word[4].parse().unwrap())).collect()
}

fn told(report: &Report) -> Told {
    serde_json::from_str(report.part("swap")).unwrap_or_else(|error| panic!("{error}: {}", report.part("swap")))
}

/// The real root swaps to the partition that is prepared, and to nothing else.
#[track_caller]
pub(super) fn is_in_use(report: &Report) {
    let (_, len) = Layout::of(PREPARED.1).unwrap().inner();
    // The kernel leaves the page with the header out.
    assert_eq!(swaps(report), [("/dev/dm-0".to_owned(), (len - 4096) / 1024, 10)], "{}", report.console);
    let told = told(report);
    assert!(told.errors.is_empty(), "{told:?}");
    let area = &told.areas[0];
    assert_eq!((told.areas.len(), area.kind, area.device.as_str(), area.bytes), (1, Kind::Disk, "dm-0", len));
    assert_eq!(area.partition.as_deref(), Some("vdb1"));
    let said = format!("swap: {} MiB on vdb1 (dm-0), encrypted with a key that is kept nowhere", len / MIB);
    assert!(report.console.contains(&said), "{}", report.console);
}

#[track_caller]
fn same((start, len): (u64, u64), before: &[u8], after: &[u8], what: &str) {
    let range = start as usize..(start + len) as usize;
    assert!(before[range.clone()] == after[range], "{what} was changed");
}

/// No word asks for it: the marker alone does. Beside it are the partitions that an unlucky boot would take instead.
#[test]
fn the_real_root_swaps_to_the_partition_that_is_prepared_and_to_nothing_else() {
    let work = tempfile::tempdir().unwrap();
    let disk = disk(work.path());
    let before = std::fs::read(&disk).unwrap();
    let report = with(&disk, Machine::new(Kernel::Stable)).boot();
    let after = std::fs::read(&disk).unwrap();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    is_in_use(&report);
    let layout = Layout::of(PREPARED.1).unwrap();
    let (start, len) = layout.inner();

    same((0, PREPARED.0), &before, &after, "the partition table");
    for (margin, bytes) in layout.margins() {
        same((PREPARED.0 + margin, bytes), &before, &after, "a margin of the partition");
    }
    same(FOREIGN_SWAP, &before, &after, "swap space of another system");
    same(FILES, &before, &after, "a file system");
    same(EMPTY, &before, &after, "a partition with the type and without the marker");
    same((EMPTY.0 + EMPTY.1, DISK - EMPTY.0 - EMPTY.1), &before, &after, "the end of the disk");
    let inner = (PREPARED.0 + start) as usize..(PREPARED.0 + start + len) as usize;
    assert!(before[inner.clone()] != after[inner.clone()], "the header was written");
    assert!(!after[inner].windows(10).any(|ten| ten == b"SWAPSPACE2"), "nothing is there in clear");
}

/// What dracut's shell shows where `rd.break=pre-pivot` stops the boot.
const PROMPT: &str = "pre-pivot:/# ";

/// Somebody wrote to the partition since. It is left alone, the console says so, and compressed memory takes its place. A person then
/// prepares another partition, after two that imprint refuses, and the boot goes on with it, also after somebody has switched it off.
#[test]
fn a_person_prepares_a_partition_in_the_place_of_one_that_was_changed() {
    let work = tempfile::tempdir().unwrap();
    let disk = disk(work.path());
    let changed = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
    changed.write_all_at(b"\x53\xef", PREPARED.0 + 1080).unwrap();
    let before = std::fs::read(&disk).unwrap();
    let words = "imprint.swap=zram:25% rd.break=pre-pivot";
    let machine = with(&disk, Machine::new(Kernel::Backports).init(Init::Plain).append(words));
    let why = "vdb1 was prepared for swap space and is not used: byte 1080 of it was changed";
    let (report, seen) = with_a_person(machine, work.path(), |line, seen| {
        until(line, seen, PROMPT);
        for (words, answer) in [
            ("imprint swap on", why),
            ("imprint swap prepare /dev/vdb", "/dev/vdb is no partition of a disk"),
            ("imprint swap prepare /dev/vdb2", "vdb2 holds swap space"),
            ("imprint swap prepare /dev/vdb3", "the type of vdb3 in the partition table is not Linux swap"),
        ] {
            // An emulated line loses a letter now and then, and then the answer is another one.
            let answers = |_: &u8| types_until(line, seen, (words, PATIENCE), &[PROMPT]).contains(answer);
            assert!([0u8; 5].iter().any(answers), "{words}: {seen}");
        }
        let mut ask = |words: &str, answer: &str| {
            let said = types_until(line, seen, (words, PATIENCE), &[answer, PROMPT]);
            said.contains(answer)
        };
        let (name, yes, done) = ("to go on: ", "type yes to write: ", "vdb4 is prepared: from the next boot on");
        let prepares = |_: &u8| ask("imprint swap prepare /dev/vdb4", name) && ask("vdb4", yes) && ask("yes", done);
        assert!([0u8; 5].iter().any(prepares), "it was not prepared");
        let uses =
            |_: &u8| types_until(line, seen, ("imprint swap on", PATIENCE), &[PROMPT]).contains(" MiB on vdb4 (dm-");
        assert!([0u8; 5].iter().any(uses), "it is not in use: {seen}");
        // As a run leaves it that was killed before the kernel used it: a mapping, and no swap space.
        let off = "swapoff /dev/dm-*; grep -c dm- /proc/swaps";
        let ends = |_: &u8| types_until(line, seen, (off, PATIENCE), &[PROMPT]).contains("\n0");
        assert!([0u8; 5].iter().any(ends), "it is still in use: {seen}");
        types(line, "exit");
    });
    let after = std::fs::read(&disk).unwrap();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{seen}");
    let (_, len) = Layout::of(EMPTY.1).unwrap().inner();
    let (mut swaps, told) = (swaps(&report), told(&report));
    swaps.sort();
    assert_eq!(swaps.len(), 2, "{swaps:?}\n{seen}");
    assert_eq!(swaps[0], ("/dev/dm-0".to_owned(), (len - 4096) / 1024, 10));
    assert_eq!((swaps[1].0.as_str(), swaps[1].2), ("/dev/zram0", 100));
    // A quarter of what the kernel leaves of 512 MiB.
    assert!((64 * 1024..128 * 1024).contains(&swaps[1].1), "{swaps:?}");
    assert_eq!((told.areas.len(), told.areas[0].kind, told.errors.len()), (1, Kind::Disk, 1), "{told:?}");
    assert_eq!(told.areas[0].partition.as_deref(), Some("vdb4"));
    assert!(told.errors[0].starts_with(why), "{told:?}");
    same((0, EMPTY.0), &before, &after, "something before the partition that was prepared");
    same((EMPTY.0 + EMPTY.1, DISK - EMPTY.0 - EMPTY.1), &before, &after, "the end of the disk");
    let mut prepared = std::io::Cursor::new(&after[EMPTY.0 as usize..][..EMPTY.1 as usize]);
    assert_eq!(swap_mark::look(&mut prepared, EMPTY.1).unwrap(), swap_mark::Mark::Ours);
}
