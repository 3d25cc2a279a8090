//! Tests of lines whose speed neither end knows, from 9600 bits a second up: no end resends because it did not wait long
//! enough for an answer, and lost frames are resent soon. In virtual time, so that the result is the same on every machine.

#![allow(clippy::cast_precision_loss, reason = "sizes are small")]

use imprint::line::SEAL_LEN;
use imprint::pool::Seeded;
use imprint::time::Deadline;
use imprint_tests::line::{Faults, Objects, Random, session};

/// A typical payload, and one with a large trust anchor and many names.
const PAYLOADS: [usize; 2] = [574, 2600];
const BAUDS: [u32; 5] = [9600, 19200, 38400, 57600, 115_200];

fn seeded() -> Seeded {
    Seeded::ready(Deadline::after(std::time::Duration::from_secs(5))).unwrap()
}

fn objects(payload: usize) -> Objects {
    let mut random = Random(1);
    Objects {
        payload: random.bytes(payload),
        request: random.bytes(400),
        certificates: random.bytes(1300),
        report: random.bytes(600),
    }
}

/// Milliseconds that so many bytes take, ten bits each.
fn line_time(bytes: usize, baud: u32) -> f64 {
    bytes as f64 * 10_000.0 / f64::from(baud)
}

fn unknown() -> Faults {
    Faults { unknown_speed: true, ..Faults::default() }
}

#[test]
fn a_clean_line_of_unknown_speed_carries_nothing_twice() {
    let seeded = seeded();
    for payload in PAYLOADS {
        for baud in BAUDS {
            for beacon in [true, false] {
                let named = session(&objects(payload), &Faults::default(), baud, beacon, 3, &seeded);
                let course = session(&objects(payload), &unknown(), baud, beacon, 3, &seeded);
                let ratio = course.delivery_ms / line_time(payload + SEAL_LEN, baud);
                println!("{payload} bytes at {baud}: {ratio:.2} x, {:.0} ms", course.took_ms);
                assert_eq!((named.retransmits, course.retransmits), (0, 0), "{payload} bytes at {baud}");
                assert!(ratio <= 1.5, "{payload} bytes at {baud}: {ratio}");
                assert!(course.took_ms <= named.took_ms * 1.01, "{} {}", course.took_ms, named.took_ms);
            }
        }
    }
}

/// The way up is no faster than the way down: a node with many names sends a long CSR, and a long report.
#[test]
fn what_a_node_sends_is_sent_once() {
    let mut objects = objects(574);
    let mut random = Random(2);
    (objects.request, objects.report) = (random.bytes(2600), random.bytes(4000));
    for baud in BAUDS {
        let course = session(&objects, &unknown(), baud, true, 3, &seeded());
        assert_eq!(course.retransmits, 0, "{baud}");
    }
}

/// A serial-over-LAN far away, and a BMC that collects characters.
#[test]
fn a_line_that_is_slow_and_far_away_carries_nothing_twice() {
    for payload in PAYLOADS {
        for baud in BAUDS {
            for delay_ms in [10, 50, 150, 300] {
                let faults = Faults { delay_ms, ..unknown() };
                let course = session(&objects(payload), &faults, baud, true, 3, &seeded());
                assert_eq!(course.retransmits, 0, "{payload} bytes at {baud}, {delay_ms} ms each way");
            }
        }
    }
}

/// A UART set to 115200 in a machine whose BMC passes on 960 characters a second: both ends believe what they set.
#[test]
fn a_line_that_is_slower_than_it_says_is_learned() {
    for payload in PAYLOADS {
        for beacon in [true, false] {
            let faults = Faults { named: Some(115_200), ..Faults::default() };
            let course = session(&objects(payload), &faults, 9600, beacon, 3, &seeded());
            let clean = session(&objects(payload), &Faults::default(), 9600, beacon, 3, &seeded());
            println!("{payload}: {} retransmits, {:.0} of {:.0} ms", course.retransmits, course.took_ms, clean.took_ms);
            assert!(course.retransmits <= 2 && course.took_ms <= clean.took_ms * 1.5, "{}", course.took_ms);
        }
    }
}

/// One frame in a hundred is lost in each direction.
#[test]
fn a_thousand_slow_lines_that_lose_frames_are_done_soon() {
    let seeded = seeded();
    for (baud, buffer, payload) in [(9600, 0, 574), (9600, 0, 2600), (9600, 1024, 574), (9600, 700, 2600)] {
        let objects = objects(payload);
        let whole = payload + SEAL_LEN + objects.request.len() + objects.certificates.len() + objects.report.len();
        let (mut delivery, mut took): (f64, f64) = (0.0, 0.0);
        for seed in 0..1000 {
            let faults = Faults { frame_in: 100, buffer, ..unknown() };
            let course = session(&objects, &faults, baud, seed % 2 == 0, seed, &seeded);
            delivery = delivery.max(course.delivery_ms / line_time(payload + SEAL_LEN, baud));
            took = took.max(course.took_ms / line_time(whole, baud));
        }
        println!("{payload} bytes at {baud}, {buffer} of buffer: payload {delivery:.2} x, all {took:.2} x at most");
        assert!(delivery <= 4.0 && took <= 4.0, "{payload} bytes at {baud}: {delivery} {took}");
    }
}
