//! The tar and the gzip file, and what is refused in them.

use proptest::prelude::*;

use super::*;

const BLOCK: usize = 512;

/// Changes a field of the header of an entry of the frozen tar, and mends the checksum.
fn with(entry: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut tar = FROZEN_TAR.to_vec();
    let begin = header_of(entry);
    tar[begin + at..begin + at + bytes.len()].copy_from_slice(bytes);
    mend(&mut tar[begin..begin + BLOCK]);
    tar
}

fn header_of(entry: &str) -> usize {
    let name = [entry.as_bytes(), b"\0"].concat();
    let found = (0..FROZEN_TAR.len() / BLOCK).find(|block| FROZEN_TAR[block * BLOCK..].starts_with(&name));
    found.unwrap_or_else(|| panic!("no {entry}")) * BLOCK
}

fn mend(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Attack: an entry that this program and another one take for different things, or that is no file, link or directory.
#[test]
fn headers_that_are_refused() {
    let name = "root/etc/hostname";
    for (at, bytes, error) in [
        (156, b"1".as_slice(), TarError::Kind("a hard link")),
        (156, b"3", TarError::Kind("a character device")),
        (156, b"4", TarError::Kind("a block device")),
        (156, b"6", TarError::Kind("a named pipe")),
        (156, b"x", TarError::Kind("an extended header (pax or GNU)")),
        (156, b"g", TarError::Kind("an extended header (pax or GNU)")),
        (156, b"L", TarError::Kind("an extended header (pax or GNU)")),
        (156, b"7", TarError::Kind("an entry of an unknown kind")),
        (156, b"\0", TarError::Kind("an entry of an unknown kind")),
        (156, b"5", TarError::Content),
        (156, b"2", TarError::Content),
        (157, b"target", TarError::Content),
        // GNU tar's own format, and the one before POSIX.
        (257, b"ustar  \0", TarError::NotUstar),
        (257, b"\0\0\0\0\0\0\0\0", TarError::NotUstar),
        (100, b"0004755\0", TarError::Mode(0o4755)),
        (100, b"0002755\0", TarError::Mode(0o2755)),
        (100, b"0001755\0", TarError::Mode(0o1755)),
        (100, b"0100644\0", TarError::Mode(0o100_644)),
        (100, b"1000644\0", TarError::Mode(0o1_000_644)),
        (100, b"000644 \0", TarError::Number("mode")),
        (100, b"00006440", TarError::Number("mode")),
        (108, b"-000001\0", TarError::Number("uid")),
        // GNU's numbers in base 256.
        (116, b"\x80\0\0\0\0\0\0\x01", TarError::Number("gid")),
        (124, b"\x80\0\0\0\0\0\0\0\0\0\0\x06", TarError::Number("size")),
        (124, b"77777777777\0", TarError::Cut),
        (136, b"00000000001\0", TarError::Form),
        (265, b"root", TarError::Form),
        (297, b"root", TarError::Form),
        (329, b"0000001\0", TarError::Form),
        (337, b"0000000\0", TarError::Form),
        (500, b"x", TarError::Form),
        // Behind the name's end.
        (90, b"x", TarError::Form),
    ] {
        let found = Bundle::of_tar(&with(name, at, bytes)).unwrap_err();
        assert_eq!(found, entry_error(name, error), "byte {at}: {}", bytes.escape_ascii());
    }
    // The name in the other field, and a checksum that does not fit.
    let mut tar = with(name, 0, b"etc/hostname\0\0\0\0\0");
    let begin = header_of(name);
    tar[begin + 345..begin + 349].copy_from_slice(b"root");
    mend(&mut tar[begin..begin + BLOCK]);
    assert_eq!(Bundle::of_tar(&tar), Err(entry_error(name, TarError::Form)));
    let mut tar = FROZEN_TAR.to_vec();
    tar[begin + 153] ^= 1;
    assert_eq!(Bundle::of_tar(&tar), Err(entry_error(name, TarError::Form)));
    let mut tar = FROZEN_TAR.to_vec();
    tar[begin + BLOCK + 6] = 1;
    assert_eq!(Bundle::of_tar(&tar), Err(entry_error(name, TarError::Padding)));
}

#[test]
fn names_that_are_refused_in_a_tar() {
    let old = "root/etc/hostname";
    for (new, error) in [
        ("/oot/etc/hostname", TarError::Place),
        ("boot/etc/hostname", TarError::Place),
        ("manifest\0\0\0\0\0\0\0\0\0", TarError::Place),
        ("root/../hostname/", TarError::Path(PathError::EmptyName)),
        ("root/etc/../x/yyy", TarError::Path(PathError::DotDot)),
        ("root//etc/hostnam", TarError::Path(PathError::Absolute)),
        ("root/etc/hostnam\n", TarError::Path(PathError::Control)),
        ("root/etc\0\0\0\0\0\0\0\0\0", TarError::Path(PathError::TopLevel)),
        ("root/\0\0\0\0\0\0\0\0\0\0\0\0", TarError::Path(PathError::Empty)),
        ("root/etc/hostnamf", TarError::Order),
    ] {
        let found = Bundle::of_tar(&with(old, 0, new.as_bytes())).map(|bundle| bundle.entries().len());
        let shown = new.split('\0').next().unwrap();
        match (new, found) {
            // It stays at its place.
            ("root/etc/hostnamf", found) => assert_eq!(found, Ok(7)),
            (_, found) => assert_eq!(found, Err(entry_error(shown, error)), "{new:?}"),
        }
    }
    let tar = with(old, 0, b"root/etc/\xffostname");
    assert!(matches!(Bundle::of_tar(&tar), Err(BundleError::Entry { error: TarError::Path(PathError::NotUtf8), .. })));
    // Out of order, twice, and the same in another case.
    let (one, two) = (file("etc/a", b"1"), file("etc/b", b"2"));
    let raw = |entries: &[Entry]| {
        let mut tar = Vec::new();
        tar::write("imprint-bundle 1\nnode node1\ncounter 1\n", entries, &mut |piece| tar.extend_from_slice(piece));
        Bundle::of_tar(&tar)
    };
    assert!(raw(&[one.clone(), two.clone()]).is_ok());
    assert_eq!(raw(&[two, one.clone()]), Err(entry_error("root/etc/a", TarError::Order)));
    assert_eq!(raw(&[one.clone(), one.clone()]), Err(entry_error("root/etc/a", TarError::Duplicate)));
    let other = file("etc/A", b"");
    let case = BundleError::Case { one: path("etc/A"), other: path("etc/a") };
    let found = raw(&[other, one.clone()]).unwrap_err();
    assert!(found == case || matches!(found, BundleError::Case { .. }), "{found:?}");
    let below = BundleError::Below { path: path("etc/a/b"), of: path("etc/a") };
    assert_eq!(raw(&[one, file("etc/a/b", b"")]), Err(below));
    let many: Vec<Entry> = (0..4097).map(|number| file(&format!("etc/{number:04}"), b"")).collect();
    assert_eq!(raw(&many), Err(entry_error("root/etc/4096", TarError::TooMany)));
}

#[test]
fn the_end_of_a_tar() {
    let whole = FROZEN_TAR;
    let error = |error| Err(entry_error("", error));
    assert_eq!(Bundle::of_tar(b""), error(TarError::Cut));
    assert_eq!(Bundle::of_tar(&whole[..whole.len() - 1]), error(TarError::Cut));
    assert_eq!(Bundle::of_tar(&whole[..whole.len() - BLOCK]), error(TarError::Cut));
    assert_eq!(Bundle::of_tar(&[whole, &[0; BLOCK]].concat()), error(TarError::Trailing(BLOCK)));
    assert_eq!(Bundle::of_tar(&[whole, b"x"].concat()), error(TarError::Trailing(1)));
    assert_eq!(Bundle::of_tar(&[0; 2 * BLOCK]), error(TarError::Place), "no manifest");
    let mut bad = whole.to_vec();
    *bad.last_mut().unwrap() = 1;
    assert_eq!(Bundle::of_tar(&bad), error(TarError::End));
    // The manifest alone, and a bundle that does not begin with it.
    assert_eq!(Bundle::of_tar(&whole[BLOCK * 2..]), Err(entry_error("root/etc-x/m\u{fc}ller", TarError::Place)));
    for (at, bytes) in [(100, b"0000600\0".as_slice()), (108, b"0000001\0")] {
        assert_eq!(Bundle::of_tar(&with("manifest", at, bytes)), Err(entry_error("manifest", TarError::Form)));
    }
    assert_eq!(Bundle::of_tar(&vec![0; MAX_TAR + 1]), Err(BundleError::Size(MAX_TAR + 1)));
    for length in 0..whole.len() {
        assert!(Bundle::of_tar(&whole[..length]).is_err(), "{length}");
    }
}

/// There is one form: a bundle whose bytes differ in one bit is another bundle, or none.
#[test]
fn every_bit_of_a_tar_counts() {
    let good = frozen();
    for at in 0..FROZEN_TAR.len() {
        let mut bad = FROZEN_TAR.to_vec();
        bad[at] ^= 1 << (at % 8);
        if let Ok(other) = Bundle::of_tar(&bad) {
            assert_ne!(other, good, "byte {at}");
            assert_eq!(*other.tar(), bad, "byte {at}");
        }
    }
}

#[test]
fn what_is_packed_is_unpacked() {
    let bundle = frozen();
    let packed = bundle.pack().unwrap();
    assert_eq!(packed[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]);
    assert_eq!(Bundle::unpack(&packed), Ok(bundle));
    // What cannot be compressed, and the most that there may be.
    let mut noise = vec![0; MAX_TAR - 5 * BLOCK];
    let mut state = 1u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 33) as u8;
    }
    for content in [noise, vec![0; MAX_TAR - 5 * BLOCK]] {
        let bundle = super::bundle(vec![file("etc/x", &content)]).unwrap();
        let packed = bundle.pack().unwrap();
        assert_eq!(Bundle::unpack(&packed), Ok(bundle));
    }
}

