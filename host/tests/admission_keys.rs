//! Tests of `imprint-host key` as people run it: what is written is what nodes read, and the private key is not kept.

use crate::support::command;

use std::io::Cursor;
use std::path::Path;

use command::{fails, fine, host, mode, site};
use imprint::key_code::KeyCode;
use imprint::line::admission::AdmissionKey;
use imprint::source::answer::{Looked, Place};
use imprint::source::medium::Window;
use imprint::source::reader::{Wanted, keys, look};
use imprint_host::state::State;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// `key make` to standard output: the key alone, for a pipe. What a record needs is said beside it.
fn piped(dir: &Path, name: &str) -> Vec<u8> {
    let output = host(dir, &["key", "make", name]);
    assert!(output.status.success());
    let said = text(output.stderr);
    let code = KeyCode::of(&AdmissionKey::parse(&output.stdout).unwrap().public());
    assert!(said.contains(&format!("admission key {code}; whoever has the medium has the key")), "{said}");
    assert!(said.contains(&format!("need a bind, and: admit = \"key\", admission_key = \"{name}\"")), "{said}");
    output.stdout
}

/// The key on a medium, by the code that the node runs.
fn on_medium(image: &[u8]) -> AdmissionKey {
    let medium = keys::look(&mut Window::whole(Cursor::new(image)), Place::Key, true).unwrap();
    let [part] = medium.parts.as_slice() else { panic!("{medium:?}") };
    let [volume] = part.volumes.as_slice() else { panic!("{medium:?}") };
    let [(Place::Key, Looked::Found(bytes))] = volume.files.as_slice() else { panic!("{medium:?}") };
    AdmissionKey::parse(bytes.expose()).unwrap()
}

/// Each form, read as a node reads it. The list has the public key under the name, and says where the key lies.
#[test]
fn nodes_read_each_form_of_a_key() {
    let (temp, dir) = site();
    let file = |name: &str| temp.path().join(name);
    let mut want = Vec::new();
    for (form, image) in [("pem", false), ("pem", true), ("vfat", false), ("iso", false), ("iso", true), ("cpio", true)]
    {
        let name = format!("{form}-{image}");
        let path = file(&name);
        let mut words = vec!["key", "make", &name, "--as", form, "-o", path.to_str().unwrap()];
        if image && form != "cpio" {
            words.push("--image");
        }
        let said = text(fine(&dir, &words));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let key = match form {
            "pem" => AdmissionKey::parse(&bytes).unwrap(),
            "cpio" => {
                let name = bytes.windows(12).position(|part| part == b"imprint/key\0").unwrap();
                let begin = bytes.windows(11).position(|part| part == b"-----BEGIN ").unwrap();
                let end = bytes.windows(26).position(|part| part == b"-----END PRIVATE KEY-----\n").unwrap();
                assert!(name < begin);
                AdmissionKey::parse(&bytes[begin..end + 26]).unwrap()
            }
            _ => on_medium(&bytes),
        };
        assert!(said.contains(&KeyCode::of(&key.public()).to_string()), "{said}");
        assert!(said.contains(&format!("admission_key = \"{name}\"")), "{said}");
        want.push((name, key.public(), image));
    }
    want.sort();
    let state = State::open(&dir).unwrap();
    let rows = state.store.admission_keys().unwrap().into_iter().map(|row| (row.name, row.public, row.in_image));
    assert_eq!(rows.collect::<Vec<_>>(), want);
    let list = text(fine(&dir, &["key", "list"]));
    assert!(list.contains("pem-false  ") && list.contains("  stick  ") && list.contains("  image  "), "{list}");
}

