//! Tests of admission keys at a door: nodes that prove one, from their image or from a stick, and whoever uses the proof of
//! another node.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use imprint::dialogue::{Dialogue, Told};
use imprint::key_code::KeyCode;
use imprint::line::admission::{AdmissionKey, KeyFileError, MOST_KEYS};
use imprint::line::frame::{Frame, Packet};
use imprint::line::{End, Session};
use imprint::options::Options;
use imprint::pem;
use imprint::pipe::Target;
use imprint::run;
use imprint::site::SitePin;
use imprint::source::admission_key::{Media, PATH};
use imprint::source::{self, Found, Origin, SourceError, line};
use imprint::time::{Deadline, Timestamp};
use imprint_host::serve::Server;
use imprint_host::state::MadeKey;
use imprint_tests::caller::Caller;
use imprint_tests::patience::PATIENCE;
use imprint_tests::programs;

use super::door::{Site, talk};

const RECORD: &str = "bind = { serial = 'S1' }\nadmit = 'key'\nadmission_key = 'rack'";

/// A site with a node that needs the key `rack`, and that key.
fn site(in_image: bool) -> (Site, MadeKey) {
    site_of(RECORD, in_image)
}

fn site_of(record: &str, in_image: bool) -> (Site, MadeKey) {
    let site = Site::new(&[("node1", record)]);
    let made = MadeKey::new().unwrap();
    site.state().list_key("rack", made.public, in_image, Timestamp::system()).unwrap();
    (site, made)
}

fn door(site: &Site) -> Server {
    site.serve(&[&format!("unix:{}", site.path("door").display())])
}

/// The root of a node that says serial number S1.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["sys/class/dmi/id", "sys/block", "dev", "imprint"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    fs::write(root.path().join("sys/class/dmi/id/product_serial"), "S1\n").unwrap();
    root
}

fn look(options: &Options, root: &Path, dialogue: &Dialogue) -> Media {
    Media::look(options, root, &programs::agent(), Duration::from_millis(200), dialogue.prover()).unwrap().unwrap()
}

/// A drive of this name, on a USB bus: payloads would not be taken from one in an image without a site pin.
fn drive(root: &Path, name: &str, image: &[u8]) {
    fs::write(root.join("dev").join(name), image).unwrap();
    listed(root, name);
}

fn listed(root: &Path, name: &str) {
    let device = format!("../devices/pci0000:00/usb1/1-1/block/{name}");
    symlink(device, root.join("sys/block").join(name)).unwrap();
}

fn stick(key: &MadeKey) -> Vec<u8> {
    imprint_host::vfat::stick(key.pem.as_bytes()).unwrap().to_vec()
}

fn later() -> Deadline {
    Deadline::after(PATIENCE)
}

/// The agent's own lines, which call at the door.
fn dialogue(root: &Path, options: &Options, pin: &SitePin, site: &Site) -> Dialogue {
    let dialogue =
        line::listen(options, (root, ""), (Some(pin), Box::new(|_, _| Ok(()))), None, false, later()).unwrap().unwrap();
    dialogue.call(vec![Target::Unix(site.path("door"))]);
    dialogue
}

/// Until the payload comes: its level, and what was told before.
fn admitted(dialogue: &Dialogue, pin: &SitePin) -> (Option<String>, Vec<String>) {
    let mut told = Vec::new();
    loop {
        match dialogue.hear(later()).unwrap_or_else(|| panic!("no payload came; told: {told:?}")) {
            Told::Payload { line, sealed, fresh, bytes } => {
                let found = Found { origin: Origin::Line { name: line, sealed }, bytes, cut: false, fresh };
                let (payload, _) = source::decode(&found, Some(pin), None).unwrap();
                return (payload.admitted().map(str::to_owned), told);
            }
            other => told.push(other.to_string()),
        }
    }
}

/// The main path: nobody decides. The agent reads the key of its image and proves it, and the door verifies the proof. The level
/// is under the signature of the payload.
#[test]
fn the_key_of_the_image_lets_a_node_in() {
    let (site, made) = site(true);
    let _server = door(&site);
    let root = root();
    fs::write(root.path().join(PATH), &*made.pem).unwrap();
    let options = Options::parse("imprint.source=vsock:7").unwrap();
    let dialogue = dialogue(root.path(), &options, &site.pin, &site);
    let (level, told) = admitted(&dialogue, &site.pin);
    assert_eq!(level.as_deref(), Some("image-key"), "{told:?}");
    let code = KeyCode::of(&made.public);
    let words = format!("admission key {code} of {}", root.path().join(PATH).display());
    assert!(told.contains(&words), "{told:?}");
}

