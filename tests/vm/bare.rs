//! Boots of bare images, whose `/init` is the agent (`imprint-host image`): no udevd, no shell and no other program takes part. From
//! each medium to the real root, with a bundle, to the program of imprint.next=, and to the prompt of a boot that was stopped.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use imprint_host::bundles::{self, Content, Source};

use super::bundle::file;
use super::line::{Host, SMBIOS, certified, connected, second_line, until};
use crate::*;

/// What process 1 writes when it asks.
pub(super) const PROMPT: &str = "imprint> ";

/// The link has the name that the kernel gave it, and nobody but imprint has touched it.
#[track_caller]
fn is_bare(report: &Report) {
    let node: serde_json::Value = serde_json::from_str(report.part("node")).unwrap();
    let link = node.pointer("/network/link").and_then(|link| link.as_str()).unwrap();
    let links: Vec<&str> = report.part("links").split_whitespace().collect();
    assert!(links.contains(&link) && links.len() == 2, "{link}: {links:?}");
    // A stage of its own mounts the root, with what the kernel command line says.
    assert!(report.mount("/").starts_with("ext4 ro,"), "{}", report.mount("/"));
    // The agent was process 1 before the root's init, and blocked signals for itself.
    assert_eq!(report.part("signals").split_whitespace().last(), Some("0000000000000000"));
}

/// Nothing names the drivers of the machine: its devices do. Those of Linux 6.1 lie unpacked on the host, too.
#[test]
fn boots_bare_config_drive() {
    let site = Site::typical();
    let report = site.machine(Kernel::Stable).init(Init::Bare).boot();
    came_up_from(&report, Medium::ConfigDrive, "sr0 (IMPRINT)");
    is_bare(&report);
    openssl_agrees(&report, &site.work.path().join("state/root.pem"));
    assert_eq!(site.certificates_issued(), 1);
}

/// The modules of this kernel are compressed with xz on the host, and unpacked in the image.
#[test]
fn boots_bare_cmdline() {
    let site = Site::typical();
    // What stands behind `--` is for the root's init.
    let machine = machine(Kernel::Backports).init(Init::Bare).append(&compose::cmdline(&site.payload));
    let report = machine.append("-- single").boot();
    came_up_from(&report, Medium::Cmdline, "");
    is_bare(&report);
    assert_eq!(report.part("init"), "root single");
    let private = report.mount("/run/imprint/private");
    assert!(private.starts_with("tmpfs rw,nosuid,nodev,noexec,relatime,"), "{private}");
}

/// No network at all: payload, time and certificate come over a second serial port.
#[test]
fn boots_bare_serial() {
    let host = Host::new();
    let (chardev, line) = second_line(&host);
    let inject = host.inject(&["--line", &line]);
    let report = Machine::new(Kernel::Stable)
        .init(Init::Bare)
        .without_network()
        .append("imprint.source=serial:ttyS1,115200")
        .qemu(&SMBIOS)
        .qemu(&["-chardev", &chardev, "-serial", "chardev:line"])
        .boot();
    certified(&host, &report, &inject.ended(), "line ttyS1");
}

/// The bundle is fetched from a live server, and lies over the root before anything there runs.
#[test]
fn a_bundle_lies_over_the_root_of_a_bare_image() {
    let bind = "{ serial = \"VM-0001\" }\nbundle_key = \"payload\"";
    let site = Site::new(Node { bind, enrol: "each-boot", ..NODE });
    let entries = vec![file("etc/imprint-laid", "laid\n"), file("etc/imprint-new/deep/file", "new\n")];
    let content = Source::Content(Content { units: Vec::new(), entries });
    bundles::make(&mut site.state(), "node1", content, &[], Timestamp::system()).unwrap();
    let options = compose::Options { expires: DAY, ..Default::default() };
    let payload = site.state().payload("node1", &options, Timestamp::system()).unwrap().bytes.to_vec();
    let report = machine(Kernel::Backports).init(Init::Bare).optical(&site.config_drive(&payload)).boot();
    came_up(&report);
    assert_eq!(report.part("applied"), "1", "{}", report.console);
    assert!(report.part("laid").starts_with("laid\nnew\n"), "{}", report.part("laid"));
    assert!(report.mount("/etc").starts_with("overlay rw,"), "{}", report.mount("/etc"));
}

/// A machine without a root: the program of imprint.next= has the identity, in the initramfs.
#[test]
fn the_program_of_next_runs_with_the_identity() {
    let site = Site::typical();
    let machine = site.machine(Kernel::Stable).init(Init::Bare);
    let report = machine.append("imprint.next=\"/bin/imprint-report next\"").boot();
    assert_eq!(report.ended_in(), "next", "{}", report.console);
    assert_eq!(report.status().outcome, Outcome::Done);
    assert!(report.part("key").starts_with("-----BEGIN PRIVATE KEY-----"));
    assert!(!report.part("mounts").contains("/sysroot"), "{}", report.part("mounts"));
}

/// What the person at the prompt of a stopped boot sees last, and the report that the person asks for.
fn stopped_at_the_prompt(machine: Machine, folder: &Path) -> (Report, String) {
    let socket = folder.join("console");
    let chardev = format!("socket,path={},server=on,wait=on", socket.display());
    std::thread::scope(|scope| {
        let person = scope.spawn(move || {
            let (mut line, mut seen) = (connected(&socket), String::new());
            until(&mut line, &mut seen, PROMPT);
            let last = seen.clone();
            types(&mut line, &mut seen, "shell", "# ");
            types(&mut line, &mut seen, "imprint-report emergency", "");
            // Whoever does not read holds the console up.
            let _ = line.read_to_end(&mut Vec::new());
            last
        });
        let report = machine.init(Init::Bare).console(&chardev).limit(Duration::from_secs(1200)).boot();
        (report, person.join().unwrap())
    })
}

fn types(line: &mut UnixStream, seen: &mut String, words: &str, answer: &str) {
    line.write_all(format!("{words}\n").as_bytes()).unwrap();
    until(line, seen, answer);
}

/// The accident: a root that is not there. The machine neither reboots nor hangs, the last line before the prompt says which root and
/// what there is instead, and the identity that it got is there for whoever helps.
#[test]
fn a_root_that_never_appears_is_named_in_the_last_line_before_the_prompt() {
    let site = Site::typical();
    let machine = site.machine(Kernel::Stable).append("root=LABEL=nowhere imprint.timeout=60");
    let (report, seen) = stopped_at_the_prompt(machine, site.work.path());
    assert_eq!(report.ended_in(), "emergency");
    assert_eq!(report.status().outcome, Outcome::Done, "imprint itself has succeeded");
    let lines: Vec<&str> = seen.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let [.., last, prompt] = lines.as_slice() else { panic!("{seen}") };
    assert!(prompt.starts_with(PROMPT.trim()), "{seen}");
    assert!(last.contains("LABEL=nowhere has not appeared within 60 s, and there is "), "{last}\n{seen}");
    assert!(last.contains("vda"), "{last}");
}
