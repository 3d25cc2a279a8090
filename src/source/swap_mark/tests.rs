use std::io::{self, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Bytes that cost nothing and look like chance (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What lies between the margins, or on a whole partition.
#[derive(Clone, Copy)]
enum Inside {
    Random(u64),
    /// Whoever reads it has lost.
    Forbidden,
}

/// A partition of any size without memory for it.
struct Sparse {
    bytes: u64,
    at: u64,
    /// `None`: all of it is random.
    margins: Option<Layout>,
    inside: Inside,
    /// A byte that is not as it was written.
    odd: Option<u64>,
}

impl Sparse {
    fn ours(bytes: u64, inside: Inside) -> Sparse {
        Sparse { bytes, at: 0, margins: Layout::of(bytes), inside, odd: None }
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (buffer.len() as u64).min(self.bytes.saturating_sub(self.at));
        let buffer = &mut buffer[..count as usize];
        let end = self.at + count;
        buffer.fill(0);
        let inner = self.margins.map_or((0, self.bytes), Layout::inner);
        let (from, to) = (self.at.max(inner.0), end.min(inner.0 + inner.1));
        if from < to {
            let Inside::Random(seed) = self.inside else { panic!("byte {from} was read") };
            let mut chance = Chance((seed ^ from.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
            let part = &mut buffer[(from - self.at) as usize..(to - self.at) as usize];
            part.chunks_mut(8).for_each(|eight| eight.copy_from_slice(&chance.next().to_le_bytes()[..eight.len()]));
        }
        if let Some(layout) = self.margins
            && self.at < MARK as u64
        {
            let part = &layout.mark()[self.at as usize..];
            buffer.iter_mut().zip(part).for_each(|(place, byte)| *place = *byte);
        }
        if let Some(odd) = self.odd
            && (self.at..end).contains(&odd)
        {
            buffer[(odd - self.at) as usize] ^= 0x20;
        }
        self.at = end;
        Ok(count as usize)
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(0) => self.bytes,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(self.at)
    }
}

/// If this test fails, do not change it: partitions with this marker are on disks.
#[test]
fn frozen_marker_and_margins() {
    let layout = Layout::of((1 << 30) + 512).unwrap();
    let mark = layout.mark();
    let text = "imprint swap 1\nlength 1073742336\nimprint uses this partition as swap space. The key is made anew at each boot \
                and kept nowhere.\n";
    assert_eq!(&mark[..text.len()], text.as_bytes());
    assert!(mark[text.len()..].iter().all(|byte| *byte == 0));
    let inner = (1 << 30) - (7 << 20);
    assert_eq!(layout.inner(), (5 << 20, inner));
    assert_eq!(layout.margins(), [(0, 5 << 20), ((5 << 20) + inner, (2 << 20) + 512)]);
    assert_eq!(Layout::of((16 << 20) - 1), None);
}

proptest::proptest! {
    #[test]
    fn margins_and_inside_are_the_whole_partition(bytes in LEAST..=u64::MAX / 2) {
        let layout = Layout::of(bytes).unwrap();
        let ((start, len), [head, tail]) = (layout.inner(), layout.margins());
        assert_eq!((head.0, head.1, start, len % LARGEST_PAGE), (0, HEAD, HEAD, 0));
        assert_eq!((tail.0, tail.0 + tail.1), (start + len, bytes));
        assert!(tail.1 >= TAIL && tail.1 < TAIL + LARGEST_PAGE);
        // No number that a partition can have makes the marker too long.
        assert_eq!(layout.mark().last(), Some(&0));
    }
}

/// systemd#37328: on 3 of some ten thousand hosts the last boot's ciphertext looked like a file system or a RAID, and the swap space was
/// refused. What is never read can look like nothing.
#[test]
fn nothing_between_the_margins_is_read() {
    for bytes in [LEAST, LEAST + 512, LEAST + 4096, LEAST + 65_535, 1 << 30, (1 << 40) + 512, (1 << 62) + 512] {
        assert_eq!(look(&mut Sparse::ours(bytes, Inside::Forbidden), bytes).unwrap(), Mark::Ours, "{bytes}");
    }
}

/// The bar: 100,000 partitions, none of ours refused, and none of others taken. What lies between the margins of ours is random, and is
/// never read (the test before). Of others one is random in all of it, and in one the marker has survived and a single byte of a margin
/// has not.
#[test]
#[allow(clippy::print_stdout)] // the figure of the bar
fn a_hundred_thousand_random_contents() {
    const CASES: u64 = 100_000;
    let (next, refused, touched) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case >= CASES {
                break;
            }
            let mut chance = Chance(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let (seed, bytes) = (chance.next(), LEAST + chance.below(1 << 34) / 512 * 512);
            let mark = look(&mut Sparse::ours(bytes, Inside::Random(seed)), bytes).unwrap();
            refused.fetch_add(u64::from(mark != Mark::Ours), Ordering::Relaxed);
            let mut foreign = Sparse { bytes, at: 0, margins: None, inside: Inside::Random(seed), odd: None };
            let mark = look(&mut foreign, bytes).unwrap();
            touched.fetch_add(u64::from(mark != Mark::None), Ordering::Relaxed);
            let [(_, head), (start, len)] = Layout::of(bytes).unwrap().margins();
            let behind = MARK as u64;
            let odd = match case % 4 {
                0 => behind + chance.below(head - behind),
                1 => start + chance.below(len.min(1 << 17)),
                // Where most superblocks are.
                _ => behind + chance.below((1 << 17) - behind),
            };
            let mut foreign = Sparse { odd: Some(odd), ..Sparse::ours(bytes, Inside::Random(seed)) };
            let mark = look(&mut foreign, bytes).unwrap();
            touched.fetch_add(u64::from(mark != Mark::Changed(odd)), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let (refused, touched) = (refused.into_inner(), touched.into_inner());
    println!("{CASES} random contents: {refused} of ours refused, {touched} foreign partitions touched");
    assert_eq!((refused, touched), (0, 0));
}

/// blkid of util-linux, as udev asks it. Its exit code (blkid(8): 2 if nothing was found), and what it says.
fn blkid(path: &std::path::Path) -> (Option<i32>, String) {
    let output = by("blkid").arg("-p").arg(path).output().expect("blkid of util-linux");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn by(program: &str) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
    command
}

/// A partition of ours in a file, with this content at this place between the margins.
fn put(file: &std::fs::File, at: u64, content: &[u8]) {
    let layout = Layout::of(LEAST).unwrap();
    let (start, len) = layout.inner();
    file.set_len(0).unwrap();
    file.set_len(LEAST).unwrap();
    file.write_all_at(&layout.mark(), 0).unwrap();
    assert!(at + content.len() as u64 <= len);
    file.write_all_at(content, start + at).unwrap();
}

/// What is between the margins looks like nothing to others, either: blkid is the peer.
#[test]
fn others_see_nothing_on_it() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("partition");
    let file = std::fs::File::create(&path).unwrap();
    let (_, len) = Layout::of(LEAST).unwrap().inner();
    let mut noise = vec![0; len as usize];
    for seed in 1..=150 {
        let mut chance = Chance(seed);
        noise.chunks_exact_mut(8).for_each(|eight| eight.copy_from_slice(&chance.next().to_le_bytes()));
        put(&file, 0, &noise);
        assert_eq!(blkid(&path), (Some(2), String::new()), "{seed}");
    }
}

/// Neither does what is no noise: whole file systems right behind the first margin and right before the last one, where an offset that is
/// wrong by a sector would show.
#[test]
fn others_see_no_file_system_between_the_margins() {
    let work = tempfile::tempdir().unwrap();
    let (path, image) = (work.path().join("partition"), work.path().join("image"));
    let file = std::fs::File::create(&path).unwrap();
    let (_, len) = Layout::of(LEAST).unwrap().inner();
    for make in [&["mke2fs", "-q", "-t", "ext4", "-F"][..], &["mkfs.vfat"], &["mkswap"]] {
        std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let done = by(make[0]).args(&make[1..]).arg(&image).output();
        let done = done.unwrap_or_else(|error| panic!("{}: {error}: run scripts/install-needs test", make[0]));
        assert!(done.status.success(), "{make:?}: {}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(blkid(&image).0, Some(0), "the premise: {make:?}");
        let content = std::fs::read(&image).unwrap();
        for at in [0, 512, 4096, len - content.len() as u64] {
            put(&file, at, &content);
            assert_eq!(blkid(&path), (Some(2), String::new()), "{make:?} at {at}");
        }
    }
    // Marks that belong before the end of a device: a RAID of Linux (md, 0.90), and one of Intel.
    for (from_end, mark) in [(65_536, &b"\xfc\x4e\x2b\xa9"[..]), (1024, b"Intel Raid ISM Cfg Sig. ")] {
        put(&file, len - from_end, mark);
        assert_eq!(blkid(&path), (Some(2), String::new()), "{mark:?}");
    }
}

/// A file system that was made on the partition later writes into a margin, and it is then no longer ours; at whatever place it
/// writes, and also where the marker has survived.
#[test]
fn a_single_byte_in_a_margin_makes_it_somebody_elses() {
    let mut chance = Chance(7);
    for case in 0..300 {
        let bytes = LEAST + chance.below(1 << 34) / 512 * 512;
        let [(_, head), (start, len)] = Layout::of(bytes).unwrap().margins();
        let odd = match case % 3 {
            0 => chance.below(MARK as u64),
            1 => chance.below(head),
            _ => start + chance.below(len),
        };
        let mut partition = Sparse { odd: Some(odd), ..Sparse::ours(bytes, Inside::Random(case)) };
        let want = if odd < WORDS.len() as u64 { Mark::None } else { Mark::Changed(odd) };
        assert_eq!(look(&mut partition, bytes).unwrap(), want, "{odd} of {bytes}");
    }
}

/// Somebody made the partition smaller or larger, or copied its beginning to another one.
#[test]
fn a_marker_of_another_length_does_not_count() {
    for (written, found) in [(1 << 30, (1 << 30) + 512), (1 << 30, 1 << 29), (1 << 25, 1 << 31)] {
        let mut partition = Sparse { bytes: found, ..Sparse::ours(written, Inside::Random(1)) };
        assert!(matches!(look(&mut partition, found).unwrap(), Mark::Changed(_)), "{written} {found}");
    }
    let mut small = Sparse::ours(LEAST, Inside::Random(1));
    assert_eq!(look(&mut small, LEAST - 512).unwrap(), Mark::None);
    // The table says more than the disk has.
    let mut cut = Sparse { bytes: LEAST, ..Sparse::ours(1 << 30, Inside::Random(1)) };
    assert!(matches!(look(&mut cut, 1 << 30).unwrap(), Mark::Changed(_)));
}