/// The largest bundle that cannot be compressed fits into a sealed one.
#[test]
fn the_limits_fit_each_other() {
    let deflated = MAX_TAR + MAX_TAR / 1000 + 1024;
    assert!(crate::age::encrypted_len(deflated, crate::age::MAX_STANZAS) + 1024 <= MAX_SEALED);
}

/// Attack: a small file that unpacks to more than the memory of the machine. Nothing beyond the limit is written.
#[test]
fn bombs() {
    let bomb = |length: usize, says: u32| {
        let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
        file.extend(miniz_oxide::deflate::compress_to_vec(&vec![0; length], 9));
        file.extend([0; 4]);
        file.extend(says.to_le_bytes());
        file
    };
    let large = 64_000_000;
    let honest = bomb(large, large as u32);
    assert!(honest.len() < 70_000);
    let error = |error| Err(BundleError::Gzip(error));
    let lies = [0, 1, 1000, MAX_TAR as u32];
    let before = most_memory(true);
    assert_eq!(Bundle::unpack(&honest), error(GzipError::TooLong(large as u32)));
    // It says less than it is.
    for says in lies {
        let lie = [&honest[..honest.len() - 4], &says.to_le_bytes()].concat();
        assert_eq!(Bundle::unpack(&lie), error(GzipError::Bomb(says)));
    }
    // The buffer, and as much again: the kernel counts inexactly. Unpacked, it would be four times the buffer.
    let more = most_memory(false).saturating_sub(before);
    assert!(more < 2 * MAX_TAR, "{more}");
    assert_eq!(Bundle::unpack(&bomb(MAX_TAR + 1, MAX_TAR as u32 + 1)), error(GzipError::TooLong(MAX_TAR as u32 + 1)));
    assert_eq!(Bundle::unpack(&bomb(10, MAX_TAR as u32)), error(GzipError::Short(MAX_TAR as u32)));
}

