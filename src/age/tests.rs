use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::digest::sha256;

/// The key of many files in tests/data/age.
const IDENTITY: &str = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";

fn identity() -> Identity {
    Identity::parse(IDENTITY).unwrap()
}

fn header_error(line: usize, fault: HeaderError) -> AgeError {
    AgeError::Header { line, fault }
}

/// A file for [`identity`], with its header's lines apart.
fn sample(plain: &[u8]) -> (Vec<String>, Vec<u8>) {
    let file = encrypt(plain, &[identity().recipient()]).unwrap();
    let length = MAGIC_AND_ONE;
    let head = String::from_utf8(file[..length].to_vec()).unwrap();
    assert!(head.ends_with('\n'));
    (head.lines().map(str::to_owned).collect(), file[length..].to_vec())
}

const MAGIC_AND_ONE: usize = header::MAGIC.len() + header::STANZA_LEN + header::END_LEN;

fn joined(lines: &[String], rest: &[u8]) -> Vec<u8> {
    let mut file = lines.join("\n").into_bytes();
    file.push(b'\n');
    file.extend_from_slice(rest);
    file
}

/// Vectors of age's authors (tests/data/age/README): each file is opened, or refused for the reason that they name.
#[test]
fn the_vectors_of_the_format() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/age");
    let (mut count, mut wrong) = (0, Vec::new());
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "README" {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let items: BTreeMap<&str, &str> =
            std::str::from_utf8(&bytes[..end]).unwrap().lines().filter_map(|line| line.split_once(": ")).collect();
        let mut age = bytes[end + 2..].to_vec();
        if items.contains_key("compressed") {
            age = miniz_oxide::inflate::decompress_to_vec_zlib(&age).unwrap();
        }
        let text = std::str::from_utf8(&bytes[..end]).unwrap();
        let key =
            text.lines().filter_map(|line| line.strip_prefix("identity: ")).find(|key| !key.contains("-PQ-")).unwrap();
        let identity = Identity::parse(key).unwrap();
        assert_eq!(identity.to_text().as_str(), key);
        let found = match decrypt(&age, &identity) {
            Ok(plain) => {
                assert_eq!(crate::hex::encode(&sha256(&plain)), items["payload"], "{name}");
                assert_eq!(check(&age), Ok(()), "{name}");
                "success"
            }
            Err(AgeError::OtherKey { .. }) => "no match",
            Err(AgeError::Mac) => "HMAC failure",
            // For the vectors the nonce belongs to the header.
            Err(AgeError::NotAge | AgeError::Header { .. } | AgeError::LowOrder | AgeError::NoNonce) => {
                "header failure"
            }
            Err(AgeError::NoLastChunk | AgeError::EmptyLastChunk | AgeError::Chunk(_)) => "payload failure",
            Err(error) => panic!("{name}: {error}"),
        };
        if found != items["expect"] {
            wrong.push(format!("{name}: {found}, want {}", items["expect"]));
        }
        count += 1;
    }
    assert_eq!((wrong, count), (Vec::new(), 68));
}

/// Lengths about the limits of chunks, for one recipient and for several; each of them opens the file, and nobody else does.
#[test]
fn what_is_encrypted_is_decrypted() {
    let others = [Identity::generate().unwrap(), Identity::generate().unwrap()];
    let recipients = [others[0].recipient(), identity().recipient(), others[1].recipient()];
    let text: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    for length in [0, 1, 15, 16, 17, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 200_000] {
        let file = encrypt(&text[..length], &recipients).unwrap();
        assert_eq!(file.len(), encrypted_len(length, 3));
        assert!(looks_like(&file));
        assert_eq!(check(&file), Ok(()));
        for identity in others.iter().chain([&identity()]) {
            assert_eq!(**decrypt(&file, identity).unwrap(), text[..length]);
        }
        assert_eq!(decrypt(&file, &Identity::generate().unwrap()), Err(AgeError::OtherKey { stanzas: 3 }));
    }
    assert_ne!(encrypt(b"x", &recipients).unwrap(), encrypt(b"x", &recipients).unwrap(), "the same key twice");
    assert_eq!(encrypt(b"x", &[]), Err(AgeError::Recipients(0)));
    assert_eq!(encrypt(b"x", &[identity().recipient(); 33]), Err(AgeError::Recipients(33)));
    assert_eq!(decrypt(&encrypt(b"x", &[identity().recipient(); 32]).unwrap(), &identity()).unwrap().as_slice(), b"x");
}

