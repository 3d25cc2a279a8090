//! Tests of both ends of the line protocol, over simulated lines that lose, change, repeat and reorder bytes.

#![allow(clippy::cast_possible_truncation, reason = "sizes are small")]

use imprint::pool::Seeded;
use imprint::time::Deadline;
use imprint_tests::line::{Faults, Objects, Random, session};

fn seeded() -> Seeded {
    Seeded::ready(Deadline::after(std::time::Duration::from_secs(5))).unwrap()
}

fn objects(random: &mut Random) -> Objects {
    let mut some = |least: u64, most: u64| {
        let count = least + random.below(most - least);
        random.bytes(count as usize)
    };
    Objects { payload: some(300, 900), request: some(200, 500), certificates: some(500, 1500), report: some(100, 900) }
}

fn typical() -> Objects {
    let mut random = Random(1);
    Objects {
        payload: random.bytes(574),
        request: random.bytes(400),
        certificates: random.bytes(1300),
        report: random.bytes(600),
    }
}

#[test]
fn a_clean_line() {
    for beacon in [false, true] {
        let course = session(&typical(), &Faults::default(), 115_200, beacon, 1, &seeded());
        println!("beacon {beacon}: {course:?}", course = (course.took_ms, course.delivery_ms, course.retransmits));
        assert_eq!(course.retransmits, 0);
    }
}

/// One frame is lost, whichever it is, on lines of all kinds; or three in a row. It is said again soon, whatever else is
/// said meanwhile.
#[test]
fn a_frame_that_is_lost_is_said_again() {
    let seeded = seeded();
    let mut slowest: f64 = 0.0;
    for (baud, unknown_speed) in [(115_200, false), (9600, false), (115_200, true)] {
        for beacon in [false, true] {
            let clean = Faults { unknown_speed, ..Faults::default() };
            let took = session(&typical(), &clean, baud, beacon, 7, &seeded).took_ms;
            for to_node in [true, false] {
                for more in [0, 2] {
                    for frame in 1..60 {
                        let faults = Faults { lost: Some((to_node, frame, more)), ..clean.clone() };
                        let course = session(&typical(), &faults, baud, beacon, 7, &seeded);
                        let later = course.took_ms - took;
                        slowest = slowest.max(later);
                        assert!(later < 15_000.0, "{later} ms later: {baud} {beacon} {faults:?}");
                    }
                }
            }
        }
    }
    println!("at most {slowest:.0} ms later");
}

/// A payload that the node cannot open comes again.
#[test]
fn a_payload_that_cannot_be_opened_comes_again() {
    for beacon in [false, true] {
        let faults = Faults { unopened: 2, ..Faults::default() };
        let course = session(&typical(), &faults, 115_200, beacon, 3, &seeded());
        assert!(course.took_ms < 3000.0, "{}", course.took_ms);
    }
}

/// Everything at once, in all proportions. Two halves, for two processors.
#[test]
fn faulty_lines_of_even_seeds() {
    five_thousand(0);
}

#[test]
fn faulty_lines_of_odd_seeds() {
    five_thousand(1);
}

