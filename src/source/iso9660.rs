//! ISO 9660 (ECMA-119) volumes: labels, and one small file by its path. Searches the primary tree, with its Rock Ridge
//! names (IEEE P1282) if it has any, and Joliet's tree (Joliet Specification 1.0). Nobody vouches for the bytes;
//! [`super::volume`] says why they are read in userspace. Never writes, and never follows the medium's data beyond
//! fixed limits.

use std::io::{Read, Seek};

use super::medium::{Damage, Extent, MAX_DIRECTORY, VolumeError, bounded, in_file, is_end, read_at};
use crate::secret::Secret;

/// ECMA-119 §6.1.2: a logical sector.
const SECTOR: u64 = 2048;
/// [`SECTOR`] as a length in memory.
const SECTOR_LEN: usize = 2048;
/// ECMA-119 §6.2.1: the system area is 16 sectors; descriptors follow.
const FIRST_DESCRIPTOR: u64 = 16;
/// The most descriptors that are read. A disc has only a few, but their terminator may be missing.
const MAX_DESCRIPTORS: u64 = 32;
/// The most continuation areas that are read for one Rock Ridge name.
const MAX_CONTINUATIONS: usize = 4;

/// A volume whose descriptors have been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    labels: Vec<String>,
    /// The primary tree, and Joliet's tree if the volume has one.
    trees: Vec<Tree>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Tree {
    joliet: bool,
    /// An error here does not hide the label: a damaged volume with the label IMPRINT must count as broken, not absent.
    layout: Result<Layout, Damage>,
}

/// The layout of the volume according to a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    root: Extent,
    /// Logical block size in bytes: 512, 1024 or 2048.
    block: u64,
    /// Volume space size in bytes.
    size: u64,
    joliet: bool,
}

impl Volume {
    /// `None` if the device has no ISO 9660 volume: it is too short or has another format.
    pub fn open(device: &mut (impl Read + Seek)) -> Result<Option<Volume>, VolumeError> {
        let mut volume = Volume { labels: Vec::new(), trees: Vec::new() };
        for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
            let offset = number * SECTOR;
            let mut sector = [0; SECTOR_LEN];
            match read_at(device, offset, &mut sector) {
                Err(error) if is_end(&error) => break,
                read => read?,
            }
            // ECMA-119 §8.1: type, standard identifier, version.
            match sector.first_chunk() {
                Some([1, b'C', b'D', b'0', b'0', b'1', 1]) if volume.trees.is_empty() => {
                    volume.add(&sector, offset, false);
                }
                Some([2, b'C', b'D', b'0', b'0', b'1', 1]) if volume.trees.len() == 1 && is_joliet(&sector) => {
                    volume.add(&sector, offset, true);
                }
                Some([255, b'C', b'D', b'0', b'0', b'1', _]) => break,
                Some([_, b'C', b'D', b'0', b'0', b'1', _]) => {}
                _ => break,
            }
        }
        Ok(Some(volume).filter(|volume| !volume.trees.is_empty()))
    }

    /// ECMA-119 §8.4, §8.5
    fn add(&mut self, sector: &[u8], offset: u64, joliet: bool) {
        let label = sector.get(40..72).unwrap_or_default();
        let label = if joliet { ucs2(label) } else { String::from_utf8_lossy(label).into_owned() };
        // Some programs pad with NUL, as on FAT volumes ([`super::medium::until_nul`]).
        let label = label.split('\0').next().unwrap_or_default().trim_end_matches(' ').to_owned();
        if !self.labels.contains(&label) {
            self.labels.push(label);
        }
        self.trees.push(Tree { joliet, layout: Layout::parse(sector, offset, joliet) });
    }

    /// The volume identifiers without trailing blanks, the primary one first.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The content of the file at `path`; names are compared without regard to case. `None` if there is no such file.
    pub fn file(
        &self,
        device: &mut (impl Read + Seek),
        path: &[&str],
        max: usize,
    ) -> Result<Option<Secret>, VolumeError> {
        let mut found: Option<(Layout, Extent)> = None;
        for tree in &self.trees {
            let layout = tree.layout?;
            let Some(extent) = layout.find(device, path)? else { continue };
            if found.is_some_and(|(_, first)| first != extent) {
                let path = path.join("/");
                return Err(VolumeError::Twice { first: path.clone(), second: format!("{path} of Joliet's tree") });
            }
            found = Some((layout, extent));
        }
        let Some((layout, extent)) = found else { return Ok(None) };
        bounded(extent.len, path, max, |len| layout.read(device, Extent { len, ..extent }, "file extent"))?;
        layout.read(device, extent, "file extent").map(Some).map_err(|error| in_file(path, error))
    }
}

