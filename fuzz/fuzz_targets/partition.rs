//! A disk that anybody wrote to: its partition table, and what the reader makes of the partitions. An input is the
//! first 128 sectors. Where they fit, the checksums of both headers are made right first, because an attacker who
//! writes a disk can do that.
#![cfg_attr(fuzzing, no_main)]

use std::io::Cursor;

use imprint::payload::MAX_LEN;
use imprint::source::answer::{Answer, Looked, MAX_ANSWER, Medium, MAX_PARTS};
use imprint::source::config_drive::LABELS;
use imprint::source::medium::Window;
use imprint::source::partition::table;
use imprint::source::reader::{Wanted, look};

/// Of the disk, and of the headers where they are on such sectors.
const SECTOR: usize = 512;
const LARGE_SECTOR: usize = 4096;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut disk = bytes.to_vec();
    disk.truncate(128 * SECTOR);
    for size in [SECTOR, LARGE_SECTOR] {
        let last = (disk.len() / size).saturating_sub(1);
        for header in [1, last] {
            sign(&mut disk, header * size, size);
        }
    }
    if let Ok(Some(table)) = table(&mut Cursor::new(&disk))
        && table.fault.is_none()
    {
        for (index, one) in table.holding().enumerate() {
            let (start, len) = one.place();
            assert!(len > 0 && start + len <= disk.len() as u64);
            let apart = |other: &(u64, u64)| other.0 + other.1 <= start || start + len <= other.0;
            assert!(table.holding().skip(index + 1).all(|other| apart(&other.place())));
        }
    }
    for partitions in [true, false] {
        let wanted = Wanted { labels: &LABELS, partitions };
        let Ok(medium) = look(&mut Window::whole(Cursor::new(&disk)), wanted, true) else { continue };
        check(&medium, partitions);
        let answer = Answer::Medium(medium);
        let sent = answer.encode();
        assert!(sent.expose().len() <= MAX_ANSWER);
        assert_eq!(Answer::decode(sent.expose()), Some(answer));
    }
});

fn check(medium: &Medium, partitions: bool) {
    assert!(medium.parts.len() <= MAX_PARTS);
    for part in &medium.parts {
        if let Looked::Found(payload) = &part.raw {
            assert!(partitions && part.ours && medium.fault.is_none() && payload.expose().len() <= MAX_LEN);
        }
    }
}

/// Makes the checksums of a header right, if this is a header. `size`: of a sector.
fn sign(disk: &mut [u8], at: usize, size: usize) {
    let number = |disk: &[u8], offset: usize| {
        disk.get(at + offset..at + offset + 4).map_or(0, |four| u32::from_le_bytes(four.try_into().unwrap()) as usize)
    };
    if disk.get(at..at + 8) != Some(b"EFI PART") || disk.get(at..at + SECTOR).is_none() {
        return;
    }
    let (first, len) = (number(disk, 72).saturating_mul(size), number(disk, 80).saturating_mul(number(disk, 84)));
    if let Some(entries) = disk.get(first..first.saturating_add(len)) {
        let sum = crc32(entries);
        disk[at + 88..at + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let len = number(disk, 12);
    disk[at + 16..at + 20].fill(0);
    if let Some(header) = disk.get(at..at.saturating_add(len)) {
        let sum = crc32(header);
        disk[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

/// IEEE 802.3 §3.2.9, one bit at a time. The code under test is not used, because it may be wrong.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
