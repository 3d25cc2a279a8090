//! Sealed bundles: who signed what, and in which order a node looks at it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64ct::{Base64, Encoding};

use super::*;
use crate::payload::signed::{self, Algorithm};
use crate::pem;
use crate::time::Timestamp;
use statement::{AAD, Approver};

const SIGNER: &str = include_str!("../../../tests/data/signer-ed25519.pem");
const PIN: &str = include_str!("../../../tests/data/site-signers");

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_pkcs8(&pem::decode("PRIVATE KEY", SIGNER).unwrap()[0]).unwrap()
}

/// Both signers of the pin, P-256 first.
fn signers() -> Vec<Signer> {
    let spki = |line: &str| Base64::decode_vec(line.split(' ').nth(2).unwrap()).unwrap();
    let algorithms = [Algorithm::Es256, Algorithm::EdDsa];
    PIN.lines().zip(algorithms).map(|(line, algorithm)| Signer::new(algorithm, &spki(line)).unwrap()).collect()
}

fn sign_with(pair: &Ed25519KeyPair, aad: &[u8], statement: &[u8]) -> Vec<u8> {
    let signer = Signer::of_point(Algorithm::EdDsa, pair.public_key().as_ref()).unwrap();
    let text = signed::to_be_signed(Algorithm::EdDsa, signer.kid(), aad, statement);
    let signature = pair.sign(&text).as_ref().try_into().unwrap();
    signed::encode(Algorithm::EdDsa, signer.kid(), statement, &signature).to_vec()
}

fn stated(age: &[u8], counter: u64) -> Statement {
    let approver = Approver::try_from("admin").unwrap();
    Statement::of(age, name("node1"), counter, Timestamp::from_secs(1_795_400_000), approver)
}

fn sealed_as(age: &[u8], statement: &Statement) -> Vec<u8> {
    Sealed::join(&sign_with(&pair(), AAD, &statement.encode()), age)
}

fn sealed(bundle: &Bundle, counter: u64) -> Vec<u8> {
    let age = bundle.encrypt(&[identity().recipient()]).unwrap();
    sealed_as(&age, &stated(&age, counter))
}

fn opened(bytes: &[u8]) -> Result<(Statement, Bundle), BundleError> {
    open(bytes, &Expect { node: &name("node1"), least: 5, signers: &signers() }, &identity())
}

/// If this test fails, do not change it: you have changed version 1.
#[test]
fn frozen_bytes_of_a_sealed_bundle() {
    let (statement, bundle) = opened(FROZEN).unwrap();
    assert_eq!(bundle, frozen());
    let parts = Sealed::split(FROZEN).unwrap();
    assert_eq!(parts.kid(), signers()[0].kid());
    assert_eq!(parts.verify(&signers()), Ok(&statement));
    let want = Statement {
        node: name("node1"),
        counter: 9,
        signed: Timestamp::from_millis(1_795_400_000_000).unwrap(),
        approver: Approver::try_from("M. M\u{fc}ller").unwrap(),
        sha256: crate::digest::sha256(parts.age()),
        length: parts.age().len() as u64,
    };
    assert_eq!(statement, want);
    let [high, low] = (parts.age().len() as u16).to_be_bytes();
    let text = [
        b"\xa7\x00\x01\x01\x65node1\x02\x09\x03\x1b\x00\x00\x01\xa2\x06\x2d\xe2\x00\x04\x6aM. M\xc3\xbcller\x05\x58\x20".as_slice(),
        &want.sha256,
        &[6, 0x19, high, low],
    ]
    .concat();
    assert_eq!(crate::hex::encode(&want.encode()), crate::hex::encode(&text));
    assert_eq!(Statement::decode(&text), Ok(want));
    // sha256sum and Crockford's base32 of the encrypted file.
    assert_eq!(statement.etag(), ETAG);
    assert_eq!((statement.code().to_string().as_str(), code(parts.age())), (CODE, statement.code()));
}

const ETAG: &str = "\"9-dee75d68b38d850a\"";
const CODE: &str = "VVKN-TT5K-HP2G-NF3M";

#[test]
fn what_is_sealed_is_opened() {
    let bundle = frozen();
    let bytes = sealed(&bundle, 7);
    let (statement, found) = opened(&bytes).unwrap();
    assert_eq!((statement.counter, &found), (7, &bundle));
    // Old content under a new counter: a rollback of the administrator's.
    assert_eq!(opened(&sealed(&bundle, 100)).unwrap().0.counter, 100);
}