/// Joliet Specification 1.0, "Identification of Joliet volumes": escape sequences of UCS-2, level 1 to 3.
fn is_joliet(sector: &[u8]) -> bool {
    matches!(sector.get(88..91), Some(b"%/@" | b"%/C" | b"%/E"))
}

fn ucs2(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().copied().map(u16::from_be_bytes).collect();
    String::from_utf16_lossy(&units)
}

impl Layout {
    fn parse(sector: &[u8], offset: u64, joliet: bool) -> Result<Layout, Damage> {
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
        Ok(Layout { root: root.extent, block, size: u64::from(blocks) * block, joliet })
    }

    fn find(&self, device: &mut (impl Read + Seek), path: &[&str]) -> Result<Option<Extent>, VolumeError> {
        let mut extent = self.root;
        for (depth, name) in path.iter().enumerate() {
            let Some(found) = self.lookup(device, extent, name, depth + 1 < path.len())? else { return Ok(None) };
            extent = found;
        }
        Ok(Some(extent))
    }

    fn lookup(
        &self,
        device: &mut (impl Read + Seek),
        directory: Extent,
        name: &str,
        want_directory: bool,
    ) -> Result<Option<Extent>, VolumeError> {
        let offset = u64::from(directory.at) * self.block;
        if directory.len > MAX_DIRECTORY {
            return Err(VolumeError::Damaged { offset, what: "directory of more than 1 MiB" });
        }
        let content = self.read(device, directory, "directory extent")?;
        let mut found: Option<(String, Extent)> = None;
        // ECMA-119 §6.8.1.1: records do not cross sectors; the rest of a sector is zero.
        for (number, sector) in (0..).zip(content.expose().chunks(SECTOR_LEN)) {
            let mut rest = sector;
            while let Some(length @ 1..) = rest.first().copied() {
                let at = offset + number * SECTOR + u64::try_from(sector.len() - rest.len()).unwrap_or(0);
                let damaged = || VolumeError::Damaged { offset: at, what: "directory record" };
                let (bytes, tail) = rest.split_at_checked(usize::from(length)).ok_or_else(damaged)?;
                rest = tail;
                let record = Record::parse(bytes).ok_or_else(damaged)?;
                if record.associated || record.directory != want_directory {
                    continue;
                }
                let called = self.name(device, &record)?;
                if !called.eq_ignore_ascii_case(name) {
                    continue;
                }
                if record.unusual {
                    return Err(VolumeError::Damaged { offset: at, what: "interleaved or multi-extent file" });
                }
                if let Some((first, _)) = found {
                    return Err(VolumeError::Twice { first, second: called });
                }
                found = Some((called, record.extent));
            }
        }
        Ok(found.map(|(_, extent)| extent))
    }

    /// The name of a file: its Joliet name, its Rock Ridge name, or its plain name.
    fn name(&self, device: &mut (impl Read + Seek), record: &Record<'_>) -> Result<String, VolumeError> {
        if self.joliet {
            let name = ucs2(record.name);
            return Ok(name.split_once(';').map_or(name.as_str(), |(name, _)| name).escape_default().to_string());
        }
        Ok(self.rock_ridge(device, record.system_use)?.unwrap_or_else(|| record.plain_name()))
    }

