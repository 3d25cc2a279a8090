//! Bundles and age files, by other people's programs: Python with tarfile, cbor2 and OpenSSL, the crate `age`, the program `age`,
//! and `tar`.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::str::FromStr;

use imprint::age::{self, Identity, MAX_HEADER, MAX_STANZAS};
use imprint::bundle::answer::MAX_ANSWER;
use imprint::bundle::statement::{AAD, Approver, Sealed, Statement};
use imprint::bundle::{
    Bundle, Content, Entry, EntryPath, Expect, MAX_COUNTER, MAX_ENTRIES, MAX_SEALED, MAX_TAR, MAX_UNITS, UnitAction,
    Verb, open,
};
use imprint::digest::sha256;
use imprint::hex;
use imprint::payload::{NodeName, UnitName};
use imprint::secret::Secret;
use imprint::time::Timestamp;
use imprint_tests::signer::Key;

const TAR: &[u8] = include_bytes!("../data/bundle.tar");
const SEALED: &[u8] = include_bytes!("../data/bundle.sealed");
const IDENTITY: &str = include_str!("../data/bundle-identity");

fn identity() -> Identity {
    Identity::parse(IDENTITY).unwrap()
}

fn script(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/bundle_peer.py");
    Command::new(super::super::python()).arg(script).args(arguments).output().unwrap()
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A bundle with everything that a bundle can have.
fn full(counter: u64) -> Bundle {
    let entry = |path: &str, mode, content| {
        let path = EntryPath::try_from(path).unwrap();
        Entry { path, mode, uid: 0, gid: 0, content }
    };
    let file = |bytes: &[u8]| Content::File(Secret::new(bytes.to_vec()));
    let long = format!("srv/{}/{}", "\u{fc}".repeat(60), "b".repeat(90));
    let entries = vec![
        entry("etc/hostname", 0o644, file(b"node1\n")),
        entry("etc/ssh", 0o755, Content::Directory),
        Entry { uid: 1000, gid: 2_097_151, ..entry("etc/ssh/key", 0o600, file(&[0xff; 1024])) },
        entry("etc/localtime", 0o777, Content::Link("../usr/share/zoneinfo/Europe/Berlin".to_owned())),
        entry(&long, 0o400, file(b"")),
        entry("var/tmp", 0o1777, Content::Directory),
    ];
    let unit = |verb, name| UnitAction { verb, unit: UnitName::try_from(name).unwrap() };
    let units = vec![unit(Verb::Restart, "systemd-networkd.service"), unit(Verb::Enable, "getty@tty2.service")];
    Bundle::new(NodeName::try_from("node1").unwrap(), counter, units, entries).unwrap()
}

fn sealed(bundle: &Bundle, counter: u64, key: &Key) -> Vec<u8> {
    let age = bundle.encrypt(&[Identity::generate().unwrap().recipient(), identity().recipient()]).unwrap();
    let approver = Approver::try_from("M. M\u{fc}ller").unwrap();
    let node = bundle.node().clone();
    let statement = Statement::of(&age, node, counter, Timestamp::from_secs(1_795_400_000), approver);
    Sealed::join(&key.sign_as(&key.signer(), AAD, &statement.encode()), &age)
}

/// tarfile, zlib, cbor2 and OpenSSL make the frozen bundle byte for byte.
#[test]
fn the_frozen_bundle_by_an_independent_writer() {
    let tag = printed(&script(&["frozen"]));
    let bundle = Bundle::of_tar(TAR).unwrap();
    assert_eq!(tag, format!("tag {}\n", hex::encode(&bundle.tag(&identity()).unwrap())));
    let signers = [Key::p256().signer()];
    let expect = Expect { node: &NodeName::try_from("node1").unwrap(), least: 9, signers: &signers };
    assert_eq!(open(SEALED, &expect, &identity()).unwrap().1, bundle);
}

/// An independent reader verifies and opens what is sealed here, and finds everything in it.
#[test]
fn a_sealed_bundle_by_an_independent_reader() {
    let work = tempfile::tempdir().unwrap();
    let [file, key] = ["bundle", "key"].map(|name| work.path().join(name).to_str().unwrap().to_owned());
    std::fs::write(&key, IDENTITY).unwrap();
    let bundle = full(7);
    for (signer, other) in [(Key::p256(), Key::ed25519()), (Key::ed25519(), Key::p256())] {
        let good = sealed(&bundle, 8, &signer);
        std::fs::write(&file, &good).unwrap();
        let line = signer.signer().to_string();
        let found: serde_json::Value = serde_json::from_str(&printed(&script(&["read", &file, &key, &line]))).unwrap();
        let entries: Vec<serde_json::Value> = bundle
            .entries()
            .iter()
            .map(|Entry { path, mode, uid, gid, content }| {
                let content = match content {
                    Content::File(bytes) => serde_json::Value::from(hex::encode(bytes.expose())),
                    Content::Link(target) => target.as_str().into(),
                    Content::Directory => serde_json::Value::Null,
                };
                serde_json::json!([path.as_str(), format!("{mode:04o}"), uid, gid, content])
            })
            .collect();
        let want = serde_json::json!({
            "node": "node1",
            "counter": 8,
            "made": 7,
            "signed": 1_795_400_000_000_u64,
            "approver": "M. M\u{fc}ller",
            "units": ["enable getty@tty2.service", "restart systemd-networkd.service"],
            "entries": entries,
            "tag": hex::encode(&bundle.tag(&identity()).unwrap()),
            "tar": hex::encode(&sha256(&bundle.tar())),
        });
        assert_eq!(found, want);
        // Premise of all of this: it does look at the signature.
        assert!(!script(&["read", &file, &key, &other.signer().to_string()]).status.success());
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&file, &bad).unwrap();
        assert!(!script(&["read", &file, &key, &line]).status.success());
    }
}