/// The attacks and accidents of docs/bundle.md, each of which is refused for its own reason.
#[test]
fn bundles_that_are_refused() {
    let (bundle, key) = (frozen(), identity());
    let age = bundle.encrypt(&[key.recipient()]).unwrap();
    let good = stated(&age, 7);
    let kid = signers()[1].kid();
    assert!(opened(&sealed_as(&age, &good)).is_ok());

    let stranger = Ed25519KeyPair::generate().unwrap();
    let strange = Signer::of_point(Algorithm::EdDsa, stranger.public_key().as_ref()).unwrap().kid();
    let by_stranger = Sealed::join(&sign_with(&stranger, AAD, &good.encode()), &age);
    let known = signers().iter().map(Signer::kid).collect();
    assert_eq!(opened(&by_stranger), Err(BundleError::Signer { kid: strange, known }));
    let nobody = Expect { node: &name("node1"), least: 0, signers: &[] };
    let found = open(&sealed_as(&age, &good), &nobody, &key);
    assert_eq!(found, Err(BundleError::Signer { kid, known: Vec::new() }));

    // The signature of a payload is none of a bundle, and the other way round.
    for aad in [b"imprint payload 1".as_slice(), b"", b"imprint bundle 2"] {
        let other = Sealed::join(&sign_with(&pair(), aad, &good.encode()), &age);
        assert_eq!(opened(&other), Err(BundleError::Signature(kid)));
    }
    let forged = Statement { counter: 8, ..good.clone() };
    let signature = *signed::Signed::decode(&sign_with(&pair(), AAD, &good.encode())).unwrap().signature;
    let forged = signed::encode(Algorithm::EdDsa, kid, &forged.encode(), &signature);
    assert_eq!(opened(&Sealed::join(&forged, &age)), Err(BundleError::Signature(kid)));

    // Another file behind the statement.
    let length = age.len() as u64;
    let other = bundle.encrypt(&[key.recipient()]).unwrap();
    assert_eq!(opened(&sealed_as(&other, &good)), Err(BundleError::Digest));
    let longer = [&age[..], b"x"].concat();
    assert_eq!(opened(&sealed_as(&longer, &good)), Err(BundleError::Length { says: length, has: length + 1 }));

    let elsewhere = Statement { node: name("node2"), ..good.clone() };
    let found = opened(&sealed_as(&age, &elsewhere));
    assert_eq!(found, Err(BundleError::Node { bundle: name("node2"), this: name("node1") }));
    let old = Statement { counter: 4, ..good.clone() };
    assert_eq!(opened(&sealed_as(&age, &old)), Err(BundleError::Counter { has: 4, least: 5 }));
    let mine = Expect { node: &name("node1"), least: 5, signers: &signers() };
    let found = open(&sealed_as(&age, &good), &mine, &Identity::from_bytes(&[1; 32]));
    assert_eq!(found, Err(BundleError::Age(AgeError::OtherKey { stanzas: 1 })));

    // What a signer has signed, and should not have.
    let sealed_plain = |plain: &[u8], counter| {
        let age = age::encrypt(plain, &[key.recipient()]).unwrap();
        opened(&sealed_as(&age, &stated(&age, counter)))
    };
    assert_eq!(sealed_plain(b"", 7), Err(BundleError::Gzip(GzipError::Cut)));
    assert_eq!(sealed_plain(FROZEN_TAR, 7), Err(BundleError::Gzip(GzipError::NotGzip)));
    let other = Bundle::new(name("node2"), 1, Vec::new(), Vec::new()).unwrap().pack().unwrap();
    let error = BundleError::ManifestNode { statement: name("node1"), manifest: name("node2") };
    assert_eq!(sealed_plain(&other, 7), Err(error));
    let error = BundleError::ManifestCounter { statement: 6, manifest: 7 };
    assert_eq!(sealed_plain(&bundle.pack().unwrap(), 6), Err(error));
}