    /// The Rock Ridge name: "NM" entries (IEEE P1282 §4.1.4) in the system use area (IEEE P1281). Other entries are
    /// ignored: other extensions use the area, too.
    fn rock_ridge(&self, device: &mut (impl Read + Seek), area: &[u8]) -> Result<Option<String>, VolumeError> {
        let (mut name, mut area) = (None, area.to_vec());
        for _ in 0..=MAX_CONTINUATIONS {
            let mut continued = None;
            let mut rest = area.as_slice();
            while let [a, b, length, _, ..] = *rest {
                let Some((entry, after)) = rest.split_at_checked(length.into()).filter(|_| length >= 4) else { break };
                match (&[a, b], entry.get(4..).unwrap_or_default()) {
                    // Flags 2 and 4 stand for `.` and `..`.
                    (b"NM", [flags, part @ ..]) if flags & 6 == 0 => {
                        name.get_or_insert_with(Vec::new).extend(part);
                    }
                    // IEEE P1281 §5.1: block, offset and length of a continuation area.
                    (b"CE", place) => continued = continuation(place),
                    (b"ST", _) => break,
                    _ => {}
                }
                rest = after;
            }
            let Some((block, offset, len)) = continued.filter(|(_, _, len)| u64::from(*len) <= SECTOR) else { break };
            let at = u64::from(block) * self.block + u64::from(offset);
            if at + u64::from(len) > self.size {
                return Err(Damage { offset: at, what: "Rock Ridge continuation" }.into());
            }
            area = vec![0; usize::try_from(len).unwrap_or(0)];
            read_at(device, at, &mut area)?;
        }
        Ok(name.map(|name| name.escape_ascii().to_string()))
    }

    /// The caller has bounded `extent.len`.
    fn read(&self, device: &mut (impl Read + Seek), extent: Extent, what: &'static str) -> Result<Secret, VolumeError> {
        let offset = u64::from(extent.at) * self.block;
        if offset + u64::from(extent.len) > self.size {
            return Err(VolumeError::Damaged { offset, what });
        }
        let mut bytes = vec![0; usize::try_from(extent.len).unwrap_or(0)];
        read_at(device, offset, &mut bytes)?;
        Ok(Secret::new(bytes))
    }
}

/// A directory record, ECMA-119 §9.1.
struct Record<'a> {
    name: &'a [u8],
    system_use: &'a [u8],
    extent: Extent,
    directory: bool,
    /// The record belongs to a file of the same name but is not that file, for example a Macintosh resource fork.
    associated: bool,
    /// The file is interleaved, or this is one of several sections of it.
    unusual: bool,
}

impl Record<'_> {
    fn parse(bytes: &[u8]) -> Option<Record<'_>> {
        // ECMA-119 §9.1.2, §9.5: an extended attribute record stands before the content and does not count in its
        // length.
        let at = both_endian(bytes.get(2..10))?.checked_add(u32::from(*bytes.get(1)?))?;
        let extent = Extent { at, len: both_endian(bytes.get(10..18))? };
        let flags = *bytes.get(25)?;
        let interleaved = bytes.get(26..28)? != [0, 0];
        let name_len = usize::from(*bytes.get(32)?);
        let name = bytes.get(33..33 + name_len)?;
        Some(Record {
            name,
            // ECMA-119 §9.1.12, §9.1.13: a name of even length is followed by a padding byte.
            system_use: bytes.get(33 + name_len + (1 - name_len % 2)..).unwrap_or_default(),
            extent,
            directory: flags & 0x02 != 0,
            associated: flags & 0x04 != 0,
            unusual: flags & 0x80 != 0 || interleaved,
        })
    }

    /// The name without its version number, and without the dot of an empty extension (ECMA-119 §7.5.1).
    fn plain_name(&self) -> String {
        let name = self.name.split(|byte| *byte == b';').next().unwrap_or_default();
        name.strip_suffix(b".").unwrap_or(name).escape_ascii().to_string()
    }
}

