//! Writes an ISO 9660 image (ECMA-119) with one file: `IMPRINT/PAYLOAD` for a config drive, or `IMPRINT/KEY` for an admission
//! key. Pure: bytes to bytes.
//! No crate does this alone: those that write ISO 9660 drive or wrap whole disc-burning tools. The image without its file
//! is 22 sectors.

use imprint::source::answer::KEY_LABEL;
use imprint::time::Timestamp;
use zeroize::Zeroizing;

/// Size of a logical sector and block.
const SECTOR: usize = 2048;
/// Sectors in front of the volume descriptors (ECMA-119 §6.2.1).
const SYSTEM_AREA: u32 = 16;
const DESCRIPTOR: u32 = SYSTEM_AREA;
const TERMINATOR: u32 = 17;
const PATH_TABLE_L: u32 = 18;
const PATH_TABLE_M: u32 = 19;
const ROOT: u32 = 20;
const DIRECTORY: u32 = 21;
const FILE: u32 = 22;
/// File flags: it is a directory (ECMA-119 §9.1.6).
const IS_DIRECTORY: u8 = 2;

/// Volume label that nodes look for.
pub const LABEL: &str = "IMPRINT";

/// The file is larger than an image of this kind can hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} bytes do not fit a file of an ISO 9660 image")]
pub struct TooLong(pub usize);

/// The image of a config drive. Wiped on drop, as the file is secret.
pub fn image(file: &[u8], made: Timestamp) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    image_of(LABEL, b"PAYLOAD.;1", file, made)
}

/// The image of a medium with an admission key. Wiped on drop, as the file is secret.
pub fn stick(file: &[u8], made: Timestamp) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    // ECMA-119 §7.4.1 has no hyphen for labels. Every reader takes one all the same (config-2 of OpenStack has it, too).
    image_of(KEY_LABEL, b"KEY.;1", file, made)
}

fn image_of(label: &str, name: &[u8], file: &[u8], made: Timestamp) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    let length = u32::try_from(file.len()).map_err(|_| TooLong(file.len()))?;
    let sectors = FILE.checked_add(length.div_ceil(SECTOR_32)).ok_or(TooLong(file.len()))?;
    let mut out = Image { bytes: Zeroizing::new(Vec::with_capacity(file.len().saturating_add(24 * SECTOR))) };
    let time = Time::of(made);

    out.at(DESCRIPTOR);
    out.put(&[1]);
    out.put(b"CD001\x01\0");
    out.text("", 32); // system identifier
    out.text(label, 32);
    out.zeros(8);
    out.both_32(sectors);
    out.zeros(32);
    out.both_16(1); // volumes in the set
    out.both_16(1); // number of this volume
    out.both_16(SECTOR_16);
    let path_table = path_table(u32::to_le_bytes, u16::to_le_bytes);
    out.both_32(u32::try_from(path_table.len()).unwrap_or(0));
    out.put(&PATH_TABLE_L.to_le_bytes());
    out.zeros(4);
    out.put(&PATH_TABLE_M.to_be_bytes());
    out.zeros(4);
    out.record(&[0], ROOT, SECTOR_32, IS_DIRECTORY, &time);
    for width in [128, 128, 128, 128, 37, 37, 37] {
        out.text("", width); // volume set, publisher, preparer, application, three file identifiers
    }
    out.put(&time.long()); // time of creation
    out.put(&time.long()); // time of change
    out.put(b"0000000000000000\0"); // time of expiry: not specified
    out.put(b"0000000000000000\0"); // effective from: not specified
    out.put(&[1, 0]);

    out.at(TERMINATOR);
    out.put(b"\xffCD001\x01");

    out.at(PATH_TABLE_L);
    out.put(&path_table);
    out.at(PATH_TABLE_M);
    out.put(&self::path_table(u32::to_be_bytes, u16::to_be_bytes));

    out.at(ROOT);
    out.record(&[0], ROOT, SECTOR_32, IS_DIRECTORY, &time);
    out.record(&[1], ROOT, SECTOR_32, IS_DIRECTORY, &time);
    out.record(b"IMPRINT", DIRECTORY, SECTOR_32, IS_DIRECTORY, &time);

    out.at(DIRECTORY);
    out.record(&[0], DIRECTORY, SECTOR_32, IS_DIRECTORY, &time);
    out.record(&[1], ROOT, SECTOR_32, IS_DIRECTORY, &time);
    // ECMA-119 §7.5.1: a name without extension still has its dot, and every name has a version.
    out.record(name, FILE, length, 0, &time);

    out.at(FILE);
    out.put(file);
    out.at(sectors);
    Ok(out.bytes)
}

const SECTOR_32: u32 = 2048;
const SECTOR_16: u16 = 2048;