fn five_thousand(first: u64) {
    let seeded = seeded();
    let mut worst: (f64, u64) = (0.0, 0);
    let mut ratios = Vec::new();
    for seed in (first..10_000).step_by(2) {
        let mut random = Random(seed);
        let objects = objects(&mut random);
        let beacon = random.below(2) == 0;
        let clean = session(&objects, &Faults::default(), 115_200, beacon, seed, &seeded).took_ms;
        let mut some = |most: u64| if random.below(3) == 0 { random.below(most) } else { 0 };
        let faults = Faults {
            drop: some(800),
            flip: some(800),
            duplicate: some(400),
            reorder: some(400),
            printk: some(800),
            frame_in: 0,
            echo: some(2) == 1,
            stall_ms: some(30),
            split: some(2) == 1,
            thief_ms: Some(some(300)).filter(|at| *at > 0).map(|at| (at, at + some(400))),
            node_restarts_ms: Some(some(500)).filter(|at| *at > 0),
            host_restarts_ms: Some(some(500)).filter(|at| *at > 0),
            delay_ms: some(30),
            fresh: seed % 4 > 1,
            ..Faults::default()
        };
        let course = session(&objects, &faults, 115_200, beacon, seed, &seeded);
        let ratio = course.took_ms / clean;
        ratios.push(ratio);
        if ratio > worst.0 {
            worst = (ratio, seed);
            if ratio > 15.0 {
                println!("seed {seed}: {ratio:.1} x clean ({clean:.0} ms, {:.0} ms), {faults:?}", course.took_ms);
            }
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "{} sessions complete, none with a wrong object; against the same over a clean line: median {:.2}, slowest \
         {:.1} (seed {})",
        ratios.len(),
        ratios[ratios.len() / 2],
        worst.0,
        worst.1
    );
    // In virtual time: the same on every machine.
    assert!(worst.0 <= 20.0, "seed {}", worst.1);
}

/// Everything that some program between the two ends acts on: what begins it, wherever it stands, and who says so.
const ESCAPES: [(&str, &[u8], &str); 21] = [
    (
        "ipmitool sol, ssh, cu, tip, conserver's -e ~",
        b"~",
        "ipmitool(1), \"sol\": ~. ; ssh(1), ESCAPE CHARACTERS; cu(1)",
    ),
    ("ipmiconsole", b"&", "ipmiconsole(8): --escape-char, & by default"),
    ("conman", b"&", "conman(1): &. &? &B, wherever it stands"),
    ("conserver", b"\x05", "console(1): ^Ec"),
    ("screen, minicom, picocom, QEMU's mux", b"\x01", "screen(1), minicom(1), picocom(1): C-a; qemu(1), -nographic"),
    ("tmux", b"\x02", "tmux(1): C-b"),
    ("telnet, virsh console, xl console", b"\x1d", "telnet(1), virsh(1): ^]"),
    ("iDRAC", b"\x1c", "racadm connect: ^\\"),
    ("iLO, RSA, HP MP", b"\x1b", "iLO: ESC ( ; IBM RSA: ESC ( ; terminals"),
    ("ALOM, Sun SC", b"#.", "ALOM guide: #. returns to the service processor"),
    ("Cyclades", b"\x1a", "Cyclades TS: ^Z"),
    ("docker attach, podman attach", b"\x10", "docker-attach(1): ^P^Q"),
    ("XON", b"\x11", "termios(3): IXON"),
    ("XOFF", b"\x13", "termios(3): IXON"),
    ("interrupt", b"\x03", "termios(3): VINTR"),
    ("end of file", b"\x04", "termios(3): VEOF"),
    ("literal next", b"\x16", "termios(3): VLNEXT"),
    ("telnet's IAC", b"\xff", "RFC 854"),
    ("NUL, and what a break looks like", b"\0", "termios(3): PARMRK"),
    ("backslash, which login and some shells take for a quote", b"\\", "agetty(8)"),
    ("KGDB", b"$3#33", "drivers/tty/serial/kgdb_nmi.c: the knock of kgdb_nmi.magic"),
];

/// By the grammar: what the alphabet and the ends of a frame have in them.
#[test]
fn no_escape_sequence_can_stand_in_a_frame() {
    use imprint::line::base85::ALPHABET;
    for (tool, sequence, source) in ESCAPES {
        let inside = |byte: &u8| ALPHABET.contains(byte) || b"\r\n".contains(byte);
        let possible = match sequence {
            // The mark stands at the beginning only, and behind it the first digit of a type.
            [b'#', second, ..] => (1..=12u8).any(|kind| {
                [0, u8::MAX].iter().any(|rest| {
                    let mut digits = Vec::new();
                    imprint::line::base85::encode(&[kind, *rest, *rest, *rest], &mut digits);
                    digits[0] == *second
                })
            }),
            // A mark in the middle of it: never behind a digit.
            _ => sequence.iter().all(inside),
        };
        assert!(!possible, "{tool} ({source})");
    }
}

/// And by looking at what is sent: a whole conversation over a line that spoils nothing.
#[test]
fn no_escape_sequence_stands_in_a_conversation() {
    let mut random = Random(7);
    for round in 0..20 {
        let course = session(&objects(&mut random), &Faults::default(), 115_200, round % 2 == 0, round, &seeded());
        for (tool, sequence, source) in ESCAPES {
            let found = course.capture.windows(sequence.len()).any(|window| window == sequence);
            assert!(!found, "{tool} ({source})");
        }
        assert!(course.capture.split(|byte| *byte == b'\n').all(|line| line.len() < 256));
    }
}

/// In whatever way a log is searched: raw, hexadecimal, base64 and base64url wherever the secret began in a group of
/// three, and our own base 85 wherever it began in a group of four.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding};
    let hex = imprint::hex::encode(secret);
    let mut all = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    for before in 0..4usize {
        let shifted = [&vec![0; before][..], secret].concat();
        // Without what the bytes around it have a part in.
        if before < 3 {
            let skip = [0, 2, 3][before];
            for text in [Base64Unpadded::encode_string(&shifted), Base64UrlUnpadded::encode_string(&shifted)] {
                all.push(text.as_bytes()[skip..text.len() - 2].to_vec());
            }
        }
        let mut text = Vec::new();
        imprint::line::base85::encode(&shifted, &mut text);
        let first = if before == 0 { 0 } else { 5 };
        let last = text.len() / 5 * 5;
        all.push(text[first..last].to_vec());
    }
    all
}

