//! The line protocol against itself, over lines that lose, change, repeat and mix what they carry.

#![allow(clippy::cast_possible_truncation, reason = "sizes are small")]

use imprint::apply::entropy::Seeded;
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
