//! Every source with every init of the initramfs. Spread over the two kernels so that each init meets both: Linux 6.1 keeps
//! the key on a ramfs, backports' on a tmpfs without swap.

use crate::*;

/// How the payload reaches the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Iso,
}

/// The node comes up, says where its payload came from, and the real root finds all of it.
#[track_caller]
fn comes_up(way: Way, init: Init, kernel: Kernel) {
    let site = Site::typical();
    let machine = machine(kernel).init(init);
    let (machine, origin) = match way {
        Way::Iso => (machine.optical(&site.config_drive(&site.payload)), "config-drive sr0 (IMPRINT)"),
    };
    let report = machine.boot();
    came_up(&report);
    openssl_agrees(&report, &site.work.path().join("state/root.pem"));
    assert_eq!(report.status().origin.as_deref(), Some(origin));
    let private = report.mount("/run/imprint/private");
    match kernel {
        Kernel::Stable => assert_eq!(private, "ramfs rw,nosuid,nodev,noexec,relatime,mode=700"),
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
fn iso_with_systemd() {
    comes_up(Way::Iso, Init::Systemd, Kernel::Stable);
}

#[test]
fn iso_plain() {
    comes_up(Way::Iso, Init::Plain, Kernel::Backports);
}