#[test]
fn a_sealed_conversation_holds_no_secret() {
    use imprint::payload::{Enrolment, Payload};
    let typical = include_bytes!("../data/payload-full.cbor");
    let credentials = include_bytes!("../data/payload-credentials.cbor");
    let mut searched = 0;
    for (index, bytes) in [&typical[..], &credentials[..]].into_iter().enumerate() {
        let mut payload = Payload::decode(bytes).unwrap();
        if let Enrolment::Credentials(credentials) = &mut payload.enrolment {
            // As long as a P-256 key in PKCS#8.
            credentials.key = imprint::secret::Secret::new(Random(99).bytes(138));
        }
        if let Enrolment::Csr(csr) = &mut payload.enrolment {
            // As long as imprint-host makes them.
            let secret = imprint::payload::Token::try_from("Zk3vX0pQw7LtY9sBnR2uAg".to_owned()).unwrap();
            csr.token = Some(imprint::payload::EnrolmentToken { secret, mode: imprint::payload::TokenMode::Once });
        }
        let seed = Random(index as u64 + 100).bytes(32);
        payload.seed = Some(imprint::payload::Seed { bytes: imprint::secret::Secret::new(seed), single_boot: true });
        let bytes = &payload.encode()[..];
        let mut secrets: Vec<Vec<u8>> = payload.seed.iter().map(|seed| seed.bytes.expose().to_vec()).collect();
        match &payload.enrolment {
            Enrolment::Csr(csr) => {
                secrets.extend(csr.token.iter().map(|token| token.secret.expose().as_bytes().to_vec()));
            }
            Enrolment::Credentials(credentials) => secrets.push(credentials.key.expose().to_vec()),
        }
        let mut random = Random(index as u64);
        let objects = Objects { payload: bytes.to_vec(), ..objects(&mut random) };
        let course = session(&objects, &Faults::default(), 115_200, true, index as u64, &seeded());
        // What is on the line, and what the frames on it hold.
        let mut held = Vec::new();
        for line in course.capture.split(|byte| *byte == b'\n') {
            let digits = line.strip_prefix(b"#").map(|digits| digits.strip_suffix(b"\r").unwrap_or(digits));
            held.extend(digits.and_then(imprint::line::base85::decode).unwrap_or_default());
        }
        assert!(held.len() > bytes.len());
        for spelling in secrets.iter().flat_map(|secret| spellings(secret)) {
            let contains = |log: &[u8]| log.windows(spelling.len()).any(|window| window == spelling);
            assert!(spelling.len() >= 8, "too short to be searched for");
            assert!(!contains(&course.capture) && !contains(&held));
            searched += 1;
        }
        // The search finds what is there.
        let plain: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| spellings(secret)).collect();
        let mut leaked = Vec::new();
        imprint::line::base85::encode(bytes, &mut leaked);
        assert!(plain.iter().any(|spelling| leaked.windows(spelling.len()).any(|window| window == spelling)));
    }
    assert!(searched > 30, "{searched}");
}

