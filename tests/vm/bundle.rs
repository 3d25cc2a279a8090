//! Tests of a bundle in a whole boot: with every init of the initramfs its files are in the root before anything there runs, and a
//! bundle that cannot be laid there stops the boot.

mod story;

use imprint::bundle::{Bundle, Content, Entry, EntryPath};
use imprint::handover::staged::{self, Description};
use imprint::payload::NodeName;
use imprint::secret::Secret;

use crate::*;

pub(super) fn file(path: &str, text: &str) -> Entry {
    let content = Content::File(Secret::new(text.as_bytes().to_vec()));
    Entry { path: EntryPath::try_from(path).unwrap(), mode: 0o644, uid: 0, gid: 0, content }
}

/// A machine whose boot leaves this bundle, as if it had fetched it.
fn with(site: &Site, kernel: Kernel, entries: Vec<Entry>) -> Machine {
    let bundle = Bundle::new(NodeName::try_from("node1").unwrap(), 7, Vec::new(), entries).unwrap();
    let description = Description {
        version: staged::VERSION,
        node: "node1".to_owned(),
        counter: 7,
        sha256: "00".repeat(32),
        code: "7K3M-Q0ZT-N4V8-XW1C".to_owned(),
        signer: "0123456789abcdef".to_owned(),
        approver: "alice".to_owned(),
        signed: "2026-11-23T00:00:00Z".to_owned(),
        units: Vec::new(),
        url: "https://10.0.2.2:1/.well-known/imprint".to_owned(),
    };
    site.machine(kernel)
        .initramfs_file("imprint-test/bundle.json", &serde_json::to_vec(&description).unwrap())
        .initramfs_file("imprint-test/bundle.tar", &bundle.tar())
}

/// The root is mounted read-only by default, and its own init reports what it sees.
#[track_caller]
fn is_laid(init: Init, kernel: Kernel) {
    let site = Site::typical();
    let entries = vec![file("etc/imprint-laid", "laid\n"), file("etc/imprint-new/deep/file", "new\n")];
    let report = with(&site, kernel, entries).init(init).boot();
    came_up(&report);
    assert_eq!((report.part("apply"), report.part("applied")), ("0", "7"), "{}", report.console);
    let laid: Vec<&str> = report.part("laid").lines().collect();
    assert_eq!(laid, ["laid", "new", "NAME=\"imprint test root\"", "ID=imprint-test", "VERSION_ID=1"]);
    assert!(!report.file_names().contains(&"private/bundle.tar"), "{:?}", report.file_names());
    assert_eq!(report.part("units"), "imprint-available.service\nimprint-units.service");
    assert!(report.mount("/etc").starts_with("overlay rw,"), "{}", report.mount("/etc"));
    assert!(report.console.contains("bundle number 7 is in the root: 2 entries, over etc"), "{}", report.console);
}

/// A live image: the root is an overlay of dracut's over a squashfs, and the bundle lies over that.
#[track_caller]
fn is_laid_over_a_live_root(init: Init) {
    let site = Site::typical();
    let machine = with(&site, Kernel::Stable, vec![file("etc/imprint-laid", "laid\n")]);
    let report = machine.init(init).append("root=live:/dev/vda rd.overlay").boot();
    came_up(&report);
    assert_eq!((report.part("apply"), report.part("applied")), ("0", "7"), "{}", report.console);
    assert_eq!(report.part("laid").lines().next(), Some("laid"));
    assert!(report.mount("/").starts_with("overlay "), "{}", report.mount("/"));
}

#[test]
fn a_live_root_has_the_files_with_systemd() {
    is_laid_over_a_live_root(Init::SystemdLive);
}

#[test]
fn a_live_root_has_the_files_plain() {
    is_laid_over_a_live_root(Init::PlainLive);
}

#[test]
fn the_root_has_the_files_with_systemd() {
    is_laid(Init::Systemd, Kernel::Stable);
}

#[test]
fn the_root_has_the_files_plain() {
    is_laid(Init::Plain, Kernel::Backports);
}

#[test]
fn the_root_has_the_files_with_systemd_by_a_later_dracut() {
    is_laid(Init::SystemdNg, Kernel::Backports);
}

#[test]
fn the_root_has_the_files_plain_by_a_later_dracut() {
    is_laid(Init::PlainNg, Kernel::Stable);
}

/// The boot is stopped in the initramfs, with the reason, and the root is as it was.
#[track_caller]
fn is_stopped(report: &Report, words: &str) {
    assert_eq!((report.exit_code(), report.part("apply")), (0, "20"), "{}", report.console);
    assert_eq!(report.ended_in(), "emergency", "the real root must not be booted");
    let said = format!("imprint: bundle: {words}");
    assert!(report.console.contains(&said), "the console does not say why:\n{}", report.console);
    assert!(report.part("applied").contains("No such file"), "{}", report.part("applied"));
    assert!(!report.part("mounts").contains("overlay"), "{}", report.part("mounts"));
}

#[test]
fn a_bundle_that_does_not_fit_stops_the_boot_with_systemd() {
    let site = Site::typical();
    let entries = vec![file("etc/imprint-laid", "laid\n"), file("etc/os-release/x", "")];
    let report = with(&site, Kernel::Stable, entries).boot();
    is_stopped(&report, "the bundle has a directory etc/os-release, and the root has a file there; make a bundle");
}

/// A kernel without overlays: the module is no module.
#[test]
fn a_kernel_without_overlays_stops_the_boot_plain() {
    let site = Site::typical();
    let folder = imprint_tests::vm::initramfs(Kernel::Stable, Init::Plain);
    let version = folder.parent().unwrap().parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let module = format!("usr/lib/modules/{version}/kernel/fs/overlayfs/overlay.ko");
    let report = with(&site, Kernel::Stable, vec![file("etc/imprint-laid", "laid\n")])
        .init(Init::Plain)
        .initramfs_file(&module, b"no module")
        .boot();
    is_stopped(&report, "this kernel has no overlay file system; put its module overlay into the initramfs");
}
