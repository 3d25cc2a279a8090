//! Tests with tables that are made here, byte for byte, so that each can be damaged in one place.
//! tests/pure/partitions.rs reads tables of sfdisk and sgdisk.

use std::io::Cursor;

use super::*;

/// A partition of type "Linux filesystem data", as it stands on a disk.
pub(in crate::source) const LINUX: [u8; 16] = on_disk("0FC63DAF-8483-4772-8E79-3D69D8477DE4");
pub(in crate::source) const OURS: [u8; 16] = OUR_TYPE;

/// Type, first and last sector, name.
pub(in crate::source) type Entry<'a> = ([u8; 16], u64, u64, &'a str);

/// A disk with a GPT, both copies of it.
pub(in crate::source) struct Disk {
    pub(in crate::source) size: usize,
    pub(in crate::source) bytes: Vec<u8>,
}

impl Disk {
    /// With this many sectors of `size` bytes.
    pub(in crate::source) fn new(size: usize, sectors: usize, entries: &[Entry<'_>]) -> Disk {
        let mut disk = Disk { size, bytes: vec![0; size * sectors] };
        disk.bytes[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0, 0]);
        disk.bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk.write(true, entries);
        disk.write(false, entries);
        disk
    }

    fn last(&self) -> usize {
        self.bytes.len() / self.size - 1
    }

    /// The sectors of the entries: 128 of 128 bytes.
    fn table(&self) -> usize {
        128 * 128 / self.size
    }

