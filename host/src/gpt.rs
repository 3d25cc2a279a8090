//! Makes the image of a disk with a GUID partition table (UEFI Specification 2.10, §5.3) and one partition, which holds
//! the payload itself from its first byte on. Pure: bytes to bytes. No crate is used: the table has only a few numbers,
//! and the crates for it come with a model of a whole disk.

use imprint::checksum::crc32;
use imprint::digest::sha256;
use imprint::medium::PARTITION_TYPE;
use zeroize::Zeroizing;

const SECTOR: usize = 512;
/// Sectors of the image: 1 MiB.
const SECTORS: u32 = 2048;
/// Entries of the table, and their length in bytes. Every table has room for that many (§5.3.1: at least 16 KiB).
const ENTRIES: u32 = 128;
const ENTRY: u32 = 128;
/// Sectors of the entries, in front of the partition and behind it.
const ENTRY_SECTORS: u32 = 32;
/// The primary header; its entries follow.
const PRIMARY: u32 = 1;
/// The backup header is in the last sector; its entries are in front of it.
const BACKUP: u32 = SECTORS - 1;
const BACKUP_ENTRIES: u32 = BACKUP - ENTRY_SECTORS;
const FIRST_USABLE: u32 = PRIMARY + 1 + ENTRY_SECTORS;
const LAST_USABLE: u32 = BACKUP_ENTRIES - 1;
/// The partition begins at a multiple of 32 KiB and ends before one, because drives have larger sectors than they
/// report.
const START: u32 = 64;
const LAST: u32 = LAST_USABLE - (LAST_USABLE + 1) % START;
/// Bytes of the partition.
const ROOM: usize = (LAST + 1 - START) as usize * SECTOR;
/// The name of the partition.
const NAME: &str = "IMPRINT";
const HEADER: u32 = 92;

/// The file is larger than the partition.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} bytes do not fit into a partition of {ROOM}")]
pub struct TooLong(pub usize);

/// The image. The same file always gives the same bytes. Wiped on drop, as the file is secret.
pub fn image(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    if file.len() > ROOM {
        return Err(TooLong(file.len()));
    }
    let mut image = Image { bytes: Zeroizing::new(vec![0; SECTORS as usize * SECTOR]) };
    let mut entries = entry(&own_guid(b"partition", file)).to_vec();
    entries.resize((ENTRIES * ENTRY) as usize, 0);
    let (disk, checksum) = (own_guid(b"disk", file), !crc32(u32::MAX, &entries));

    image.put(0, &protective_mbr());
    for (at, other, entries_at) in [(PRIMARY, BACKUP, PRIMARY + 1), (BACKUP, PRIMARY, BACKUP_ENTRIES)] {
        image.put(at, &header(at, other, entries_at, &disk, checksum));
        image.put(entries_at, &entries);
    }
    image.put(START, file);
    Ok(image.bytes)
}

struct Image {
    bytes: Zeroizing<Vec<u8>>,
}

impl Image {
    /// Puts the bytes into this sector and those behind it. All callers stay within the image; bytes beyond it would be
    /// dropped.
    fn put(&mut self, sector: u32, bytes: &[u8]) {
        let at = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(SECTOR);
        if let Some(place) = self.bytes.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }
}

/// UEFI Specification 2.10, §5.2.3: one partition over the whole disk, so that programs which know no GPT leave it alone.
fn protective_mbr() -> Vec<u8> {
    let mut sector = vec![0; 446];
    sector.extend([0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    sector.extend(1u32.to_le_bytes());
    sector.extend((SECTORS - 1).to_le_bytes());
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// A header (§5.3.2).
fn header(at: u32, other: u32, entries_at: u32, disk: &[u8; 16], entries: u32) -> Vec<u8> {
    let with = |checksum: u32| {
        let mut header = b"EFI PART".to_vec();
        header.extend(0x0001_0000u32.to_le_bytes());
        header.extend(HEADER.to_le_bytes());
        header.extend(checksum.to_le_bytes());
        header.extend([0; 4]);
        for sector in [at, other, FIRST_USABLE, LAST_USABLE] {
            header.extend(u64::from(sector).to_le_bytes());
        }
        header.extend(disk);
        header.extend(u64::from(entries_at).to_le_bytes());
        for number in [ENTRIES, ENTRY, entries] {
            header.extend(number.to_le_bytes());
        }
        header
    };
    // The checksum covers the header with zeros in the place of the checksum.
    with(!crc32(u32::MAX, &with(0)))
}

/// The entry of the partition (§5.3.3).
fn entry(own: &[u8; 16]) -> Vec<u8> {
    let mut entry = on_disk(guid(PARTITION_TYPE)).to_vec();
    entry.extend(own);
    for sector in [START, LAST] {
        entry.extend(u64::from(sector).to_le_bytes());
    }
    entry.extend([0; 8]); // no attributes
    entry.extend(NAME.encode_utf16().flat_map(u16::to_le_bytes));
    entry.resize(ENTRY as usize, 0);
    entry
}

/// A GUID that only this image has: a UUID of version 8 (RFC 9562 §5.8), made from a hash. The hash tells nothing about
/// the token in the payload.
fn own_guid(of: &[u8], file: &[u8]) -> [u8; 16] {
    let named = Zeroizing::new([of, file].concat());
    let digest = sha256(&named);
    let mut guid = digest.first_chunk::<16>().copied().unwrap_or_default();
    for (at, fixed, mask) in [(6, 0x80, 0x0f), (8, 0x80, 0x3f)] {
        if let Some(byte) = guid.get_mut(at) {
            *byte = fixed | *byte & mask;
        }
    }
    on_disk(guid)
}

/// The bytes of a GUID's text, in the order of the text.
fn guid(text: &str) -> [u8; 16] {
    let bytes = imprint::hex::decode(&text.replace('-', "")).and_then(|bytes| bytes.try_into().ok());
    bytes.unwrap_or_default()
}

/// The first three fields of a GUID are little-endian (appendix A).
fn on_disk(guid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this test fails, do not change it: the same payload has to give the same image.
    #[test]
    fn frozen() {
        let image = image(b"payload").unwrap();
        assert_eq!(image.len(), 1024 * 1024);
        assert_eq!(&image[64 * 512..64 * 512 + 8], b"payload\0");
        assert_eq!(imprint::hex::encode(&image[1024..1040]), "9df375544385d445a1d3ea7b16c42612", "the type");
        assert_eq!(imprint::hex::encode(&sha256(&image)), FROZEN);
    }

    const FROZEN: &str = "70a80e99c05fca4bd0abcd2b1c5ed00be71f7c6d3f1d2a288b1771f3969d6454";

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(image(&vec![0; ROOM]).is_ok());
        assert_eq!(image(&vec![0; ROOM + 1]).unwrap_err(), TooLong(ROOM + 1));
        const { assert!(ROOM > imprint::payload::MAX_LEN) };
    }

    /// A disk that was copied and a disk that was made anew must be told apart.
    #[test]
    fn images_have_guids_of_their_own() {
        let guids = |file| {
            let image = image(file).unwrap();
            (image[512 + 56..512 + 72].to_vec(), image[1024 + 16..1024 + 32].to_vec())
        };
        let ((disk, partition), other) = (guids(b"one"), guids(b"two"));
        assert!(disk != partition && disk != other.0 && partition != other.1);
    }
}
