use base64ct::{Base64, Encoding};

use super::*;

const PAYLOAD: &[u8] = include_bytes!("../../../tests/data/payload-typical.cbor");

/// The payload in armour, in lines of 76 characters.
fn armour(payload: &[u8]) -> String {
    let text = Base64::encode_string(payload);
    let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN IMPRINT PAYLOAD-----\n{}\n-----END IMPRINT PAYLOAD-----\n", lines.join("\n"))
}

fn payload() -> Content {
    Content::Payload(Secret::new(PAYLOAD.to_vec()))
}

fn read(text: impl AsRef<[u8]>) -> Content {
    user_data(text.as_ref())
}

const FOREIGN: Content = Content::Foreign(OTHER);

#[test]
fn armour_alone() {
    let text = armour(PAYLOAD);
    for text in [
        text.clone(),
        text.replace('\n', "\r\n"),
        format!("\u{feff}{text}"),
        format!("# for node1\n\n#made today\n{text}\n\n# the end"),
        format!("  {}", text.trim_end().replace('\n', "  \n\t")),
        // In one line, and one character a line.
        format!("-----BEGIN IMPRINT PAYLOAD-----\n{}\n-----END IMPRINT PAYLOAD-----", Base64::encode_string(PAYLOAD)),
        Base64::encode_string(PAYLOAD)
            .chars()
            .fold("-----BEGIN IMPRINT PAYLOAD-----".to_owned(), |all, one| format!("{all}\n{one}"))
            + "\n-----END IMPRINT PAYLOAD-----",
    ] {
        assert_eq!(read(&text), payload(), "{text}");
    }
}

#[test]
fn what_is_for_somebody_else_is_no_error() {
    for text in [
        &b""[..],
        b"\n\n",
        b"#cloud-config\nusers: []\n",
        b"#!/bin/sh\nexit 0\n",
        b"{\"ignition\": {\"version\": \"3.4.0\"}}",
        b"#include\nhttps://example.org/\n",
        b"Content-Type: text/plain\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"Content-Type: multipart/mixed; boundary=\"b\"\n\n--b\nContent-Type: text/cloud-config\n\nusers: []\n--b--\n",
        b"Content-Type: multipart/mixed\n\nno boundary\n",
        b"Content-Type: multipart/mixed; boundary=\n\n--\n\n----\n",
        b"MIME-Version: 1.0\n",
    ] {
        assert_eq!(read(text), FOREIGN, "{}", String::from_utf8_lossy(text));
    }
    let Content::Foreign(why) = read(b"\x1f\x8b\x08\0\0") else { panic!() };
    assert_eq!(why, "it is compressed with gzip, which is not read");
    for text in [&b"\xff\xfe#\0c\0"[..], b"\xfe\xff\0#\0c"] {
        assert_eq!(read(text), Content::Foreign("its text is in UTF-16, which is not read"));
        assert_eq!(vendor_data(text), Content::Foreign("its text is in UTF-16, which is not read"));
    }
    // Not every file with a NUL and these words in it is text.
    assert_eq!(read(b"\x7fELF\0\0IMPRINT PAYLOAD\0"), FOREIGN);
    // A cloud-config may write a file with a payload in it. That file is not our payload.
    let text = format!("#cloud-config\nwrite_files:\n- content: |\n    {}", armour(PAYLOAD).replace('\n', "\n    "));
    let Content::Foreign(why) = read(text) else { panic!() };
    assert_eq!(why, "a payload in it is not read, as other text stands before it");
}

