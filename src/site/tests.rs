use std::fs;

use super::*;
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
    let ca = |cas: &[[u8; 32]]| Some(SitePin { cas: cas.to_vec(), signers: Vec::new() });
    let write = |text: &str| fs::write(root.path().join("imprint/site"), text).unwrap();
    write(&format!("# our CAs\n\n{digest} # the old one\n{}\n", digest.to_uppercase()));
    assert_eq!(pin(root.path()).unwrap(), ca(&[bytes, bytes]));
    write(&format!("{digest}\nabc\n"));
    assert!(matches!(pin(root.path()), Err(PinError::Line { line: 2 })));
    fs::write(root.path().join("imprint/site"), [b"# M\xfcller\n", digest.as_bytes()].concat()).unwrap();
    assert_eq!(pin(root.path()).unwrap(), ca(&[bytes]), "a remark in another encoding");
    write("# nothing yet\n");
    assert!(matches!(pin(root.path()), Err(PinError::Empty)));
}

#[test]
fn signers_with_and_without_a_ca() {
    let pin = SitePin::parse(SIGNERS.as_bytes()).unwrap();
    assert_eq!((pin.cas.len(), pin.signers.len(), pin.has_signers()), (0, 2, true));
    let text = format!("{}\n  # the new one\r\n\t{}  # since May\r\n", "ab".repeat(32), pin.signers[1]);
    let both = SitePin::parse(text.as_bytes()).unwrap();
    assert_eq!(both, SitePin { cas: vec![[0xab; 32]], signers: vec![pin.signers[1].clone()] });
}

/// A line that is wrong stops the boot; it is never passed over, for the pin would then let too much or too little in.
#[test]
fn a_line_that_is_no_signer_is_named() {
    let [p256, ed25519] = [0, 1].map(|n| SIGNERS.lines().nth(n).unwrap().split(' ').nth(2).unwrap());
    let longer = format!("{}AAAA", p256.replace("==", "AA"));
    // A point that is not on the curve.
    let point = format!("{}{}==", &p256[..36], "A".repeat(86));
    for (line, want) in [
        ("signer".to_owned(), "want the SHA-256"),
        ("signer p256".to_owned(), "want the SHA-256"),
        (format!("signer p384 {p256}"), "want the SHA-256"),
        (format!("signer P256 {p256}"), "want the SHA-256"),
        (format!("Signer p256 {p256}"), "want the SHA-256"),
        (format!("signer p256 {p256} x"), "want the SHA-256"),
        (format!("signer p256 {p256} x y"), "want the SHA-256"),
        (format!("p256 {p256}"), "want the SHA-256"),
        (format!("signer p256 {}", &p256[1..]), "the key of the signer is not in base64"),
        (format!("signer p256 {}", p256.trim_end_matches('=')), "the key of the signer is not in base64"),
        (format!("signer p256 {}", p256.replace('/', "_")), "the key of the signer is not in base64"),
        (format!("signer p256 {}", p256.replace("==", "=")), "the key of the signer is not in base64"),
        (format!("signer p256 {}", p256.replace("Q==", "R==")), "the key of the signer is not in base64"),
        (format!("signer p256 {ed25519}"), "is not the SubjectPublicKeyInfo (DER) of a key on P-256"),
        (format!("signer ed25519 {p256}"), "is not the SubjectPublicKeyInfo (DER) of an Ed25519 key"),
        (format!("signer p256 {longer}"), "is not the SubjectPublicKeyInfo (DER) of a key on P-256"),
        (format!("signer p256 {point}"), "is no point of the curve of p256"),
    ] {
        let error = SitePin::parse(format!("# ours\n{line}\n").as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("/imprint/site line 2: ") && error.contains(want), "{line}: {error}");
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
    assert_eq!(judge(None, Some(&both), &aad(None)), Err(SignatureError::Missing { signers: kids(&both) }));
    let unknown = SignatureError::Unknown { kid: ed25519.kid, signers: kids(&first) };
    assert_eq!(judge(Some(&ed25519), Some(&first), &aad(None)), Err(unknown));
    let forged = Signed { signature: &[1; 64], ..p256 };
    assert_eq!(judge(Some(&forged), Some(&both), &aad(None)), Err(SignatureError::Wrong { kid: p256.kid }));
    // The key of one signer, and the signature of the other.
    let swapped = Signed { kid: p256.kid, ..ed25519 };
    assert_eq!(judge(Some(&swapped), Some(&both), &aad(None)), Err(SignatureError::Wrong { kid: p256.kid }));
}