/// Attack: a bit of a file on its way. Nothing but the text as it was comes out, and no part of it.
#[test]
fn a_bit_flipped_anywhere() {
    let plain = vec![7; 65_536 + 100];
    let (identity, good) = (identity(), encrypt(&plain, &[identity().recipient()]).unwrap());
    for at in (0..500).chain((500..good.len()).step_by(997)).chain(good.len() - 200..good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let error = decrypt(&bad, &identity).expect_err(&format!("byte {at}"));
        assert!(!error.to_string().is_empty());
    }
}

/// The accident: a download that ends early. Without a key it is noticed in the header; with it, anywhere.
#[test]
fn a_cut_at_every_length() {
    let (identity, good) = (identity(), encrypt(&[7; 300], &[identity().recipient()]).unwrap());
    for length in 0..good.len() {
        let cut = &good[..length];
        let error = decrypt(cut, &identity).expect_err(&format!("{length} bytes"));
        let want = match length {
            0 => AgeError::NotAge,
            1..MAGIC_AND_ONE => header_error(good[..length].split(|byte| *byte == b'\n').count(), HeaderError::Cut),
            _ => match length - MAGIC_AND_ONE {
                0..16 => AgeError::NoNonce,
                16 => AgeError::NoLastChunk,
                _ => AgeError::Chunk(1),
            },
        };
        assert_eq!(error, want, "{length} bytes");
        assert_eq!(check(cut).is_err(), length < MAGIC_AND_ONE + 16 + 16);
    }
    // Two chunks, cut between them.
    let good = encrypt(&[7; 70_000], &[identity.recipient()]).unwrap();
    let first = MAGIC_AND_ONE + 16 + 65_536 + 16;
    assert_eq!(decrypt(&good[..first], &identity), Err(AgeError::Chunk(1)));
    assert_eq!(decrypt(&good[..first + 16], &identity), Err(AgeError::EmptyLastChunk));
    assert_eq!(decrypt(&good[..first + 15], &identity), Err(AgeError::Chunk(2)));
    assert_eq!(decrypt(&[&good[..], b"x"].concat(), &identity), Err(AgeError::Chunk(2)));
}

/// Chunks that change places, or are of another file.
#[test]
fn chunks_keep_their_places() {
    let identity = identity();
    let good = encrypt(&[7; 3 * 65_536], &[identity.recipient()]).unwrap();
    let begin = MAGIC_AND_ONE + 16;
    let chunks: Vec<&[u8]> = good[begin..].chunks(65_536 + 16).collect();
    let with = |order: &[usize]| {
        let chunks: Vec<u8> = order.iter().flat_map(|index| chunks[*index].to_vec()).collect();
        decrypt(&[&good[..begin], &chunks].concat(), &identity)
    };
    assert!(with(&[0, 1, 2]).is_ok());
    for (order, chunk) in
        [(vec![1, 0, 2], 1), (vec![0, 2], 2), (vec![0, 1], 2), (vec![0, 1, 1, 2], 3), (vec![0, 1, 2, 2], 3)]
    {
        assert_eq!(with(&order), Err(AgeError::Chunk(chunk)), "{order:?}");
    }
}