#[test]
fn damage_to_what_is_ours_is_an_error() {
    let text = armour(PAYLOAD);
    let end = "-----END IMPRINT PAYLOAD-----\n";
    for (text, want) in [
        (text.replace(end, ""), "its payload has no line -----END IMPRINT PAYLOAD-----; it was cut short"),
        (text[..200].to_owned(), "its payload has no line -----END IMPRINT PAYLOAD-----; it was cut short"),
        (text.replacen("-----\n", "-----\n*", 1), "the base64 of its payload is damaged; copy it again"),
        (text.replacen("-----\n", "-----\nA", 1), "the base64 of its payload is damaged; copy it again"),
        (
            format!("{text}#!/bin/sh\n\necho\n"),
            "other text stands behind its payload; give one payload and nothing else",
        ),
        (format!("{text}{text}"), "other text stands behind its payload; give one payload and nothing else"),
        (armour(b""), "its payload is empty"),
        (armour(&vec![0; MAX_LEN + 1]), "its payload has more than 65536 bytes"),
        (
            text.replacen("-----BEGIN", "----BEGIN", 1),
            "the line where its payload begins is not -----BEGIN IMPRINT PAYLOAD-----",
        ),
        (
            text.replacen("-----BEGIN", "\u{2014}BEGIN", 1),
            "the line where its payload begins is not -----BEGIN IMPRINT PAYLOAD-----",
        ),
    ] {
        assert_eq!(read(&text), Content::Damaged(want), "{text}");
    }
    assert!(matches!(read(armour(&vec![0; MAX_LEN])), Content::Payload(_)));
}

fn multipart(parts: &[&str]) -> String {
    let mut text = "From nobody Fri Jan 11 07:00:00 1980\nContent-Type: multipart/mixed;\n boundary=\"==x:1\"\nMIME-Version: 1.0\n\n".to_owned()
        + "This is for readers of the last century.\n";
    for part in parts {
        text += &format!("--==x:1\n{part}\n");
    }
    text + "--==x:1--\nand this as well\n"
}

const CLOUD_CONFIG: &str =
    "Content-Type: text/cloud-config; charset=\"us-ascii\"\nMIME-Version: 1.0\n\n#cloud-config\nusers: []\n";

#[test]
fn one_part_of_a_multipart() {
    let text = armour(PAYLOAD);
    let quoted = text.replace('=', "=3D").replace('B', "=42=\n").replace('c', "=63");
    let coded = Base64::encode_string(text.as_bytes());
    let lines: Vec<&str> = coded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let nested =
        "Content-Type: Multipart/Related; start=x; boundary=y-1; type=\"a;b\\\"c\"\n\n--y-1\n\nfirst\n--y-1\n\n"
            .to_owned()
            + &text
            + "--y-1--\n";
    for part in [
        format!("Content-Type: application/x-imprint-payload\nContent-Transfer-Encoding: 7bit\n\n{text}"),
        format!("\n{text}"),
        text.clone(),
        format!("Content-Type: text/plain\n\n\u{feff}# ours\n{text}"),
        format!("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n{}", lines.join("\n")),
        format!("CONTENT-TRANSFER-ENCODING:\n Quoted-Printable\n\n{quoted}"),
        nested,
    ] {
        for text in [multipart(&[&part]), multipart(&[CLOUD_CONFIG, &part]), multipart(&[&part, CLOUD_CONFIG, &part])] {
            assert_eq!(read(&text), payload(), "{text}");
            assert_eq!(read(text.replace('\n', "\r\n")), payload(), "{text}");
            assert_eq!(read(format!("\u{feff}{text}")), payload(), "{text}");
            // The last delimiter is missing, as in a file that was cut short behind our part.
            assert_eq!(read(text.replace("--==x:1--\nand this as well\n", "")), payload(), "{text}");
        }
    }
    // The delimiter may be longer than it seems.
    let text = multipart(&[&format!("\n{text}"), CLOUD_CONFIG]).replace("==x:1\"", "==x:1 \"");
    assert_eq!(read(text), FOREIGN);
}

#[test]
fn a_message_without_parts() {
    let text = format!("MIME-Version: 1.0\nContent-Type: text/plain\n\n{}", armour(PAYLOAD));
    assert_eq!(read(text), payload());
}