/// Premise: without the key the node waits. A stick that is plugged in then lets it in, in the same conversation. The key of the
/// image, which the record does not name, is proven before.
#[test]
fn a_stick_that_comes_later_lets_a_waiting_node_in() {
    let (site, made) = site(false);
    let _server = door(&site);
    let root = root();
    fs::write(root.path().join(PATH), &*MadeKey::new().unwrap().pem).unwrap();
    let options = Options::parse("imprint.source=vsock:7").unwrap();
    let dialogue = dialogue(root.path(), &options, &site.pin, &site);
    let mut told = Vec::new();
    while !told.iter().any(|words: &String| words.contains("lets this node wait")) {
        told.push(dialogue.hear(later()).unwrap_or_else(|| panic!("{told:?}")).to_string());
    }
    drive(root.path(), "sdb", &stick(&made));
    let media = look(&options, root.path(), &dialogue);
    let (level, told) = admitted(&dialogue, &site.pin);
    assert_eq!(level.as_deref(), Some("stick"), "{told:?}");
    assert!(told.iter().any(|words| words.ends_with(" of sdb (IMPRINT-KEY)")), "{told:?}");
    drop(media);
}

/// Drives of each make that hold no key, or a key in an odd place: one line each that names the place, and the node goes on.
#[test]
fn media_without_a_key_are_named() {
    let (site, made) = site(false);
    let _server = door(&site);
    let root = root();
    let options = Options::parse("imprint.source=vsock:7").unwrap();
    let dialogue = dialogue(root.path(), &options, &site.pin, &site);
    let file = |bytes: &[u8]| imprint_host::vfat::stick(bytes).unwrap().to_vec();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let p256 = pem::encode("PRIVATE KEY", p256.to_pkcs8v1().unwrap().as_ref());
    let locked = pem::encode("ENCRYPTED PRIVATE KEY", b"whatever");
    let ssh = pem::encode("OPENSSH PRIVATE KEY", b"whatever");
    for (name, image) in [
        ("sda", file(b"-----BEGIN PRIVATE KEY-----\n")),
        ("sdb", file(&[b'x'; 5000])),
        ("sdc", imprint_host::vfat::image(b"payload").unwrap().to_vec()),
        ("sdd", file(p256.as_bytes())),
        ("sde", file(locked.as_bytes())),
        ("sdf", file(ssh.as_bytes())),
        ("sdg", [file(b"no key").as_slice(), &[0; 512]].concat()),
        // A disc beside them has the key.
        ("sr0", imprint_host::iso::stick(made.pem.as_bytes(), Timestamp::from_secs(0)).unwrap().to_vec()),
    ] {
        drive(root.path(), name, &image);
    }
    let media = look(&options, root.path(), &dialogue);
    let mut told = Vec::new();
    let want = [
        ("sda", "it is not PEM"),
        ("sdb", "it has 5000 bytes, and 4096 are read"),
        ("sdd", "its key is not an Ed25519 key"),
        ("sde", "its key has a password"),
        ("sdf", "it has a block \"OPENSSH PRIVATE KEY\", and one \"PRIVATE KEY\" is wanted"),
        ("sdg", "it has no block \"PRIVATE KEY\""),
    ];
    let want = want.map(|(name, why)| format!("no admission key in imprint/key on {name} (IMPRINT-KEY): {why}"));
    let mut level = None;
    while level.is_none() || !want.iter().all(|want| told.iter().any(|words: &String| words.starts_with(want))) {
        match dialogue.hear(later()).unwrap_or_else(|| panic!("{told:?}")) {
            Told::Payload { bytes, line, sealed, fresh } => {
                let found = Found { origin: Origin::Line { name: line, sealed }, bytes, cut: false, fresh };
                level = source::decode(&found, Some(&site.pin), None).unwrap().0.admitted().map(str::to_owned);
            }
            other => told.push(other.to_string()),
        }
    }
    assert_eq!(level.as_deref(), Some("stick"));
    assert!(!told.iter().any(|words| words.contains("sdc")), "{told:?}");
    drop(media);
}

