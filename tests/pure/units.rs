//! Checks the installed units with systemd-analyze.

use std::process::Command;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd");

fn analyze(words: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(words).output();
    let output = output.unwrap_or_else(|error| panic!("systemd-analyze: {error}: run scripts/install-needs test"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// systemd's figure, in tenths, and its words. Worse than `most` fails here.
#[track_caller]
fn exposure(unit: &str, most: u32) -> u32 {
    let (within, text) =
        analyze(&["security", "--offline=true", &format!("--threshold={most}"), &format!("{FOLDER}/{unit}")]);
    let (_, figure) =
        text.split_once(&format!("Overall exposure level for {unit}: ")).unwrap_or_else(|| panic!("{text}"));
    println!("{unit}: {figure}");
    assert!(within, "{text}");
    let (whole, tenths) = figure.split(' ').next().unwrap().split_once('.').unwrap();
    whole.parse::<u32>().unwrap() * 10 + tenths.parse::<u32>().unwrap()
}

/// A unit without a sandbox is at 9 of 10 and more: what takes it over owns the machine. The figures are the bars. Each page
/// says what the unit reaches; another version of systemd counts other things, so it may be off by two tenths.
#[test]
fn units_can_do_little_but_their_job() {
    for (unit, most, page) in [
        ("imprint-host.service", 25, "docs/host.md"),
        ("imprint-renew.service", 30, "docs/est.md"),
        ("imprint-reload.service", 25, "docs/consumers.md"),
        ("imprint.service", 60, "docs/images.md"),
        ("imprint-root.service", 50, "docs/images.md"),
        ("imprint-apply.service", 65, "docs/images.md"),
        ("imprint-swap.service", 52, "docs/images.md"),
        ("imprint-netroot.service", 68, "docs/images.md"),
        ("imprint-available.service", 30, "docs/images.md"),
        ("imprint-units.service", 25, "docs/images.md"),
    ] {
        let figure = exposure(unit, most);
        let text = std::fs::read_to_string(format!("{FOLDER}/../{page}")).unwrap();
        let said: Vec<f64> =
            text.split(" of 10").filter_map(|before| before.rsplit(' ').next()?.parse().ok()).collect();
        let near = said.iter().any(|said| (said * 10.0 - f64::from(figure)).abs() < 2.5);
        assert!(near, "{page} does not say that {unit} is at {figure} tenths: {said:?}");
    }
}

/// The boot needs these. Each sandbox that mounts, or shuts devices out, would take the key or a drive away from it: with
/// `ProtectSystem=` and its like the memory file system with the key is gone with the service, and `DeviceAllow=` knows only
/// drivers that are loaded when the agent starts.
#[test]
fn the_boot_has_no_sandbox_that_would_take_its_job_away() {
    let keys = |unit: &str| -> Vec<String> {
        let unit = std::fs::read_to_string(format!("{FOLDER}/{unit}")).unwrap();
        let lines = unit.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split('=').next().map(ToOwned::to_owned)).collect()
    };
    let (initramfs, root) = (keys("imprint.service"), keys("imprint-root.service"));
    let (apply, netroot) = (keys("imprint-apply.service"), keys("imprint-netroot.service"));
    // What an overlay does for programs, it does with the rights of who has mounted it.
    for mounts in [&apply, &netroot] {
        assert!(!mounts.iter().any(|key| key == "CapabilityBoundingSet"), "{mounts:?}");
    }
    for key in [
        "ProtectSystem",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "ProtectProc",
        "ProcSubset",
        "ReadWritePaths",
        "ReadOnlyPaths",
        "InaccessiblePaths",
        "DeviceAllow",
        "DevicePolicy",
        "PrivateUsers",
        "PrivateNetwork",
        "IPAddressDeny",
        "DynamicUser",
        "User",
    ] {
        let is_there = |keys: &[String]| keys.iter().any(|found| found == key);
        assert!(!is_there(&initramfs), "{key}=");
        assert!(!is_there(&apply) || key == "IPAddressDeny", "imprint-apply.service: {key}=");
        assert!(!is_there(&netroot), "imprint-netroot.service: {key}=");
        // In the real root the unit reads no drive, and the devices that it uses are there from the start.
        assert!(!is_there(&root) || ["DeviceAllow", "DevicePolicy"].contains(&key), "imprint-root.service: {key}=");
    }
}

/// Nobody changes an order that nobody can explain. Each line that orders a unit, makes it depend on another, or is a condition, stands
/// under a remark; lines that belong together share one.
#[test]
fn every_line_that_orders_a_unit_has_a_reason() {
    const ORDERS: [&str; 8] =
        ["After=", "Before=", "Wants=", "Requires=", "RequiresMountsFor=", "Conflicts=", "Condition", "OnFailure="];
    for unit in [
        "imprint.service",
        "imprint-root.service",
        "imprint-apply.service",
        "imprint-swap.service",
        "imprint-netroot.service",
        "imprint-available.service",
        "imprint-units.service",
        "imprint-reload.service",
        "imprint.target",
    ] {
        let text = std::fs::read_to_string(format!("{FOLDER}/{unit}")).unwrap();
        let (_, section) = text.split_once("[Unit]\n").unwrap();
        let section = section.split("\n[").next().unwrap();
        let mut has_reason = false;
        for line in section.lines() {
            let orders = ORDERS.iter().any(|order| line.starts_with(order));
            assert!(!orders || has_reason, "{unit}: {line}");
            has_reason = line.starts_with('#') || has_reason && orders;
        }
    }
}

/// A unit of the bundle may bring the network up, or set the password of the only user: nothing that starts units may wait for the
/// network. And what looks at files must see them.
#[test]
fn units_of_a_bundle_start_without_the_network() {
    let lines = |unit: &str| {
        let text = std::fs::read_to_string(format!("{FOLDER}/{unit}")).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let (units, report) = (lines("imprint-units.service"), lines("imprint-available.service"));
    assert!(
        !units
            .iter()
            .any(|line| line.contains("network") || line.contains("multi-user.target") && line.starts_with("After"))
    );
    assert!(units.contains(&"DefaultDependencies=no".to_owned()), "multi-user.target must not wait for it");
    assert!(units.iter().any(|line| line == "ExecStart=/run/imprint/root/bin/imprint available --early"));
    assert!(report.iter().any(|line| line == "After=network-online.target"));
    assert!(report.iter().any(|line| line == "After=imprint-units.service"));
    for hides in ["ProtectHome=yes", "PrivateTmp=yes", "ProtectKernelModules=yes"] {
        assert!(!report.iter().any(|line| line == hides), "{hides}");
    }
    // It tells the configuration server when it fails.
    let apply = lines("imprint-apply.service");
    assert!(apply.iter().any(|line| line == "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"));
    assert!(!apply.iter().any(|line| line.starts_with("IPAddressDeny=")));
}

/// What speaks to the network has no capability, and what has one speaks to nobody but systemd.
#[test]
fn the_capability_that_reloads_is_not_where_the_network_is() {
    let lines = |unit: &str| {
        let text = std::fs::read_to_string(format!("{FOLDER}/{unit}")).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let (renew, reload) = (lines("imprint-renew.service"), lines("imprint-reload.service"));
    let has = |lines: &[String], wanted: &str| lines.iter().any(|line| line == wanted);
    assert!(has(&renew, "CapabilityBoundingSet=") && has(&renew, "RestrictAddressFamilies=AF_INET AF_INET6"));
    for line in [
        "CapabilityBoundingSet=CAP_SYS_ADMIN",
        "RestrictAddressFamilies=AF_UNIX",
        "IPAddressDeny=any",
        "InaccessiblePaths=-/run/imprint/private",
        "After=imprint-renew.service",
    ] {
        assert!(has(&reload, line), "{line}");
    }
    // Also when the renewal has failed, or was not due: what failed before is tried again.
    assert!(has(&renew, "Wants=imprint-reload.service"));
}

/// A word that is misspelt is a sandbox that is not there: systemd passes it over with a line in the journal.
#[test]
fn systemd_knows_every_line_of_the_units() {
    let verify = |path: &str| {
        let (_, said) = analyze(&["verify", "--man=no", path]);
        // The programs are not installed here.
        let lines = said.lines().filter(|line| !line.contains(" is not executable: No such file or directory"));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let folder = tempfile::tempdir().unwrap();
    let misspelt = folder.path().join("misspelt.service");
    std::fs::write(&misspelt, "[Service]\nExecStart=/bin/true\nProtectSytem=strict\n").unwrap();
    let said = verify(misspelt.to_str().unwrap());
    assert!(said.iter().any(|line| line.contains("'ProtectSytem'")), "{said:?}");
    for unit in [
        "imprint.service",
        "imprint-root.service",
        "imprint-apply.service",
        "imprint-swap.service",
        "imprint-netroot.service",
        "imprint-available.service",
        "imprint-units.service",
        "imprint-renew.service",
        "imprint-renew.timer",
        "imprint-reload.service",
        "imprint.target",
        "imprint-host.service",
    ] {
        assert_eq!(verify(&format!("{FOLDER}/{unit}")), Vec::<String>::new(), "{unit}");
    }
}
