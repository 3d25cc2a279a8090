//! A FAT volume on a whole disk. The disk repeats the input up to 64 MiB, so that FAT32, which begins at 32, is within
//! reach of small inputs.
#![cfg_attr(fuzzing, no_main)]

use std::io::{self, Read, Seek, SeekFrom};

use imprint::payload::MAX_LEN;
use imprint::source::fat::Volume;

const DISK: u64 = 64 * 1024 * 1024;

struct Disk<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Read for Disk<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= DISK || self.bytes.is_empty() {
            return Ok(0);
        }
        let from = &self.bytes[self.at as usize % self.bytes.len()..];
        let length = from.len().min(buffer.len());
        buffer[..length].copy_from_slice(&from[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Disk<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at = at;
        Ok(at)
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut disk = Disk { bytes, at: 0 };
    let Ok(Some(volume)) = Volume::open(&mut disk) else { return };
    assert!(volume.labels().iter().all(|label| label.len() <= 4 * 11));
    if let Ok(Some(file)) = volume.file(&mut disk, &["imprint", "payload"], MAX_LEN) {
        assert!(file.expose().len() <= MAX_LEN);
    }
});