/// If this test fails, do not change it: you have changed version 1 of the line protocol.
#[test]
fn the_examples_on_the_page_are_what_is_sent() {
    use imprint::digest::sha256;
    use imprint::line::frame::{Announce, Frame, Hello, Nonce, NotTaken, Packet, Session, Side, Versions};
    use imprint::line::{Kind, Stage};
    let (node, host) = (Nonce([1, 2, 3, 4, 5, 6, 7, 8]), Nonce([17, 18, 19, 20, 21, 22, 23, 24]));
    let session = Session { node, host };
    let hello = Hello {
        heard: None,
        versions: Versions { lowest: 1, highest: 1 },
        plain: false,
        fresh: false,
        nonce: node,
        key: [42; 32],
        uuid: Some(std::array::from_fn(|i| i as u8)),
        serial: None,
        macs: vec![vec![0x52, 0x54, 0, 0x12, 0x34, 0x56]],
    };
    let bytes = b"hello, node".to_vec();
    let announce = |kind| Announce { number: 0, kind, chunk: 192, length: 11, digest: sha256(&bytes) };
    let examples = [
        ("CALL", Side::Host, None, Frame::Call(Versions { lowest: 1, highest: 1 })),
        ("HELLO", Side::Node, None, Frame::Hello(hello)),
        ("OPEN", Side::Host, None, Frame::Open { version: 1, session }),
        ("READY, stage 0", Side::Node, Some(session), Frame::Ready(Stage::Payload)),
        ("ANNOUNCE 0 of kind 1, 11 bytes", Side::Host, Some(session), Frame::Announce(announce(Kind::Sealed))),
        (
            "DATA 0, piece 0, `hello, node`",
            Side::Host,
            Some(session),
            Frame::Data { number: 0, index: 0, bytes: bytes.clone() },
        ),
        ("ACK 0, next 1", Side::Node, Some(session), Frame::Ack { number: 0, next: 1, later: 0 }),
        ("ACK 3, next 4, and piece 6", Side::Node, Some(session), Frame::Ack { number: 3, next: 4, later: 2 }),
        ("REFUSE 0, reason 4", Side::Node, Some(session), Frame::Refuse { number: 0, reason: NotTaken::NotSealed }),
        ("ASK 1", Side::Node, Some(session), Frame::Ask { number: 1 }),
        (
            "TIME 1, 2026-11-23T00:00:00Z, 250 µs",
            Side::Host,
            Some(session),
            Frame::Time { number: 1, received: 1_795_392_000_000_000, held: 250 },
        ),
        ("ANNOUNCE outside any conversation", Side::Host, None, Frame::Announce(announce(Kind::Plain))),
        ("DATA outside any conversation", Side::Host, None, Frame::Data { number: 0, index: 0, bytes: bytes.clone() }),
    ];
    let mut section = String::from("| frame | from | on the line |\n|---|---|---|\n");
    for (name, from, session, frame) in examples {
        let packet = Packet { from, session, frame };
        let mut line = Vec::new();
        packet.encode(&mut line);
        let text = String::from_utf8(line).unwrap().trim_end().to_owned();
        assert_eq!(Packet::decode(&text.as_bytes()[1..], session).as_ref(), Some(&packet), "{name}");
        let from = if from == Side::Node { "node" } else { "host" };
        // No digit is a pipe character, so a table can hold a frame.
        section.push_str(&format!("| {name} | {from} | `{text}` |\n"));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/line-protocol.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, found) = page.split_once("Line ends are left out.\n\n").unwrap();
    if std::env::var_os("IMPRINT_WRITE_DOCS").is_some() && found.is_empty() {
        std::fs::write(path, format!("{before}Line ends are left out.\n\n{section}")).unwrap();
        return;
    }
    assert_eq!(found, section);
}