/// The most memory that this process has had, in bytes; counted from now on.
fn most_memory(from_now: bool) -> usize {
    if from_now {
        // proc_pid_clear_refs(5)
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn gzip_files_that_are_refused() {
    let good = frozen().pack().unwrap().to_vec();
    let error = |error| Err(BundleError::Gzip(error));
    let change = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        Bundle::unpack(&bad)
    };
    assert_eq!(Bundle::unpack(FROZEN_TAR), error(GzipError::NotGzip));
    assert_eq!(change(0, 0), error(GzipError::NotGzip));
    for (at, byte) in [(2, 0), (3, 8), (3, 1), (3, 4), (3, 16), (3, 2), (4, 1), (7, 1), (9, 3)] {
        assert_eq!(change(at, byte), error(GzipError::Head), "byte {at}");
    }
    assert_eq!(change(8, 0).unwrap(), frozen(), "how hard another compressor tried");
    let end = good.len();
    assert_eq!(change(end - 8, good[end - 8] ^ 1), error(GzipError::Checksum));
    let says = FROZEN_TAR.len() as u32;
    assert_eq!(change(end - 4, good[end - 4] + 1), error(GzipError::Short(says + 1)));
    // Another member, or anything else.
    let behind = [&good[..], &good].concat();
    assert_eq!(Bundle::unpack(&behind), error(GzipError::Trailing(good.len())));
    // A block of the kind that does not exist.
    assert_eq!(change(10, 7), error(GzipError::Damaged));
    for length in 0..end {
        assert!(matches!(Bundle::unpack(&good[..length]), Err(BundleError::Gzip(_))), "{length}");
    }
    assert_eq!(Bundle::unpack(&good[..9]), error(GzipError::Cut));
    // Some bits change nothing: another compressor would have used others. The signature covers them.
    for (at, byte) in good.iter().enumerate().skip(10) {
        let found = change(at, byte ^ (1 << (at % 8)));
        assert!(found.is_err() || found == Ok(frozen()), "byte {at}");
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let names = proptest::collection::vec("[a-zA-Z0-9._\u{fc}-]{1,20}", 2..6);
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2000).prop_map(|bytes| Content::File(Secret::new(bytes))),
        "[a-z/.]{1,100}".prop_map(Content::Link),
        Just(Content::Directory),
    ];
    (names, content, 0u16..=0o777, 0u32..=0o777_7777, 0u32..=0o777_7777).prop_filter_map(
        "a path",
        |(names, content, mode, uid, gid)| {
            let path = EntryPath::try_from(names.join("/").as_str()).ok()?;
            let mode = if matches!(content, Content::Link(_)) { 0o777 } else { mode };
            Some(Entry { path, mode, uid, gid, content })
        },
    )
}

proptest! {
    #[test]
    fn bundles_are_read_as_they_are_written(entries in proptest::collection::vec(any_entry(), 0..12), counter in 1..=MAX_COUNTER) {
        if let Ok(bundle) = Bundle::new(name("node1"), counter, vec![unit(Verb::Enable, "x.service")], entries) {
            prop_assert_eq!(Bundle::of_tar(&bundle.tar()).unwrap(), bundle.clone());
            prop_assert_eq!(Bundle::unpack(&bundle.pack().unwrap()).unwrap(), bundle);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(changes in proptest::collection::vec((0..FROZEN_TAR.len(), any::<u8>()), 0..8), mended: bool) {
        let mut tar = FROZEN_TAR.to_vec();
        for (at, byte) in changes {
            tar[at] = byte;
            let header = at / BLOCK * BLOCK;
            if mended && tar[header + 257..].starts_with(b"ustar") {
                mend(&mut tar[header..header + BLOCK]);
            }
        }
        if let Ok(bundle) = Bundle::of_tar(&tar) {
            prop_assert_eq!(&*bundle.tar(), &tar);
        }
    }
}
