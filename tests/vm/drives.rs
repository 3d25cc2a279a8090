//! Tests of drives that answer late or never. udev reads every drive, too, so one of its workers hangs and its queue never
//! empties.

use imprint_tests::nbd::Disk;

use crate::*;

/// A stick of wood in place of a disk: it is there, and no read ever ends.
fn mute() -> Disk {
    Disk::start(vec![0; 1024 * 1024], None)
}

/// What everybody would see who sits at the console, or looks at status.json afterwards.
#[track_caller]
fn booted_on_and_named_it(report: &Report) {
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    let status = report.status();
    let step = status.steps.first().unwrap();
    println!("source took {} ms; the real root after {} s", step.duration_us / 1000, report.part("uptime"));
    for said in [&step.detail, &report.console] {
        assert!(said.contains("vdb: the drive has not answered for "), "{said}");
    }
}

/// Nobody needs the drive, and nobody said anything about it. The machine's limit is half the default of imprint.timeout,
/// and shorter than what systemd grants udevd to end.
#[test]
fn a_boot_that_needs_no_drive_goes_on_without_one_that_never_answers() {
    let disk = mute();
    let report = Machine::new(Kernel::Stable).network_disk(&disk).boot();
    booted_on_and_named_it(&report);
    assert_eq!(report.status().outcome, Outcome::Absent);
}

#[test]
fn a_timeout_holds_whatever_a_drive_does() {
    let disk = mute();
    let report = Machine::new(Kernel::Backports).network_disk(&disk).append("imprint=auto imprint.timeout=5").boot();
    booted_on_and_named_it(&report);
    assert_eq!(report.status().outcome, Outcome::Absent);
}

/// Another drive brings the payload.
#[test]
fn a_node_comes_up_beside_a_drive_that_never_answers() {
    let (site, disk) = (Site::typical(), mute());
    let report = site.machine(Kernel::Stable).network_disk(&disk).boot();
    came_up(&report);
    booted_on_and_named_it(&report);
    assert_eq!(report.status().origin.as_deref(), Some("config-drive sr0 (IMPRINT)"));
}

/// The agent itself loads the drivers of this image, one after another, and that of the drive never ends: that of the payload's drive
/// comes later.
#[test]
fn a_bare_image_comes_up_beside_a_drive_that_never_answers() {
    let (site, disk) = (Site::typical(), mute());
    let report = site.machine(Kernel::Stable).init(Init::Bare).network_disk(&disk).boot();
    came_up(&report);
    assert_eq!(report.status().origin.as_deref(), Some("config-drive sr0 (IMPRINT)"));
    let said = "virtio_blk.ko: its driver has not answered for 5 s, and the boot goes on without waiting";
    assert!(report.console.contains(said), "{}", report.console);
}

/// Whoever requires a payload is told which drive it might have been on, and is not kept from the emergency shell by it.
#[test]
fn a_boot_that_requires_a_payload_stops_and_names_the_drive() {
    let disk = mute();
    let report = Machine::new(Kernel::Stable).network_disk(&disk).append("imprint=require imprint.timeout=4").boot();
    stopped(&report, 11, "source", "vdb: the drive has not answered for ");
}

/// As long as disks take to spin up.
#[test]
fn a_drive_that_answers_late_is_used() {
    let site = Site::typical();
    let mut image = imprint_host::iso::image(&site.payload, Timestamp::system()).unwrap().to_vec();
    image.resize(1024 * 1024, 0);
    let disk = Disk::start(image, Some(Duration::from_secs(8)));
    let report = machine(Kernel::Stable).network_disk(&disk).boot();
    came_up(&report);
    assert_eq!(report.status().origin.as_deref(), Some("config-drive vdb (IMPRINT)"));
}