    fn write(&mut self, primary: bool, entries: &[Entry<'_>]) {
        let (size, last, table) = (self.size, self.last(), self.table());
        let (own, other, at) = if primary { (1, last, 2) } else { (last, 1, last - table) };
        for (index, (kind, first, end, name)) in entries.iter().enumerate() {
            let entry = &mut self.bytes[at * size + index * 128..][..128];
            entry[..16].copy_from_slice(kind);
            entry[16..32].fill(index as u8 + 1);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&end.to_le_bytes());
            for (index, unit) in name.encode_utf16().enumerate() {
                entry[56 + 2 * index..58 + 2 * index].copy_from_slice(&unit.to_le_bytes());
            }
        }
        let number = |bytes: &mut Vec<u8>, offset: usize, value: usize| {
            bytes[own * size + offset..][..8].copy_from_slice(&(value as u64).to_le_bytes());
        };
        self.bytes[own * size..][..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
        number(&mut self.bytes, 24, own);
        number(&mut self.bytes, 32, other);
        number(&mut self.bytes, 40, 2 + table);
        number(&mut self.bytes, 48, last - table - 1);
        self.bytes[own * size + 56..][..16].fill(9);
        number(&mut self.bytes, 72, at);
        self.bytes[own * size + 80..][..8].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
        self.sign(primary);
    }

    /// Makes both checksums right again.
    pub(in crate::source) fn sign(&mut self, primary: bool) {
        let (size, last, table) = (self.size, self.last(), self.table());
        let (own, at) = if primary { (1, 2) } else { (last, last - table) };
        let sum = !crc32(u32::MAX, &self.bytes[at * size..][..128 * 128]);
        self.bytes[own * size + 88..][..4].copy_from_slice(&sum.to_le_bytes());
        self.bytes[own * size + 16..][..4].fill(0);
        let sum = !crc32(u32::MAX, &self.bytes[own * size..][..92]);
        self.bytes[own * size + 16..][..4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Changes bytes of a header, and makes its checksum right again.
    fn header(mut self, primary: bool, offset: usize, bytes: &[u8]) -> Disk {
        let own = if primary { 1 } else { self.last() } * self.size;
        self.bytes[own + offset..][..bytes.len()].copy_from_slice(bytes);
        let sum = {
            self.bytes[own + 16..][..4].fill(0);
            !crc32(u32::MAX, &self.bytes[own..][..92])
        };
        self.bytes[own + 16..][..4].copy_from_slice(&sum.to_le_bytes());
        self
    }

    /// Makes one copy invalid.
    fn broken(mut self, primary: bool) -> Disk {
        let own = if primary { 1 } else { self.last() } * self.size;
        self.bytes[own + 60] ^= 1;
        self
    }

    /// Writes into a partition.
    pub(in crate::source) fn put(mut self, sector: u64, bytes: &[u8]) -> Disk {
        let at = sector as usize * self.size;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn table_of(&self) -> Table {
        table(&mut Cursor::new(&self.bytes)).unwrap().unwrap()
    }
}

const TWO: [Entry<'static>; 2] = [(LINUX, 100, 199, "root"), (OURS, 200, 209, "")];

fn places(table: &Table, sector: u64) -> Vec<(u32, u64, u64, bool)> {
    let place = |partition: &Partition| {
        let (start, len) = partition.place();
        (partition.number, start / sector, len / sector, partition.is_ours())
    };
    table.partitions.iter().map(place).collect()
}

#[test]
fn both_sizes_of_sectors() {
    for size in [512, 4096] {
        let table = Disk::new(size, 512, &TWO).table_of();
        assert_eq!((table.name, table.fault), ("a partition table (GPT)", None));
        assert_eq!(places(&table, size as u64), [(1, 100, 100, false), (2, 200, 10, true)]);
        assert_eq!(table.partitions[0].name, "root");
    }
}

#[test]
fn a_name_counts_as_the_type_does() {
    for (kind, name, want) in
        [(LINUX, "IMPRINT", true), (LINUX, "imprint", true), (OURS, "data", true), (LINUX, "imprint2", false)]
    {
        let table = Disk::new(512, 512, &[(kind, 100, 199, name)]).table_of();
        assert_eq!(table.partitions[0].is_ours(), want, "{name}");
    }
    // The text of the type, as tools show it, and the bytes of it.
    assert_eq!(OURS[..4], [0x9d, 0xf3, 0x75, 0x54]);
}

/// The backup counts where the primary is damaged, and only there. An older backup that nothing refers to does not matter.
#[test]
fn one_copy_is_enough() {
    for size in [512, 4096] {
        for primary in [true, false] {
            let table = Disk::new(size, 512, &TWO).broken(primary).table_of();
            assert_eq!((table.fault, table.partitions.len()), (None, 2), "{size}, {primary}");
        }
        // No header at all, and one whose entries are damaged.
        let mut gone = Disk::new(size, 512, &TWO);
        gone.bytes[size..2 * size].fill(0);
        assert_eq!((gone.table_of().fault, gone.table_of().partitions.len()), (None, 2));
        let mut entries = Disk::new(size, 512, &TWO);
        entries.bytes[2 * size] ^= 1;
        assert_eq!(entries.table_of().fault, None);
        // An image on a larger disk.
        let mut larger = Disk::new(size, 512, &TWO);
        larger.bytes.resize(size * 1024, 0);
        assert_eq!((larger.table_of().fault, larger.table_of().partitions.len()), (None, 2));
    }
}

#[test]
fn two_valid_copies_that_differ_are_no_table() {
    for size in [512, 4096] {
        let mut disk = Disk::new(size, 512, &TWO);
        disk.write(false, &[(OURS, 300, 309, "IMPRINT")]);
        assert_eq!(disk.table_of().fault, Some(TableError::Differ));
        let disk = Disk::new(size, 512, &TWO).header(false, 56, &[8; 16]);
        assert_eq!(disk.table_of().fault, Some(TableError::Differ), "tables of two disks");
    }
}

/// Each fault is in the primary copy. The backup is gone, so that it cannot replace the primary.
#[test]
fn a_damaged_header_is_named() {
    let number = u64::to_le_bytes;
    for (offset, bytes, why) in [
        (8, &[0, 0, 2, 0][..], "its revision is not 1.0"),
        (12, &[91, 0, 0, 0], "the length of its header is impossible"),
        (12, &[0xff; 4], "the length of its header is impossible"),
        (24, &number(2), "its header belongs in another sector"),
        (48, &number(512), "it was made for a larger disk"),
        (48, &number(u64::MAX), "it was made for a larger disk"),
        (40, &number(u64::MAX), "it was made for a larger disk"),
        (84, &[0; 4], "the size of its entries is impossible"),
        (84, &[64, 0, 0, 0], "the size of its entries is impossible"),
        (84, &[130, 0, 0, 0], "the size of its entries is impossible"),
        (84, &[0xff; 4], "the size of its entries is impossible"),
        (80, &[0; 4], "the number of its entries is impossible"),
        (80, &[0xff; 4], "the number of its entries is impossible"),
        (88, &[0; 4], "the checksum of its entries is wrong"),
        (72, &number(u64::MAX), "its entries are beyond the end of the disk"),
        (72, &number(511), "its entries are beyond the end of the disk"),
    ] {
        let disk = Disk::new(512, 512, &TWO).header(true, offset, bytes).broken(false);
        assert_eq!(disk.table_of().fault, Some(TableError::Header(why)), "{offset}: {bytes:?}");
    }
    let disk = Disk::new(512, 512, &TWO).broken(true).broken(false);
    assert_eq!(disk.table_of().fault, Some(TableError::Header("the checksum of its header is wrong")));
    // What can be read of the entries still tells whose they are.
    assert!(disk.table_of().partitions.iter().any(Partition::is_ours));
    let mut none = Disk::new(512, 512, &TWO);
    none.bytes[512..].fill(0);
    assert_eq!(none.table_of().fault, Some(TableError::NoGpt));
}

#[test]
fn partitions_that_cannot_be_are_named() {
    let fault = |entries: &[Entry<'_>]| Disk::new(512, 512, entries).table_of().fault;
    for (entries, want) in [
        (&[(LINUX, 100, 199, "a"), (OURS, 199, 209, "b")][..], TableError::Overlap(1, 2)),
        (&[(OURS, 150, 160, "a"), (LINUX, 100, 199, "b")], TableError::Overlap(1, 2)),
        (&[(OURS, 100, 99, "a")], TableError::Outside(1)),
        (&[(OURS, 0, u64::MAX, "a")], TableError::Outside(1)),
        (&[(OURS, 100, u64::MAX, "a")], TableError::Outside(1)),
        (&[(OURS, u64::MAX, u64::MAX, "a")], TableError::Outside(1)),
        (&[(LINUX, 100, 199, "a"), (OURS, 1, 40, "b")], TableError::Outside(2)),
        (&[(OURS, 400, 511, "a")], TableError::Outside(1)),
    ] {
        assert_eq!(fault(entries), Some(want));
    }
    assert_eq!(fault(&[(LINUX, 100, 199, "a"), (OURS, 200, 200, "b")]), None);
}

fn mbr_entry(kind: u8, start: u32, sectors: u32) -> [u8; 16] {
    let [a, b, c, d] = start.to_le_bytes();
    let [e, f, g, h] = sectors.to_le_bytes();
    [0, 0, 0, 0, kind, 0, 0, 0, a, b, c, d, e, f, g, h]
}

#[test]
fn an_mbr_beside_a_gpt() {
    let with = |number: usize, entry: [u8; 16]| {
        let mut disk = Disk::new(512, 512, &TWO);
        disk.bytes[446 + 16 * number..][..16].copy_from_slice(&entry);
        disk.table_of()
    };
    // gdisk's hybrid MBR repeats partitions of the GPT.
    let hybrid = with(1, mbr_entry(0x83, 100, 100));
    assert_eq!((hybrid.fault, hybrid.partitions.len()), (None, 2));
    assert_eq!(with(1, mbr_entry(0x83, 100, 99)).fault, Some(TableError::Hybrid(2)));
    assert_eq!(with(0, mbr_entry(0x83, 100, 100)).fault, Some(TableError::Unprotected));
    assert_eq!(with(0, [0; 16]).fault, Some(TableError::Unprotected));
    // Without a primary, a backup at the end is left from an older use.
    let mut mbr = Disk::new(512, 512, &TWO);
    mbr.bytes[446..462].copy_from_slice(&mbr_entry(0x0c, 64, 100));
    mbr.bytes[512..1024].fill(0);
    let table = mbr.table_of();
    assert_eq!((table.name, table.fault), ("a partition table (MBR)", None));
    assert_eq!(places(&table, 512), [(1, 64, 100, false)]);
}

#[test]
fn an_mbr_that_cannot_be_is_named() {
    let fault = |entries: &[[u8; 16]]| {
        let mut bytes = vec![0; 512 * 512];
        for (index, entry) in entries.iter().enumerate() {
            bytes[446 + 16 * index..][..16].copy_from_slice(entry);
        }
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        table(&mut Cursor::new(bytes)).unwrap().unwrap().fault
    };
    assert_eq!(fault(&[mbr_entry(6, 1, 100), mbr_entry(6, 101, 411)]), None);
    assert_eq!(fault(&[mbr_entry(6, 1, 100), mbr_entry(6, 100, 100)]), Some(TableError::Overlap(1, 2)));
    assert_eq!(fault(&[mbr_entry(6, 1, 512)]), Some(TableError::Outside(1)));
    assert_eq!(fault(&[mbr_entry(6, u32::MAX, u32::MAX)]), Some(TableError::Outside(1)));
}

/// A sector that describes a partition, or several.
fn link(bytes: &mut [u8], sector: usize, entries: &[[u8; 16]]) {
    for (index, entry) in entries.iter().enumerate() {
        bytes[sector * 512 + 446 + 16 * index..][..16].copy_from_slice(entry);
    }
    bytes[sector * 512 + 510..][..2].copy_from_slice(&[0x55, 0xaa]);
}

/// A disk of 1000 sectors. Its second partition is an extended one of this type, of 600 sectors from 100 on, with these links.
fn chained(kind: u8, links: &[(usize, &[[u8; 16]])]) -> Table {
    let mut bytes = vec![0; 1000 * 512];
    link(&mut bytes, 0, &[mbr_entry(0x83, 10, 50), mbr_entry(kind, 100, 600)]);
    links.iter().for_each(|(sector, entries)| link(&mut bytes, *sector, entries));
    table(&mut Cursor::new(bytes)).unwrap().unwrap()
}

const PRIMARY: [(u32, u64, u64, bool); 2] = [(1, 10, 50, false), (2, 100, 600, false)];

/// People who need more than four partitions have logical ones: a config drive in one of these was not found.
#[test]
fn logical_partitions() {
    for kind in [0x05, 0x0f, 0x85] {
        // The links need not be in order, and may have no partition of their own. Each partition counts from its link, and each
        // link from the extended partition.
        let links: [(usize, &[[u8; 16]]); 4] = [
            (100, &[mbr_entry(0x83, 10, 50), mbr_entry(5, 300, 200)]),
            (400, &[mbr_entry(5, 100, 200), mbr_entry(0x0c, 1, 99)]),
            (200, &[[0; 16], mbr_entry(0x0f, 150, 50)]),
            (250, &[mbr_entry(0x83, 20, 30)]),
        ];
        let table = chained(kind, &links);
        assert_eq!((table.name, table.fault), ("a partition table (MBR)", None));
        let logical = [(5, 110, 50, false), (6, 401, 99, false), (7, 270, 30, false)];
        assert_eq!(places(&table, 512), [&PRIMARY[..], &logical].concat());
        // The extended partition holds the others, and nothing of its own.
        assert_eq!(table.holding().map(|one| one.number).collect::<Vec<_>>(), [1, 5, 6, 7]);
        assert!(table.holds(110) && table.holds(401) && !table.holds(105));
    }
    // Nothing was ever in it: nobody wrote a link, or only an empty one.
    for links in [&[][..], &[(100, &[][..])]] {
        let table = chained(5, links);
        assert_eq!((table.fault, places(&table, 512)), (None, PRIMARY.to_vec()));
    }
    // What stands in the last two entries, as OS/2 left it, or what code left.
    let more = [mbr_entry(0x83, 10, 50), [0; 16], mbr_entry(0x83, 60, 20), mbr_entry(0x83, 90, 9999)];
    let table = chained(5, &[(100, &more)]);
    assert_eq!(
        (table.fault, places(&table, 512)[2..].to_vec()),
        (None, vec![(5, 110, 50, false), (6, 160, 20, false)])
    );
    let code = chained(5, &[(100, &[[b'x'; 16]])]);
    assert_eq!((code.fault, places(&code, 512)), (None, PRIMARY.to_vec()));
}

#[test]
fn two_extended_partitions() {
    let mut bytes = vec![0; 1000 * 512];
    link(&mut bytes, 0, &[mbr_entry(5, 100, 100), mbr_entry(0x83, 10, 50), mbr_entry(0x0f, 300, 100)]);
    link(&mut bytes, 100, &[mbr_entry(0x83, 10, 50), mbr_entry(5, 70, 30)]);
    link(&mut bytes, 170, &[mbr_entry(0x83, 10, 10)]);
    link(&mut bytes, 300, &[mbr_entry(0x83, 1, 99)]);
    let read = table(&mut Cursor::new(&bytes)).unwrap().unwrap();
    assert_eq!(read.fault, None);
    assert_eq!(places(&read, 512)[3..], [(5, 110, 50, false), (6, 180, 10, false), (7, 301, 99, false)]);
    // The chain of one leads into the other.
    link(&mut bytes, 170, &[mbr_entry(0x83, 10, 10), mbr_entry(5, 200, 100)]);
    let read = table(&mut Cursor::new(&bytes)).unwrap().unwrap();
    assert_eq!(read.fault, Some(TableError::Chain(1, "a link leads out of it")));
}

#[test]
fn a_chain_of_logical_partitions_that_cannot_be_is_named() {
    let data = mbr_entry(0x83, 10, 50);
    let to = |sector| mbr_entry(5, sector, 100);
    let fault = |links: &[(usize, &[[u8; 16]])]| chained(5, links).fault;
    let chain = |why| Some(TableError::Chain(2, why));
    for (links, want) in [
        (&[(100, &[data, to(0)][..])][..], chain("a link leads back to an earlier one")),
        (&[(100, &[data, to(200)]), (300, &[data, to(200)])], chain("a link leads back to an earlier one")),
        (&[(100, &[data, to(200)]), (300, &[data, to(0)])], chain("a link leads back to an earlier one")),
        (&[(100, &[data, to(600)])], chain("a link leads out of it")),
        (&[(100, &[data, to(u32::MAX)])], chain("a link leads out of it")),
        (&[(100, &[data, to(200)])], chain("a link leads to something else")),
        (&[(100, &[data, to(200)]), (300, &[[b'x'; 16]])], chain("a link leads to something else")),
        (&[(100, &[mbr_entry(0x83, 10, 591)])], Some(TableError::Outside(5))),
        (&[(100, &[mbr_entry(0x83, u32::MAX, u32::MAX)])], Some(TableError::Outside(5))),
        // On the first link itself.
        (&[(100, &[mbr_entry(0x83, 0, 10)])], Some(TableError::Outside(5))),
        (&[(100, &[data, to(20)]), (120, &[data])], Some(TableError::Overlap(5, 6))),
        (&[(100, &[data, to(200)]), (300, &[mbr_entry(0x83, 10, 390)])], None),
        (&[(100, &[data, to(200)]), (300, &[mbr_entry(0x83, 10, 391)])], Some(TableError::Outside(6))),
    ] {
        assert_eq!(fault(links), want, "{links:?}");
    }
    // Each link is a valid one. As many as are read, and one more.
    for (links, want) in [(MAX_LINKS, None), (MAX_LINKS + 1, chain("it has more than 128 links"))] {
        let mut bytes = vec![0; 1000 * 512];
        link(&mut bytes, 0, &[mbr_entry(0x83, 10, 50), mbr_entry(5, 100, 600)]);
        for index in 0..links {
            let next = if index + 1 == links { [0; 16] } else { to(4 * (index as u32 + 1)) };
            link(&mut bytes, 100 + 4 * index, &[mbr_entry(0x83, 1, 3), next]);
        }
        let table = table(&mut Cursor::new(bytes)).unwrap().unwrap();
        assert_eq!((table.fault, table.partitions.len()), (want, 2 + MAX_LINKS));
    }
}

/// Beside a GPT, an extended partition in the MBR is one that the GPT does not have.
#[test]
fn an_extended_partition_beside_a_gpt_is_a_hybrid() {
    let mut disk = Disk::new(512, 512, &TWO);
    disk.bytes[446 + 16..][..16].copy_from_slice(&mbr_entry(5, 300, 100));
    link(&mut disk.bytes, 300, &[mbr_entry(0x83, 10, 20)]);
    let table = disk.table_of();
    assert_eq!((table.fault, table.partitions.len()), (Some(TableError::Hybrid(2)), 2));
}

#[test]
fn what_is_no_table_is_absent() {
    for bytes in [vec![], vec![0; 100], vec![0; 100_000], vec![0xff; 100_000]] {
        assert!(table(&mut Cursor::new(bytes)).unwrap().is_none());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    /// Nor may a chain be without end.
    #[test]
    fn no_chain_makes_it_panic(
        changes in proptest::collection::vec((446..128 * 512usize, proptest::prelude::any::<u8>()), 1..8),
        links in proptest::collection::vec((0..128u32, 0..128u32), 0..6),
    ) {
        let mut bytes = vec![0; 128 * 512];
        link(&mut bytes, 0, &[mbr_entry(0x83, 1, 9), mbr_entry(5, 10, 118)]);
        link(&mut bytes, 10, &[mbr_entry(0x83, 1, 9), mbr_entry(5, 20, 10)]);
        for (at, to) in links {
            link(&mut bytes, at as usize, &[mbr_entry(0x83, 1, 9), mbr_entry(5, to, 10)]);
        }
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Ok(Some(table)) = table(&mut Cursor::new(&bytes)) && table.fault.is_none() {
            let mut last = 0;
            let mut places: Vec<_> = table.holding().map(Partition::place).collect();
            places.sort_unstable();
            for (start, len) in places {
                assert!(len > 0 && start >= last);
                last = start + len;
            }
            assert!(last <= bytes.len() as u64);
        }
    }

    /// Also with checksums that are right: the one who writes a disk writes these as well.
    #[test]
    fn no_table_makes_it_panic(
        changes in proptest::collection::vec((446..2048usize, proptest::prelude::any::<u8>()), 1..8),
        signed in proptest::prelude::any::<bool>(),
    ) {
        let mut disk = Disk::new(512, 128, &[(LINUX, 60, 69, "a"), (OURS, 70, 79, "b")]);
        for (at, byte) in changes {
            disk.bytes[at] = byte;
        }
        if signed {
            disk.sign(true);
        }
        if let Ok(Some(table)) = table(&mut Cursor::new(&disk.bytes)) && table.fault.is_none() {
            for partition in &table.partitions {
                let (start, len) = partition.place();
                assert!(len > 0 && start + len <= disk.bytes.len() as u64);
            }
        }
    }
}