/// Two sticks, one of which is of another rack. Whichever is read last: the node proves both, and the host knows which one the
/// record names.
#[test]
fn of_two_sticks_the_one_that_the_record_names_counts() {
    for right in ["sda", "sdb"] {
        let (site, made) = site(false);
        let _server = door(&site);
        let root = root();
        let other = MadeKey::new().unwrap();
        let options = Options::parse("imprint.source=vsock:7").unwrap();
        let dialogue = dialogue(root.path(), &options, &site.pin, &site);
        for name in ["sda", "sdb"] {
            drive(root.path(), name, &stick(if name == right { &made } else { &other }));
        }
        let media = look(&options, root.path(), &dialogue);
        let (level, told) = admitted(&dialogue, &site.pin);
        assert_eq!(level.as_deref(), Some("stick"), "{right}: {told:?}");
        drop(media);
    }
}

/// Sticks of other racks let nobody in: the node waits, and the administrator sees which keys it has. The right one, plugged in
/// beside them later, lets it in. As many as a host keeps, the image's own among them, are no trouble.
#[test]
fn sticks_of_others_are_named_to_the_administrator() {
    let (site, made) = site(false);
    let _server = door(&site);
    let root = root();
    let other = MadeKey::new().unwrap();
    fs::write(root.path().join(PATH), &*MadeKey::new().unwrap().pem).unwrap();
    let options = Options::parse("imprint.source=vsock:7").unwrap();
    let dialogue = dialogue(root.path(), &options, &site.pin, &site);
    drive(root.path(), "sda", &stick(&other));
    let media = look(&options, root.path(), &dialogue);
    let mut told = Vec::new();
    while !told.iter().any(|words: &String| words.contains("has to admit this node")) {
        match dialogue.hear(later()).unwrap_or_else(|| panic!("{told:?}")) {
            Told::Payload { .. } => panic!("let in for the key of another rack: {told:?}"),
            other => told.push(other.to_string()),
        }
    }
    let code = KeyCode::of(&other.public);
    assert!(told.contains(&format!("admission key {code} of sda (IMPRINT-KEY)")), "{told:?}");
    let listed = imprint_host::list::callers(&site.state(), Timestamp::system()).unwrap();
    let [row] = listed.as_slice() else { panic!("{listed:?}") };
    assert!(row.why.starts_with("it has shown admission keys ") && row.why.contains(&code.to_string()), "{}", row.why);
    drop(media);
    for name in ["sdb", "sdc", "sdd", "sde", "sdf", "sdg"] {
        drive(root.path(), name, &stick(&MadeKey::new().unwrap()));
    }
    drive(root.path(), "sdh", &stick(&made));
    let media = look(&options, root.path(), &dialogue);
    let (level, told) = admitted(&dialogue, &site.pin);
    assert_eq!(level.as_deref(), Some("stick"), "{told:?}");
    drop(media);
}

