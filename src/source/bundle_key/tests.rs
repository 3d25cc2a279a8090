use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::chain::chain;

fn identity() -> Identity {
    Identity::from_bytes(&[7; 32])
}

fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("imprint")).unwrap();
    root
}

/// As age-keygen writes it.
fn file() -> String {
    format!("# created: 2026-11-30T00:00:00Z\n# public key: {}\n{}\n", identity().recipient(), *identity().to_text())
}

fn put(root: &Path, path: &str, bytes: &[u8], mode: u32) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The key of these terms, and what the console was told.
fn found(key: &BundleKey, root: &Path) -> (Result<Held, BundleKeyError>, Vec<String>) {
    let (mut told, now) = (Vec::new(), Deadline::after(Duration::ZERO));
    let held = find(key, &Around::of(root), now, now, &mut |words| told.push(words.to_owned()));
    (held, told)
}

#[test]
fn the_payload_brings_its_key_itself() {
    let (held, told) = found(&BundleKey::Payload(identity()), Path::new("/nonexistent"));
    let held = held.unwrap();
    assert_eq!((held.identity, held.from.to_string(), told.len()), (identity(), "the payload".to_owned(), 0));
}

/// Both keys of a node may be in one image, and neither is taken for the other.
#[test]
fn the_key_of_the_image_is_not_its_admission_key() {
    let root = root();
    let admission = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                     -----END PRIVATE KEY-----\n";
    put(root.path(), "imprint/key", admission.as_bytes(), 0o600);
    assert!(matches!(found(&BundleKey::Image(None), root.path()).0, Err(BundleKeyError::NotInImage)));
    put(root.path(), PATH, file().as_bytes(), 0o600);
    let (held, told) = found(&BundleKey::Image(None), root.path());
    let held = held.unwrap();
    assert_eq!((held.identity, told.len()), (identity(), 0));
    assert_eq!(held.from.to_string(), root.path().join(PATH).display().to_string());
    assert!(super::super::admission_key::of_image(root.path()).unwrap().is_some());
    // An image that was built with the files swapped.
    put(root.path(), PATH, admission.as_bytes(), 0o600);
    let error = found(&BundleKey::Image(None), root.path()).0.unwrap_err();
    assert!(matches!(error, BundleKeyError::File { why: KeyTextError::Identity, .. }), "{error}");
    assert!(super::super::admission_key::parsed("x".into(), file().as_bytes()).is_err());
}

#[test]
fn a_running_system_has_its_key_where_image_builders_look() {
    let root = root();
    put(root.path(), INSTALLED, file().as_bytes(), 0o600);
    assert_eq!(found(&BundleKey::Image(None), root.path()).0.unwrap().identity, identity());
    // The image's own counts before it.
    put(root.path(), PATH, Identity::from_bytes(&[8; 32]).to_text().as_bytes(), 0o600);
    assert_eq!(found(&BundleKey::Image(None), root.path()).0.unwrap().identity, Identity::from_bytes(&[8; 32]));
}

/// The accident: users of the node can read the key, and with it every bundle that was ever made for the node.
#[test]
fn a_key_that_others_can_read_is_named() {
    let root = root();
    put(root.path(), PATH, file().as_bytes(), 0o644);
    let (held, told) = found(&BundleKey::Image(None), root.path());
    let path = root.path().join(PATH).display().to_string();
    assert_eq!(held.unwrap().identity, identity());
    assert_eq!(told, [format!("others than its owner can read the bundle key {path}; chmod 0600 {path}")]);
}

/// What is in the file is never shown: it may be a key that is a little wrong.
#[test]
fn what_is_no_key_is_an_error_without_its_text() {
    let root = root();
    let secret = identity().to_text();
    let two = format!("{}\n{}\n", *secret, *Identity::from_bytes(&[8; 32]).to_text());
    let recipient = identity().recipient().to_string();
    for (bytes, why) in [
        (&b""[..], KeyTextError::Identity),
        (b"\xff\xfe", KeyTextError::Identity),
        (&vec![b'#'; MAX_FILE + 1], KeyTextError::Identity),
        (&secret.as_bytes()[..70], KeyTextError::Identity),
        (two.as_bytes(), KeyTextError::Identity),
        (recipient.as_bytes(), KeyTextError::NotSecret),
    ] {
        put(root.path(), PATH, bytes, 0o600);
        let error = found(&BundleKey::Image(None), root.path()).0.unwrap_err();
        assert!(matches!(&error, BundleKeyError::File { why: found, .. } if *found == why), "{error}");
        let words = chain(&error);
        assert!(words.starts_with(&format!("bundle key {}: ", root.path().join(PATH).display())), "{words}");
        assert!(!words.contains(&secret[..30]), "{words}");
    }
    fs::remove_file(root.path().join(PATH)).unwrap();
    fs::create_dir(root.path().join(PATH)).unwrap();
    assert!(matches!(found(&BundleKey::Image(None), root.path()).0, Err(BundleKeyError::Read { .. })));
}

#[test]
fn which_files_are_meant_to_have_one() {
    assert!(is_meant(file().as_bytes()) && is_meant(b"age-secret-key-1"));
    assert!(!is_meant(identity().recipient().to_string().as_bytes()) && !is_meant(b"") && !is_meant(b"\xff"));
}

/// The attack: an initramfs archive that the boot loader loads behind the image's brings a key. What the node makes would be encrypted
/// for whoever has it.
#[test]
fn another_key_in_the_image_is_refused_where_the_payload_names_one() {
    let root = root();
    put(root.path(), PATH, file().as_bytes(), 0o600);
    let wants = Identity::from_bytes(&[8; 32]).recipient();
    // The premise: without the recipient the node takes it.
    assert_eq!(found(&BundleKey::Image(None), root.path()).0.unwrap().identity, identity());
    assert_eq!(found(&BundleKey::Image(Some(identity().recipient())), root.path()).0.unwrap().identity, identity());
    let (error, told) = found(&BundleKey::Image(Some(wants)), root.path());
    let error = error.unwrap_err();
    assert!(matches!(error, BundleKeyError::OtherInImage { .. }) && told.is_empty(), "{error:?} {told:?}");
    let want = format!(
        "the bundle key {} is that of {}, and this node's is that of {wants}; build the image with the node's key, or correct \
         bundle_recipient in its record and make a new payload",
        root.path().join(PATH).display(),
        identity().recipient()
    );
    assert_eq!(chain(&error), want);
    let error = crate::stateless::StatelessError::Key(error);
    assert_eq!(crate::error::Error::from(error).stage(), ("bundle", 20));
}
