use std::fs;

use super::*;
use crate::chain::chain;
use crate::payload::signed::aad;

const P256: &[u8] = include_bytes!("../../tests/data/payload-signed-p256.cbor");
const ED25519: &[u8] = include_bytes!("../../tests/data/payload-signed-ed25519.cbor");
const SIGNERS: &str = include_str!("../../tests/data/site-signers");

#[test]
fn site_pins() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(pin(root.path()).unwrap(), None);
    fs::create_dir(root.path().join("imprint")).unwrap();
    let digest = "00".repeat(31) + "ff";
    let mut bytes = [0; 32];
    bytes[31] = 0xff;
    let ca = |cas: &[[u8; 32]]| Some(SitePin { cas: cas.to_vec(), signers: Vec::new(), file: PinFile::Image });
    let write = |text: &str| fs::write(root.path().join("imprint/site"), text).unwrap();
    write(&format!("# our CAs\n\n{digest} # the old one\n{}\n", digest.to_uppercase()));
    assert_eq!(pin(root.path()).unwrap(), ca(&[bytes, bytes]));
    write(&format!("{digest}\nabc\n"));
    let refused = || {
        let Err(PinError::Text { source, .. }) = pin(root.path()) else { panic!("{:?}", pin(root.path())) };
        source
    };
    assert_eq!(refused(), PinTextError::Line { line: 2 });
    fs::write(root.path().join("imprint/site"), [b"# M\xfcller\n", digest.as_bytes()].concat()).unwrap();
    assert_eq!(pin(root.path()).unwrap(), ca(&[bytes]), "a remark in another encoding");
    write("# nothing yet\n");
    assert_eq!(refused(), PinTextError::Empty);
}