/// A stick that never answers, by a FIFO that nobody writes to: it is named after its time, the other one is read, and the
/// end of the search does not wait for it.
#[test]
fn a_stick_that_never_answers_is_named() {
    let (site, made) = site(false);
    let _server = door(&site);
    let root = root();
    let options = Options::parse("imprint.source=vsock:7").unwrap();
    let dialogue = dialogue(root.path(), &options, &site.pin, &site);
    nix::unistd::mkfifo(&root.path().join("dev/sda"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    listed(root.path(), "sda");
    let media = look(&options, root.path(), &dialogue);
    let want = "sda: not read for an admission key: the drive has not answered for ";
    let mut told = Vec::new();
    while !told.iter().any(|words: &String| words.starts_with(want)) {
        told.push(dialogue.hear(later()).unwrap_or_else(|| panic!("{told:?}")).to_string());
    }
    drop(media);
    drive(root.path(), "sdb", &stick(&made));
    let media = look(&options, root.path(), &dialogue);
    let (level, told) = admitted(&dialogue, &site.pin);
    assert_eq!(level.as_deref(), Some("stick"), "{told:?}");
    drop(media);
}

/// A key file of an image that others can read, and one with a password: the first is used and named, the second stops the
/// boot, as everything in the image that is broken does.
#[test]
fn a_key_of_the_image_that_is_in_order_or_not() {
    let (site, made) = site(true);
    let root = root();
    let path = root.path().join(PATH);
    let options = Options::parse("imprint.source=vsock:7").unwrap();
    let listen = || {
        let line =
            line::listen(&options, (root.path(), ""), (Some(&site.pin), Box::new(|_, _| Ok(()))), None, false, later());
        line.map(|line: Option<Dialogue>| line.unwrap())
    };
    fs::write(&path, &*made.pem).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let note = format!("others than its owner can read the admission key {0}; chmod 0600 {0}", path.display());
    assert_eq!(listen().unwrap().hear(later()).unwrap().to_string(), note);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(listen().unwrap().hear(later()).unwrap().to_string().starts_with("admission key "));
    fs::write(&path, &*pem::encode("ENCRYPTED PRIVATE KEY", b"whatever")).unwrap();
    let error = listen().err().unwrap();
    assert!(
        matches!(error, SourceError::AdmissionKey { why: KeyFileError::Other("ENCRYPTED PRIVATE KEY"), .. }),
        "{error}"
    );
}

/// `imprint check` as people run it: without a file it shows the key of the machine, and with one the key in it. Nothing of the
/// private key is shown, and a record with what is shown is one that names the key.
#[test]
fn the_agent_shows_a_key() {
    let made = MadeKey::new().unwrap();
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("key");
    let check = || {
        let output = Command::new(programs::agent()).arg("check").arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    fs::write(&file, &*made.pem).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, shown) = check();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.starts_with(&format!("admission key  {}\n", KeyCode::of(&made.public))), "{shown}");
    assert!(!shown.contains("note"), "{shown}");
    let private = made.pem.lines().nth(1).unwrap();
    assert!(!shown.contains(private), "{shown}");
    let lines: Vec<&str> =
        shown.lines().filter_map(|line| line.get(15..).filter(|text| text.contains(" = "))).collect();
    let site = Site::new(&[("node1", &format!("bind = {{ serial = 'S1' }}\n{}", lines.join("\n")))]);
    let _server = door(&site);
    let mut node = Caller::new("S1", &site.pin);
    node.admission = Some(Arc::new(AdmissionKey::parse(made.pem.as_bytes()).unwrap()));
    let mut stream = UnixStream::connect(site.path("door")).unwrap();
    assert!(talk(&mut node, &mut stream, |node| node.over), "told: {:?}", node.pending);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(check().1.contains("note           others than its owner can read the admission key "));
    for (content, why) in [
        (pem::encode("ENCRYPTED PRIVATE KEY", b"x"), "its key has a password"),
        (pem::encode("PUBLIC KEY", b"x"), "it has a block \"PUBLIC KEY\""),
        (pem::encode("PRIVATE KEY", b"x"), "its key is not an Ed25519 key"),
    ] {
        fs::write(&file, &*content).unwrap();
        let (code, shown) = check();
        assert_eq!(code, Some(11), "{shown}");
        assert!(shown.contains(why), "{shown}");
    }
    // Of an image, or of the machine itself.
    let root = root();
    let none = "no admission key: there is neither /imprint/key nor /etc/imprint/key\n";
    assert!(run::check(root.path(), None).unwrap().contains(none));
    fs::write(root.path().join(PATH), &*made.pem).unwrap();
    let code = KeyCode::of(&made.public).to_string();
    assert!(run::check(root.path(), None).unwrap().contains(&code));
}

/// The accident: a file that no boot accepts goes into an image, and every machine of the site stops. `imprint check --image`
/// shows what an image has for all nodes, and says which of its files is wrong.
#[test]
fn what_an_image_has_for_all_nodes_is_checked_before_it_is_packed() {
    let root = root();
    let check = || {
        let output = Command::new(programs::agent()).args(["check", "--image"]).arg(root.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, shown) = check();
    let nothing = "no site pin: there is neither /imprint/site nor /etc/imprint/site\n\
                   no network before the payload: there is no /imprint/network\n\
                   no admission key: there is neither /imprint/key nor /etc/imprint/key\n";
    assert_eq!((code, shown.as_str()), (Some(0), nothing));
    let digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let signers = include_str!("../data/site-signers");
    let identity = imprint::age::Identity::from_bytes(&[7; 32]).to_text();
    let made = MadeKey::new().unwrap();
    for (name, good, broken, words) in [
        ("site", format!("{digest}\n{signers}"), "0123\n", "line 1 is wrong"),
        ("key", made.pem.to_string(), "-----BEGIN PUBLIC KEY-----\n", "admission key"),
        ("bundle-key", identity.to_string(), "AGE-SECRET-KEY-1QQ\n", "bundle key"),
    ] {
        let path = root.path().join("imprint").join(name);
        for (text, want) in [(broken, 11), ("", 11), (good.as_str(), 0)] {
            fs::write(&path, text).unwrap();
            let (code, shown) = check();
            assert_eq!(code, Some(want), "{name}: {text:?}: {shown}");
            let named = shown.contains(&path.display().to_string());
            assert!(want == 0 || named, "{name}: {shown}");
            assert!(text != broken || shown.contains(words), "{name}: {shown}");
        }
    }
    let (_, shown) = check();
    assert!(shown.starts_with(&format!("site pin       CA {digest}\nsite pin       signer ")), "{shown}");
    assert!(!shown.contains(identity.trim_end()), "{shown}");
    let network = root.path().join("imprint/network");
    fs::write(&network, "cbor").unwrap();
    let (code, shown) = check();
    assert!(code == Some(11) && shown.contains(&network.display().to_string()), "{shown}");
}

/// The frames that a node sends, one after the other, with their digits.
fn frames(bytes: &[u8], session: Option<Session>) -> Vec<(Vec<u8>, Frame)> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let parsed = lines.map(|line| {
        let digits = line.strip_prefix(b"#").unwrap().trim_ascii_end();
        (line.to_vec(), Packet::decode(digits, session).unwrap().frame)
    });
    parsed.collect()
}

/// Attack: somebody in the network passes the HELLO and the proof of an honest node on, holds its READY back, and then says HELLO
/// with a line key of his own on the same connection. The proof is not his.
#[test]
fn a_proof_that_is_passed_on_is_good_for_no_other_hello() {
    let (site, made) = site(false);
    let _server = door(&site);
    let honest = || {
        let mut node = Caller::new("S1", &site.pin);
        node.admission = Some(Arc::new(AdmissionKey::parse(made.pem.as_bytes()).unwrap()));
        node
    };
    for attack in [false, true] {
        let mut node = honest();
        let mut stream = UnixStream::connect(site.path("door")).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut proven = false;
        let start = std::time::Instant::now();
        while !proven {
            assert!(start.elapsed() < PATIENCE);
            let (bytes, _) = node.poll();
            for (line, frame) in frames(&bytes, node.wire.end().session()) {
                proven |= matches!(frame, Frame::Data { .. });
                if !attack || matches!(frame, Frame::Hello(_) | Frame::Announce(_) | Frame::Data { .. }) {
                    stream.write_all(&line).unwrap();
                }
            }
            let mut buffer = [0; 4096];
            if let Ok(count) = stream.read(&mut buffer) {
                node.push(&buffer[..count]);
            }
        }
        if !attack {
            // Premise: passed on whole, the conversation of the honest node goes on, and the payload is sealed for its key.
            assert!(talk(&mut node, &mut stream, |node| node.over), "told: {:?}", node.pending);
            assert_eq!(node.payloads[0].admitted(), Some("stick"));
            continue;
        }
        // The door has read the proof before it reads another HELLO: they come in order.
        let mut attacker = Caller::new("S1", &site.pin);
        let waits = talk(&mut attacker, &mut stream, |node| !node.pending.is_empty() || !node.payloads.is_empty());
        assert!(attacker.payloads.is_empty(), "a payload was sealed for the attacker's line key");
        assert!(waits, "the attacker is treated as any caller without a key");
    }
}

/// Attack: somebody proves one key after another in the hope of one that counts, or to keep the door busy. So many are kept, and
/// the next one, which is the right one, is not.
#[test]
fn a_door_keeps_so_many_keys_of_a_caller() {
    for others in [MOST_KEYS - 1, MOST_KEYS] {
        let (site, made) = site(false);
        let _server = door(&site);
        let mut node = Caller::new("S1", &site.pin);
        let hello = node.wire.end().hello().clone();
        let mut stream = UnixStream::connect(site.path("door")).unwrap();
        assert!(talk(&mut node, &mut stream, |node| !node.pending.is_empty()));
        let session = node.wire.end().session().unwrap();
        let keys = (0..others).map(|_| MadeKey::new().unwrap()).chain([made]);
        for key in keys {
            let sent = node.proofs;
            let proof = AdmissionKey::parse(key.pem.as_bytes()).unwrap().prove(&hello, session.host);
            node.wire.end_mut().say(imprint::line::Kind::Admission, proof);
            assert!(talk(&mut node, &mut stream, |node| node.proofs > sent || node.over));
        }
        if others < MOST_KEYS {
            assert!(talk(&mut node, &mut stream, |node| node.over), "told: {:?}", node.pending);
            assert_eq!(node.payloads[0].admitted(), Some("stick"));
            continue;
        }
        // The door has acknowledged the last proof. What it would send for it comes before its answer to another one.
        let sent = node.proofs;
        node.wire.end_mut().say(imprint::line::Kind::Admission, vec![0; 96]);
        assert!(talk(&mut node, &mut stream, |node| node.proofs > sent));
        assert!(node.payloads.is_empty(), "more than {MOST_KEYS} keys count");
    }
}

/// A node that was written in Python from docs/line-protocol.md, and nothing else, calls at the door. It proves a key that
/// nobody knows, and then that of the record, in one conversation.
#[test]
fn an_independent_node_proves_a_key() {
    let uuid = "bind = { uuid = '07070707-0707-0707-0707-070707070707' }\nadmit = 'key'\nadmission_key = 'rack'";
    let (site, made) = site_of(uuid, false);
    let _server = door(&site);
    let key = site.path("key.pem");
    let python = || {
        let output = Command::new(programs::python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/line_peer.py"))
            .arg(site.path("door"))
            .arg(site.state().ca.signers().unwrap().remove(0).0.to_string())
            .arg(&key)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), words, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Premise: with another key it waits, and is told so; this node ends then.
    fs::write(&key, &*MadeKey::new().unwrap().pem).unwrap();
    let (came, words, error) = python();
    assert!(!came && error.contains("kind 4: "), "{words}{error}");
    assert_eq!(words.matches("proof: acknowledged\n").count(), 2, "{words}");
    fs::write(&key, &*made.pem).unwrap();
    let (came, words, error) = python();
    assert!(came, "{words}{error}");
    for want in ["signed for a challenge\n", "time: proven\n", "certificates: ", "CN=node1.example.org"] {
        assert!(words.contains(want), "{words}{error}");
    }
    assert_eq!(words.matches("proof: acknowledged\n").count(), 2, "{words}");
    let admitted = site.state().store.log(50).unwrap().into_iter().find(|row| row.event == "admitted").unwrap();
    assert!(admitted.node.as_deref() == Some("node1") && admitted.detail.contains("stick"), "{}", admitted.detail);
}

/// Attack: yesterday's proof of the same node, and the proof of another node with the same key, in a conversation of today.
#[test]
fn an_old_proof_lets_nobody_in() {
    let (site, made) = site(false);
    let _server = door(&site);
    let key = AdmissionKey::parse(made.pem.as_bytes()).unwrap();
    let mut node = Caller::new("S1", &site.pin);
    let (hello, other) = (node.wire.end().hello().clone(), Caller::new("S1", &site.pin));
    let old = key.prove(&hello, imprint::line::Nonce([7; 8]));
    let mut stream = UnixStream::connect(site.path("door")).unwrap();
    assert!(talk(&mut node, &mut stream, |node| !node.pending.is_empty()));
    let session = node.wire.end().session().unwrap();
    let of_another = key.prove(other.wire.end().hello(), session.host);
    for wrong in [old, of_another, Vec::new(), vec![0; 96]] {
        let sent = node.proofs;
        node.wire.end_mut().say(imprint::line::Kind::Admission, wrong);
        assert!(talk(&mut node, &mut stream, |node| node.proofs > sent));
    }
    assert!(node.payloads.is_empty());
    // Premise: a proof that is right, in the same conversation, does.
    node.wire.end_mut().say(imprint::line::Kind::Admission, key.prove(&hello, session.host));
    assert!(talk(&mut node, &mut stream, |node| node.over), "told: {:?}", node.pending);
    assert_eq!(node.payloads[0].admitted(), Some("stick"));
}
