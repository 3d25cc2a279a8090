//! Tests of the hooks for dracut without systemd, beyond a successful boot.

use crate::*;

/// dracut's die() writes the reason into a shell script, and the reason may quote what a medium or the command line says.
#[test]
fn the_boot_is_stopped_with_its_reason_and_no_shell_runs_what_it_says() {
    let report = Machine::new(Kernel::Stable).init(Init::Plain).append("imprint.$(>/tmp/ran)`>/tmp/ran`").boot();
    stopped(&report, 10, "options", "imprint.$(>/tmp/ran)`>/tmp/ran`");
    assert!(report.console.contains("FATAL: stopped with exit code 10: imprint: options: "), "{}", report.console);
    assert!(!report.part("tmp").contains("ran"), "{}", report.part("tmp"));
}

/// The queue is over before it begins when the root device is there; imprint runs all the same, and then the boot goes on.
#[test]
fn without_a_source_auto_boots_on() {
    let report = Machine::new(Kernel::Backports).init(Init::Plain).boot();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    assert_eq!(report.status().outcome, Outcome::Absent);
    assert_eq!(report.file_names(), ["status.json"]);
}

#[test]
fn off_does_nothing() {
    let report = Machine::new(Kernel::Stable).init(Init::Plain).append("imprint=off").boot();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    assert!(report.part("modes").contains("No such file"), "{}", report.part("modes"));
}