/// ECMA-119 §7.3.3: a number in both byte orders. The little-endian one comes first and is used, as by every other
/// reader (include/linux/iso_fs.h, isonum_733). Some programs write a different number, or 0, after it.
fn both_endian(bytes: Option<&[u8]>) -> Option<u32> {
    let (little, _) = bytes?.split_first_chunk::<4>()?;
    Some(u32::from_le_bytes(*little))
}

/// ECMA-119 §7.2.3; isonum_723
fn both_endian_16(bytes: Option<&[u8]>) -> Option<u16> {
    let (little, _) = bytes?.split_first_chunk::<2>()?;
    Some(u16::from_le_bytes(*little))
}

fn continuation(place: &[u8]) -> Option<(u32, u32, u32)> {
    Some((both_endian(place.get(..8))?, both_endian(place.get(8..16))?, both_endian(place.get(16..24))?))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use super::*;
    use crate::payload::MAX_LEN;

    // genisoimage -quiet -V IMPRINT -o iso-plain.iso DIR, with DIR/imprint/payload = "payload\n"; cut after the file
    const PLAIN: &[u8] = include_bytes!("../../tests/data/iso-plain.iso");
    // xorriso -as mkisofs -J -r -V cidata -o iso-joliet-rr.iso DIR, likewise
    const JOLIET_RR: &[u8] = include_bytes!("../../tests/data/iso-joliet-rr.iso");

    const PATH: [&str; 2] = ["imprint", "payload"];

    fn file(bytes: &[u8]) -> Result<Option<Secret>, VolumeError> {
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
            assert_eq!(volume.labels(), [label]);
            assert_eq!(file(image).unwrap().unwrap().expose(), b"payload\n");
        }
    }

    /// The image without these names: each is changed, so that only the other names lead to the file.
    fn without(mut image: Vec<u8>, names: &[&[u8]]) -> Vec<u8> {
        for name in names {
            while let Some(at) = image.windows(name.len()).position(|window| window == *name) {
                image[at + name.len() - 3] = b'X';
            }
        }
        image
    }

    const IN_PLAIN: &[u8] = b"PAYLOAD.;1";
    const IN_ROCK_RIDGE: &[u8] = b"NM\x0c\x01\0payload";
    const IN_JOLIET: &[u8] = b"\0p\0a\0y\0l\0o\0a\0d";

    #[test]
    fn names_of_rock_ridge_and_of_joliet() {
        let content = |names: &[&[u8]]| file(&without(JOLIET_RR.to_vec(), names)).unwrap().map(|f| f.expose().to_vec());
        assert_eq!(content(&[IN_PLAIN, IN_JOLIET]).unwrap(), b"payload\n");
        assert_eq!(content(&[IN_PLAIN, IN_ROCK_RIDGE]).unwrap(), b"payload\n");
        assert_eq!(content(&[IN_JOLIET]).unwrap(), b"payload\n");
        // If a file has a Rock Ridge name, the plain name does not count.
        assert_eq!(content(&[IN_ROCK_RIDGE, IN_JOLIET]), None);
    }

    /// Several programs write 0 as the big-endian number, or change only the little-endian one.
    #[test]
    fn big_endian_numbers_do_not_count() {
        let mut image = PLAIN.to_vec();
        let pvd = 16 * 2048;
        image[pvd + 84..pvd + 88].fill(0);
        image[pvd + 130..pvd + 132].fill(0xff);
        // The root's record in the descriptor, and the three records in each of the two directories.
        let mut records = vec![pvd + 156];
        for directory in [root_directory(PLAIN), root_directory(PLAIN) + 2048] {
            let mut at = directory;
            while image[at] != 0 {
                records.push(at);
                at += usize::from(image[at]);
            }
        }
        assert_eq!(records.len(), 7);
        for at in records {
            image[at + 6..at + 10].fill(0);
            image[at + 14..at + 18].fill(0xff);
        }
        assert_eq!(file(&image).unwrap().unwrap().expose(), b"payload\n");
    }

    /// Where the record of the payload stands in the plain tree.
    fn payload_record(image: &[u8]) -> usize {
        image.windows(10).position(|window| window == IN_PLAIN).unwrap() - 33
    }

    /// ECMA-119 §9.5: the extended attribute record is a block before the content, and does not count in `len`.
    #[test]
    fn an_extended_attribute_record_is_not_the_file() {
        let mut image = PLAIN.to_vec();
        let record = payload_record(&image);
        let at = u32::from_le_bytes(image[record + 2..record + 6].try_into().unwrap());
        image[record + 1] = 1;
        image[record + 2..record + 6].copy_from_slice(&(at - 1).to_le_bytes());
        assert_eq!(file(&image).unwrap().unwrap().expose(), b"payload\n");
        // The same for the root directory. Then a block number that overflows is refused.
        let root = 16 * 2048 + 156;
        let at = u32::from_le_bytes(image[root + 2..root + 6].try_into().unwrap());
        image[root + 1] = 2;
        image[root + 2..root + 6].copy_from_slice(&(at - 2).to_le_bytes());
        assert_eq!(file(&image).unwrap().unwrap().expose(), b"payload\n");
        image[record + 2..record + 6].fill(0xff);
        let record = record as u64;
        assert!(matches!(file(&image), Err(VolumeError::Damaged { offset, .. }) if offset == record));
    }

    /// ECMA-119 §9.1.6: flag 4. mkisofs gives the resource fork of a Macintosh file the same name as the file.
    #[test]
    fn an_associated_file_is_not_the_file() {
        let mut image = PLAIN.to_vec();
        let record = payload_record(&image);
        let length = usize::from(image[record]);
        let twice = [&image[record..record + length], &image[record..record + length]].concat();
        image[record..record + 2 * length].copy_from_slice(&twice);
        assert!(matches!(file(&image), Err(VolumeError::Twice { .. })), "two files of one name are an error");
        image[record + 25] |= 4;
        image[record + 2..record + 6].fill(0);
        assert_eq!(file(&image).unwrap().unwrap().expose(), b"payload\n");
        image[record + length + 25] |= 4;
        assert_eq!(file(&image).unwrap(), None, "an associated file alone is no file");
    }

    #[test]
    fn a_label_ends_at_the_first_nul() {
        let mut image = PLAIN.to_vec();
        image[16 * 2048 + 40..16 * 2048 + 72].fill(0);
        image[16 * 2048 + 40..16 * 2048 + 49].copy_from_slice(b"IMPRINT  ");
        image[16 * 2048 + 60] = b'x';
        assert_eq!(Volume::open(&mut Cursor::new(image)).unwrap().unwrap().labels(), ["IMPRINT"]);
    }

    #[test]
    fn two_files_of_that_path_in_two_trees() {
        // Make Joliet's record point to the directory itself.
        let mut image = JOLIET_RR.to_vec();
        let at = image.windows(IN_JOLIET.len()).position(|window| window == IN_JOLIET).unwrap() - 33;
        let (little, big) = (20u32.to_le_bytes(), 20u32.to_be_bytes());
        image[at + 2..at + 6].copy_from_slice(&little);
        image[at + 6..at + 10].copy_from_slice(&big);
        assert_eq!(
            file(&image).unwrap_err().to_string(),
            "imprint/payload and imprint/payload of Joliet's tree are the same path without regard to case; remove one"
        );
    }

    #[test]
    fn a_label_that_only_joliet_can_spell() {
        let mut image = JOLIET_RR.to_vec();
        image[16 * 2048 + 40..16 * 2048 + 48].copy_from_slice(b"CONFIG_2");
        let volume = Volume::open(&mut Cursor::new(image)).unwrap().unwrap();
        assert_eq!(volume.labels(), ["CONFIG_2", "cidata"]);
    }

    #[test]
    fn a_rock_ridge_name_that_goes_on_elsewhere() {
        let mut image = JOLIET_RR.to_vec();
        // The record's system use area begins after a name of ten bytes and a padding byte.
        let record = image.windows(10).position(|window| window == IN_PLAIN).unwrap() - 33;
        let (area, end) = (record + 33 + 11, record + usize::from(image[record]));
        // "pay" stands here, and "load" in a continuation in the system area: block 0, offset 64, 12 bytes.
        let both = |number: u32| [number.to_le_bytes(), number.to_be_bytes()].concat();
        image[64..76].copy_from_slice(b"NM\x09\x01\0load\0\0\0");
        let entries = [b"NM\x08\x01\x01pay", &b"CE\x1c\x01"[..], &both(0), &both(64), &both(12)].concat();
        image[area..end].fill(0);
        image[area..area + entries.len()].copy_from_slice(&entries);
        let plain_and_joliet_gone = without(image, &[IN_PLAIN, IN_JOLIET]);
        assert_eq!(file(&plain_and_joliet_gone).unwrap().unwrap().expose(), b"payload\n");
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
                Err(VolumeError::Damaged { offset, what }) => (offset as usize, what),
                other => panic!("{other:?}"),
            }
        };
        let pvd = 16 * 2048;
        assert_eq!(
            damaged(pvd + 80, 1),
            (root_directory(PLAIN), "directory extent"),
            "behind the end that it says it has"
        );
        assert_eq!(damaged(pvd + 128, 1), (pvd + 128, "logical block size"));
        assert_eq!(damaged(pvd + 156 + 25, 0), (pvd + 156, "root directory record"));
        let root = root_directory(PLAIN);
        assert_eq!(damaged(root, 1), (root, "directory record"));
    }

    #[test]
    fn a_damaged_descriptor_still_tells_whose_volume_it_is() {
        let mut image = PLAIN.to_vec();
        image[16 * 2048 + 128] ^= 0xff;
        assert_eq!(Volume::open(&mut Cursor::new(image)).unwrap().unwrap().labels(), ["IMPRINT"]);
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error_not_absence() {
        let end = PLAIN.windows(8).position(|window| window == b"payload\n").unwrap();
        let error = file(&PLAIN[..end + 4]).unwrap_err();
        let VolumeError::File { path, source } = &error else { panic!("{error:?}") };
        assert_eq!(path, "imprint/payload");
        assert!(
            matches!(&**source, VolumeError::Read { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof),
            "{source}"
        );
    }

    #[test]
    fn too_long() {
        let mut device = Cursor::new(PLAIN);
        let volume = Volume::open(&mut device).unwrap().unwrap();
        let error = volume.file(&mut device, &PATH, 7).unwrap_err();
        assert_eq!(error.to_string(), "imprint/payload has 8 bytes, a payload has at most 65536; put a payload there");
    }

    #[test]
    fn two_spellings_of_one_path() {
        // Write the payload's record again after itself, with its name in the other case.
        let mut image = PLAIN.to_vec();
        let name = PLAIN.windows(10).position(|window| window == b"PAYLOAD.;1").unwrap();
        let start = name - 33;
        let length = usize::from(PLAIN[start]);
        let record = PLAIN[start..start + length].to_vec();
        image[start + length..start + 2 * length].copy_from_slice(&record);
        image[start + length + 33..start + length + 40].copy_from_slice(b"payload");
        let error = file(&image).unwrap_err();
        assert_eq!(error.to_string(), "PAYLOAD and payload are the same path without regard to case; remove one");
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