/// Each rule of the header, by name.
#[test]
fn what_a_header_may_not_be() {
    let (lines, rest) = sample(b"text");
    let change = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line.to_owned();
        decrypt(&joined(&lines, &rest), &identity())
    };
    let insert = |new: &[&str]| {
        let mut all = lines[..1].to_vec();
        all.extend(new.iter().map(|line| (*line).to_owned()));
        all.extend_from_slice(&lines[1..]);
        decrypt(&joined(&all, &rest), &identity())
    };
    let share = lines[1].strip_prefix("-> X25519 ").unwrap();
    let error = |line, fault| Err(header_error(line, fault));
    assert_eq!(change(0, "age-encryption.org/v2"), Err(AgeError::NotAge));
    assert_eq!(change(0, "-----BEGIN AGE ENCRYPTED FILE-----"), Err(AgeError::Armour));
    assert_eq!(change(1, "->"), error(2, HeaderError::Line));
    assert_eq!(change(1, "-> "), error(2, HeaderError::Words));
    assert_eq!(change(1, "-> X25519"), error(2, HeaderError::Share));
    assert_eq!(change(1, &format!("-> X25519  {share}")), error(2, HeaderError::Words));
    assert_eq!(change(1, &format!("-> X25519 {share} ")), error(2, HeaderError::Words));
    assert_eq!(change(1, &format!("-> X25519 {share} x")), error(2, HeaderError::Share));
    assert_eq!(change(1, &format!("-> X25519 {share}A")), error(2, HeaderError::Share));
    assert_eq!(change(1, &format!("-> X25519 {}", &share[1..])), error(2, HeaderError::Share));
    assert_eq!(change(1, &format!("-> X25519 {share}\r")), error(2, HeaderError::Words));
    assert_eq!(change(1, "-> X25519 é"), error(2, HeaderError::Words));
    assert_eq!(change(2, ""), error(3, HeaderError::BodyLength));
    assert_eq!(change(2, &lines[2][..40]), error(3, HeaderError::BodyLength));
    assert_eq!(change(2, &"A".repeat(65)), error(3, HeaderError::Body));
    assert_eq!(change(2, &format!("{}=", lines[2])), error(3, HeaderError::Base64));
    // Bits that are not used and not 0.
    let last = lines[2].chars().last().unwrap();
    let other = char::from_u32(u32::from(last) + 1).unwrap();
    assert_eq!(change(2, &format!("{}{other}", &lines[2][..42])), error(3, HeaderError::Base64));
    assert_eq!(change(3, "---"), error(4, HeaderError::Code));
    assert_eq!(change(3, &format!("{} ", lines[3])), error(4, HeaderError::Code));
    assert_eq!(change(3, &lines[3].replace("--- ", "---  ")), error(4, HeaderError::Code));
    assert_eq!(change(3, "-- x"), error(4, HeaderError::Line));
    assert_eq!(insert(&["--- AAAA"]), error(2, HeaderError::NoStanza));
    assert_eq!(insert(&["-> scrypt AAAAAAAAAAAAAAAAAAAAAA 18", ""]), error(5, HeaderError::Scrypt));
    assert_eq!(insert(&[format!("-> X25519 {}", "A".repeat(43)).as_str(), &"A".repeat(43)]), Err(AgeError::LowOrder));
    // Well-formed, and not what was made.
    assert_eq!(insert(&["-> other kind", ""]), Err(AgeError::Mac));
    assert_eq!(change(3, &format!("--- {}", "A".repeat(43))), Err(AgeError::Mac));
    assert_eq!(
        check(&joined(&[lines[0].clone(), "-> ssh-ed25519 x".into(), String::new(), lines[3].clone()], &rest)),
        Err(AgeError::OtherKey { stanzas: 0 })
    );
}

/// Attack: a header that goes on for ever.
#[test]
fn a_header_has_its_limits() {
    let begin = b"age-encryption.org/v1\n".to_vec();
    let stanzas = |count: usize| [begin.clone(), b"-> x y\n\n".repeat(count)].concat();
    assert_eq!(check(&stanzas(33)), Err(header_error(2 + 2 * 32, HeaderError::TooManyStanzas)));
    assert_eq!(check(&stanzas(32)), Err(header_error(2 + 2 * 32, HeaderError::Cut)));
    let long = [begin.clone(), b"-> x y\n".to_vec(), [[b'A'; 64].as_slice(), b"\n"].concat().repeat(1000)].concat();
    assert!(matches!(check(&long), Err(AgeError::Header { line: 254, fault: HeaderError::TooLong })));
    let line = [begin.clone(), b"-> ".to_vec(), vec![b'x'; 20_000], b"\n".to_vec()].concat();
    assert_eq!(check(&line), Err(header_error(2, HeaderError::TooLong)));
}

/// Attack: a recipient whose secret everybody knows (RFC 7748 §6.1).
#[test]
fn a_point_of_low_order_is_no_recipient() {
    // 0, 1, and the other points of low order with both encodings: https://cr.yp.to/ecdh.html#validate
    for point in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let bytes: [u8; 32] = crate::hex::decode(point).unwrap().try_into().unwrap();
        assert_eq!(Recipient::parse(&bech32::encode("age", &bytes)), Err(KeyTextError::LowOrder), "{point}");
        assert_eq!(encrypt(b"x", &[Recipient::of_point(bytes)]), Err(AgeError::LowOrder), "{point}");
    }
}

