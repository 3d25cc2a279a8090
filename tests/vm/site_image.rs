//! One image for a whole site: the same bytes boot as three nodes, and what belongs to each node comes in an archive that the boot loader
//! appends.

use std::collections::BTreeSet;
use std::process::Command;

use crate::*;

/// What a program that was asked printed.
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder of the kernel, and its version.
pub(super) fn kernel() -> (PathBuf, String) {
    let kernel = PathBuf::from(run(Command::new(tree().join("scripts/kernel")).arg("stable")).trim());
    let version = std::fs::read_to_string(kernel.join("version")).unwrap();
    (kernel, version.trim().to_owned())
}

/// The image of the site: with its pin, and without anything of a node.
fn image(site: &Site) -> Vec<u8> {
    let (kernel, version) = kernel();
    let host = tree().join("dist/x86_64/imprint-host");
    let show = run(Command::new(&host).arg("--json").arg("--dir").arg(site.work.path().join("state")).arg("show"));
    let shown: serde_json::Value = serde_json::from_str(&show).unwrap();
    let pin = site.work.path().join("site");
    std::fs::write(&pin, format!("{}\n", shown.get("pin").and_then(|pin| pin.as_str()).unwrap())).unwrap();
    let image = site.work.path().join("imprint.cpio");
    run(Command::new(&host)
        .args(["image", "--compress", "gzip", "--words", "imprint=require", "--kernel-modules"])
        .arg(kernel.join("lib/modules").join(version))
        .arg("--site")
        .args([&pin, Path::new("-o"), &image]));
    std::fs::read(image).unwrap()
}

#[test]
fn boots_bare_cpio() {
    let site = Site::typical();
    let names = ["node1", "node2", "node3"];
    for (name, number) in names.iter().zip(1..).skip(1) {
        let record = format!(
            "name = \"{name}\"\nsubject = [\"CN={name}.example.org\"]\nsans = [\"dns:{name}.example.org\"]\n\
             hostname = \"{name}\"\nbind = {{ serial = \"VM-000{number}\" }}\n[[network]]\nmatch = {}\n{}",
            NODE.matching, NODE.network
        );
        site.state().add_nodes(&[(format!("{name}.toml"), record)], false, Timestamp::system()).unwrap();
    }
    let image = image(&site);
    let mut certificates = BTreeSet::new();
    for (name, number) in names.iter().zip(1..) {
        let options = compose::Options { expires: DAY, ..Default::default() };
        let payload = site.state().payload(name, &options, Timestamp::system()).unwrap().bytes;
        // The documented way: no padding, no tool but cat.
        let joined = [image.as_slice(), &imprint_host::cpio::archive(&payload).unwrap()].concat();
        let initrd = site.work.path().join(format!("{name}.img"));
        std::fs::write(&initrd, joined).unwrap();
        let report = Machine::new(Kernel::Stable)
            .init(Init::Bare)
            .qemu(&["-smbios", &format!("type=1,serial=VM-000{number}")])
            .initrd(&initrd)
            .boot();
        assert_eq!((report.ended_in(), report.part("hostname")), ("root", *name), "{}", report.console);
        assert_eq!(report.status().outcome, Outcome::Done);
        came_from(&report, Medium::Initramfs, "/imprint/payload");
        assert!(!report.console.contains("no site pin"), "{}", report.console);
        certificates.insert(report.part("cert").to_owned());
    }
    assert_eq!(certificates.len(), 3);
    assert_eq!(site.certificates_issued(), 3);
}