/// A medium with a key is never a source of payloads, also if it has one, and if the operator names its label.
#[test]
fn no_payload_is_taken_from_a_stick() {
    let payload = imprint_host::vfat::image(b"a payload").unwrap();
    let stick = imprint_host::vfat::stick(b"a key").unwrap();
    // The files of a config drive under the label of a stick.
    let mut both = payload.to_vec();
    let labels = payload.windows(11).enumerate().filter(|(_, part)| *part == b"IMPRINT    ").map(|(at, _)| at);
    // In the boot sector, and in the root directory; the third one is the folder's name.
    for at in labels.take(2) {
        both[at..at + 11].copy_from_slice(b"IMPRINT-KEY");
    }
    for (image, label, taken) in
        [(&payload[..], "IMPRINT", true), (&both, "IMPRINT-KEY", false), (&stick, "IMPRINT-KEY", false)]
    {
        let wanted = Wanted { labels: &[label], partitions: true };
        let medium = look(&mut Window::whole(Cursor::new(image)), wanted, true).unwrap();
        let files = medium.parts.iter().flat_map(|part| &part.volumes).flat_map(|volume| &volume.files);
        let found = files.filter(|(_, looked)| matches!(looked, Looked::Found(_))).count();
        // Premise: the same file under our own label is taken.
        assert_eq!(found, usize::from(taken), "{label}: {medium:?}");
        let labels = medium.parts[0].volumes[0].labels.clone();
        assert_eq!(labels, [label]);
    }
}

/// The private key is written once. Nothing in the state directory has it.
#[test]
fn the_private_key_is_not_kept() {
    let (temp, dir) = site();
    let path = temp.path().join("key");
    fine(&dir, &["key", "make", "rack", "-o", path.to_str().unwrap()]);
    let pem = std::fs::read_to_string(&path).unwrap();
    let der = &imprint::pem::decode("PRIVATE KEY", &pem).unwrap()[0];
    let private = &der[der.len() - 32..];
    let has = |path: &Path| std::fs::read(path).unwrap().windows(32).any(|part| part == private);
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 3);
    assert!(!files.iter().filter(|path| path.is_file()).any(|path| has(path)));
    piped(&dir, "other");
}

#[test]
fn what_is_wrong_with_a_key_is_said() {
    let (temp, dir) = site();
    let path = temp.path().join("public.pem");
    let public = |key: &AdmissionKey| {
        let der = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &key.public()].concat();
        imprint::pem::encode("PUBLIC KEY", &der)
    };
    let made = AdmissionKey::parse(&piped(&dir, "rack")).unwrap();
    let code = KeyCode::of(&made.public()).to_string();
    let said = |words: &[&str]| fails(&dir, words).1;
    assert!(
        said(&["key", "make", "rack"]).contains(&format!("there is an admission key rack already, with code {code}"))
    );
    assert!(said(&["key", "make", "a/b"]).contains("a/b is not a name for an admission key"));
    assert!(said(&["key", "make", "stick", "--as", "vfat"]).contains("give -o FILE, or the drive of the stick"));
    assert!(said(&["key", "forget", "nobody"]).contains("there is no admission key nobody"));
    std::fs::write(&path, &*public(&made)).unwrap();
    let file = path.to_str().unwrap();
    assert!(said(&["key", "add", "again", file]).contains(&format!("the key with code {code} already, as rack")));
    fine(&dir, &["key", "forget", "rack"]);
    let added = text(fine(&dir, &["key", "add", "again", file, "--image"]));
    assert!(added.contains(&code), "{added}");
    std::fs::write(&path, "no key").unwrap();
    assert!(said(&["key", "add", "third", file]).contains("there is no Ed25519 public key in it"));
    // A key that could not be written is not listed: nobody has it.
    assert!(!said(&["key", "make", "lost", "-o", "/nonexistent/key"]).is_empty());
    let names: Vec<String> =
        State::open(&dir).unwrap().store.admission_keys().unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["again"]);
    let log: Vec<String> = State::open(&dir).unwrap().store.log(9).unwrap().into_iter().map(|row| row.event).collect();
    assert_eq!(log.iter().filter(|event| event.starts_with("key")).count(), 3, "{log:?}");
}