/// An operator who is sent to another file than the one that was read finds nothing wrong in it.
#[test]
fn the_file_that_was_read_is_named() {
    let root = tempfile::tempdir().unwrap();
    let signers = SitePin::parse(SIGNERS.as_bytes()).unwrap().signers;
    for (path, file, shown) in [
        (INSTALLED, PinFile::System, "/etc/imprint/site on this system"),
        // The second is not looked at where the first is.
        (PATH, PinFile::Image, "/imprint/site in this image"),
    ] {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, SIGNERS).unwrap();
        let read = pin(root.path()).unwrap().unwrap();
        assert_eq!(read, SitePin { cas: Vec::new(), signers: signers.clone(), file });
        let error = judge(None, Some(&read), &aad(None)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the payload is not signed, and {shown} names signers (")), "{error}");
        let one = SitePin { signers: signers[..1].to_vec(), ..read };
        let error = judge(Some(&Signed::decode(ED25519).unwrap()), Some(&one), &aad(None)).unwrap_err().to_string();
        assert!(error.contains(&format!(", and {shown} names only {}; ", signers[0].kid())), "{error}");
        let at = path.display();
        for (text, want) in
            [("abc\n", "line 1 is wrong; "), ("\n", "it names no CA"), ("signer p256 x\n", "the key in line 1 ")]
        {
            fs::write(&path, text).unwrap();
            let error = chain(&pin(root.path()).unwrap_err());
            assert!(error.starts_with(&format!("site pin {at}: {want}")), "{error}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(chain(&pin(root.path()).unwrap_err()).starts_with(&format!("reading the site pin {at}: ")));
    }
}

/// A site pin that another user of the system can write says nothing: whoever brings a payload could bring the pin.
#[test]
fn a_site_pin_that_others_can_write_is_refused() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let root = tempfile::tempdir().unwrap();
    let (folder, file) = (root.path().join("etc/imprint"), root.path().join("etc/imprint/site"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(&file, "11".repeat(32)).unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let words = || pin(root.path()).map_err(|error| error.to_string().replace(&root.path().display().to_string(), ""));
    for (of_folder, of_file, want) in [
        (0o755, 0o644, None),
        (0o700, 0o400, None),
        (0o755, 0o664, Some("/etc/imprint/site has mode 0664")),
        (0o755, 0o646, Some("/etc/imprint/site has mode 0646")),
        (0o775, 0o644, Some("/etc/imprint has mode 0775")),
        (0o1777, 0o644, Some("/etc/imprint has mode 1777")),
    ] {
        set(&folder, of_folder);
        set(&file, of_file);
        match want {
            None => assert_eq!(words().unwrap().unwrap().cas, [[0x11; 32]]),
            Some(want) => assert!(words().unwrap_err().starts_with(want), "{:?}", words()),
        }
    }
    set(&folder, 0o755);
    // Only root can give a file away; others are as little vouched for then.
    if geteuid().is_root() {
        chown(&file, Some(65_534), None).unwrap();
        assert!(words().unwrap_err().starts_with("/etc/imprint/site belongs to user 65534, so root does not"));
        // In an initramfs the number is that of whoever made the archive.
        fs::create_dir(root.path().join("imprint")).unwrap();
        let there = root.path().join("imprint/site");
        fs::write(&there, "22".repeat(32)).unwrap();
        chown(&there, Some(1000), None).unwrap();
        assert_eq!(words().unwrap().unwrap().cas, [[0x22; 32]]);
    }
}

#[test]
fn signers_with_and_without_a_ca() {
    let pin = SitePin::parse(SIGNERS.as_bytes()).unwrap();
    assert_eq!((pin.cas.len(), pin.signers.len(), pin.has_signers()), (0, 2, true));
    let text = format!("{}\n  # the new one\r\n\t{}  # since May\r\n", "ab".repeat(32), pin.signers[1]);
    let both = SitePin::parse(text.as_bytes()).unwrap();
    assert_eq!(both, SitePin { cas: vec![[0xab; 32]], signers: vec![pin.signers[1].clone()], file: PinFile::Image });
}

/// A wrong line stops the boot. If it were passed over, the pin would let in too much or too little.
#[test]
fn a_line_that_is_no_signer_is_named() {
    let [p256, ed25519] = [0, 1].map(|n| SIGNERS.lines().nth(n).unwrap().split(' ').nth(2).unwrap());
    let longer = format!("{}AAAA", p256.replace("==", "AA"));
    // A point that is not on the curve.
    let point = format!("{}{}==", &p256[..36], "A".repeat(86));
    for (line, want) in [
        ("signer".to_owned(), "it must be the SHA-256"),
        ("signer p256".to_owned(), "it must be the SHA-256"),
        (format!("signer p384 {p256}"), "it must be the SHA-256"),
        (format!("signer P256 {p256}"), "it must be the SHA-256"),
        (format!("Signer p256 {p256}"), "it must be the SHA-256"),
        (format!("signer p256 {p256} x"), "it must be the SHA-256"),
        (format!("signer p256 {p256} x y"), "it must be the SHA-256"),
        (format!("p256 {p256}"), "it must be the SHA-256"),
        (format!("signer p256 {}", &p256[1..]), "the key in line 2 is not base64"),
        (format!("signer p256 {}", p256.trim_end_matches('=')), "the key in line 2 is not base64"),
        (format!("signer p256 {}", p256.replace('/', "_")), "the key in line 2 is not base64"),
        (format!("signer p256 {}", p256.replace("==", "=")), "the key in line 2 is not base64"),
        (format!("signer p256 {}", p256.replace("Q==", "R==")), "the key in line 2 is not base64"),
        (format!("signer p256 {ed25519}"), "is not the SubjectPublicKeyInfo (DER) of a key on P-256"),
        (format!("signer ed25519 {p256}"), "is not the SubjectPublicKeyInfo (DER) of an Ed25519 key"),
        (format!("signer p256 {longer}"), "is not the SubjectPublicKeyInfo (DER) of a key on P-256"),
        (format!("signer p256 {point}"), "is not a point of the curve of p256"),
    ] {
        let error = SitePin::parse(format!("# ours\n{line}\n").as_bytes()).unwrap_err().to_string();
        assert!(error.contains("line 2 is ") && error.contains(want), "{line}: {error}");
    }
}

#[test]
fn whose_signature_counts() {
    let both = SitePin::parse(SIGNERS.as_bytes()).unwrap();
    let first = SitePin { signers: both.signers[..1].to_vec(), ..SitePin::default() };
    let ca_only = SitePin { cas: vec![[0; 32]], ..SitePin::default() };
    let [p256, ed25519] = [P256, ED25519].map(|bytes| Signed::decode(bytes).unwrap());
    let kids = |pin: &SitePin| Kids(pin.signers.iter().map(Signer::kid).collect());
    // Without a signer nothing changes.
    for pin in [None, Some(&ca_only)] {
        assert_eq!(judge(None, pin, &aad(None)), Ok(SignedBy::Nobody));
        assert_eq!(judge(Some(&p256), pin, &aad(None)), Ok(SignedBy::Unverified(p256.kid)));
        assert_eq!(
            judge(Some(&Signed { signature: &[0; 64], ..p256 }), pin, &aad(None)),
            Ok(SignedBy::Unverified(p256.kid))
        );
    }
    for signed in [&p256, &ed25519] {
        assert_eq!(judge(Some(signed), Some(&both), &aad(None)), Ok(SignedBy::Signer(signed.kid)));
    }
    assert_eq!(
        judge(None, Some(&both), &aad(None)),
        Err(SignatureError::Missing { signers: kids(&both), file: PinFile::Image })
    );
    let unknown = SignatureError::Unknown { kid: ed25519.kid, signers: kids(&first), file: PinFile::Image };
    assert_eq!(judge(Some(&ed25519), Some(&first), &aad(None)), Err(unknown));
    let forged = Signed { signature: &[1; 64], ..p256 };
    assert_eq!(judge(Some(&forged), Some(&both), &aad(None)), Err(SignatureError::Wrong { kid: p256.kid }));
    // The key id of one signer with the signature of the other.
    let swapped = Signed { kid: p256.kid, ..ed25519 };
    assert_eq!(judge(Some(&swapped), Some(&both), &aad(None)), Err(SignatureError::Wrong { kid: p256.kid }));
}
