use super::*;

const TYPICAL: &[u8] = include_bytes!("../../../tests/data/payload-typical.cbor");
// Made by tests/python/payload_peer.py with cbor2 and OpenSSL, from the keys in signer-p256.pem and signer-ed25519.pem.
const P256: &[u8] = include_bytes!("../../../tests/data/payload-signed-p256.cbor");
const ED25519: &[u8] = include_bytes!("../../../tests/data/payload-signed-ed25519.cbor");
const PIN: &str = include_str!("../../../tests/data/site-signers");

fn signer(algorithm: Algorithm) -> Signer {
    let line = PIN.lines().find(|line| line.contains(algorithm.word())).unwrap();
    Signer::new(algorithm, &Base64::decode_vec(line.split(' ').nth(2).unwrap()).unwrap()).unwrap()
}

/// If this test fails, do not change it: you have changed version 1 of the signed form.
#[test]
fn frozen_bytes_of_a_signed_payload() {
    let [p256, ed25519] = [P256, ED25519].map(|bytes| Signed::decode(bytes).unwrap());
    assert_eq!((p256.algorithm, p256.kid.to_string().as_str()), (Algorithm::Es256, "7d5926d85a5957e3"));
    assert_eq!((ed25519.algorithm, ed25519.kid.to_string().as_str()), (Algorithm::EdDsa, "62842bfc646e1cab"));
    assert_eq!((p256.payload, p256.offset, P256.len()), (TYPICAL, 20, 668));
    for (signed, bytes) in [(p256, P256), (ed25519, ED25519)] {
        assert_eq!(bytes[..3], [0xd2, 0x84, 0x4d]);
        assert_eq!(*encode(signed.algorithm, signed.kid, signed.payload, signed.signature), bytes);
        assert!(signed.is_by(&signer(signed.algorithm), b"imprint payload 1"));
    }
    let [a, b, c, d, e, f, g, h] = p256.kid.0;
    let header = [0x4d, 0xa2, 1, 0x26, 4, 0x48, a, b, c, d, e, f, g, h];
    let begin = [b"\x84\x6aSignature1".as_slice(), &header, b"\x51imprint payload 1\x59\x02\x46", TYPICAL].concat();
    assert_eq!(*to_be_signed(p256.algorithm, p256.kid, AAD, TYPICAL), begin);
}

#[test]
fn a_typical_signed_payload_is_small() {
    let bytes = encode(Algorithm::Es256, Kid([0; 8]), TYPICAL, &[0; 64]);
    assert!(bytes.len() <= 700, "{}", bytes.len());
    for length in [0, 23, 24, 255, 256, 65_535] {
        let payload = vec![0xa0; length];
        let bytes = encode(Algorithm::Es256, Kid([0; 8]), &payload, &[0; 64]);
        assert!(bytes.len() <= payload.len() + OVERHEAD);
        if bytes.len() <= MAX_LEN {
            assert_eq!(Signed::decode(&bytes).unwrap().payload, payload);
        }
    }
}

/// Each part of what is signed counts, and so does what is signed beside the payload.
#[test]
fn a_signature_is_good_for_what_was_signed_only() {
    for bytes in [P256, ED25519] {
        let signed = Signed::decode(bytes).unwrap();
        let signer = signer(signed.algorithm);
        assert!(signed.is_by(&signer, AAD));
        assert!(!signed.is_by(&signer, b""));
        assert!(!signed.is_by(&signer, b"imprint payload 2"));
        assert!(!Signed { payload: &signed.payload[1..], ..signed }.is_by(&signer, AAD));
        assert!(!Signed { signature: &[0; 64], ..signed }.is_by(&signer, AAD));
        assert!(!Signed { signature: &[0xff; 64], ..signed }.is_by(&signer, AAD));
        let other = match signed.algorithm {
            Algorithm::Es256 => Algorithm::EdDsa,
            Algorithm::EdDsa => Algorithm::Es256,
        };
        assert!(!Signed { algorithm: other, ..signed }.is_by(&signer, AAD));
        assert!(!signed.is_by(&self::signer(other), AAD));
    }
}