#[test]
fn damage_in_a_part_is_an_error() {
    let text = armour(PAYLOAD);
    let cut = &text[..300];
    assert_eq!(
        read(multipart(&[CLOUD_CONFIG, &format!("\n{cut}"), &format!("\n{text}")])),
        Content::Damaged("its payload has no line -----END IMPRINT PAYLOAD-----; it was cut short")
    );
    let coded = Base64::encode_string(text.as_bytes());
    for coded in [&coded[..coded.len() / 2], &coded[..coded.len() / 2 - 1], &coded[..101], &coded[..102], &coded[..103]]
    {
        let part = format!("Content-Transfer-Encoding: base64\n\n{coded}");
        let Content::Damaged(why) = read(multipart(&[&part])) else { panic!("{part}") };
        assert_eq!(why, "its payload has no line -----END IMPRINT PAYLOAD-----; it was cut short");
    }
    let other = armour(b"\xa0");
    assert_eq!(
        read(multipart(&[&format!("\n{text}"), CLOUD_CONFIG, &format!("\n{other}")])),
        Content::Damaged("it has two parts with different payloads; remove one")
    );
    let Content::Foreign(why) =
        read(multipart(&[CLOUD_CONFIG, "\n\u{1f}\u{8b}", "Content-Transfer-Encoding: base64\n\nH4sIAAAA"]))
    else {
        panic!()
    };
    assert_eq!(why, "it is compressed with gzip, which is not read");
}

/// The accident: an editor saves the text in UTF-16, and the node boots on without a payload and without a word.
#[test]
fn a_payload_in_utf_16_is_damage() {
    let utf16 = || Content::Damaged("its text is in UTF-16; save it in UTF-8");
    let json = serde_json::json!({"imprint": armour(PAYLOAD)}).to_string();
    let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    for mark in ["\u{feff}", ""] {
        let text = format!("{mark}# for node1\r\n{}", armour(PAYLOAD));
        assert_eq!((read(little(&text)), read(big(&text))), (utf16(), utf16()));
        let json = format!("{mark}{json}");
        assert_eq!((vendor_data(&little(&json)), vendor_data(&big(&json))), (utf16(), utf16()));
        let part = Base64::encode_string(&little(&text));
        let part = format!("Content-Transfer-Encoding: base64\n\n{part}");
        assert_eq!(read(multipart(&[CLOUD_CONFIG, &part])), utf16());
    }
}

/// Python's email, which cloud-init uses, reads a boundary in these forms, too. The part is in base64, so a message whose
/// boundary was not understood would look like somebody else's.
#[test]
fn a_boundary_in_pieces_or_encoded() {
    let coded = Base64::encode_string(armour(PAYLOAD).as_bytes());
    let part = format!("Content-Transfer-Encoding: base64\n\n{coded}");
    let with = |boundary: &str| read(multipart(&[CLOUD_CONFIG, &part]).replace("boundary=\"==x:1\"", boundary));
    for boundary in [
        "boundary=\"==x:1\"",
        "boundary*=us-ascii''%3D%3Dx%3a1",
        "boundary*=''%3D%3Dx%3A1",
        "boundary*0*=us-ascii'en'%3D%3D; boundary*1=\"x:1\"",
        "Boundary*1*=x%3A1;\n charset=utf-8; BOUNDARY*0=\"==\"",
        "boundary*0=\"==x\"; boundary*1=\":\"; boundary*2*=%31",
    ] {
        assert_eq!(with(boundary), payload(), "{boundary}");
    }
    let many: String = (0..100).map(|n| format!("; boundary*{n}=a")).collect();
    let odd = ["boundary*0=\"==\"; boundary*2=\"x:1\"", "boundary*x=\"==x:1\"", "boundary*=\"==x:1\"", &many];
    for boundary in odd {
        assert_eq!(with(boundary), FOREIGN, "{boundary}");
    }
}

