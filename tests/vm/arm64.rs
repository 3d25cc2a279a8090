//! Tests of a bare image on an arm64 machine whose firmware alone says where its console is (SPCR): a payload on a config drive, with a
//! check-in over the network, and one that comes over the console itself.

use imprint_tests::vm::Machine;

use super::line::{Host, SMBIOS, certified, console};
use crate::*;

#[test]
fn boots_arm64_config_drive() {
    let site = Site::typical();
    let report = site.machine(Kernel::Arm64).init(Init::Bare).boot();
    came_up(&report);
    came_from(&report, Medium::ConfigDrive, "sr0 (IMPRINT)");
    openssl_agrees(&report, &site.work.path().join("state/root.pem"));
    assert_eq!(site.certificates_issued(), 1);
}

/// No word of the kernel command line names a console.
#[test]
fn boots_arm64_serial() {
    let host = Host::new();
    let (chardev, line) = console(&host);
    let inject = host.inject(&["--line", &line, "--call"]);
    let report = Machine::new(Kernel::Arm64).init(Init::Bare).without_network().qemu(&SMBIOS).console(&chardev).boot();
    certified(&host, &report, &inject.ended(), "line ttyAMA0");
}
