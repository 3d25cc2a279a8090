//! Tests of terminals between the two ends of a line. Some break lines after 80 or 132 columns, in either direction and
//! with various characters; some cut lines; some send seven bits with parity. The ends undo what they can, and report the
//! distortion.

#![allow(clippy::cast_possible_truncation, reason = "sizes are small")]

use imprint::line::frame::{Hello, Nonce, Packet, Side, Versions};
use imprint::line::{Distortion, Host, Parity, Shape, Wire};
use imprint::pool::Seeded;
use imprint::time::Deadline;
use imprint_tests::line::{Course, Faults, Objects, Random, session};

fn seeded() -> Seeded {
    Seeded::ready(Deadline::after(std::time::Duration::from_secs(5))).unwrap()
}

fn objects() -> Objects {
    let mut random = Random(1);
    Objects {
        payload: random.bytes(574),
        request: random.bytes(400),
        certificates: random.bytes(1300),
        report: random.bytes(600),
    }
}

fn over(faults: &Faults, beacon: bool) -> Course {
    session(&objects(), faults, 115_200, beacon, 3, &seeded())
}

/// The longest line that both ends have sent: without mark and line end.
fn longest(course: &Course) -> usize {
    let frames = course.capture.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#0S"));
    frames.map(|line| line.strip_suffix(b"\r").unwrap_or(line).len()).max().unwrap()
}

const LINE_BREAKS: [&[u8]; 4] = [b"\r\n", b"\n", b"\r", b"\r\r\n"];

/// A console server that shows its console to whoever is connected on a terminal of its own: what the node says is broken.
/// Nothing of it arrived.
#[test]
fn a_terminal_that_breaks_what_the_node_says_is_told_and_gets_shorter_pieces() {
    for columns in [80, 100, 132] {
        for line_break in LINE_BREAKS {
            for beacon in [true, false] {
                let faults = Faults { wrap: (0, columns), wrap_with: Some(line_break), ..Faults::default() };
                let course = over(&faults, beacon);
                let broken = Distortion::Broken { columns: columns as usize };
                // HELLO is shorter than 132 columns: there the first line that is broken is one of the request.
                assert_eq!(course.odd.1, [broken], "{columns} {line_break:?}");
                assert_eq!(course.odd.0, [], "{columns} {line_break:?}");
                assert_eq!(course.retransmits, 0, "{columns} {line_break:?}");
                if columns <= 100 {
                    assert!(longest(&course) < columns as usize, "{} {columns}", longest(&course));
                }
            }
        }
    }
}

/// Both ways: a terminal emulator between two serial ports.
#[test]
fn a_terminal_that_breaks_lines_both_ways() {
    for columns in [80, 132] {
        for line_break in LINE_BREAKS {
            let faults = Faults { wrap: (columns, columns), wrap_with: Some(line_break), ..Faults::default() };
            let course = over(&faults, true);
            assert_eq!(course.odd.1, [Distortion::Broken { columns: columns as usize }], "{columns} {line_break:?}");
            assert_eq!(course.retransmits, 0, "{columns} {line_break:?}");
        }
    }
}

/// What only the node can see, it says.
#[test]
fn a_terminal_that_breaks_what_the_host_says_is_told_by_the_node() {
    for line_break in LINE_BREAKS {
        let faults = Faults { wrap: (80, 0), wrap_with: Some(line_break), ..Faults::default() };
        let course = over(&faults, true);
        assert_eq!(course.odd, (vec![Distortion::Broken { columns: 80 }], vec![]), "{line_break:?}");
        assert_eq!(course.retransmits, 0);
    }
}

/// Broken lines that lose and change characters, too: what is put together is what was sent, or nothing.
#[test]
fn broken_lines_that_lose_characters_bring_the_objects_that_were_sent() {
    for seed in 0..200 {
        let faults = Faults {
            wrap: (80, 80),
            wrap_with: Some(LINE_BREAKS[seed as usize % 4]),
            drop: 400,
            flip: 400,
            printk: 400,
            ..Faults::default()
        };
        let course = session(&objects(), &faults, 115_200, seed % 2 == 0, seed, &seeded());
        assert!(course.took_ms < 60_000.0, "seed {seed}: {} ms", course.took_ms);
    }
}

/// A port with seven bits and parity, read as one with eight.
#[test]
fn parity_in_bit_7_is_cleared_and_told() {
    for parity in [Parity::Even, Parity::Odd, Parity::Mark] {
        for beacon in [true, false] {
            let course = over(&Faults { parity: Some(parity), ..Faults::default() }, beacon);
            let told = vec![Distortion::Parity(parity)];
            assert_eq!((course.odd, course.retransmits), ((told.clone(), told), 0), "{parity:?}");
        }
    }
    let course = over(&Faults::default(), true);
    assert_eq!(course.odd, (vec![], vec![]));
}

fn said(hello: &Hello) -> Vec<u8> {
    let mut line = Vec::new();
    let packet = Packet { from: Side::Node, session: None, frame: imprint::line::frame::Frame::Hello(hello.clone()) };
    packet.encode(&mut line);
    line
}

fn hello(key: u8) -> Hello {
    Hello {
        heard: None,
        versions: Versions::OURS,
        plain: false,
        fresh: false,
        nonce: Nonce([key; 8]),
        key: [key; 32],
        uuid: Some([7; 16]),
        serial: None,
        macs: vec![vec![2; 6]],
    }
}

/// What a line makes of a frame.
type Spoil = fn(&[u8]) -> Vec<u8>;

