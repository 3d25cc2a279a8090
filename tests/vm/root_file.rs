//! Tests of a payload in a file of the real root: from an initramfs that leaves it there, through systemd in the real root, to
//! a certificate.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::*;

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What the deployer put at `/etc/imprint/payload`.
#[derive(Clone, Copy)]
enum Payload {
    /// The payload with this mode.
    File(u32),
    /// A link to this path.
    Link(&'static str),
}

/// A disk as a deployer makes it: the agent, its unit enabled, and the payload.
fn disk(site: &Site, payload: Payload) -> PathBuf {
    let changed = site.work.path().join("changed");
    let put = |path: &str, bytes: &[u8], mode: u32| {
        let path = changed.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    put("usr/bin/imprint", &std::fs::read(tree("dist/x86_64/imprint")).unwrap(), 0o755);
    match payload {
        Payload::File(mode) => put("etc/imprint/payload", &site.payload, mode),
        Payload::Link(to) => {
            std::fs::create_dir_all(changed.join("etc/imprint")).unwrap();
            symlink(to, changed.join("etc/imprint/payload")).unwrap();
        }
    }
    let wants = changed.join("etc/systemd/system/sysinit.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    for name in ["imprint-root.service", "imprint.target"] {
        let unit = std::fs::read(tree("systemd").join(name)).unwrap();
        put(&format!("usr/lib/systemd/system/{name}"), &unit, 0o644);
        // `systemctl enable imprint-root.service` makes the links that the [Install] sections of both ask for.
        let install = String::from_utf8(unit).unwrap().split_once("\n[Install]\n").unwrap().1.to_owned();
        assert!(install.starts_with("WantedBy=sysinit.target\n"), "{install}");
        assert!(name == "imprint.target" || install.ends_with("\nAlso=imprint.target\n"), "{install}");
        symlink(format!("/usr/lib/systemd/system/{name}"), wants.join(name)).unwrap();
    }
    // The emergency shell reports and ends, instead of waiting for a person.
    let emergency = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/usr/bin/test-report emergency\n\
                     ExecStopPost=/usr/bin/systemctl poweroff --force --force\n";
    put("etc/systemd/system/emergency.service", emergency.as_bytes(), 0o644);
    let image = site.work.path().join("root.img");
    let made = Command::new(tree("tests/vm/quickstart/small-root"))
        .args([&image, &changed, &tree("tests/vm/root-report")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    image
}

/// `words`: of the kernel command line.
fn boot(site: &Site, payload: Payload, words: &str) -> Report {
    let image = disk(site, payload);
    machine(Kernel::Stable).append(words).root_disk(&image).qemu(&["-m", "1024"]).boot()
}

#[test]
fn from_a_file_on_the_root_to_a_certificate() {
    let site = Site::typical();
    let report = boot(&site, Payload::File(0o600), "imprint.source=root-file");
    let all = format!("{}\n{}", report.part("journal"), report.console);
    assert_eq!(report.part("where"), "root", "{all}");
    let service = report.part("service");
    assert!(service.contains("Result=success") && service.contains("ConditionResult=yes"), "{service}\n{all}");
    assert_eq!(report.status().outcome, Outcome::Done);
    came_from(&report, Medium::RootFile, "/etc/imprint/payload");
    assert!(report.part("cert").starts_with("-----BEGIN CERTIFICATE-----"), "{all}");
    // The service mounted it, and every process sees it.
    assert!(report.part("key").starts_with("-----BEGIN PRIVATE KEY-----"), "{all}");
    assert_eq!(report.part("hostname"), "node1");
    assert_eq!(report.part("target"), "ActiveState=active");
    assert!(report.part("unit").contains("Address=10.0.2.15/24"), "{}", report.part("unit"));
    assert_eq!(report.part("folder"), "", "the payload is spent");
    assert_eq!(report.status().steps.last().unwrap().name, "spent");
    assert_eq!(site.certificates_issued(), 1);
    // The agent of the initramfs said why it looked no further.
    assert!(
        report.console.contains("root-file is left to imprint-root.service in the real root"),
        "{}",
        report.console
    );
}

/// A machine without the identity that it should have must not boot on, neither in the initramfs nor in the real root.
#[test]
fn a_file_that_everybody_can_read_stops_the_real_root() {
    let site = Site::typical();
    let report = boot(&site, Payload::File(0o644), "imprint.source=root-file");
    let all = format!("{}\n{}", report.part("journal"), report.console);
    assert_eq!(report.part("where"), "emergency", "{all}");
    let (stage, message) = report.failure();
    assert_eq!(stage, "source");
    assert!(message.contains("/etc/imprint/payload has mode 0644"), "{message}");
    assert!(report.part("service").contains("ExecMainStatus=11"), "{}\n{all}", report.part("service"));
    assert_eq!(report.part("folder"), "payload");
    assert_eq!(report.part("target"), "ActiveState=inactive", "this machine has no identity");
    assert!(!report.part("multi-user").contains("=active"), "{all}");
    assert_eq!(site.certificates_issued(), 0);
}

/// The accident: the payload is a link to a place that is not mounted. A condition of systemd that follows links takes it for a
/// file that is not there, and the machine boots on without an identity, and without a word.
#[test]
fn a_link_that_leads_nowhere_stops_the_real_root() {
    let site = Site::typical();
    let report = boot(&site, Payload::Link("/srv/deploy/payload"), "");
    let all = format!("{}\n{}", report.part("journal"), report.console);
    assert_eq!(report.part("where"), "emergency", "{all}");
    let (stage, message) = report.failure();
    assert_eq!(stage, "source");
    assert!(message.contains("/etc/imprint/payload is a symbolic link, and imprint does not follow it"), "{message}");
    assert!(report.part("service").contains("ExecMainStatus=11"), "{}\n{all}", report.part("service"));
    assert!(!report.part("multi-user").contains("=active"), "{all}");
}
