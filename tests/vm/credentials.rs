//! Tests of payloads in credentials of systemd: as systemd hands them out, and in the places where systemd takes them
//! from.

use base64ct::{Base64, Encoding};

use crate::*;

const NAME: &str = "imprint.payload";

/// A machine with the payload in a string of SMBIOS. QEMU takes the string from a file, so no list of processes shows
/// it.
fn smbios(machine: Machine, site: &Site, payload: &[u8]) -> Machine {
    let file = site.work.path().join("smbios");
    std::fs::write(&file, format!("io.systemd.credential.binary:{NAME}={}", Base64::encode_string(payload))).unwrap();
    machine.qemu(&["-smbios", &format!("type=11,path={}", file.display())])
}

fn fw_cfg(machine: Machine, site: &Site, payload: &[u8]) -> Machine {
    let file = site.work.path().join("fw_cfg");
    std::fs::write(&file, payload).unwrap();
    machine.qemu(&["-fw_cfg", &format!("name=opt/io.systemd.credentials/{NAME},file={}", file.display())])
}

fn word(payload: &[u8]) -> String {
    format!("systemd.set_credential_binary={NAME}:{}", Base64::encode_string(payload))
}

/// Only root can read the firmware's tables and what QEMU offers, so a token that is good for each boot may be there.
#[test]
fn without_systemd_the_firmware_has_it() {
    let site = Site::new(Node { enrol: "each-boot", ..NODE });
    let plain = || machine(Kernel::Stable).init(Init::Plain);
    came_up_from(&smbios(plain(), &site, &site.payload).boot(), Medium::Smbios, "string 1 of type 11");
    came_up_from(&fw_cfg(plain(), &site, &site.payload).boot(), Medium::FwCfg, "");
}

#[test]
fn systemd_has_imported_it() {
    let site = Site::typical();
    let report = smbios(machine(Kernel::Stable), &site, &site.payload).boot();
    came_up_from(&report, Medium::SystemCredential, "/run/credentials/@system/imprint.payload");
}

/// Everybody can read the command line, and the credential that systemd imported from there has the same payload.
#[test]
fn the_command_line_may_carry_less_than_what_systemd_makes_of_it() {
    let site = Site::typical();
    let report = machine(Kernel::Stable).append(&word(&site.payload)).boot();
    came_up_from(&report, Medium::CmdlineCredential, "word 1");
    let site = Site::new(Node { enrol: "each-boot", ..NODE });
    let report = machine(Kernel::Stable).append(&word(&site.payload)).boot();
    stopped(&report, 11, "source", "everybody on the node can read, holds an each-boot token");
    assert_eq!(site.certificates_issued(), 0);
}

/// Much that is somebody else's in the firmware's tables, and as long a credential as there can be. How long the search takes is
/// printed and not judged: the machine is emulated, and the benchmarks judge it on a real processor.
#[test]
fn much_in_the_firmware() {
    let site = Site::typical();
    let plain = || machine(Kernel::Stable).init(Init::Plain);
    let search = |report: &Report| {
        let status = report.status();
        let step = status.steps.iter().find(|step| step.name == "source").unwrap();
        assert!(step.detail.starts_with("fw_cfg"), "{status}");
        step.duration_us
    };
    let report = fw_cfg(plain(), &site, &site.payload).boot();
    came_up(&report);
    let little = search(&report);
    let strings: Vec<String> =
        (0..200).map(|number| format!(",value=io.systemd.credential:other.{number}={}", "x".repeat(100))).collect();
    let mut long = vec![0; imprint::payload::MAX_LEN];
    long[..3].copy_from_slice(&[0xa1, 0, 1]);
    let loaded = plain().qemu(&["-smbios", &format!("type=11{}", strings.concat())]);
    let report = fw_cfg(loaded, &site, &long).boot();
    // All of it was read, and it is no payload.
    stopped(&report, 12, "payload", "byte 3: nothing but zeros from here on");
    let much = search(&report);
    println!(
        "search in an emulated machine: {little} us with a payload in fw_cfg, {much} us with 64 KiB there and 200 other strings \
         in SMBIOS"
    );
}

/// systemd would silently take one of them. The other is as long as a payload can be.
#[test]
fn two_places_with_different_payloads_stop_the_boot() {
    let site = Site::typical();
    let mut long = vec![0; imprint::payload::MAX_LEN];
    long[..3].copy_from_slice(&[0xa1, 0, 1]);
    let report = fw_cfg(smbios(machine(Kernel::Stable), &site, &site.payload), &site, &long).boot();
    stopped(&report, 11, "source", "two different payloads: one from ");
    let (_, message) = report.failure();
    let named: Vec<bool> = ["smbios", "fw_cfg", "@system"].iter().map(|place| message.contains(place)).collect();
    assert!(named.iter().filter(|named| **named).count() == 2, "{message}");
    assert_eq!(site.certificates_issued(), 0);
}