/// What people have at hand lists and unpacks the tar.
#[test]
fn gnu_tar_reads_it() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("bundle.tar.gz");
    let bundle = full(7);
    std::fs::write(&file, bundle.pack().unwrap()).unwrap();
    let out = work.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let tar = Command::new("tar").args(["--no-same-owner", "-xzf"]).arg(&file).arg("-C").arg(&out).output().unwrap();
    printed(&tar);
    for entry in bundle.entries() {
        let path = out.join("root").join(entry.path.as_str());
        match &entry.content {
            Content::File(bytes) => assert_eq!(std::fs::read(path).unwrap(), bytes.expose()),
            Content::Link(target) => assert_eq!(std::fs::read_link(path).unwrap(), Path::new(target)),
            Content::Directory => assert!(path.is_dir()),
        }
    }
    assert!(
        std::fs::read_to_string(out.join("manifest")).unwrap().starts_with("imprint-bundle 1\nnode node1\ncounter 7\n")
    );
}

/// Lengths about the limits of chunks.
const LENGTHS: [usize; 9] = [0, 1, 100, 65_535, 65_536, 65_537, 131_072, 131_073, 1_000_000];

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// The crate `age` (rage) opens what is encrypted here, and the other way round; it adds stanzas of no meaning.
#[test]
fn the_crate_age_both_ways() {
    let own = identity();
    let theirs = ::age::x25519::Identity::from_str(&own.to_text()).unwrap();
    let others = ::age::x25519::Identity::generate();
    assert_eq!(theirs.to_public().to_string(), own.recipient().to_string());
    for length in LENGTHS {
        let text = text(length);
        let file = age::encrypt(&text, &[Identity::generate().unwrap().recipient(), own.recipient()]).unwrap();
        assert_eq!(::age::decrypt(&theirs, &file).unwrap(), text, "{length}");
        let recipients: [&dyn ::age::Recipient; 2] = [&others.to_public(), &theirs.to_public()];
        let encryptor = ::age::Encryptor::with_recipients(recipients.into_iter()).unwrap();
        let mut file = Vec::new();
        let mut writer = encryptor.wrap_output(&mut file).unwrap();
        writer.write_all(&text).unwrap();
        writer.finish().unwrap();
        assert_eq!(age::check(&file), Ok(()));
        assert_eq!(*age::decrypt(&file, &own).unwrap(), text, "{length}");
    }
}

/// Numbers that are the same in each run (xorshift64, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit
    }
}