/// The signed payload with some of its bytes replaced.
fn with(at: usize, old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(&P256[at..at + old.len()], old);
    [&P256[..at], new, &P256[at + old.len()..]].concat()
}

/// One shape, one encoding. COSE libraries write each of these if they are asked to.
#[test]
fn every_other_shape_is_refused_by_name() {
    let end = P256.len() - 66;
    let header = &P256[2..16];
    let indefinite = [&P256[..16], b"\xa0\x5f", &P256[17..end], b"\xff", &P256[end..]].concat();
    for (bytes, want) in [
        (P256[1..].to_vec(), "byte 0, tag: want tag 18 (COSE_Sign1)"),
        (with(0, &[0xd2], &[0xd8, 98]), "byte 0, tag: tag 98; want tag 18 (COSE_Sign1), with one signature"),
        (with(0, &[0xd2], &[0xd1]), "byte 0, tag: tag 17; want tag 18 (COSE_Sign1), with one signature"),
        (
            with(0, &[0xd2], &[0xd8, 18]),
            "byte 0, tag: not in deterministic CBOR (RFC 8949 section 4.2): a number or length is not in its shortest form; use the encoder's canonical mode",
        ),
        ([&[0xd9, 0xd9, 0xf7], P256].concat(), "byte 0, tag: tag 55799; want tag 18 (COSE_Sign1), with one signature"),
        (with(1, &[0x84], &[0x83]), "byte 1, COSE_Sign1: not an array of 4 items"),
        (with(1, &[0x84], &[0x85]), "byte 1, COSE_Sign1: not an array of 4 items"),
        (
            with(1, &[0x84], &[0x9f]),
            "byte 1, COSE_Sign1: not in deterministic CBOR (RFC 8949 section 4.2): indefinite length, or a number that does not exist; use the encoder's canonical mode",
        ),
        (with(1, &[0x84], &[0xa4]), "byte 1, COSE_Sign1: want an array"),
        (
            with(2, &[0x4d], &[0x58, 13]),
            "byte 2, protected header: not in deterministic CBOR (RFC 8949 section 4.2): a number or length is not in its shortest form; use the encoder's canonical mode",
        ),
        (
            with(2, header, &[0x40]),
            "byte 3, protected header: not the map {1: algorithm, 4: key id of 8 bytes} in 13 bytes",
        ),
        (with(2, header, &[0xa0]), "byte 2, protected header: want a byte string"),
        (
            with(2, header, b"\x43\xa1\x01\x26"),
            "byte 3, protected header: not the map {1: algorithm, 4: key id of 8 bytes} in 13 bytes",
        ),
        // ES384; HMAC
        (
            with(2, &[0x4d, 0xa2, 1, 0x26], b"\x4e\xa2\x01\x38\x22"),
            "byte 5, protected header: an algorithm that is not -7 (ES256) or -8 (EdDSA)",
        ),
        (with(5, &[0x26], &[0x05]), "byte 5, protected header: an algorithm that is not -7 (ES256) or -8 (EdDSA)"),
        (
            with(2, &[0x4d, 0xa2, 1, 0x26, 4, 0x48], b"\x4e\xa2\x01\x26\x04\x58\x08"),
            "byte 6, protected header: not the map {1: algorithm, 4: key id of 8 bytes} in 13 bytes",
        ),
        (
            with(2, &[0x4d, 0xa2, 1, 0x26, 4, 0x48], b"\x4e\xa2\x01\x26\x04\x49\x00"),
            "byte 6, protected header: not the map {1: algorithm, 4: key id of 8 bytes} in 13 bytes",
        ),
        (
            with(16, &[0xa0], &[0xa1, 0x20, 0]),
            "byte 16, unprotected header: not empty; algorithm and key id are in the protected header, and there is nothing else",
        ),
        (
            with(16, &[0xa0], &[0xbf, 0xff]),
            "byte 16, unprotected header: not in deterministic CBOR (RFC 8949 section 4.2): indefinite length, or a number that does not exist; use the encoder's canonical mode",
        ),
        (
            with(17, &[0x59], &[0x5a, 0, 0]),
            "byte 17, payload: not in deterministic CBOR (RFC 8949 section 4.2): a number or length is not in its shortest form; use the encoder's canonical mode",
        ),
        (with(17, &P256[17..end], &[0xf6]), "byte 17, payload: want a byte string"),
        (
            indefinite,
            "byte 17, payload: not in deterministic CBOR (RFC 8949 section 4.2): indefinite length, or a number that does not exist; use the encoder's canonical mode",
        ),
        (
            with(17, &[0x59, 0x02, 0x46], &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            "byte 26, payload: the payload ends here; it was cut short, make or copy it again",
        ),
        (with(end, &[0x58, 0x40], &[0x58, 0x3f]), "byte 602, signature: 63 bytes, want 64"),
        ([&P256[..end], &[0x40]].concat(), "byte 602, signature: 0 bytes, want 64"),
        ([P256, b"\n"].concat(), "byte 668: 1 bytes after the payload; give one payload and nothing else"),
        (P256[..end].to_vec(), "byte 602, signature: the payload ends here; it was cut short, make or copy it again"),
        (P256[..600].to_vec(), "byte 20, payload: the payload ends here; it was cut short, make or copy it again"),
        (vec![0xd2; MAX_LEN + 1], "byte 0: 65537 bytes are too many for a payload, the limit is 65536"),
    ] {
        assert!(is_signed(&bytes));
        let found = Signed::decode(&bytes).map(|_| ()).unwrap_err();
        assert_eq!(found.to_string(), want);
        assert_eq!(Payload::unwrapped(&bytes), Err(found));
    }
}

/// The offset of a fault inside the signed payload counts from the beginning of the file.
#[test]
fn a_fault_inside_has_its_offset() {
    assert_eq!(Payload::unwrapped(P256), Payload::decode(TYPICAL));
    assert_eq!(Payload::unwrapped(TYPICAL), Payload::decode(TYPICAL));
    let inner = Payload::decode(&TYPICAL[..9]).unwrap_err();
    let bytes = encode(Algorithm::Es256, Kid([0; 8]), &TYPICAL[..9], &[0; 64]);
    assert_eq!((inner.offset, Payload::unwrapped(&bytes).unwrap_err().offset), (9, 18 + 9));
    // Signed twice.
    let twice = encode(Algorithm::Es256, Kid([0; 8]), P256, &[0; 64]);
    assert_eq!(Payload::unwrapped(&twice).unwrap_err().offset, 20);
}

#[test]
fn keys_are_of_their_algorithm_and_on_their_curve() {
    let (p256, ed25519) = (signer(Algorithm::Es256), signer(Algorithm::EdDsa));
    for (algorithm, spki, want) in [
        (Algorithm::Es256, ed25519.spki.clone(), KeyError::Spki(Algorithm::Es256)),
        (Algorithm::EdDsa, p256.spki.clone(), KeyError::Spki(Algorithm::EdDsa)),
        (Algorithm::Es256, p256.spki[..90].to_vec(), KeyError::Spki(Algorithm::Es256)),
        (Algorithm::Es256, [&p256.spki[..], &[0]].concat(), KeyError::Spki(Algorithm::Es256)),
        (Algorithm::Es256, Vec::new(), KeyError::Spki(Algorithm::Es256)),
        // The coordinates are 0.
        (Algorithm::Es256, [&p256.spki[..27], &[0; 64]].concat(), KeyError::Point(Algorithm::Es256)),
        (Algorithm::EdDsa, ed25519.spki[..43].to_vec(), KeyError::Spki(Algorithm::EdDsa)),
    ] {
        assert_eq!(Signer::new(algorithm, &spki), Err(want));
    }
    assert_eq!(format!("{p256}\n{ed25519}\n"), PIN);
    assert_eq!(p256.kid().0, sha256(&p256.spki)[..8]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(head in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..24), cut in 0usize..668, at in 0usize..668, byte: u8) {
        let mut bytes = P256.to_vec();
        bytes[at] = byte;
        for bytes in [[&head[..], &P256[cut..]].concat(), bytes] {
            if let Ok(signed) = Signed::decode(&bytes) {
                proptest::prop_assert_eq!(&*encode(signed.algorithm, signed.kid, signed.payload, signed.signature), &bytes);
            }
        }
    }
}
