//! Tests that services of the real root get key, certificate and CA through systemd's credentials, with the units of
//! docs/status.md, on a systemd that imports credentials from an initramfs and on one that does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{Kernel, Report, Site};

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The units on the page, each with its path, which is its first line: `# /etc/systemd/system/example.service`.
fn units_of_the_page() -> Vec<(String, String)> {
    let page = fs::read_to_string(tests().join("../docs/status.md")).unwrap();
    let (_, section) = page.split_once("\n## Services\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```ini\n# /").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.map(|block| block.split_once('\n').unwrap()).map(|(path, text)| (path.to_owned(), text.to_owned())).collect()
}

/// What a service of another project does: it opens the files that it is given, as its own user, and runs.
const EXAMPLE: &str = "#!/bin/sh\ncat \"$2\" \"$4\" \"$6\" >/dev/null || exit 1\nexec sleep 100000\n";
/// For the systemd that imports the CA.
const IMPORTING: &str = "[Service]\nType=oneshot\nImportCredential=imprint.*\nExecStart=/bin/cat %d/imprint.ca\n\
                         StandardOutput=file:/run/importing\n";

/// The disk of a real root with systemd, the units of the page, and the agent with its renewal.
fn disk(work: &Path, from: Option<&str>) -> PathBuf {
    let changed = work.join("changed");
    let put = |path: &str, text: &[u8]| {
        let path = changed.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let copy = |from: &str, to: &str| put(to, &fs::read(tests().join("..").join(from)).unwrap());
    copy("dist/x86_64/imprint", "usr/bin/imprint");
    copy("systemd/imprint-renew.service", "usr/lib/systemd/system/imprint-renew.service");
    put("usr/bin/example", EXAMPLE.as_bytes());
    put("etc/systemd/system/importing.service", IMPORTING.as_bytes());
    // The folders of a real system that the sandboxes of the units name.
    put("var/tmp/.keep", b"");
    let units = units_of_the_page();
    assert_eq!(units.len(), 3, "service, path, and the service of the path");
    for (path, text) in &units {
        put(path, text.as_bytes());
    }
    for program in ["imprint", "example"] {
        output(Command::new("chmod").arg("755").arg(changed.join("usr/bin").join(program)));
    }
    let wants = changed.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    for unit in ["example.service", "example-renewed.path"] {
        std::os::unix::fs::symlink(format!("../{unit}"), wants.join(unit)).unwrap();
    }
    let image = work.join("root.img");
    output(
        Command::new(tests().join("vm/quickstart/small-root"))
            .args([&image, &changed, &tests().join("vm/services/report")])
            .args(from),
    );
    image
}

fn boot(from: Option<&str>) -> Report {
    let site = Site::typical();
    let disk = disk(site.work.path(), from);
    site.machine(Kernel::Stable).root_disk(&disk).qemu(&["-m", "1024"]).boot()
}

/// The accident: a copy that is made once is stale after the first renewal, and a service that still uses it raises an
/// alarm at the server. With a path in its unit, a service gets the current files at each start, and keeps them as long
/// as it runs.
#[track_caller]
fn each_start_gets_what_is_current(report: &Report) {
    let all = format!("{}\n{}", report.part("journal"), report.console);
    assert_eq!(report.part("example"), "NRestarts=0\nActiveState=active", "{all}");
    let pair = |name: &str| (report.part(&format!("{name}-cert")), report.part(&format!("{name}-key")));
    let current = |name: &str| pair(&format!("{name}-current"));
    assert!(pair("first").0.starts_with("-----BEGIN CERTIFICATE-----"), "{all}");
    assert!(pair("first").1.starts_with("-----BEGIN PRIVATE KEY-----"), "{all}");
    assert_eq!(pair("first"), current("first"));
    // Premise: there was a renewal, and it replaced both.
    assert_ne!(current("kept").0, current("first").0, "{all}");
    assert_ne!(current("kept").1, current("first").1, "{all}");
    assert_eq!(pair("kept"), pair("first"), "what a service was given stays while it runs");
    assert_eq!(pair("second"), current("kept"), "the next start gets the renewed pair");
    // The path unit restarts the service by itself.
    assert_ne!(current("third"), current("second"), "{all}");
    assert_eq!(pair("third"), current("third"));
    assert_eq!(report.part("first-ca"), report.part("ca"));
    // The service does not run as root, and nobody else can read the key.
    assert!(!report.part("user").contains("\t0\t"), "{}", report.part("user"));
    assert!(
        ["400", "440"].iter().any(|mode| report.part("modes").ends_with(&format!(" {mode}"))),
        "{}",
        report.part("modes")
    );
}

/// systemd 252 imports nothing from an initramfs, and the units of the page do not need that.
#[test]
fn services_get_the_current_certificate_across_a_renewal() {
    let report = boot(None);
    each_start_gets_what_is_current(&report);
    assert!(report.part("version").starts_with("systemd 252"), "{}", report.part("version"));
    // The CA stays where it was left, as nobody imported it, and only root can read it.
    let left = "/run/credentials/@initrd 700\n/run/credentials/@initrd/imprint.ca 400";
    assert_eq!(report.part("left"), left);
    assert_eq!(report.part("left-ca"), report.part("ca"));
    assert!(report.part("imported").contains("No such file"), "{}", report.part("imported"));
}

/// systemd 254 and later: the CA, and nothing else, becomes a credential of the whole system as well.
#[test]
fn a_newer_systemd_imports_the_ca_too() {
    let from = output(&mut Command::new(tests().join("../scripts/newer-systemd")));
    let report = boot(Some(&from));
    each_start_gets_what_is_current(&report);
    let version = report.part("version");
    let number = version.strip_prefix("systemd ").and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(number.is_some_and(|number| number >= 254), "{version}");
    assert_eq!(report.part("imported"), report.part("ca"), "{}", report.console);
    assert_eq!(report.part("importing-ca"), report.part("ca"), "{}", report.part("journal"));
    assert!(report.part("left").contains("No such file"), "systemd removes what it imported: {}", report.part("left"));
}
