//! Tests of `imprint apply` that is killed at any point, and run again.

use super::*;

/// xorshift64 (Marsaglia 2003): any numbers will do, if they are the same in each run of the test.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Where the configuration shows.
const PLACES: [&str; 5] =
    ["etc/hostname", "etc/new/deep/file", "var/lib/chrony/state", "root/.profile", "usr/lib/os-release"];

/// The counter that every place shows; `None` for the root of the image. Panics if it is a mix.
#[track_caller]
fn shown(machine: &Machine, first: u64) -> Option<u64> {
    let seen = PLACES.map(|path| machine.seen(path).and_then(|text| text.parse::<u64>().ok()));
    assert!(seen.iter().all(|one| *one == seen[0]), "a mix: {seen:?}");
    assert!(seen[0].is_none_or(|number| number >= first), "{seen:?}");
    seen[0]
}

/// Power cuts are what a kill stands for; the memory goes with them, so the case is a program that is killed and run again. Premise:
/// most kills come before the end, and some behind the step.
#[test]
fn a_thousand_kills_leave_the_old_configuration_or_the_new_one() {
    let mut seed = 0x1d5e_ed00_u64;
    let (mut old, mut new, mut whole) = (0, 0, 0);
    let mut machine = Machine::new();
    let points: Vec<&str> = POINTS.into_iter().chain(["laid", "applied"]).collect();
    for number in 1..=1000_u64 {
        // Each time that a root is covered anew, the kernel keeps what is below.
        if number % 20 == 1 {
            if number > 1 {
                machine = Machine::again();
            }
            machine.plain_root();
        }
        let first = number - (number - 1) % 20;
        let was = shown(&machine, first);
        let text = number.to_string();
        machine.leave(number, PLACES.iter().map(|path| file(path, &text)).collect(), Vec::new());
        // One run in four is killed twice.
        for _ in 0..=u64::from(random(&mut seed).is_multiple_of(4)) {
            let point = points[usize::try_from(random(&mut seed)).unwrap() % points.len()];
            let time = if ["covered", "written"].contains(&point) { 1 + random(&mut seed) % 4 } else { 1 };
            let mut command = machine.agent(&["apply", "--root"]);
            command.arg(machine.path("sysroot")).env("IMPRINT_CRASH", format!("{point}:{time}"));
            let output = command.output().unwrap();
            let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
            let is = shown(&machine, first);
            match (killed, is) {
                (true, is) if is == was => old += 1,
                (true, Some(is)) if is == number => new += 1,
                (false, Some(is)) if is == number => whole += 1,
                other => panic!("kill {number} at {point}: {other:?} after {was:?}; {output:?}"),
            }
        }
        machine.applied();
        assert_eq!(shown(&machine, first), Some(number));
        let work = machine.path("machine/run/imprint/root");
        let inner = machine.mounts().into_iter().filter(|point| Path::new(point).starts_with(&work));
        assert_eq!((inner.count(), work.join("new").exists()), (1, false), "kill {number}: something is left over");
        assert_eq!(fs::read_to_string(machine.path("machine/run/imprint/applied")).unwrap(), format!("{number}\n"));
        assert_eq!(machine.status().bundle.unwrap().state, BundleState::Applied, "kill {number}");
    }
    println!("the old one: {old}; the new one: {new}; not killed: {whole}");
    assert!(old > 500 && new > 100, "{old} {new} {whole}");
}
