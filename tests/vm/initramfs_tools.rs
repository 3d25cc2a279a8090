//! Tests of the hook and the scripts for initramfs-tools, beyond a successful boot (matrix.rs, line.rs) and a bundle (bundle.rs):
//! boots that are stopped, and what a person finds at the prompt.

use std::process::Command;

use imprint_tests::vm;

use super::line::until;
use super::prompt::{REASON, SOON, WHAT_TO_DO, is_nearly, types, types_until, with_a_person};
use crate::*;

const PROMPT: &str = "(initramfs) ";

/// The two lines before the prompt say why, and what to do, behind what the scripts and the shell have said.
#[track_caller]
fn says_why(seen: &str) {
    let stopped = format!("imprint: the boot was stopped with exit code 11: {REASON}");
    let (before, _) = seen.split_once(PROMPT).unwrap();
    let lines: Vec<&str> = before.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let [.., why, what] = &lines[..] else { panic!("{seen}") };
    assert!(is_nearly(why, &stopped) && is_nearly(what, WHAT_TO_DO), "{seen}");
    let own = lines.iter().position(|line| is_nearly(line, &format!("imprint: {REASON}"))).unwrap();
    assert!(lines.len() - own > 3, "the premise: the agent's own words are further up\n{seen}");
    assert!(before.contains("imprint: the boot was stopped with exit code 11"), "{seen}");
}

/// busybox's shell, with job control. A payload that is pasted there is used, and the boot goes on.
#[test]
fn the_reason_is_the_last_word_before_the_prompt_and_its_advice_works() {
    let site = Site::typical();
    let text = super::line::text_of(&site);
    let machine = machine(Kernel::Stable).init(Init::InitramfsTools).append("imprint.source=file");
    let (report, seen) = with_a_person(machine, site.work.path(), |line, seen| {
        until(line, seen, PROMPT);
        says_why(seen);
        types_until(line, seen, ("imprint console", PATIENCE), &["--as text"]);
        // Once more where a letter was lost.
        let paste = (text.trim_end(), PATIENCE);
        while !types_until(line, seen, paste, &[PROMPT, "paste again", "paste all"]).contains(PROMPT) {}
        assert!(seen.contains("imprint: hand-over: "), "{seen}");
        types(line, "exit");
    });
    assert_eq!(report.ended_in(), "root", "{seen}");
    assert_eq!(report.status().outcome, Outcome::Done);
    assert!(report.file_names().contains(&"private/key.pem"), "{:?}", report.file_names());
}

/// klibc's shell. Whoever leaves it without an identity finds it again: the real root is not entered.
#[test]
fn leaving_the_prompt_without_an_identity_leads_back_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(Kernel::Backports).init(Init::InitramfsToolsList).append("imprint.source=file");
    let (report, _) = with_a_person(machine, folder.path(), |line, seen| {
        until(line, seen, PROMPT);
        says_why(seen);
        let again = types_until(line, seen, ("exit", SOON), &[PROMPT]);
        assert!(again.contains("imprint: the boot was stopped with exit code 11"), "{again}");
        types(line, "imprint-report prompt");
    });
    assert_eq!((report.exit_code(), report.ended_in()), (11, "prompt"), "{}", report.console);
    assert!(!report.part("mounts").contains(" /root "), "the real root was mounted:\n{}", report.part("mounts"));
    assert_eq!(report.file_names(), ["status.json"]);
}

#[test]
fn a_payload_for_another_machine_stops_the_boot() {
    let site = Site::new(Node { bind: "{ serial = \"VM-0002\" }", ..NODE });
    let report = site.machine(Kernel::Stable).init(Init::InitramfsTools).boot();
    stopped(&report, 13, "plan", "the payload is for a machine with serial number VM-0002, this one has VM-0001");
    assert!(!report.part("mounts").contains(" /root "), "the real root was mounted:\n{}", report.part("mounts"));
    assert!(report.console.contains("imprint: the boot was stopped with exit code 13"), "{}", report.console);
}

#[test]
fn without_a_source_auto_boots_on() {
    let report = Machine::new(Kernel::Backports).init(Init::InitramfsToolsList).boot();
    assert_eq!((report.exit_code(), report.ended_in()), (0, "root"), "{}", report.console);
    assert_eq!(report.status().outcome, Outcome::Absent);
    assert_eq!(report.file_names(), ["status.json"]);
}

/// What MODULES=dep has, and MODULES=list with busybox: the drivers of drives with payloads, whatever this machine has. Nothing boots
/// such an image.
#[test]
fn images_for_one_machine_and_with_busybox_the_other_way_round_have_all_that_a_boot_needs() {
    let kernel = vm::vmlinuz(Kernel::Stable, Init::InitramfsTools).with_file_name("");
    let work = tempfile::tempdir().unwrap();
    for (modules, busybox) in [("dep", "n"), ("list", "y")] {
        let image = work.path().join(modules);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/initramfs-tools-image");
        let made = Command::new(script).arg(modules).arg(&kernel).arg(&image).env("BUSYBOX", busybox).output().unwrap();
        assert!(made.status.success(), "{modules}: {}", String::from_utf8_lossy(&made.stderr));
        let listed = Command::new("lsinitramfs").arg(&image).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let has = |end: &str| listed.lines().any(|line| line.ends_with(end));
        for end in [
            "usr/bin/imprint",
            "scripts/init-premount/imprint",
            "scripts/init-bottom/imprint",
            "etc/initrd-release",
            "/virtio_blk.ko",
            "/virtio_scsi.ko",
            "/sr_mod.ko",
            "/overlay.ko",
            "/dm-crypt.ko",
        ] {
            assert!(has(end), "MODULES={modules}: no {end}\n{listed}");
        }
        assert_eq!(has("bin/busybox"), busybox == "y", "MODULES={modules} BUSYBOX={busybox}\n{listed}");
    }
}
