use super::*;
use crate::payload::UnitName;

mod packed;
mod sealed;

// Made by tests/python/bundle_peer.py with tarfile, zlib, cbor2 and OpenSSL.
const FROZEN_TAR: &[u8] = include_bytes!("../../tests/data/bundle.tar");
const FROZEN: &[u8] = include_bytes!("../../tests/data/bundle.sealed");
const IDENTITY: &str = include_str!("../../tests/data/bundle-identity");

fn identity() -> Identity {
    Identity::parse(IDENTITY).unwrap()
}

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

fn path(text: &str) -> EntryPath {
    EntryPath::try_from(text).unwrap()
}

fn file(at: &str, bytes: &[u8]) -> Entry {
    Entry { path: path(at), mode: 0o644, uid: 0, gid: 0, content: Content::File(Secret::new(bytes.to_vec())) }
}

fn link(at: &str, target: &str) -> Entry {
    Entry { mode: 0o777, content: Content::Link(target.to_owned()), ..file(at, b"") }
}

fn directory(at: &str) -> Entry {
    Entry { mode: 0o755, content: Content::Directory, ..file(at, b"") }
}

fn unit(verb: Verb, unit: &str) -> UnitAction {
    UnitAction { verb, unit: UnitName::try_from(unit).unwrap() }
}

fn bundle(entries: Vec<Entry>) -> Result<Bundle, BundleError> {
    Bundle::new(name("node1"), 1, Vec::new(), entries)
}

fn entry_error(name: &str, error: TarError) -> BundleError {
    BundleError::Entry { name: Printable::of(name), error }
}