/// ECMA-119 §9.4: root, then the one directory in it.
fn path_table(four: fn(u32) -> [u8; 4], two: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut table = vec![1, 0];
    table.extend(four(ROOT));
    table.extend(two(1));
    table.extend([0, 0]); // identifier and its padding
    table.extend([7, 0]);
    table.extend(four(DIRECTORY));
    table.extend(two(1));
    table.extend(b"IMPRINT\0");
    table
}

struct Image {
    bytes: Zeroizing<Vec<u8>>,
}

impl Image {
    /// Zeros up to the start of this sector.
    fn at(&mut self, sector: u32) {
        let end = usize::try_from(sector).unwrap_or(0).saturating_mul(SECTOR);
        let end = end.max(self.bytes.len());
        self.bytes.resize(end, 0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn zeros(&mut self, count: usize) {
        let end = self.bytes.len().saturating_add(count);
        self.bytes.resize(end, 0);
    }

    fn text(&mut self, text: &str, width: usize) {
        self.put(text.as_bytes());
        let end = self.bytes.len().saturating_add(width.saturating_sub(text.len()));
        self.bytes.resize(end, b' ');
    }

    /// Both byte orders, little first (ECMA-119 §7.3.3).
    fn both_32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
        self.put(&number.to_be_bytes());
    }

    fn both_16(&mut self, number: u16) {
        self.put(&number.to_le_bytes());
        self.put(&number.to_be_bytes());
    }

    /// ECMA-119 §9.1.
    fn record(&mut self, name: &[u8], sector: u32, length: u32, flags: u8, time: &Time) {
        let padding = usize::from(name.len().is_multiple_of(2));
        let size = name.len().saturating_add(33).saturating_add(padding);
        self.put(&[u8::try_from(size).unwrap_or(0), 0]);
        self.both_32(sector);
        self.both_32(length);
        self.put(&time.short());
        self.put(&[flags, 0, 0]);
        self.both_16(1);
        self.put(&[u8::try_from(name.len()).unwrap_or(0)]);
        self.put(name);
        self.zeros(padding);
    }
}

/// `20261122234608`, in UTC.
struct Time(String);

impl Time {
    fn of(at: Timestamp) -> Time {
        Time(at.to_string().chars().filter(char::is_ascii_digit).collect())
    }

    /// ECMA-119 §8.4.26.1: digits, hundredths, offset from UTC.
    fn long(&self) -> Vec<u8> {
        format!("{}00\0", self.0).into_bytes()
    }

    /// ECMA-119 §9.1.5: years since 1900, then one byte each, offset from UTC.
    fn short(&self) -> [u8; 7] {
        let number = |from: usize, to: usize| self.0.get(from..to).and_then(|d| d.parse::<u16>().ok()).unwrap_or(0);
        let byte = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
        let year = byte(number(0, 4).saturating_sub(1900));
        let part = |from: usize| byte(number(from, from.saturating_add(2)));
        [year, part(4), part(6), part(8), part(10), part(12), 0]
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn isoinfo(arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("isoinfo").args(arguments).output();
        let output = output.expect("isoinfo is missing: apt-get install genisoimage");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[test]
    fn an_independent_reader_finds_the_payload() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drive.iso");
        for len in [0usize, 1, 581, 2048, 2049, 65_536] {
            let file: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let image = image(&file, Timestamp::from_secs(1_795_400_000)).unwrap();
            assert_eq!(image.len(), SECTOR * (22 + len.div_ceil(SECTOR)));
            std::fs::write(&path, &*image).unwrap();
            let drive = path.to_str().unwrap();
            assert_eq!(isoinfo(&["-i", drive, "-x", "/IMPRINT/PAYLOAD.;1"]), file);
            let described = String::from_utf8(isoinfo(&["-d", "-i", drive])).unwrap();
            assert!(described.contains("\nVolume id: IMPRINT\n"), "{described}");
            assert!(described.contains(&format!("\nVolume size is: {}\n", image.len() / SECTOR)), "{described}");
            let listed = String::from_utf8(isoinfo(&["-l", "-i", drive])).unwrap();
            assert!(listed.contains("Nov 23 2026"), "{listed}");
        }
    }

    /// The agent's own reader finds the payload in the image.
    #[test]
    fn the_agent_finds_the_payload() {
        let image = image(b"payload", Timestamp::from_secs(0)).unwrap();
        let mut device = std::io::Cursor::new(&*image);
        let volume = imprint::source::volume::Volume::all(&mut device).unwrap().pop().unwrap();
        assert_eq!(volume.labels().next(), Some(LABEL));
        let found = volume.file(&mut device, &["imprint", "payload"], 1024).unwrap().unwrap();
        assert_eq!(found.expose(), b"payload");
    }
}