#[test]
fn keys_as_text() {
    let text = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    // to_bech32 of tests/python/age_peer.py, and OpenSSL's public key.
    assert_eq!(Identity::from_bytes(&[0x42; 32]).to_text().as_str(), text);
    let identity = Identity::parse(text).unwrap();
    assert_eq!(identity, Identity::from_bytes(&[0x42; 32]));
    let recipient = identity.recipient();
    assert_eq!(recipient.to_string(), "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj");
    assert_eq!(Recipient::parse(&recipient.to_string()), Ok(recipient));
    assert_eq!(format!("{identity:?} {recipient:?}"), format!("Identity {{ .. }} Recipient({recipient})"));
    let file = format!("# created: 2026-01-01T00:00:00Z\n# public key: {recipient}\n{text}\n\n");
    assert_eq!(Identity::parse(&file), Ok(identity));
    for (bad, why) in [
        ("", KeyTextError::Identity),
        ("# nothing\n", KeyTextError::Identity),
        (&text.to_lowercase(), KeyTextError::Identity),
        (&text.replace("GFPYY", "gfpyy"), KeyTextError::Identity),
        (&text.replace("EGAEX", "EGAEQ"), KeyTextError::Identity),
        (&text[..text.len() - 1], KeyTextError::Identity),
        (&format!("{text}Q"), KeyTextError::Identity),
        (&format!("{text}\n{text}"), KeyTextError::Identity),
        (&text.replace("AGE-SECRET-KEY-1", "AGE-PLUGIN-X-1"), KeyTextError::Identity),
        (&recipient.to_string(), KeyTextError::NotSecret),
    ] {
        assert_eq!(Identity::parse(bad), Err(why), "{bad}");
        assert!(!why.to_string().contains("GFPYYSJ"));
    }
    let good = recipient.to_string();
    for (bad, why) in [
        (String::new(), KeyTextError::Recipient),
        (good.to_uppercase(), KeyTextError::Recipient),
        (good.replace("age1z", "age1Z"), KeyTextError::Recipient),
        (good.replace("nujwj", "nujwq"), KeyTextError::Recipient),
        (format!("{good} "), KeyTextError::Recipient),
        (format!("{good}q"), KeyTextError::Recipient),
        ("ssh-ed25519 AAAA".to_owned(), KeyTextError::Recipient),
        (text.to_owned(), KeyTextError::Secret),
        (text.to_lowercase(), KeyTextError::Secret),
    ] {
        assert_eq!(Recipient::parse(&bad), Err(why), "{bad}");
    }
}

/// Every bit of a key's text is checked.
#[test]
fn a_slip_of_the_pen_is_no_key() {
    let good = identity().recipient().to_string();
    for at in 4..good.len() {
        for digit in "qpzry9x8gf2tvdw0s3jn54khce6mua7l".chars() {
            let mut bad: Vec<char> = good.chars().collect();
            if bad[at] == digit {
                continue;
            }
            bad[at] = digit;
            assert!(Recipient::parse(&bad.into_iter().collect::<String>()).is_err());
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), lines in "(-> |--- |X25519 |[A-Za-z0-9+/=]{0,70}|\n){0,20}") {
        for file in [bytes.clone(), [header::MAGIC, lines.as_bytes(), &bytes].concat()] {
            let _ = check(&file);
            proptest::prop_assert!(decrypt(&file, &identity()).is_err());
        }
        let _ = (Identity::parse(&lines), Recipient::parse(&lines));
    }

    #[test]
    fn keys_are_read_as_they_are_written(bytes: [u8; 32]) {
        let identity = Identity::from_bytes(&bytes);
        proptest::prop_assert_eq!(Identity::parse(&identity.to_text()).unwrap(), identity.clone());
        let recipient = identity.recipient();
        proptest::prop_assert_eq!(Recipient::parse(&recipient.to_string()).unwrap(), recipient);
    }
}

/// A node that boots again knows its own file, and no two texts share what must differ.
#[test]
fn a_file_for_oneself_is_the_same_each_time_and_another_for_another_text() {
    let (identity, other) = (Identity::from_bytes(&[7; 32]), Identity::from_bytes(&[8; 32]));
    let file = encrypt_for_self(b"text", &identity, b"info").unwrap();
    assert_eq!(file, encrypt_for_self(b"text", &identity, b"info").unwrap());
    assert_eq!(**decrypt(&file, &identity).unwrap(), *b"text");
    assert!(decrypt(&file, &other).is_err());
    // The share, the nonce and every chunk are others: nothing behind the first line is the same.
    let share = |file: &[u8]| file[header::MAGIC.len()..][..header::STANZA_LEN].to_vec();
    let nonce = |file: &[u8]| file[header::MAGIC.len() + header::STANZA_LEN + header::END_LEN..][..NONCE_LEN].to_vec();
    for another in [
        encrypt_for_self(b"texu", &identity, b"info").unwrap(),
        encrypt_for_self(b"text", &other, b"info").unwrap(),
        encrypt_for_self(b"text", &identity, b"infp").unwrap(),
    ] {
        assert_eq!(another.len(), file.len());
        assert!(share(&another) != share(&file) && nonce(&another) != nonce(&file));
    }
}
