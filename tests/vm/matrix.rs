//! Tests of every source with every builder of an initramfs, spread over two kernels so that each meets both: Linux 6.1 keeps
//! the key on a ramfs, the kernel of backports on a tmpfs without swap. docs/images.md has a table of these tests, made from
//! their names: `boots_BUILDER_MEDIUM` (tests/pure/docs/boots.rs).

use crate::*;

/// How the payload reaches the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Iso,
    Fat,
    Cmdline,
    Initramfs,
}

/// The node comes up, says where its payload came from, and the real root finds all of it.
#[track_caller]
fn comes_up(way: Way, init: Init, kernel: Kernel) {
    let site = Site::typical();
    let machine = machine(kernel).init(init);
    let (machine, medium, place) = match way {
        Way::Iso => {
            // Of an image for stateless nodes, too. This payload asks for no bundle.
            let machine = machine.append("imprint.set.hostname=never imprint.bundle=new");
            (machine.optical(&site.config_drive(&site.payload)), Medium::ConfigDrive, "sr0 (IMPRINT)")
        }
        Way::Fat => {
            let drive = site.work.path().join("config-drive.img");
            std::fs::write(&drive, &*imprint_host::vfat::image(&site.payload).unwrap()).unwrap();
            (machine.disk(&drive), Medium::ConfigDrive, "vdb (IMPRINT)")
        }
        Way::Cmdline => (machine.append(&compose::cmdline(&site.payload)), Medium::Cmdline, ""),
        // Between the image's archive and one more, that of a site pin: both are unpacked.
        Way::Initramfs => {
            let ca = imprint::payload::Payload::unwrapped(&site.payload).unwrap().ca;
            let machine = machine.initramfs_archive(&imprint_host::cpio::archive(&site.payload).unwrap());
            let pin = format!("{}\n", imprint::hex::encode(&ca.sha256()));
            (machine.initramfs_file("imprint/site", pin.as_bytes()), Medium::Initramfs, "/imprint/payload")
        }
    };
    let report = machine.boot();
    came_up_from(&report, medium, place);
    assert_ne!(report.part("hostname"), "never");
    assert!(report.part("staged").contains("No such file"), "{}", report.part("staged"));
    assert_eq!(report.console.contains("no site pin"), way != Way::Initramfs, "{}", report.console);
    openssl_agrees(&report, &site.work.path().join("state/root.pem"));
    let private = report.mount("/run/imprint/private");
    match kernel {
        Kernel::Stable | Kernel::Generic | Kernel::Arm64 => {
            assert_eq!(private, "ramfs rw,nosuid,nodev,noexec,relatime,mode=700")
        }
        Kernel::Backports => {
            assert!(private.starts_with("tmpfs rw,nosuid,nodev,noexec,relatime,"), "{private}");
            for option in ["noswap", "mode=700"] {
                assert!(private.split(',').any(|other| other == option), "{private}");
            }
        }
    }
    assert_eq!(site.certificates_issued(), 1);
    // udev named the link before it was touched, and the real root finds it by that name: a link that is up could not be
    // renamed on Linux 6.1.
    assert_eq!(report.part("links").split_whitespace().collect::<Vec<_>>(), ["ens8", "lo"]);
    let node: serde_json::Value = serde_json::from_str(report.part("node")).unwrap();
    assert_eq!(node.pointer("/network/link").and_then(|link| link.as_str()), Some("ens8"));
}

#[test]
fn boots_systemd_config_drive() {
    comes_up(Way::Iso, Init::Systemd, Kernel::Stable);
}

#[test]
fn boots_plain_config_drive() {
    comes_up(Way::Iso, Init::Plain, Kernel::Backports);
}

#[test]
fn boots_initramfs_tools_config_drive() {
    comes_up(Way::Iso, Init::InitramfsTools, Kernel::Stable);
}

#[test]
fn boots_systemd_cmdline() {
    comes_up(Way::Cmdline, Init::Systemd, Kernel::Backports);
}

#[test]
fn boots_plain_cmdline() {
    comes_up(Way::Cmdline, Init::Plain, Kernel::Stable);
}