/// A terminal that drops what does not fit, or that moves its cursor, or that changes letters: nothing arrives, and why is told.
/// Noise is another thing each time, and is not told of.
#[test]
fn a_frame_that_is_spoilt_alike_each_time_is_told() {
    let cut: Spoil = |line| [&line[..80], b"\r\n"].concat();
    let drawn: Spoil = |line| [&line[..80], b"\x1b[2;1H", &line[80..]].concat();
    let shouted: Spoil = |line| line.to_ascii_uppercase();
    let spoils: [(Spoil, usize); 3] = [(cut, 80), (drawn, 80), (shouted, said(&hello(1)).len() - 2)];
    for (spoil, columns) in spoils {
        let mut wire = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), None);
        let mut told = Vec::new();
        for second in 0..4 {
            wire.push(&spoil(&said(&hello(1))), second * 1_000_000);
            wire.push(b"[    1.000000] a message of the kernel\r\n", second * 1_000_000);
            told.push(wire.odd());
        }
        assert_eq!(told, [None, None, Some(Distortion::Spoilt { columns }), None]);
    }
    let mut wire = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), None);
    for second in 0..60usize {
        let mut line = said(&hello(1));
        line[10 + second] ^= 1;
        wire.push(&line, second as u64 * 1_000_000);
        assert_eq!(wire.odd(), None);
    }
}

/// The words, as people see them: what is wrong, and what helps.
#[test]
fn what_is_told_names_the_thing_and_the_remedy() {
    for (odd, words, remedy) in [
        (Distortion::Broken { columns: 80 }, "breaks lines after 80 columns", "set the terminal or console server"),
        (Distortion::Parity(Parity::Even), "even parity in bit 7", "8 bits and no parity (8N1)"),
        (Distortion::Spoilt { columns: 132 }, "with the same damage, at 132 columns", "255 columns or more"),
    ] {
        let text = odd.to_string();
        assert!(text.contains(words) && text.contains(remedy), "{text}");
    }
}

/// What came before is part of the log, whatever it looked like; and so is each damaged frame with its line breaks.
#[test]
fn what_is_no_frame_is_text_byte_for_byte() {
    let mut random = Random(5);
    let alphabet = b"#0aZ9\r\n \xa3\x8d\x0a\xc2~";
    for _ in 0..2000 {
        let length = random.below(300) as usize;
        let mut text: Vec<u8> = (0..length).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]).collect();
        // So that nothing is held back.
        text.extend(b" end");
        let mut wire = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), None).keeping_text();
        let middle = random.below(text.len() as u64) as usize;
        wire.push(&text[..middle], 0);
        wire.push(&text[middle..], 0);
        assert_eq!(wire.text(), text);
        assert_eq!(wire.odd(), None);
    }
}

/// Frames between broken ones, and such that end in letters of other scripts, are cut out of the log with their ends.
#[test]
fn broken_frames_are_cut_out_of_the_log() {
    let line = said(&hello(1));
    for line_break in LINE_BREAKS {
        for columns in [12, 40, 80, line.len() - 3] {
            let mut wire = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), None).keeping_text();
            wire.push(b"before ", 0);
            for piece in line[..line.len() - 2].chunks(columns) {
                wire.push(piece, 0);
                wire.push(line_break, 0);
            }
            wire.push("\u{e9} after\n".as_bytes(), 0);
            let rest = String::from_utf8(wire.text()).unwrap();
            assert_eq!(rest, "before \u{e9} after\n", "{columns} {line_break:?}");
            assert_eq!(wire.heard(), 1, "{columns} {line_break:?}");
        }
    }
    // A frame whose line end was lost, before a letter that would be a digit without its bit 7.
    let mut wire = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), None).keeping_text();
    wire.push(&line[..line.len() - 2], 0);
    wire.push("\u{e9}t\u{e9}\n".as_bytes(), 0);
    assert_eq!((wire.text(), wire.heard()), ("\u{e9}t\u{e9}\n".as_bytes().to_vec(), 1));
}

/// Nobody's text is a reason to call: letters with bit 7 set are none of a frame.
#[test]
fn letters_of_other_scripts_are_no_frame() {
    use imprint::line::End;
    for text in [
        "\u{a3}Grundbetragsermittlung,\n",
        "\u{a3}\u{a3}\u{a3}aaaaaaaaaaaaaaaaaaaaaaa\n",
        "# \u{e9}\u{e8}\u{a3}abcdefghijkl\n",
    ] {
        let mut host = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), None);
        host.push(text.as_bytes(), 0);
        assert_eq!(host.poll(0).bytes, b"", "{text}");
        assert!(host.end().session().is_none());
    }
}

/// A line that echoes, and changes what it echoes: each CALL came back as something that looks like a frame and is none, and
/// was answered with the next at once, without end.
#[test]
fn an_echo_that_is_garbled_is_not_called_at_without_end() {
    let mut host = Wire::new(Host::new(Nonce([9; 8]), false, Shape::default()), None);
    host.push(b"#0rAi3fMK,H\r\n", 0);
    let mut calls = 0;
    let mut now = 0;
    while now < 10_000_000 {
        let polled = host.poll(now);
        if !polled.bytes.is_empty() {
            calls += 1;
            host.push(&polled.bytes.to_ascii_uppercase(), now);
        }
        now += 10_000;
    }
    assert!((1..=40).contains(&calls), "{calls} calls in 10 s");
}

/// An echo that is whole is nothing that was heard: whoever is silent stays so.
#[test]
fn an_echo_is_not_heard() {
    let mut host = Wire::new(Host::new(Nonce([9; 8]), true, Shape::default()), None).keeping_text();
    let bytes = host.poll(0).bytes;
    host.push(&bytes, 1000);
    assert_eq!((host.heard(), host.text()), (0, Vec::new()));
    host.push(&said(&hello(1)), 2000);
    assert_eq!(host.heard(), 1);
}
