//! A medium that boots by itself, as `imprint-host image --iso` makes it: the same file in an optical drive with BIOS, and on a USB stick
//! with UEFI; and its second entry, the rescue.

use std::io::{Read, Write};

use super::line::{connected, text_of, until};
use super::prompt::{types, types_until};
use super::site_image::{kernel, run, tree};
use crate::*;

/// A medium of this kernel, with what the tests have on every command line.
fn medium(folder: &Path) -> PathBuf {
    let medium = folder.join("medium.iso");
    let (kernel, version) = kernel();
    let words = "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check root=LABEL=imprint-root rootfstype=ext4";
    run(std::process::Command::new(tree().join("dist/x86_64/imprint-host"))
        .args(["image", "--compress", "gzip", "--iso", "--append", words, "--kernel-modules"])
        .arg(kernel.join("lib/modules").join(version))
        .arg("--kernel")
        .args([&kernel.join("vmlinuz"), Path::new("-o"), &medium]));
    medium
}

/// Kernel, image and words come from the medium alone. Its loader starts the first entry by itself.
#[test]
fn one_medium_boots_from_a_disc_by_bios_and_from_a_stick_by_uefi() {
    let site = Site::new(Node { enrol: "each-boot", ..NODE });
    let medium = medium(site.work.path());
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

/// What process 1 writes when it asks.
const PROMPT: &str = "imprint> ";

/// A person at the serial console takes the second entry of the menu, pastes a payload, and has the prompt of the bare image afterwards.
#[test]
fn the_second_entry_of_a_medium_is_a_rescue_that_enrols_by_hand() {
    let site = Site::typical();
    let text = text_of(&site);
    let socket = site.work.path().join("console");
    let chardev = format!("socket,path={},server=on,wait=on", socket.display());
    let medium = medium(site.work.path());
    let machine = machine(Kernel::Stable).init(Init::Bare).medium(&medium, "ide-cd").console(&chardev);
    let seen = std::thread::scope(|scope| {
        let person = scope.spawn(|| {
            let (mut line, mut seen) = (connected(&socket), String::new());
            until(&mut line, &mut seen, "enrol by hand");
            // Ctrl-N is the next entry, and behind the last one there is none: a key that gets lost does no harm.
            line.write_all(b"\x0e\x0e\x0e\r").unwrap();
            until(&mut line, &mut seen, "--as text");
            assert!(seen.contains("starting /usr/bin/imprint"), "{seen}");
            // Once more where a letter was lost.
            let paste = (text.trim_end(), PATIENCE);
            while !types_until(&mut line, &mut seen, paste, &[PROMPT, "paste again", "paste all"]).contains(PROMPT) {}
            types(&mut line, "poweroff");
            // Whoever does not read holds the console up.
            let _ = line.read_to_end(&mut Vec::new());
            seen
        });
        machine.dies();
        person.join().unwrap()
    });
    assert!(seen.contains("imprint: hand-over: /run/imprint"), "{seen}");
    assert!(!seen.contains("imprint: source: config-drive"), "{seen}");
    assert_eq!(site.certificates_issued(), 1);
}