/// Multiparts in multiparts, and parts without end, cost no more than their bytes.
#[test]
fn a_message_that_is_too_deep_or_has_too_many_parts_is_passed_over() {
    let nest = |depth: usize| {
        let mut text = format!("\n{}", armour(PAYLOAD));
        for level in 0..depth {
            text = format!("Content-Type: multipart/mixed; boundary=b{level}.\n\n--b{level}.\n{text}\n--b{level}.--\n");
        }
        text
    };
    assert_eq!(read(nest(8)), payload());
    assert_eq!(read(nest(9)), Content::Foreign(MANY));
    assert_eq!(read(nest(2000)), Content::Foreign(MANY));
    let mut parts = vec!["\nx"; 300];
    let ours = format!("\n{}", armour(PAYLOAD));
    parts.push(&ours);
    assert_eq!(read(multipart(&parts)), Content::Foreign(MANY));
    assert_eq!(read(multipart(&parts[..256])), FOREIGN);
    assert_eq!(read(multipart(&parts[200..])), payload());
}

#[test]
fn a_key_of_the_vendor_data() {
    let json = |value: serde_json::Value| {
        vendor_data(serde_json::json!({"cloud-init": "#cloud-config", "imprint": value}).to_string().as_bytes())
    };
    assert_eq!(json(armour(PAYLOAD).into()), payload());
    assert_eq!(json(Base64::encode_string(PAYLOAD).into()), payload());
    assert_eq!(json(serde_json::Value::Null), Content::Foreign("it has no key imprint"));
    let no_string = Content::Damaged(
        "its key imprint is not a string; give it what imprint-host payload NODE --as user-data prints",
    );
    for value in [5.into(), serde_json::json!([armour(PAYLOAD)]), serde_json::json!({"payload": armour(PAYLOAD)})] {
        assert_eq!(json(value), no_string);
    }
    // Some editors write a byte order mark, and Python reads it.
    let text = format!("\u{feff}{}", serde_json::json!({"imprint": armour(PAYLOAD)}));
    assert_eq!(vendor_data(text.as_bytes()), payload());
    assert_eq!(json("".into()), Content::Damaged("its payload is empty"));
    assert_eq!(json("no base64!".into()), Content::Damaged("the base64 of its payload is damaged; copy it again"));
    for (text, want) in [
        ("{}", Content::Foreign("it has no key imprint")),
        ("{\"nested\": {\"imprint\": \"AAAA\"}}", Content::Foreign("it has no key imprint")),
        ("[]", Content::Foreign("it is no JSON object")),
        // serde would take the elements of a list for the fields of the object.
        ("[\"oA==\"]", Content::Foreign("it is no JSON object")),
        ("\"imprint\"", Content::Foreign("it is no JSON object")),
        ("", Content::Foreign("it is no JSON object")),
        (
            "{\"imprint\": \"oA==\"",
            Content::Damaged("it is not valid JSON, and has the word \"imprint\"; a JSON checker shows the place"),
        ),
        (
            "{\"imprint\": \"oA==\", \"imprint\": \"oQ==\"}",
            Content::Damaged("its key imprint stands twice; remove one"),
        ),
    ] {
        assert_eq!(vendor_data(text.as_bytes()), want, "{text}");
    }
    // The JSON is deeper than the stack.
    let deep = format!("{{\"a\":{}", "[".repeat(200_000));
    assert_eq!(vendor_data(deep.as_bytes()), Content::Foreign("it is no JSON object"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = (user_data(&bytes), vendor_data(&bytes));
    }

    /// Whatever happens to the text, the payload comes out whole, or not at all.
    #[test]
    fn a_damaged_message_gives_no_other_length(
        changes in proptest::collection::vec((0..1500usize, "[-=\n :;\"A#]"), 1..6),
    ) {
        let ours = format!("Content-Transfer-Encoding: base64\n\n{}", Base64::encode_string(armour(PAYLOAD).as_bytes()));
        let mut text = multipart(&[CLOUD_CONFIG, &ours]).into_bytes();
        for (at, byte) in changes {
            let at = at % text.len();
            text[at] = byte.as_bytes()[0];
        }
        if let Content::Payload(found) = user_data(&text) {
            assert!(found.expose().len() <= PAYLOAD.len() + 4);
        }
    }
}