/// MODULES=list, and a shell with few commands.
#[test]
fn boots_initramfs_tools_cmdline() {
    comes_up(Way::Cmdline, Init::InitramfsToolsList, Kernel::Backports);
}

#[test]
fn boots_systemd_cpio() {
    comes_up(Way::Initramfs, Init::Systemd, Kernel::Stable);
}

#[test]
fn boots_plain_cpio() {
    comes_up(Way::Initramfs, Init::Plain, Kernel::Backports);
}

#[test]
fn boots_initramfs_tools_cpio() {
    comes_up(Way::Initramfs, Init::InitramfsTools, Kernel::Stable);
}

#[test]
fn fat_with_systemd() {
    comes_up(Way::Fat, Init::Systemd, Kernel::Stable);
}

#[test]
fn fat_plain() {
    comes_up(Way::Fat, Init::Plain, Kernel::Backports);
}

/// A token that stays good is of no use on a line that every user of the node can read: it is refused before anything is
/// done with it, although a config drive would bring another payload.
#[test]
fn an_each_boot_token_on_the_command_line_stops_the_boot() {
    let site = Site::typical();
    let mut payload = imprint::payload::Payload::unwrapped(&site.payload).unwrap();
    let imprint::payload::Enrolment::Csr(csr) = &mut payload.enrolment else { panic!("it enrols with a CSR") };
    let token = csr.token.as_mut().unwrap();
    token.mode = imprint::payload::TokenMode::EachBoot;
    let secret = token.secret.expose().to_owned();
    let word = compose::cmdline(&payload.encode());
    let report = site.machine(Kernel::Stable).init(Init::Plain).append(&word).boot();
    stopped(
        &report,
        11,
        "source",
        "the payload on the kernel command line, which everybody on the node can read, holds an each-boot token",
    );
    assert_eq!(site.certificates_issued(), 0);
    let last = word.get(word.len() - 40..).unwrap();
    for said in [report.part("status"), &report.console] {
        assert!(!said.contains(&secret) && !said.contains(last), "{said}");
    }
}

/// A line as long as a real kernel takes one, of which the boot loader dropped the end.
#[test]
fn a_payload_that_was_cut_short_is_said_to_be_one() {
    let site = Site::typical();
    let padding = format!("padding={}", "x".repeat(imprint::options::CMDLINE_MAX - 500));
    let report = machine(Kernel::Backports).append(&padding).append(&compose::cmdline(&site.payload)).boot();
    stopped(
        &report,
        11,
        "source",
        "the kernel command line is full with 2047 bytes, and the end of its payload is missing",
    );
}

/// Anybody can plug in a stick. It brings a payload only where the operator named it or pinned the site.
#[test]
fn a_stick_that_nobody_asked_for_is_ignored() {
    let site = Site::typical();
    let stick = site.work.path().join("stick.img");
    std::fs::write(&stick, &*imprint_host::vfat::image(&site.payload).unwrap()).unwrap();
    let report = machine(Kernel::Generic).usb_stick(&stick).boot();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    assert_eq!(report.status().outcome, Outcome::Absent);
    // With time enough for the stick to be seen, and for its reason.
    let why = "sda: ignored, a USB medium; name it with imprint.source=config-drive or put a site pin into the image";
    let report = patiently(Duration::from_secs(10), |limit| {
        let words = format!("imprint=require imprint.timeout={}", limit.as_secs());
        let report = machine(Kernel::Generic).usb_stick(&stick).append(&words).boot();
        if report.failure().1.contains(why) { Ok(report) } else { Err(report.failure().1) }
    });
    stopped(&report, 11, "source", why);
    assert!(report.console.contains(why), "{}", report.console);
    assert_eq!(site.certificates_issued(), 0);

    // A BMC's virtual medium is a stick as well. Under `auto`, too, its disk is waited for.
    let ca = imprint::payload::Payload::unwrapped(&site.payload).unwrap().ca;
    let pin = format!("{}\n", imprint::hex::encode(&ca.sha256()));
    let report = machine(Kernel::Generic).usb_stick(&stick).initramfs_file("imprint/site", pin.as_bytes()).boot();
    came_up(&report);
    assert_eq!(report.status().origin.as_deref(), Some("config-drive sda (IMPRINT)"));
}