/// What one of both refuses, the other refuses, too: files for two recipients, of one chunk and of two, with one change each.
#[test]
fn the_crate_age_refuses_the_same() {
    let own = identity();
    let theirs = ::age::x25519::Identity::from_str(&own.to_text()).unwrap();
    let recipients = [Identity::generate().unwrap().recipient(), own.recipient()];
    let mut numbers = Numbers(0x696d_7072_696e_7401);
    let (mut refused, mut differ) = (0, Vec::new());
    for (length, turns) in [(300, 3000), (65_536 + 300, 100)] {
        let good = age::encrypt(&text(length), &recipients).unwrap();
        let header = good.windows(5).position(|part| part == b"\n--- ").unwrap() + 49;
        for turn in 0..turns {
            let mut bad = good.clone();
            let at = numbers.below(if turn % 4 == 3 { good.len() } else { header + 20 });
            match turn % 5 {
                0 => bad[at] ^= 1 << numbers.below(8),
                1 => drop(bad.remove(at)),
                2 => bad.insert(at, b"\n -AX=\r\0"[numbers.below(8)]),
                3 => bad.truncate(at),
                _ => bad.swap(at, numbers.below(header)),
            }
            match (age::decrypt(&bad, &own), ::age::decrypt(&theirs, &bad)) {
                (Ok(one), Ok(other)) => assert_eq!(*one, other),
                (Err(_), Err(_)) => refused += 1,
                (one, other) => differ.push(format!("{:?} and {:?}", one.err(), other.err())),
            }
        }
    }
    assert!(differ.is_empty(), "{differ:?}");
    assert!(refused > 3000, "{refused}");
}

fn piped(program: &str, arguments: &[&str], input: Vec<u8>) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; run scripts/install-needs test"));
    let mut to = child.stdin.take().unwrap();
    // It may refuse the input before it has read all of it.
    let writer = std::thread::spawn(move || drop(to.write_all(&input)));
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    let rest = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Output { stdout: output, ..rest }
}

/// The program `age` of the distribution opens a bundle, and what it encrypts is opened here. It knows no gzip: `tar` does.
#[test]
fn the_program_age_both_ways() {
    let work = tempfile::tempdir().unwrap();
    let key: PathBuf = work.path().join("key");
    std::fs::write(&key, IDENTITY).unwrap();
    let (own, key) = (identity(), key.to_str().unwrap());
    for length in LENGTHS {
        let text = text(length);
        let file = age::encrypt(&text, &[own.recipient()]).unwrap();
        let opened = piped("age", &["-d", "-i", key], file);
        assert!(opened.status.success() && opened.stdout == text, "{}", String::from_utf8_lossy(&opened.stderr));
        let file = piped("age", &["-r", &own.recipient().to_string()], text.clone()).stdout;
        assert_eq!(*age::decrypt(&file, &own).unwrap(), text, "{length}");
    }
    let bundle = full(7);
    let packed = piped("age", &["-d", "-i", key], bundle.encrypt(&[own.recipient()]).unwrap()).stdout;
    assert_eq!(Bundle::unpack(&packed).unwrap(), bundle);
    let armoured = piped("age", &["-a", "-r", &own.recipient().to_string()], text(10)).stdout;
    assert_eq!(age::decrypt(&armoured, &own), Err(age::AgeError::Armour));
    // Keys of age-keygen, with its remarks.
    let made = Command::new("age-keygen").output().unwrap();
    let (text, said) = (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    let recipient = Identity::parse(&text).unwrap().recipient().to_string();
    assert!(said.contains(&recipient) || text.contains(&recipient), "{said}{text}");
}

/// The limits on the page are those of the program.
#[test]
fn the_page_has_the_programs_limits() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bundle.md")).unwrap();
    for row in [
        format!("| sealed bundle | {MAX_SEALED} bytes (17 MiB) |\n"),
        format!("| tar | {MAX_TAR} bytes (16 MiB) |\n"),
        format!("| entries below `root/` | {MAX_ENTRIES} |\n"),
        format!("| units in the manifest | {MAX_UNITS} |\n"),
        format!("| counter | {MAX_COUNTER} (2^53) |\n"),
        format!("| age header | {MAX_HEADER} bytes, {MAX_STANZAS} stanzas |\n"),
        format!("| JSON of [Standing](#standing) and [Report](#report) | {MAX_ANSWER} bytes |\n"),
    ] {
        assert!(page.contains(&row), "{row}");
    }
    let external = String::from_utf8(AAD.to_vec()).unwrap();
    assert!(page.contains(&format!("`external_aad` is the {} bytes \"{external}\"", AAD.len())));
    // The example of an entity tag is that of the frozen bundle.
    assert!(page.contains(&Sealed::split(SEALED).unwrap().statement().etag()));
}
