//! ISO 9660 (ECMA-119) volumes: label, and one small file by its path. Read in userspace, so that no kernel filesystem
//! code runs on media that nobody vouched for. Reads the primary volume descriptor only; never writes, never follows
//! what the medium says beyond fixed limits.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use crate::secret::Secret;

/// ECMA-119 §6.1.2: a logical sector.
const SECTOR: u64 = 2048;
/// The same, as a length in memory.
const SECTOR_LEN: usize = 2048;
/// ECMA-119 §6.2.1: the system area is 16 sectors; descriptors follow.
const FIRST_DESCRIPTOR: u64 = 16;
/// A disc has a handful of descriptors. A set without terminator ends here.
const MAX_DESCRIPTORS: u64 = 32;
/// Directories on the way to the file: some 20,000 entries.
const MAX_DIRECTORY: u64 = 1024 * 1024;

/// A volume whose primary descriptor has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    label: String,
    /// Kept apart from the label: whose volume it is can be known of a damaged one, too, and ours is broken, not absent.
    layout: Result<Layout, Damage>,
}

/// What the descriptor says of the volume's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    root: Extent,
    /// Logical block size in bytes: 512, 1024 or 2048.
    block: u64,
    /// Volume space size in bytes.
    size: u64,
}

/// Where a file or directory lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    /// In logical blocks.
    at: u32,
    /// In bytes.
    len: u32,
}

/// A structure that contradicts itself, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Damage {
    offset: u64,
    what: &'static str,
}

/// Why a volume that is ISO 9660 cannot be read.
#[derive(Debug)]
pub enum Iso9660Error {
    /// The device does not give its bytes.
    Read {
        /// In bytes from its start.
        offset: u64,
        /// What the kernel says.
        source: io::Error,
    },
    /// A structure contradicts itself or leads out of the volume.
    Damaged {
        /// In bytes from the start of the device.
        offset: u64,
        /// Which structure.
        what: &'static str,
    },
    /// The file is longer than a payload can be.
    TooLong {
        /// Its path.
        path: String,
        /// Its length in bytes.
        len: u32,
    },
    /// Two names on the volume match the path.
    Twice {
        /// One, as it stands in the directory.
        first: String,
        /// The other.
        second: String,
    },
}

