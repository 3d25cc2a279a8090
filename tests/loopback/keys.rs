//! Tests of admission keys at a door: nodes that prove one, from their image or from a stick, and whoever uses the proof of
//! another node.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use imprint::dialogue::{Dialogue, Told};
use imprint::line::admission::AdmissionKey;
use imprint::line::frame::{Frame, Packet};
use imprint::line::{End, Session};
use imprint::options::Options;
use imprint::pipe::Target;
use imprint::site::SitePin;
use imprint::source::admission_key::{Media, PATH};
use imprint::source::{self, Found, Origin, line};
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
    let site = Site::new(&[("node1", RECORD)]);
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
    let code = imprint::key_code::KeyCode::of(&made.public);
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
    let stick = imprint_host::vfat::stick(made.pem.as_bytes()).unwrap();
    fs::write(root.path().join("dev/sdb"), &*stick).unwrap();
    // On a USB bus, which payloads would not be taken from in an image without a site pin.
    symlink("../devices/pci0000:00/usb1/1-1/block/sdb", root.path().join("sys/block/sdb")).unwrap();
    let media = Media::look(&options, root.path(), &programs::agent(), dialogue.prover()).unwrap();
    assert!(media.is_some());
    let (level, told) = admitted(&dialogue, &site.pin);
    assert_eq!(level.as_deref(), Some("stick"), "{told:?}");
    assert!(told.iter().any(|words| words.contains(" of sdb (IMPRINT-KEY), in place of that of ")), "{told:?}");
}

/// Drives of each make that hold no key, or a key in an odd place: one line each that names the place, and the node goes on.
#[test]
fn media_without_a_key_are_named() {
    let (site, made) = site(false);
    let _server = door(&site);
    let root = root();
    let options = Options::parse("imprint.source=vsock:7").unwrap();
    let dialogue = dialogue(root.path(), &options, &site.pin, &site);
    let broken = imprint_host::vfat::stick(b"-----BEGIN PRIVATE KEY-----\n").unwrap();
    let long = imprint_host::vfat::stick(&[b'x'; 5000]).unwrap();
    let payload = imprint_host::vfat::image(b"payload").unwrap();
    for (name, bytes) in [("sda", &broken), ("sdb", &long), ("sdc", &payload)] {
        fs::write(root.path().join("dev").join(name), &**bytes).unwrap();
        symlink(format!("../devices/x/block/{name}"), root.path().join("sys/block").join(name)).unwrap();
    }
    // A disc beside them has the key.
    fs::write(
        root.path().join("dev/sr0"),
        &*imprint_host::iso::stick(made.pem.as_bytes(), Timestamp::from_secs(0)).unwrap(),
    )
    .unwrap();
    symlink("../devices/x/block/sr0", root.path().join("sys/block/sr0")).unwrap();
    let media = Media::look(&options, root.path(), &programs::agent(), dialogue.prover()).unwrap();
    let mut told = Vec::new();
    let want =
        ["imprint/key on sda (IMPRINT-KEY): it is not PEM", "imprint/key on sdb (IMPRINT-KEY): it has 5000 bytes"];
    let mut level = None;
    while level.is_none() || !want.iter().all(|want| told.iter().any(|words: &String| words.contains(want))) {
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