/// systemd-stub puts files of the EFI system partition into the initramfs.
#[test]
fn a_boot_loader_brings_it() {
    let site = Site::new(Node { enrol: "each-boot", ..NODE });
    let path = ".extra/credentials/imprint.payload.cred";
    let text = Base64::encode_string(&site.payload);
    let report = machine(Kernel::Stable).initramfs_file(path, text.as_bytes()).boot();
    came_up_from(&report, Medium::BootCredential, "/.extra/credentials/imprint.payload.cred");

    // Only systemd can use the encrypted credential. The builder of the image told systemd to decrypt it.
    let plain = site.work.path().join("payload");
    std::fs::write(&plain, &site.payload).unwrap();
    let output = std::process::Command::new("systemd-creds")
        .args(["encrypt", "--with-key=tpm2-absent", "--name=imprint.payload"])
        .arg(&plain)
        .arg("-")
        .output()
        .unwrap();
    assert!(output.status.success(), "systemd-creds: {}", String::from_utf8_lossy(&output.stderr));
    let encrypted = || machine(Kernel::Stable).initramfs_file(path, &output.stdout);
    stopped(&encrypted().boot(), 11, "source", "its base64 does not contain a payload; if systemd-creds encrypted");
    let dropin = (
        "etc/systemd/system/imprint.service.d/credential.conf",
        "[Service]\nLoadCredentialEncrypted=imprint.payload\n",
    );
    let report = encrypted().initramfs_file(dropin.0, dropin.1.as_bytes()).boot();
    came_up_from(&report, Medium::UnitCredential, "/run/credentials/imprint.service/imprint.payload");
}

/// How long the search takes with much to read, for docs/benchmarks.md: this prints the figures and judges none. Files of a
/// temporary root cannot stand in for fw_cfg, which the kernel reads anew for every 4096 bytes.
#[test]
fn much_for_somebody_else_and_what_is_too_long() {
    let site = Site::typical();
    let other = site.work.path().join("other");
    std::fs::write(&other, vec![b'x'; 65_536]).unwrap();
    let values: Vec<String> =
        (0..200).map(|n| format!("value=io.systemd.credential:other.{n}={}", "x".repeat(100))).collect();
    let plain = || machine(Kernel::Stable).init(Init::Plain);
    let searched = |report: &Report| {
        let step = report.status().steps.into_iter().find(|step| step.name == "source").unwrap();
        step.duration_us / 1000
    };
    let foreign = plain()
        .qemu(&["-smbios", &format!("type=11,{}", values.join(","))])
        .qemu(&["-fw_cfg", &format!("name=opt/io.systemd.credentials/other,file={}", other.display())])
        .boot();
    assert_eq!(foreign.status().outcome, Outcome::Absent, "{}", foreign.status());
    let none = plain().boot();
    assert_eq!(none.status().outcome, Outcome::Absent, "{}", none.status());
    println!("search with nothing: {} ms, with 64 KiB of somebody else: {} ms", searched(&none), searched(&foreign));
    // One byte more than is read, and then it is not read at all.
    let report = fw_cfg(plain(), &site, &vec![b'A'; 96 * 1024 + 1]).boot();
    stopped(&report, 11, "source", "credential imprint.payload (fw_cfg): it has more than 65536 bytes");
    println!("search with 96 KiB and one byte in fw_cfg: {} ms", searched(&report));
}

/// The hypervisor may choose among the CAs of the image, and cannot add one.
#[test]
fn a_site_pin_of_the_hypervisor_narrows_that_of_the_image() {
    let site = Site::typical();
    let ca = imprint::hex::encode(&imprint::payload::Payload::unwrapped(&site.payload).unwrap().ca.sha256());
    let (foreign, image) = ("7".repeat(64), format!("{ca}\n{}\n", "7".repeat(64)));
    let with = |pin: &str| {
        let string = format!("type=11,value=io.systemd.credential:imprint.site={pin}");
        smbios(machine(Kernel::Stable), &site, &site.payload).qemu(&["-smbios", &string])
    };
    let report = with(&foreign).initramfs_file("imprint/site", image.as_bytes()).boot();
    stopped(&report, 13, "plan", "is not among those of /imprint/site in this image");
    let report = with(&foreign).boot();
    came_up(&report);
    let note = "credential imprint.site (credential /run/credentials/@system/imprint.site) is ignored";
    assert!(report.console.contains(note), "{}", report.console);
    let source = report.status().steps.into_iter().find(|step| step.name == "source").unwrap();
    assert!(source.detail.contains(note), "{}", source.detail);
}