impl Volume {
    /// `None` when the device holds no ISO 9660 volume, because it is too short or has another format. A damaged
    /// descriptor still gives a volume, with its label; [`Volume::file`] is what fails then.
    pub fn open(device: &mut (impl Read + Seek)) -> Result<Option<Volume>, Iso9660Error> {
        for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
            let offset = number * SECTOR;
            let mut sector = [0; SECTOR_LEN];
            match read_at(device, offset, &mut sector) {
                Ok(()) => {}
                Err(Iso9660Error::Read { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
            // ECMA-119 §8.1: type, standard identifier, version.
            match sector.first_chunk() {
                Some([1, b'C', b'D', b'0', b'0', b'1', 1]) => return Ok(Some(Volume::primary(&sector, offset))),
                Some([255, b'C', b'D', b'0', b'0', b'1', _]) => break,
                Some([_, b'C', b'D', b'0', b'0', b'1', _]) => {}
                _ => break,
            }
        }
        Ok(None)
    }

    /// ECMA-119 §8.4
    fn primary(sector: &[u8], offset: u64) -> Volume {
        let label = sector.get(40..72).unwrap_or_default();
        let label = String::from_utf8_lossy(label).trim_end_matches([' ', '\0']).to_owned();
        Volume { label, layout: Layout::parse(sector, offset) }
    }

    /// Volume identifier, trailing blanks removed.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The content of the file at `path`, compared without regard to case. `None` when there is none.
    pub fn file(
        &self,
        device: &mut (impl Read + Seek),
        path: &[&str],
        max: usize,
    ) -> Result<Option<Secret>, Iso9660Error> {
        let layout = self.layout.map_err(|Damage { offset, what }| Iso9660Error::Damaged { offset, what })?;
        let mut extent = layout.root;
        for (depth, name) in path.iter().enumerate() {
            let directory = depth + 1 < path.len();
            let Some(found) = layout.lookup(device, extent, name, directory)? else { return Ok(None) };
            extent = found;
        }
        let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
        if len > max {
            return Err(Iso9660Error::TooLong { path: path.join("/"), len: extent.len });
        }
        layout.read(device, extent, "file extent").map(Some)
    }
}

impl Layout {
    fn parse(sector: &[u8], offset: u64) -> Result<Layout, Damage> {
        let damage = |at: u64, what| Damage { offset: offset + at, what };
        let blocks = both_endian(sector.get(80..88)).ok_or_else(|| damage(80, "volume space size"))?;
        let block = u64::from(both_endian_16(sector.get(128..132)).ok_or_else(|| damage(128, "logical block size"))?);
        if !matches!(block, 512 | 1024 | 2048) {
            return Err(damage(128, "logical block size"));
        }
        let root = sector.get(156..190).and_then(Record::parse).ok_or_else(|| damage(156, "root directory record"))?;
        if !root.directory {
            return Err(damage(156, "root directory record"));
        }
        Ok(Layout { root: root.extent, block, size: u64::from(blocks) * block })
    }

    fn lookup(
        &self,
        device: &mut (impl Read + Seek),
        directory: Extent,
        name: &str,
        want_directory: bool,
    ) -> Result<Option<Extent>, Iso9660Error> {
        let offset = u64::from(directory.at) * self.block;
        if u64::from(directory.len) > MAX_DIRECTORY {
            return Err(Iso9660Error::Damaged { offset, what: "directory of more than 1 MiB" });
        }
        let content = self.read(device, directory, "directory extent")?;
        let mut found: Option<Record> = None;
        // ECMA-119 §6.8.1.1: records do not cross sectors; what is left of a sector is zero.
        for (number, sector) in (0..).zip(content.expose().chunks(SECTOR_LEN)) {
            let mut rest = sector;
            while let Some(length @ 1..) = rest.first().copied() {
                let at = offset + number * SECTOR + u64::try_from(sector.len() - rest.len()).unwrap_or(0);
                let damaged = || Iso9660Error::Damaged { offset: at, what: "directory record" };
                let (bytes, tail) = rest.split_at_checked(usize::from(length)).ok_or_else(damaged)?;
                rest = tail;
                let record = Record::parse(bytes).ok_or_else(damaged)?;
                if record.directory != want_directory || !record.plain_name().eq_ignore_ascii_case(name) {
                    continue;
                }
                if record.unusual {
                    return Err(Iso9660Error::Damaged { offset: at, what: "interleaved or multi-extent file" });
                }
                if let Some(first) = found {
                    return Err(Iso9660Error::Twice { first: first.name, second: record.name });
                }
                found = Some(record);
            }
        }
        Ok(found.map(|record| record.extent))
    }

    /// The caller has bounded `extent.len`.
    fn read(
        &self,
        device: &mut (impl Read + Seek),
        extent: Extent,
        what: &'static str,
    ) -> Result<Secret, Iso9660Error> {
        let offset = u64::from(extent.at) * self.block;
        if offset + u64::from(extent.len) > self.size {
            return Err(Iso9660Error::Damaged { offset, what });
        }
        let mut bytes = vec![0; usize::try_from(extent.len).unwrap_or(0)];
        read_at(device, offset, &mut bytes)?;
        Ok(Secret::new(bytes))
    }
}

/// A directory record, ECMA-119 §9.1.
struct Record {
    name: String,
    extent: Extent,
    directory: bool,
    /// Interleaved, or one of several sections of a file.
    unusual: bool,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Record> {
        let extent = Extent { at: both_endian(bytes.get(2..10))?, len: both_endian(bytes.get(10..18))? };
        let flags = *bytes.get(25)?;
        let interleaved = bytes.get(26..28)? != [0, 0];
        let name_len = usize::from(*bytes.get(32)?);
        let name = bytes.get(33..33 + name_len)?;
        Some(Record {
            name: name.escape_ascii().to_string(),
            extent,
            directory: flags & 0x02 != 0,
            unusual: flags & 0x80 != 0 || interleaved,
        })
    }

    /// Without version number and without the dot that stands for an empty extension (ECMA-119 §7.5.1).
    fn plain_name(&self) -> &str {
        let name = self.name.split_once(';').map_or(self.name.as_str(), |(name, _)| name);
        name.strip_suffix('.').unwrap_or(name)
    }
}

/// ECMA-119 §7.3.3: the number in both byte orders, which have to agree.
fn both_endian(bytes: Option<&[u8]>) -> Option<u32> {
    let (little, big) = bytes?.split_first_chunk::<4>()?;
    let little = u32::from_le_bytes(*little);
    (little == u32::from_be_bytes(big.try_into().ok()?)).then_some(little)
}

/// ECMA-119 §7.2.3
fn both_endian_16(bytes: Option<&[u8]>) -> Option<u16> {
    let (little, big) = bytes?.split_first_chunk::<2>()?;
    let little = u16::from_le_bytes(*little);
    (little == u16::from_be_bytes(big.try_into().ok()?)).then_some(little)
}

fn read_at(device: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> Result<(), Iso9660Error> {
    device
        .seek(SeekFrom::Start(offset))
        .and_then(|_| device.read_exact(bytes))
        .map_err(|source| Iso9660Error::Read { offset, source })
}

impl fmt::Display for Iso9660Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Iso9660Error::Read { offset, .. } => write!(f, "reading at byte {offset}"),
            Iso9660Error::Damaged { offset, what } => {
                write!(f, "{what} at byte {offset} is damaged; write the volume again")
            }
            Iso9660Error::TooLong { path, len } => {
                let limit = crate::payload::MAX_LEN;
                write!(f, "{path} has {len} bytes, a payload has at most {limit}; write the right file")
            }
            Iso9660Error::Twice { first, second } => {
                write!(f, "{first} and {second} are the same path without regard to case; remove one")
            }
        }
    }
}

