//! A medium that boots by itself, as `imprint-host image --iso` makes it: the same file in an optical drive with BIOS, and on a USB stick
//! with UEFI.

use super::site_image::{kernel, run, tree};
use crate::*;

/// Kernel, image and words come from the medium alone. Its loader starts the first entry by itself.
#[test]
fn one_medium_boots_from_a_disc_by_bios_and_from_a_stick_by_uefi() {
    let site = Site::new(Node { enrol: "each-boot", ..NODE });
    let medium = site.work.path().join("medium.iso");
    let (kernel, version) = kernel();
    let words = "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check root=LABEL=imprint-root rootfstype=ext4";
    run(std::process::Command::new(tree().join("dist/x86_64/imprint-host"))
        .args(["image", "--compress", "gzip", "--iso", "--append", words, "--kernel-modules"])
        .arg(kernel.join("lib/modules").join(version))
        .arg("--kernel")
        .args([&kernel.join("vmlinuz"), Path::new("-o"), &medium]));
    let variables = site.work.path().join("variables");
    std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).unwrap();
    let mut certificates = std::collections::BTreeSet::new();
    for (efi, device) in [(false, "ide-cd"), (true, "usb-storage")] {
        let machine = site.machine(Kernel::Stable).init(Init::Bare).medium(&medium, device);
        let report = if efi { machine.efi(&variables) } else { machine }.boot();
        came_up(&report);
        certificates.insert(report.part("cert").to_owned());
    }
    assert_eq!(certificates.len(), 2);
}