/// The bundle of the frozen bytes, as bundle_peer.py has it.
fn frozen() -> Bundle {
    let units = vec![
        unit(Verb::Reload, "nftables.service"),
        unit(Verb::Restart, "systemd-networkd.service"),
        unit(Verb::Enable, "chrony.service"),
    ];
    let long = format!("srv/{}/{}", "a".repeat(60), "b".repeat(70));
    let numbers: Vec<u8> = (0..=255).collect();
    let entries = vec![
        file("etc/hostname", b"node1\n"),
        directory("etc/ssh"),
        Entry { mode: 0o600, ..file("etc/ssh/sshd_config.d/10-imprint.conf", b"PasswordAuthentication no\n") },
        link("etc/systemd/system/multi-user.target.wants/x.service", "/usr/lib/systemd/system/x.service"),
        Entry { mode: 0o640, uid: 1000, gid: 2_097_151, ..file("etc-x/m\u{fc}ller", b"") },
        Entry { mode: 0o444, uid: 1, gid: 2, ..file(&long, &numbers.repeat(3)) },
        Entry { mode: 0o1777, ..directory("var/tmp") },
    ];
    Bundle::new(name("node1"), 7, units, entries).unwrap()
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_bytes_of_a_tar() {
    let bundle = frozen();
    assert_eq!(*bundle.tar(), FROZEN_TAR);
    assert_eq!(Bundle::of_tar(FROZEN_TAR), Ok(bundle.clone()));
    // The digest that sha256sum prints.
    let digest = "eeafc4c15c53b813a2c9c718be5b8c14cfba2f2d8d4ccca8ae8d8ae21f5d7c27";
    assert_eq!(crate::hex::encode(&crate::digest::sha256(FROZEN_TAR)), digest);
    let manifest = "imprint-bundle 1\nnode node1\ncounter 7\nenable chrony.service\nrestart systemd-networkd.service\n\
                    reload nftables.service\n";
    assert_eq!(bundle.manifest(7), manifest);
    let tag = "e5394f81ae45a4de694de9df48eb3d0f6d4e130d8a2eda0396283425f516db00";
    assert_eq!(crate::hex::encode(&bundle.tag(&identity()).unwrap()), tag);
}

/// The same upload is known by its tag, whatever its counter is; other content, another node or another key is another upload.
#[test]
fn a_tag_is_that_of_content_and_key() {
    let (one, key) = (frozen(), identity());
    let tag = one.tag(&key).unwrap();
    let with = |node: &str, counter, units: &[UnitAction], entries: &[Entry]| {
        Bundle::new(name(node), counter, units.to_vec(), entries.to_vec()).unwrap().tag(&key).unwrap()
    };
    assert_eq!(with("node1", 8, &one.units, &one.entries), tag);
    assert_eq!(with("node1", MAX_COUNTER, &one.units, &one.entries), tag);
    assert_ne!(with("node2", 7, &one.units, &one.entries), tag);
    assert_ne!(with("node1", 7, &one.units[1..], &one.entries), tag);
    assert_ne!(with("node1", 7, &one.units, &one.entries[1..]), tag);
    assert_ne!(one.tag(&Identity::from_bytes(&[7; 32])).unwrap(), tag);
}

/// Attack: a name that leaves the root, or that two programs would take for two names.
#[test]
fn paths_that_are_refused() {
    let long = |prefix: usize, name: usize| format!("{}/{}", "p".repeat(prefix), "n".repeat(name));
    for (text, error) in [
        ("", PathError::Empty),
        ("/", PathError::Absolute),
        ("/etc/passwd", PathError::Absolute),
        ("//etc/passwd", PathError::Absolute),
        ("../etc/passwd", PathError::DotDot),
        ("etc/../../passwd", PathError::DotDot),
        ("etc/..", PathError::DotDot),
        ("./etc/x", PathError::Dot),
        ("etc/./x", PathError::Dot),
        ("etc/.", PathError::Dot),
        ("etc//x", PathError::EmptyName),
        ("etc/x/", PathError::EmptyName),
        ("etc/a\0b", PathError::Control),
        ("etc/a\nb", PathError::Control),
        ("etc/a\x1bb", PathError::Control),
        ("etc/a\x7fb", PathError::Control),
        ("etc/a\u{9b}b", PathError::Control),
        ("hostname", PathError::TopLevel),
        ("etc", PathError::TopLevel),
        // `root/` is a part of the prefix.
        (&long(151, 100), PathError::TooLong),
        (&long(10, 101), PathError::TooLong),
        (&long(1, 255), PathError::TooLong),
    ] {
        assert_eq!(EntryPath::try_from(text), Err(error), "{text:?}");
    }
    assert_eq!(EntryPath::from_bytes(b"etc/\xff"), Err(PathError::NotUtf8));
    assert_eq!(EntryPath::from_bytes(b"etc/\xc0\xaf"), Err(PathError::NotUtf8), "a slash in two bytes");
    for text in [&long(150, 100), "etc/...", "etc/..x", "etc/ x", "etc/M\u{fc}ller", "etc/-rf", "a/b"] {
        assert_eq!(EntryPath::try_from(text).unwrap().as_str(), text);
        let entries = vec![file(text, b"x")];
        assert_eq!(Bundle::of_tar(&bundle(entries.clone()).unwrap().tar()).unwrap().entries(), entries);
    }
}

/// Attack: two entries of which the second changes what the first is, on this file system or on one that ignores case.
#[test]
fn entries_that_get_in_each_others_way() {
    let case = |one: &str, other: &str| BundleError::Case { one: path(one), other: path(other) };
    let below = |at: &str, of: &str| BundleError::Below { path: path(at), of: path(of) };
    let f = |at: &str| file(at, b"x");
    for (entries, error) in [
        (vec![f("etc/x"), f("etc/x")], entry_error("etc/x", TarError::Duplicate)),
        (vec![f("etc/x"), link("etc/x", "y")], entry_error("etc/x", TarError::Duplicate)),
        (vec![directory("etc/x"), directory("etc/x")], entry_error("etc/x", TarError::Duplicate)),
        (vec![f("etc/x"), f("etc/X")], case("etc/X", "etc/x")),
        (vec![f("etc/x"), f("ETC/y")], case("etc/x", "ETC/y")),
        (vec![f("etc/M\u{fc}ller"), f("etc/M\u{dc}ller")], case("etc/M\u{dc}ller", "etc/M\u{fc}ller")),
        (vec![directory("etc/A"), f("etc/a/x")], case("etc/A", "etc/a/x")),
        (vec![f("etc/A/x"), f("etc/a/y")], case("etc/A/x", "etc/a/y")),
        (vec![f("etc/A"), f("etc/a/y")], case("etc/A", "etc/a/y")),
        (vec![f("etc/x"), f("etc/x/y")], below("etc/x/y", "etc/x")),
        (vec![f("etc/x"), f("etc/x.y"), f("etc/x/y")], below("etc/x/y", "etc/x")),
        (vec![link("etc/x", "/var"), f("etc/x/y")], below("etc/x/y", "etc/x")),
        (vec![link("etc/x", "/var"), f("etc/x/a/b/c"), f("etc/x/y")], below("etc/x/a/b/c", "etc/x")),
    ] {
        for entries in [entries.clone(), entries.into_iter().rev().collect()] {
            let found = bundle(entries).unwrap_err();
            // Of two that differ in case, either may be named first.
            let swapped = match &error {
                BundleError::Case { one, other } => BundleError::Case { one: other.clone(), other: one.clone() },
                other => other.clone(),
            };
            assert!(found == error || found == swapped, "{found:?}, want {error:?}");
        }
    }
    let fine = vec![directory("etc/x"), f("etc/x/y"), f("etc/x-"), f("etc/x.y"), f("etc/xy"), directory("etc/x/z")];
    assert!(bundle(fine).is_ok());
}

#[test]
fn modes_owners_and_targets() {
    let changed = |change: fn(&mut Entry), mut entry: Entry| {
        change(&mut entry);
        bundle(vec![entry])
    };
    let (f, d, l) = (file("etc/x", b"x"), directory("etc/x"), link("etc/x", "y"));
    for (result, error) in [
        (changed(|e| e.mode = 0o4755, f.clone()), TarError::Mode(0o4755)),
        (changed(|e| e.mode = 0o2755, f.clone()), TarError::Mode(0o2755)),
        (changed(|e| e.mode = 0o1755, f.clone()), TarError::Mode(0o1755)),
        (changed(|e| e.mode = 0o10_644, f.clone()), TarError::Mode(0o10_644)),
        (changed(|e| e.mode = 0o4755, d.clone()), TarError::Mode(0o4755)),
        (changed(|e| e.mode = 0o2755, d.clone()), TarError::Mode(0o2755)),
        (changed(|e| e.mode = 0o755, l.clone()), TarError::Mode(0o755)),
        (changed(|e| e.uid = 0o1000_0000, f.clone()), TarError::Owner(0o1000_0000)),
        (changed(|e| e.gid = u32::MAX, d.clone()), TarError::Owner(u32::MAX)),
        (changed(|e| e.content = Content::Link(String::new()), l.clone()), TarError::Target),
        (changed(|e| e.content = Content::Link("t".repeat(101)), l.clone()), TarError::Target),
        (changed(|e| e.content = Content::Link("a\0b".into()), l.clone()), TarError::Target),
        (changed(|e| e.content = Content::Link("a\nb".into()), l), TarError::Target),
    ] {
        assert_eq!(result, Err(entry_error("etc/x", error)));
    }
    // What a link points at is data.
    for target in ["/etc/shadow", "../../../x", ".", &"t".repeat(100)] {
        assert!(bundle(vec![link("etc/x", target)]).is_ok());
    }
}

#[test]
fn a_bundle_has_its_limits() {
    let files = |count: usize| (0..count).map(|number| file(&format!("etc/{number}"), b"")).collect::<Vec<Entry>>();
    assert!(bundle(files(4096)).is_ok());
    assert_eq!(bundle(files(4097)), Err(entry_error("", TarError::TooMany)));
    // A head and a manifest, a head, and the end: 5 blocks.
    let most = MAX_TAR - 5 * 512;
    assert_eq!(bundle(vec![file("etc/x", &vec![0; most])]).unwrap().tar().len(), MAX_TAR);
    assert_eq!(bundle(vec![file("etc/x", &vec![0; most + 1])]), Err(BundleError::Size(MAX_TAR + 512)));
    let units = |count: usize| {
        let units = (0..count).map(|number| unit(Verb::Enable, &format!("u{number}.service"))).collect();
        Bundle::new(name("node1"), 1, units, Vec::new())
    };
    assert!(units(256).is_ok());
    assert_eq!(units(257), Err(BundleError::Manifest(ManifestError::TooMany)));
    for counter in [0, MAX_COUNTER + 1, u64::MAX] {
        let shown = Printable::of(&counter.to_string());
        let result = Bundle::new(name("node1"), counter, Vec::new(), Vec::new());
        assert_eq!(result, Err(BundleError::Manifest(ManifestError::Counter(shown))));
    }
}

#[test]
fn unit_names() {
    for good in ["chrony.service", "getty@tty1.service", "dev-disk-by\\x2dlabel-x.device", "a:b.timer", "x.mount"] {
        assert!(UnitName::try_from(good).is_ok(), "{good}");
    }
    let long = format!("{}.service", "x".repeat(248));
    for bad in [
        "",
        "chrony",
        ".service",
        "-x.service",
        "x.service ",
        "x y.service",
        "x/y.service",
        "x.servicE",
        "x.conf",
        "x.\n.service",
        "\u{fc}.service",
        &long,
    ] {
        assert!(UnitName::try_from(bad).is_err(), "{bad:?}");
    }
}

/// Each rule of the manifest, by name.
#[test]
fn what_a_manifest_may_not_be() {
    let shown = |text: &str| Printable::of(text);
    let begin = "imprint-bundle 1\nnode node1\ncounter 1\n";
    for (text, error) in [
        (String::new(), ManifestError::Text),
        ("imprint-bundle 1\nnode node1\ncounter 1".into(), ManifestError::Text),
        ("\n".into(), ManifestError::Version(shown(""))),
        (begin.replace("1\nnode", "2\nnode"), ManifestError::Version(shown("imprint-bundle 2"))),
        (begin.replace('\n', "\r\n"), ManifestError::Version(shown("imprint-bundle 1\\r"))),
        ("imprint-bundle 1\n".into(), ManifestError::Missing("node NAME")),
        ("imprint-bundle 1\ncounter 1\nnode node1\n".into(), ManifestError::Missing("node NAME")),
        ("imprint-bundle 1\nnode node1\n".into(), ManifestError::Missing("counter N")),
        ("imprint-bundle 1\nnode node1\n\ncounter 1\n".into(), ManifestError::Missing("counter N")),
        (begin.replace("node1", "-x"), ManifestError::Name(NodeName::try_from("-x").unwrap_err())),
        (begin.replace("er 1", "er 0"), ManifestError::Counter(shown("0"))),
        (begin.replace("er 1", "er 01"), ManifestError::Counter(shown("01"))),
        (begin.replace("er 1", "er +1"), ManifestError::Counter(shown("+1"))),
        (begin.replace("er 1", "er 9007199254740993"), ManifestError::Counter(shown("9007199254740993"))),
        (begin.replace("er 1", "er "), ManifestError::Counter(shown(""))),
        (format!("{begin}\n"), ManifestError::Line(shown(""))),
        (format!("{begin}start x.service\n"), ManifestError::Line(shown("start x.service"))),
        (format!("{begin}enablex.service\n"), ManifestError::Line(shown("enablex.service"))),
        (format!("{begin}enable x\n"), ManifestError::Name(UnitName::try_from("x").unwrap_err())),
        (format!("{begin}enable  x.service\n"), ManifestError::Name(UnitName::try_from(" x.service").unwrap_err())),
        (format!("{begin}restart x.service\nenable x.service\n"), ManifestError::Order(shown("enable x.service"))),
        (format!("{begin}enable b.service\nenable a.service\n"), ManifestError::Order(shown("enable a.service"))),
        (format!("{begin}enable a.service\nenable a.service\n"), ManifestError::Order(shown("enable a.service"))),
    ] {
        let mut tar = Vec::new();
        tar::write(&text, &[], &mut |piece| tar.extend_from_slice(piece));
        let found = Bundle::of_tar(&tar);
        assert_eq!(found, Err(BundleError::Manifest(error)), "{text:?}");
    }
    let mut tar = Vec::new();
    tar::write(begin, &[], &mut |piece| tar.extend_from_slice(piece));
    assert_eq!(Bundle::of_tar(&tar), bundle(Vec::new()));
    let at = 512 + begin.len() - 2;
    tar[at] = 0xff;
    assert_eq!(Bundle::of_tar(&tar), Err(BundleError::Manifest(ManifestError::Text)));
}

/// If this test fails, do not change it: nodes and servers of other versions read these.
#[test]
fn frozen_json_of_answers() {
    use answer::{JsonError, MAX_ANSWER, Outcome, Report, Stand, Standing};
    let standing = Standing {
        tag: Some("ab".into()),
        code: Some("7K3M-Q0ZT-N4V8-XW1C".into()),
        counter: Some(3),
        who: Some("ops@example.org".into()),
        ..Standing::new(Stand::Pending, 4)
    };
    let text = r#"{"version":1,"bundle":"pending","next":4,"tag":"ab","code":"7K3M-Q0ZT-N4V8-XW1C","counter":3,"who":"ops@example.org"}"#;
    assert_eq!(serde_json::to_string(&standing).unwrap(), text);
    assert_eq!(Standing::read(text.as_bytes()), Ok(standing.clone()));
    let text = text.replace('}', r#","current":2}"#);
    let standing = Standing { current: Some(2), ..standing };
    assert_eq!(serde_json::to_string(&standing).unwrap(), text);
    assert_eq!(Standing::read(text.as_bytes()), Ok(standing));
    for (stand, word) in [
        (Stand::None, "none"),
        (Stand::Pending, "pending"),
        (Stand::Approved, "approved"),
        (Stand::Denied, "denied"),
        (Stand::Renew, "renew"),
        (Stand::Removed, "removed"),
    ] {
        let text = format!(r#"{{"version":1,"bundle":"{word}","next":1}}"#);
        assert_eq!(serde_json::to_string(&Standing::new(stand, 1)).unwrap(), text);
        let newer = text.replace('}', r#","newer":[1]}"#);
        assert_eq!(Standing::read(newer.as_bytes()), Ok(Standing::new(stand, 1)));
    }
    let report = Report { detail: Some("x.service failed".into()), ..Report::new(Outcome::Failed, 9, &[0xab; 32]) };
    let text = format!(
        r#"{{"version":1,"state":"failed","counter":9,"sha256":"{}","detail":"x.service failed"}}"#,
        "ab".repeat(32)
    );
    assert_eq!(serde_json::to_string(&report).unwrap(), text);
    assert_eq!(Report::read(text.as_bytes()), Ok(report));
    let report = Report::new(Outcome::Available, 9, &[0xab; 32]);
    let text = format!(r#"{{"version":1,"state":"available","counter":9,"sha256":"{}"}}"#, "ab".repeat(32));
    assert_eq!(serde_json::to_string(&report).unwrap(), text);
    assert_eq!(Report::read(text.replace("\"version\":1", "\"version\":2").as_bytes()), Err(JsonError::Version(2)));
    assert_eq!(Report::read(&vec![b' '; MAX_ANSWER + 1]), Err(JsonError::TooLong(MAX_ANSWER + 1)));
    for bad in
        ["", "{}", "[]", r#"{"version":1,"bundle":"lost","next":1}"#, r#"{"version":1,"bundle":"none","next":-1}"#]
    {
        assert!(matches!(Standing::read(bad.as_bytes()), Err(JsonError::Json(_))), "{bad}");
    }
}