impl std::error::Error for Iso9660Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Iso9660Error::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::payload::MAX_LEN;

    // genisoimage -quiet -V IMPRINT -o iso-plain.iso DIR, with DIR/imprint/payload = "payload\n"; cut behind the file
    const PLAIN: &[u8] = include_bytes!("../../tests/data/iso-plain.iso");
    // xorriso -as mkisofs -J -r -V cidata -o iso-joliet-rr.iso DIR, likewise
    const JOLIET_RR: &[u8] = include_bytes!("../../tests/data/iso-joliet-rr.iso");

    const PATH: [&str; 2] = ["imprint", "payload"];

    fn file(bytes: &[u8]) -> Result<Option<Secret>, Iso9660Error> {
        let mut device = Cursor::new(bytes);
        match Volume::open(&mut device)? {
            Some(volume) => volume.file(&mut device, &PATH, MAX_LEN),
            None => Ok(None),
        }
    }

    fn root_directory(bytes: &[u8]) -> usize {
        let at = 16 * 2048 + 156 + 2;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize * 2048
    }

    #[test]
    fn images_of_common_tools() {
        for (image, label) in [(PLAIN, "IMPRINT"), (JOLIET_RR, "cidata")] {
            let volume = Volume::open(&mut Cursor::new(image)).unwrap().unwrap();
            assert_eq!(volume.label(), label);
            assert_eq!(file(image).unwrap().unwrap().expose(), b"payload\n");
        }
    }

    #[test]
    fn another_path_is_absent() {
        let mut device = Cursor::new(PLAIN);
        let volume = Volume::open(&mut device).unwrap().unwrap();
        assert_eq!(volume.file(&mut device, &["imprint", "other"], MAX_LEN).unwrap(), None);
        assert_eq!(volume.file(&mut device, &["payload"], MAX_LEN).unwrap(), None);
    }

    #[test]
    fn what_is_not_iso9660_is_absent() {
        assert!(Volume::open(&mut Cursor::new([])).unwrap().is_none());
        assert!(Volume::open(&mut Cursor::new(vec![0; 100_000])).unwrap().is_none());
    }

    #[test]
    fn damage_is_named_by_its_place() {
        let damaged = |at: usize, byte: u8| {
            let mut image = PLAIN.to_vec();
            image[at] = byte;
            match file(&image) {
                Err(Iso9660Error::Damaged { offset, what }) => (offset as usize, what),
                other => panic!("{other:?}"),
            }
        };
        let pvd = 16 * 2048;
        assert_eq!(damaged(pvd + 80, 0xff), (pvd + 80, "volume space size"));
        assert_eq!(damaged(pvd + 128, 1), (pvd + 128, "logical block size"));
        assert_eq!(damaged(pvd + 156 + 25, 0), (pvd + 156, "root directory record"));
        let root = root_directory(PLAIN);
        assert_eq!(damaged(root, 1), (root, "directory record"));
    }

    #[test]
    fn a_damaged_descriptor_still_tells_whose_volume_it_is() {
        let mut image = PLAIN.to_vec();
        image[16 * 2048 + 80] ^= 0xff;
        assert_eq!(Volume::open(&mut Cursor::new(image)).unwrap().unwrap().label(), "IMPRINT");
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error_not_absence() {
        let end = PLAIN.windows(8).position(|window| window == b"payload\n").unwrap();
        let error = file(&PLAIN[..end + 4]).unwrap_err();
        assert!(
            matches!(&error, Iso9660Error::Read { source, .. }
            if source.kind() == io::ErrorKind::UnexpectedEof),
            "{error}"
        );
    }

    #[test]
    fn too_long() {
        let mut device = Cursor::new(PLAIN);
        let volume = Volume::open(&mut device).unwrap().unwrap();
        let error = volume.file(&mut device, &PATH, 7).unwrap_err();
        assert_eq!(error.to_string(), "imprint/payload has 8 bytes, a payload has at most 65536; write the right file");
    }

    #[test]
    fn two_spellings_of_one_path() {
        // The second entry of the payload's directory gets the same record again, in other case.
        let mut image = PLAIN.to_vec();
        let name = PLAIN.windows(10).position(|window| window == b"PAYLOAD.;1").unwrap();
        let start = name - 33;
        let length = usize::from(PLAIN[start]);
        let record = PLAIN[start..start + length].to_vec();
        image[start + length..start + 2 * length].copy_from_slice(&record);
        image[start + length + 33..start + length + 40].copy_from_slice(b"payload");
        let error = file(&image).unwrap_err();
        assert_eq!(error.to_string(), "PAYLOAD.;1 and payload.;1 are the same path without regard to case; remove one");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

        #[test]
        fn damaged_images_never_panic(changes in proptest::collection::vec((16 * 2048..PLAIN.len(), proptest::prelude::any::<u8>()), 1..8)) {
            let mut image = PLAIN.to_vec();
            for (at, byte) in changes {
                image[at] = byte;
            }
            let _ = file(&image);
        }
    }
}
