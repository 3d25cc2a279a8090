//! Tests of `make install DESTDIR=`: the files that a packager or an image builder gets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below `folder`, with its mode.
fn files(folder: &Path, below: &str, into: &mut Vec<(String, u32)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), &format!("{name}/"), into),
            false => into.push((name, entry.metadata().unwrap().permissions().mode() & 0o7777)),
        }
    }
}

/// `make install` with programs that `make build` would have made.
fn installed(destination: &Path, umask: &str) -> Vec<(String, u32)> {
    let built = tempfile::tempdir().unwrap();
    for program in ["imprint", "imprint-host"] {
        let path = built.path().join(program);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let make = format!("umask {umask}; exec make -C \"$1\" install DESTDIR=\"$2\" BIN=\"$3\"");
    let output = Command::new("sh")
        .args(["-c", &make, "make"])
        .args([&tree(), destination, built.path()])
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = Vec::new();
    files(destination, "", &mut found);
    found.sort();
    found
}

/// Both ways: each file of the folders that are installed is there, and nothing else; whatever the umask.
#[test]
fn everything_is_installed_and_nothing_else() {
    let destination = tempfile::tempdir().unwrap();
    let destination = destination.path().join("root");
    let mut want = vec![("usr/bin/imprint".to_owned(), 0o755), ("usr/bin/imprint-host".to_owned(), 0o755)];
    let names = |folder: &str| {
        let mut found = Vec::new();
        files(&tree().join(folder), "", &mut found);
        assert!(!found.is_empty(), "{folder}");
        found.into_iter().map(|(name, _)| name)
    };
    want.extend(names("systemd").map(|name| {
        let path = match name.rsplit_once('.').unwrap() {
            (stem, "sysusers") => format!("usr/lib/sysusers.d/{stem}.conf"),
            (stem, "tmpfiles") => format!("usr/lib/tmpfiles.d/{stem}.conf"),
            (_, "service" | "timer" | "target") => format!("usr/lib/systemd/system/{name}"),
            (_, other) => panic!("where is a .{other} installed?"),
        };
        (path, 0o644)
    }));
    want.extend(names("dracut/50imprint").map(|name| {
        let mode = if name.ends_with(".sh") { 0o755 } else { 0o644 };
        (format!("usr/lib/dracut/modules.d/50imprint/{name}"), mode)
    }));
    want.extend(names("initramfs").map(|name| (format!("usr/share/initramfs-tools/{name}"), 0o755)));
    want.extend(names("mkinitcpio").map(|name| (format!("usr/lib/initcpio/{name}"), 0o755)));
    want.extend(names("man").map(|name| {
        let section = name.rsplit_once('.').unwrap().1;
        (format!("usr/share/man/man{section}/{name}"), 0o644)
    }));
    want.extend(names("docs").map(|name| (format!("usr/share/doc/imprint/docs/{name}"), 0o644)));
    let pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE-MIT", "LICENSE-APACHE"];
    want.extend(pages.map(|name| (format!("usr/share/doc/imprint/{name}"), 0o644)));
    want.sort();
    assert_eq!(installed(&destination, "0077"), want);
    // A second time is an upgrade.
    assert_eq!(installed(&destination, "0022"), want);
}

/// A unit that starts a program which is installed somewhere else would fail at the first boot.
#[test]
fn units_and_module_name_the_places_where_the_files_are() {
    let destination = tempfile::tempdir().unwrap();
    let found = installed(destination.path(), "0022");
    let is_there = |path: &str| found.iter().any(|(name, _)| name == path.trim_start_matches('/'));
    let mut programs = 0;
    for (name, _) in found.iter().filter(|(name, _)| name.ends_with(".service")) {
        let unit = fs::read_to_string(destination.path().join(name)).unwrap();
        for line in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            // The initramfs leaves these units and their program in /run.
            let of_run = (name.ends_with("/imprint-available.service")
                && line == "/run/imprint/root/bin/imprint available")
                || (name.ends_with("/imprint-units.service")
                    && line == "/run/imprint/root/bin/imprint available --early");
            assert!(of_run || is_there(line.split(' ').next().unwrap()), "{name}: {line}");
            programs += 1;
        }
    }
    assert!(programs >= 5, "{programs}");
    let unit = "/usr/lib/systemd/system/imprint.service";
    for (builder, places) in [
        ("usr/lib/dracut/modules.d/50imprint/module-setup.sh", &["/usr/bin/imprint", unit][..]),
        ("usr/share/initramfs-tools/hooks/imprint", &["/usr/bin/imprint"]),
        ("usr/lib/initcpio/install/imprint", &["/usr/bin/imprint", unit]),
    ] {
        let text = fs::read_to_string(destination.path().join(builder)).unwrap();
        for place in places {
            assert!(is_there(place) && text.contains(&format!(":-{place}}}")), "{builder}: {place}");
        }
    }
}

/// Root must not compile, and half of an installation is worse than none.
#[test]
fn what_was_not_built_is_said_before_anything_is_installed() {
    let destination = tempfile::tempdir().unwrap();
    let nothing = tempfile::tempdir().unwrap();
    let output = Command::new("make")
        .arg("-C")
        .arg(tree())
        .arg("install")
        .arg(format!("DESTDIR={}", destination.path().display()))
        .arg(format!("BIN={}", nothing.path().display()))
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("imprint is not there: run make build first"), "{said}");
    assert_eq!(fs::read_dir(destination.path()).unwrap().count(), 0);
}