/// Attack: whoever is between node and server changes one bit. Nothing that was not signed is decrypted or unpacked.
#[test]
fn a_bit_flipped_anywhere() {
    let bytes = sealed(&frozen(), 7);
    let begin = bytes.len() - Sealed::split(&bytes).unwrap().age().len();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            match opened(&bad).expect_err(&format!("byte {at}")) {
                BundleError::Digest => assert!(at >= begin),
                BundleError::Statement { .. } | BundleError::Signer { .. } | BundleError::Signature(_) => {
                    assert!(at < begin, "byte {at}");
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_cut_at_every_length() {
    let bytes = sealed(&frozen(), 7);
    let age = Sealed::split(&bytes).unwrap().age().len();
    for length in 0..bytes.len() {
        match opened(&bytes[..length]).expect_err(&format!("{length} bytes")) {
            BundleError::Statement { why, .. } => {
                assert!(length < bytes.len() - age, "{length}");
                assert_eq!(why, "it ends here; it was cut short, fetch it again");
            }
            BundleError::Length { says, has } => {
                assert_eq!((says, has), (age as u64, (length + age - bytes.len()) as u64));
            }
            other => panic!("{length} bytes: {other:?}"),
        }
    }
    let long = vec![0xd2; MAX_SEALED + 1];
    assert_eq!(opened(&long), Err(BundleError::TooLong(MAX_SEALED + 1)));
}

/// One shape, one encoding.
#[test]
fn statements_that_are_refused() {
    let good = stated(b"age", 7).encode();
    let (digest, tail) = (crate::digest::sha256(b"age"), [6, 3]);
    let text = |version: &[u8], node: &[u8], counter: &[u8], time: &[u8], approver: &[u8], digest: &[u8]| {
        [&[0xa7, 0][..], version, &[1], node, &[2], counter, &[3], time, &[4], approver, &[5], digest, &tail].concat()
    };
    let (version, node, counter, approver) = ([1u8], b"\x65node1", [7u8], b"\x65admin");
    let time = [&[0x1b][..], &1_795_400_000_000u64.to_be_bytes()].concat();
    let digest = [&[0x58, 32][..], &digest].concat();
    assert_eq!(text(&version, node, &counter, &time, approver, &digest), good);
    let not_shortest = "not in deterministic CBOR (RFC 8949 section 4.2): a number or length is not in its shortest form; use the encoder's canonical mode";
    let long = [&[0x78, 65][..], &[b'x'; 65]].concat();
    for (bytes, place, why) in [
        (vec![], "statement", "it ends here; it was cut short, fetch it again"),
        (vec![0xa6], "statement", "not a map of 7 pairs"),
        (vec![0x87], "statement", "want a map"),
        ([&good[..], &[0]].concat(), "statement", "1 bytes after the statement"),
        (good[..good.len() - 1].to_vec(), "length", "it ends here; it was cut short, fetch it again"),
        (
            text(&[2], node, &counter, &time, approver, &digest),
            "version",
            "version 2, this program reads version 1; update the image",
        ),
        (text(&[0x18, 1], node, &counter, &time, approver, &digest), "version", not_shortest),
        (
            text(&version, b"\x62-x", &counter, &time, approver, &digest),
            "node",
            "\"-x\" is not a node name: 1 to 64 letters, digits, dots, hyphens and underscores, not starting with a dot or hyphen",
        ),
        (text(&version, b"\x45node1", &counter, &time, approver, &digest), "node", "want a text string"),
        (text(&version, b"\x62\xff\xff", &counter, &time, approver, &digest), "node", "not UTF-8"),
        (text(&version, node, &[0], &time, approver, &digest), "counter", "0, want 1 to 9007199254740992"),
        (text(&version, node, &[0x20], &time, approver, &digest), "counter", "want an unsigned integer"),
        (
            text(&version, node, b"\x1b\x00\x20\x00\x00\x00\x00\x00\x01", &time, approver, &digest),
            "counter",
            "9007199254740993, want 1 to 9007199254740992",
        ),
        (
            text(&version, node, &counter, &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], approver, &digest),
            "signed-at",
            "18446744073709551615 ms is after the year 9999",
        ),
        (
            text(&version, node, &counter, &time, b"\x60", &digest),
            "approver",
            "the name of an approver has 1 to 64 printable characters",
        ),
        (
            text(&version, node, &counter, &time, b"\x63a\nb", &digest),
            "approver",
            "the name of an approver has 1 to 64 printable characters",
        ),
        (
            text(&version, node, &counter, &time, &long, &digest),
            "approver",
            "the name of an approver has 1 to 64 printable characters",
        ),
        (text(&version, node, &counter, &time, approver, b"\x41x"), "sha256", "1 bytes, want 32"),
    ] {
        let signed = sign_with(&pair(), AAD, &bytes);
        match Sealed::split(&Sealed::join(&signed, b"age")) {
            Err(BundleError::Statement { place: found, why: words, offset }) => {
                assert_eq!((found.as_str(), words.as_str()), (place, why));
                assert!(offset <= signed.len());
            }
            other => panic!("{other:?}, want {why}"),
        }
    }
    // Keys out of order, and one more.
    let mut other = good.clone();
    other[1] = 1;
    assert!(
        matches!(Statement::decode(&other), Err(error) if error.to_string() == "byte 1, version: version is missing")
    );
    other = good.clone();
    other[3] = 7;
    assert!(matches!(Statement::decode(&other), Err(error) if error.to_string() == "byte 3, node: node is missing"));
    assert_eq!(Statement::decode(&good), Ok(stated(b"age", 7)));
    // A payload of imprint's is no bundle, nor is anything else.
    for bytes in [b"".as_slice(), b"\xa2\0\x01", include_bytes!("../../../tests/data/payload-signed-p256.cbor")] {
        assert!(matches!(Sealed::split(bytes), Err(BundleError::Statement { .. })));
    }
}

#[test]
fn approvers() {
    for good in ["a", "M. M\u{fc}ller", "ops@example.org", "\u{6771}\u{4eac}", &"x".repeat(64), "\"a\" & 'b' \\"] {
        assert_eq!(Approver::try_from(good).unwrap().as_str(), good);
    }
    for bad in ["", "a\n", "\x1b[2J", "a\u{202e}b", "a\u{200b}b", "a\0", &"x".repeat(65)] {
        assert!(Approver::try_from(bad).is_err(), "{bad:?}");
    }
}

/// The bar: what a typical node needs is at most 2 KiB on its way.
#[test]
fn a_typical_bundle_is_small() {
    let key = |seed: &str| {
        let noise = crate::digest::sha256(seed.as_bytes());
        let blob = [b"\0\0\0\x0bssh-ed25519\0\0\0\x20".as_slice(), &noise].concat();
        format!("ssh-ed25519 {} {seed}@example.org\n", Base64::encode_string(&blob))
    };
    let ca = pem::encode("CERTIFICATE", include_bytes!("../../../tests/data/ca.der"));
    let text = |at: &str, text: &str| file(at, text.as_bytes());
    let entries = vec![
        text("etc/hostname", "node-0042.example.org\n"),
        text(
            "etc/systemd/network/10-eno1.network",
            "[Match]\nMACAddress=52:54:00:12:34:56\n\n[Network]\nAddress=192.0.2.42/24\nGateway=192.0.2.1\nDNS=192.0.2.53\nDNS=198.51.100.53\nDomains=example.org\n",
        ),
        text(
            "etc/systemd/network/20-eno2.network",
            "[Match]\nName=eno2\n\n[Network]\nDHCP=yes\nVLAN=storage\n\n[Link]\nMTUBytes=9000\n",
        ),
        text("etc/systemd/timesyncd.conf.d/50-imprint.conf", "[Time]\nNTP=ntp1.example.org ntp2.example.org\n"),
        text(
            "etc/systemd/resolved.conf.d/50-imprint.conf",
            "[Resolve]\nDNS=192.0.2.53 198.51.100.53\nDomains=example.org\n",
        ),
        link("etc/localtime", "../usr/share/zoneinfo/Europe/Berlin"),
        Entry { mode: 0o700, ..directory("root/.ssh") },
        Entry { mode: 0o600, ..text("root/.ssh/authorized_keys", &[key("alice"), key("bob"), key("carol")].concat()) },
        text("usr/local/share/ca-certificates/site.crt", &ca),
        text(
            "etc/rsyslog.d/50-imprint.conf",
            "*.* action(type=\"omfwd\" target=\"syslog.example.org\" port=\"6514\" protocol=\"tcp\")\n",
        ),
    ];
    let units = vec![
        unit(Verb::Restart, "systemd-networkd.service"),
        unit(Verb::Restart, "systemd-timesyncd.service"),
        unit(Verb::Restart, "rsyslog.service"),
    ];
    let bundle = Bundle::new(name("node1"), 7, units, entries).unwrap();
    let bytes = sealed(&bundle, 7);
    let (tar, packed) = (bundle.tar().len(), bundle.pack().unwrap().len());
    assert!(bytes.len() <= 2048, "tar {tar}, gzip {packed}, sealed {} bytes", bytes.len());
    assert_eq!(opened(&bytes).unwrap().1, bundle);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), at in 0..FROZEN.len(), byte: u8) {
        let mut changed = FROZEN.to_vec();
        changed[at] = byte;
        for bad in [bytes, changed] {
            if bad != FROZEN {
                proptest::prop_assert!(opened(&bad).is_err());
            }
        }
    }
}
